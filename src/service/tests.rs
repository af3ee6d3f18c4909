//! A primary that hangs beside a healthy junction: the journal goes on, and nothing of the hung one is lost.
#![allow(clippy::unwrap_used, reason = "tests")]

mod room;
mod status;

use super::recovery::{Recovered, note_cut, recover};
use crate::checkpoint::Checkpoints;
use crate::core::Core;
use crate::env::disk::{Disk, DiskFile, Lock, Open};
use crate::filer::fence::{Fence, Fenced};
use crate::filer::memory::{Fault, Memory, Turn};
use crate::filer::registry::Registry;
use crate::filer::{CoreFiler, ErrorKind};
use crate::gateway::Drc;
use crate::index::live::Live;
use crate::index::objects::Objects;
use crate::index::store::Store;
use crate::index::stores::Directory;
use crate::journal::{AppendMode, Journal, Options};
use crate::ledger::{Ledger, Op};
use crate::location::{Location, Locations, redo::Redo};
use crate::state::State;
use crate::volume::{NodeIds, Volume};
use journal_format::event::*;
use journal_format::ids::*;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SEGMENT: u64 = 256 << 10;
const HUNG: u32 = 1;
const WELL: u32 = 2;

struct World {
    core: Core,
    fences: Vec<Fence>,
    next: u64,
}

fn root(n: u32) -> NodeId {
    NodeId(100 + u64::from(n))
}

fn open(dir: &Path) -> (Journal, Arc<Live>) {
    (open_journal(dir), Arc::new(Live::new(Arc::new(Store::open(&dir.join("live"), 1 << 20).unwrap()))))
}

fn open_journal(dir: &Path) -> Journal {
    open_journal_on(dir, Arc::new(crate::env::RealDisk))
}

fn open_journal_on(dir: &Path, disk: Arc<dyn Disk>) -> Journal {
    let options = Options {
        dir: dir.join("journal"),
        segment_size: SEGMENT,
        hard_limit: 12 * SEGMENT,
        append: AppendMode::Buffered,
        any_file_system: true,
        disk,
    };
    let journal = Journal::open(options).unwrap();
    journal.set_soft_limit(3 * SEGMENT);
    journal
}

async fn location(dir: &Path, n: u32, filer: &Memory) -> (Arc<Location>, Fence) {
    let objects = Objects::new(Arc::new(Store::open(&dir.join(format!("location-{n}")), 1 << 20).unwrap()));
    let filer = Fenced::new(Arc::new(filer.clone()));
    objects.store.write(objects.put(root(n), &filer.root().await.unwrap().id).unwrap());
    let fence = filer.fence.clone();
    (Arc::new(Location::fenced(LocationId(n), root(n), Arc::new(filer), objects)), fence)
}

impl World {
    async fn begin(dir: &Path, filers: &[Memory; 2]) -> Self {
        let (journal, live) = open(dir);
        Self::begin_with(dir, filers, journal, live).await
    }

    async fn begin_with(dir: &Path, filers: &[Memory; 2], journal: Journal, live: Arc<Live>) -> Self {
        let ledger = Ledger::new(journal, State::default(), Box::new(|_, _| ()));
        let locations = Arc::new(Locations::default());
        let mut fences = Vec::new();
        ledger.record(&Event::JournalCreated(JournalCreated { handle_key: [1; 32] })).await.unwrap();
        for (n, memory) in (1..).zip(filers) {
            let (filer, name, url) = (FilerId(n), format!("f{n}"), format!("posix:///f{n}"));
            let added = FilerAdded { filer, name, url, root: vec![1], found: FilerFound::default() };
            ledger.record(&Event::FilerAdded(added)).await.unwrap();
            let (at, fence) = location(dir, n, memory).await;
            let spec = LocationSpec {
                location: LocationId(n),
                filer: FilerId(n),
                subdir: vec![],
                root: at.objects.identity(root(n)).unwrap().unwrap(),
            };
            let event = Event::JunctionAdded(JunctionAdded {
                junction: JunctionId(n),
                path: vec![format!("j{n}").into_bytes()],
                location: spec,
                root: root(n),
                mtime: Time(1),
                ctime: Time(1),
            });
            let lsn = ledger.record(&event).await.unwrap();
            live.apply(lsn.lsn, lsn.time, &event).unwrap();
            locations.insert(at);
            fences.push(fence);
        }
        let ids = Arc::new(NodeIds::after(NodeId(1000)));
        let volume = Arc::new(Volume::new(ledger.clone(), live.clone(), locations.clone(), ids));
        let stores = Arc::new(Directory(dir.to_owned()));
        let core = Core { ledger, live, locations, volume, stores, filers: Arc::new(Registry::default()) };
        Self { core, fences, next: 1001 }
    }

