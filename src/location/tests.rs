//! A small world: a primary that clients change at random, a copier's steps at random, a secondary that replays with a
//! lag, in rounds of random size, and crashes in the middle of them. In the end both trees are the same, and no step
//! that was done ran twice.

use super::carry_out::{Carried, DoneSteps, carry_out, put_times};
use super::copy::Source;
use super::projection::{Held, Projection, Queue};
use super::root::put_root;
use super::round::Round;
use super::{Location, Recorder};
use crate::filer::{self, AclKind, CoreFiler, ErrorKind, MakeAttrs, memory};
use crate::index::live::Live;
use crate::index::objects::Objects;
use crate::index::store::Store;
use crate::journal::Record;
use bytes::Bytes;
use journal_format::event::*;
use journal_format::ids::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod outage;
mod traps;
mod walks;

const JUNCTION: JunctionId = JunctionId(1);
const FROM: LocationId = LocationId(1);
const TO: LocationId = LocationId(2);
const ROOT: NodeId = NodeId(100);

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[usize::try_from(self.roll(of.len() as u64)).unwrap()].clone()) }
    }
}

struct World {
    dice: Dice,
    live: Arc<Live>,
    source: Arc<Location>,
    dest: Arc<Location>,
    projection: Projection,
    journal: Vec<Record>,
    /// Kind and names.
    nodes: BTreeMap<NodeId, Kind>,
    next: u64,
    /// Index into `journal` of the dest's last commit.
    committed: usize,
    position: usize,
    done: DoneSteps,
    crashes: u32,
    /// `Made`s in the journal.
    recorded: Book,
    /// Made, and not in the journal yet.
    made: Vec<(NodeId, Identity)>,
    _dirs: Vec<tempfile::TempDir>,
}

async fn location(id: LocationId, filer: Arc<dyn CoreFiler>, dir: &std::path::Path, exact: bool) -> Arc<Location> {
    let path = dir.join(format!("{id}.redb"));
    let store = if exact { Store::open_exact(&path, 1 << 20) } else { Store::open(&path, 1 << 20) }.unwrap();
    let objects = Objects::new(Arc::new(store));
    let root = filer.root().await.unwrap();
    objects.store.write(objects.put(ROOT, &root.id).unwrap());
    Arc::new(Location::new(id, ROOT, filer, objects))
}

impl World {
    async fn new(seed: u64, source: Arc<dyn CoreFiler>, dest: Arc<dyn CoreFiler>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live.redb"), 1 << 20).unwrap())));
        let source = location(FROM, source, dir.path(), false).await;
        let dest = location(TO, dest, dir.path(), true).await;
        let projection = Projection {
            store: dest.objects.store.clone(),
            objects: dest.objects.clone(),
            location: TO,
            junction: JUNCTION,
        };
        let mut world = Self {
            dice: Dice(seed * 2 + 1),
            live,
            source,
            dest,
            projection,
            journal: Vec::new(),
            nodes: BTreeMap::from([(ROOT, Kind::Dir)]),
            next: 101,
            committed: 0,
            position: 0,
            done: DoneSteps::new(),
            crashes: 0,
            recorded: Book::default(),
            made: Vec::new(),
            _dirs: vec![dir],
        };
        let root = world.source.filer.root().await.unwrap();
        let default = AclKind::Default.xattr().as_bytes();
        world.source.filer.set_xattr(&root, default, &named_user(7, 7)).await.unwrap();
        put_root(world.source.filer.as_ref(), world.dest.filer.as_ref()).await.unwrap();
        let added = JunctionAdded {
            junction: JUNCTION,
            path: vec![b"j".to_vec()],
            location: LocationSpec { location: FROM, filer: FilerId(1), subdir: vec![], root: root.id },
            root: ROOT,
            mtime: Time(1),
            ctime: Time(1),
        };
        world.record(Event::JunctionAdded(added), Bytes::new());
        world.projection.begin(ROOT, Lsn(0)).unwrap();
        world
    }

    fn record(&mut self, event: Event, bulk: Bytes) -> Lsn {
        let lsn = Lsn((self.journal.len() as u64 + 1) << 12);
        let time = Time(1_700_000_000_000_000_000 + self.journal.len() as i64 * 1_000_000);
        self.live.apply(lsn, time, &event).unwrap();
        self.journal.push(Record { lsn, end: lsn.plus(1 << 12), time, event, bulk });
        lsn
    }

    fn name(&mut self) -> Vec<u8> {
        vec![b'a' + self.dice.roll(6) as u8]
    }

