//! A replayer whose filer hangs: the backlog leaves the journal, clients go on, and when the filer answers again both
//! sides become equal by themselves.
#![allow(clippy::unwrap_used, reason = "tests")]

mod outage;
mod rebuilt;

use super::*;
use crate::filer::fence::{Fence, Fenced};
use crate::filer::{AclKind, CoreFiler, MakeAttrs, memory::Fault, memory::Memory, memory::Options as MemoryOptions};
use crate::index::live::Live;
use crate::index::objects::Objects;
use crate::index::store::Store;
use crate::journal::{AppendMode, Options};
use crate::limits;
use crate::location::carry_out::put_times;
use crate::location::tests::{named_user, picture};
use crate::state::State;
use bytes::Bytes;
use journal_format::event::*;
use journal_format::ids::*;
use std::collections::BTreeSet;

pub(crate) const JUNCTION: JunctionId = JunctionId(1);
const FROM: LocationId = LocationId(1);
const TO: LocationId = LocationId(2);
pub(crate) const ROOT: NodeId = NodeId(100);
const SOFT: u64 = 512 << 10;
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub ledger: Ledger,
    pub live: Arc<Live>,
    pub source: Arc<Location>,
    dest: Arc<Location>,
    from: Memory,
    /// What is behind the destination's fence.
    to: Memory,
    pub projection: Projection,
    fence: Fence,
    pub handle: Handle,
    task: tokio::task::JoinHandle<()>,
    next: u64,
    /// What is made has the ACLs of its directory.
    inherits: bool,
    touched: BTreeSet<NodeId>,
    dir: tempfile::TempDir,
}

async fn objects(filer: &dyn CoreFiler, store: Store) -> Objects {
    let objects = Objects::new(Arc::new(store));
    objects.store.write(objects.put(ROOT, &filer.root().await.unwrap().id).unwrap());
    objects
}

fn spec(location: LocationId, root: &Identity) -> LocationSpec {
    LocationSpec { location, filer: FilerId(location.0), subdir: vec![], root: root.clone() }
}

impl World {
    async fn new() -> Self {
        Self::onto(Memory::default()).await
    }

    async fn onto(to: Memory) -> Self {
        let world = Self::unlisted_onto(to).await;
        let (job, location, dir) = (JobId(1), TO, ROOT);
        world.ledger.record(&Event::ListBegin(ListBegin { job, location, dir })).await.unwrap();
        let listed = Listed { job, location, dir, entries: vec![], last: true };
        world.ledger.record(&Event::Listed(listed)).await.unwrap();
        world
    }

    /// Nothing of the root is copied yet, nor is its listing begun.
    pub(crate) async fn unlisted() -> Self {
        Self::unlisted_onto(Memory::default()).await
    }

    async fn unlisted_onto(behind: Memory) -> Self {
        Self::unlisted_between(Memory::default(), behind).await
    }