    /// Appended, not carried out.
    async fn make(&mut self, n: u32, name: &str) -> (Op, Event) {
        let node = NodeId(self.next);
        self.next += 1;
        let event = Event::Make(Make {
            junction: JunctionId(n),
            location: LocationId(n),
            dir: root(n),
            name: name.into(),
            node,
            what: What::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            atime: None,
            mtime: None,
            verifier: None,
            caller: Caller::default(),
        });
        (self.core.ledger.begin(JunctionId(n), &event, &[]).await.unwrap(), event)
    }

    async fn write(&mut self, n: u32, node: NodeId) {
        let event = Event::Write(Write {
            junction: JunctionId(n),
            location: LocationId(n),
            node,
            offset: 0,
            len: 60_000,
            mode: None,
            caller: Caller::default(),
        });
        let op = self.core.ledger.begin(JunctionId(n), &event, &[7; 60_000]).await.unwrap();
        self.done(op, &event);
    }

    fn done(&self, op: Op, event: &Event) {
        self.core.live.apply(op.at.lsn, op.at.time, event).unwrap();
        self.core.ledger.done(op);
    }

    /// Far more than the journal holds, of the healthy one, while the other hangs.
    async fn go_on(&mut self, checkpoints: &mut Checkpoints) {
        let (op, event) = self.make(WELL, "well").await;
        let Event::Make(Make { node, .. }) = event else { panic!() };
        self.done(op, &event);
        for n in 0..120 {
            self.write(WELL, node).await;
            if n % 8 == 7 {
                checkpoints.take(&self.core).await.unwrap();
                assert!(!self.core.ledger.journal.is_full(), "at write {n}");
            }
        }
    }

    /// A job that is stopped; where it was created.
    async fn job_of_the_hung(&self) -> Lsn {
        let root = Memory::default().root().await.unwrap().id;
        let destination =
            LocationSpec { location: LocationId(3), filer: FilerId(1), subdir: vec![b"new".to_vec()], root };
        let created = Event::JobCreated(JobCreated {
            job: JobId(1),
            kind: JobKind::Move,
            junction: JunctionId(HUNG),
            source: LocationId(HUNG),
            destination,
            stopped: true,
            notes: String::new(),
        });
        self.core.ledger.record(&created).await.unwrap().lsn
    }

    fn entry(live: &Live, n: u32, name: &str) -> Option<NodeId> {
        live.entry(root(n), name.as_bytes()).unwrap().map(|entry| entry.node)
    }
}

