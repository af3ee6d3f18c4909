//! NFSv3 and MOUNT on the wire: each of the 22 procedures, and what outlives a restart.

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod data;
mod durable;
mod mount;
mod names;
