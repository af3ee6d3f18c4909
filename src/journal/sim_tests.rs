//! The journal on a simulated disk: no threads, the same calls give the same bytes, and what was durable survives.
#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use super::*;
use crate::env::simulated::{Faults, Nth, SimDisk};
use crate::env::{World, enter};
use journal_format::event::Write;
use journal_format::ids::{JunctionId, LocationId, NodeId};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

pub const DIR: &str = "/journal";
pub const SEGMENT: u64 = 64 << 10;

pub struct Seeded {
    seed: Cell<u64>,
    began: tokio::time::Instant,
}

impl World for Seeded {
    fn wall_nanos(&self) -> i64 {
        let since = i64::try_from(self.began.elapsed().as_nanos()).unwrap();
        1_700_000_000_000_000_000 + since
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            self.seed
                .set(self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
            *byte = (self.seed.get() >> 56) as u8;
        }
    }
}

/// Run in a world of its own: one thread, paused time.
pub fn world<F: Future<Output = T>, T>(seed: u64, body: impl FnOnce() -> F) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let _entered = enter(Rc::new(Seeded { seed: Cell::new(seed), began: tokio::time::Instant::now() }));
        body().await
    })
}

pub fn options(disk: &SimDisk) -> Options {
    Options {
        dir: DIR.into(),
        segment_size: SEGMENT,
        hard_limit: 64 * SEGMENT,
        append: AppendMode::Direct,
        any_file_system: false,
        disk: Arc::new(disk.clone()),
    }
}

pub fn event(node: u64, bulk: &[u8]) -> Event {
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

pub async fn append(journal: &Journal, node: u64, bulk: &[u8]) -> Result<Appended> {
    let (at, ()) = journal.append_with(&event(node, bulk), bulk, |_| ()).await?;
    journal.wait_durable(at.end).await?;
    Ok(at)
}

/// Nodes of all writes from the start, in order.
pub fn nodes(journal: &Journal) -> Vec<u64> {
    let mut reader = journal.reader(journal.start_lsn()).unwrap();
    let mut nodes = Vec::new();
    while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
        if let Event::Write(write) = &record.event {
            assert!(record.bulk.iter().all(|byte| u64::from(*byte) == write.node.0 % 251));
            nodes.push(write.node.0);
        }
    }
    nodes
}

