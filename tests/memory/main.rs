//! How much memory the service takes (I11): while it moves very many files, and under many clients that want much.
#![allow(clippy::disallowed_methods, reason = "tests outside the service time what they see")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod clients;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Dir, exe, setup};
use tain::demo::load::Load;
use tain::demo::rig::{Rig, TREE};

const FILES: u64 = 200_000;
const LIMIT_KIB: u64 = 200 << 10;
const MOVE_MAX: Duration = Duration::from_secs(1800);

/// A field of /proc/PID/status, in KiB.
fn field(status: &str, key: &str) -> u64 {
    let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn status(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn anonymous(status: &str) -> u64 {
    field(status, "RssAnon:") + field(status, "RssShmem:")
}

fn anonymous_kib(pid: u32) -> u64 {
    anonymous(&status(pid))
}

struct Peak {
    anonymous_kib: u64,
    hwm_kib: u64,
    samples: u64,
}

/// Look every few milliseconds, until told to stop.
fn watch(pid: u32, stop: &AtomicBool) -> Peak {
    let mut peak = Peak { anonymous_kib: 0, hwm_kib: 0, samples: 0 };
    while !stop.load(Ordering::Acquire) {
        let status = status(pid);
        peak.anonymous_kib = peak.anonymous_kib.max(anonymous(&status));
        peak.hwm_kib = peak.hwm_kib.max(field(&status, "VmHWM:"));
        peak.samples += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_thousand_files_are_moved_under_load_in_less_than_200_mib() {
    let dir = Dir::new();
    let mut setup = setup(FILES, 32, 2);
    // Nearly all of it lies still: the lanes' models are this process's memory, and their load is not the question.
    setup.spec.lanes_files = Some(4_000);
    let mut rig = Rig::new(&exe(), dir.path(), &["old", "new"], setup).await.unwrap();
    assert!(rig.source.files >= FILES);
    let pid = rig.service.pid().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let watcher = std::thread::spawn(move || watch(pid, &stopping));
    let load = Load::start(rig.lanes().await.unwrap());
    let begun = Instant::now();
    let job = rig.start_move("new", TREE).await.unwrap();
    tokio::select! {
        done = rig.wait_completed(job, MOVE_MAX) => done.unwrap(),
        why = load.failed() => panic!("{why}"),
    }
    let took = begun.elapsed();
    let lanes = load.stop().await.unwrap();
    stop.store(true, Ordering::Release);
    let peak = watcher.join().unwrap();
    println!(
        "{} files moved in {took:?}; peak RssAnon + RssShmem {} MiB, VmHWM {} MiB ({} samples)",
        rig.source.files,
        peak.anonymous_kib >> 10,
        peak.hwm_kib >> 10,
        peak.samples
    );
    rig.service.stop().await.unwrap();
    let found = rig.verify(&rig.side("new", TREE), &lanes, None).unwrap();
    assert!(found.equal(), "{}", found.report());
    assert!(peak.samples > 100 && peak.anonymous_kib > 0);
    assert!(peak.anonymous_kib < LIMIT_KIB, "{} KiB", peak.anonymous_kib);
}
