//! What outlives a restart, a kill, a switch; and calls that are sent twice.

use crate::support::{Served, client, name};
use bytes::Bytes;
use tain::demo::client::{Cred, accepted, call_bytes, record};
use tain::demo::nfs::{Call, How, NFS_PROGRAM, SetAttrs, status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn create(s: &Served, n: &str) -> Call {
    Call::Create { dir: s.root.clone(), name: name(n), how: How::Guarded(SetAttrs::mode(0o644)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_fileids_and_times_stay_over_stop_kill_and_switch() {
    let mut s = Served::new().await;
    let fh = s.ok(create(&s, "f")).await.fh.unwrap();
    let data = Bytes::from_static(b"hello");
    s.ok(Call::Write { node: fh.clone(), offset: 0, stable: 0, data: data.clone() }).await;
    let before = s.ok(Call::GetAttr { node: fh.clone() }).await.attr.unwrap();
    for how in ["stop", "kill", "switch", "kill"] {
        match how {
            "stop" => {
                s.service.stop().await.unwrap();
                s.service.start().await.unwrap();
            }
            "kill" => s.kill_and_start().await,
            _ => {
                let job = s.service.tain(&["move", "create", "/a/b", "two:/x"]).await.unwrap();
                s.service.tain(&["job", "wait", &job, "--timeout", "60s"]).await.unwrap();
            }
        }
        let other = client(&s.service, 9);
        assert_eq!(other.mount(b"/a/b").await.unwrap().unwrap(), s.root, "{how}");
        let now = s.ok(Call::GetAttr { node: fh.clone() }).await.attr.unwrap();
        let seen = |a: tain::demo::nfs::Attr| {
            (a.kind, a.mode, a.nlink, a.uid, a.gid, a.size, a.fsid, a.fileid, a.mtime, a.ctime)
        };
        assert_eq!(seen(now), seen(before), "{how}");
        assert_eq!(s.ok(Call::Read { node: fh.clone(), offset: 0, count: 99 }).await.data, data, "{how}");
        assert_eq!(s.ok(Call::Lookup { dir: s.root.clone(), name: name("f") }).await.fh.unwrap(), fh, "{how}");
    }
}

/// Send these bytes on a connection of its own; the reply's results.
async fn send(s: &Served, call: &[u8]) -> Bytes {
    let mut stream = TcpStream::connect(s.service.nfs).await.unwrap();
    ask(&mut stream, call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sent_again_on_a_new_connection_or_after_a_kill_gets_its_first_answer_and_runs_once() {
    let mut s = Served::new().await;
    s.ok(create(&s, "gone")).await;
    s.ok(create(&s, "from")).await;
    let remove = Call::Remove { dir: s.root.clone(), name: name("gone") };
    let (from, to) = (s.root.clone(), s.root.clone());
    let rename = Call::Rename { from, name: name("from"), to, new: name("to") };
    for (i, call) in [create(&s, "new"), remove, rename].into_iter().enumerate() {
        let xid = 0x7700_0000 + u32::try_from(i).unwrap();
        let bytes = call_bytes(xid, &Cred::own(), NFS_PROGRAM, 3, call.number(), &call.encode());
        for again in ["first", "second", "after a kill", "after a kill, again"] {
            let reply = call.decode(xid, send(&s, &bytes).await).unwrap();
            assert_eq!(reply.status, status::OK, "{again}: {call:?}");
            if again == "second" {
                s.kill_and_start().await;
            }
        }
        // Another xid is another call.
        let other = call_bytes(xid + 100, &Cred::own(), NFS_PROGRAM, 3, call.number(), &call.encode());
        let reply = call.decode(xid + 100, send(&s, &other).await).unwrap();
        assert_ne!(reply.status, status::OK, "{call:?} as a new call");
    }
    assert!(s.export().join("to").exists() && !s.export().join("from").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xid_used_again_for_another_call_is_another_call() {
    let s = Served::new().await;
    for n in ["one", "two"] {
        let call = create(&s, n);
        let bytes = call_bytes(0x5500_0001, &Cred::own(), NFS_PROGRAM, 3, call.number(), &call.encode());
        assert_eq!(call.decode(0x5500_0001, send(&s, &bytes).await).unwrap().status, status::OK);
    }
    assert!(s.export().join("one").exists() && s.export().join("two").exists());
}

/// Of a round: so many names, each made, renamed and removed.
const NAMES: u32 = 70;
const ROUNDS: u32 = 5;

/// C17: a thousand calls that only run well once, each sent again on its connection, on a new one and after a kill; and
/// every xid used again for another call.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_sent_again_and_again_run_once_each() {
    let mut s = Served::new().await;
    let (mut calls, mut repeats, mut reused) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut sent = Vec::new();
        let mut on = TcpStream::connect(s.service.nfs).await.unwrap();
        for i in 0..NAMES {
            let (old, new) = (format!("{round}-{i}"), format!("{round}-{i}-new"));
            let (from, to) = (s.root.clone(), s.root.clone());
            let rename = Call::Rename { from, name: name(&old), to, new: name(&new) };
            let remove = Call::Remove { dir: s.root.clone(), name: name(&new) };
            for (step, call) in [create(&s, &old), rename, remove].into_iter().enumerate() {
                let xid = 0x6600_0000 + (round * NAMES + i) * 4 + u32::try_from(step).unwrap();
                let bytes = call_bytes(xid, &Cred::own(), NFS_PROGRAM, 3, call.number(), &call.encode());
                calls += 1;
                for again in ["first", "on its connection", "on a new connection"] {
                    let reply = if again == "on a new connection" {
                        send(&s, &bytes).await
                    } else {
                        ask(&mut on, &bytes).await
                    };
                    let reply = call.decode(xid, reply).unwrap();
                    assert_eq!(reply.status, status::OK, "{again}: {call:?}");
                    repeats += u32::from(again != "first");
                }
                sent.push((xid, call, bytes));
            }
        }
        s.kill_and_start().await;
        for (xid, call, bytes) in &sent {
            let reply = call.decode(*xid, send(&s, bytes).await).unwrap();
            assert_eq!(reply.status, status::OK, "after a kill: {call:?}");
            repeats += 1;
        }
        // The same xids for other calls: these run.
        for (xid, ..) in sent.iter().step_by(7) {
            let other = create(&s, &format!("other-{xid}"));
            let bytes = call_bytes(*xid, &Cred::own(), NFS_PROGRAM, 3, other.number(), &other.encode());
            assert_eq!(other.decode(*xid, send(&s, &bytes).await).unwrap().status, status::OK, "{other:?}");
            assert!(s.export().join(format!("other-{xid}")).exists(), "{other:?} was answered and did not run");
            reused += 1;
        }
        let left = std::fs::read_dir(s.export()).unwrap().map(|entry| entry.unwrap().file_name());
        let twice: Vec<_> =
            left.filter(|name| name.as_encoded_bytes().starts_with(format!("{round}-").as_bytes())).collect();
        assert!(twice.is_empty(), "round {round}: {twice:?} were made twice");
    }
    println!("{calls} calls, {repeats} repeats, {reused} xids used for another call");
    assert!(calls >= 1000 && repeats >= 3000 && reused >= 100, "too few");
}

async fn ask(stream: &mut TcpStream, call: &[u8]) -> Bytes {
    stream.write_all(&record(call)).await.unwrap();
    let len = stream.read_u32().await.unwrap() & 0x7fff_ffff;
    let mut body = vec![0; usize::try_from(len).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    accepted(Bytes::from(body)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_answered_before_a_kill_is_there_after_it() {
    let mut s = Served::new().await;
    for round in 0..3 {
        for i in 0..30 {
            let n = format!("{round}-{i}");
            let fh = s.ok(create(&s, &n)).await.fh.unwrap();
            s.ok(Call::Write { node: fh, offset: 0, stable: 0, data: Bytes::from(n.clone().into_bytes()) }).await;
        }
        s.kill_and_start().await;
    }
    for n in (0..3).flat_map(|r| (0..30).map(move |i| format!("{r}-{i}"))) {
        let fh = s.ok(Call::Lookup { dir: s.root.clone(), name: name(&n) }).await.fh.unwrap();
        assert_eq!(s.ok(Call::Read { node: fh, offset: 0, count: 99 }).await.data, n.as_bytes());
        assert_eq!(std::fs::read(s.export().join(&n)).unwrap(), n.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let mut s = Served::new().await;
    s.service.stop().await.unwrap();
    std::fs::remove_file(s.service.log()).unwrap();
    std::os::unix::fs::symlink("/dev/full", s.service.log()).unwrap();
    s.service.start().await.unwrap();
    s.ok(create(&s, "file")).await;
    // It says much about a job.
    let job = s.service.tain(&["move", "create", "/a/b", "two:/x"]).await.unwrap();
    s.service.tain(&["job", "wait", &job, "--timeout", "60s"]).await.unwrap();
    s.ok(Call::Lookup { dir: s.root.clone(), name: name("file") }).await;
    s.service.stop().await.unwrap();
}
