//! Append and fold as one step, in LSN order; views of State; which operations have not ended.

use crate::journal::{Appended, Journal, Result};
use crate::state::{Command, Refusal, State};
use bytes::Bytes;
use journal_format::event::Event;
use journal_format::ids::{JunctionId, Lsn};
use std::sync::Arc;

#[derive(Clone)]
pub struct Ledger {
    pub journal: Journal,
}

/// A client operation that was appended and has not ended: while one is alive, its junction's settled LSN stays
/// at or before it.
pub struct Op {
    pub at: Appended,
}

impl Ledger {
    /// Append a client operation and wait until it is durable. From the moment it has an LSN it is unsettled.
    pub async fn begin(&self, _junction: JunctionId, _event: &Event, _bulk: &[u8]) -> Result<Op> {
        todo!()
    }
    /// The operation was carried out whole.
    pub fn done(&self, _op: Op) {
        todo!()
    }
    /// It ended otherwise: `end` is its `Failed` or `Partial`; durable when this returns.
    pub async fn ended(&self, _op: Op, _end: Event) -> Result<()> {
        todo!()
    }
    /// Append any other event; State is folded with it in the same step. Not durable yet.
    pub async fn append(&self, _event: &Event) -> Result<Appended> {
        todo!()
    }
    pub async fn wait_durable(&self, _end: Lsn) -> Result<()> {
        todo!()
    }
    /// decide, append all, wait until durable: one step, no other command between.
    pub async fn command(&self, _command: Command) -> std::result::Result<Vec<Appended>, CommandError> {
        todo!()
    }
    /// State as of the last append.
    pub fn state(&self) -> Arc<State> {
        todo!()
    }
    /// Every operation on the junction before this LSN has ended.
    pub fn settled_lsn(&self, _junction: JunctionId) -> Lsn {
        todo!()
    }
    /// Wakes whenever durable or settled LSNs, or State, have moved.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
    pub fn keep(_b: Bytes) {}
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
}
