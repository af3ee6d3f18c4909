//! Durable appends by the journal, by okaywal, by raft-engine and by SQLite (WAL, `synchronous=FULL`), rounds interleaved,
//! medians.
//!
//! Each case is some callers that append one record of so many bytes, wait until it is durable, and append the next. A
//! SQLite caller has a connection of its own and commits one row a transaction; one of raft-engine has a region of its
//! own, whose files were filled before, and nothing is compressed. `TAIN_BENCH_DIR` chooses the disk,
//! `TAIN_BENCH_ROUNDS` the rounds (default 5), `TAIN_BENCH_CASE` one case, as `4x16` (default: all).

use journal_format::event::{Event, Write};
use journal_format::ids::{JunctionId, LocationId, NodeId};
use okaywal::{LogVoid, WriteAheadLog};
use raft_engine::{Config, Engine, LogBatch, ReadableSize};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tain::env::RealDisk;
use tain::journal::{AppendMode, Journal, Options};

const SEGMENT: u64 = 64 << 20;

struct Case {
    bytes: usize,
    callers: usize,
    records: usize,
}

const CASES: [Case; 4] = [
    Case { bytes: 4096, callers: 1, records: 1000 },
    Case { bytes: 4096, callers: 16, records: 4000 },
    Case { bytes: 4096, callers: 64, records: 8000 },
    Case { bytes: 65_536, callers: 16, records: 2000 },
];

fn journal(runtime: &tokio::runtime::Runtime, journal: &Journal, case: &Case) -> Duration {
    let event = Event::Write(Write {
        junction: JunctionId(1),
        location: LocationId(1),
        node: NodeId(7),
        offset: 0,
        len: u32::try_from(case.bytes).unwrap(),
        mode: None,
        caller: Default::default(),
    });
    let begun = Instant::now();
    runtime.block_on(async {
        let callers: Vec<_> = (0..case.callers)
            .map(|_| {
                let (journal, event, bulk) = (journal.clone(), event.clone(), vec![0x5a; case.bytes]);
                let records = case.records / case.callers;
                tokio::spawn(async move {
                    for _ in 0..records {
                        let (pending, ()) = journal.append_pending(&event, &bulk, |_| ()).await.unwrap();
                        pending.durable().await.unwrap();
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
    let took = begun.elapsed();
    let durable = journal.durable_lsn();
    journal.write_snapshot(durable, b"").unwrap();
    journal.recycle(durable).unwrap();
    took
}

fn side_by_side(case: &Case, caller: impl Fn(usize) + Sync) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..case.callers {
            scope.spawn(|| caller(case.records / case.callers));
        }
    });
    begun.elapsed()
}

fn okaywal(log: &WriteAheadLog, case: &Case) -> Duration {
    let bytes = vec![0x5a; case.bytes];
    side_by_side(case, |records| {
        for _ in 0..records {
            let mut entry = log.begin_entry().unwrap();
            entry.write_chunk(&bytes).unwrap();
            entry.commit().unwrap();
        }
    })
}

fn raft_engine_at(dir: &Path) -> Engine {
    Engine::open(Config {
        dir: dir.to_str().unwrap().to_owned(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(SEGMENT),
        purge_threshold: ReadableSize(8 * SEGMENT),
        prefill_for_recycle: true,
        ..Config::default()
    })
    .unwrap()
}

fn raft_engine(log: &Engine, case: &Case) -> Duration {
    let bytes = vec![0x5a; case.bytes];
    let regions = AtomicU64::new(1);
    let took = side_by_side(case, |records| {
        let region = regions.fetch_add(1, Ordering::Relaxed);
        let mut batch = LogBatch::default();
        for _ in 0..records {
            batch.put(region, b"record".to_vec(), bytes.clone()).unwrap();
            log.write(&mut batch, true).unwrap();
        }
    });
    log.purge_expired_files().unwrap();
    took
}

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection
}

fn sqlite(path: &Path, case: &Case) -> Duration {
    let bytes = vec![0x5a; case.bytes];
    side_by_side(case, |records| {
        let connection = connect(path);
        let mut insert = connection.prepare("INSERT INTO log (record) VALUES (?1)").unwrap();
        for _ in 0..records {
            insert.execute([&bytes]).unwrap();
        }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let dir = std::env::var_os("TAIN_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let rounds: usize = std::env::var("TAIN_BENCH_ROUNDS").map_or(5, |n| n.parse().unwrap());
    let dir = tempfile::tempdir_in(dir).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = Options {
        dir: dir.path().join("journal"),
        segment_size: SEGMENT,
        hard_limit: 16 * SEGMENT,
        append: AppendMode::Direct,
        any_file_system: true,
        disk: Arc::new(RealDisk),
    };
    let ours = runtime.block_on(async { Journal::open(options).unwrap() });
    let log = WriteAheadLog::recover(dir.path().join("okaywal"), LogVoid).unwrap();
    let engine = raft_engine_at(&dir.path().join("raft-engine"));
    let database = dir.path().join("sqlite");
    connect(&database).execute_batch("CREATE TABLE log (id INTEGER PRIMARY KEY, record BLOB)").unwrap();
    for _ in 0..2 {
        journal(&runtime, &ours, &CASES[3]);
    }
    println!("case          records/s: tain   okaywal raft-engine    SQLite | tain to okaywal  raft-engine  SQLite");
    for case in &CASES {
        let name = format!("{}x{}", case.bytes >> 10, case.callers);
        if std::env::var("TAIN_BENCH_CASE").is_ok_and(|only| only != name) {
            continue;
        }
        let (mut rates, mut ratios): ([Vec<f64>; 4], [Vec<f64>; 3]) = Default::default();
        for _ in 0..rounds {
            let took = [
                journal(&runtime, &ours, case),
                okaywal(&log, case),
                raft_engine(&engine, case),
                sqlite(&database, case),
            ];
            let seconds = took.map(|took| took.as_secs_f64());
            for (rates, seconds) in rates.iter_mut().zip(seconds) {
                rates.push(case.records as f64 / seconds);
            }
            for (ratios, other) in ratios.iter_mut().zip(&seconds[1..]) {
                ratios.push(other / seconds[0]);
            }
        }
        let [tain, okaywal, raft_engine, sqlite] = rates.map(median);
        let [to_okaywal, to_raft_engine, to_sqlite] = ratios.map(median);
        println!(
            "{:>3} KiB x{:<4} {tain:>15.0} {okaywal:>9.0} {raft_engine:>11.0} {sqlite:>9.0} | {to_okaywal:>15.2} {to_raft_engine:>12.2} {to_sqlite:>7.1}",
            case.bytes >> 10,
            case.callers,
        );
    }
    runtime.block_on(ours.close()).unwrap();
}
