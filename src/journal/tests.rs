//! The journal as a whole: what was durable comes back, what was not is cut, what is damaged is refused with its place.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use super::*;
use crate::env::RealDisk;
use journal_format::event::{Durable, Write, samples};
use journal_format::ids::{JunctionId, LocationId, NodeId, SegmentNo};
use journal_format::scan::{Found, record_at};
use journal_format::segment::{BLOCK, SegmentHeader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;

pub(super) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        segment_size: SEGMENT,
        hard_limit: 8 * SEGMENT,
        append: AppendMode::Best,
        any_file_system: true,
        disk: Arc::new(RealDisk),
    }
}

pub(super) fn write_event(node: u64, bulk: &[u8]) -> Event {
    Event::Write(Write {
        junction: JunctionId(1),
        location: LocationId(1),
        node: NodeId(node),
        offset: 0,
        len: u32::try_from(bulk.len()).unwrap(),
        mode: None,
        caller: Default::default(),
    })
}

pub(super) async fn append(journal: &Journal, event: &Event, bulk: &[u8]) -> Appended {
    journal.append_with(event, bulk, |at| at).await.unwrap().0
}

pub(super) async fn append_durably(journal: &Journal, event: &Event, bulk: &[u8]) -> Appended {
    let (pending, at) = journal.append_pending(event, bulk, |at| at).await.unwrap();
    pending.durable().await.unwrap();
    at
}

/// All records from the start, without what the journal says about itself.
pub(super) fn read_all(journal: &Journal) -> Vec<Record> {
    let durable = journal.durable_lsn();
    let mut reader = journal.reader(journal.start_lsn()).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
        if !matches!(record.event, Event::Durable(_) | Event::JournalCreated(_)) {
            records.push(record);
        }
    }
    assert!(reader.position() >= durable);
    records
}

