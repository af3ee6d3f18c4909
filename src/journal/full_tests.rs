//! A journal at its hard limit: who waits, who goes on, and what makes room.
#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use super::tests::*;
use super::*;
use journal_format::event::{Cursor, Failed};
use journal_format::ids::LocationId;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_hard_limit_operations_wait_the_reserve_goes_on_and_recycling_frees_both() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let bulk = vec![7; 30_000];
    let event = write_event(1, &bulk);
    while !journal.is_full() {
        let next = journal.append_with(&event, &bulk, |_| ());
        if tokio::time::timeout(Duration::from_millis(500), next).await.is_err() {
            break;
        }
    }
    let waits = tokio::time::timeout(Duration::from_millis(300), journal.append_with(&event, &bulk, |_| ()));
    assert!(waits.await.is_err(), "operations wait at the limit");
    let cursor = Event::Cursor(Cursor { location: LocationId(1), lsn: Lsn(4096) });
    for _ in 0..10 {
        append_durably(&journal, &cursor, b"").await;
    }
    let mut upkeep = 10;
    while tokio::time::timeout(Duration::from_millis(500), append_durably(&journal, &cursor, b"")).await.is_ok() {
        upkeep += 1;
        assert!(upkeep < 64, "upkeep must leave the last segment to ends");
    }
    let failed = Event::Failed(Failed { op: Lsn(4096), status: 5 });
    for _ in 0..10 {
        let ends = tokio::time::timeout(Duration::from_secs(20), append_durably(&journal, &failed, b"")).await;
        assert!(ends.is_ok(), "an operation that was begun can end");
    }
    let writer = {
        let (journal, bulk) = (journal.clone(), bulk.clone());
        tokio::spawn(async move { append_durably(&journal, &write_event(3, &bulk), &bulk).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = journal.durable_lsn();
    journal.recycle(before).unwrap();
    assert_eq!(journal.start_lsn(), Lsn(4096), "without a snapshot nothing is recycled");
    journal.write_snapshot(before, b"fold").unwrap();
    journal.recycle(before).unwrap();
    assert!(journal.start_lsn() > Lsn(4096));
    let at = tokio::time::timeout(Duration::from_secs(20), writer).await.unwrap().unwrap();
    assert!(at.lsn >= before);
    let files = listing(dir.path());
    assert!(files.segments.len() + files.spares.len() <= 8, "{files:?}");
    let old = journal.reader(Lsn(4096));
    assert!(matches!(old, Err(Error::Recycled { .. })));
}

#[tokio::test]
async fn bulk_bytes_that_are_still_held_keep_their_segment_from_being_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let bulk = vec![0x11; 30_000];
    append_durably(&journal, &write_event(1, &bulk), &bulk).await;
    let held = read_all(&journal).remove(0).bulk;
    for node in 0..40 {
        let other = vec![0x22; 30_000];
        append_durably(&journal, &write_event(node, &other), &other).await;
        let durable = journal.durable_lsn();
        journal.write_snapshot(durable, b"").unwrap();
        journal.recycle(durable).unwrap();
    }
    assert!(held.iter().all(|byte| *byte == 0x11));
}

#[tokio::test]
async fn operations_that_find_no_room_are_all_told_after_the_same_wait() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let bulk = vec![7; 30_000];
    let event = write_event(1, &bulk);
    while journal.append_with(&event, &bulk, |_| ()).await.is_ok() {}
    let began = tokio::time::Instant::now();
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let (journal, event, bulk) = (journal.clone(), event.clone(), bulk.clone());
            tokio::spawn(async move { journal.append_with(&event, &bulk, |_| ()).await.map(|_| ()) })
        })
        .collect();
    for waiter in waiters {
        assert!(matches!(waiter.await.unwrap(), Err(Error::Full { .. })));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A call that hangs holds bytes of each: as long as it does these are no room, neither for operations nor for the reserve.
#[tokio::test]
async fn segments_whose_bytes_are_still_held_count_as_used() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let bulk = vec![7; 30_000];
    let event = write_event(1, &bulk);
    for _ in 0..6 {
        append_durably(&journal, &event, &bulk).await;
    }
    let held: Vec<_> = read_all(&journal).into_iter().map(|record| record.bulk).collect();
    let durable = journal.durable_lsn();
    journal.write_snapshot(durable, b"").unwrap();
    journal.recycle(durable).unwrap();
    let segment = options(dir.path()).segment_size;
    let Stats { segments_in_use, segments_max, .. } = journal.stats();
    let taken = segments_max - 2;
    assert!(segments_in_use < 3, "{segments_in_use} in use, what is held is not among them");

    while journal.append_with(&event, &bulk, |_| ()).await.is_ok() {}
    assert!(journal.is_full());
    assert!(journal.stats().segments_in_use <= taken - 2, "{:?}", journal.stats());
    let failed = Event::Failed(Failed { op: Lsn(4096), status: 5 });
    let began = journal.end_lsn();
    while journal.end_lsn().0 - began.0 < 3 * segment / 2 {
        let ends = tokio::time::timeout(Duration::from_secs(20), append_durably(&journal, &failed, b"")).await;
        assert!(ends.is_ok(), "an operation that was begun can end");
    }

    drop(held);
    let more = async { while journal.append_with(&event, &bulk, |_| ()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), more).await.expect("what is not held any more is room");
}

