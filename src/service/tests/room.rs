//! A journal that is nearly full, and what makes room again.

use super::*;
use crate::env::disk::View;

/// A part of a side ends before what the index has stated long ago: it stays stated.
#[tokio::test]
async fn a_side_that_is_written_in_part_takes_nothing_back_that_the_index_has_stated() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Full::of("side");
    let journal = open_journal_on(dir.path(), disk.clone());
    let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
    let mut w =
        World::begin_with(dir.path(), &[Memory::default(), Memory::default()], journal.clone(), live.clone()).await;
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(&w.core).await.unwrap();
    w.fences[0].hang(true);
    let (op, event) = w.make(HUNG, "done").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    // More than one file of a side takes; its cursor stays in front of it, and the index is past it.
    for _ in 0..6 {
        w.write(HUNG, node).await;
    }
    checkpoints.take(&w.core).await.unwrap();
    let stated = live.store.lsn();
    assert!(stated.0 > 5 * 60_000 && journal.sides().is_empty(), "{stated}");
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    while journal.used_bytes() <= journal.soft_limit() + 2 * SEGMENT {
        w.write(WELL, node).await;
    }
    disk.room.store(1, Ordering::SeqCst);
    disk.full.store(true, Ordering::SeqCst);
    checkpoints.take(&w.core).await.unwrap_err();
    let part = journal.side_end(JunctionId(HUNG)).expect("one file of it had room");
    assert!(part < stated, "{part}, {stated}");
    assert!(live.store.lsn() >= stated && live.aside().unwrap().is_empty(), "{} {stated}", live.store.lsn());
    disk.full.store(false, Ordering::SeqCst);
    checkpoints.take(&w.core).await.unwrap();
    assert!(live.store.lsn() >= stated && live.aside().unwrap() == [JunctionId(HUNG)]);
}

/// Its own cursor moves the journal's end: another one for that alone would fill the journal, one by one.
#[tokio::test]
async fn a_checkpoint_of_nothing_new_appends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let (op, event) = w.make(WELL, "well").await;
    w.done(op, &event);
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(&w.core).await.unwrap();
    let end = w.core.ledger.journal.end_lsn().0;
    for _ in 0..50 {
        checkpoints.take(&w.core).await.unwrap();
    }
    assert!(w.core.ledger.journal.end_lsn().0 - end < 5 * 4096, "{}", w.core.ledger.journal.end_lsn().0 - end);
    let (op, event) = w.make(WELL, "more").await;
    let made = op.at.lsn;
    w.done(op, &event);
    checkpoints.take(&w.core).await.unwrap();
    assert!(w.core.ledger.state().locations[&LocationId(WELL)].cursor > made);
}

/// All of the reserve that cursors may use is gone, and the archive keeps everything: when it goes on, so does all else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_waits_for_room_takes_what_the_archive_lets_go_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let (journal, ledger) = (w.core.ledger.journal.clone(), w.core.ledger.clone());
    let (archives, name) = (dir.path().join("archives"), journal_format::archive::file_name(SegmentNo(0)));
    let in_the_way = archives.join(format!("{name}.tmp"));
    std::fs::create_dir_all(&in_the_way).unwrap();
    journal.archive_to(&archives).unwrap();
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    let mut checkpoints = Checkpoints::default();
    while journal.used_bytes() < 10 * SEGMENT {
        w.write(WELL, node).await;
        checkpoints.take(&w.core).await.unwrap();
    }
    let cursor = || {
        Event::Cursor(Cursor { location: LocationId(WELL), lsn: ledger.state().locations[&LocationId(WELL)].cursor })
    };
    while tokio::time::timeout(Duration::from_millis(500), ledger.append(&cursor())).await.is_ok() {}
    assert!(journal.start_lsn().0 < SEGMENT, "nothing is archived");
    // As a new life begins, which has told nothing yet.
    let core = w.core.clone();
    let waits = tokio::spawn(async move { Checkpoints::default().take(&core).await });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!waits.is_finished(), "there is no room for its cursor");
    std::fs::remove_dir(&in_the_way).unwrap();
    tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap().unwrap().unwrap();
    assert!(journal.start_lsn().0 > SEGMENT);
    w.write(WELL, node).await;
}