    fn some(&mut self, kind: impl Fn(Kind) -> bool) -> Option<NodeId> {
        let of: Vec<NodeId> = self.nodes.iter().filter(|(_, k)| kind(**k)).map(|(n, _)| *n).collect();
        self.dice.pick(&of)
    }

    async fn object(&self, node: NodeId) -> filer::Object {
        self.source.object(self.live.as_ref(), node).await.unwrap()
    }

    fn is_below(&self, node: NodeId, above: NodeId) -> bool {
        let mut at = node;
        loop {
            if at == above {
                return true;
            }
            match self.live.names(at, 1).unwrap().pop() {
                Some((parent, _)) if at != ROOT => at = parent,
                _ => return false,
            }
        }
    }

    /// A client's operation, carried out on the primary at once.
    async fn operate(&mut self) {
        match self.dice.roll(10) {
            0..=3 => self.make().await,
            4 | 5 => self.write().await,
            6 => self.remove().await,
            7 | 8 => self.rename().await,
            _ => self.link().await,
        }
    }

    async fn make(&mut self) {
        let (Some(dir), name) = (self.some(|k| k == Kind::Dir), self.name()) else { return };
        if self.live.entry(dir, &name).unwrap().is_some() {
            return;
        }
        let what = match self.dice.roll(4) {
            0 => What::Dir,
            1 => What::Symlink { target: b"/nowhere".to_vec() },
            _ => What::File,
        };
        self.made(dir, &name, what).await;
    }

    async fn made(&mut self, dir: NodeId, name: &[u8], what: What) -> NodeId {
        let node = NodeId(self.next);
        self.next += 1;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mode = if what == What::Dir { 0o755 } else { 0o640 };
        let at = self.object(dir).await;
        let attrs = MakeAttrs { mode, uid, gid, inherits: true };
        let object = self.source.filer.make(&at, name, &what, attrs).await.unwrap();
        self.source.objects.store.write(self.source.objects.put(node, &object.id).unwrap());
        self.nodes.insert(node, what.kind());
        let make = Make {
            junction: JUNCTION,
            location: FROM,
            dir,
            name: name.to_vec(),
            node,
            what,
            mode,
            uid,
            gid,
            size: 0,
            atime: None,
            mtime: None,
            verifier: None,
            caller: Caller::default(),
        };
        self.record(Event::Make(make), Bytes::new());
        node
    }

    async fn write(&mut self) {
        let Some(node) = self.some(|k| k == Kind::File) else { return };
        if self.dice.roll(4) == 0 {
            let size = self.dice.roll(300_000);
            let changes = filer::Changes { size: Some(size), ..Default::default() };
            let object = self.object(node).await;
            self.source.filer.set(&object, changes).await.unwrap();
            let set = SetAttr {
                junction: JUNCTION,
                location: FROM,
                node,
                mode: None,
                uid: None,
                gid: None,
                size: Some(size),
                atime: None,
                mtime: None,
                caller: Caller::default(),
            };
            self.record(Event::SetAttr(set), Bytes::new());
            return;
        }
        let offset = self.dice.roll(200_000);
        let fill = self.dice.roll(255) as u8 + 1;
        let data = Bytes::from(vec![fill; 1 + self.dice.roll(100_000) as usize]);
        self.written(node, offset, data).await;
    }

    async fn written(&mut self, node: NodeId, offset: u64, data: Bytes) {
        let object = self.object(node).await;
        self.source.filer.write(&object, offset, data.clone()).await.unwrap();
        let len = u32::try_from(data.len()).unwrap();
        let write =
            Write { junction: JUNCTION, location: FROM, node, offset, len, mode: None, caller: Caller::default() };
        self.record(Event::Write(write), data);
    }

    fn last(&self, node: NodeId) -> bool {
        self.live.names(node, 2).unwrap().len() == 1
    }

    async fn remove(&mut self) {
        let Some(node) = self.some(|_| true) else { return };
        self.removed(node).await;
    }

    /// Unless it may not be.
    async fn removed(&mut self, node: NodeId) {
        let Some((dir, name)) = self.live.names(node, 1).unwrap().pop() else { return };
        let kind = self.nodes[&node];
        if node == ROOT || kind == Kind::Dir && self.live.has_entries(node).unwrap() {
            return;
        }
        let at = self.object(dir).await;
        let last = self.last(node);
        if kind == Kind::Dir {
            self.source.filer.rmdir(&at, &name).await.unwrap();
        } else {
            self.source.filer.remove(&at, &name).await.unwrap();
        }
        if last {
            self.nodes.remove(&node);
            self.source.forget(node);
        }
        let remove =
            Remove { junction: JUNCTION, location: FROM, dir, name, node, kind, last, caller: Caller::default() };
        self.record(Event::Remove(remove), Bytes::new());
    }

