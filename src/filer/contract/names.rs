//! Names and kinds.

use super::*;
use std::collections::BTreeSet;

pub(super) async fn run(make: &impl Fn() -> Ground) {
    cases!(make;
        a_name_that_is_taken_is_not_made_again,
        every_kind_is_made_with_exactly_its_attributes,
        device_nodes_are_made_where_they_can_be,
        a_rename_takes_the_place_of_a_file_and_of_an_empty_directory_only,
        a_rename_between_directories_keeps_the_identity,
        a_rename_over_another_name_of_the_same_object_changes_nothing,
        a_hard_link_is_another_name_of_the_same_object,
        a_file_without_a_name_gets_its_first_or_is_gone,
        a_file_that_was_made_without_a_name_is_like_any_other,
        a_directory_gets_no_second_name,
        a_symlink_is_read_and_never_followed,
        names_of_255_arbitrary_bytes_are_kept,
        names_that_are_no_plain_names_are_refused,
        removing_wants_the_right_kind,
        a_listing_by_pages_shows_what_stays_exactly_once,
        a_listing_of_many_names_ends_and_is_complete,
        a_symlink_put_in_the_place_of_a_directory_leads_nowhere,
    );
}

async fn a_name_that_is_taken_is_not_made_again(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let first = file(ground, &root, b"a").await;
    for what in [What::File, What::Dir, What::Symlink { target: b"x".to_vec() }] {
        assert_eq!(kind(f.make(&root, b"a", &what, attrs(0o600)).await), ErrorKind::Exists);
    }
    if f.capabilities().hard_links {
        assert_eq!(kind(f.link(&first, &root, b"a").await), ErrorKind::Exists);
    }
    assert_eq!(id_of(ground, &root, b"a").await, first.id);
    assert_eq!(f.stat(&first).await.unwrap().mode, 0o644);
}

async fn every_kind_is_made_with_exactly_its_attributes(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    // A set-gid directory would hand its group and its bit on.
    f.set(&root, Changes { mode: Some(0o2777), ..Changes::default() }).await.unwrap();
    for (n, (what, kind)) in ALL_WHATS.into_iter().enumerate() {
        let what = if kind == Kind::Symlink { What::Symlink { target: b"t".to_vec() } } else { what };
        for mode in [0o777, 0o000, 0o6751, 0o1666, 0o444] {
            let name = format!("{n}-{mode:o}");
            let mut wanted = attrs(mode);
            if f.capabilities().chown {
                (wanted.uid, wanted.gid) = (1234, 4321);
            }
            let made = f.make(&root, name.as_bytes(), &what, wanted).await.expect("make");
            let met = f.lookup(&root, name.as_bytes()).await.unwrap();
            assert_eq!((made.kind, &made.id), (kind, &met.id), "{name}");
            let seen = f.stat(&met).await.unwrap();
            assert_eq!((seen.kind, seen.uid, seen.gid), (kind, wanted.uid, wanted.gid), "{name}");
            if kind != Kind::Symlink {
                assert_eq!(seen.mode, mode, "{name}");
            }
            if kind == Kind::File {
                assert_eq!((seen.size, seen.nlink), (0, 1));
            }
        }
    }
}

async fn device_nodes_are_made_where_they_can_be(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    for (name, what) in [(&b"c"[..], What::Char { major: 1, minor: 300 }), (b"b", What::Block { major: 259, minor: 7 })]
    {
        let made = f.make(&root, name, &what, attrs(0o640)).await;
        if !f.capabilities().special_files {
            assert_eq!(kind(made), ErrorKind::NotPermitted);
            assert_eq!(kind(f.lookup(&root, name).await), ErrorKind::NotFound);
            continue;
        }
        let seen = f.stat(&made.unwrap()).await.unwrap();
        let rdev = if name == b"c" { (1, 300) } else { (259, 7) };
        assert_eq!((seen.kind, seen.mode, seen.rdev), (what.kind(), 0o640, rdev));
    }
}

