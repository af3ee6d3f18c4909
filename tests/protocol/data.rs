//! READ, WRITE, COMMIT, and sizes.

use crate::support::{Served, name};
use bytes::Bytes;
use std::os::unix::fs::MetadataExt as _;
use tain::demo::content;
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};

async fn file(s: &Served) -> Fh {
    let how = How::Guarded(SetAttrs::mode(0o644));
    s.ok(Call::Create { dir: s.root.clone(), name: name("f"), how }).await.fh.unwrap()
}

fn write(node: &Fh, offset: u64, stable: u32, data: &[u8]) -> Call {
    Call::Write { node: node.clone(), offset, stable, data: Bytes::copy_from_slice(data) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_answered_file_sync_whatever_was_asked_and_the_verifier_outlives_a_kill() {
    let mut s = Served::new().await;
    let f = file(&s).await;
    let mut verifiers = Vec::new();
    for stable in 0..3 {
        let reply = s.ok(write(&f, 0, stable, b"hello")).await;
        assert_eq!((reply.count, reply.committed), (5, 2));
        verifiers.push(reply.verf);
    }
    verifiers.push(s.ok(Call::Commit { node: f.clone(), offset: 0, count: 0 }).await.verf);
    s.kill_and_start().await;
    verifiers.push(s.ok(write(&f, 0, 0, b"hello")).await.verf);
    assert!(verifiers.windows(2).all(|w| w[0] == w[1]), "{verifiers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_back_and_holes_are_zeros() {
    let s = Served::new().await;
    let f = file(&s).await;
    let mut data = vec![0; 1 << 20];
    content::fill(9, 0, &mut data);
    s.ok(write(&f, 3 << 20, 2, &data)).await;
    let reply = s.ok(Call::Read { node: f.clone(), offset: 3 << 20, count: 1 << 20 }).await;
    assert_eq!(reply.data, data);
    assert!(reply.eof);
    let reply = s.ok(Call::Read { node: f.clone(), offset: 100, count: 4096 }).await;
    assert!(reply.data.iter().all(|b| *b == 0) && reply.data.len() == 4096 && !reply.eof);
    let reply = s.ok(Call::Read { node: f.clone(), offset: 4 << 20, count: 100 }).await;
    assert!(reply.data.is_empty() && reply.eof);
    let meta = std::fs::metadata(s.export().join("f")).unwrap();
    assert_eq!(meta.len(), 4 << 20);
    assert!(meta.blocks() * 512 < 2 << 20, "the hole takes space");
    let dir = s.root.clone();
    s.status(Call::Read { node: dir.clone(), offset: 0, count: 1 }, status::ISDIR).await;
    let reply = s.client.nfs(&write(&dir, 0, 2, b"x")).await.unwrap();
    assert_ne!(reply.status, status::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_grow_and_shrink_and_what_was_cut_off_does_not_come_back() {
    let s = Served::new().await;
    let f = file(&s).await;
    s.ok(write(&f, 0, 2, &[7; 10_000])).await;
    let size = |n| Call::SetAttr { node: f.clone(), attrs: SetAttrs::size(n), guard: None };
    s.ok(size(5000)).await;
    s.ok(size(9000)).await;
    let reply = s.ok(Call::Read { node: f.clone(), offset: 0, count: 20_000 }).await;
    assert_eq!(reply.data.len(), 9000);
    assert!(reply.data[..5000].iter().all(|b| *b == 7) && reply.data[5000..].iter().all(|b| *b == 0));
    let huge = s.client.nfs(&size(u64::MAX)).await.unwrap();
    assert!([status::FBIG, status::INVAL].contains(&huge.status), "{}", huge.status);
    let far = s.client.nfs(&write(&f, u64::MAX - 2, 2, b"xyz")).await.unwrap();
    assert!([status::FBIG, status::INVAL].contains(&far.status), "{}", far.status);
    assert_eq!(s.ok(Call::GetAttr { node: f.clone() }).await.attr.unwrap().size, 9000);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_side_by_side_on_one_connection_all_arrive() {
    let s = Served::new().await;
    let f = file(&s).await;
    let mut parts = tokio::task::JoinSet::new();
    for i in 0..200u64 {
        let (client, f) = (s.client.clone(), f.clone());
        parts.spawn(async move {
            let mut data = vec![0; 10_000];
            content::fill(5, i * 10_000, &mut data);
            client.nfs(&write(&f, i * 10_000, 0, &data)).await.unwrap().status
        });
    }
    while let Some(done) = parts.join_next().await {
        assert_eq!(done.unwrap(), status::OK);
    }
    let bytes = std::fs::read(s.export().join("f")).unwrap();
    let mut due = vec![0; 2_000_000];
    content::fill(5, 0, &mut due);
    assert!(bytes == due);
}