    async fn unlisted_between(memory: Memory, behind: Memory) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().join("journal"),
            segment_size: 128 << 10,
            hard_limit: 32 * (128 << 10),
            append: AppendMode::Buffered,
            any_file_system: true,
            disk: Arc::new(crate::env::RealDisk),
        };
        let journal = Journal::open(options).unwrap();
        journal.set_soft_limit(SOFT);
        let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
        let ledger = Ledger::new(journal, State::default(), Box::new(|_, _| ()));
        let from = Arc::new(memory.clone());
        let to = Arc::new(Fenced::new(Arc::new(behind.clone())));
        let (a, b) = (from.root().await.unwrap().id, to.root().await.unwrap().id);
        let begin = [
            Event::JournalCreated(JournalCreated { handle_key: [1; 32] }),
            filer(1),
            filer(2),
            Event::JunctionAdded(JunctionAdded {
                junction: JUNCTION,
                path: vec![b"j".to_vec()],
                location: spec(FROM, &a),
                root: ROOT,
                mtime: Time(1),
                ctime: Time(1),
            }),
            Event::JobCreated(JobCreated {
                job: JobId(1),
                kind: JobKind::Move,
                junction: JUNCTION,
                source: FROM,
                destination: spec(TO, &b),
                stopped: true,
                notes: String::new(),
            }),
            state(JobState::Starting),
            state(JobState::Moving),
        ];
        for event in &begin {
            let at = ledger.record(event).await.unwrap();
            live.apply(at.lsn, at.time, event).unwrap();
        }
        let source = objects(from.as_ref(), Store::open(&dir.path().join("from"), 1 << 20).unwrap()).await;
        let source = Arc::new(Location::new(FROM, ROOT, from, source));
        let dest = objects(to.as_ref(), Store::open_exact(&dir.path().join("to"), 1 << 20).unwrap()).await;
        let fence = to.fence.clone();
        let dest = Arc::new(Location::fenced(TO, ROOT, to, dest));
        let start = ledger.state().locations[&TO].cursor;
        let projection = projection(&dest);
        projection.begin(ROOT, start).unwrap();
        let from = Source { location: source.clone(), live: live.clone() };
        let replayer = Replayer::new(ledger.clone(), dest.clone(), projection.clone(), from, JobId(1), start);
        let handle = replayer.handle();
        let task = tokio::spawn(replayer.run());
        let touched = BTreeSet::from([ROOT]);
        Self {
            ledger,
            live,
            source,
            dest,
            from: memory,
            to: behind,
            projection,
            fence,
            handle,
            task,
            next: 101,
            inherits: false,
            touched,
            dir,
        }
    }

    async fn operate(&mut self, event: Event, bulk: Bytes, act: impl AsyncFnOnce(&Location, &Live)) {
        let op = self.ledger.begin(JUNCTION, &event, &bulk).await.unwrap();
        act(&self.source, &self.live).await;
        self.live.apply(op.at.lsn, op.at.time, &event).unwrap();
        self.ledger.done(op);
    }

    pub(crate) async fn make(&mut self, dir: NodeId, name: &str, what: What) -> NodeId {
        let node = NodeId(self.next);
        self.next += 1;
        self.touched.insert(node);
        let inherits = self.inherits;
        let event = Event::Make(Make {
            junction: JUNCTION,
            location: FROM,
            dir,
            name: name.into(),
            node,
            what: what.clone(),
            mode: 0o750,
            uid: 0,
            gid: 0,
            size: 0,
            atime: None,
            mtime: None,
            verifier: None,
            caller: Caller::default(),
        });
        self.operate(event, Bytes::new(), async |source, live| {
            let at = source.object(live, dir).await.unwrap();
            let attrs = MakeAttrs { mode: 0o750, uid: 0, gid: 0, inherits };
            let made = source.filer.make(&at, name.as_bytes(), &what, attrs).await.unwrap();
            source.objects.store.write(source.objects.put(node, &made.id).unwrap());
        })
        .await;
        node
    }

    pub(crate) async fn write(&mut self, node: NodeId, offset: u64, fill: u8, len: usize) {
        let data = Bytes::from(vec![fill; len]);
        let event = Event::Write(Write {
            junction: JUNCTION,
            location: FROM,
            node,
            offset,
            len: u32::try_from(len).unwrap(),
            mode: None,
            caller: Caller::default(),
        });
        self.operate(event, data.clone(), async |source, live| {
            let object = source.object(live, node).await.unwrap();
            source.filer.write(&object, offset, data).await.unwrap();
        })
        .await;
    }

    pub(crate) async fn rename(&mut self, node: NodeId, kind: Kind, from: (NodeId, &str), to: (NodeId, &str)) {
        let there = self.live.entry(to.0, to.1.as_bytes()).unwrap();
        let replaced = there.map(|there| Replaced { node: there.node, kind: there.kind, last: true });
        let event = Event::Rename(Rename {
            junction: JUNCTION,
            location: FROM,
            from_dir: from.0,
            from_name: from.1.into(),
            to_dir: to.0,
            to_name: to.1.into(),
            node,
            kind,
            replaced,
            caller: Caller::default(),
        });
        self.operate(event, Bytes::new(), async |source, live| {
            let (a, b) = (source.object(live, from.0).await.unwrap(), source.object(live, to.0).await.unwrap());
            source.filer.rename(&a, from.1.as_bytes(), &b, to.1.as_bytes()).await.unwrap();
        })
        .await;
    }

    pub(crate) async fn remove(&mut self, dir: NodeId, name: &str, node: NodeId) {
        let event = Event::Remove(Remove {
            junction: JUNCTION,
            location: FROM,
            dir,
            name: name.into(),
            node,
            kind: Kind::File,
            last: true,
            caller: Caller::default(),
        });
        self.operate(event, Bytes::new(), async |source, live| {
            let at = source.object(live, dir).await.unwrap();
            source.filer.remove(&at, name.as_bytes()).await.unwrap();
        })
        .await;
    }

    /// A client of another junction.
    async fn others_write(&self, len: u32) {
        let (junction, location, node) = (JunctionId(9), LocationId(9), NodeId(9));
        let (offset, mode, caller) = (0, None, Caller::default());
        let write = Event::Write(Write { junction, location, node, offset, len, mode, caller });
        let op = self.ledger.begin(junction, &write, &Bytes::from(vec![1; len as usize])).await.unwrap();
        self.ledger.done(op);
    }

    fn to_let_go(&self) -> Vec<limits::Pin> {
        let journal = &self.ledger.journal;
        limits::to_let_go(&self.ledger.state(), |junction| self.ledger.settled_lsn(junction), journal.soft_limit())
    }

    /// What the supervisor does at the soft limit.
    async fn let_go(&self) {
        for pin in self.to_let_go() {
            let event = Event::OutOfSync(OutOfSync { location: pin.location, from: pin.cursor });
            self.ledger.record(&event).await.unwrap();
            self.handle.press();
        }
    }

    /// What a checkpoint does of it.
    fn recycle(&self) {
        let journal = &self.ledger.journal;
        let state = self.ledger.state();
        let lsn = journal.durable_lsn();
        journal.write_snapshot(lsn, &state.to_json()).unwrap();
        journal.recycle(state.locations[&TO].cursor).unwrap();
    }

    fn is_out_of_sync(&self) -> bool {
        self.ledger.state().locations[&TO].out_of_sync.is_some()
    }

    /// All that there is now has gone into the dirty set.
    async fn absorbed(&self) {
        let end = self.ledger.journal.durable_lsn();
        self.until("its backlog goes to the dirty set", |w| w.handle.status.borrow().committed >= end).await;
    }

    async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !reached(self) {
            assert!(begin.elapsed() < LONG, "{what}: {:?}", self.handle.status.borrow());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The job is started again.
    async fn retry(&self) {
        for to in [JobState::Paused, JobState::Moving] {
            self.ledger.record(&state(to)).await.unwrap();
        }
    }

    async fn is_replayed(&self) {
        let done = self.handle.commit(self.ledger.journal.end_lsn(), LONG).await;
        assert!(done, "{:?}", self.handle.status.borrow());
    }

    pub(crate) async fn assert_equal(&self) {
        self.is_replayed().await;
        put_times(&self.source, self.live.as_ref(), &self.live, &self.touched).await.unwrap();
        let (a, b) = (picture(&self.source).await, picture(&self.dest).await);
        assert_eq!(a, b);
    }
}