async fn a_rename_takes_the_place_of_a_file_and_of_an_empty_directory_only(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    file(ground, &root, b"b").await;
    f.rename(&root, b"a", &root, b"b").await.unwrap();
    assert_eq!(id_of(ground, &root, b"b").await, a.id);
    assert_eq!(kind(f.lookup(&root, b"a").await), ErrorKind::NotFound);

    let empty = dir(ground, &root, b"empty").await;
    let full = dir(ground, &root, b"full").await;
    file(ground, &full, b"x").await;
    let moved = dir(ground, &root, b"moved").await;
    assert_eq!(kind(f.rename(&root, b"moved", &root, b"full").await), ErrorKind::NotEmpty);
    assert_eq!(kind(f.rename(&root, b"moved", &root, b"b").await), ErrorKind::NotDir);
    assert_eq!(kind(f.rename(&root, b"b", &root, b"empty").await), ErrorKind::IsDir);
    assert_eq!(kind(f.rename(&root, b"full", &full, b"below").await), ErrorKind::Invalid);
    assert_eq!(kind(f.rename(&root, b"none", &root, b"z").await), ErrorKind::NotFound);
    assert_eq!(id_of(ground, &root, b"empty").await, empty.id);
    assert_eq!(kind(f.rename_free(&root, b"moved", &root, b"empty").await), ErrorKind::Exists);
    assert_eq!(kind(f.rename_free(&root, b"b", &root, b"empty").await), ErrorKind::Exists);
    assert_eq!(kind(f.rename_free(&root, b"none", &root, b"z").await), ErrorKind::NotFound);
    f.rename_free(&root, b"b", &root, b"free").await.unwrap();
    f.rename_free(&root, b"free", &root, b"b").await.unwrap();
    f.rename(&root, b"moved", &root, b"empty").await.unwrap();
    assert_eq!(id_of(ground, &root, b"empty").await, moved.id);
    assert_eq!(sorted(ground, &root, 10).await, [b"b".to_vec(), b"empty".to_vec(), b"full".to_vec()]);
}

async fn a_rename_between_directories_keeps_the_identity(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let (one, two) = (dir(ground, &root, b"one").await, dir(ground, &root, b"two").await);
    let tree = dir(ground, &one, b"tree").await;
    let leaf = file(ground, &tree, b"leaf").await;
    f.write(&leaf, 0, Bytes::from_static(b"green")).await.unwrap();
    f.rename(&one, b"tree", &two, b"other").await.unwrap();
    let moved = f.lookup(&two, b"other").await.unwrap();
    assert_eq!(moved.id, tree.id);
    assert_eq!(id_of(ground, &tree, b"leaf").await, leaf.id, "a directory that is held is usable wherever it went");
    assert_eq!(f.read(&leaf, 0, 10).await.unwrap(), &b"green"[..]);
    assert!(sorted(ground, &one, 10).await.is_empty());
}

async fn a_rename_over_another_name_of_the_same_object_changes_nothing(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    if !f.capabilities().hard_links {
        return;
    }
    let a = file(ground, &root, b"a").await;
    f.link(&a, &root, b"b").await.unwrap();
    f.rename(&root, b"a", &root, b"b").await.unwrap();
    assert_eq!((id_of(ground, &root, b"a").await, id_of(ground, &root, b"b").await), (a.id.clone(), a.id.clone()));
    assert_eq!(f.stat(&a).await.unwrap().nlink, 2);
}

