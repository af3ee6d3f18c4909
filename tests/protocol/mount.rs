//! MOUNT v3, and the tree above the junctions.

use crate::support::{Served, client, name};
use tain::demo::nfs::{Call, How, Kind, MOUNT_PROGRAM, SetAttrs, status};
use tain::demo::xdr::{Decoder, Encoder};

#[tokio::test(flavor = "multi_thread")]
async fn mnt_gives_a_handle_for_the_root_and_for_a_junction_and_refuses_other_paths() {
    let s = Served::new().await;
    assert_eq!(s.client.mount(b"/a/b").await.unwrap().unwrap(), s.root);
    assert!(s.client.mount(b"/").await.unwrap().is_ok());
    assert!(s.client.mount(b"/nothing").await.unwrap().is_err());
    assert!(s.client.mount(b"/a/../../etc").await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_mount_procedures_answer() {
    let s = Served::new().await;
    s.client.rpc(MOUNT_PROGRAM, 0, &[]).await.unwrap();
    // DUMP and EXPORT: lists that end, with nothing behind them.
    let (_, body) = s.client.rpc(MOUNT_PROGRAM, 2, &[]).await.unwrap();
    let mut d = Decoder::new(body);
    while d.bool().unwrap() {
        d.opaque().unwrap();
        d.opaque().unwrap();
    }
    d.end().unwrap();
    let (_, body) = s.client.rpc(MOUNT_PROGRAM, 5, &[]).await.unwrap();
    let (mut d, mut exports) = (Decoder::new(body), Vec::new());
    while d.bool().unwrap() {
        exports.push(d.opaque().unwrap());
        while d.bool().unwrap() {
            d.opaque().unwrap();
        }
    }
    d.end().unwrap();
    assert!(exports.contains(&name("/a/b")), "{exports:?}");
    let mut path = Encoder::new();
    path.opaque(b"/a/b");
    let (_, body) = s.client.rpc(MOUNT_PROGRAM, 3, &path.finish()).await.unwrap();
    assert!(body.is_empty(), "UMNT answers nothing");
    let (_, body) = s.client.rpc(MOUNT_PROGRAM, 4, &[]).await.unwrap();
    assert!(body.is_empty(), "UMNTALL answers nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_from_the_root_crosses_into_the_junction_and_finds_another_file_system() {
    let s = Served::new().await;
    let top = s.client.mount(b"/").await.unwrap().unwrap();
    let a = s.ok(Call::Lookup { dir: top.clone(), name: name("a") }).await;
    let b = s.ok(Call::Lookup { dir: a.fh.clone().unwrap(), name: name("b") }).await;
    assert_eq!(b.fh.unwrap(), s.root);
    let (above, below) = (a.attr.unwrap(), b.attr.unwrap());
    assert_eq!((above.kind, below.kind), (Kind::Dir, Kind::Dir));
    assert_ne!(above.fsid, below.fsid);
    let verf = [0; 8];
    let list = s.ok(Call::ReadDir { dir: top.clone(), cookie: 0, verf, count: 4096 }).await;
    assert!(list.eof && list.entries.iter().any(|e| e.name == name("a")), "{:?}", list.entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_above_the_junctions_is_read_only() {
    let s = Served::new().await;
    let top = s.client.mount(b"/").await.unwrap().unwrap();
    let attrs = SetAttrs::mode(0o755);
    s.status(Call::MkDir { dir: top.clone(), name: name("x"), attrs }, status::ROFS).await;
    let how = How::Unchecked(attrs);
    s.status(Call::Create { dir: top.clone(), name: name("x"), how }, status::ROFS).await;
    s.status(Call::RmDir { dir: top.clone(), name: name("a") }, status::ROFS).await;
    s.status(Call::SetAttr { node: top, attrs, guard: None }, status::ROFS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_with_any_bit_flipped_is_refused() {
    let s = Served::new().await;
    for at in 0..s.root.len() * 8 {
        let mut forged = s.root.to_vec();
        forged[at / 8] ^= 1 << (at % 8);
        let reply = s.client.nfs(&Call::GetAttr { node: forged.into() }).await.unwrap();
        assert_eq!(reply.status, status::BADHANDLE, "bit {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_see_the_same_tree() {
    let s = Served::new().await;
    let attrs = SetAttrs::mode(0o644);
    let made = s.ok(Call::Create { dir: s.root.clone(), name: name("f"), how: How::Guarded(attrs) }).await;
    for i in 2..10 {
        let other = client(&s.service, i);
        let root = other.mount(b"/a/b").await.unwrap().unwrap();
        let found = other.nfs(&Call::Lookup { dir: root, name: name("f") }).await.unwrap();
        assert_eq!((found.status, found.fh), (status::OK, made.fh.clone()));
    }
}
