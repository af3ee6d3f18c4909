//! Power cuts, failing and full disks under the real service, on ext4 and XFS: what `kill -9` cannot show. `disk.rs` is
//! the disk. Needs root, /dev/fuse, loop devices, e2fsprogs and xfsprogs; where one is missing the tests fail.
//!
//! Counts are those of a CI run; longer runs by the environment: `TAIN_CUTS` (power cuts for each file system),
//! `TAIN_STATES` (crash states of the write log for each file system), `TAIN_ROWS` (runs for each row of errors).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "time outside of any simulation")]

#[path = "../support/mod.rs"]
mod support;

mod blocks;
mod cuts;
mod disk;
mod rows;
mod states;

/// A count, or what the environment says.
fn count(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}
