//! NFSv3 and MOUNT on the wire: each of the 22 procedures, and what outlives a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod data;
mod durable;
mod mount;
mod names;
