//! How much memory the service takes when 64 clients want all that they may have (I11).
//!
//! Each connection comes from an address of its own, and keeps more calls under way than one may have. What they want is
//! more than each budget gives: large requests and large replies that nobody reads ([`Part::Bytes`]); calls that change
//! something, each remembered with its reply ([`Part::Changes`]); and as many connections beside them as there are seats.

use super::support::raw::Raw;
use super::support::{Served, name};
use super::{Peak, watch};
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tain::demo::client::{Cred, call_bytes, record};
use tain::demo::nfs::{Call, Fh, How, NFS_PROGRAM, SetAttrs, VERSION, status};
use tain::gateway::{Limits, drc};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const CLIENTS: u8 = 64;
/// Each part comes so often at least: what is not given back shows. And at most, if calls are put off (JUKEBOX).
const ROUNDS: u32 = 3;
const ROUNDS_MAX: u32 = 40;
/// Of each client, in a round of bytes: 1 MiB each.
const LARGE_WRITES: u32 = 6;
const LARGE_READS: u32 = 24;
/// Of each client, in a round of changes; three of four change something.
const SMALL: u32 = 600;
/// For what hangs.
const LONG: Duration = Duration::from_secs(300);

/// What the service may take: its budgets for requests, for replies, and for replies that it remembers; and twice as
/// much for its connections, the journal's batches, and what the allocator keeps of what was given back (for 10 s: with
/// budgets that are filled by the one kind of call after the other, nearly as much as they are).
fn limit_kib() -> u64 {
    let limits = Limits::default();
    let budgets = limits.request_bytes_all as usize + limits.reply_bytes_all as usize + drc::BYTES_MAX;
    3 * (budgets as u64 >> 10)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Bytes,
    Changes,
}

struct Peer {
    number: u8,
    xid: u32,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    /// Its own file, which has a MiB, and everybody's directory.
    file: Fh,
    dir: Fh,
    made: u32,
}

/// What came of a part of one client's.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    answered: u64,
    changed: u64,
    put_off: u64,
}

impl Peer {
    async fn new(number: u8, s: &Served) -> Self {
        let file = name(&format!("own {number}"));
        let how = How::Unchecked(SetAttrs::size(1 << 20));
        let made = s.ok(Call::Create { dir: s.root.clone(), name: file, how }).await;
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 4, number + 1)), 0);
        let (read, write) = Raw::connect(from, s.service.nfs).await.unwrap().stream.into_split();
        Self { number, xid: 0, read, write, file: made.fh.unwrap(), dir: s.root.clone(), made: 0 }
    }

    fn calls(&mut self, part: Part) -> Vec<Call> {
        let large = Bytes::from(vec![self.number; 1 << 20]);
        let write = |file: &Fh, data| Call::Write { node: file.clone(), offset: 0, stable: 2, data };
        let read = |file: &Fh, count| Call::Read { node: file.clone(), offset: 0, count };
        match part {
            Part::Bytes => {
                let writes = (0..LARGE_WRITES).map(|_| write(&self.file, large.clone()));
                writes.chain((0..LARGE_READS).map(|_| read(&self.file, 1 << 20))).collect()
            }
            Part::Changes => (0..SMALL).map(|i| self.small(i)).collect(),
        }
    }

    fn small(&mut self, i: u32) -> Call {
        let (dir, node) = (self.dir.clone(), self.file.clone());
        match i % 8 {
            0 => {
                self.made += 1;
                let name = name(&format!("client {} made {}", self.number, self.made));
                Call::Create { dir, name, how: How::Guarded(SetAttrs::mode(0o644)) }
            }
            1 => Call::ReadDirPlus { dir, cookie: 0, verf: [0; 8], dircount: 4096, maxcount: 32 << 10 },
            2 => Call::Read { node, offset: 4096, count: 64 << 10 },
            _ => Call::Write { node, offset: u64::from(i) << 10, stable: 2, data: Bytes::from(vec![self.number; 100]) },
        }
    }

    /// All of a part's calls as fast as they are taken; no reply is read until `go`.
    async fn run(mut self, part: Part, go: Arc<tokio::sync::Semaphore>) -> (Self, Done) {
        let calls = self.calls(part);
        let (first, count) = (self.xid, u32::try_from(calls.len()).unwrap());
        self.xid += count;
        let send = async {
            for (xid, call) in (first..).zip(&calls) {
                let bytes = record(&call_bytes(xid, &Cred::own(), NFS_PROGRAM, VERSION, call.number(), &call.encode()));
                self.write.write_all(&bytes).await.expect("the connection stays");
            }
        };
        let receive = async {
            drop(go.acquire().await.unwrap());
            let (mut done, mut seen) = (Done::default(), vec![false; calls.len()]);
            for _ in 0..count {
                let (xid, status) = reply(&mut self.read).await;
                let at = (xid - first) as usize;
                assert!(!std::mem::replace(&mut seen[at], true), "answered twice");
                assert!([status::OK, status::JUKEBOX].contains(&status), "{:?}: {status}", calls[at]);
                done.answered += 1;
                done.put_off += u64::from(status == status::JUKEBOX);
                done.changed += u64::from(status == status::OK && matches!(calls[at].number(), 7 | 8));
            }
            done
        };
        let ((), done) =
            tokio::time::timeout(LONG, async { tokio::join!(send, receive) }).await.expect("all is answered");
        (self, done)
    }
}

