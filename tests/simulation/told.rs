//! Worlds that are told, not drawn.

use std::collections::BTreeMap;
use std::time::Duration;
use tain::sim::{clocks, workloads};

type Fired = BTreeMap<&'static str, u64>;

fn add(to: &mut Fired, from: &Fired) {
    for (what, n) in from {
        *to.entry(what).or_default() += n;
    }
}

/// Parts of the work on threads of their own: a world is one thread.
pub fn side_by_side<T: Sync, R: Send>(work: &[T], each: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let part = work.len().div_ceil(threads * 8).max(1);
    let parts: Vec<&[T]> = work.chunks(part).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let one = || {
        let mut done = Vec::new();
        while let Some(part) = parts.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            done.push(each(part));
        }
        done
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a world panicked")).collect()
    })
}

/// `n` of them, the same for the same seed.
fn drawn<T>(all: Vec<T>, n: usize, seed: u64) -> Vec<T> {
    println!("{n} of {} workloads, seed {seed}", all.len());
    let mut all: Vec<_> =
        all.into_iter().zip(0u64..).map(|(it, i)| (tain::sim::rng::Rng::new(seed << 32 | i).draw(), it)).collect();
    all.sort_by_key(|(lot, _)| *lot);
    all.into_iter().take(n).map(|(_, it)| it).collect()
}

/// Workloads of at most `TAIN_WORKLOAD_OPS` operations; of these `TAIN_WORKLOADS`, drawn by `TAIN_SEED`.
#[test]
fn every_short_workload_cut_at_each_state_is_recovered_as_it_was_answered() {
    let longest = super::number("TAIN_WORKLOAD_OPS").unwrap_or(2);
    let all: Vec<_> = (0..=usize::try_from(longest).unwrap()).flat_map(workloads::of).collect();
    let all = match super::number("TAIN_WORKLOADS") {
        Some(n) => drawn(all, usize::try_from(n).unwrap(), super::number("TAIN_SEED").unwrap_or(1)),
        None => all,
    };
    let (mut fired, mut states, mut wrong) = (Fired::new(), 0, Vec::new());
    for sum in side_by_side(&all, workloads::run) {
        add(&mut fired, &sum.fired);
        states += sum.states;
        wrong.extend(sum.wrong);
    }
    println!("{} workloads, {states} crash states; fired: {fired:?}", all.len());
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(8)]);
    let due = (2 * all.len() as u64).min(200);
    for what in ["cut at the disk", "cut at the filer", "cut at the index", "cut when all is answered"] {
        let n = fired.get(what).copied().unwrap_or(0);
        assert!(n >= due, "'{what}' came {n} times: too few");
    }
    let due = (3 * all.len() as u64).min(500);
    for what in ["disk pieces lost", "filer changes lost", "index pieces lost"] {
        let n = fired.get(what).copied().unwrap_or(0);
        assert!(n >= due, "'{what}' came {n} times: too few");
    }
}

#[test]
fn a_clock_that_is_set_in_mid_job_changes_no_order_no_handle_and_no_job() {
    let (mut jumps, mut in_mid_copy, mut answers) = (0, 0, 0);
    for seed in 1..=2 {
        let plain = clocks::run(0, seed);
        assert_eq!(plain.wrong, None, "seed {seed}, nobody touches the clock");
        for nanos in clocks::JUMPS.into_iter().filter(|nanos| *nanos != 0) {
            let outcome = clocks::run(nanos, seed);
            assert_eq!(outcome.wrong, None, "seed {seed}, the clock is set by {nanos}");
            let most = plain.took * 2 + Duration::from_secs(2);
            assert!(
                outcome.took <= most,
                "seed {seed}, {nanos}: the move took {:?}, not {:?}",
                outcome.took,
                plain.took
            );
            jumps += outcome.jumps;
            in_mid_copy += outcome.in_mid_copy;
            answers += outcome.answers;
        }
    }
    println!("the clock was set {jumps} times, {in_mid_copy} of them in mid-copy; {answers} answers");
    assert!(jumps == 40 && in_mid_copy >= 10, "{jumps} jumps, {in_mid_copy} in mid-copy: too few");
}
