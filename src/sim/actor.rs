//! A client: one call after the other, on whatever it and the others have met, in a small namespace, so that they meet.

use super::rng::Rng;
use super::scribe::{Answer, Scribe, Told};
use crate::core::Core;
use crate::volume::{Call, CreateHow, NewNode, NodeRef, Room, SetAttrs, SetTime, Status};
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::{JunctionId, Lsn, Time};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Names that clients use; the ones that were there before begin with these, too.
const NAMES: [&[u8]; 10] = [b"a", b"b", b"c", b"d", b"e", b"f0", b"f1", b"d0", b"d1", b"l"];
/// Handles that are remembered; beyond it one goes for each that comes.
const KEPT_MAX: usize = 64;
const OFFSET_MAX: u64 = 60_000;
const WRITE_MAX: u64 = 12_000;

/// Handles that clients have, across lives: they stay valid (I6).
#[derive(Default)]
pub struct Pool {
    pub dirs: Vec<NodeRef>,
    pub others: Vec<NodeRef>,
}

/// What a READ gave, to be judged when the journal is known.
pub struct Seen {
    pub at: NodeRef,
    pub offset: u64,
    pub len: u32,
    pub data: Bytes,
    pub window: (Lsn, Lsn),
}

#[derive(Clone, Default)]
pub struct Shared {
    pub scribe: Arc<Mutex<Scribe>>,
    pub pool: Arc<Mutex<Pool>>,
    pub reads: Arc<Mutex<Vec<Seen>>>,
    pub xids: Arc<AtomicU32>,
    pub digest: Arc<Mutex<blake3::Hasher>>,
    pub wrong: Arc<Mutex<Vec<String>>>,
}

impl Shared {
    pub fn note(&self, text: &str) {
        let mut digest = self.digest.lock();
        digest.update(text.as_bytes());
        digest.update(b"\n");
    }

    pub fn accuse(&self, what: String) {
        tracing::warn!(what, "the judge");
        self.wrong.lock().push(what);
    }
}

pub struct Actor {
    pub core: Core,
    pub junction: JunctionId,
    pub shared: Shared,
    pub rng: Rng,
    pub think_ms_max: u64,
}

/// What came of a call: bytes written, and a handle that was given.
type Came = Result<(u32, Option<NodeRef>), Status>;

impl Actor {
    pub async fn run(mut self) {
        loop {
            self.one().await;
            let think = Duration::from_micros(self.rng.below(self.think_ms_max * 1000 + 1));
            tokio::time::sleep(think).await;
        }
    }

    fn call(&mut self) -> Call {
        let uid = if self.rng.percent(15) { 1000 } else { 0 };
        // 0 is the volume's own.
        let xid = self.shared.xids.fetch_add(1, Ordering::Relaxed) + 1;
        Call { uid, gid: uid, gids: Vec::new(), addr: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 700, xid, sum: xid }
    }

    fn dir(&mut self) -> NodeRef {
        let pool = self.shared.pool.lock();
        // The first is the root, which is always there.
        let at = if self.rng.percent(30) { 0 } else { self.rng.index(pool.dirs.len()) };
        pool.dirs[at]
    }

    fn other(&mut self) -> Option<NodeRef> {
        let pool = self.shared.pool.lock();
        self.rng.pick(&pool.others).copied()
    }

    fn name(&mut self) -> Vec<u8> {
        NAMES[self.rng.index(NAMES.len())].to_vec()
    }

    fn keep(&mut self, at: NodeRef, is_dir: bool) {
        let mut pool = self.shared.pool.lock();
        let kept = if is_dir { &mut pool.dirs } else { &mut pool.others };
        if kept.contains(&at) {
            return;
        }
        if kept.len() >= KEPT_MAX {
            let out = 1 + self.rng.index(kept.len() - 1);
            kept.swap_remove(out);
        }
        kept.push(at);
    }

