//! Bytes and attributes.

use super::*;

pub(super) async fn run(make: &impl Fn() -> Ground) {
    cases!(make;
        what_was_written_is_read_back_and_no_more,
        a_write_far_out_leaves_a_hole_that_reads_as_zeros,
        a_punched_range_reads_as_zeros_and_keeps_the_size,
        a_truncated_file_shows_no_old_bytes_when_it_grows,
        attributes_are_set_exactly_and_alone,
        owners_are_changed_where_they_can_be,
        a_file_that_nobody_may_open_is_read_and_written_all_the_same,
        a_directory_that_nobody_may_write_is_changed_all_the_same,
        offsets_beyond_the_largest_are_refused,
        data_calls_on_a_directory_are_refused,
        a_removed_file_is_usable_while_it_is_held,
        extended_attributes_are_kept_by_name,
        an_acl_goes_with_the_mode_and_is_handed_on_where_that_is_asked_for,
    );
}

async fn what_was_written_is_read_back_and_no_more(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    assert_eq!(f.read(&a, 0, 100).await.unwrap(), Bytes::new());
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).take(3_000_001).collect();
    f.write(&a, 0, data.clone().into()).await.unwrap();
    f.write(&a, 5, Bytes::from_static(b"HELLO")).await.unwrap();
    f.write(&a, 9, Bytes::new()).await.unwrap();
    let mut wanted = data;
    wanted[5..10].copy_from_slice(b"HELLO");
    assert_eq!(f.stat(&a).await.unwrap().size, 3_000_001);
    let again = f.lookup(&root, b"a").await.unwrap();
    assert_eq!(f.read(&again, 0, u32::MAX).await.unwrap(), wanted);
    assert_eq!(f.read(&again, 3, 9).await.unwrap(), wanted[3..12]);
    assert_eq!(f.read(&again, 2_999_999, 100).await.unwrap(), wanted[2_999_999..]);
    assert!(f.read(&again, 3_000_001, 1).await.unwrap().is_empty());
    assert!(f.read(&again, 1 << 40, 10).await.unwrap().is_empty());
    assert!(f.read(&again, u64::MAX, 10).await.unwrap().is_empty());
    assert!(f.read(&again, 0, 0).await.unwrap().is_empty());
}

async fn a_write_far_out_leaves_a_hole_that_reads_as_zeros(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    let far = (1 << 32) + (1 << 20);
    f.write(&a, far, Bytes::from_static(b"end")).await.unwrap();
    let seen = f.stat(&a).await.unwrap();
    assert_eq!(seen.size, far + 3);
    assert_eq!(f.read(&a, far - 4, 100).await.unwrap(), &b"\0\0\0\0end"[..]);
    let ranges = f.data_ranges(&a, 0, u64::MAX).await.unwrap();
    covers(&ranges, far, far + 3);
    if f.capabilities().holes {
        assert!(seen.used < 1 << 20, "{} bytes are in use", seen.used);
        assert!(ranges.iter().map(|(_, len)| len).sum::<u64>() < 1 << 20, "{ranges:?}");
    }
    // Only the part that was asked for, and nothing behind the end.
    assert!(f.data_ranges(&a, far + 3, 10).await.unwrap().is_empty());
    assert_eq!(f.data_ranges(&a, far + 1, 1).await.unwrap(), [(far + 1, 1)]);
}

fn covers(ranges: &[(u64, u64)], from: u64, to: u64) {
    assert!(ranges.iter().any(|(at, len)| *at <= from && at + len >= to), "{from}..{to} is not in {ranges:?}");
    assert!(ranges.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "not ascending: {ranges:?}");
}

