//! What a client sees over the wire.

use crate::Bug;
use crate::support::{Served, name};
use bytes::Bytes;
use std::process::Command;
use std::time::Duration;
use tain::demo::client::{Cred, accepted, call_bytes, record};
use tain::demo::nfs::{Call, How, NFS_PROGRAM, SetAttrs, status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn create(s: &Served, n: &str) -> Call {
    Call::Create { dir: s.root.clone(), name: name(n), how: How::Guarded(SetAttrs::mode(0o644)) }
}

/// C17.
pub async fn a_call_sent_twice_runs_once(bug: Bug) {
    let s = Served::planted(bug).await;
    let call = create(&s, "once");
    let bytes = record(&call_bytes(0x6600_0001, &Cred::own(), NFS_PROGRAM, 3, call.number(), &call.encode()));
    let mut stream = tokio::net::TcpStream::connect(s.service.nfs).await.unwrap();
    for time in ["first", "second"] {
        stream.write_all(&bytes).await.unwrap();
        let mark = stream.read_u32().await.unwrap();
        let mut reply = vec![0; (mark & 0x7fff_ffff) as usize];
        stream.read_exact(&mut reply).await.unwrap();
        let reply = call.decode(0x6600_0001, accepted(Bytes::from(reply)).unwrap()).unwrap();
        assert_eq!(reply.status, status::OK, "the {time} time");
    }
}

/// C12.
pub async fn a_handle_outlives_a_restart(bug: Bug) {
    let mut s = Served::planted(bug).await;
    let fh = s.ok(create(&s, "file")).await.fh.unwrap();
    s.kill_and_start().await;
    s.ok(Call::GetAttr { node: fh }).await;
}

/// C1 for errors: an operation that was answered with an error has not happened, and does not happen in recovery.
pub async fn what_was_refused_is_not_done_later(bug: Bug) {
    let mut s = Served::planted(bug).await;
    let fh = s.ok(create(&s, "file")).await.fh.unwrap();
    s.ok(Call::Write { node: fh.clone(), offset: 0, stable: 2, data: name("as it was") }).await;
    let path = s.export().join("file");
    chattr("+i", &path);
    let reply = s.client.nfs(&Call::Write { node: fh, offset: 0, stable: 2, data: name("never") }).await;
    s.service.kill().await.unwrap();
    chattr("-i", &path);
    assert_ne!(reply.unwrap().status, status::OK, "an immutable file was written");
    s.service.start().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
}

/// C18.
pub async fn what_is_not_permitted_is_not_done(bug: Bug) {
    let s = Served::planted(bug).await;
    s.ok(create(&s, "roots")).await;
    let other = s.client.with_cred(Cred { uid: 1000, gid: 1000, gids: Vec::new() });
    let call = Call::Remove { dir: s.root.clone(), name: name("roots") };
    let reply = tokio::time::timeout(Duration::from_secs(30), other.nfs(&call)).await.unwrap().unwrap();
    assert_eq!(reply.status, status::ACCES);
    assert!(s.export().join("roots").exists(), "it was refused, and is gone");
}

pub fn chattr(flag: &str, path: &std::path::Path) {
    assert!(Command::new("chattr").arg(flag).arg(path).status().unwrap().success(), "chattr {flag}");
}
