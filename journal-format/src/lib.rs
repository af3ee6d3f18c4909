//! The on-disk format of tain's journal: bytes to values and back. No file, socket, clock, thread or async here.
#![forbid(unsafe_code)]

pub mod event;
pub mod ids;