fn projection(dest: &Location) -> Projection {
    Projection { store: dest.objects.store.clone(), objects: dest.objects.clone(), location: TO, junction: JUNCTION }
}

fn filer(n: u32) -> Event {
    let (filer, name, url) = (FilerId(n), format!("f{n}"), format!("posix:///f{n}"));
    Event::FilerAdded(FilerAdded { filer, name, url, root: vec![1], found: FilerFound::default() })
}

fn state(to: JobState) -> Event {
    Event::JobStateChanged(JobStateChanged { job: JobId(1), to, reason: String::new() })
}

#[tokio::test]
async fn a_secondary_that_hangs_lets_go_of_the_journal_and_comes_back_by_itself() {
    let mut w = World::new().await;
    let dir = w.make(ROOT, "dir", What::Dir).await;
    let mut files = Vec::new();
    for n in 0..12 {
        let file = w.make(ROOT, &format!("f{n}"), What::File).await;
        w.write(file, 0, n, 9000).await;
        files.push(file);
    }
    w.assert_equal().await;
    w.fence.hang(true);
    let mut rounds = 0_u64;
    // Three times what the journal may hold for it: without letting go the operations would come to a stand.
    for round in 0..3_u8 {
        w.rename(files[usize::from(round)], Kind::File, (ROOT, &format!("f{round}")), (dir, &format!("g{round}")))
            .await;
        let new = w.make(dir, &format!("n{round}"), What::File).await;
        let gone = w.make(ROOT, "passing", What::File).await;
        w.write(gone, 0, 9, 5000).await;
        w.remove(ROOT, "passing", gone).await;
        while w.to_let_go().is_empty() {
            rounds += 1;
            w.write(files[5], (rounds % 7) * 10_000, round + 1, 20_000).await;
            w.write(new, 0, round + 20, 3000).await;
        }
        w.let_go().await;
        assert!(w.is_out_of_sync());
        let end = w.ledger.journal.durable_lsn();
        w.until("its backlog goes to the dirty set", |w| w.handle.status.borrow().committed >= end).await;
        w.until("its cursor says so", |w| w.ledger.state().locations[&TO].cursor >= end).await;
        w.recycle();
        assert!(w.ledger.journal.used_bytes() <= SOFT, "{} bytes are still in use", w.ledger.journal.used_bytes());
    }
    let dirty = w.handle.status.borrow().dirty.unwrap();
    assert!(dirty.nodes > 0 && dirty.names > 0 && dirty.bytes > 0, "{dirty:?}");
    assert!(dirty.nodes < 16 && dirty.names < 16, "what came and went leaves no trace: {dirty:?}");
    w.remove(ROOT, "f11", files[11]).await;
    w.fence.hang(false);
    w.until("in sync again", |w| !w.is_out_of_sync()).await;
    w.assert_equal().await;
    assert_eq!(w.handle.status.borrow().dirty, None);
    w.write(files[0], 3, 77, 100).await;
    w.assert_equal().await;
}