    async fn rename(&mut self) {
        let (Some(node), Some(to_dir), to_name) = (self.some(|_| true), self.some(|k| k == Kind::Dir), self.name())
        else {
            return;
        };
        self.renamed(node, to_dir, &to_name).await;
    }

    /// Unless it may not be.
    async fn renamed(&mut self, node: NodeId, to_dir: NodeId, to_name: &[u8]) {
        let Some((from_dir, from_name)) = self.live.names(node, 1).unwrap().pop() else { return };
        let kind = self.nodes[&node];
        if node == ROOT || self.is_below(to_dir, node) {
            return;
        }
        let mut replaced = None;
        if let Some(there) = self.live.entry(to_dir, to_name).unwrap() {
            let fits = (kind == Kind::Dir) == (there.kind == Kind::Dir);
            if there.node == node || !fits || there.kind == Kind::Dir && self.live.has_entries(there.node).unwrap() {
                return;
            }
            replaced = Some(Replaced { node: there.node, kind: there.kind, last: self.last(there.node) });
        }
        let (from, to) = (self.object(from_dir).await, self.object(to_dir).await);
        self.source.filer.rename(&from, &from_name, &to, to_name).await.unwrap();
        if let Some(replaced) = replaced.filter(|r| r.last) {
            self.nodes.remove(&replaced.node);
            self.source.forget(replaced.node);
        }
        let rename = Rename {
            junction: JUNCTION,
            location: FROM,
            from_dir,
            from_name,
            to_dir,
            to_name: to_name.to_vec(),
            node,
            kind,
            replaced,
            caller: Caller::default(),
        };
        self.record(Event::Rename(rename), Bytes::new());
    }

    async fn link(&mut self) {
        let (Some(node), Some(dir), name) =
            (self.some(|k| k == Kind::File), self.some(|k| k == Kind::Dir), self.name())
        else {
            return;
        };
        if self.live.entry(dir, &name).unwrap().is_some() {
            return;
        }
        let (object, at) = (self.object(node).await, self.object(dir).await);
        self.source.filer.link(&object, &at, &name).await.unwrap();
        let link =
            Link { junction: JUNCTION, location: FROM, node, kind: Kind::File, dir, name, caller: Caller::default() };
        self.record(Event::Link(link), Bytes::new());
    }

    /// What a copier would append, seeing the projection's queues.
    async fn copy(&mut self) {
        let job = JobId(1);
        if let Some(dir) = self.projection.queued(Queue::Dirs, None, 1).unwrap().pop() {
            self.record(Event::ListBegin(ListBegin { job, location: TO, dir }), Bytes::new());
        }
        for dir in self.projection.queued(Queue::Listing, None, 4).unwrap() {
            let Some((_, Held::Listing { begin })) = self.projection.held(dir).unwrap() else { continue };
            let entries = self.live.list(dir, 0, 1000).unwrap().into_iter().filter(|e| e.put_by < begin.0);
            let entries = entries.map(|e| ListedEntry { name: e.name, node: e.node, kind: e.kind }).collect();
            self.record(Event::Listed(Listed { job, location: TO, dir, entries, last: true }), Bytes::new());
        }
        let mut ranges = Vec::new();
        for node in self.projection.queued(Queue::Files, None, 3).unwrap() {
            let Some((_, Held::Partial { ordered_to })) = self.projection.held(node).unwrap() else { continue };
            let size = match self.nodes.contains_key(&node) {
                true => self.source.filer.stat(&self.object(node).await).await.unwrap().size,
                false => 0,
            };
            let len = 100_000.min(size.saturating_sub(ordered_to));
            ranges.push(Range { node, offset: ordered_to, len, last: ordered_to + len >= size });
        }
        if !ranges.is_empty() {
            self.record(Event::CopyRange(CopyRange { job, location: TO, ranges }), Bytes::new());
        }
    }

    fn fold(&self, from: usize, to: usize, redo: bool) -> Round {
        let mut round = if redo { Round::redo() } else { Round::default() };
        for record in &self.journal[from..to] {
            self.projection.fold(&mut round, record).unwrap();
        }
        round
    }

