//! The seeded worlds (`src/sim`): `cargo test --features simulation --test simulation`.
//!
//! `TAIN_SEEDS=n` runs n seeds instead of the usual number, `TAIN_SEED=s` that one alone, with its log.

mod nth;
mod told;

use std::collections::BTreeMap;
use tain::sim::found::FOUND;
use tain::sim::{Outcome, run};

/// The seeds that CI runs. `TAIN_SEEDS` runs 1 to n, and those that found something.
const SEEDS: &[u64] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 22, 24, 27, 48, 50, 156];
/// Faults that they must have met, and states.
const CI_FEWEST: &[&str] = &[
    "changes lost",
    "clock set",
    "full",
    "in sync again",
    "journal failed",
    "kill",
    "out of sync",
    "power cut",
    "read refused",
    "segments freed",
    "switch",
];
/// Seeds up to this one run twice, to see that both are the same.
const TWICE: u64 = 5;
/// Faults and states that a run must have met in 500 seeds; fewer would prove nothing.
const FEWEST: &[(&str, u64)] = &[
    ("answer lost", 20),
    ("came again", 100),
    ("changes lost", 200),
    ("clock set", 10),
    ("cut short in a switch", 5),
    ("down", 100),
    ("failed", 20),
    ("full", 50),
    ("in sync again", 30),
    ("journal failed", 3),
    ("kill", 30),
    ("out of sync", 30),
    ("power cut", 30),
    ("read refused", 20),
    ("refused", 5),
    ("segments freed", 300),
    ("set aside", 5),
    ("stall", 100),
    ("stop", 3),
    ("switch", 30),
    ("sync failed", 30),
    ("told late", 2),
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn report(outcome: &Outcome) {
    println!("seed {}: {} records, {} answers", outcome.seed, outcome.records, outcome.answers);
    for wrong in &outcome.wrong {
        println!("  {wrong}");
    }
}

#[test]
fn every_world_ends_well() {
    if let Some(seed) = number("TAIN_SEED") {
        let _unset =
            tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
        let outcome = run(seed);
        report(&outcome);
        println!("fired: {:?}\ndigest: {}", outcome.fired, outcome.digest);
        assert!(outcome.wrong.is_empty(), "seed {seed}");
        return;
    }
    let asked = number("TAIN_SEEDS");
    let run_now: Vec<u64> = match asked {
        Some(n) => FOUND.iter().map(|(seed, _)| *seed).chain(1..=n).collect(),
        None => SEEDS.to_vec(),
    };
    let seeds = run_now.len() as u64;
    let (mut fired, mut bad) = (BTreeMap::<&str, u64>::new(), Vec::new());
    let (mut records, mut answers) = (0, 0);
    for seed in run_now {
        let outcome = run(seed);
        records += outcome.records;
        answers += outcome.answers;
        for (what, n) in &outcome.fired {
            *fired.entry(what).or_default() += n;
        }
        if !outcome.wrong.is_empty() {
            report(&outcome);
            bad.push(seed);
        } else if seed <= TWICE {
            assert_eq!(outcome.digest, run(seed).digest, "seed {seed}: two runs differ");
        }
    }
    println!("{seeds} seeds, {records} records, {answers} answers; fired: {fired:?}");
    assert!(bad.is_empty(), "TAIN_SEED=one of {bad:?}");
    for what in CI_FEWEST {
        assert!(fired.get(what).is_some_and(|n| *n > 0), "'{what}' never came: the worlds have become too quiet");
    }
    if asked.is_none() {
        return;
    }
    for (what, fewest) in FEWEST {
        let n = fired.get(what).copied().unwrap_or(0);
        let wanted = (fewest * seeds / 500).max(1);
        assert!(n >= wanted, "'{what}' came {n} times, not {wanted}: the worlds have become too quiet");
    }
}