/// Until the journal has said that all is durable: it writes nothing more on its own.
pub(super) async fn idle(journal: &Journal) {
    loop {
        let mut reader = journal.reader(journal.start_lsn()).unwrap();
        let mut last = None;
        while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
            last = Some(record.event);
        }
        if matches!(last, Some(Event::Durable(_))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn listing(dir: &Path) -> files::Listing {
    Dir { disk: Arc::new(RealDisk), path: dir.to_owned() }.list().unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn what_is_appended_is_read_back_in_order_by_all_three_writers() {
    for mode in [AppendMode::Best, AppendMode::Buffered, AppendMode::Map] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { append: mode, ..options(dir.path()) };
        let journal = Journal::open(options).unwrap();
        let mut appended = Vec::new();
        for (event, bulk) in samples::all() {
            appended.push((append(&journal, &event, &bulk).await, event, bulk));
        }
        journal.wait_durable(journal.end_lsn()).await.unwrap();
        let mut reader = journal.reader(Lsn(0)).unwrap();
        assert!(matches!(reader.next(Lsn(u64::MAX)).unwrap().unwrap().event, Event::JournalCreated(_)));
        for (at, event, bulk) in &appended {
            let record = reader.next(Lsn(u64::MAX)).unwrap().unwrap();
            if matches!(record.event, Event::Durable(_)) {
                continue;
            }
            assert_eq!((record.lsn, record.end, record.time), (at.lsn, at.end, at.time));
            assert_eq!((&record.event, record.bulk.as_ref()), (event, bulk.as_slice()));
        }
        journal.close().await.unwrap();
        let refused = journal.append_with(&appended[0].1, &appended[0].2, |_| ()).await;
        assert!(matches!(refused, Err(Error::Closed)));
    }
}

#[tokio::test]
async fn a_reader_stops_at_its_limit_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let first = append(&journal, &write_event(1, b"one"), b"one").await;
    let second = append_durably(&journal, &write_event(2, b"two"), b"two").await;
    let mut reader = journal.reader(first.lsn).unwrap();
    assert!(reader.next(first.lsn).unwrap().is_none());
    assert_eq!(reader.next(second.lsn).unwrap().unwrap().lsn, first.lsn);
    assert!(reader.next(Lsn(second.end.0 - 1)).unwrap().is_none());
    assert_eq!(reader.position(), second.lsn);
    assert_eq!(reader.next(second.end).unwrap().unwrap().bulk.as_ref(), b"two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_batch_is_written_all_that_comes_gathers_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    append_durably(&journal, &write_event(0, b""), b"").await;
    let before = journal.stats();
    let held = {
        let shared = Arc::clone(&journal.inner.shared);
        let (tell, held) = std::sync::mpsc::channel();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let _hold = shared.hold_writes.lock();
            tell.send(()).unwrap();
            let _ = wait.recv();
        });
        held.recv().unwrap();
        release
    };
    let mut last = Lsn(0);
    for node in 0..200 {
        last = append(&journal, &write_event(node, b"bytes"), b"bytes").await.end;
    }
    drop(held);
    journal.wait_durable(last).await.unwrap();
    let after = journal.stats();
    assert!(after.records - before.records >= 200);
    // The first, the rest, and what the journal says about itself when it is idle.
    assert!(after.batches - before.batches <= 5, "{} batches", after.batches - before.batches);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_over_many_segments_lose_nothing_and_keep_lsn_order() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { hard_limit: 64 * SEGMENT, ..options(dir.path()) };
    let journal = Journal::open(options.clone()).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..8u64)
        .map(|caller| {
            let (journal, order) = (journal.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                for i in 0..40u64 {
                    let bulk =
                        vec![u8::try_from(caller).unwrap(); usize::try_from((caller * 977 + i * 131) % 9000).unwrap()];
                    let event = write_event(caller * 1000 + i, &bulk);
                    let log = |at: Appended| order.lock().push((at.lsn, at.time, caller * 1000 + i, bulk.len()));
                    let (at, ()) = journal.append_with(&event, &bulk, log).await.unwrap();
                    if i % 4 == 0 {
                        journal.wait_durable(at.end).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let check = |journal: &Journal| {
        let order = order.lock();
        assert!(order.is_sorted_by_key(|(lsn, time, ..)| (*lsn, *time)));
        let read = read_all(journal);
        assert_eq!(read.len(), order.len());
        for (record, (lsn, time, node, len)) in read.iter().zip(order.iter()) {
            assert_eq!((record.lsn, record.time, record.bulk.len()), (*lsn, *time, *len));
            let Event::Write(write) = &record.event else { panic!("{record:?}") };
            assert_eq!(write.node.0, *node);
            assert!(record.bulk.iter().all(|byte| u64::from(*byte) == node / 1000));
        }
    };
    journal.wait_durable(journal.end_lsn()).await.unwrap();
    assert!(journal.stats().segments_in_use > 5);
    check(&journal);
    journal.close().await.unwrap();
    drop(journal);
    check(&Journal::open(options).unwrap());
}

#[tokio::test]
async fn a_drop_without_close_keeps_all_that_was_durable_and_time_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut times = Vec::new();
    for round in 0..5u64 {
        let journal = Journal::open(options(dir.path())).unwrap();
        let read = read_all(&journal);
        assert_eq!(read.len() as u64, round * 3);
        for i in 0..3 {
            times.push(append_durably(&journal, &write_event(round * 3 + i, b"x"), b"x").await.time);
        }
        drop(journal);
    }
    assert!(times.is_sorted());
}

#[tokio::test]
async fn a_second_open_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let second = Journal::open(options(dir.path()));
    assert!(matches!(second, Err(Error::Locked { pid: Some(pid), .. }) if pid == std::process::id()));
    journal.close().await.unwrap();
    Journal::open(options(dir.path())).unwrap();
}

#[tokio::test]
async fn an_orderly_stop_is_the_last_thing_the_journal_says() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    append(&journal, &write_event(1, b"abc"), b"abc").await;
    journal.close().await.unwrap();
    let mut reader = journal.reader(Lsn(0)).unwrap();
    let mut last = None;
    while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
        last = Some(record.event);
    }
    assert_eq!(last, Some(Event::Durable(Durable { stopped: true })));
}

#[tokio::test]
async fn an_idle_journal_says_once_that_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    append_durably(&journal, &write_event(1, b"abc"), b"abc").await;
    idle(&journal).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut reader = journal.reader(Lsn(0)).unwrap();
    let mut said = 0;
    while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
        said += usize::from(record.event == Event::Durable(Durable { stopped: false }));
    }
    assert!((1..=2).contains(&said), "{said}");
}

