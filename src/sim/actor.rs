//! A client: one call after the other, on whatever it and the others have met, in a small namespace, so that they meet.

use super::asked::{Asked, Came, a_create, a_make, a_wish};
use super::fate::{Fired, count};
use super::rng::Rng;
use super::scribe::{Answer, Scribe, Told};
use crate::core::Core;
use crate::volume::late::Known;
use crate::volume::outcome::{Effect, Outcome};
use crate::volume::{Call, NodeRef, Room, Status};
use bytes::Bytes;
use journal_format::ids::{JunctionId, Lsn};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Names that clients use; the ones that were there before begin with these, too.
const NAMES: [&[u8]; 10] = [b"a", b"b", b"c", b"d", b"e", b"f0", b"f1", b"d0", b"d1", b"l"];
/// Handles that are remembered; beyond it one goes for each that comes.
const KEPT_MAX: usize = 64;
const OFFSET_MAX: u64 = 60_000;
pub const WRITE_MAX: u64 = 12_000;

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
    pub counts: Arc<Mutex<Fired>>,
}

impl Shared {
    pub fn count(&self, what: &'static str) {
        count(&mut self.counts.lock(), what);
    }

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
    /// Of its own, too: whether it comes again, and when.
    pub again: Rng,
    pub think_ms_max: u64,
    /// Bytes of its longest WRITE.
    pub write_max: u64,
    /// Its own: what a client is owed is kept by address.
    pub addr: IpAddr,
}

/// What an answer is of.
struct Of {
    xid: u32,
    from: Lsn,
    what: &'static str,
    must: bool,
    asked: Option<Asked>,
    earlier: Vec<u32>,
    about: Option<NodeRef>,
}

/// How often a client that is sent away comes again.
const REPEATS: u32 = 4;

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
        Call { uid, gid: uid, gids: Vec::new(), addr: self.addr, port: 700, xid, sum: xid }
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
        let call = self.call();
        let asked = match self.rng.below(100) {
            0..14 => self.create(),
            14..22 => self.make(),
            22..50 => self.write(),
            50..58 => self.set(),
            58..70 => self.rename(),
            70..76 => self.link(),
            76..86 => self.remove(),
            86..93 => return self.read(&call).await,
            _ => return self.look(&call).await,
        };
        self.ask(call, asked).await;
    }

    /// Half of the operations on names that are sent away come again, as a kernel's: under a new xid, otherwise the same.
    async fn ask(&mut self, mut call: Call, asked: Asked) {
        let mut comes_again = if asked.is_of_names() && self.again.percent(50) { REPEATS } else { 0 };
        let mut ran = (call.xid, self.core.ledger.journal.end_lsn());
        let mut earlier = Vec::new();
        loop {
            let from = self.core.ledger.journal.end_lsn();
            let known = if earlier.is_empty() { Ok(None) } else { self.core.volume.late(&call) };
            let came = match known {
                Ok(Some(Known::Done(outcome))) => {
                    self.shared.count("told late");
                    return self.answered(&asked, ran, Vec::new(), Ok((0, made(&outcome))));
                }
                Ok(Some(Known::Running)) => Err(Status::Jukebox),
                Ok(None) => {
                    ran = (call.xid, from);
                    asked.ask(&self.core.volume, &call).await
                }
                Err(status) => Err(status),
            };
            let sent_away = came == Err(Status::Jukebox);
            self.answered(&asked, ran, earlier.clone(), came);
            if !sent_away || comes_again == 0 {
                return;
            }
            comes_again -= 1;
            if earlier.last() != Some(&ran.0) {
                earlier.push(ran.0);
            }
            tokio::time::sleep(Duration::from_millis(self.again.between(50, 3000))).await;
            call.xid = self.shared.xids.fetch_add(1, Ordering::Relaxed) + 1;
            self.shared.count("came again");
        }
    }

    fn answered(&mut self, asked: &Asked, (xid, from): (u32, Lsn), earlier: Vec<u32>, came: Came) {
        if let Ok((_, Some(node))) = came {
            self.keep(node, asked.makes_dir());
        }
        let (what, must) = (asked.what(), asked.must_be_recorded());
        let of = Of { xid, from, what, must, asked: Some(asked.clone()), earlier, about: asked.about() };
        self.note(of, came);
    }

    fn note(&self, of: Of, came: Came) {
        let Of { xid, from, what, must, asked, earlier, about } = of;
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
        let answer = Answer { xid, what, must, window, told, node, asked, earlier };
        self.shared.note(&format!("{answer:?} {:?}", crate::env::wall_nanos()));
        self.shared.scribe.lock().answers.push(answer);
    }

    fn create(&mut self) -> Asked {
        let (dir, name) = (self.dir(), self.name());
        a_create(&mut self.rng, dir, name)
    }

    fn make(&mut self) -> Asked {
        let (dir, name) = (self.dir(), self.name());
        a_make(&mut self.rng, dir, name)
    }

    fn write(&mut self) -> Asked {
        let Some(at) = self.other() else { return self.create() };
        Asked::Write { at, offset: self.rng.below(OFFSET_MAX), len: self.rng.between(1, self.write_max) }
    }

    fn set(&mut self) -> Asked {
        let at = match self.other() {
            Some(at) if self.rng.percent(80) => at,
            _ => self.dir(),
        };
        Asked::Set { at, wish: a_wish(&mut self.rng, OFFSET_MAX + WRITE_MAX) }
    }

    fn rename(&mut self) -> Asked {
        let (from, name, to, new) = (self.dir(), self.name(), self.dir(), self.name());
        let to = if self.rng.percent(40) { from } else { to };
        Asked::Rename { from, name, to, new }
    }

    fn link(&mut self) -> Asked {
        let Some(at) = self.other() else { return self.create() };
        Asked::Link { at, dir: self.dir(), name: self.name() }
    }

    fn remove(&mut self) -> Asked {
        let (dir, name) = (self.dir(), self.name());
        if self.rng.percent(35) { Asked::Rmdir { dir, name } } else { Asked::Remove { dir, name } }
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
        let of = Of { xid, from, what: "read", must: false, asked: None, earlier: Vec::new(), about: Some(at) };
        self.note(of, Err(status));
    }
}

/// The node that an operation made.
fn made(outcome: &Outcome) -> Option<NodeRef> {
    match outcome.effect {
        Effect::Made { node, .. } => Some(NodeRef { junction: outcome.junction, node }),
        _ => None,
    }
}