async fn a_punched_range_reads_as_zeros_and_keeps_the_size(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    f.write(&a, 0, vec![b'x'; 1 << 20].into()).await.unwrap();
    f.punch(&a, 1000, 900_000).await.unwrap();
    f.punch(&a, (1 << 20) - 1, 1 << 30).await.unwrap();
    f.punch(&a, 1 << 40, 5).await.unwrap();
    f.punch(&a, 3, 0).await.unwrap();
    let mut wanted = vec![b'x'; 1 << 20];
    wanted[1000..901_000].fill(0);
    wanted[(1 << 20) - 1] = 0;
    assert_eq!(f.read(&a, 0, 2 << 20).await.unwrap(), wanted);
    assert_eq!(f.stat(&a).await.unwrap().size, 1 << 20);
    let ranges = f.data_ranges(&a, 0, 1 << 20).await.unwrap();
    covers(&ranges, 0, 1000);
    covers(&ranges, 901_000, (1 << 20) - 1);
    if f.capabilities().holes {
        assert!(ranges.iter().map(|(_, len)| len).sum::<u64>() < 600_000, "{ranges:?}");
    }
}

async fn a_truncated_file_shows_no_old_bytes_when_it_grows(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    let size = |size| Changes { size: Some(size), ..Changes::default() };
    f.write(&a, 0, vec![b'x'; 10_000].into()).await.unwrap();
    f.set(&a, size(5)).await.unwrap();
    f.set(&a, size(9)).await.unwrap();
    assert_eq!(f.read(&a, 0, 100).await.unwrap(), &b"xxxxx\0\0\0\0"[..]);
    f.set(&a, size(0)).await.unwrap();
    assert_eq!(f.stat(&a).await.unwrap().size, 0);
}

async fn attributes_are_set_exactly_and_alone(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    for (made, size) in [(file(ground, &root, b"f").await, Some(77)), (dir(ground, &root, b"d").await, None)] {
        let (atime, mtime) = (Time(1_000_000_001_123_456_789), Time(-5_000_000_000));
        f.set(&made, Changes { atime: Some(atime), mtime: Some(mtime), ..Changes::default() }).await.unwrap();
        let seen = f.stat(&made).await.unwrap();
        assert_eq!((seen.atime, seen.mtime), (atime, mtime));
        f.set(&made, Changes { mode: Some(0o7421), ..Changes::default() }).await.unwrap();
        let seen = f.stat(&made).await.unwrap();
        assert_eq!((seen.mode, seen.atime, seen.mtime), (0o7421, atime, mtime));
        // Everything at once: the times are the ones given, although the size changes, and the mode survives both.
        let mtime = Time(1_700_000_000_987_654_321);
        let all = Changes { mode: Some(0o6440), size, atime: Some(atime), mtime: Some(mtime), ..Changes::default() };
        f.set(&made, all).await.unwrap();
        let seen = f.stat(&made).await.unwrap();
        assert_eq!((seen.mode, seen.atime, seen.mtime), (0o6440, atime, mtime));
        if let Some(size) = size {
            assert_eq!(seen.size, size);
        }
        f.set(&made, Changes::default()).await.unwrap();
        assert_eq!(f.stat(&made).await.unwrap().mtime, mtime);
    }
}

async fn owners_are_changed_where_they_can_be(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = f.make(&root, b"a", &What::File, attrs(0o6755)).await.unwrap();
    let give = Changes { uid: Some(777), gid: Some(888), ..Changes::default() };
    if !f.capabilities().chown {
        assert_eq!(kind(f.set(&a, give).await), ErrorKind::NotPermitted);
        let theirs = MakeAttrs { mode: 0o644, uid: 777, gid: 888, inherits: false };
        assert_eq!(kind(f.make(&root, b"b", &What::File, theirs).await), ErrorKind::NotPermitted);
        assert_eq!(kind(f.make(&root, b"c", &What::Dir, theirs).await), ErrorKind::NotPermitted);
        assert_eq!(sorted(ground, &root, 10).await, [b"a".to_vec()], "what could not be made right is not left behind");
        let own = attrs(0o600);
        f.set(&a, Changes { uid: Some(own.uid), gid: Some(own.gid), ..Changes::default() }).await.unwrap();
        return;
    }
    f.set(&a, give).await.unwrap();
    let seen = f.stat(&a).await.unwrap();
    assert_eq!((seen.uid, seen.gid, seen.mode), (777, 888, 0o6755), "set-id bits that nobody asked to clear stay");
    f.set(&a, Changes { gid: Some(5), mode: Some(0o755), ..Changes::default() }).await.unwrap();
    let seen = f.stat(&a).await.unwrap();
    assert_eq!((seen.uid, seen.gid, seen.mode), (777, 5, 0o755));
    let link = symlink(ground, &root, b"l", b"a").await;
    f.set(&link, Changes { uid: Some(9), ..Changes::default() }).await.unwrap();
    assert_eq!((f.stat(&link).await.unwrap().uid, f.stat(&a).await.unwrap().uid), (9, 777));
}