/// A journal of one segment whose last batch holds two records, its bytes, and where its records are.
#[expect(clippy::await_holding_lock, reason = "the writer, a thread, is what waits for it")]
async fn small_journal(dir: &Path) -> (Vec<u8>, Appended, Appended, Appended) {
    let journal = Journal::open(options(dir)).unwrap();
    idle(&journal).await;
    let gate = journal.inner.shared.hold_writes.lock();
    let first = append(&journal, &write_event(1, b"first"), b"first").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = append(&journal, &write_event(2, b"second"), b"second").await;
    let third = append(&journal, &write_event(3, b"third"), b"third").await;
    drop(gate);
    journal.wait_durable(third.end).await.unwrap();
    drop(journal);
    let bytes = std::fs::read(dir.join(files::segment_name(SegmentNo(0)))).unwrap();
    (bytes, first, second, third)
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_of_the_last_batch_is_cut_and_what_was_before_survives() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let (bytes, first, second, third) = small_journal(&made).await;
    let header = SegmentHeader::from_bytes(&bytes).unwrap();
    let end = third.end.0;
    let batch = second.lsn.0 / BLOCK * BLOCK;
    assert_eq!(batch, second.lsn.0, "both records are in one batch");
    assert!(matches!(record_at(&header, &bytes, second.lsn.0), Found::Record(r) if r.header.durable == second.lsn));
    let torn = dir.path().join("torn");
    for cut in batch..end {
        copy_dir(&made, &torn);
        let path = torn.join(files::segment_name(SegmentNo(0)));
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // From here on: what an earlier lap may have left.
        file.write_all_at(&vec![0xa5; usize::try_from(SEGMENT - cut).unwrap()], cut).unwrap();
        let journal = Journal::open(options(&torn)).unwrap();
        let nodes: Vec<Lsn> = read_all(&journal).iter().map(|record| record.lsn).collect();
        let want = if cut < second.end.0 { vec![first.lsn] } else { vec![first.lsn, second.lsn] };
        assert_eq!(nodes, want, "cut at {cut}");
        let again = append_durably(&journal, &write_event(9, b"again"), b"again").await;
        drop(journal);
        let journal = Journal::open(options(&torn)).unwrap();
        assert_eq!(read_all(&journal).last().unwrap().lsn, again.lsn, "cut at {cut}");
        drop(journal);
        std::fs::remove_dir_all(&torn).unwrap();
    }
}

#[tokio::test]
async fn a_record_behind_a_torn_one_never_comes_back_to_life() {
    let dir = tempfile::tempdir().unwrap();
    let (_, first, second, third) = small_journal(dir.path()).await;
    let path = dir.path().join(files::segment_name(SegmentNo(0)));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The last batch's first record never reached the disk, its second one did.
    file.write_all_at(&vec![0; usize::try_from(second.end.0 - second.lsn.0).unwrap()], second.lsn.0).unwrap();
    drop(Journal::open(options(dir.path())).unwrap());
    let bytes = std::fs::read(&path).unwrap();
    let header = SegmentHeader::from_bytes(&bytes).unwrap();
    let behind = record_at(&header, &bytes, third.lsn.0);
    assert!(!matches!(behind, Found::Record(record) if !record.header.is_filler()), "{behind:?}");
    let journal = Journal::open(options(dir.path())).unwrap();
    assert_eq!(read_all(&journal).iter().map(|r| r.lsn).collect::<Vec<_>>(), [first.lsn]);
}

#[tokio::test]
async fn each_flipped_byte_of_the_durable_part_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, first, second, _) = small_journal(dir.path()).await;
    let path = dir.path().join(files::segment_name(SegmentNo(0)));
    // The first record, and the filler behind it: everything from its begin to the last batch.
    for at in (first.lsn.0..second.lsn.0).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[usize::try_from(at).unwrap()] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        match Journal::open(options(dir.path())) {
            Err(Error::Corrupt { segment: SegmentNo(0), offset, lsn, .. }) => {
                assert!(lsn == Lsn(offset) && offset <= at && at - offset < 4200, "{at}: {offset}");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok(_) => panic!("byte {at} was not noticed"),
        }
    }
    // Refused, and nothing changed: put the bytes back and all is well.
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_all(&Journal::open(options(dir.path())).unwrap()).len(), 3);
}

#[tokio::test]
async fn a_failed_write_is_final_for_all_who_wait_and_all_who_come() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let good = append_durably(&journal, &write_event(1, b"good"), b"good").await;
    idle(&journal).await;
    let durable = journal.durable_lsn();
    journal.inner.shared.fail_next_write.store(true, Ordering::Release);
    let lost = append(&journal, &write_event(2, b"lost"), b"lost").await;
    assert!(matches!(journal.wait_durable(lost.end).await, Err(Error::FailStop(_))));
    journal.inner.shared.fail_next_write.store(false, Ordering::Release);
    let later = journal.append_with(&write_event(3, b""), b"", |_| ()).await;
    assert!(matches!(later, Err(Error::FailStop(_))));
    assert!(matches!(journal.failed().await, Error::FailStop(_)));
    journal.wait_durable(good.end).await.unwrap();
    assert_eq!(journal.durable_lsn(), durable);
    assert!(matches!(journal.close().await, Err(Error::FailStop(_))));
}

