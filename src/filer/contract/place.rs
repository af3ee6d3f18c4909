//! Identities, and the location as a whole.

use super::*;

pub(super) async fn run(make: &impl Fn() -> Ground) {
    cases!(make;
        an_identity_outlives_the_name_and_is_not_used_again,
        an_object_is_found_by_identity_until_it_is_removed,
        the_root_keeps_its_identity,
        what_tain_keeps_is_hidden_at_the_root_and_only_there,
        the_pen_is_there_when_it_is_asked_for,
        the_owner_marker_is_put_replaced_and_taken_away,
        another_directory_in_the_place_of_the_root_is_down,
        a_sync_and_the_space_left_are_answered,
        many_callers_at_once_do_not_disturb_each_other,
    );
}

async fn an_identity_outlives_the_name_and_is_not_used_again(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let a = file(ground, &root, b"a").await;
        assert!(a.id.0.len() <= Identity::MAX && !a.id.0.is_empty());
        f.rename(&root, b"a", &root, b"b").await.unwrap();
        f.write(&a, 0, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(id_of(ground, &root, b"b").await, a.id);
        f.remove(&root, b"b").await.unwrap();
        assert!(used.insert(a.id.clone()), "used for another object before");
    }
    for _ in 0..20 {
        let d = dir(ground, &root, b"d").await;
        f.rmdir(&root, b"d").await.unwrap();
        assert!(used.insert(d.id.clone()), "used for another object before");
    }
}

async fn an_object_is_found_by_identity_until_it_is_removed(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let sub = dir(ground, &root, b"sub").await;
    let a = file(ground, &sub, b"a").await;
    let link = symlink(ground, &sub, b"l", b"a").await;
    f.rename(&sub, b"a", &root, b"elsewhere").await.unwrap();
    for made in [&a, &sub, &link] {
        match f.by_identity(&made.id).await.unwrap() {
            Some(found) => assert_eq!((&found.id, found.kind), (&made.id, made.kind)),
            None => assert!(!f.capabilities().open_by_identity, "every object can be found so"),
        }
    }
    let id = a.id.clone();
    drop(a);
    f.remove(&root, b"elsewhere").await.unwrap();
    match f.by_identity(&id).await {
        Ok(Some(_)) => panic!("found although it is removed"),
        Ok(None) => assert!(!f.capabilities().open_by_identity, "certainly gone"),
        Err(e) => assert_eq!(e.kind, ErrorKind::Stale, "{e}"),
    }
    for forged in [vec![], vec![1], vec![1; 30], vec![9; 144]] {
        assert!(!matches!(f.by_identity(&Identity(forged)).await, Ok(Some(_))));
    }
}

async fn the_root_keeps_its_identity(ground: &Ground) {
    let first = root(ground).await;
    file(ground, &first, b"a").await;
    let again = root(ground).await;
    assert_eq!((again.id, again.kind), (first.id, Kind::Dir));
}

async fn what_tain_keeps_is_hidden_at_the_root_and_only_there(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    let sub = dir(ground, &root, b"sub").await;
    let pen = f.pen().await.unwrap();
    f.claim(&marker(1)).await.unwrap();
    assert_eq!(sorted(ground, &root, 1).await, [b"a".to_vec(), b"sub".to_vec()]);
    for name in [crate::filer::hidden::PEN, crate::filer::hidden::OWNER_FILE] {
        assert_eq!(kind(f.lookup(&root, name).await), ErrorKind::NotFound);
        assert_eq!(kind(f.make(&root, name, &What::File, attrs(0o644)).await), ErrorKind::Access);
        assert_eq!(kind(f.link(&a, &root, name).await), ErrorKind::Access);
        assert_eq!(kind(f.rename(&root, b"a", &root, name).await), ErrorKind::Access);
        assert_eq!(kind(f.rename(&root, name, &root, b"z").await), ErrorKind::NotFound);
        assert_eq!(kind(f.remove(&root, name).await), ErrorKind::NotFound);
        assert_eq!(kind(f.rmdir(&root, name).await), ErrorKind::NotFound);
        // Elsewhere it is a name like any other.
        let made = file(ground, &sub, name).await;
        assert_eq!(id_of(ground, &sub, name).await, made.id);
    }
    assert_eq!(sorted(ground, &sub, 10).await.len(), 2);
    assert_eq!(f.pen().await.unwrap().id, pen.id);
    assert!(f.xattrs(&root).await.unwrap().is_empty(), "the marker is no attribute of the client's");
}

