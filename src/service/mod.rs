//! Builds the service from its configuration; start, drain, stop.
pub mod recovery;
