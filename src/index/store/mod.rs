//! An ordered byte map: an overlay in memory, `redb` below.
//!
//! ```text
//!  write ──► active ──freeze──► flushing ──one transaction──► redb
//!  get, scan look in active, then flushing, then redb (one read transaction, renewed after each flush)
//! ```
//!
//! * [`Store::write`] puts into the active overlay only; all of a call's changes become visible at once.
//! * [`Store::commit`] freezes the active overlay and moves it down in one durable transaction together with an LSN
//!   (`Durability::Immediate`, quick repair on, cache bounded). Writers go on into a new active overlay meanwhile.
//!   After a crash the store is exactly as the last commit left it.
//! * [`Store::spill`] is the same without LSN and without durability; a crash undoes it. (An orderly close does not:
//!   `redb` makes it durable then. So a store that spills may be *ahead* of its LSN, and only such data may be kept in
//!   it as folding the journal from that LSN again brings to the same end.)
//! * An **exact** store ([`Store::open_exact`]; a secondary's projection) never spills, so that it never is ahead, and
//!   [`Store::rollback`] can drop what was written since the last commit.
//!
//! **Bounds.** Past [`OVERLAY_BYTES_MAX`] a write starts a spill on a thread of its own; past twice that, active and
//! flushing together, writers whose write has made the active one too large wait for it: three times that, and two
//! writes, is never passed. In an exact store nothing bounds the overlay but its one writer, which
//! watches [`Store::overlay_bytes`] and closes its batch. `redb`'s cache is bounded by `cache_bytes`.
//!
//! **Failure.** A transaction that fails leaves the database in an unknown state in memory, so it is not tried again:
//! the store is *dead*, every later call answers with that error, and what is written is dropped. Nothing is lost: the
//! journal holds all of it behind the last commit, and the next start folds it again. The file is guarded by `redb`'s
//! checksums and a format number of ours; a newer format is an error, never a guess.

mod below;
mod overlay;
#[cfg(test)]
pub(super) mod tests;

use below::Below;
use journal_format::ids::Lsn;
use overlay::{Overlay, Slot, prefix_end, scan_start};
use parking_lot::{Mutex, RwLock};
use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, StorageBackend, TableDefinition};
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

pub const OVERLAY_BYTES_MAX: usize = 4 << 20;

/// A scan takes as many changes at once as it was asked for entries, and so many more, in case there are removals.
fn scan_slack(limit: usize) -> usize {
    limit.clamp(16, 256)
}

const FORMAT: u64 = 1;
const MAP: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("map");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_LSN: &str = "lsn";

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

type DbResult<T> = std::result::Result<T, redb::Error>;

pub struct Store {
    inner: Arc<Inner>,
    /// Thread of the newest spill; joined before the store closes, so that the file is free then.
    spiller: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    path: String,
    // Before `db`: its read transaction ends first.
    view: RwLock<View>,
    db: Database,
    lsn: AtomicU64,
    exact: AtomicBool,
    /// Holder moves an overlay down; `true` once something was spilled since the last commit.
    flush: Mutex<bool>,
    spilling: AtomicBool,
    /// Held by [`Store::update`] from its reads to its write.
    update: Mutex<()>,
    /// Why the store is dead.
    dead: OnceLock<String>,
}

/// What a read sees; taken together, under one lock.
struct View {
    active: Overlay,
    flushing: Option<Arc<Overlay>>,
    below: Arc<Below>,
}

impl View {
    fn bytes(&self) -> usize {
        self.active.bytes() + self.flushing.as_ref().map_or(0, |overlay| overlay.bytes())
    }

    fn lookup(&self, key: &[u8]) -> Option<&Slot> {
        self.active.get(key).or_else(|| self.flushing.as_ref()?.get(key))
    }

    /// The first `max` changes in the range, newest of each key.
    fn changes(&self, prefix: &[u8], start: Bound<&[u8]>, max: usize) -> Vec<Change> {
        let mut out = Vec::new();
        let mut new = self.active.range(prefix, start).peekable();
        let mut old = self.flushing.iter().flat_map(|overlay| overlay.range(prefix, start)).peekable();
        while out.len() < max {
            let next = match (new.peek(), old.peek()) {
                (Some((a, _)), Some((b, _))) if a > b => old.next(),
                (Some((a, _)), Some((b, _))) if a == b => {
                    old.next();
                    new.next()
                }
                (Some(_), _) => new.next(),
                (None, _) => old.next(),
            };
            let Some((key, slot)) = next else { break };
            out.push((key.clone(), slot.clone()));
        }
        out
    }
}