async fn a_hard_link_is_another_name_of_the_same_object(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    if !f.capabilities().hard_links {
        return;
    }
    let sub = dir(ground, &root, b"sub").await;
    for (name, made) in
        [(b"f", file(ground, &root, b"f").await), (b"l", symlink(ground, &root, b"l", b"nowhere").await)]
    {
        f.link(&made, &sub, name).await.unwrap();
        assert_eq!(id_of(ground, &sub, name).await, made.id);
        assert_eq!(f.stat(&made).await.unwrap().nlink, 2);
        f.remove(&root, name).await.unwrap();
        let left = f.lookup(&sub, name).await.unwrap();
        assert_eq!((left.id.clone(), left.kind, f.stat(&left).await.unwrap().nlink), (made.id.clone(), made.kind, 1));
    }
    let f1 = f.lookup(&sub, b"f").await.unwrap();
    f.write(&f1, 0, Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(f.stat(&f1).await.unwrap().size, 10);
}

async fn a_file_without_a_name_gets_its_first_or_is_gone(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    if !f.capabilities().nameless {
        return;
    }
    let sub = dir(ground, &root, b"sub").await;
    file(ground, &sub, b"taken").await;
    let kept = f.make_nameless(&sub, attrs(0o640)).await.unwrap();
    let left = f.make_nameless(&sub, attrs(0o640)).await.unwrap();
    assert_eq!((kept.kind, f.stat(&kept).await.unwrap().nlink), (Kind::File, 0));
    assert_eq!(names(ground, &sub, 10).await, [b"taken".to_vec()]);
    assert_eq!(kind(f.link(&kept, &sub, b"taken").await), ErrorKind::Exists);
    f.link(&kept, &sub, b"kept").await.unwrap();
    assert_eq!(id_of(ground, &sub, b"kept").await, kept.id);
    assert_eq!(f.stat(&kept).await.unwrap().nlink, 1);
    if f.capabilities().open_by_identity {
        assert_eq!(f.by_identity(&kept.id).await.unwrap().unwrap().id, kept.id);
        let id = left.id.clone();
        assert_eq!(kind(f.by_identity(&id).await), ErrorKind::Stale);
        drop(left);
        assert_eq!(kind(f.by_identity(&id).await), ErrorKind::Stale);
    }
    assert_eq!(kind(f.make_nameless(&kept, attrs(0o640)).await), ErrorKind::NotDir);
}

async fn a_file_that_was_made_without_a_name_is_like_any_other(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    if !f.capabilities().nameless {
        return;
    }
    // A set-gid directory would hand its group on.
    f.set(&root, Changes { mode: Some(0o2777), ..Changes::default() }).await.unwrap();
    for mode in [0o777, 0o000, 0o6751, 0o1666, 0o444, 0o600] {
        let mut wanted = attrs(mode);
        for owner in [None, Some((1234, 4321))].into_iter().filter(|owner| owner.is_none() || f.capabilities().chown) {
            (wanted.uid, wanted.gid) = owner.unwrap_or((wanted.uid, wanted.gid));
            let name = format!("{mode:o}-{}", wanted.uid);
            let made = f.make_nameless(&root, wanted).await.unwrap();
            f.write(&made, 0, Bytes::from_static(b"early")).await.unwrap();
            f.set(&made, Changes { mode: Some(mode), mtime: Some(Time(7_000_000_000)), ..Changes::default() })
                .await
                .unwrap();
            f.link(&made, &root, name.as_bytes()).await.unwrap();
            let met = f.lookup(&root, name.as_bytes()).await.unwrap();
            let seen = f.stat(&met).await.unwrap();
            assert_eq!((seen.mode, seen.uid, seen.gid, seen.nlink), (mode, wanted.uid, wanted.gid, 1), "{name}");
            assert_eq!(seen.mtime, Time(7_000_000_000));
            assert_eq!(f.read(&met, 0, 9).await.unwrap(), &b"early"[..]);
        }
    }
}

async fn a_directory_gets_no_second_name(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let sub = dir(ground, &root, b"sub").await;
    let refused = if f.capabilities().hard_links { ErrorKind::IsDir } else { ErrorKind::TooManyLinks };
    assert_eq!(kind(f.link(&sub, &root, b"again").await), refused);
}

async fn a_symlink_is_read_and_never_followed(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let target = dir(ground, &root, b"target").await;
    file(ground, &target, b"x").await;
    symlink(ground, &root, b"good", b"target").await;
    symlink(ground, &root, b"dangling", b"/no/such/place \xff").await;
    let good = f.lookup(&root, b"good").await.unwrap();
    let dangling = f.lookup(&root, b"dangling").await.unwrap();
    assert_eq!((good.kind, dangling.kind), (Kind::Symlink, Kind::Symlink));
    assert_eq!(f.readlink(&good).await.unwrap(), b"target");
    assert_eq!(f.readlink(&dangling).await.unwrap(), b"/no/such/place \xff");
    assert_eq!(kind(f.lookup(&good, b"x").await), ErrorKind::NotDir);
    assert_eq!(kind(f.list(&good, 0, 10).await), ErrorKind::NotDir);
    assert_eq!(kind(f.make(&good, b"y", &What::File, attrs(0o644)).await), ErrorKind::NotDir);
    assert_eq!(kind(f.read(&good, 0, 1).await), ErrorKind::Invalid);
    assert_eq!(kind(f.write(&good, 0, Bytes::from_static(b"x")).await), ErrorKind::Invalid);
    assert_eq!(kind(f.make(&root, b"dangling", &What::File, attrs(0o644)).await), ErrorKind::Exists);
    assert_eq!(kind(f.readlink(&target).await), ErrorKind::Invalid);
    let time = Time(1_234_567_890_000_000_000);
    f.set(&good, Changes { mtime: Some(time), ..Changes::default() }).await.unwrap();
    assert_eq!(f.stat(&good).await.unwrap().mtime, time);
    assert_ne!(f.stat(&target).await.unwrap().mtime, time);
    f.remove(&root, b"good").await.unwrap();
    assert_eq!(id_of(ground, &root, b"target").await, target.id);
}

async fn names_of_255_arbitrary_bytes_are_kept(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let mut wanted: Vec<Vec<u8>> = Vec::new();
    let bytes: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    wanted.push(bytes.iter().copied().chain([b'x']).collect());
    wanted.push(vec![0xff; 255]);
    wanted.push(b"...".to_vec());
    wanted.push(b" \n".to_vec());
    for name in &wanted {
        let made = file(ground, &root, name).await;
        assert_eq!(id_of(ground, &root, name).await, made.id);
    }
    wanted.sort();
    assert_eq!(sorted(ground, &root, 2).await, wanted);
    for name in &wanted {
        f.remove(&root, name).await.unwrap();
    }
}

async fn names_that_are_no_plain_names_are_refused(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    let sub = dir(ground, &root, b"sub").await;
    for bad in [&b""[..], b".", b"..", b"/", b"sub/x", b"/etc", b"a\0", b"../a", &[b'n'; 256]] {
        assert_eq!(kind(f.lookup(&sub, bad).await), ErrorKind::Invalid, "{bad:?}");
        assert_eq!(kind(f.make(&sub, bad, &What::File, attrs(0o644)).await), ErrorKind::Invalid);
        assert_eq!(kind(f.make(&sub, bad, &What::Dir, attrs(0o755)).await), ErrorKind::Invalid);
        assert_eq!(kind(f.link(&a, &sub, bad).await), ErrorKind::Invalid);
        assert_eq!(kind(f.rename(&root, b"a", &sub, bad).await), ErrorKind::Invalid);
        assert_eq!(kind(f.rename(&sub, bad, &root, b"b").await), ErrorKind::Invalid);
        assert_eq!(kind(f.remove(&sub, bad).await), ErrorKind::Invalid);
        assert_eq!(kind(f.rmdir(&sub, bad).await), ErrorKind::Invalid);
    }
    assert_eq!(sorted(ground, &root, 10).await, [b"a".to_vec(), b"sub".to_vec()]);
}

async fn removing_wants_the_right_kind(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    file(ground, &root, b"a").await;
    let sub = dir(ground, &root, b"sub").await;
    file(ground, &sub, b"x").await;
    assert_eq!(kind(f.remove(&root, b"sub").await), ErrorKind::IsDir);
    assert_eq!(kind(f.rmdir(&root, b"a").await), ErrorKind::NotDir);
    assert_eq!(kind(f.rmdir(&root, b"sub").await), ErrorKind::NotEmpty);
    assert_eq!(kind(f.remove(&root, b"none").await), ErrorKind::NotFound);
    assert_eq!(kind(f.rmdir(&root, b"none").await), ErrorKind::NotFound);
    f.remove(&sub, b"x").await.unwrap();
    f.rmdir(&root, b"sub").await.unwrap();
    f.remove(&root, b"a").await.unwrap();
    assert!(sorted(ground, &root, 10).await.is_empty());
    assert_eq!(
        kind(f.make(&sub, b"y", &What::File, attrs(0o644)).await),
        ErrorKind::NotFound,
        "in a removed directory"
    );
}

async fn a_listing_by_pages_shows_what_stays_exactly_once(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let (mut stays, mut from, mut met) = (BTreeSet::new(), 0, Vec::new());
    for n in 0..60 {
        let name = format!("stays-{n}").into_bytes();
        file(ground, &root, &name).await;
        file(ground, &root, format!("goes-{n}").as_bytes()).await;
        stays.insert(name);
    }
    for round in 0.. {
        let page = f.list(&root, from, 7).await.unwrap();
        met.extend(page.names.into_iter().filter(|name| name.starts_with(b"stays-")));
        if round < 60 {
            f.remove(&root, format!("goes-{round}").as_bytes()).await.unwrap();
            file(ground, &root, format!("comes-{round}").as_bytes()).await;
        }
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(met.len(), stays.len(), "each exactly once");
    assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), stays);
}

