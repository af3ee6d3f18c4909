#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing, reason = "a test fails by panicking"))]

pub mod archive;
pub mod event;
mod fields;
pub mod ids;
pub mod planted;
pub mod record;
pub mod scan;
pub mod segment;
pub mod side;
pub mod snapshot;
