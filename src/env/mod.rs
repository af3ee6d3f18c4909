//! The seams: what a world brings with it. Real ones here; the simulated ones are in `sim/`.

pub mod watch;
