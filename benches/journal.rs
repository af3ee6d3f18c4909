//! Durable appends to the journal beside a bare file on the same disk: `cargo bench --bench journal`.
//!
//! Each case is some callers that append a record, wait until it is durable, and append the next. The bare file is
//! preallocated and zeroed; one thread writes it in as many writes as the journal made batches, of the journal's mean
//! batch length, each durable before the next: past the page cache (`O_DIRECT`, `RWF_DSYNC`) and through it (`fdatasync`).
//! Rounds are interleaved, figures are medians, and a ratio is the median of the rounds' ratios: throughput of the
//! journal to that of the file that is flushed, and to that of the faster bare way, in the same round; latency to that of
//! the file that is flushed.
//!
//! "writing" is the part of the time in which a write was under way; "between" is what lies between the writes of two
//! batches, the journal's and its callers' own.
//!
//! `TAIN_BENCH_DIR` chooses the disk (default: `target/`), `TAIN_BENCH_ROUNDS` the rounds (default 5),
//! `TAIN_BENCH_APPEND` one writer out of `direct`, `buffered`, `map`, `TAIN_BENCH_CASE` one case, as `4x16` (default: all).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a bench that fails stops, and times things; its numbers are small"
)]

use journal_format::event::{Event, Write};
use journal_format::ids::{JunctionId, LocationId, NodeId};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tain::env::RealDisk;
use tain::journal::{AppendMode, Journal, Options};

const SEGMENT: u64 = 64 << 20;
const SEGMENTS: u64 = 16;
const BARE: u64 = 512 << 20;

struct Case {
    bytes: usize,
    callers: usize,
    records: usize,
}

const CASES: [Case; 4] = [
    Case { bytes: 4096, callers: 1, records: 4000 },
    Case { bytes: 4096, callers: 16, records: 32_000 },
    Case { bytes: 4096, callers: 64, records: 64_000 },
    Case { bytes: 65_536, callers: 16, records: 6000 },
];

struct Round {
    took: Duration,
    batches: u64,
    batch_bytes: u64,
    latency: Duration,
    writing: Duration,
}

fn event(bytes: usize) -> Event {
    Event::Write(Write {
        junction: JunctionId(1),
        location: LocationId(1),
        node: NodeId(7),
        offset: 0,
        len: u32::try_from(bytes).unwrap(),
        mode: None,
        caller: Default::default(),
    })
}

fn open(dir: PathBuf, append: AppendMode) -> Journal {
    let hard_limit = SEGMENT * SEGMENTS;
    let disk = Arc::new(RealDisk);
    Journal::open(Options { dir, segment_size: SEGMENT, hard_limit, append, any_file_system: true, disk }).unwrap()
}