#[test]
fn one_hung_junction_does_not_pin_the_journal_and_a_crash_loses_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let filers = [Memory::default(), Memory::default()];
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (before, failed) = runtime().block_on(async {
        let mut w = World::begin(dir.path(), &filers).await;
        let mut checkpoints = Checkpoints::default();
        checkpoints.take(&w.core).await.unwrap();
        w.fences[0].hang(true);
        // One that never ends, one that ends otherwise later, one that is done though never synced.
        let (op, _stuck) = w.make(HUNG, "stuck").await;
        std::mem::forget(op);
        let (refused, _event) = w.make(HUNG, "refused").await;
        let (op, event) = w.make(HUNG, "done").await;
        w.done(op, &event);
        w.go_on(&mut checkpoints).await;
        let journal = w.core.ledger.journal.clone();
        assert!(journal.sides().contains_key(&JunctionId(HUNG)));
        let lsn = refused.at.lsn;
        assert!(journal.start_lsn() > lsn, "what it pinned is recycled");
        let failed = Failed { op: lsn, status: 5 };
        w.core.ledger.ended(refused, Event::Failed(failed.clone())).await.unwrap();
        // What ends it is set aside with it.
        w.go_on(&mut checkpoints).await;
        assert!(journal.start_lsn() > lsn);
        (journal.durable_lsn(), failed)
    });
    runtime().block_on(async {
        let (journal, live) = open(dir.path());
        let Recovered { state, doubts, .. } = recover(&journal, &live, &Drc::default()).unwrap();
        assert!(state.lsn >= before);
        let cursor = state.locations[&LocationId(HUNG)].cursor;
        assert!(cursor < failed.op && journal.start_lsn() > cursor);
        let (at, _) = location(dir.path(), HUNG, &filers[0]).await;
        let ledger = Ledger::new(journal.clone(), state, Box::new(|_, _| {}));
        let redo = Redo {
            journal: &journal,
            junction: JunctionId(HUNG),
            live: &live,
            location: &at,
            cursor,
            doubt_from: doubts[&JunctionId(HUNG)],
            taken: BTreeSet::new(),
            proven_to: journal.durable_lsn(),
            recorder: &ledger,
        };
        let redone = redo.run().await.unwrap();
        assert!(World::entry(&live, HUNG, "stuck").is_some() && World::entry(&live, HUNG, "done").is_some());
        assert_eq!(World::entry(&live, HUNG, "refused"), None, "it failed");
        assert_eq!((redone.operations, redone.refused.len()), (2, 0));
        let top = filers[0].root().await.unwrap();
        let mut names = filers[0].list(&top, 0, 10).await.unwrap().names;
        names.sort();
        assert_eq!(names, [b"done".to_vec(), b"stuck".to_vec()]);
    });
}

#[tokio::test]
async fn when_the_hung_primary_answers_its_side_goes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    hung_and_back(&mut w).await;
}

/// Its destination's cursor stays where the job was created: that part of the journal is recycled, and nobody needs it.
#[tokio::test]
async fn a_job_that_is_stopped_does_not_stand_in_the_way_of_setting_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let created = w.job_of_the_hung().await;
    w.go_on(&mut Checkpoints::default()).await;
    assert!(w.core.ledger.journal.start_lsn() > created);
    // The second time the side of the first must be gone.
    for _ in 0..2 {
        hung_and_back(&mut w).await;
    }
}

/// Its cursor is as old as its sync: in a busy journal that is far, and no reason to copy its records.
#[tokio::test]
async fn a_primary_that_is_merely_slow_is_not_set_aside() {
    const PATIENCE: Duration = Duration::from_millis(300);
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let filers = [Memory::default(), Memory::default()];
        let mut w = World::begin(dir.path(), &filers).await;
        let (op, event) = w.make(WELL, "well").await;
        let Event::Make(Make { node, .. }) = event else { panic!() };
        w.done(op, &event);
        let slow = |op| if op == "sync" { PATIENCE / 3 } else { Duration::ZERO };
        filers[1].set_script(Some(Box::new(move |op| Turn { before: slow(op), ..Turn::default() })));
        let (core, begin) = (w.core.clone(), std::time::Instant::now());
        let taking = tokio::spawn(async move { Checkpoints::default().take(&core).await.unwrap() });
        while !taking.is_finished() {
            if w.core.ledger.journal.used_bytes() < 8 * SEGMENT {
                w.write(WELL, node).await;
            }
            tokio::task::yield_now().await;
        }
        taking.await.unwrap();
        let (journal, state) = (&w.core.ledger.journal, w.core.ledger.state());
        let behind = journal.durable_lsn().0 - state.locations[&LocationId(WELL)].cursor.0;
        // On a machine that is busy elsewhere it may have hung, or the journal not have come far.
        if begin.elapsed() < PATIENCE && behind > journal.soft_limit() {
            return assert_eq!((journal.sides().len(), w.core.live.aside().unwrap()), (0, vec![]));
        }
    }
    panic!("the machine is too slow to tell who is");
}