    /// A round up to `to`; `Err` when the filer failed in the middle of it.
    async fn round(&mut self, to: usize, redo: bool) -> filer::Result<Carried> {
        let from = if redo { self.committed } else { self.position };
        let round = self.fold(from, to, redo);
        if self.made.iter().any(|(node, _)| round.is_about(*node)) {
            self.recorded.0.lock().append(&mut self.made);
        }
        let source = Source { location: self.source.clone(), live: self.live.clone() };
        if self.dice.roll(2) == 0 {
            self.dest.forget_all();
        }
        let carried =
            carry_out(&self.dest, &self.projection, Some(&source), &round, &self.done, &self.recorded).await?;
        self.made.extend(carried.made.iter().cloned());
        assert!(carried.failed.is_empty(), "{:?}", carried.failed);
        if self.dice.roll(2) == 0 {
            self.dest.forget_all(); // it is bounded
        }
        put_times(&self.dest, &self.projection, &self.live, &round.times).await?;
        self.position = to;
        Ok(carried)
    }

    fn commit(&mut self, ranges: Vec<RangeDone>) {
        for range in ranges {
            assert!(self.done.insert((range.node, range.offset)), "a finished step ran again: {range:?}");
        }
        self.recorded.0.lock().append(&mut self.made);
        self.projection.store.commit(Lsn(self.position as u64)).unwrap();
        self.committed = self.position;
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.projection.store.rollback().unwrap();
        self.made.clear();
        for (node, id) in self.recorded.0.lock().iter() {
            self.projection.store.write(self.dest.objects.put(*node, id).unwrap());
        }
        let dest = &self.dest;
        // A new process: nothing is remembered.
        let fresh = Location::new(TO, ROOT, dest.filer.clone(), dest.objects.clone());
        self.dest = Arc::new(fresh);
    }
}

/// The journal, as far as `Made` goes.
#[derive(Clone, Default)]
pub(super) struct Book(pub Arc<parking_lot::Mutex<Vec<(NodeId, Identity)>>>);

#[async_trait::async_trait]
impl Recorder for Book {
    async fn made(&self, _location: LocationId, objects: &[(NodeId, Identity)]) -> filer::Result<()> {
        self.0.lock().extend_from_slice(objects);
        Ok(())
    }
}

/// What a tree looks like from outside.
/// An ACL: all for the owner, `named` for user 30, nothing for the owning group and others, under a mask.
pub(crate) fn named_user(named: u16, mask: u16) -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 7, u32::MAX), (2, named, 30), (4, 0, u32::MAX), (16, mask, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

pub(crate) async fn picture(location: &Location) -> BTreeMap<Vec<u8>, String> {
    let filer = &location.filer;
    let mut seen = BTreeMap::new();
    let mut todo = vec![(Vec::new(), filer.root().await.unwrap())];
    while let Some((path, dir)) = todo.pop() {
        let mut from = Some(0);
        while let Some(at) = from {
            let page = filer.list(&dir, at, 100).await.unwrap();
            from = page.next;
            for name in page.names {
                let object = filer.lookup(&dir, &name).await.unwrap();
                let stat = filer.stat(&object).await.unwrap();
                let path = [path.as_slice(), b"/", &name].concat();
                let content = match object.kind {
                    Kind::File => {
                        let data = filer.read(&object, 0, 1 << 20).await.unwrap();
                        blake3::hash(&data).to_hex().to_string()
                    }
                    Kind::Symlink => String::from_utf8(filer.readlink(&object).await.unwrap()).unwrap(),
                    _ => String::new(),
                };
                let size = if object.kind == Kind::File { stat.size } else { 0 };
                let xattrs = filer.xattrs(&object).await.unwrap();
                let links = if object.kind == Kind::File { stat.nlink } else { 0 };
                let data = filer.data_ranges(&object, 0, u64::MAX).await;
                let data = if object.kind == Kind::File { data.unwrap() } else { Vec::new() };
                let (mode, owner) = (stat.mode, (stat.uid, stat.gid));
                seen.insert(
                    path.clone(),
                    format!(
                        "{:?} {mode:o} {owner:?} {:?} {size} {links} {:?} {content} {data:?} {xattrs:?}",
                        object.kind, stat.rdev, stat.mtime
                    ),
                );
                if object.kind == Kind::Dir {
                    todo.push((path, object));
                }
            }
        }
    }
    seen
}

async fn run(seed: u64, crashes: bool, filers: fn() -> (Arc<dyn CoreFiler>, Arc<dyn CoreFiler>, Faults)) -> u32 {
    let (source, dest, faults) = filers();
    let mut world = World::new(seed, source, dest).await;
    for _ in 0..40 {
        world.operate().await;
    }
    let mut made: Vec<RangeDone> = Vec::new();
    for step in 0..120 {
        for _ in 0..world.dice.roll(4) {
            if step < 100 {
                world.operate().await;
            }
        }
        world.copy().await;
        let ahead = world.journal.len() - world.position;
        let to =
            if step < 100 { world.position + world.dice.roll(ahead as u64 + 1) as usize } else { world.journal.len() };
        let failing = crashes && world.dice.roll(3) == 0;
        if failing {
            faults.after(world.dice.roll(40));
        }
        let result = world.round(to, false).await;
        faults.off();
        match result {
            Ok(carried) => made.extend(carried.ranges),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Down, "{error}");
                made.clear();
                world.crash();
                // The filer may fail again in the middle of redo.
                loop {
                    if world.dice.roll(2) == 0 {
                        faults.after(world.dice.roll(60));
                    }
                    let again = world.round(to, true).await;
                    faults.off();
                    match again {
                        Ok(carried) => {
                            made.extend(carried.ranges);
                            break;
                        }
                        Err(_) => world.crash(),
                    }
                }
            }
        }
        if world.dice.roll(3) == 0 {
            let ranges = std::mem::take(&mut made);
            world.commit(ranges);
        }
    }
    for _ in 0..60 {
        world.copy().await;
        let to = world.journal.len();
        let carried = world.round(to, false).await.unwrap();
        made.extend(carried.ranges);
    }
    let pending = world.projection.pending().unwrap();
    assert_eq!((pending.dirs, pending.files, pending.incomplete), (0, 0, 0), "seed {seed}");
    let touched: BTreeSet<NodeId> = world.nodes.keys().copied().collect();
    put_times(&world.source, world.live.as_ref(), &world.live, &touched).await.unwrap();
    let (a, b) = (picture(&world.source).await, picture(&world.dest).await);
    assert_eq!(a, b, "seed {seed}");
    assert!(!a.is_empty());
    world.crashes
}