fn bulk(node: u64) -> Vec<u8> {
    vec![(node % 251) as u8; (node * 977 % 9000) as usize]
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_all_in_a_batch_share_its_write() {
    let run = || {
        world(11, || async {
            let disk = SimDisk::new(11);
            disk.set_faults(Faults { write_takes: Some(Duration::from_millis(1)), ..Faults::default() });
            let journal = Journal::open(options(&disk)).unwrap();
            let callers: Vec<_> = (0..8)
                .map(|caller| {
                    let journal = journal.clone();
                    tokio::spawn(async move {
                        for i in 0..5 {
                            append(&journal, caller * 100 + i, &bulk(caller * 100 + i)).await.unwrap();
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.unwrap();
            }
            let stats = journal.stats();
            journal.close().await.unwrap();
            assert!(stats.batches * 2 < stats.records, "{stats:?}");
            let names = disk.list(Path::new(DIR)).unwrap();
            let bytes: Vec<_> = names.iter().map(|n| disk.contents(&Path::new(DIR).join(n)).unwrap()).collect();
            (names, bytes)
        })
    };
    assert!(run() == run());
}

#[test]
fn power_cuts_at_every_change_keep_what_was_durable_and_at_most_what_was_asked_for() {
    let (mut cuts, mut kept_more, mut lost) = (0, 0, 0);
    for at in 1..=200 {
        let disk = SimDisk::new(at);
        let answered = world(at, || async {
            disk.set_faults(Faults { power_goes_at: Some(at), ..Faults::default() });
            let Ok(journal) = Journal::open(options(&disk)) else { return Vec::new() };
            let mut answered = Vec::new();
            for node in 0..60 {
                if append(&journal, node, &bulk(node)).await.is_err() {
                    break;
                }
                answered.push(node);
                if node % 20 == 19 {
                    let _ = journal.write_snapshot(journal.durable_lsn(), &node.to_le_bytes());
                }
            }
            answered
        });
        cuts += u64::from(disk.is_off());
        disk.cut_power();
        disk.set_faults(Faults::default());
        world(at, || async {
            let journal = Journal::open(options(&disk)).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            let found = nodes(&journal);
            assert!(found.starts_with(&answered) && found.len() <= answered.len() + 1, "cut at {at}: {found:?}");
            kept_more += u64::from(found.len() > answered.len());
            lost += u64::from(found.len() == answered.len());
            append(&journal, 99, &bulk(99)).await.unwrap();
        });
        disk.cut_power();
        world(at, || async {
            let journal = Journal::open(options(&disk)).unwrap();
            assert_eq!(nodes(&journal).last(), Some(&99), "cut at {at}");
        });
    }
    println!("{cuts} cuts: the operation in flight was there {kept_more} times, gone {lost} times");
    assert!(cuts > 120 && kept_more > 5 && lost > 50, "{cuts} {kept_more} {lost}");
}

#[test]
fn a_failed_flush_is_final_and_what_was_answered_is_there_at_the_next_start() {
    let mut fired = 0;
    for n in 1..=200 {
        for nth in [Nth::Once(n), Nth::FromThenOn(n)] {
            let disk = SimDisk::new(n);
            let answered = world(n, || async {
                let journal = Journal::open(options(&disk)).unwrap();
                disk.set_faults(Faults { flush_fails: Some(nth), ..Faults::default() });
                let mut answered = Vec::new();
                let mut refused = 0;
                for node in 0..220 {
                    match append(&journal, node, &bulk(node % 9)).await {
                        Ok(_) if refused > 0 => panic!("answered after a failed flush"),
                        Ok(_) => answered.push(node),
                        Err(Error::FailStop(_)) => refused += 1,
                        // The flushes that make the next segment fail too, with nothing promised on them: appends wait.
                        Err(Error::Full { .. }) if matches!(nth, Nth::FromThenOn(_)) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                    if refused > 3 {
                        break;
                    }
                }
                answered
            });
            fired += u64::from(disk.fired().flushes_failed > 0);
            disk.cut_power();
            disk.set_faults(Faults::default());
            world(n, || async {
                let journal = Journal::open(options(&disk)).unwrap_or_else(|error| panic!("{nth:?}: {error}"));
                let found = nodes_of(&journal);
                assert!(found.starts_with(&answered), "{nth:?}");
                assert!(found.len() <= answered.len() + 1, "{nth:?}");
            });
        }
    }
    println!("{fired} of 400 runs met a failed flush");
    assert!(fired >= 395, "{fired}");
}

fn nodes_of(journal: &Journal) -> Vec<u64> {
    let mut reader = journal.reader(journal.start_lsn()).unwrap();
    let mut nodes = Vec::new();
    while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
        if let Event::Write(write) = &record.event {
            nodes.push(write.node.0);
        }
    }
    nodes
}

#[test]
fn on_a_full_disk_operations_are_told_and_go_on_when_there_is_space_again() {
    let disk = SimDisk::new(5);
    world(5, || async {
        let journal = Journal::open(options(&disk)).unwrap();
        append(&journal, 0, &bulk(8)).await.unwrap();
        disk.set_faults(Faults { space: Some(0), ..Faults::default() });
        let mut node = 1;
        let told = loop {
            match append(&journal, node, &vec![(node % 251) as u8; 9000]).await {
                Ok(_) => node += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(told, Error::Full { .. }), "{told}");
        assert!(disk.fired().no_space > 0);
        disk.set_faults(Faults::default());
        append(&journal, node, &vec![(node % 251) as u8; 9000]).await.unwrap();
        assert_eq!(nodes_of(&journal), (0..=node).collect::<Vec<_>>());
    });
}

#[test]
fn the_hard_limit_is_said_when_operations_wait_and_not_before() {
    let disk = SimDisk::new(6);
    world(6, || async {
        let journal = Journal::open(Options { hard_limit: 6 * SEGMENT, ..options(&disk) }).unwrap();
        let mut node = 0;
        loop {
            assert!(!journal.is_full(), "an operation found place after this was said");
            match append(&journal, node, &vec![(node % 251) as u8; 9000]).await {
                Ok(_) => node += 1,
                Err(Error::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(journal.is_full());
        // A writer that waits is woken by the room that comes just before its time is up.
        let waiting = {
            let journal = journal.clone();
            tokio::spawn(async move { append(&journal, node, &vec![(node % 251) as u8; 9000]).await.map(|_| ()) })
        };
        tokio::time::sleep(Duration::from_millis(1990)).await;
        let durable = journal.durable_lsn();
        journal.write_snapshot(durable, b"").unwrap();
        journal.recycle(durable).unwrap();
        waiting.await.unwrap().unwrap();
        assert!(!journal.is_full());
    });
}

#[test]
fn direct_io_that_was_asked_for_and_is_impossible_is_refused_and_a_default_says_what_it_became() {
    let disk = SimDisk::new(7);
    disk.set_faults(Faults { no_direct: true, ..Faults::default() });
    world(7, || async {
        let refused = Journal::open(Options { append: AppendMode::Direct, ..options(&disk) }).map(|_| ()).unwrap_err();
        assert!(matches!(refused, Error::NoDirectIo { .. }), "{refused}");
        let journal = Journal::open(Options { append: AppendMode::Best, ..options(&disk) }).unwrap();
        assert_eq!(journal.append_mode(), AppendMode::Buffered);
        append(&journal, 0, b"through the page cache").await.unwrap();
        journal.close().await.unwrap();
        disk.set_faults(Faults::default());
        let journal = Journal::open(Options { append: AppendMode::Best, ..options(&disk) }).unwrap();
        assert_eq!((journal.append_mode(), nodes_of(&journal)), (AppendMode::Direct, vec![0]));
    });
}

#[test]
fn what_nobody_waits_for_is_written_with_the_next_batch_or_when_it_is_idle_or_when_somebody_does() {
    let idle = Duration::from_millis(50);
    let disk = SimDisk::new(8);
    world(8, || async {
        let journal = Journal::open(options(&disk)).unwrap();
        let unhurried = async |node: u64| journal.append_unhurried(&event(node, b""), |_| ()).await.unwrap().0;
        let batches = || journal.stats().batches;
        for node in 0..20 {
            let before = batches();
            let alone = unhurried(2 * node).await;
            tokio::task::yield_now().await;
            assert!(journal.durable_lsn() < alone.end && batches() == before, "it is in no hurry");
            append(&journal, 2 * node + 1, b"").await.unwrap();
            assert!(journal.durable_lsn() >= alone.end && batches() == before + 1, "both are in one batch");
        }
        // The journal has fallen silent, and its writer sleeps.
        tokio::time::sleep(10 * idle).await;
        let at = unhurried(40).await;
        tokio::time::sleep(2 * idle).await;
        assert!(journal.durable_lsn() >= at.end, "nobody asked for it, and it came");
        // It does not: what was written before is not said to be durable yet.
        append(&journal, 41, b"").await.unwrap();
        let at = unhurried(42).await;
        tokio::time::sleep(2 * idle).await;
        assert!(journal.durable_lsn() >= at.end);
        let (at, begun) = (unhurried(43).await, tokio::time::Instant::now());
        journal.wait_durable(at.end).await.unwrap();
        assert!(begun.elapsed() < idle, "somebody waited for it");
        // A batch full of them makes room by itself.
        let mut node = 44;
        let before = journal.durable_lsn();
        while journal.durable_lsn() == before {
            unhurried(node).await;
            node += 1;
        }
        let last = unhurried(node).await;
        journal.close().await.unwrap();
        let journal = Journal::open(options(&disk)).unwrap();
        assert!(journal.durable_lsn() >= last.end, "the end of the journal is behind it");
        assert_eq!(nodes_of(&journal), (0..=node).collect::<Vec<_>>());
    });
}