/// Nothing but its modification time cannot be put; the rest of the filer is well.
#[tokio::test]
async fn an_inode_that_refuses_its_time_holds_the_cursor_for_a_few_checkpoints_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let filers = [Memory::default(), Memory::default()];
    let mut w = World::begin(dir.path(), &filers).await;
    let mut checkpoints = Checkpoints::default();
    let (op, event) = w.make(WELL, "well").await;
    w.done(op, &event);
    filers[1].set_fault(Some(Box::new(|op| (op == "set").then_some(Fault::Before(ErrorKind::Io)))));
    let location = w.core.locations.get(LocationId(WELL)).unwrap();
    location.touch(root(WELL));
    let cursor = |w: &World| w.core.ledger.state().locations[&LocationId(WELL)].cursor;
    let mut moved_at = Vec::new();
    for n in 0..6 {
        let before = cursor(&w);
        checkpoints.take(&w.core).await.unwrap();
        if cursor(&w) > before {
            moved_at.push(n);
        }
    }
    assert_eq!(moved_at.first(), Some(&3), "{moved_at:?}");
    assert!(w.core.locations.get(LocationId(WELL)).is_some(), "it did not fall");
    filers[1].set_fault(None);
    let (op, event) = w.make(WELL, "more").await;
    w.done(op, &event);
    checkpoints.take(&w.core).await.unwrap();
    assert_eq!(location.touched(), 0, "the time is put when it can be");
    let at = filers[1].stat(&filers[1].root().await.unwrap()).await.unwrap().mtime;
    assert_eq!(Some(at), w.core.live.node(root(WELL)).unwrap().map(|rec| rec.mtime));
}

/// Its sync hangs, and its writes go on. When it answers again they must go on, though a job's destination is still behind.
#[tokio::test]
async fn a_side_that_has_all_that_it_may_have_holds_its_own_clients() {
    for has_job in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
        let mut checkpoints = Checkpoints::default();
        if has_job {
            w.job_of_the_hung().await;
            for to in [JobState::Starting, JobState::Moving] {
                let event = JobStateChanged { job: JobId(1), to, reason: String::new() };
                w.core.ledger.record(&Event::JobStateChanged(event)).await.unwrap();
            }
        }
        checkpoints.take(&w.core).await.unwrap();
        w.fences[0].hang(true);
        let (op, event) = w.make(HUNG, "grows").await;
        let Event::Make(Make { node, .. }) = event else { panic!() };
        w.done(op, &event);
        let (journal, ledger) = (w.core.ledger.journal.clone(), w.core.ledger.clone());
        let is_full = |n: u32| ledger.side_is_full(JunctionId(n));
        let mut rounds = 0;
        while !is_full(HUNG) {
            for _ in 0..4 {
                w.write(HUNG, node).await;
            }
            w.go_on(&mut checkpoints).await;
            rounds += 1;
            assert!(rounds < 10, "{:?}", journal.sides());
        }
        assert!(journal.sides()[&JunctionId(HUNG)] > journal.soft_limit() && !is_full(WELL));
        w.fences[0].hang(false);
        let begun = std::time::Instant::now();
        while is_full(HUNG) {
            assert!(begun.elapsed().as_secs() < 60);
            checkpoints.take(&w.core).await.unwrap();
        }
        assert_eq!(journal.sides().is_empty(), !has_job);
    }
}

/// The journal keeps what could not be set aside, whoever it is of, and cursors go on.
#[tokio::test]
async fn a_side_that_cannot_be_written_holds_up_no_checkpoint_but_what_it_would_have_freed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Full::of("side");
    let journal = open_journal_on(dir.path(), disk.clone());
    let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
    let filers = [Memory::default(), Memory::default()];
    let mut w = World::begin_with(dir.path(), &filers, journal.clone(), live).await;
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(&w.core).await.unwrap();
    w.fences[0].hang(true);
    let (stuck, stuck_event) = w.make(HUNG, "stuck").await;
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    let cursor = |w: &World| w.core.ledger.state().locations[&LocationId(WELL)].cursor;
    let fill = async |w: &mut World| {
        let end = journal.end_lsn().0 + 5 * SEGMENT;
        while journal.end_lsn().0 < end {
            w.write(WELL, node).await;
        }
    };
    // Once with nothing set aside before, once behind what was.
    for part in 0..2 {
        fill(&mut w).await;
        disk.full.store(true, Ordering::SeqCst);
        let (start, before) = (journal.start_lsn(), cursor(&w));
        let failed = checkpoints.take(&w.core).await.unwrap_err().to_string();
        assert!(failed.contains("set aside"), "{failed}");
        assert!(cursor(&w) > before, "the healthy one's cursor goes on: part {part}");
        assert!(
            journal.start_lsn() <= start.max(stuck.at.lsn.max(journal.side_end(JunctionId(HUNG)).unwrap_or_default()))
        );
        assert!(journal.reader_of(JunctionId(HUNG), stuck.at.lsn).unwrap().next(Lsn(u64::MAX)).unwrap().is_some());
        disk.full.store(false, Ordering::SeqCst);
        checkpoints.take(&w.core).await.unwrap();
        assert!(journal.start_lsn() > start && journal.sides().contains_key(&JunctionId(HUNG)), "part {part}");
    }
    let record = journal.reader_of(JunctionId(HUNG), stuck.at.lsn).unwrap().next(Lsn(u64::MAX)).unwrap().unwrap();
    assert_eq!((record.lsn, &record.event), (stuck.at.lsn, &stuck_event));
    std::mem::forget(stuck);
}

