#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::indexing_slicing)]

pub mod event;
mod fields;
pub mod ids;
pub mod record;
pub mod scan;
pub mod segment;
pub mod snapshot;
