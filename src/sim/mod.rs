//! Seeded worlds: the whole core on simulated disks and filers, in virtual time, on one thread. One seed is one world.
//!
//! ```text
//!              clients ── volume ─┐
//!   operator ── commands ─────────┤   the real thing: journal, ledger, index, volume, replayer, copier,
//!                                 │   switch, supervisor, checkpoints, recovery
//!        ┌──────────────┬─────────┴─────┬───────────────────────┐
//!   SimDisk (journal)  SimStores (index)  Memory filers (m0, m1, …), each with its fate and its weather
//! ```
//!
//! A world has a few lives. Each ends at a random instant: by `kill -9` (filers and disks keep what they show), by a
//! power cut (every one of them keeps some subset of what was not synced; a disk's power may also go in the middle of a
//! write), by a failure of the journal, or in order. Meanwhile filers stall, are down, are full, refuse and fail, lose
//! answers and syncs; jobs move the junction from filer to filer, are paused, started and aborted. In every seventh
//! world the journal is so small that destinations fall out of it and clients wait for room; half of the operations on
//! names that are sent away come again. In the last life the weather is fair: everything must come to its end. Fault
//! models: `env/simulated.rs`, `filer/memory/durable.rs`, [`stores`], [`fate`].
//!
//! The judge ([`model`], [`scribe`], [`judge`]) shares no code with the core. It folds the journal with plain maps, and
//! asks: is what was durable still there (C10)? Is every answer what the journal says (C1, C2, C4, and an error only
//! behind its durable `Failed`)? Is the record what was asked for, and did nothing that came again run twice (C5)? Does
//! the primary hold exactly the fold after each recovery and at the end, and its durable image as well (C1)? Do both
//! sides at a switch hold the fold at its LSN, and the left side ever after (I2)? Is no finished step done again (I4),
//! is there one primary at a time (I5), do handles and file ids last (I6), do reads show what was there (C1, C21), does
//! everything end (C20)?
//!
//! Beside the seeds, three kinds of worlds are told, not drawn: every short workload cut at each state ([`workloads`]),
//! each call of a filer that fails with each error ([`nth`]), and clocks that are set in mid-job ([`clocks`]).
//!
//! **The same seed gives the same digest**: nothing in the core may ask a clock, a thread or chance but through `env`.
//! That is why watched values are `env::watch`, and `select!` in the core's loops is biased.

pub mod actor;
pub mod asked;
pub mod clocks;
pub mod fate;
pub mod found;
pub mod judge;
pub mod life;
pub mod model;
pub mod nth;
pub mod plain;
pub mod rng;
pub mod scribe;
pub mod sky;
pub mod stage;
pub mod stores;
#[cfg(test)]
mod tests;
pub mod workloads;
pub mod world;

pub use world::{Outcome, run};