async fn hung_and_back(w: &mut World) {
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(&w.core).await.unwrap();
    w.fences[0].hang(true);
    let (op, event) = w.make(HUNG, "late").await;
    w.go_on(&mut checkpoints).await;
    assert_eq!(w.core.live.aside().unwrap(), [JunctionId(HUNG)]);
    w.fences[0].hang(false);
    w.done(op, &event);
    // As often as it says itself: the first may tell only of a sync that hung.
    for _ in 0..100 {
        checkpoints.take(&w.core).await.unwrap();
        if !checkpoints.is_due_again(&w.core) {
            break;
        }
    }
    assert!(w.core.ledger.journal.sides().is_empty(), "{:?}", w.core.ledger.state().locations);
    assert_eq!(w.core.live.aside().unwrap(), []);
    assert!(w.core.ledger.state().locations[&LocationId(HUNG)].cursor > Lsn(0));
    w.go_on(&mut checkpoints).await;
    assert!(World::entry(&w.core.live, HUNG, "late").is_some());
}

/// The journal's directory, in which no file of this name can be made.
#[derive(Debug)]
struct Full {
    inner: crate::env::RealDisk,
    name: &'static str,
    full: AtomicBool,
    /// But for so many.
    room: AtomicUsize,
    refused: AtomicBool,
}