/// A checkpoint that is cancelled leaves its call behind, and the next one begins.
#[tokio::test]
async fn segments_are_freed_in_order_though_two_free_them() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowFirst::default());
    let journal = Journal::open(Options { disk: disk.clone(), ..options(dir.path()) }).unwrap();
    let bulk = vec![7; 30_000];
    for node in 0..5 {
        append_durably(&journal, &write_event(node, &bulk), &bulk).await;
    }
    let durable = journal.durable_lsn();
    journal.write_snapshot(durable, b"").unwrap();
    disk.renamed.lock().clear();
    let free = || {
        let journal = journal.clone();
        std::thread::spawn(move || journal.recycle(durable).unwrap())
    };
    let (one, two) = (free(), free());
    one.join().unwrap();
    two.join().unwrap();
    let renamed: Vec<_> = disk.renamed.lock().iter().filter(|name| name.starts_with("segment-")).cloned().collect();
    assert!(renamed.len() > 2 && renamed.is_sorted(), "{renamed:?}");
}

/// The names that were changed, in that order. The first change of a segment's name takes longer.
#[derive(Debug, Default)]
struct SlowFirst {
    renamed: parking_lot::Mutex<Vec<String>>,
    was_slow: std::sync::atomic::AtomicBool,
}

impl Disk for SlowFirst {
    fn make_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
        crate::env::RealDisk.make_dir(dir)
    }
    fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<String>> {
        crate::env::RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
        crate::env::RealDisk.sync_dir(dir)
    }
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        let name = from.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("segment-") && !self.was_slow.swap(true, Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(300));
        }
        crate::env::RealDisk.rename(from, to)?;
        self.renamed.lock().push(name);
        Ok(())
    }
    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        crate::env::RealDisk.remove(path)
    }
    fn lock(&self, path: &std::path::Path) -> std::io::Result<crate::env::disk::Lock> {
        crate::env::RealDisk.lock(path)
    }
    fn unsuitable(&self, dir: &std::path::Path) -> std::io::Result<Option<&'static str>> {
        crate::env::RealDisk.unsuitable(dir)
    }
    fn open(
        &self,
        path: &std::path::Path,
        how: crate::env::disk::Open,
    ) -> std::io::Result<Arc<dyn crate::env::disk::DiskFile>> {
        crate::env::RealDisk.open(path, how)
    }
}

/// A pipe that nobody reads: who opens it to write waits, as on a mount that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_hangs_does_not_keep_the_journal_from_closing() {
    let dir = tempfile::tempdir().unwrap();
    let archives = dir.path().join("archives");
    std::fs::create_dir(&archives).unwrap();
    let journal = Journal::open(options(&dir.path().join("journal"))).unwrap();
    journal.archive_to(&archives).unwrap();
    let pipe = archives.join(format!("{}.tmp", journal_format::archive::file_name(SegmentNo(0))));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let bulk = vec![7; 30_000];
    for node in 0..4 {
        append_durably(&journal, &write_event(node, &bulk), &bulk).await;
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    tokio::time::timeout(Duration::from_secs(20), journal.close()).await.expect("it is not waited for").unwrap();
    // It ends by itself when there is somebody at the other end.
    drop(std::fs::File::open(&pipe).unwrap());
}