#[tokio::test]
async fn what_was_set_aside_is_read_first_and_survives_recycling_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let hung = JunctionId(7);
    let of = |event: &Event| matches!(event, Event::Write(e) if e.junction == hung);
    let mut expected = Vec::new();
    let mut from = None;
    for round in 0..6_u64 {
        // Little of the hung one, much of others: more than the journal holds.
        for n in 0..6_u8 {
            let bulk = vec![n; 15_000];
            let Event::Write(mut write) = write_event(round * 100 + u64::from(n), &bulk) else { panic!() };
            if n % 3 == 0 {
                write.junction = hung;
            }
            let at = append_durably(&journal, &Event::Write(write.clone()), &bulk).await;
            if write.junction == hung {
                from.get_or_insert(at.lsn);
                expected.push((at, write.node, bulk));
            }
        }
        let to = journal.durable_lsn();
        journal.set_aside(hung, from.unwrap(), to, &of).unwrap();
        journal.write_snapshot(to, b"fold").unwrap();
        journal.recycle(to).unwrap();
    }
    let more = vec![9; 100];
    let Event::Write(mut write) = write_event(9999, &more) else { panic!() };
    write.junction = hung;
    let at = append_durably(&journal, &Event::Write(write), &more).await;
    expected.push((at, NodeId(9999), more));
    let from = from.unwrap();
    assert!(journal.start_lsn() > from && matches!(journal.reader(from), Err(Error::Recycled { .. })));
    let check = |journal: &Journal, from: Lsn| {
        let mut reader = journal.reader_of(hung, from).unwrap();
        let mut left: Vec<_> = expected.iter().filter(|(at, ..)| at.lsn >= from).collect();
        while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
            let Event::Write(write) = &record.event else { continue };
            if write.junction != hung {
                assert!(record.lsn >= journal.start_lsn(), "of others only what the journal has");
                continue;
            }
            let (at, node, bulk) = left.remove(0);
            assert_eq!((record.lsn, record.end, record.time), (at.lsn, at.end, at.time));
            assert_eq!((write.node, record.bulk.as_ref()), (*node, bulk.as_slice()));
        }
        assert!(left.is_empty());
    };
    check(&journal, from);
    check(&journal, expected[3].0.lsn);
    check(&journal, expected[4].0.end);
    assert!(journal.dir_names().iter().filter(|name| name.starts_with("side-")).count() > 1, "in several pieces");
    journal.close().await.unwrap();
    drop(journal);
    let journal = Journal::open(options(dir.path())).unwrap();
    check(&journal, from);
    check(&journal, expected[5].0.lsn);
    journal.drop_side(hung).unwrap();
    assert!(journal.dir_names().iter().all(|name| !name.starts_with("side-")));
    assert!(matches!(journal.reader_of(hung, from), Err(Error::Recycled { .. })));
}

#[tokio::test]
async fn recycled_segments_are_used_again_for_laps_and_the_journal_opens_at_each_point() {
    let dir = tempfile::tempdir().unwrap();
    let bulk = vec![3; 20_000];
    let mut node = 0;
    let mut kept = Lsn(0);
    for _ in 0..12 {
        let journal = Journal::open(options(dir.path())).unwrap();
        if let Some((lsn, state)) = journal.snapshot().unwrap() {
            assert_eq!((lsn, state.as_slice()), (kept, node.to_string().as_bytes()));
        }
        for _ in 0..7 {
            node += 1;
            append_durably(&journal, &write_event(node, &bulk), &bulk).await;
        }
        let read = read_all(&journal);
        let Event::Write(last) = &read.last().unwrap().event else { panic!() };
        assert_eq!(last.node.0, node);
        drop(read);
        kept = journal.durable_lsn();
        journal.write_snapshot(kept, node.to_string().as_bytes()).unwrap();
        journal.recycle(kept).unwrap();
        journal.close().await.unwrap();
    }
    assert!(kept.0 > 8 * SEGMENT, "more than one lap");
    let listing = listing(dir.path());
    assert!(listing.segments.len() + listing.spares.len() <= 8);
    assert_eq!(listing.snapshots.len(), 2);
}

#[tokio::test]
async fn a_damaged_newest_snapshot_falls_back_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let mut lsns = Vec::new();
    for state in [b"one", b"two", b"six"] {
        append_durably(&journal, &write_event(1, b"x"), b"x").await;
        let lsn = journal.durable_lsn();
        journal.write_snapshot(lsn, state).unwrap();
        lsns.push(lsn);
    }
    let ahead = journal.write_snapshot(Lsn(journal.durable_lsn().0 + 16), b"no");
    assert!(matches!(ahead, Err(Error::NotDurable { .. })));
    drop(journal);
    assert_eq!(listing(dir.path()).snapshots, lsns[1..]);
    let newest = dir.path().join(files::snapshot_name(lsns[2]));
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    assert_eq!(journal.snapshot().unwrap(), Some((lsns[1], b"two".to_vec())));
}

