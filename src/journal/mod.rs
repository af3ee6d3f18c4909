//! The journal: the write-ahead log that everything else is a fold of. Design §4; the bytes are in `journal-format`'s
//! FORMAT.md. It owns the directory of segments and snapshots, holds its lock, and is the only one to write in it.
//!
//! ```text
//!  callers ── append.rs: place in the open batch (short lock), copy outside it ──┐
//!     │                                                                          ▼
//!     │ wait_durable                       writer.rs: one thread, one batch after the other, each one durable write;
//!     │                                    lead.rs: a caller that is alone does it itself
//!     ◄────────────────────────────────────────────┤
//!                                                   ▼
//!  segments.rs: next segment made ready ahead ──► segment files ◄── reader.rs through map.rs, below the durable LSN
//!                     ▲                             │
//!                     └────────── recycle ──────────┘           recover.rs: at open, the end is found and cut
//! ```
//!
//! # Invariants
//!
//! - **Write-ahead.** An LSN is durable when the one write that holds it has returned, `RWF_DSYNC` or followed by a
//!   flush, and so has every one before (I1). There is no other way for `durable_lsn` to move.
//! - **Contiguous.** A batch begins where the last one ended; nothing durable is ever written over in its lap.
//! - **Fail stop** (I8). A write that fails, or is short, is the last one: all who wait and all who come get
//!   [`Error::FailStop`], and the process has to end. Damage before the durable end is [`Error::Corrupt`] with its place.
//! - **Bounded** (I11). Two batch buffers of 4 MiB; as many waiting appends as there are callers, first come first
//!   served; at most `hard_limit / segment_size` segment files, spares included. At that limit appends wait for
//!   [`Journal::recycle`]; client operations wait two segments earlier, and are told [`Error::Full`] after 10 seconds.
//! - **Time never goes back** from one record to the next, across restarts.
//!
//! # How it fails
//!
//! Making a segment ahead may fail (no space): it is logged and tried again while appends wait; nothing was promised on
//! it. Reading a bad sector through the map raises SIGBUS, as does a segment truncated by someone else: a fail stop too.
//! Whoever drops the last handle without [`Journal::close`] leaves a journal like after `kill -9`: all that was durable
//! is there.

mod ahead;
mod append;
mod archive;
mod batch;
mod clock;
#[cfg(test)]
mod damage_tests;
mod error;
mod files;
#[cfg(test)]
mod full_tests;
mod lead;
#[cfg(test)]
mod lead_tests;
mod limits;
mod map;
mod queue;
mod reader;
mod recover;
#[cfg(any(test, feature = "simulation"))]
pub mod recycled;
mod segments;
mod side;
#[cfg(test)]
mod sim_tests;
mod snapshot;
mod target;
#[cfg(test)]
mod tests;
/// What `queue.rs` is made of; its models bring their own.
mod sync {
    pub use parking_lot::Mutex;
    pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}
mod wait;
mod writer;

pub use archive::ArchiveStatus;
pub use error::{Error, Result};
pub use lead::Pending;
pub use limits::Class;
pub use map::{EXIT_FAIL_STOP, end_by_bus_error};
pub use reader::Reader;

use crate::env::Disk;
use append::{Phase, Shared};
use bytes::Bytes;
use error::At;
use files::Dir;
use journal_format::event::Event;
use journal_format::ids::{Lsn, SegmentNo, Time};
use parking_lot::Mutex;
use segments::{SEGMENTS_MIN, Segments};
use side::Sides;
use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// Made, with mode 0700, when it is not there.
    pub dir: PathBuf,
    /// Bytes of a segment; an existing journal keeps its own.
    pub segment_size: u64,
    /// Bytes that all segment files together may take.
    pub hard_limit: u64,
    pub append: AppendMode,
    /// Accept btrfs, tmpfs, FUSE and network file systems.
    pub any_file_system: bool,
    /// What the directory lies on: [`crate::env::RealDisk`], or a simulated one.
    pub disk: Arc<dyn Disk>,
}

/// How batches are written; durable when they return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendMode {
    /// `Direct` where the file system can, otherwise `Buffered`. [`Journal::append_mode`] says which it became.
    Best,
    /// Past the page cache. Where the file system cannot, the journal does not open.
    Direct,
    /// Through the page cache, then flushed.
    Buffered,
    /// Stored into a mapping, then flushed.
    Map,
}

