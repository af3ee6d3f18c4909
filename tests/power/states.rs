//! Every state that a crash can leave of a journal: its writes are logged with the flushes between them, and states are
//! built from the log: a prefix up to a flush, and of what came behind it everything, nothing, all but one, or any half.

use crate::count;
use crate::disk::{Disk, Entry, Fs, Image, Piece, torn};
use crate::support::Dir;
use journal_format::event::{Caller, Event, Write};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId};
use std::path::Path;
use tain::demo::content::Rng;
use tain::journal::{AppendMode, Journal, Options};

/// Segments small enough that some are closed, made and used again.
const SEGMENT: u64 = 256 << 10;

struct Appended {
    lsn: Lsn,
    /// Position in the disk's log at which it was said to be durable, at the latest.
    durable_at: usize,
}

#[test]
fn from_any_state_of_an_ext4_disk_the_journal_comes_back_to_all_that_was_durable() {
    every_state(Fs::Ext4, AppendMode::Direct);
}

#[test]
fn from_any_state_of_an_xfs_disk_the_journal_comes_back_to_all_that_was_durable() {
    every_state(Fs::Xfs, AppendMode::Direct);
}

#[test]
fn from_any_state_of_a_disk_that_was_written_through_the_cache_the_journal_comes_back() {
    every_state(Fs::Ext4, AppendMode::Buffered);
}

fn every_state(fs: Fs, append: AppendMode) {
    let dir = Dir::new();
    let mut disk = Disk::new(fs, fs.size_min(), dir.path());
    let base = disk.begin_log();
    let appended = append_some(&disk, dir.path(), append);
    let log = disk.end_log();
    let flushes: Vec<usize> =
        log.iter().enumerate().filter(|(_, e)| matches!(e, Entry::Flush)).map(|(at, _)| at).collect();
    assert!(flushes.len() > 100, "only {} flushes", flushes.len());
    let states = count("TAIN_STATES", if append == AppendMode::Direct { 300 } else { 100 });
    let mut rng = Rng::new(tain::demo::service::now());
    let (mut checked, mut lost, mut boundary) = (0, 0, 0);
    while checked < states {
        // Boundaries evenly over the log, a random place behind each.
        let from = flushes[boundary % flushes.len()];
        boundary += (flushes.len() / usize::try_from(states).unwrap()).max(1) * 2 + 1;
        let until = flushes.iter().find(|at| **at > from).copied().unwrap_or(log.len());
        let at = from + 1 + rng.index(until - from);
        let (durable, since) = state_at(&base, &log, at);
        let image = match rng.below(4) {
            0 => durable.clone(),
            1 if !since.is_empty() => all_but_one(&durable, &since, rng.index(since.len())),
            _ => torn(&durable, &since, 50, &mut rng),
        };
        lost += usize::from(!since.is_empty());
        disk.put(image);
        check(dir.path(), &appended, at, append);
        checked += 1;
    }
    println!(
        "{fs:?}, {append:?}: {checked} states of a log of {} writes and {} flushes, {lost} with something to lose",
        log.len() - flushes.len(),
        flushes.len()
    );
    assert!(lost * 4 > usize::try_from(checked).unwrap(), "only {lost} states had something to lose");
}

fn options(dir: &Path, append: AppendMode) -> Options {
    Options {
        dir: dir.join("journal"),
        segment_size: SEGMENT,
        hard_limit: 24 * SEGMENT,
        append,
        any_file_system: false,
        disk: std::sync::Arc::new(tain::env::RealDisk),
    }
}

/// Record `i`: which bytes it carries follows from its number.
fn record(i: u64) -> (Event, Vec<u8>) {
    let len = usize::try_from((i * 7919) % 9000).unwrap();
    let bulk: Vec<u8> = (0..len).map(|at| u8::try_from((i * 31 + at as u64) % 251).unwrap()).collect();
    let write = Write {
        junction: JunctionId(1),
        location: LocationId(1),
        node: NodeId(i),
        offset: 0,
        len: u32::try_from(len).unwrap(),
        mode: None,
        caller: Caller::default(),
    };
    (Event::Write(write), bulk)
}

/// Some hundred records in batches of all sizes, a snapshot and recycling in between, and a second life.
fn append_some(disk: &Disk, dir: &Path, append: AppendMode) -> Vec<Appended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut appended = Vec::new();
    runtime.block_on(async {
        for life in 0..2 {
            let journal = Journal::open(options(dir, append)).unwrap();
            for round in 0..80 {
                let mut ends = Vec::new();
                for _ in 0..1 + (round * 5) % 9 {
                    let (event, bulk) = record(appended.len() as u64);
                    let (at, ()) = journal.append_with(&event, &bulk, |_| ()).await.unwrap();
                    appended.push(Appended { lsn: at.lsn, durable_at: usize::MAX });
                    ends.push(at.end);
                }
                journal.wait_durable(*ends.last().unwrap()).await.unwrap();
                let now = disk.log_len();
                for record in appended.iter_mut().rev().take(ends.len()) {
                    record.durable_at = now;
                }
                if round % 30 == 29 {
                    let lsn = *ends.last().unwrap();
                    journal.write_snapshot(lsn, format!("{}", appended.len()).as_bytes()).unwrap();
                    journal.recycle(Lsn(lsn.0.saturating_sub(2 * SEGMENT))).unwrap();
                }
            }
            if life == 0 {
                drop(journal); // as after a kill
            } else {
                journal.close().await.unwrap();
            }
        }
    });
    appended
}

/// What was flushed when the log had come to `at`, and what was written since.
fn state_at(base: &Image, log: &[Entry], at: usize) -> (Image, Vec<(u64, Piece)>) {
    let (mut durable, mut since) = (base.clone(), Vec::new());
    for entry in &log[..at.min(log.len())] {
        match entry {
            Entry::Write(number, piece) => since.push((*number, piece.clone())),
            Entry::Flush => durable.extend(since.drain(..)),
        }
    }
    (durable, since)
}

fn all_but_one(durable: &Image, since: &[(u64, Piece)], dropped: usize) -> Image {
    let mut image = durable.clone();
    image.extend(since.iter().enumerate().filter(|(at, _)| *at != dropped).map(|(_, (n, piece))| (*n, piece.clone())));
    image
}

/// The journal opens, and holds a prefix of what was appended: at least all that had been durable.
fn check(dir: &Path, appended: &[Appended], at: usize, append: AppendMode) {
    let journal = Journal::open(options(dir, append)).unwrap_or_else(|e| panic!("log position {at}: {e}"));
    let durable = appended.iter().take_while(|record| record.durable_at <= at).count();
    let start = journal.start_lsn();
    let snapshot = journal.snapshot().unwrap();
    let mut reader = journal.reader(start).unwrap();
    let mut next = appended.iter().take_while(|record| record.lsn < start).count();
    while let Some(found) = reader.next(journal.durable_lsn()).unwrap() {
        let Event::Write(write) = &found.event else { continue };
        let (event, bulk) = record(next as u64);
        assert!(found.event == event && found.bulk == bulk, "log position {at}: record {next} is {write:?}");
        assert_eq!(found.lsn, appended[next].lsn, "log position {at}: record {next}");
        next += 1;
    }
    assert!(next >= durable, "log position {at}: {next} records of {durable} that were durable");
    if let Some((lsn, state)) = snapshot {
        let count: usize = String::from_utf8(state).unwrap().parse().unwrap();
        assert_eq!(appended.iter().take_while(|r| r.lsn < lsn).count(), count, "log position {at}: a snapshot");
    }
}