async fn a_file_that_nobody_may_open_is_read_and_written_all_the_same(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    for mode in [0o444, 0o000] {
        let name = format!("{mode}");
        let made = f.make(&root, name.as_bytes(), &What::File, attrs(mode)).await.unwrap();
        f.write(&made, 0, Bytes::from_static(b"one")).await.unwrap();
        let again = f.lookup(&root, name.as_bytes()).await.unwrap();
        f.write(&again, 3, Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(f.read(&again, 0, 100).await.unwrap(), &b"onetwo"[..]);
        f.set(&again, Changes { size: Some(2), ..Changes::default() }).await.unwrap();
        let seen = f.stat(&again).await.unwrap();
        assert_eq!((seen.mode, seen.size), (mode, 2));
    }
}

async fn a_directory_that_nobody_may_write_is_changed_all_the_same(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    for mode in [0o555, 0o000] {
        let name = format!("{mode}");
        let made = f.make(&root, name.as_bytes(), &What::Dir, attrs(mode)).await.unwrap();
        let a = file(ground, &made, b"a").await;
        f.rename(&made, b"a", &made, b"b").await.unwrap();
        assert_eq!(id_of(ground, &made, b"b").await, a.id);
        assert_eq!(sorted(ground, &made, 5).await, [b"b".to_vec()]);
        let sub = f.make(&made, b"sub", &What::Dir, attrs(mode)).await.unwrap();
        f.rename(&made, b"sub", &root, b"out").await.unwrap();
        assert_eq!(id_of(ground, &root, b"out").await, sub.id);
        f.rmdir(&root, b"out").await.unwrap();
        f.remove(&made, b"b").await.unwrap();
        assert_eq!(f.stat(&made).await.unwrap().mode, mode);
    }
}

async fn offsets_beyond_the_largest_are_refused(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    let data = Bytes::from_static(b"x");
    for offset in [u64::MAX, i64::MAX.cast_unsigned()] {
        assert_eq!(kind(f.write(&a, offset, data.clone()).await), ErrorKind::FileTooBig);
    }
    let huge = Changes { size: Some(u64::MAX), ..Changes::default() };
    assert_eq!(kind(f.set(&a, huge).await), ErrorKind::FileTooBig);
    assert!(f.data_ranges(&a, u64::MAX, u64::MAX).await.unwrap().is_empty());
    f.punch(&a, u64::MAX, u64::MAX).await.unwrap();
    assert_eq!(f.stat(&a).await.unwrap().size, 0);
}

async fn data_calls_on_a_directory_are_refused(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let sub = dir(ground, &root, b"sub").await;
    assert_eq!(kind(f.read(&sub, 0, 1).await), ErrorKind::IsDir);
    assert_eq!(kind(f.write(&sub, 0, Bytes::from_static(b"x")).await), ErrorKind::IsDir);
    assert_eq!(kind(f.set(&sub, Changes { size: Some(0), ..Changes::default() }).await), ErrorKind::IsDir);
    let a = file(ground, &root, b"a").await;
    assert_eq!(kind(f.lookup(&a, b"x").await), ErrorKind::NotDir);
    assert_eq!(kind(f.list(&a, 0, 1).await), ErrorKind::NotDir);
}

async fn a_removed_file_is_usable_while_it_is_held(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = file(ground, &root, b"a").await;
    f.write(&a, 0, Bytes::from_static(b"abc")).await.unwrap();
    f.remove(&root, b"a").await.unwrap();
    assert_eq!(f.read(&a, 0, 10).await.unwrap(), &b"abc"[..]);
    assert_eq!(f.stat(&a).await.unwrap().nlink, 0);
}

async fn extended_attributes_are_kept_by_name(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    if !f.capabilities().xattrs {
        return;
    }
    let a = f.make(&root, b"a", &What::File, attrs(0o400)).await.unwrap();
    assert!(f.xattrs(&a).await.unwrap().is_empty());
    f.set_xattr(&a, b"user.two", b"\0\xff").await.unwrap();
    f.set_xattr(&a, b"user.one", b"old").await.unwrap();
    f.set_xattr(&a, b"user.one", b"").await.unwrap();
    f.set_xattr(&a, b"user.big", &[7; 2000]).await.unwrap();
    let wanted = [("user.big", vec![7; 2000]), ("user.one", vec![]), ("user.two", vec![0, 255])];
    assert_eq!(f.xattrs(&a).await.unwrap(), wanted.map(|(name, value)| (name.as_bytes().to_vec(), value)));
    assert_eq!(kind(f.set_xattr(&a, b"trusted.x", b"1").await), ErrorKind::NotSupported);
    let link = symlink(ground, &root, b"l", b"a").await;
    assert!(f.xattrs(&link).await.unwrap().is_empty(), "a symlink's are not its target's");
}

/// Owner, user 30 with all, group r-x, mask, others nothing.
fn acl(owner: u16, mask: u16) -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, owner, u32::MAX), (2, 7, 30), (4, 5, u32::MAX), (16, mask, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

async fn an_acl_goes_with_the_mode_and_is_handed_on_where_that_is_asked_for(ground: &Ground) {
    let (f, root) = (&ground.filer, root(ground).await);
    let a = dir(ground, &root, b"a").await;
    let (access, default) = (AclKind::Access.xattr().as_bytes(), AclKind::Default.xattr().as_bytes());
    if !f.capabilities().acls {
        assert_eq!(kind(f.set_xattr(&a, access, &acl(7, 7)).await), ErrorKind::NotSupported);
        return;
    }
    f.set_xattr(&a, access, &acl(7, 3)).await.unwrap();
    assert_eq!((f.stat(&a).await.unwrap().mode, f.acl(&a, AclKind::Default).await.unwrap()), (0o730, None));
    f.set(&a, Changes { mode: Some(0o2750), ..Changes::default() }).await.unwrap();
    assert_eq!(f.acl(&a, AclKind::Access).await.unwrap().unwrap(), acl(7, 5), "the mask is the mode's");
    f.set_xattr(&a, default, &acl(7, 7)).await.unwrap();
    for (what, handed_on) in [(What::File, None), (What::Dir, Some(Bytes::from(acl(7, 7))))] {
        let attrs = MakeAttrs { inherits: true, ..attrs(0o640) };
        let made = f.make(&a, b"made", &what, attrs).await.unwrap();
        assert_eq!(f.stat(&made).await.unwrap().mode, 0o640);
        assert_eq!(f.acl(&made, AclKind::Access).await.unwrap().unwrap(), acl(6, 4));
        assert_eq!(f.acl(&made, AclKind::Default).await.unwrap(), handed_on);
        let alone = f.make(&a, b"alone", &what, MakeAttrs { inherits: false, ..attrs }).await.unwrap();
        assert!(f.xattrs(&alone).await.unwrap().is_empty());
        for name in [&b"made"[..], b"alone"] {
            if what == What::Dir { f.rmdir(&a, name).await } else { f.remove(&a, name).await }.unwrap();
        }
    }
    for name in [access, default] {
        f.set_xattr(&a, name, &crate::filer::NO_ACL).await.unwrap();
    }
    assert!(f.xattrs(&a).await.unwrap().is_empty(), "one without entries takes it away");
}