impl AppendMode {
    /// As it is configured and shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AppendMode::Best => "best",
            AppendMode::Direct => "direct",
            AppendMode::Buffered => "buffered",
            AppendMode::Map => "map",
        }
    }
}

/// Where a record came to lie. Not durable yet: see [`Journal::wait_durable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Time,
}

/// A record as it is read back. `bulk` points into the map, nothing is copied. While it lives its segment is not used
/// again, so it should not be kept.
#[derive(Clone, Debug)]
pub struct Record {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Time,
    pub event: Event,
    pub bulk: Bytes,
}

/// Counted since the journal was opened; cheap to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub batches: u64,
    pub records: u64,
    /// Bytes written, fillers included.
    pub bytes: u64,
    /// Time spent in writing and flushing.
    pub flush_nanos: u64,
    /// Batches that a caller wrote who was alone.
    pub led: u64,
    pub segments_in_use: u64,
    pub segments_max: u64,
    /// Appends that were told that the journal is full.
    pub refusals: u64,
}

/// A handle on the journal; clones share it. When the last one is dropped the writer ends and the lock is released.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
    /// LSN of the newest snapshot: segments from there on are never recycled. 0 is none.
    snapshot_lsn: AtomicU64,
    snapshots: Mutex<()>,
    soft_limit: AtomicU64,
    sides: Sides,
    /// Segments are archived before they are used again.
    archiver: Mutex<Option<Arc<archive::Archiver>>>,
}

/// Dropped last: the lock is held as long as a thread may write.
#[derive(Default)]
struct Threads {
    running: Vec<JoinHandle<()>>,
    archiver: Option<JoinHandle<()>>,
    lock: Option<Box<dyn Any + Send + Sync>>,
}

/// In the directory that a repair keeps what it cut in: where it cut. Until a service has begun with it.
const NEW_CUT: &str = "cut";
/// A stop waits two seconds for an archive that is being written.
const ARCHIVER_LOOK: Duration = Duration::from_millis(5);
const ARCHIVER_LOOKS: u32 = 400;

