//! The journal: segments on disk, append by batches, reading by map, recovery of the tail, snapshots, recycling.
//! Design §4. The interface below is what the rest of the service builds on.

use bytes::Bytes;
use journal_format::event::Event;
use journal_format::ids::{Lsn, Time};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    pub segment_size: u64,
    pub hard_limit: u64,
    pub append: AppendMode,
    /// Accept btrfs, tmpfs, FUSE and network file systems.
    pub any_file_system: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendMode {
    Direct,
    Buffered,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("journal: {0}")]
    Other(String),
}
pub type Result<T> = std::result::Result<T, Error>;

/// Where a record came to lie. Not durable yet: see [`Journal::wait_durable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Time,
}

/// A record as it is read back. `bulk` points into the map, nothing is copied.
#[derive(Clone, Debug)]
pub struct Record {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Time,
    pub event: Event,
    pub bulk: Bytes,
}

#[derive(Clone)]
pub struct Journal {
    _inner: Arc<()>,
}

impl Journal {
    /// Lock the directory, recover (or create), cut the tail, make it ready for appending. Blocking.
    pub fn open(_options: Options) -> Result<Self> {
        todo!()
    }
    pub fn id(&self) -> [u8; 16] {
        todo!()
    }
    /// Append; `at` runs under the journal's short lock the moment the place is given, in LSN order: it must be quick.
    /// Waits while the open batch is full. Time never goes back from one record to the next.
    pub async fn append_with<R>(
        &self,
        _event: &Event,
        _bulk: &[u8],
        _at: impl FnOnce(Appended) -> R + Send,
    ) -> Result<(Appended, R)> {
        todo!()
    }
    /// Until everything before `end` is durable. An error is final: fail stop (I8).
    pub async fn append_reserved_with<R>(&self, _event: &Event, _at: impl FnOnce(Appended) -> R + Send) -> Result<(Appended, R)> {
        todo!()
    }
    pub async fn wait_durable(&self, _end: Lsn) -> Result<()> {
        todo!()
    }
    pub fn durable_lsn(&self) -> Lsn {
        todo!()
    }
    /// Where the next record will begin.
    pub fn end_lsn(&self) -> Lsn {
        todo!()
    }
    /// Oldest LSN that can still be read.
    pub fn start_lsn(&self) -> Lsn {
        todo!()
    }
    pub fn reader(&self, _from: Lsn) -> Result<Reader> {
        todo!()
    }
    /// Segments wholly before `lsn` may be used again.
    pub fn recycle(&self, _before: Lsn) -> Result<()> {
        todo!()
    }
    /// Keep `state` as the fold of everything before `lsn` (which must be durable); older snapshots but one go. Blocking.
    pub fn write_snapshot(&self, _lsn: Lsn, _state: &[u8]) -> Result<()> {
        todo!()
    }
    /// The newest snapshot that is whole.
    pub fn snapshot(&self) -> Result<Option<(Lsn, Vec<u8>)>> {
        todo!()
    }
    /// Flush, write `Durable { stopped: true }`, stop the writer, release the lock.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}

/// Reads records in order, never past the durable LSN.
pub struct Reader {}

impl Reader {
    /// The next record that ends at or before `limit` (and is durable); `None` when there is none now.
    pub fn next(&mut self, _limit: Lsn) -> Result<Option<Record>> {
        todo!()
    }
    /// Where the next record begins.
    pub fn position(&self) -> Lsn {
        todo!()
    }
}