async fn a_listing_of_many_names_ends_and_is_complete(ground: &Ground) {
    let root = root(ground).await;
    let mut wanted = Vec::new();
    for n in 0..1500 {
        let name = format!("a somewhat longer name, so that one read of the directory is not enough {n}").into_bytes();
        file(ground, &root, &name).await;
        wanted.push(name);
    }
    wanted.sort();
    for max in [1, 100, 1_000_000] {
        assert_eq!(sorted(ground, &root, max).await, wanted, "by {max}");
    }
}

async fn a_symlink_put_in_the_place_of_a_directory_leads_nowhere(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let (inside, outside) = (dir(ground, &root, b"inside").await, dir(ground, &root, b"outside").await);
    file(ground, &outside, b"secret").await;
    f.rename(&root, b"inside", &root, b"aside").await.unwrap();
    symlink(ground, &root, b"inside", b"outside").await;
    let link = f.lookup(&root, b"inside").await.unwrap();
    assert_eq!(kind(f.lookup(&link, b"secret").await), ErrorKind::NotDir);
    assert_eq!(kind(f.lookup(&inside, b"secret").await), ErrorKind::NotFound, "the held directory is the old one");
    file(ground, &inside, b"mine").await;
    let aside = f.lookup(&root, b"aside").await.unwrap();
    assert_eq!(sorted(ground, &aside, 10).await, [b"mine".to_vec()]);
    assert_eq!(sorted(ground, &outside, 10).await, [b"secret".to_vec()]);
}