impl Journal {
    /// Lock the directory, recover (or create), cut the tail, make it ready for appending. Blocking.
    ///
    /// In a simulated world there are no threads: batches are written and segments made by tasks of the runtime that
    /// this is called on, in an order that is always the same, and time is the runtime's.
    pub fn open(options: Options) -> Result<Self> {
        if options.hard_limit / options.segment_size.max(1) < SEGMENTS_MIN {
            let what = format!("hard_limit must have room for {SEGMENTS_MIN} segments");
            return Err(Error::Options(what));
        }
        let dir = Dir { disk: Arc::clone(&options.disk), path: options.dir.clone() };
        dir.make()?;
        if !options.any_file_system {
            dir.check_file_system()?;
        }
        let lock = dir.lock()?;
        let found = recover::recover(&options, &dir)?;
        if options.hard_limit / found.size < SEGMENTS_MIN {
            let (size, least) = (found.size, found.size.saturating_mul(SEGMENTS_MIN));
            let what = format!("this journal has segments of {size} bytes: hard_limit must be at least {least} bytes");
            return Err(Error::Options(what));
        }
        let sides = Sides::open(&dir, found.id)?;
        let room = Arc::new(tokio::sync::Notify::new());
        // From here on it is the one that was found possible, for every segment.
        let options = Options { append: found.target.mode(), ..options };
        let segments = Segments::new(&options, dir, found.id, found.size, found.segments, found.spares, room);
        let end = found.target.segment.header.first_lsn().plus(found.start);
        let shared = Arc::new(Shared::new(segments, found.target, found.start, found.last_time, end));
        let writer = Arc::clone(&shared);
        let maker = Arc::clone(&shared);
        let mut running = Vec::new();
        if crate::env::is_simulated() {
            tokio::spawn(writer::Writer::run_inline(writer));
            tokio::spawn(async move { maker.segments.make_ahead_inline().await });
        } else {
            running.push(spawn("journal-writer", Arc::clone(&shared), move || writer::Writer::run(&writer))?);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(Arc::clone(&shared).ring_for_waiters());
            }
            running.push(spawn("journal-segments", Arc::clone(&shared), move || maker.segments.make_ahead())?);
        }
        let inner = Inner {
            shared,
            threads: Mutex::new(Threads { running, archiver: None, lock: Some(lock) }),
            snapshot_lsn: AtomicU64::new(found.snapshot.unwrap_or_default().0),
            snapshots: Mutex::new(()),
            soft_limit: AtomicU64::new(options.hard_limit / 2),
            sides,
            archiver: Mutex::new(None),
        };
        Ok(Journal { inner: Arc::new(inner) })
    }

    pub fn id(&self) -> [u8; 16] {
        self.inner.shared.segments.id
    }

    /// How batches are written: never `Best`, but what that became.
    pub fn append_mode(&self) -> AppendMode {
        self.inner.shared.segments.mode
    }

    /// Append; `at` runs under the journal's short lock the moment the place is given, in LSN order: it must be quick.
    /// Waits while the open batch is full, and at the hard limit. Time never goes back from one record to the next.
    /// Dropping the future before it is done appends nothing.
    pub async fn append_with<R>(
        &self,
        event: &Event,
        bulk: &[u8],
        at: impl FnOnce(Appended) -> R + Send,
    ) -> Result<(Appended, R)> {
        let (pending, r) = self.inner.shared.append_with(event, bulk, false, at).await?;
        Ok((pending.at(), r))
    }

    /// The same for what nobody waits for: it is written with the next batch, or when the journal falls idle, or when
    /// somebody does wait for it.
    pub async fn append_unhurried<R>(
        &self,
        event: &Event,
        at: impl FnOnce(Appended) -> R + Send,
    ) -> Result<(Appended, R)> {
        let (pending, r) = self.inner.shared.append_with(event, &[], true, at).await?;
        Ok((pending.at(), r))
    }

    /// The same for a caller who waits for it at once ([`Pending::durable`]), and may then write it himself.
    pub async fn append_pending<R>(
        &self,
        event: &Event,
        bulk: &[u8],
        at: impl FnOnce(Appended) -> R + Send,
    ) -> Result<(Pending<'_>, R)> {
        self.inner.shared.append_with(event, bulk, false, at).await
    }

    /// Until everything before `end` is durable. An error is final: fail stop (I8).
    pub async fn wait_durable(&self, end: Lsn) -> Result<()> {
        let shared = &self.inner.shared;
        if self.durable_lsn() < end {
            shared.hurry(shared.open.lock());
        }
        shared.reached(end).await
    }

    /// Comes back when the journal has failed, and only then: the process must end.
    pub async fn failed(&self) -> Error {
        let mut end = self.inner.shared.end.subscribe();
        let reached = end.wait_for(|end| end.failed.is_some()).await;
        match reached.ok().and_then(|end| end.failed.clone()) {
            Some(why) => Error::FailStop(why),
            None => Error::Closed,
        }
    }

    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.inner.shared.durable.load(Ordering::Acquire))
    }

    /// Bytes of a segment; segments begin at its multiples.
    pub fn segment_size(&self) -> u64 {
        self.inner.shared.segments.size
    }

    /// Where the next record will begin.
    pub fn end_lsn(&self) -> Lsn {
        self.inner.shared.open.lock().batch.next_lsn()
    }

    /// The time that a record would have now: behind every record's, also while the clock catches up with itself.
    pub fn now(&self) -> Time {
        self.inner.shared.open.lock().time_at(clock::now())
    }

    /// Something was cut from it by `tain-journal repair`, which keeps what it cuts beside it. Blocking.
    pub fn was_repaired(&self) -> Result<bool> {
        let dir = &self.inner.shared.segments.dir;
        let names = dir.disk.list(&dir.path).at("list", &dir.path)?;
        Ok(names.iter().any(|name| name.starts_with("repair-")))
    }

    /// A cut of `tain-journal repair` that no service has begun with yet: what the index and destinations have behind it is
    /// accepted once. Blocking.
    pub fn new_cuts(&self) -> Result<Vec<std::path::PathBuf>> {
        let dir = &self.inner.shared.segments.dir;
        let names = dir.disk.list(&dir.path).at("list", &dir.path)?;
        let mut cuts = Vec::new();
        for name in names.iter().filter(|name| name.starts_with("repair-")) {
            let kept = dir.path.join(name);
            let marks = match dir.disk.list(&kept) {
                // Somebody's notes, say.
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => continue,
                marks => marks.at("list", &kept)?,
            };
            if marks.iter().any(|name| name == NEW_CUT) {
                cuts.push(kept);
            }
        }
        Ok(cuts)
    }

    /// The service has begun with what these cuts left, and says so durably. Blocking.
    pub fn cuts_are_taken(&self, cuts: &[std::path::PathBuf]) -> Result<()> {
        let disk = &self.inner.shared.segments.dir.disk;
        for kept in cuts {
            disk.rename(&kept.join(NEW_CUT), &kept.join("cut.taken")).at("rename a mark in", kept)?;
            disk.sync_dir(kept).at("sync", kept)?;
        }
        Ok(())
    }

    /// Oldest LSN that can still be read.
    pub fn start_lsn(&self) -> Lsn {
        self.inner.shared.segments.start_lsn()
    }

    /// Bytes from which on whoever lags has to let go of the journal. Half of the hard limit, unless set.
    pub fn soft_limit(&self) -> u64 {
        self.inner.soft_limit.load(Ordering::Relaxed)
    }

    pub fn set_soft_limit(&self, bytes: u64) {
        // What it is compared with are whole segments.
        self.inner.soft_limit.store(bytes.max(self.segment_size()), Ordering::Relaxed);
    }

    /// Bytes that all segment files together may take.
    pub fn hard_limit(&self) -> u64 {
        let segments = &self.inner.shared.segments;
        segments.size.saturating_mul(segments.max as u64)
    }

    /// Bytes of the segments in use.
    pub fn used_bytes(&self) -> u64 {
        let segments = &self.inner.shared.segments;
        segments.size.saturating_mul(segments.in_use() as u64)
    }

    /// The hard limit is reached: client operations wait for [`Journal::recycle`].
    pub fn is_full(&self) -> bool {
        self.inner.shared.ops_wait()
    }

    pub fn stats(&self) -> Stats {
        let Shared { counters, segments, .. } = &*self.inner.shared;
        Stats {
            batches: counters.batches.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            flush_nanos: counters.flush_nanos.load(Ordering::Relaxed),
            led: counters.led.load(Ordering::Relaxed),
            segments_in_use: segments.in_use() as u64,
            segments_max: segments.max as u64,
            refusals: counters.refusals.load(Ordering::Relaxed),
        }
    }

    /// Why the next segment cannot be made, while it cannot: soon appends wait for it.
    pub fn segment_trouble(&self) -> Option<String> {
        self.inner.shared.segments.trouble()
    }

    pub fn reader(&self, from: Lsn) -> Result<Reader> {
        Reader::new(Arc::clone(&self.inner.shared), from)
    }

    /// Whether the segment that this lies in can be read from here to its end. Blocking.
    pub fn look_at(&self, lsn: Lsn) -> Result<()> {
        let shared = &self.inner.shared;
        let segment = shared.segments.get(SegmentNo(lsn.0 / shared.segments.size));
        segment.map_or(Ok(()), |segment| segment.map(&shared.durable, lsn.0 % shared.segments.size).map(drop))
    }

    /// From now on segments are archived in `dir`, and not recycled before. To be called before anything is recycled.
    /// Blocking.
    pub fn archive_to(&self, dir: &std::path::Path) -> Result<()> {
        let shared = Arc::clone(&self.inner.shared);
        let archiver = archive::Archiver::open(dir, Arc::clone(&shared), self.was_repaired()?)?;
        *self.inner.archiver.lock() = Some(Arc::clone(&archiver));
        let thread = spawn("journal-archive", shared, move || archiver.run())?;
        self.inner.threads.lock().archiver = Some(thread);
        Ok(())
    }

    /// How archiving stands; `None` when nothing is archived.
    pub fn archive_status(&self) -> Option<ArchiveStatus> {
        self.inner.archiver.lock().as_ref().map(|archiver| archiver.status())
    }

    /// Segments wholly before `lsn` may be used again. Those that the newest snapshot needs are kept all the same (without
    /// a snapshot nothing is recycled), and so are those that are to be archived and are not yet. Blocking.
    pub fn recycle(&self, before: Lsn) -> Result<()> {
        let needed = self.snapshot_lsn();
        let archived = self.inner.archiver.lock().as_ref().map_or(Lsn(u64::MAX), |archiver| archiver.archived_lsn());
        let before = before.min(needed).min(archived);
        #[cfg(any(test, feature = "simulation"))]
        recycled::tell(self, before);
        self.inner.shared.segments.recycle(before)
    }

    /// Where the newest snapshot was taken; 0 without one.
    pub fn snapshot_lsn(&self) -> Lsn {
        Lsn(self.inner.snapshot_lsn.load(Ordering::Acquire))
    }

    /// Keep `state` as the fold of everything before `lsn` (which must be durable); older snapshots but one go. Blocking.
    pub fn write_snapshot(&self, lsn: Lsn, state: &[u8]) -> Result<()> {
        let durable = self.durable_lsn();
        if lsn > durable {
            return Err(Error::NotDurable { lsn, durable });
        }
        let _one_at_a_time = self.inner.snapshots.lock();
        let segments = &self.inner.shared.segments;
        snapshot::write(&segments.dir, segments.id, lsn, state)?;
        self.inner.snapshot_lsn.fetch_max(lsn.0, Ordering::AcqRel);
        Ok(())
    }

    /// The newest snapshot that is whole. Blocking.
    pub fn snapshot(&self) -> Result<Option<(Lsn, Vec<u8>)>> {
        let _one_at_a_time = self.inner.snapshots.lock();
        let segments = &self.inner.shared.segments;
        let start = segments.start_lsn();
        snapshot::newest(&segments.dir, segments.id, Lsn(start.0 / segments.size * segments.size))
    }

    /// Flush, write `Durable { stopped: true }`, stop the writer, release the lock. Appends that come later are refused.
    pub async fn close(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        if crate::env::is_simulated() {
            inner.tell_end(Phase::Closing);
            let mut end = inner.shared.end.subscribe();
            // An error means that nobody is left who could write: the same as closed.
            let _ = end.wait_for(|end| end.closed || end.failed.is_some()).await;
        }
        if crate::env::aside(move || inner.end(Phase::Closing)).await.is_err() {
            return Err(Error::Closed);
        }
        match &self.inner.shared.end.borrow().failed {
            Some(why) => Err(Error::FailStop(Arc::clone(why))),
            None => Ok(()),
        }
    }
}