#[tokio::test]
async fn a_secondary_comes_back_while_clients_go_on_writing() {
    let mut w = World::new().await;
    let file = w.make(ROOT, "f", What::File).await;
    w.assert_equal().await;
    w.fence.hang(true);
    while w.to_let_go().is_empty() {
        w.write(file, 0, 1, 20_000).await;
    }
    w.let_go().await;
    w.absorbed().await;
    w.fence.hang(false);
    let (mut clean_at, mut commits) = (None, BTreeSet::new());
    while w.is_out_of_sync() {
        w.write(file, 0, 2, 100).await;
        let status = w.handle.status.borrow().clone();
        if status.dirty.is_some_and(|counts| counts.is_clean()) {
            clean_at.get_or_insert(w.ledger.journal.end_lsn());
        }
        if clean_at.is_some_and(|at| status.committed >= at) {
            commits.insert(status.committed);
        }
        assert!(commits.len() < 3, "it has all that it lacked, and is not in sync");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    w.assert_equal().await;
}

#[tokio::test]
async fn a_trouble_that_is_over_is_taken_back_though_nothing_comes_that_would_be_committed() {
    let mut w = World::new().await;
    w.make(ROOT, "f", What::File).await;
    w.assert_equal().await;
    w.to.set_fault(Some(Box::new(|op| (op == "root").then_some(Fault::Before(ErrorKind::Down)))));
    let from = w.ledger.state().locations[&TO].cursor;
    w.ledger.record(&Event::OutOfSync(OutOfSync { location: TO, from })).await.unwrap();
    w.handle.press();
    w.until("it says that it is down", |w| {
        w.handle.status.borrow().error.as_ref().is_some_and(|error| error.kind == Some(ErrorKind::Down))
    })
    .await;
    w.to.set_fault(None);
    w.until("in sync again", |w| !w.is_out_of_sync()).await;
    w.until("and well", |w| w.handle.status.borrow().error.is_none()).await;
}

#[tokio::test]
async fn a_secondary_of_a_quiet_junction_lets_go_of_what_others_fill_the_journal_with() {
    let mut w = World::new().await;
    w.make(ROOT, "f", What::File).await;
    w.assert_equal().await;
    for _ in 0..SOFT / 20_000 {
        w.others_write(20_000).await;
    }
    let end = w.ledger.journal.durable_lsn();
    w.until("its cursor follows", |w| w.ledger.state().locations[&TO].cursor.0 + SOFT / 4 >= end.0).await;
    assert!(!w.is_out_of_sync());
}

#[tokio::test]
async fn a_secondary_of_a_quiet_junction_lags_by_what_it_lacks_and_not_by_what_others_write() {
    let mut w = World::new().await;
    w.make(ROOT, "f", What::File).await;
    w.assert_equal().await;
    w.others_write(20_000).await;
    let lacks_nothing = |w: &World| w.handle.status.borrow().durable >= w.ledger.journal.durable_lsn();
    w.until("it lacks nothing", lacks_nothing).await;
    let before = w.handle.status.borrow().clone();
    assert!(before.committed < before.durable, "{before:?}");
    w.to.set_fault(Some(Box::new(|op| (op == "sync").then_some(Fault::Before(ErrorKind::Io)))));
    w.make(ROOT, "g", What::File).await;
    w.until("it cannot be synced", |w| w.handle.status.borrow().went_back > before.went_back).await;
    assert!(!lacks_nothing(&w), "{:?}", w.handle.status.borrow());
    w.to.set_fault(None);
    w.until("it has that, too", lacks_nothing).await;
}

/// Its names are on the filer already: one that goes meanwhile is taken away there.
#[tokio::test]
async fn what_is_tried_again_in_an_outage_is_removed_and_renamed_where_it_stands() {
    let mut w = World::new().await;
    let (removed, renamed) = (w.make(ROOT, "f", What::File).await, w.make(ROOT, "g", What::File).await);
    for file in [removed, renamed] {
        w.write(file, 0, 3, 100).await;
    }
    w.assert_equal().await;
    for file in [removed, renamed] {
        w.projection.set_incomplete(file).unwrap();
    }
    w.projection.store.commit(w.projection.store.lsn()).unwrap();
    w.fence.hang(true);
    let from = w.ledger.state().locations[&TO].cursor;
    w.ledger.record(&Event::OutOfSync(OutOfSync { location: TO, from })).await.unwrap();
    w.handle.press();
    w.absorbed().await;
    w.retry().await;
    w.absorbed().await;
    w.remove(ROOT, "f", removed).await;
    w.rename(renamed, Kind::File, (ROOT, "g"), (ROOT, "h")).await;
    w.absorbed().await;
    w.fence.hang(false);
    w.until("in sync again", |w| !w.is_out_of_sync()).await;
    w.assert_equal().await;
}

#[tokio::test]
async fn one_that_hangs_again_while_it_is_worked_off_lets_go_again() {
    let mut w = World::new().await;
    let file = w.make(ROOT, "f", What::File).await;
    w.assert_equal().await;
    for again in 0..3 {
        w.fence.hang(true);
        while w.to_let_go().is_empty() {
            w.write(file, 1000 * again, u8::try_from(again).unwrap() + 1, 20_000).await;
        }
        w.let_go().await;
        let end = w.ledger.journal.durable_lsn();
        w.until("let go", |w| w.handle.status.borrow().committed >= end).await;
        if again < 2 {
            // It answers for a moment, and hangs in the middle.
            w.fence.hang(false);
            tokio::task::yield_now().await;
        }
    }
    w.fence.hang(false);
    w.until("in sync again", |w| !w.is_out_of_sync()).await;
    w.assert_equal().await;
}

/// Between a look at State and the work that hangs: nobody presses again.
#[tokio::test]
async fn one_that_is_pressed_before_its_work_begins_gives_that_up_all_the_same() {
    let w = World::new().await;
    w.task.abort();
    let from = Source { location: w.source.clone(), live: w.live.clone() };
    let replayer = Replayer::new(w.ledger.clone(), w.dest.clone(), w.projection.clone(), from, JobId(1), Lsn(0));
    replayer.handle().press();
    let hangs = replayer.guarded(std::future::pending::<crate::filer::Result<()>>());
    let given_up = tokio::time::timeout(LONG, hangs).await.expect("it is given up");
    assert!(matches!(given_up, Err(Error::Pressed)));
}

/// An I/O error after the effect: the client is told EIO, the bytes are there, and both sides must show them.
#[tokio::test]
async fn what_a_filer_left_of_an_operation_that_it_broke_off_is_on_both_sides() {
    let mut w = World::new().await;
    let file = w.make(ROOT, "f", What::File).await;
    w.write(file, 0, 1, 9000).await;
    w.assert_equal().await;
    for done in [0_u32, 1000] {
        let data = Bytes::from(vec![7; 5000]);
        let (offset, len, mode) = (6000 + u64::from(done), 5000, None);
        let caller = Caller::default();
        let write = Write { junction: JUNCTION, location: FROM, node: file, offset, len, mode, caller };
        let op = w.ledger.begin(JUNCTION, &Event::Write(write.clone()), &data).await.unwrap();
        let object = w.source.object(&w.live, file).await.unwrap();
        w.source.filer.write(&object, offset, data.slice(..3000)).await.unwrap();
        if done > 0 {
            let part = Event::Write(Write { len: done, ..write });
            w.live.apply(op.at.lsn, op.at.time, &part).unwrap();
        }
        let partial = Partial { op: op.at.lsn, done: PartDone::Bytes(done), status: 5 };
        w.ledger.ended(op, Event::Partial(partial)).await.unwrap();
        w.assert_equal().await;
    }
}

/// On an encrypting file system, say, names may be of 143 bytes.
#[tokio::test]
async fn a_name_that_the_destination_refuses_is_reported_and_holds_nothing_up() {
    const LONG_NAME: &str = "a name that the destination does not take";
    for open_by_identity in [true, false] {
        let mut options = MemoryOptions { name_max: 20, ..MemoryOptions::default() };
        options.capabilities.open_by_identity = open_by_identity;
        let mut w = World::onto(Memory::new(options)).await;
        let (refused, moved) = (w.make(ROOT, LONG_NAME, What::File).await, w.make(ROOT, "f", What::File).await);
        w.write(refused, 0, 1, 100).await;
        w.write(moved, 0, 2, 100).await;
        w.is_replayed().await;
        let failed = w.ledger.state().jobs[&JobId(1)].errors.clone();
        assert_eq!(failed.keys().copied().collect::<Vec<_>>(), [refused], "{failed:?}");
        // Tried again it meets a lookup.
        w.retry().await;
        w.is_replayed().await;
        w.remove(ROOT, LONG_NAME, refused).await;
        w.is_replayed().await;
        w.rename(moved, Kind::File, (ROOT, "f"), (ROOT, LONG_NAME)).await;
        w.is_replayed().await;
        w.write(moved, 50, 3, 100).await;
        w.is_replayed().await;
        w.remove(ROOT, LONG_NAME, moved).await;
        w.make(ROOT, "f", What::File).await;
        w.assert_equal().await;
        let pen = w.dest.filer.pen().await.unwrap();
        assert_eq!(w.dest.filer.list(&pen, 0, 9).await.unwrap().names.len(), 0, "something is left in the pen");
    }
}

/// A directory that has been there is copied, with files whose attributes cannot be read or have no room on the
/// destination, and a symlink whose text cannot be read: three errors, and all else is there.
#[tokio::test]
async fn what_cannot_be_brought_over_of_one_object_is_its_own_error() {
    let options = MemoryOptions { xattr_max: 4096, ..MemoryOptions::default() };
    let mut w = World::unlisted_onto(Memory::new(options)).await;
    let link = What::Symlink { target: b"elsewhere".to_vec() };
    let mut entries = Vec::new();
    for (name, what) in [("a", What::File), ("bad", What::File), ("big", What::File), ("link", link), ("z", What::File)]
    {
        let node = w.make(ROOT, name, what.clone()).await;
        entries.push(ListedEntry { name: name.into(), node, kind: what.kind() });
    }
    let [bad, big, link] = [1, 2, 3].map(|i: usize| entries[i].node);
    for (node, len) in [(bad, 10), (big, 5000)] {
        let object = w.source.object(&w.live, node).await.unwrap();
        w.source.filer.set_xattr(&object, b"user.note", &vec![1; len]).await.unwrap();
    }
    for node in [bad, link] {
        w.from.damage(&w.source.object(&w.live, node).await.unwrap()).unwrap();
    }
    let (job, location, dir) = (JobId(1), TO, ROOT);
    w.ledger.record(&Event::ListBegin(ListBegin { job, location, dir })).await.unwrap();
    w.ledger.record(&Event::Listed(Listed { job, location, dir, entries: entries.clone(), last: true })).await.unwrap();
    let ranges = entries.iter().filter(|entry| entry.kind == Kind::File);
    let ranges = ranges.map(|entry| Range { node: entry.node, offset: 0, len: 0, last: true }).collect();
    w.ledger.record(&Event::CopyRange(CopyRange { job, location, ranges })).await.unwrap();
    w.is_replayed().await;
    let failed = w.ledger.state().jobs[&job].errors.clone();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), [bad, big, link], "{failed:?}");
    assert!(failed[&big].error.contains("user.note, 5000 bytes"), "{failed:?}");
    assert_eq!(failed[&bad].path, b"bad");
    let there: Vec<Vec<u8>> = picture(&w.dest).await.into_keys().collect();
    assert_eq!(there, [b"/a", b"/z"]);
    // A full destination is not one object's trouble.
    w.to.set_space(1 << 20);
    w.retry().await;
    w.until("it is full", |w| {
        w.handle.status.borrow().error.as_ref().is_some_and(|error| error.kind == Some(ErrorKind::NoSpace))
    })
    .await;
    w.to.set_space(u64::MAX);
    w.from.mend();
    w.is_replayed().await;
    let there: Vec<Vec<u8>> = picture(&w.dest).await.into_keys().collect();
    assert_eq!(there, [b"/a".as_slice(), b"/bad", b"/link", b"/z"]);
}

