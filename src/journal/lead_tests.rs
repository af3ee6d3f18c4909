//! A caller that is alone writes itself: nothing is lost between him and the writer's thread, and a failure is as final.
#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use super::tests::{append, append_durably, idle, options, read_all, write_event};
use super::{Error, Journal, Options};
use journal_format::event::Event;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

fn open(dir: &std::path::Path) -> Journal {
    Journal::open(Options { hard_limit: 1 << 30, segment_size: 1 << 20, ..options(dir) }).unwrap()
}

fn nodes(journal: &Journal) -> Vec<u64> {
    let node = |event| if let Event::Write(e) = event { e.node.0 } else { unreachable!() };
    read_all(journal).into_iter().map(|record| node(record.event)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_alone_writes_himself_and_the_journal_still_says_when_it_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    idle(&journal).await;
    let before = journal.stats();
    for node in 0..200 {
        let at = append_durably(&journal, &write_event(node, b"alone"), b"alone").await;
        assert!(journal.durable_lsn() >= at.end);
    }
    let stats = journal.stats();
    // A busy machine lets the thread come first, most of the time even.
    assert!(stats.led > before.led, "none of 200 batches was written by its caller");
    idle(&journal).await;
    let said = journal.stats().batches;
    append_durably(&journal, &write_event(200, b""), b"").await;
    idle(&journal).await;
    assert!(journal.stats().batches >= said + 2, "what a caller wrote is said to be durable, too");
    drop(journal);
    assert_eq!(nodes(&open(dir.path())), (0..=200).collect::<Vec<_>>());
}

/// Whoever reads what a client sends polls its calls in passing, and must not stand still for a write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_appends_in_passing_does_not_write_there_but_where_he_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    idle(&journal).await;
    let before = journal.stats();
    for node in 0..200 {
        let (journal, led) = (journal.clone(), journal.stats().led);
        let event = write_event(node, b"alone");
        let mut alone = Box::pin({
            let journal = journal.clone();
            async move { append_durably(&journal, &event, b"alone").await }
        });
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(crate::env::in_passing(|| alone.as_mut().poll(&mut nobody)).is_pending());
        assert_eq!(journal.stats().led, led, "in passing");
        tokio::spawn(alone).await.unwrap();
    }
    assert!(journal.stats().led > before.led, "none of 200 batches was written by its caller");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_lead_wait_or_go_away_lose_no_record_and_nobody_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let callers = (0..6_u64).map(|caller| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for n in 0..300 {
                let event = write_event(caller * 1000 + n, b"bulk");
                match (caller + n) % 5 {
                    // One who appends and does not wait, one who changes his mind, one who waits for what another writes.
                    0 => drop(append(&journal, &event, b"bulk").await),
                    1 => drop(journal.append_pending(&event, b"bulk", |_| ()).await.unwrap()),
                    2 => drop(journal.append_unhurried(&write_event(caller * 1000 + n, b""), |_| ()).await.unwrap()),
                    3 => {
                        let at = append(&journal, &event, b"bulk").await;
                        journal.wait_durable(at.end).await.unwrap();
                    }
                    _ => drop(append_durably(&journal, &event, b"bulk").await),
                }
                if n % 50 == caller {
                    // Pauses in which others are alone.
                    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    // What nobody waited for is written without anybody's help.
    let end = journal.end_lsn();
    while journal.durable_lsn() < end {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    journal.close().await.unwrap();
    let mut found = nodes(&open(dir.path()));
    found.sort_unstable();
    let due: Vec<u64> = (0..6).flat_map(|caller| (0..300).map(move |n| caller * 1000 + n)).collect();
    assert_eq!(found, due);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_a_caller_that_fails_is_final_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append_durably(&journal, &write_event(1, b""), b"").await;
    journal.inner.shared.fail_next_write.store(true, Ordering::Release);
    let (pending, ()) = journal.append_pending(&write_event(2, b""), b"", |_| ()).await.unwrap();
    assert!(matches!(pending.durable().await, Err(Error::FailStop(_))));
    assert!(matches!(journal.failed().await, Error::FailStop(_)));
    assert!(matches!(journal.append_with(&write_event(3, b""), b"", |_| ()).await, Err(Error::FailStop(_))));
    // The thread has ended as well: the directory is free again.
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(nodes(&journal), [1]);
}

/// The writer takes a batch while a record that nobody waits for is still being copied into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_waits_for_a_copy_that_nobody_else_waits_for_is_rung_when_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut held_up = 0;
    for node in 0..20 {
        // It waits for a while, and would come to it by itself.
        append_durably(&journal, &write_event(2 * node, b""), b"").await;
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (holds, is_held) = std::sync::mpsc::channel();
        let held = journal.clone();
        let holder = std::thread::spawn(move || {
            let _hold = held.inner.shared.hold_fills.lock();
            holds.send(()).unwrap();
            wait.recv().unwrap();
        });
        is_held.recv().unwrap();
        let end = journal.end_lsn();
        let copied = journal.clone();
        let copy = tokio::spawn(async move {
            copied.append_unhurried(&write_event(2 * node + 1, b""), |_| ()).await.unwrap();
        });
        while journal.end_lsn() == end && !copy.is_finished() {
            tokio::task::yield_now().await;
        }
        let (waiting, all) = (journal.clone(), journal.end_lsn());
        let waiting = tokio::spawn(async move { waiting.wait_durable(all).await });
        // On a busy machine the writer may have fallen asleep meanwhile: then he is rung, and nothing is held.
        while journal.inner.shared.open.lock().sealed.is_none() && !copy.is_finished() {
            tokio::task::yield_now().await;
        }
        held_up += u32::from(!copy.is_finished());
        go.send(()).unwrap();
        copy.await.unwrap();
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, waiting).await.expect("the writer is told").unwrap().unwrap();
        holder.join().unwrap();
    }
    assert!(held_up > 0, "no copy was held up");
}

/// Found by a disk that fails once: the writer's thread waited for the caller who failed, and wrote behind the hole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_behind_a_write_that_failed_whoever_waits_to_write() {
    for _ in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        append_durably(&journal, &write_event(1, b""), b"").await;
        let shared = &journal.inner.shared;
        let held = journal.clone();
        // In a thread of its own: who leads blocks at it.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (holds, is_held) = tokio::sync::oneshot::channel();
        let holder = std::thread::spawn(move || {
            let _hold = held.inner.shared.hold_writes.lock();
            holds.send(()).unwrap();
            wait.recv().unwrap();
        });
        is_held.await.unwrap();
        shared.fail_next_write.store(true, Ordering::Release);
        let leads = journal.clone();
        let first = tokio::spawn(async move {
            let (pending, ()) = leads.append_pending(&write_event(2, b""), b"", |_| ()).await.unwrap();
            pending.durable().await
        });
        // Until a write waits there: the caller's, or on a busy machine the thread's, which says that the journal is idle.
        while !shared.writer.is_locked() || journal.end_lsn() == journal.durable_lsn() {
            tokio::task::yield_now().await;
        }
        let behind = append(&journal, &write_event(3, b""), b"").await;
        go.send(()).unwrap();
        assert!(matches!(first.await.unwrap(), Err(Error::FailStop(_))));
        assert!(matches!(journal.wait_durable(behind.end).await, Err(Error::FailStop(_))));
        holder.join().unwrap();
        drop(journal);
        assert_eq!(nodes(&open(dir.path())), [1]);
    }
}
