//! Locks of clients, as the Linux kernel asks for them: across a kill, a move's switch, a suspension, and by callback.

use crate::support::{Served, expect, name};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tain::demo::client::{Cred, accepted, call_bytes, record};
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};
use tain::demo::xdr::{Decoder, Encoder};

const NLM: u32 = 100_021;
const NSM: u32 = 100_024;
const PORTMAPPER: u32 = 100_000;
const GRANTED: u32 = 0;
const DENIED: u32 = 1;
const BLOCKED: u32 = 3;
const GRACE: u32 = 4;
const STALE: u32 = 7;
/// A limit for what hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// What the service says to a client: program, procedure, arguments.
type Heard = (u32, u32, Vec<u8>);

/// A client's portmapper, lock manager and status monitor, on one port; every lock that it is offered it takes.
fn client_programs() -> (u16, Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (hear, heard) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let hear = hear.clone();
            std::thread::spawn(move || while one_call(&stream, port, &hear).is_some() {});
        }
    });
    (port, heard)
}

fn read_record(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).ok()?;
    let mut record = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
    stream.read_exact(&mut record).ok()?;
    Some(record)
}

fn one_call(mut stream: &TcpStream, port: u16, hear: &Sender<Heard>) -> Option<()> {
    let message = read_record(stream)?;
    let word = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
    // Credentials and verifier of none: sixteen bytes behind the procedure.
    let (program, procedure, args) = (word(12), word(20), message[40..].to_vec());
    let mut e = Encoder::new();
    e.u32(word(0)).u32(1).u32(0).u32(0).u32(0).u32(0);
    match program {
        PORTMAPPER => drop(e.u32(u32::from(port))),
        NLM => {
            let cookie = Decoder::new(args.clone().into()).opaque().unwrap();
            e.opaque(&cookie).u32(GRANTED);
        }
        _ => {}
    }
    // Whoever listens may be gone.
    let _ = hear.send((program, procedure, args));
    stream.write_all(&record(&e.finish())).ok()
}

/// A client host as the service knows it: its name.
struct Host<'a> {
    s: &'a Served,
    name: &'static str,
}

impl Host<'_> {
    fn call(&self, procedure: u32, args: &[u8]) -> Decoder {
        static XID: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0x7000_0000);
        let xid = XID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut stream = TcpStream::connect(self.s.service.nfs).unwrap();
        stream.write_all(&record(&call_bytes(xid, &Cred::own(), NLM, 4, procedure, args))).unwrap();
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        let reply = read_record(&stream).expect("an answer");
        Decoder::new(accepted(reply.into()).unwrap())
    }

    /// nlm4_lock of one process.
    fn lock_of(&self, e: &mut Encoder, fh: &Fh, offset: u64, len: u64) {
        e.opaque(self.name.as_bytes()).opaque(fh).opaque(format!("7@{}", self.name).as_bytes());
        e.u32(7).u64(offset).u64(len);
    }

    fn stat(&self, procedure: u32, e: Encoder) -> u32 {
        let mut d = self.call(procedure, &e.finish());
        assert_eq!(d.opaque().unwrap(), name("cook"));
        d.u32().unwrap()
    }

    fn lock(&self, fh: &Fh, offset: u64, len: u64, block: bool, reclaim: bool) -> u32 {
        let mut e = Encoder::new();
        e.opaque(b"cook").bool(block).bool(true);
        self.lock_of(&mut e, fh, offset, len);
        e.bool(reclaim).u32(1);
        self.stat(2, e)
    }

    fn unlock(&self, fh: &Fh, offset: u64, len: u64) -> u32 {
        let mut e = Encoder::new();
        e.opaque(b"cook");
        self.lock_of(&mut e, fh, offset, len);
        self.stat(4, e)
    }
}

fn hears(heard: &Receiver<Heard>, program: u32) -> Decoder {
    loop {
        let (got, _, args) = heard.recv_timeout(LONGEST).expect("the service calls");
        if got == program {
            return Decoder::new(args.into());
        }
    }
}