impl Inner {
    fn tell_end(&self, phase: Phase) {
        {
            let mut open = self.shared.open.lock();
            if open.phase == Phase::Running {
                open.phase = phase;
            }
        }
        self.shared.ring();
        self.shared.room.notify_waiters();
        self.shared.segments.stop();
        if let Some(archiver) = &*self.archiver.lock() {
            archiver.stop();
        }
    }

    fn end(&self, phase: Phase) {
        self.tell_end(phase);
        let mut threads = self.threads.lock();
        for thread in threads.running.drain(..) {
            if thread.join().is_err() {
                self.shared.fail("a thread of the journal panicked");
            }
        }
        if let Some(archiver) = threads.archiver.take() {
            self.leave(archiver);
        }
        threads.lock = None;
    }

    /// The archiver ends between two blocks; where its directory hangs it never does, and is not waited for. It writes
    /// nothing of the journal's own.
    fn leave(&self, archiver: JoinHandle<()>) {
        let mut looks = 0..ARCHIVER_LOOKS;
        while !archiver.is_finished() {
            if looks.next().is_none() {
                tracing::warn!("the archives' directory hangs: stopping without it");
                return;
            }
            std::thread::sleep(ARCHIVER_LOOK);
        }
        if archiver.join().is_err() {
            self.shared.fail("the archiver panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(Phase::Leaving);
    }
}

/// A thread whose panic stops the journal: nobody may be left waiting for a thread that is no more.
fn spawn(name: &'static str, shared: Arc<Shared>, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            shared.fail(&format!("thread {name} panicked"));
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(guarded).at("start a thread for", std::path::Path::new(name))
}
