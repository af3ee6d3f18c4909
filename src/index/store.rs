//! An ordered byte map: an overlay in memory, `redb` below.
//!
//! Reads see `active` overlay, then the overlay being flushed, then the database. `write` puts into the overlay only.
//! [`Store::commit`] moves the overlay into the database in one durable transaction that also stores an LSN (redb:
//! `Durability::Immediate`, quick repair on, cache bounded); after a crash the store is exactly as the last `commit`
//! left it. The overlay is bounded: past [`OVERLAY_BYTES_MAX`] a [`Store::spill`] moves it down without an LSN
//! (`Durability::None`), which a crash undoes.

use journal_format::ids::Lsn;
use std::path::Path;

pub const OVERLAY_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("index {path}: {source}")]
    Db { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("index {path}: entry of a shape this version does not know: {what}")]
    Corrupt { path: String, what: String },
}
pub type Result<T> = std::result::Result<T, Error>;

pub type Key = Vec<u8>;
/// `None` removes the key.
pub type Change = (Key, Option<Vec<u8>>);

pub struct Store {}

impl Store {
    /// Open or create; `cache_bytes` bounds redb's cache.
    pub fn open(_path: &Path, _cache_bytes: usize) -> Result<Self> {
        todo!()
    }
    /// LSN stored by the last durable commit; `Lsn(0)` for a new store.
    pub fn lsn(&self) -> Lsn {
        todo!()
    }
    pub fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// Up to `limit` pairs whose key starts with `prefix` and is `> after` (`>= prefix` when `None`), ascending.
    pub fn scan(&self, _prefix: &[u8], _after: Option<&[u8]>, _limit: usize) -> Result<Vec<(Key, Vec<u8>)>> {
        todo!()
    }
    /// All of `changes` become visible at once.
    pub fn write(&self, _changes: Vec<Change>) {
        todo!()
    }
    /// Bytes waiting in the overlay.
    pub fn overlay_bytes(&self) -> usize {
        todo!()
    }
    /// Move the overlay down without durability. Blocking.
    pub fn spill(&self) -> Result<()> {
        todo!()
    }
    /// Everything written so far, and `lsn`, durably. Blocking.
    pub fn commit(&self, _lsn: Lsn) -> Result<()> {
        todo!()
    }
    /// Drop what was written since the last `commit` (a secondary's batch that failed).
    pub fn rollback(&self) -> Result<()> {
        todo!()
    }
}