/// A served junction whose clients' programs are at that port, and a file in it.
async fn served(portmapper: u16) -> (Served, Fh) {
    let mut s = Served::new().await;
    s.service.kill().await.unwrap();
    let config = std::fs::read_to_string(s.service.config()).unwrap();
    let config = config.replace("[nfs]\n", &format!("[nfs]\ngrace = 8\nclient_portmapper = {portmapper}\n"));
    std::fs::write(s.service.config(), config).unwrap();
    s.service.start().await.unwrap();
    let create = Call::Create { dir: s.root.clone(), name: name("file"), how: How::Guarded(SetAttrs::mode(0o666)) };
    let fh = expect(&s.client, create, status::OK).await.fh.unwrap();
    (s, fh)
}

/// Until the host is answered otherwise than that it is to ask again.
async fn after_grace(host: &Host<'_>, fh: &Fh, offset: u64) -> u32 {
    let begun = Instant::now();
    loop {
        match host.lock(fh, offset, 1, false, false) {
            GRACE => assert!(begun.elapsed() < LONGEST, "the grace does not end"),
            stat => return stat,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_claimed_after_a_kill_and_hosts_are_told_each_time() {
    let (port, heard) = client_programs();
    let (mut s, fh) = served(port).await;
    let told = |number: u32| {
        let mut change = hears(&heard, NSM);
        change.opaque().unwrap();
        assert_eq!(change.u32().unwrap(), number);
    };
    {
        let (a, b) = (Host { s: &s, name: "a" }, Host { s: &s, name: "b" });
        assert_eq!(a.lock(&fh, 0, 10, false, false), GRANTED);
        assert_eq!(b.lock(&fh, 5, 10, false, false), DENIED);
    }
    for number in [3, 5] {
        s.kill_and_start().await;
        let (a, b) = (Host { s: &s, name: "a" }, Host { s: &s, name: "b" });
        assert_eq!(b.lock(&fh, 5, 10, false, false), GRACE, "only claims for a while");
        assert_eq!(a.lock(&fh, 0, 10, false, true), GRANTED);
        let status = s.service.json(&["status"]).await.unwrap();
        assert_eq!((&status["locks"]["held"], &status["locks"]["hosts"]), (&1.into(), &2.into()), "{status}");
        assert!(status["locks"]["grace_s"].as_u64().is_some());
        // Both hosts are.
        told(number);
        told(number);
        assert_eq!(after_grace(&b, &fh, 20).await, GRANTED);
        assert_eq!(b.lock(&fh, 5, 10, false, false), DENIED);
        assert_eq!(b.unlock(&fh, 0, 0), GRANTED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_go_over_a_moves_switch_who_waits_is_called_and_a_suspended_junction_asks_to_come_again() {
    let (port, heard) = client_programs();
    let (s, fh) = served(port).await;
    let (a, b) = (Host { s: &s, name: "a" }, Host { s: &s, name: "b" });
    assert_eq!(a.lock(&fh, 0, 0, false, false), GRANTED);
    assert_eq!(b.lock(&fh, 5, 10, true, false), BLOCKED);
    let job = s.service.tain(&["move", "create", "/a/b", "two:/dest"]).await.unwrap();
    s.service.tain(&["job", "wait", job.trim(), "--state", "completed", "--timeout", "2m"]).await.unwrap();
    assert!(s.dir.path().join("other/dest/file").exists());
    assert_eq!(b.lock(&fh, 5, 10, true, false), BLOCKED, "what was held is held on the other side");
    assert_eq!(a.unlock(&fh, 0, 0), GRANTED);
    let mut granted = hears(&heard, NLM);
    assert_eq!((granted.opaque().unwrap(), granted.bool().unwrap()), (name("cook"), true));
    assert_eq!((granted.opaque().unwrap(), granted.opaque().unwrap()), (name("b"), fh.clone()));
    assert_eq!(a.lock(&fh, 5, 1, false, false), DENIED, "it has it");

    s.service.tain(&["junction", "suspend", "/a/b"]).await.unwrap();
    assert_eq!(a.lock(&fh, 100, 1, false, false), GRACE, "to come again");
    assert_eq!(b.unlock(&fh, 5, 10), GRANTED, "giving up is always possible");
    s.service.tain(&["junction", "resume", "/a/b"]).await.unwrap();
    assert_eq!(after_grace(&a, &fh, 5).await, GRANTED);
    let remove = Call::Remove { dir: s.root.clone(), name: name("file") };
    expect(&s.client, remove, status::OK).await;
    assert_eq!(b.lock(&fh, 0, 1, false, false), STALE);
    assert_eq!(a.unlock(&fh, 0, 0), GRANTED, "of a file that is gone, too");
}