#[tokio::test]
async fn missing_foreign_doubled_and_misnamed_segments_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let journal = Journal::open(options(&made)).unwrap();
    let bulk = vec![1; 30_000];
    for node in 0..4 {
        append_durably(&journal, &write_event(node, &bulk), &bulk).await;
    }
    journal.close().await.unwrap();
    drop(journal);
    let other = dir.path().join("other");
    drop(Journal::open(options(&other)).unwrap());
    let name = |number: u64| files::segment_name(SegmentNo(number));
    let broken = dir.path().join("broken");
    let refused = |what: &str, damage: &dyn Fn()| {
        copy_dir(&made, &broken);
        damage();
        let error = Journal::open(options(&broken)).map(|_| ()).expect_err(what).to_string();
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
        std::fs::remove_dir_all(&broken).unwrap();
    };
    let file = |number: u64| broken.join(name(number));
    refused("segment 1 is missing", &|| std::fs::remove_file(file(1)).unwrap());
    refused("no usable snapshot", &|| std::fs::remove_file(file(0)).unwrap());
    refused("holds segment 1", &|| {
        std::fs::copy(file(1), file(2)).unwrap();
    });
    refused("is not a name that tain gives", &|| {
        std::fs::copy(file(1), broken.join(name(1) + ".bak")).unwrap();
    });
    refused("has 4096 bytes", &|| {
        std::fs::OpenOptions::new().write(true).open(file(1)).unwrap().set_len(4096).unwrap();
    });
    let damaged_header = || {
        let file = std::fs::OpenOptions::new().write(true).open(file(1)).unwrap();
        file.write_all_at(b"x", 40).unwrap();
    };
    refused("segment 1, offset 0", &damaged_header);
    refused("belongs to another journal", &|| {
        std::fs::copy(other.join(name(0)), file(0)).unwrap();
    });
}

#[tokio::test]
async fn the_last_segments_loss_is_noticed_when_a_snapshot_knows_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let bulk = vec![1; 30_000];
    for node in 0..4 {
        append_durably(&journal, &write_event(node, &bulk), &bulk).await;
    }
    journal.write_snapshot(journal.durable_lsn(), b"").unwrap();
    journal.close().await.unwrap();
    let segments = listing(dir.path()).segments;
    let last = SegmentNo(journal.durable_lsn().0 / SEGMENT);
    for gone in segments.iter().filter(|number| **number >= last) {
        std::fs::remove_file(dir.path().join(files::segment_name(*gone))).unwrap();
    }
    drop(journal);
    assert!(matches!(Journal::open(options(dir.path())), Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn a_record_that_can_never_fit_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let bulk = vec![0; 62_000];
    let refused = journal.append_with(&write_event(1, &bulk), &bulk, |_| ()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    let wrong = journal.append_with(&write_event(1, b"abc"), b"ab", |_| ()).await;
    assert!(matches!(wrong, Err(Error::Event(_))));
}

#[test]
fn options_that_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tight = Options { hard_limit: SEGMENT, ..options(dir.path()) };
    assert!(matches!(Journal::open(tight), Err(Error::Options(_))));
    let odd = Options { segment_size: SEGMENT + 1, ..options(dir.path()) };
    assert!(matches!(Journal::open(odd), Err(Error::Options(_))));
    // A journal's segments keep their size.
    drop(
        Journal::open(Options { segment_size: 4 * SEGMENT, hard_limit: 32 * SEGMENT, ..options(dir.path()) }).unwrap(),
    );
    let Err(Error::Options(why)) = Journal::open(options(dir.path())) else { panic!("there is room for two segments") };
    assert!(why.contains(&(16 * SEGMENT).to_string()), "{why}");
}

#[tokio::test]
async fn a_caller_that_panics_in_the_middle_of_an_append_stops_the_journal_instead_of_hanging_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(dir.path())).unwrap();
    let task = {
        let journal = journal.clone();
        tokio::spawn(async move {
            journal
                .append_with(&write_event(1, b""), b"", |_| panic!("a test wants this panic"))
                .await
                .map(|(at, ())| at)
        })
    };
    assert!(task.await.unwrap_err().is_panic());
    assert!(matches!(journal.failed().await, Error::FailStop(_)));
    assert!(matches!(journal.append_with(&write_event(2, b""), b"", |_| ()).await, Err(Error::FailStop(_))));
}