/// Faults of the destination: from the n-th call on nothing works, until switched off.
#[derive(Clone, Default)]
struct Faults(Arc<parking_lot::Mutex<Option<u64>>>);

impl Faults {
    fn after(&self, calls: u64) {
        *self.0.lock() = Some(calls);
    }
    fn off(&self) {
        *self.0.lock() = None;
    }
    fn hook(&self) -> impl Fn(&'static str) -> Option<memory::Fault> + Send + Sync + use<> {
        let left = self.0.clone();
        move |_| {
            let mut left = left.lock();
            match left.as_mut() {
                Some(0) => Some(memory::Fault::Before(ErrorKind::Down)),
                Some(1) => {
                    *left = Some(0);
                    Some(memory::Fault::After(ErrorKind::Down))
                }
                Some(n) => {
                    *n -= 1;
                    None
                }
                None => None,
            }
        }
    }
}

fn filers(by_identity: bool) -> (Arc<dyn CoreFiler>, Arc<dyn CoreFiler>, Faults) {
    let mut options = memory::Options::default();
    options.capabilities.open_by_identity = by_identity;
    options.uid = rustix::process::geteuid().as_raw();
    options.gid = rustix::process::getegid().as_raw();
    let dest = memory::Memory::new(options);
    let faults = Faults::default();
    dest.set_fault(Some(Box::new(faults.hook())));
    (Arc::new(memory::Memory::new(options)), Arc::new(dest), faults)
}

fn found() -> (Arc<dyn CoreFiler>, Arc<dyn CoreFiler>, Faults) {
    filers(true)
}

fn walked() -> (Arc<dyn CoreFiler>, Arc<dyn CoreFiler>, Faults) {
    filers(false)
}

#[tokio::test]
async fn a_secondary_that_replays_with_a_lag_ends_equal() {
    for seed in 1..25 {
        run(seed, false, found).await;
        run(seed, false, walked).await;
    }
}

#[tokio::test]
async fn a_secondary_that_crashes_in_the_middle_of_rounds_ends_equal_and_no_done_step_runs_again() {
    let mut crashes = 0;
    for seed in 1..25 {
        crashes += run(seed, true, found).await;
        crashes += run(seed, true, walked).await;
    }
    assert!(crashes > 150, "only {crashes} crashes");
}
