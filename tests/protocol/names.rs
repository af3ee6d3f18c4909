//! LOOKUP, CREATE in its three modes, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME, LINK, READDIR, READDIRPLUS.

use crate::support::{Served, is_root, name};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use tain::demo::lane::odd_name;
use tain::demo::nfs::{Call, Fh, How, Kind, Reply, SetAttrs, status};

const MODE: SetAttrs = SetAttrs {
    mode: Some(0o640),
    uid: None,
    gid: None,
    size: None,
    atime: tain::demo::nfs::SetTime::Keep,
    mtime: tain::demo::nfs::SetTime::Keep,
};

async fn file(s: &Served, dir: &Fh, text: &str) -> Reply {
    s.ok(Call::Create { dir: dir.clone(), name: name(text), how: How::Guarded(MODE) }).await
}

async fn dir(s: &Served, text: &str) -> Fh {
    s.ok(Call::MkDir { dir: s.root.clone(), name: name(text), attrs: SetAttrs::mode(0o755) }).await.fh.unwrap()
}

fn lookup(dir: &Fh, text: &str) -> Call {
    Call::Lookup { dir: dir.clone(), name: name(text) }
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_finds_names_dot_and_dot_dot_and_says_noent_notdir_and_nametoolong() {
    let s = Served::new().await;
    let (d, f) = (dir(&s, "d").await, file(&s, &s.root, "f").await.fh.unwrap());
    assert_eq!(s.ok(lookup(&s.root, "f")).await.fh.unwrap(), f);
    assert_eq!(s.ok(lookup(&d, ".")).await.fh.unwrap(), d);
    assert_eq!(s.ok(lookup(&d, "..")).await.fh.unwrap(), s.root);
    s.status(lookup(&s.root, "none"), status::NOENT).await;
    s.status(lookup(&f, "x"), status::NOTDIR).await;
    s.status(lookup(&s.root, &"n".repeat(256)), status::NAMETOOLONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere_are_refused_everywhere() {
    let s = Served::new().await;
    for bad in ["a/b", "../x", "/etc", "a\0b", ""] {
        for call in [
            lookup(&s.root, bad),
            Call::Create { dir: s.root.clone(), name: name(bad), how: How::Unchecked(MODE) },
            Call::MkDir { dir: s.root.clone(), name: name(bad), attrs: MODE },
            Call::Remove { dir: s.root.clone(), name: name(bad) },
        ] {
            let reply = s.client.nfs(&call).await.unwrap();
            assert_ne!(reply.status, status::OK, "{call:?}");
        }
    }
    for hidden in [".tain-pen", ".tain-owner"] {
        s.status(lookup(&s.root, hidden), status::NOENT).await;
        let reply = s.client.nfs(&Call::MkDir { dir: s.root.clone(), name: name(hidden), attrs: MODE }).await.unwrap();
        assert_ne!(reply.status, status::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_unchecked_takes_what_is_there_guarded_does_not_exclusive_knows_its_verifier() {
    let s = Served::new().await;
    let call = |how| Call::Create { dir: s.root.clone(), name: name("f"), how };
    let made = s.ok(call(How::Guarded(MODE))).await;
    assert_eq!(made.attr.unwrap().mode, 0o640);
    s.status(call(How::Guarded(MODE)), status::EXIST).await;
    let again = s.ok(call(How::Unchecked(SetAttrs { size: Some(0), ..MODE }))).await;
    assert_eq!(again.fh, made.fh);
    s.status(call(How::Exclusive([1; 8])), status::EXIST).await;
    let call = |v| Call::Create { dir: s.root.clone(), name: name("e"), how: How::Exclusive([v; 8]) };
    let first = s.ok(call(7)).await;
    assert_eq!(s.ok(call(7)).await.fh, first.fh);
    s.status(call(8), status::EXIST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mkdir_rmdir_and_remove_do_what_they_say_on_the_right_kinds_only() {
    let s = Served::new().await;
    let d = dir(&s, "d").await;
    file(&s, &d, "f").await;
    let call = |dir: &Fh, n: &str| Call::RmDir { dir: dir.clone(), name: name(n) };
    s.status(call(&s.root, "d"), status::NOTEMPTY).await;
    s.status(call(&d, "f"), status::NOTDIR).await;
    let reply = s.client.nfs(&Call::Remove { dir: s.root.clone(), name: name("d") }).await.unwrap();
    assert!([status::ISDIR, status::PERM].contains(&reply.status), "{}", reply.status);
    s.ok(Call::Remove { dir: d.clone(), name: name("f") }).await;
    s.ok(call(&s.root, "d")).await;
    s.status(Call::GetAttr { node: d }, status::STALE).await;
    assert!(!s.export().join("d").exists());
    s.status(call(&s.root, "d"), status::NOENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_keep_any_text_and_are_not_followed() {
    let s = Served::new().await;
    for (n, text) in [("up", b"../../../etc/passwd".to_vec()), ("odd", odd_name(3, 900)), ("none", b"nowhere".to_vec())]
    {
        let target = Bytes::from(text);
        let attrs = SetAttrs::mode(0o777);
        let call = Call::Symlink { dir: s.root.clone(), name: name(n), attrs, target: target.clone() };
        let made = s.ok(call).await;
        let fh = made.fh.unwrap();
        assert_eq!(made.attr.unwrap().kind, Kind::Symlink);
        assert_eq!(s.ok(Call::ReadLink { node: fh.clone() }).await.data, target);
        let reply = s.client.nfs(&lookup(&fh, "x")).await.unwrap();
        assert_eq!(reply.status, status::NOTDIR);
        let reply = s.client.nfs(&Call::Read { node: fh, offset: 0, count: 10 }).await.unwrap();
        assert_eq!(reply.status, status::INVAL);
    }
    let f = file(&s, &s.root, "f").await.fh.unwrap();
    s.status(Call::ReadLink { node: f }, status::INVAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mknod_makes_fifos_and_sockets_and_devices_only_for_root() {
    let s = Served::new().await;
    let call = |n: &str, kind| {
        let attrs = SetAttrs::mode(0o600);
        Call::MkNod { dir: s.root.clone(), name: name(n), kind, attrs, dev: (1, 3) }
    };
    assert_eq!(s.ok(call("fifo", Kind::Fifo)).await.attr.unwrap().kind, Kind::Fifo);
    assert_eq!(s.ok(call("socket", Kind::Socket)).await.attr.unwrap().kind, Kind::Socket);
    s.status(call("file", Kind::File), status::BADTYPE).await;
    s.status(call("dir", Kind::Dir), status::BADTYPE).await;
    if is_root() {
        let attr = s.ok(call("null", Kind::Char)).await.attr.unwrap();
        assert_eq!((attr.kind, attr.rdev), (Kind::Char, (1, 3)));
    } else {
        s.status(call("null", Kind::Char), status::PERM).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_moves_replaces_and_refuses() {
    let s = Served::new().await;
    let (a, b) = (dir(&s, "a").await, dir(&s, "b").await);
    let f = file(&s, &a, "f").await.fh.unwrap();
    let over = file(&s, &b, "g").await.fh.unwrap();
    let call = |from: &Fh, n: &str, to: &Fh, new: &str| Call::Rename {
        from: from.clone(),
        name: name(n),
        to: to.clone(),
        new: name(new),
    };
    s.ok(call(&a, "f", &b, "g")).await;
    s.status(Call::GetAttr { node: over }, status::STALE).await;
    assert_eq!(s.ok(lookup(&b, "g")).await.fh.unwrap(), f);
    s.status(lookup(&a, "f"), status::NOENT).await;
    s.status(call(&s.root, "a", &a, "inside"), status::INVAL).await;
    s.status(call(&a, "none", &b, "x"), status::NOENT).await;
    s.status(call(&s.root, "a", &s.root, "b"), status::NOTEMPTY).await;
    s.status(call(&b, "g", &s.root, "a"), status::ISDIR).await;
    s.status(call(&s.root, "a", &b, "g"), status::NOTDIR).await;
    s.ok(call(&s.root, "a", &b, "a")).await;
    assert_eq!(s.ok(lookup(&a, "..")).await.fh.unwrap(), b);
    s.ok(call(&b, "g", &b, "g")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_is_one_node_with_two_names() {
    let s = Served::new().await;
    let d = dir(&s, "d").await;
    let f = file(&s, &s.root, "f").await.fh.unwrap();
    let call = |node: &Fh, n: &str| Call::Link { node: node.clone(), dir: d.clone(), name: name(n) };
    let linked = s.ok(call(&f, "l")).await;
    assert_eq!(linked.attr.unwrap().nlink, 2);
    assert_eq!(s.ok(lookup(&d, "l")).await.fh.unwrap(), f);
    let ino = |p: &str| std::fs::metadata(s.export().join(p)).unwrap().ino();
    assert_eq!(ino("f"), ino("d/l"));
    s.status(call(&f, "l"), status::EXIST).await;
    let reply = s.client.nfs(&call(&d, "dir")).await.unwrap();
    assert_ne!(reply.status, status::OK, "a directory has no second name");
    s.ok(Call::Remove { dir: s.root.clone(), name: name("f") }).await;
    assert_eq!(s.ok(Call::GetAttr { node: f.clone() }).await.attr.unwrap().nlink, 1);
    s.ok(Call::Remove { dir: d.clone(), name: name("l") }).await;
    s.status(Call::GetAttr { node: f }, status::STALE).await;
}

/// Every page, checked: names once, cookies that grow on, the end told once.
async fn list(s: &Served, dir: &Fh, plus: bool, room: u32) -> BTreeSet<Bytes> {
    let (mut cookie, verf, mut names) = (0, [0; 8], BTreeSet::new());
    loop {
        let dir = dir.clone();
        let call = if plus {
            Call::ReadDirPlus { dir, cookie, verf, dircount: room, maxcount: room }
        } else {
            Call::ReadDir { dir, cookie, verf, count: room }
        };
        let reply = s.ok(call).await;
        for e in &reply.entries {
            assert!(names.insert(e.name.clone()), "{:?} twice", e.name);
            if plus && e.name != name("..") {
                let attr = e.attr.expect("attributes");
                assert_eq!(attr.fileid, e.fileid);
                assert!(e.fh.is_some());
            }
            cookie = e.cookie;
        }
        if reply.eof {
            return names;
        }
        assert!(!reply.entries.is_empty(), "a page without entries that is not the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_whole_at_every_page_size_also_with_names_of_255_odd_bytes() {
    let s = Served::new().await;
    let mut due: BTreeSet<Bytes> = [name("."), name("..")].into();
    for i in 0..200u64 {
        let n = if i % 10 == 0 { Bytes::from(odd_name(i, 255)) } else { name(&format!("file {i}")) };
        s.ok(Call::Create { dir: s.root.clone(), name: n.clone(), how: How::Guarded(MODE) }).await;
        due.insert(n);
    }
    for room in [600, 1000, 4096, 65536, 1 << 20] {
        assert_eq!(list(&s, &s.root, false, room).await, due, "READDIR, {room}");
        assert_eq!(list(&s, &s.root, true, room).await, due, "READDIRPLUS, {room}");
    }
    let tiny = Call::ReadDir { dir: s.root.clone(), cookie: 0, verf: [0; 8], count: 16 };
    s.status(tiny, status::TOOSMALL).await;
    let f = s.ok(lookup(&s.root, "file 1")).await.fh.unwrap();
    s.status(Call::ReadDir { dir: f, cookie: 0, verf: [0; 8], count: 4096 }, status::NOTDIR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_though_names_come_and_go_between_its_pages() {
    let s = Served::new().await;
    for i in 0..60 {
        file(&s, &s.root, &format!("{i:02}")).await;
    }
    let first = s.ok(Call::ReadDir { dir: s.root.clone(), cookie: 0, verf: [0; 8], count: 800 }).await;
    assert!(!first.eof && first.entries.len() > 3);
    let mut seen: Vec<Bytes> = first.entries.iter().map(|e| e.name.clone()).collect();
    // One that was listed goes, one that was not goes, one comes.
    s.ok(Call::Remove { dir: s.root.clone(), name: seen[3].clone() }).await;
    let unseen = (0..60).map(|i| name(&format!("{i:02}"))).find(|n| !seen.contains(n)).unwrap();
    s.ok(Call::Remove { dir: s.root.clone(), name: unseen.clone() }).await;
    file(&s, &s.root, "new").await;
    let (mut cookie, mut verf) = (first.entries.last().unwrap().cookie, first.verf);
    loop {
        let page = s.ok(Call::ReadDir { dir: s.root.clone(), cookie, verf, count: 800 }).await;
        seen.extend(page.entries.iter().map(|e| e.name.clone()));
        if page.eof {
            break;
        }
        (cookie, verf) = (page.entries.last().unwrap().cookie, page.verf);
    }
    let unique: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "a name came twice");
    assert!(!unique.contains(&unseen) && unique.contains(&name("new")));
    assert_eq!(unique.len(), 2 + 60 - 1 + 1);
}