/// A reply's xid and status.
async fn reply(stream: &mut OwnedReadHalf) -> (u32, u32) {
    use tokio::io::AsyncReadExt as _;
    let mark = stream.read_u32().await.expect("the connection stays");
    let mut body = vec![0; (mark & 0x7fff_ffff) as usize];
    stream.read_exact(&mut body).await.expect("the connection stays");
    let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    // Reply, accepted, no verifier, success.
    assert_eq!((word(4), word(8), word(12), word(16), word(20)), (1, 0, 0, 0, 0));
    (word(0), word(24))
}

/// Until the service takes no more.
async fn still(pid: u32) {
    let (mut last, mut same) = (0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = super::anonymous_kib(pid);
        same = if now.abs_diff(last) < 1 << 10 { same + 1 } else { 0 };
        last = now;
    }
}

async fn part(peers: Vec<Peer>, part: Part, pid: u32) -> (Vec<Peer>, Done) {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let tasks: Vec<_> = peers.into_iter().map(|peer| tokio::spawn(peer.run(part, go.clone()))).collect();
    if part == Part::Bytes {
        // Longer than that no reply may wait to be read (`Limits::write_deadline`).
        let _ = tokio::time::timeout(Limits::default().write_deadline / 3, still(pid)).await;
    }
    go.add_permits(tasks.len());
    let (mut back, mut all) = (Vec::new(), Done::default());
    for task in tasks {
        let (peer, done) = task.await.unwrap();
        back.push(peer);
        all.answered += done.answered;
        all.changed += done.changed;
        all.put_off += done.put_off;
    }
    (back, all)
}

/// Connections that ask nothing, until every seat is taken.
async fn sit(s: &Served) -> Vec<Raw> {
    let seats = Limits::default().connections_max;
    let mut held = Vec::with_capacity(seats);
    for i in 0..seats {
        let host = u8::try_from(i * 8 / seats + 1).unwrap();
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 5, host)), 0);
        held.push(Raw::connect(from, s.service.nfs).await.unwrap());
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_that_want_all_they_may_have_cost_no_more_than_the_budgets() {
    // The service inherits it, and has as many seats as half of that.
    let descriptors = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: descriptors, maximum: descriptors }).unwrap();
    let due = 2 * Limits::default().connections_max as u64;
    assert!(descriptors.is_none_or(|n| n >= due), "{descriptors:?}");
    let mut s = Served::new().await;
    let pid = s.service.pid().unwrap();
    let quiet = super::anonymous_kib(pid);
    // The clients come last: one that is quiet for a moment is not the one that has been quiet longest.
    let seats = sit(&s).await;
    let mut peers = Vec::new();
    for number in 0..CLIENTS {
        peers.push(Peer::new(number, &s).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let watcher = std::thread::spawn(move || watch(pid, &stopping));
    let mut changed = 0;
    let mut round = 0;
    // Until the cache of replies has been full, too.
    while round < ROUNDS || changed <= drc::ENTRIES_MAX as u64 {
        assert!(round < ROUNDS_MAX, "only {changed} calls were not put off");
        for what in [Part::Bytes, Part::Changes] {
            let begun = Instant::now();
            let done;
            (peers, done) = part(peers, what, pid).await;
            changed += done.changed;
            let (took, now) = (begun.elapsed(), super::anonymous_kib(pid) >> 10);
            println!("round {round}, {what:?}: {done:?} in {took:?}, {now} MiB now");
        }
        round += 1;
    }
    stop.store(true, Ordering::Release);
    let Peak { anonymous_kib, hwm_kib, samples } = watcher.join().unwrap();
    println!(
        "{CLIENTS} clients, {} more connections, {changed} changes: peak RssAnon + RssShmem {} MiB of {} that it may have, \
         {} MiB when quiet, VmHWM {} MiB ({samples} samples)",
        seats.len(),
        anonymous_kib >> 10,
        limit_kib() >> 10,
        quiet >> 10,
        hwm_kib >> 10
    );
    drop((seats, peers));
    s.service.stop().await.unwrap();
    // Each budget was wanted whole, and the cache was full.
    let wanted = (u64::from(CLIENTS) * u64::from(LARGE_WRITES)) << 20;
    assert!(wanted > u64::from(Limits::default().request_bytes_all) && changed > drc::ENTRIES_MAX as u64);
    let unread = u64::from(Limits::default().reply_bytes_all) >> 10;
    assert!(samples > 100 && anonymous_kib > quiet + unread, "the replies did not wait: {anonymous_kib} KiB");
    assert!(anonymous_kib < limit_kib(), "{anonymous_kib} KiB of {}", limit_kib());
}