async fn appends(journal: &Journal, case: &Case) -> Round {
    let before = journal.stats();
    let begun = Instant::now();
    let callers: Vec<_> = (0..case.callers)
        .map(|_| {
            let (journal, records) = (journal.clone(), case.records / case.callers);
            let (event, bulk) = (event(case.bytes), vec![0x5a; case.bytes]);
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(records);
                for _ in 0..records {
                    let begun = Instant::now();
                    let (pending, ()) = journal.append_pending(&event, &bulk, |_| ()).await.unwrap();
                    pending.durable().await.unwrap();
                    latencies.push(begun.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await.unwrap());
    }
    let took = begun.elapsed();
    let after = journal.stats();
    latencies.sort_unstable();
    let batches = after.batches - before.batches;
    Round {
        took,
        batches,
        batch_bytes: (after.bytes - before.bytes) / batches,
        latency: latencies[latencies.len() / 2],
        writing: Duration::from_nanos(after.flush_nanos - before.flush_nanos),
    }
}

/// What the next round will write fits into segments that have been used before.
fn make_room(journal: &Journal) {
    let durable = journal.durable_lsn();
    journal.write_snapshot(durable, b"").unwrap();
    journal.recycle(durable).unwrap();
}

async fn warm(journal: &Journal) {
    let all = Case { bytes: 65_536, callers: 4, records: (SEGMENT * (SEGMENTS - 6) / 66_000) as usize };
    for _ in 0..2 {
        appends(journal, &all).await;
        make_room(journal);
    }
}

fn bare(path: &Path, direct: bool, round: &Round) -> (Duration, Duration) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if direct {
        options.custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap());
    }
    let file = options.open(path).unwrap();
    let length = usize::try_from(round.batch_bytes.next_multiple_of(4096)).unwrap();
    let buffer = vec![0xa5; length + 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let bytes = &buffer[skip..skip + length];
    let mut at = 0;
    let mut latencies = Vec::new();
    let begun = Instant::now();
    for _ in 0..round.batches {
        if at + length as u64 > BARE {
            at = 0;
        }
        let begun = Instant::now();
        if direct {
            let slices = [std::io::IoSlice::new(bytes)];
            let written = rustix::io::pwritev2(&file, &slices, at, rustix::io::ReadWriteFlags::DSYNC).unwrap();
            assert_eq!(written, length);
        } else {
            file.write_all_at(bytes, at).unwrap();
            file.sync_data().unwrap();
        }
        latencies.push(begun.elapsed());
        at += length as u64;
    }
    let took = begun.elapsed();
    latencies.sort_unstable();
    (took, latencies[latencies.len() / 2])
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn main() {
    let dir = std::env::var_os("TAIN_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let rounds: usize = std::env::var("TAIN_BENCH_ROUNDS").map_or(5, |n| n.parse().unwrap());
    let only = std::env::var("TAIN_BENCH_APPEND").ok();
    let only_case = std::env::var("TAIN_BENCH_CASE").ok();
    let dir = tempfile::tempdir_in(dir).unwrap();
    let path = dir.path().join("bare");
    std::fs::write(&path, vec![0; usize::try_from(BARE).unwrap()]).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!(
        "append    case        records/s   MB/s  a batch  writing  between   latency |   bare direct   bare flushed | to flushed  to the faster  latency to flushed"
    );
    for (name, mode) in [("direct", AppendMode::Direct), ("buffered", AppendMode::Buffered), ("map", AppendMode::Map)] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let journal = runtime.block_on(async { open(dir.path().join(name), mode) });
        runtime.block_on(warm(&journal));
        for case in &CASES {
            let name_of_case = format!("{}x{}", case.bytes >> 10, case.callers);
            if only_case.as_ref().is_some_and(|only| *only != name_of_case) {
                continue;
            }
            let (mut rates, mut sizes, mut shares, mut latencies) = (vec![], vec![], vec![], vec![]);
            let (mut directs, mut buffereds, mut latency_ratios, mut gaps) = (vec![], vec![], vec![], vec![]);
            let (mut to_flushed, mut to_faster) = (vec![], vec![]);
            for round in 0..rounds {
                let ours = runtime.block_on(appends(&journal, case));
                make_room(&journal);
                let ways = if round % 2 == 0 { [true, false] } else { [false, true] };
                let [one, other] = ways.map(|direct| bare(&path, direct, &ours));
                let (direct, buffered) = if ways[0] { (one, other) } else { (other, one) };
                let took = ours.took.as_secs_f64();
                let best = direct.min(buffered);
                to_flushed.push(buffered.0.as_secs_f64() / took);
                to_faster.push(best.0.as_secs_f64() / took);
                latency_ratios.push(ours.latency.as_secs_f64() / buffered.1.as_secs_f64());
                let rate = |took: Duration| case.records as f64 / took.as_secs_f64();
                rates.push(rate(ours.took));
                directs.push(rate(direct.0));
                buffereds.push(rate(buffered.0));
                sizes.push(ours.batch_bytes);
                shares.push(ours.writing.as_secs_f64() / took);
                gaps.push((ours.took - ours.writing).as_secs_f64() * 1e6 / ours.batches as f64);
                latencies.push(ours.latency);
            }
            let rate = median(rates);
            println!(
                "{name:9} {:>3} KiB x{:<3} {rate:>10.0} {:>6.0} {:>6} KiB    {:>3.0} % {:>5.1} us {:>6} us | {:>13.0} {:>14.0} | {:>10.2}  {:>13.2}  {:>18.2}",
                case.bytes >> 10,
                case.callers,
                rate * case.bytes as f64 / 1e6,
                median(sizes) >> 10,
                median(shares) * 100.0,
                median(gaps),
                median(latencies).as_micros(),
                median(directs),
                median(buffereds),
                median(to_flushed),
                median(to_faster),
                median(latency_ratios),
            );
        }
        runtime.block_on(journal.close()).unwrap();
    }
}