/// The last commit of a life may state the very end of a segment; what follows begins behind the next one's header.
#[tokio::test]
async fn an_index_that_states_a_segments_end_goes_on_in_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    w.go_on(&mut Checkpoints::default()).await;
    let journal = w.core.ledger.journal.clone();
    let start = journal.start_lsn();
    assert!(start.0 > SEGMENT && start.0 % SEGMENT == 4096);
    for (stated, is_taken) in [(start.0 - 4096, true), (start.0 - 8192, false)] {
        let other = tempfile::tempdir().unwrap();
        let live = Live::new(Arc::new(Store::open(&other.path().join("live"), 1 << 20).unwrap()));
        assert!(live.is_of(journal.id()).unwrap());
        live.store.commit(Lsn(stated)).unwrap();
        let recovered = recover(&journal, &live, &Drc::default());
        assert_eq!(recovered.is_ok(), is_taken, "{stated} {:?}", recovered.err());
    }
}

/// Where nothing but the answers to repeated calls is read.
#[test]
fn a_sector_that_only_repeated_calls_would_need_refuses_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let filers = [Memory::default(), Memory::default()];
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        let mut w = World::begin(dir.path(), &filers).await;
        let (op, event) = w.make(WELL, "well").await;
        let Event::Make(Make { node, .. }) = event else { panic!() };
        w.done(op, &event);
        while w.core.ledger.journal.end_lsn().0 < 3 * SEGMENT {
            w.write(WELL, node).await;
        }
        // So that calls of all that time may come again.
        w.core.ledger.journal.set_soft_limit(1 << 30);
        Checkpoints::default().take(&w.core).await.unwrap();
        assert!(w.core.ledger.journal.start_lsn().0 < SEGMENT);
    });
    runtime().block_on(async {
        let bad = format!("segment-{:016x}", 0);
        let journal = open_journal_on(dir.path(), Arc::new(BadSector(bad.clone())));
        journal.look_at(Lsn(16_384)).expect("whoever begins behind it does not meet it");
        let error = journal.look_at(journal.start_lsn()).unwrap_err().to_string();
        assert!(error.contains(&bad) && error.contains("8192"), "{error}");
        let live = Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap()));
        let recovered = recover(&journal, &live, &Drc::default()).unwrap();
        assert!(recovered.state.locations[&LocationId(WELL)].cursor.0 > 2 * SEGMENT);
        // What does need it is refused, by the same words, and by no signal.
        let refused = journal.reader(journal.start_lsn()).and_then(|mut reader| reader.next(Lsn(u64::MAX)).map(drop));
        assert!(refused.unwrap_err().to_string().contains(&bad));
    });
}

/// A snapshot that found no room pins the journal, and comes behind a cursor, for which there is no room any more then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_full_because_a_snapshot_found_no_room_comes_back_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Full::of("snapshot");
    let journal = open_journal_on(dir.path(), disk.clone());
    let live = Arc::new(Live::new(Arc::new(Store::open(&dir.path().join("live"), 1 << 20).unwrap())));
    let mut w = World::begin_with(dir.path(), &[Memory::default(), Memory::default()], journal.clone(), live).await;
    let ledger = w.core.ledger.clone();
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(&w.core).await.unwrap();
    disk.full.store(true, Ordering::SeqCst);
    while journal.used_bytes() < 9 * SEGMENT {
        w.write(WELL, node).await;
    }
    // All but the snapshot is taken, each time.
    for _ in 0..2 {
        let before = ledger.state().locations[&LocationId(WELL)].cursor;
        w.write(WELL, node).await;
        checkpoints.take(&w.core).await.unwrap_err();
        assert!(ledger.state().locations[&LocationId(WELL)].cursor > before);
    }
    while journal.used_bytes() < 10 * SEGMENT {
        w.write(WELL, node).await;
    }
    let at = ledger.state().locations[&LocationId(WELL)].cursor;
    let cursor = Event::Cursor(Cursor { location: LocationId(WELL), lsn: at });
    while tokio::time::timeout(Duration::from_millis(500), ledger.append(&cursor)).await.is_ok() {}
    disk.full.store(false, Ordering::SeqCst);
    let taken = tokio::time::timeout(Duration::from_secs(60), async { Checkpoints::default().take(&w.core).await });
    taken.await.expect("it does not wait for ever").unwrap();
    w.write(WELL, node).await;
}