/// What a client makes in the root inherits from it, on both sides; and the destination's had ACLs of its own.
#[tokio::test]
async fn the_root_is_as_the_source_s_before_anything_is_made_in_it() {
    let (from, to) = (Memory::default(), Memory::default());
    let default = AclKind::Default.xattr().as_bytes();
    for (filer, named) in [(&from, 7), (&to, 1)] {
        filer.set_xattr(&filer.root().await.unwrap(), default, &named_user(named, 7)).await.unwrap();
    }
    to.set_xattr(&to.root().await.unwrap(), AclKind::Access.xattr().as_bytes(), &named_user(7, 7)).await.unwrap();
    let mut w = World::unlisted_between(from, to).await;
    let (job, location, dir) = (JobId(1), TO, ROOT);
    w.ledger.record(&Event::ListBegin(ListBegin { job, location, dir })).await.unwrap();
    w.ledger.record(&Event::Listed(Listed { job, location, dir, entries: vec![], last: true })).await.unwrap();
    w.inherits = true;
    w.make(ROOT, "f", What::File).await;
    w.make(ROOT, "d", What::Dir).await;
    w.assert_equal().await;
    let (a, b) = (w.from.root().await.unwrap(), w.to.root().await.unwrap());
    assert_eq!(w.from.xattrs(&a).await.unwrap(), w.to.xattrs(&b).await.unwrap());
    assert_eq!(w.from.stat(&a).await.unwrap().mode, w.to.stat(&b).await.unwrap().mode);
}

#[tokio::test]
async fn what_the_destination_s_root_cannot_have_is_an_error_of_the_job() {
    let from = Memory::default();
    from.set_xattr(&from.root().await.unwrap(), b"user.note", b"x").await.unwrap();
    let mut options = MemoryOptions::default();
    options.capabilities.xattrs = false;
    let mut w = World::unlisted_between(from, Memory::new(options)).await;
    let node = w.make(ROOT, "f", What::File).await;
    let (job, location, dir) = (JobId(1), TO, ROOT);
    w.ledger.record(&Event::ListBegin(ListBegin { job, location, dir })).await.unwrap();
    let entries = vec![ListedEntry { name: b"f".to_vec(), node, kind: Kind::File }];
    w.ledger.record(&Event::Listed(Listed { job, location, dir, entries, last: true })).await.unwrap();
    for _ in 0..2 {
        w.is_replayed().await;
        w.is_replayed().await; // what it said itself
        assert!(w.ledger.state().jobs[&job].errors[&ROOT].error.contains("no extended attributes"));
        assert_eq!(w.handle.status.borrow().pending.incomplete, 1);
        assert_eq!(picture(&w.dest).await.into_keys().collect::<Vec<_>>(), [b"/f"]);
        w.retry().await;
    }
}