impl Full {
    fn of(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            inner: crate::env::RealDisk,
            name,
            full: AtomicBool::default(),
            room: AtomicUsize::default(),
            refused: AtomicBool::default(),
        })
    }

    fn has_room(&self) -> bool {
        self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

impl Disk for Full {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.make_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.inner.lock(path)
    }
    fn unsuitable(&self, dir: &Path) -> io::Result<Option<&'static str>> {
        self.inner.unsuitable(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().unwrap().to_string_lossy();
        if how == Open::Create && name.starts_with(self.name) && self.full.load(Ordering::SeqCst) && !self.has_room() {
            self.refused.store(true, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.open(path, how)
    }
}

/// Segments are there beforehand, a snapshot is not: a disk that is full for a while must not end the checkpoints.
#[tokio::test]
async fn checkpoints_go_on_when_the_journals_disk_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Full::of("snapshot");
    let journal = open_journal_on(dir.path(), disk.clone());
    let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
    let filers = [Memory::default(), Memory::default()];
    let mut w = World::begin_with(dir.path(), &filers, journal.clone(), live).await;
    let said = Arc::new(parking_lot::Mutex::new(None));
    let told = said.clone();
    let running = tokio::spawn(Checkpoints::default().run(w.core.clone(), move |failed| *told.lock() = failed));
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    let until = async |what: &str, reached: &dyn Fn() -> bool| {
        let begin = std::time::Instant::now();
        while !reached() {
            assert!(begin.elapsed().as_secs() < 60, "{what}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    disk.full.store(true, Ordering::SeqCst);
    let end = journal.end_lsn().0 + 4 * SEGMENT;
    while journal.end_lsn().0 < end {
        w.write(WELL, node).await;
    }
    until("a checkpoint is tried", &|| disk.refused.load(Ordering::SeqCst)).await;
    until("why there is none is told", &|| said.lock().is_some()).await;
    disk.full.store(false, Ordering::SeqCst);
    let start = journal.start_lsn();
    until("another one is taken", &|| journal.start_lsn() > start && said.lock().is_none()).await;
    running.abort();
}

/// As when the journal's disk is not mounted: the start is refused, and the index stays what it was.
#[tokio::test]
async fn an_index_that_was_not_made_from_this_journal_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let (op, event) = w.make(WELL, "well").await;
    w.done(op, &event);
    Checkpoints::default().take(&w.core).await.unwrap();
    let live = w.core.live.clone();
    assert!(live.is_of(w.core.ledger.journal.id()).unwrap());
    let stated = live.store.lsn();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open_journal(elsewhere.path());
    let refused = recover(&other, &live, &Drc::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("another journal") && live.store.lsn() == stated, "{refused}");
    // An older copy of its own is another one, too, but for one that was cut, which says so.
    let live = Live::new(Arc::new(Store::open(&elsewhere.path().join("live"), 1 << 20).unwrap()));
    assert!(live.is_of(other.id()).unwrap());
    live.store.commit(stated).unwrap();
    let refused = recover(&other, &live, &Drc::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("mounted") && live.store.lsn() == stated, "{refused}");
    let kept = elsewhere.path().join("journal").join("repair-1");
    std::fs::write(kept.with_file_name("repair-notes"), "somebody's").unwrap();
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("cut"), "4096\n").unwrap();
    let Recovered { state, .. } = recover(&other, &live, &Drc::default()).unwrap();
    assert_eq!(live.store.lsn(), other.durable_lsn());
    // Once: from then on an older copy is another journal again.
    note_cut(&other, &Directory(elsewhere.path().to_owned()), &state).unwrap();
    live.store.commit(stated).unwrap();
    let refused = recover(&other, &live, &Drc::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("mounted"), "{refused}");
}

/// Clients will wait for it; who looks at the status must see why.
#[tokio::test]
async fn a_segment_that_cannot_be_made_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Full::of("spare");
    let journal = open_journal_on(dir.path(), disk.clone());
    let until = async |told: bool| {
        let begin = std::time::Instant::now();
        while journal.segment_trouble().is_some() != told {
            assert!(begin.elapsed().as_secs() < 60, "{:?}", journal.segment_trouble());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(false).await;
    disk.full.store(true, Ordering::SeqCst);
    let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
    let mut w = World::begin_with(dir.path(), &[Memory::default(), Memory::default()], journal.clone(), live).await;
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    while journal.segment_trouble().is_none() {
        w.write(WELL, node).await;
    }
    assert!(journal.segment_trouble().unwrap().contains("cannot create"), "{:?}", journal.segment_trouble());
    disk.full.store(false, Ordering::SeqCst);
    until(false).await;
}

/// The index's disk, that can fail to make anything durable.
#[derive(Debug)]
struct Failing {
    inner: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.inner.write(offset, data)
    }
}

/// What the index has not committed is in the journal alone.
#[tokio::test]
async fn nothing_is_recycled_that_the_index_has_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let backend = Failing { inner: InMemoryBackend::new(), fails: fails.clone() };
    let store = Arc::new(Store::open_on("live", backend, 1 << 20, false).unwrap());
    let (journal, live) = (open_journal(dir.path()), Arc::new(Live::new(store.clone())));
    let filers = [Memory::default(), Memory::default()];
    let mut w = World::begin_with(dir.path(), &filers, journal.clone(), live).await;
    let mut checkpoints = Checkpoints::default();
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    let segments = async |w: &mut World, count: u64| {
        let end = journal.end_lsn().0 + count * SEGMENT;
        while journal.end_lsn().0 < end {
            w.write(WELL, node).await;
        }
    };
    segments(&mut w, 4).await;
    checkpoints.take(&w.core).await.unwrap();
    assert!(journal.sides().is_empty(), "a primary that is well is far behind only until it is synced");
    let (start, committed) = (journal.start_lsn(), store.lsn());
    assert!(start > Lsn(4096) && start <= committed, "a checkpoint frees segments: {start}");
    segments(&mut w, 3).await;
    fails.store(true, Ordering::SeqCst);
    checkpoints.take(&w.core).await.unwrap_err();
    assert!(journal.start_lsn() <= committed && store.lsn() == committed, "{} {committed}", journal.start_lsn());
    let mut reader = journal.reader(committed).unwrap();
    assert!(reader.next(journal.durable_lsn()).unwrap().is_some(), "what it lacks can be read");
}