/// So looks a file system that has just failed: its sync tells nothing, and what was answered may be lost.
#[tokio::test]
async fn the_cursor_of_a_primary_that_is_read_only_stays() {
    let dir = tempfile::tempdir().unwrap();
    let filers = [Memory::default(), Memory::default()];
    let mut w = World::begin(dir.path(), &filers).await;
    let (op, event) = w.make(WELL, "well").await;
    w.done(op, &event);
    w.core.locations.get(LocationId(WELL)).unwrap().touch(root(WELL));
    let mut checkpoints = Checkpoints::default();
    let cursor = |w: &World| w.core.ledger.state().locations[&LocationId(WELL)].cursor;
    let before = cursor(&w);
    filers[1].set_fault(Some(Box::new(|op| (op == "set").then_some(Fault::Before(ErrorKind::ReadOnly)))));
    for _ in 0..6 {
        checkpoints.take(&w.core).await.unwrap();
        assert_eq!(cursor(&w), before);
    }
    filers[1].set_fault(None);
    checkpoints.take(&w.core).await.unwrap();
    assert!(cursor(&w) > before);
}

/// A repair moves a side away that lies behind its cut.
#[tokio::test]
async fn an_index_that_tells_of_a_side_that_a_repair_moved_away_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let (journal, live) = (w.core.ledger.journal.clone(), w.core.live.clone());
    assert!(live.is_of(journal.id()).unwrap());
    Checkpoints::default().take(&w.core).await.unwrap();
    live.set_aside(JunctionId(HUNG), true);
    live.store.commit(journal.durable_lsn()).unwrap();
    assert!(recover(&journal, &live, &Drc::default()).is_err(), "nobody has repaired it");
    let kept = dir.path().join("journal").join("repair-1");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("cut"), "4096\n").unwrap();
    recover(&journal, &live, &Drc::default()).unwrap();
    assert_eq!(live.aside().unwrap(), []);
}

/// A disk on which one block of one file cannot be read.
#[derive(Debug)]
struct BadSector(String);

impl Disk for BadSector {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        crate::env::RealDisk.make_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        crate::env::RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        crate::env::RealDisk.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        crate::env::RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        crate::env::RealDisk.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        crate::env::RealDisk.lock(path)
    }
    fn unsuitable(&self, dir: &Path) -> io::Result<Option<&'static str>> {
        crate::env::RealDisk.unsuitable(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = crate::env::RealDisk.open(path, how)?;
        let is_bad = path.ends_with(&self.0);
        Ok(if is_bad { Arc::new(BadFile(file)) } else { file })
    }
}

struct BadFile(Arc<dyn DiskFile>);

impl DiskFile for BadFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        if at <= 8192 && at + bytes.len() as u64 > 8192 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.read_at(bytes, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }
    fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.write_durably(bytes, at)
    }
    fn allocate(&self, size: u64) -> io::Result<()> {
        self.0.allocate(size)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn forget_cached(&self) {
        self.0.forget_cached();
    }
    fn view(&self) -> io::Result<View> {
        self.0.view()
    }
    fn map_for_writing(&self) -> io::Result<Option<memmap2::MmapRaw>> {
        self.0.map_for_writing()
    }
}