impl Store {
    /// Open or create; `cache_bytes` bounds redb's cache. May be ahead of its LSN after an orderly close.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self> {
        Self::open_as(path, cache_bytes, false)
    }

    /// Open or create a store that never spills: it never is ahead of its LSN, and can be rolled back.
    pub fn open_exact(path: &Path, cache_bytes: usize) -> Result<Self> {
        Self::open_as(path, cache_bytes, true)
    }

    /// The same on a backend of the caller's; `name` is for messages.
    pub fn open_on(name: &str, backend: impl StorageBackend, cache_bytes: usize, exact: bool) -> Result<Self> {
        let made = Database::builder().set_cache_size(cache_bytes).create_with_backend(backend);
        Self::of(made, name.to_owned(), exact)
    }

    fn open_as(path: &Path, cache_bytes: usize, exact: bool) -> Result<Self> {
        if !path.exists() {
            make(path).map_err(|error| Error::Db { path: path.display().to_string(), source: Box::new(error) })?;
        }
        let made = Database::builder().set_cache_size(cache_bytes).create(path);
        Self::of(made, path.display().to_string(), exact)
    }

    fn of(made: std::result::Result<Database, redb::DatabaseError>, name: String, exact: bool) -> Result<Self> {
        let failed = |error: redb::Error| Error::Db { path: name.clone(), source: Box::new(error) };
        let db = made.map_err(|e| failed(e.into()))?;
        let (format, lsn) = prepare(&db).map_err(failed)?;
        if format != FORMAT {
            let what = format!("format {format}; this version knows {FORMAT}");
            return Err(Error::Corrupt { path: name, what });
        }
        let below = Arc::new(Below::open(&db).map_err(failed)?);
        let inner = Inner {
            path: name,
            view: RwLock::new(View { active: Overlay::default(), flushing: None, below }),
            db,
            lsn: AtomicU64::new(lsn),
            exact: AtomicBool::new(exact),
            flush: Mutex::new(false),
            spilling: AtomicBool::new(false),
            update: Mutex::new(()),
            dead: OnceLock::new(),
        };
        Ok(Store { inner: Arc::new(inner), spiller: Mutex::new(None) })
    }

    /// A switch makes the secondary's store the primary's, which may be ahead and so may spill (`false`), or back.
    pub fn set_exact(&self, exact: bool) {
        self.inner.exact.store(exact, Ordering::Release);
    }

    /// LSN stored by the last durable commit; `Lsn(0)` for a new store.
    pub fn lsn(&self) -> Lsn {
        Lsn(self.inner.lsn.load(Ordering::Acquire))
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.alive()?;
        let below = {
            let view = self.inner.view.read();
            if let Some(slot) = view.lookup(key) {
                return Ok(slot.clone());
            }
            view.below.clone()
        };
        // The disk is read without the lock: a reader that waits for it must not hold up writers.
        below.get(key).map_err(|error| self.inner.db_error(error))
    }

    /// Up to `limit` pairs whose key starts with `prefix` and is `> after` (`>= prefix` when `None`), ascending.
    ///
    /// Sees one state of the store, unless it meets so many removals that are not in the database yet
    /// (some hundreds) that it must go on from the key it had come to: then with a later state.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Vec<u8>)>> {
        self.inner.alive()?;
        let mut out = Vec::new();
        let mut from: Option<Key> = None;
        while out.len() < limit {
            let start = scan_start(prefix, from.as_deref().or(after));
            let wanted = limit - out.len();
            let max = wanted.saturating_add(scan_slack(wanted));
            let (changes, below) = {
                let view = self.inner.view.read();
                (view.changes(prefix, start, max), view.below.clone())
            };
            // With `max` changes there may be more behind the last one: the database is believed up to it only.
            let horizon = if changes.len() == max { changes.last().map(|(key, _)| key.clone()) } else { None };
            merge(&below, prefix, start, horizon.as_deref(), changes, limit, &mut out)
                .map_err(|error| self.inner.db_error(error))?;
            match horizon {
                Some(key) => from = Some(key),
                None => break,
            }
        }
        Ok(out)
    }

    /// All of `changes` become visible at once. Blocks while the overlay is at its bound. (A dead store drops them;
    /// every read and commit says so.)
    pub fn write(&self, changes: Vec<Change>) {
        if self.inner.dead.get().is_some() || changes.is_empty() {
            return;
        }
        let (active, total) = {
            let mut view = self.inner.view.write();
            for change in changes {
                view.active.put(change);
            }
            (view.active.bytes(), view.bytes())
        };
        if active > OVERLAY_BYTES_MAX && !self.inner.exact.load(Ordering::Acquire) {
            self.make_room(total);
        }
    }

    /// Read, decide, write: `decide` sees the store as no other `update` can change it before its changes are written.
    pub fn update(&self, decide: impl FnOnce() -> Result<Vec<Change>>) -> Result<()> {
        let _one = self.inner.update.lock();
        let changes = decide()?;
        self.write(changes);
        self.inner.alive()
    }

    /// Why the store is dead; nothing but another start cures that.
    pub fn failed(&self) -> Option<&str> {
        self.inner.dead.get().map(String::as_str)
    }

    /// Bytes waiting in the overlay.
    pub fn overlay_bytes(&self) -> usize {
        self.inner.view.read().bytes()
    }

    /// Move the overlay down without durability. Blocking. An error in an exact store.
    pub fn spill(&self) -> Result<()> {
        if self.inner.exact.load(Ordering::Acquire) {
            return Err(self.inner.misuse("an exact store is not spilled"));
        }
        self.inner.flush(None)
    }

    /// Everything written so far, and `lsn`, durably. Blocking.
    pub fn commit(&self, lsn: Lsn) -> Result<()> {
        self.inner.flush(Some(lsn))
    }

    /// The same once there is too much to be kept in memory: for who writes much, and may say so half way.
    pub fn commit_if_full(&self, lsn: Lsn) -> Result<()> {
        if self.overlay_bytes() > OVERLAY_BYTES_MAX { self.commit(lsn) } else { Ok(()) }
    }

    /// Drop what was written since the last `commit` (a secondary's batch that failed). An error if some of it was
    /// spilled, which an exact store never does.
    pub fn rollback(&self) -> Result<()> {
        let spilled = self.inner.flush.lock();
        self.inner.alive()?;
        if *spilled {
            return Err(self.inner.misuse("what was spilled cannot be rolled back"));
        }
        self.inner.view.write().active = Overlay::default();
        Ok(())
    }

    /// For values that do not decode.
    pub fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::Corrupt { path: self.inner.path.clone(), what: what.into() }
    }

    /// The active overlay is past its bound: have it spilled, and wait for that if it is far past.
    fn make_room(&self, total: usize) {
        if total > 2 * OVERLAY_BYTES_MAX {
            self.inner.spill_if_full();
        } else if !self.inner.spilling.swap(true, Ordering::AcqRel) {
            let inner = self.inner.clone();
            let run = move || {
                inner.spill_if_full();
                inner.spilling.store(false, Ordering::Release);
            };
            match std::thread::Builder::new().name("index-spill".into()).spawn(run) {
                Ok(thread) => *self.spiller.lock() = Some(thread),
                // No thread to be had: it is done here, at the second bound.
                Err(error) => {
                    tracing::warn!(path = self.inner.path, %error, "no thread to spill the index overlay");
                    self.inner.spilling.store(false, Ordering::Release);
                }
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(thread) = self.spiller.lock().take()
            && thread.join().is_err()
        {
            tracing::error!(path = self.inner.path, "the thread that spilled the index overlay panicked");
        }
    }
}

impl Inner {
    fn alive(&self) -> Result<()> {
        match self.dead.get() {
            None => Ok(()),
            Some(why) => {
                let source = format!("given up until the next start, after: {why}").into();
                Err(Error::Db { path: self.path.clone(), source })
            }
        }
    }

    fn db_error(&self, error: redb::Error) -> Error {
        match error {
            redb::Error::Corrupted(what) => Error::Corrupt { path: self.path.clone(), what },
            other => Error::Db { path: self.path.clone(), source: Box::new(other) },
        }
    }

    fn misuse(&self, what: &str) -> Error {
        Error::Db { path: self.path.clone(), source: what.into() }
    }

    /// Whoever comes second finds room, and does nothing.
    fn spill_if_full(&self) {
        let mut spilled = self.flush.lock();
        if self.view.read().active.bytes() <= OVERLAY_BYTES_MAX || self.exact.load(Ordering::Acquire) {
            return;
        }
        // A failure kills the store, and is logged there: the next call on it answers with it.
        let _dead = self.flush_locked(&mut spilled, None);
    }

    fn flush(&self, lsn: Option<Lsn>) -> Result<()> {
        let mut spilled = self.flush.lock();
        self.flush_locked(&mut spilled, lsn)
    }

    /// Freeze the active overlay, move it down, let reads see the database instead.
    fn flush_locked(&self, spilled: &mut bool, lsn: Option<Lsn>) -> Result<()> {
        self.alive()?;
        let frozen = {
            let mut view = self.view.write();
            let frozen = Arc::new(std::mem::take(&mut view.active));
            view.flushing = Some(frozen.clone());
            frozen
        };
        if frozen.is_empty() && lsn.is_none() {
            self.view.write().flushing = None;
            return Ok(());
        }
        crash_point!("STORE_BEFORE_COMMIT");
        match self.move_down(&frozen, lsn) {
            Ok(below) => {
                let mut view = self.view.write();
                view.below = Arc::new(below);
                view.flushing = None;
            }
            Err(error) => {
                tracing::error!(path = self.path, %error, "index store failed; nothing more is kept in it");
                // Kept from the first failure; nobody else can set it while we hold `flush`.
                let _first = self.dead.set(error.to_string());
                return Err(self.db_error(error));
            }
        }
        crash_point!("STORE_AFTER_COMMIT");
        *spilled = lsn.is_none();
        if let Some(lsn) = lsn {
            self.lsn.store(lsn.0, Ordering::Release);
        }
        Ok(())
    }

    fn move_down(&self, overlay: &Overlay, lsn: Option<Lsn>) -> DbResult<Below> {
        let mut txn = self.db.begin_write()?;
        if lsn.is_some() {
            txn.set_durability(Durability::Immediate)?;
            // Without it an open after a crash walks the whole file.
            txn.set_quick_repair(true);
        } else {
            txn.set_durability(Durability::None)?;
        }
        {
            let mut map = txn.open_table(MAP)?;
            for (key, slot) in overlay.iter() {
                match slot {
                    Some(value) => map.insert(key.as_slice(), value.as_slice())?,
                    None => map.remove(key.as_slice())?,
                };
            }
        }
        if let Some(lsn) = lsn {
            txn.open_table(META)?.insert(META_LSN, lsn.0)?;
        }
        txn.commit()?;
        Below::open(&self.db)
    }
}

/// A new store gets its name when it is whole: a file that a crash left half made would be no database, for ever.
fn make(path: &Path) -> DbResult<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    match std::fs::remove_file(new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // It names clients' files.
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(new)?;
    let backend = FileBackend::new(file)?;
    prepare(&Database::builder().create_with_backend(backend)?)?;
    std::fs::File::open(new)?.sync_all()?;
    crash_point!("STORE_MADE");
    std::fs::rename(new, path)?;
    crash_point!("STORE_NAMED");
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Make the tables of a new store; its format and LSN.
fn prepare(db: &Database) -> DbResult<(u64, u64)> {
    {
        let txn = db.begin_read()?;
        match txn.open_table(META) {
            Ok(meta) => {
                let number = |key| -> DbResult<u64> { Ok(meta.get(key)?.map_or(0, |guard| guard.value())) };
                return Ok((number(META_FORMAT)?, number(META_LSN)?));
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // New, or killed before its first commit.
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    txn.open_table(MAP)?;
    txn.open_table(META)?.insert(META_FORMAT, FORMAT)?;
    txn.commit()?;
    Ok((FORMAT, 0))
}

/// Append to `out`, up to `limit` in all: what the database holds from `start` to `horizon` (or the prefix's end), with
/// `changes` over it.
fn merge(
    below: &Below,
    prefix: &[u8],
    start: Bound<&[u8]>,
    horizon: Option<&[u8]>,
    changes: Vec<Change>,
    limit: usize,
    out: &mut Vec<(Key, Vec<u8>)>,
) -> DbResult<()> {
    let prefix_end = prefix_end(prefix);
    let end = match (horizon, &prefix_end) {
        (Some(key), _) => Bound::Included(key),
        (None, Some(key)) => Bound::Excluded(key.as_slice()),
        (None, None) => Bound::Unbounded,
    };
    // Behind the prefix there is nothing to be had; an inverted range would be an error.
    let outside = |key: &[u8]| key > prefix && !key.starts_with(prefix);
    if matches!(start, Bound::Excluded(after) if outside(after)) {
        return Ok(());
    }
    let mut changes = changes.into_iter().peekable();
    for pair in below.range(start, end)? {
        let (key, value) = pair?;
        let key = key.value();
        while let Some(change) = changes.next_if(|(changed, _)| changed.as_slice() < key) {
            if !push(out, change, limit) {
                return Ok(());
            }
        }
        let pair = match changes.next_if(|(changed, _)| changed == key) {
            Some(change) => change,
            None => (key.to_vec(), Some(value.value().to_vec())),
        };
        if !push(out, pair, limit) {
            return Ok(());
        }
    }
    for change in changes {
        if !push(out, change, limit) {
            break;
        }
    }
    Ok(())
}

/// `false` when `out` is full.
fn push(out: &mut Vec<(Key, Vec<u8>)>, (key, slot): Change, limit: usize) -> bool {
    if let Some(value) = slot {
        out.push((key, value));
    }
    out.len() < limit
}