    fn forget(&self, at: NodeRef) {
        let mut pool = self.shared.pool.lock();
        let root = pool.dirs[0];
        if at != root {
            pool.dirs.retain(|it| *it != at);
            pool.others.retain(|it| *it != at);
        }
    }

    async fn one(&mut self) {
        let from = self.core.ledger.journal.end_lsn();
        let call = self.call();
        let dice = self.rng.below(100);
        let (what, must, about, came): (&'static str, bool, Option<NodeRef>, Came) = match dice {
            0..14 => self.create(&call).await,
            14..22 => self.make(&call).await,
            22..50 => self.write(&call).await,
            50..58 => self.set(&call).await,
            58..70 => self.rename(&call).await,
            70..76 => self.link(&call).await,
            76..86 => self.remove(&call).await,
            86..93 => return self.read(&call).await,
            _ => return self.look(&call).await,
        };
        self.answered(call.xid, from, what, must, about, came);
    }

    fn answered(&self, xid: u32, from: Lsn, what: &'static str, must: bool, about: Option<NodeRef>, came: Came) {
        let told = match &came {
            Ok((n, _)) => Told::Done(*n),
            Err(Status::Jukebox) => Told::Unknown,
            Err(status) => Told::Refused(*status),
        };
        if came == Err(Status::ServerFault) {
            self.shared.accuse(format!("{what} (xid {xid}) was answered SERVERFAULT"));
        }
        if let (Err(Status::Stale), Some(at)) = (&came, about) {
            self.forget(at);
        }
        let node = came.as_ref().ok().and_then(|(_, node)| *node).or(about).map(|at| at.node);
        let window = (from, self.core.ledger.journal.durable_lsn());
        let answer = Answer { xid, what, must, window, told, node };
        self.shared.note(&format!("{answer:?} {:?}", crate::env::wall_nanos()));
        self.shared.scribe.lock().answers.push(answer);
    }

    async fn create(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let (dir, name) = (self.dir(), self.name());
        let size = self.rng.percent(20).then(|| self.rng.below(20_000));
        let attrs = SetAttrs { mode: Some(0o644), size, ..SetAttrs::default() };
        let how = match self.rng.below(3) {
            0 => CreateHow::Unchecked(attrs),
            1 => CreateHow::Guarded(attrs),
            _ => CreateHow::Exclusive(self.rng.draw().to_le_bytes()),
        };
        let made = self.core.volume.create(call, dir, &name, how).await;
        let came = made.map(|found| (0, Some(found.node))).map_err(|r| r.status);
        if let Ok((_, Some(node))) = came {
            self.keep(node, false);
        }
        // What was there already may be answered without an event.
        ("create", matches!(how, CreateHow::Guarded(_)), Some(dir), came)
    }

    async fn make(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let (dir, name) = (self.dir(), self.name());
        let what = match self.rng.below(10) {
            0..6 => What::Dir,
            6..9 => What::Symlink { target: format!("../{}", self.rng.below(1000)).into_bytes() },
            _ => What::Fifo,
        };
        let is_dir = what == What::Dir;
        let new = NewNode { what, attrs: SetAttrs { mode: Some(0o755), ..SetAttrs::default() } };
        let made = self.core.volume.make(call, dir, &name, new).await;
        let came = made.map(|found| (0, Some(found.node))).map_err(|r| r.status);
        if let Ok((_, Some(node))) = came {
            self.keep(node, is_dir);
        }
        ("make", true, Some(dir), came)
    }

    async fn write(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let Some(at) = self.other() else { return self.create(call).await };
        let (offset, len) = (self.rng.below(OFFSET_MAX), self.rng.between(1, WRITE_MAX));
        let data = block(call.xid, offset, len);
        let written = self.core.volume.write(call, at, offset, data).await;
        ("write", true, Some(at), written.map(|(n, _)| (n, None)).map_err(|r| r.status))
    }