async fn the_pen_is_there_when_it_is_asked_for(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    f.remove_pen().await.unwrap();
    let pen = f.pen().await.unwrap();
    assert_eq!(f.stat(&pen).await.unwrap().mode, 0o700);
    let a = file(ground, &root, b"a").await;
    f.rename(&root, b"a", &pen, b"n17").await.unwrap();
    assert_eq!(id_of(ground, &pen, b"n17").await, a.id);
    f.remove_pen().await.unwrap();
    assert_eq!(f.pen().await.unwrap().id, pen.id, "a pen with something in it stays");
    f.rename(&pen, b"n17", &root, b"back").await.unwrap();
    f.remove_pen().await.unwrap();
    assert_ne!(f.pen().await.unwrap().id, pen.id);
    assert_eq!(sorted(ground, &root, 10).await, [b"back".to_vec()]);
}

fn marker(epoch: u64) -> OwnerMarker {
    OwnerMarker { journal_id: *b"\x00\xff23456789abcdef", location: 3, epoch }
}

async fn the_owner_marker_is_put_replaced_and_taken_away(ground: &Ground) {
    let f = &ground.filer;
    assert_eq!(f.owner().await.unwrap(), None);
    f.unclaim().await.unwrap();
    for epoch in [1, 2, u64::MAX] {
        f.claim(&marker(epoch)).await.unwrap();
        assert_eq!(f.owner().await.unwrap(), Some(marker(epoch)));
    }
    f.unclaim().await.unwrap();
    assert_eq!(f.owner().await.unwrap(), None);
}

async fn another_directory_in_the_place_of_the_root_is_down(ground: &Ground) {
    let root = root(ground).await;
    file(ground, &root, b"a").await;
    (ground.replace_root)();
    assert_eq!(kind(ground.filer.root().await), ErrorKind::Down);
    // What is held is still the old place's: nothing goes into the new one.
    file(ground, &root, b"b").await;
    assert_eq!(sorted(ground, &root, 10).await, [b"a".to_vec(), b"b".to_vec()]);
}

async fn a_sync_and_the_space_left_are_answered(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    f.write(&a, 0, vec![1; 100_000].into()).await.unwrap();
    f.sync().await.unwrap();
    let seen = f.statfs().await.unwrap();
    assert!(seen.total_bytes >= seen.free_bytes && seen.free_bytes >= seen.avail_bytes && seen.total_bytes > 0);
    assert!(seen.total_files >= seen.free_files);
}

async fn many_callers_at_once_do_not_disturb_each_other(ground: &Ground) {
    let root = root(ground).await;
    let mut tasks = Vec::new();
    for n in 0..200u32 {
        let (f, root) = (ground.filer.clone(), root.clone());
        tasks.push(tokio::spawn(async move {
            let name = format!("f{n}").into_bytes();
            let mode = if n % 2 == 0 { 0o644 } else { 0o444 };
            let made = f.make(&root, &name, &What::File, attrs(mode)).await.unwrap();
            f.write(&made, u64::from(n), n.to_le_bytes().to_vec().into()).await.unwrap();
            let met = f.lookup(&root, &name).await.unwrap();
            assert_eq!(f.read(&met, u64::from(n), 9).await.unwrap(), n.to_le_bytes()[..]);
            assert_eq!(f.stat(&met).await.unwrap().mode, mode);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(names(ground, &root, 33).await.len(), 200);
}