    async fn set(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let at = match self.other() {
            Some(at) if self.rng.percent(80) => at,
            _ => self.dir(),
        };
        let rng = &mut self.rng;
        let mut wish = SetAttrs::default();
        match rng.below(5) {
            0 => wish.mode = Some(if rng.percent(50) { 0o640 } else { 0o755 }),
            1 | 2 => wish.size = Some(rng.below(OFFSET_MAX + WRITE_MAX)),
            3 => wish.mtime = SetTime::Client(Time(i64::try_from(rng.below(1 << 50)).unwrap_or(0))),
            _ => wish.uid = Some(u32::try_from(rng.below(3)).unwrap_or(0)),
        }
        let set = self.core.volume.setattr(call, at, wish, None).await;
        ("setattr", false, Some(at), set.map(|_| (0, None)).map_err(|r| r.status))
    }

    async fn rename(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let (from, name, to, new) = (self.dir(), self.name(), self.dir(), self.name());
        let to = if self.rng.percent(40) { from } else { to };
        let done = self.core.volume.rename(call, from, &name, to, &new).await;
        ("rename", false, None, done.map(|_| (0, None)).map_err(|r| r.status))
    }

    async fn link(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let Some(at) = self.other() else { return self.create(call).await };
        let (dir, name) = (self.dir(), self.name());
        let done = self.core.volume.link(call, at, dir, &name).await;
        ("link", true, None, done.map(|_| (0, None)).map_err(|r| r.status))
    }

    async fn remove(&mut self, call: &Call) -> (&'static str, bool, Option<NodeRef>, Came) {
        let (dir, name) = (self.dir(), self.name());
        if self.rng.percent(35) {
            let done = self.core.volume.rmdir(call, dir, &name).await;
            return ("rmdir", true, Some(dir), done.map(|_| (0, None)).map_err(|r| r.status));
        }
        let done = self.core.volume.remove(call, dir, &name).await;
        ("remove", true, Some(dir), done.map(|_| (0, None)).map_err(|r| r.status))
    }

    async fn read(&mut self, call: &Call) {
        let Some(at) = self.other() else { return };
        let (offset, len) = (self.rng.below(OFFSET_MAX), 20_000);
        let from = self.core.ledger.settled_lsn(self.junction);
        match self.core.volume.read(call, at, offset, len).await {
            Ok(read) => {
                let window = (from, self.core.ledger.journal.durable_lsn());
                self.shared.note(&format!("read {} {} {}", call.xid, at.node, read.data.len()));
                self.shared.reads.lock().push(Seen { at, offset, len, data: read.data, window });
            }
            Err(refused) => self.told_of(call.xid, at, refused.status),
        }
    }

    async fn look(&mut self, call: &Call) {
        let (dir, name) = (self.dir(), self.name());
        if self.rng.percent(30) {
            let listing = self.core.volume.readdir(call, dir, 0, 0, Room::plus(1 << 16, 1 << 16, 160), &|_| true).await;
            match listing {
                Ok(listing) => self.shared.note(&format!("list {} {} {}", call.xid, dir.node, listing.entries.len())),
                Err(refused) => self.told_of(call.xid, dir, refused.status),
            }
            return;
        }
        match self.core.volume.lookup(call, dir, &name).await {
            Ok(found) => {
                self.shared.note(&format!("lookup {} {}", call.xid, found.node.node));
                self.keep(found.node, found.attr.kind == journal_format::ids::Kind::Dir);
            }
            Err(refused) => self.told_of(call.xid, dir, refused.status),
        }
    }

    /// A call that changes nothing was refused.
    fn told_of(&self, xid: u32, at: NodeRef, status: Status) {
        let from = self.core.ledger.journal.end_lsn();
        self.answered(xid, from, "read", false, Some(at), Err(status));
    }
}

/// Bytes that say which call wrote them, and where.
fn block(xid: u32, offset: u64, len: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    for at in offset..offset + len {
        let word = (u64::from(xid) << 32) | (at & !7);
        let byte = word.to_le_bytes()[usize::try_from(at & 7).unwrap_or(0)];
        bytes.push(if byte == 0 { 0xa5 } else { byte });
    }
    bytes.into()
}
