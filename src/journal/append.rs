//! Appending: a place in the open batch under a short lock, the copy outside it, and waiting for the writer.

use super::batch::{Batch, Buffer, NoPlace, Part, buffer};
use super::error::{Error, Result};
use super::lead::Pending;
use super::limits::Class;
use super::queue::Waiters;
use super::segments::{Refused, Segments};
use super::target::Target;
use super::writer::Writer;
use super::{Appended, clock};
use crate::env::watch;
use journal_format::event::codec::{self, Row};
use journal_format::event::{Durable, Event};
use journal_format::ids::{Lsn, Time};
use journal_format::record::Layout;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a client operation waits before it is told that the journal is at its hard limit, its turn included.
const FULL_WAIT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// How the journal has ended, if it has.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Set once, and final.
    pub failed: Option<Arc<str>>,
    /// The writer has ended in order.
    pub closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// Write what is there, then `Durable { stopped: true }`, then end.
    Closing,
    /// Write what is there, then end: the last handle is gone.
    Leaving,
    /// Nothing is written any more.
    Ended,
}

/// What the short lock guards.
pub struct Open {
    pub batch: Batch,
    /// Taken by the writer, while copies into it are not done.
    pub sealed: Option<Batch>,
    /// Set: the open batch is its segment's last, and the next one goes here.
    pub next_target: Option<Arc<Target>>,
    pub last_time: Time,
    pub phase: Phase,
    /// The writer sleeps until the bell rings, however long that is.
    pub sleeps: bool,
}

impl Open {
    /// Forward always, also while the clock catches up with itself: to a client the same time is no change.
    pub fn time_at(&self, now: Time) -> Time {
        Time(self.last_time.0.saturating_add(1)).max(now)
    }
}

/// Cheap counters since the journal was opened.
#[derive(Debug, Default)]
pub struct Counters {
    pub batches: AtomicU64,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub flush_nanos: AtomicU64,
    /// Batches written by the one caller who was alone.
    pub led: AtomicU64,
    /// Appends that were told that the journal is full.
    pub refusals: AtomicU64,
}

/// What handles, the writer and readers share.
pub struct Shared {
    pub segments: Segments,
    pub open: Mutex<Open>,
    /// Whoever has it is the writer. Taken before `open`.
    pub writer: Mutex<Writer>,
    /// The writer's thread waits here.
    pub work: Condvar,
    /// The same for a writer that is a task.
    pub bell: Notify,
    /// Appends wait here for the next batch or segment; as many as there are callers, who hold their own record.
    pub room: Arc<Notify>,
    pub end: watch::Sender<End>,
    has_ended: AtomicBool,
    pub waiters: Waiters,
    pub ringers_bell: Notify,
    pub durable: Arc<AtomicU64>,
    /// Records that were given a place so far; changed under `open`, and read without it by a writer that looks for more.
    pub placed: AtomicU64,
    pub counters: Counters,
    /// First in, first out among those who found no place: for client operations, and for the reserve.
    gates: [tokio::sync::Mutex<()>; 3],
    waiting: [AtomicUsize; 3],
    /// A caller lost its way between reserving and filling: the batch can never be whole.
    pub broken: AtomicBool,
    said_full: AtomicBool,
    #[cfg(test)]
    pub fail_next_write: AtomicBool,
    #[cfg(test)]
    pub hold_writes: Mutex<()>,
    #[cfg(test)]
    pub hold_fills: Mutex<()>,
}

thread_local! {
    /// An archive's buffer that is not in use.
    static ARCHIVE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Larger ones are given back to the allocator.
const ARCHIVE_KEPT: usize = 64 << 10;

/// An archive on its way in. Its buffer is used again, so that an append allocates nothing.
struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    fn take() -> Archive {
        Archive { bytes: ARCHIVE.take() }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if self.bytes.capacity() <= ARCHIVE_KEPT {
            ARCHIVE.set(std::mem::take(&mut self.bytes));
        }
    }
}

/// A record on its way in.
struct Incoming {
    layout: Layout,
    row: Row,
    class: Class,
    /// The writer's own: nothing else may come behind `Durable { stopped: true }`.
    writers: bool,
    /// Nobody waits for it.
    unhurried: bool,
}

enum Try<'a, R> {
    Placed(Placed<'a>, Appended, R),
    Wait { full: bool },
}

/// A reserved place. Dropped unfilled (a panic in between), it stops the journal: the batch can never be whole.
struct Placed<'a> {
    shared: &'a Shared,
    part: Option<Part>,
    /// The writer will come to it by itself.
    comes: bool,
}

impl Placed<'_> {
    /// The writer is to be rung behind it, unless he comes by himself; one who waits for just this is rung here.
    fn fill(mut self, archive: &[u8], bulk: &[u8]) {
        let Some(part) = &mut self.part else { return };
        crash_point!("JOURNAL_AFTER_PLACE");
        #[cfg(test)]
        if self.comes {
            drop(self.shared.hold_fills.lock());
        }
        part.fill(archive, bulk);
        let Some(part) = self.part.take() else { return };
        let mut open = self.shared.open.lock();
        let was_waited_for = match &mut open.sealed {
            Some(sealed) if sealed.id == part.batch => {
                sealed.hand_back(part);
                sealed.outstanding == 0
            }
            _ => {
                open.batch.hand_back(part);
                false
            }
        };
        drop(open);
        if was_waited_for {
            self.shared.ring();
        }
        crash_point!("JOURNAL_AFTER_FILL");
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if self.part.is_some() {
            self.shared.broken.store(true, Ordering::Release);
            self.shared.ring();
        }
    }
}

/// Counts a waiter while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    /// Everything before `start` in the target is there already and durable.
    pub fn new(segments: Segments, target: Arc<Target>, start: u64, last_time: Time, durable: Lsn) -> Shared {
        let room = Arc::clone(&segments.room);
        let batch = Batch::new(0, target, start, buffer());
        Shared {
            segments,
            open: Mutex::new(Open {
                batch,
                sealed: None,
                next_target: None,
                last_time,
                phase: Phase::Running,
                sleeps: false,
            }),
            writer: Mutex::new(Writer::new(durable)),
            work: Condvar::new(),
            bell: Notify::new(),
            room,
            end: watch::Sender::new(End::default()),
            has_ended: AtomicBool::new(false),
            waiters: Waiters::new(),
            ringers_bell: Notify::new(),
            durable: Arc::new(AtomicU64::new(durable.0)),
            placed: AtomicU64::new(0),
            counters: Counters::default(),
            gates: Default::default(),
            waiting: Default::default(),
            broken: AtomicBool::new(false),
            said_full: AtomicBool::new(false),
            #[cfg(test)]
            fail_next_write: AtomicBool::new(false),
            #[cfg(test)]
            hold_writes: Mutex::new(()),
            #[cfg(test)]
            hold_fills: Mutex::new(()),
        }
    }

    /// Wake the writer.
    pub fn ring(&self) {
        self.work.notify_one();
        self.bell.notify_one();
    }

    /// Somebody waits for what nobody waited for.
    pub fn hurry(&self, mut open: MutexGuard<'_, Open>) {
        if std::mem::take(&mut open.batch.unhurried) > 0 {
            drop(open);
            self.ring();
        }
    }

    /// Nothing more is promised: everyone who waits, or comes, is told. Never taken back.
    pub fn fail(&self, why: &str) {
        tracing::error!(why, "the journal stops: nothing may be answered any more");
        let why: Arc<str> = why.into();
        self.open.lock().phase = Phase::Ended;
        self.end.send_modify(|end| end.failed = end.failed.take().or(Some(why)));
        self.tell_all();
    }

    /// The writer has ended in order.
    pub fn close(&self) {
        self.end.send_modify(|end| end.closed = true);
        self.tell_all();
    }

    fn tell_all(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.tell();
        self.room.notify_waiters();
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    pub fn ended(&self) -> Error {
        match &self.end.borrow().failed {
            Some(why) => Error::FailStop(Arc::clone(why)),
            None => Error::Closed,
        }
    }

    pub async fn append_with<R>(
        self: &Arc<Self>,
        event: &Event,
        bulk: &[u8],
        unhurried: bool,
        at: impl FnOnce(Appended) -> R + Send,
    ) -> Result<(Pending<'_>, R)> {
        let mut archive = Archive::take();
        let incoming = Incoming { unhurried, ..self.prepare(event, bulk, &mut archive.bytes)? };
        let mut at = Some(at);
        let full = match self.try_place(&incoming, false, &mut at)? {
            Try::Placed(placed, appended, r) => {
                let comes = placed.comes;
                placed.fill(&archive.bytes, bulk);
                if incoming.class == Class::Operation && self.said_full.load(Ordering::Relaxed) {
                    self.said_full.store(false, Ordering::Release);
                }
                return Ok((Pending::new(self, appended, comes), r));
            }
            Try::Wait { full } => full,
        };
        self.note_full(full);
        let (appended, r) = self.append_later(&incoming, &archive.bytes, bulk, at).await?;
        Ok((Pending::new(self, appended, true), r))
    }

    /// No place at once: in turn, when there is one.
    async fn append_later<R>(
        self: &Arc<Self>,
        incoming: &Incoming,
        archive: &[u8],
        bulk: &[u8],
        mut at: Option<impl FnOnce(Appended) -> R + Send>,
    ) -> Result<(Appended, R)> {
        let class = incoming.class as usize;
        let mut turn = None;
        let mut last_look = false;
        let began = Instant::now();
        loop {
            // Enabled before the look, or a wake-up between look and wait would be missed.
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let full = match self.try_place(incoming, turn.is_some() || last_look, &mut at)? {
                Try::Placed(placed, appended, r) => {
                    placed.fill(archive, bulk);
                    self.ring();
                    if incoming.class == Class::Operation {
                        self.said_full.store(false, Ordering::Release);
                    }
                    return Ok((appended, r));
                }
                // Full, or so slow that it is the same to a client: it is told, and comes again. Nobody waits for ever.
                Try::Wait { .. } if last_look => {
                    self.counters.refusals.fetch_add(1, Ordering::Relaxed);
                    return Err(Error::Full { limit: self.limit() });
                }
                Try::Wait { full } => full,
            };
            self.note_full(full);
            let patience = match incoming.class {
                Class::Operation => FULL_WAIT.saturating_sub(began.elapsed()),
                Class::Upkeep | Class::End => Duration::MAX,
            };
            let in_vain = if turn.is_none() {
                let waiting = Waiting::new(&self.waiting[class]);
                let gate = within(patience, self.gates[class].lock()).await;
                turn = gate.map(|gate| (gate, waiting));
                turn.is_none()
            } else {
                within(patience, room).await.is_none()
            };
            // Room that came while others had their turn is room: nobody is told in vain.
            last_look = in_vain;
        }
    }

    /// A client operation that comes now has to wait for segments.
    pub fn ops_wait(&self) -> bool {
        !self.segments.has_room_for_ops()
            || (self.said_full.load(Ordering::Acquire) && !self.segments.may_begin_for_ops())
    }

    /// Said once each time that the limit is reached.
    fn note_full(&self, full: bool) {
        if full && !self.said_full.swap(true, Ordering::AcqRel) {
            let held = self.segments.taken().saturating_sub(self.segments.in_use());
            tracing::warn!(
                limit = self.limit(),
                in_use = self.segments.in_use(),
                held,
                "the journal is at its hard limit: appends wait for segments (those held are free when the calls that hang have ended)"
            );
        }
    }

    fn limit(&self) -> u64 {
        self.segments.max as u64 * self.segments.size
    }

    /// For the writer itself: at once or not at all.
    pub fn append_durable(&self, stopped: bool) -> Result<bool> {
        let mut archive = Vec::new();
        let incoming = self.prepare(&Event::Durable(Durable { stopped }), &[], &mut archive)?;
        let incoming = Incoming { writers: true, ..incoming };
        match self.try_place(&incoming, true, &mut Some(|_| ()))? {
            Try::Placed(placed, _, ()) => {
                placed.fill(&archive, &[]);
                self.ring();
                Ok(true)
            }
            Try::Wait { .. } => Ok(false),
        }
    }

    fn prepare(&self, event: &Event, bulk: &[u8], archive: &mut Vec<u8>) -> Result<Incoming> {
        codec::check(event, bulk.len())?;
        codec::encode(event, archive)?;
        let max = Batch::record_max(self.segments.size);
        let lengths = (u32::try_from(archive.len()), u32::try_from(bulk.len()));
        let layout = if let (Ok(archived), Ok(bulk)) = lengths { Layout::of(archived, bulk) } else { None };
        match layout.filter(|layout| u64::from(layout.length) <= max) {
            Some(layout) => {
                Ok(Incoming { layout, row: event.row(), class: Class::of(event), writers: false, unhurried: false })
            }
            None => Err(Error::TooLarge { length: (archive.len() + bulk.len()) as u64, max }),
        }
    }

    fn try_place<R>(
        &self,
        incoming: &Incoming,
        my_turn: bool,
        at: &mut Option<impl FnOnce(Appended) -> R>,
    ) -> Result<Try<'_, R>> {
        let class = incoming.class;
        let others = self.waiting[class as usize].load(Ordering::Acquire);
        if !my_turn && others > 0 {
            return Ok(Try::Wait { full: false });
        }
        let length = u64::from(incoming.layout.length);
        // Before the guard, so that in a panic of `at` it is dropped after it.
        let mut placed = Placed { shared: self, part: None, comes: false };
        let now = clock::now();
        let mut open = self.open.lock();
        let running = open.phase == Phase::Running || (open.phase == Phase::Closing && incoming.writers);
        if !running {
            drop(open);
            return Err(self.ended());
        }
        if class == Class::Operation && !self.segments.has_room_for_ops() {
            return Ok(Try::Wait { full: true });
        }
        match open.room(length, &self.segments, class) {
            Room::Here => {}
            Room::NextBatch => {
                self.hurry(open);
                return Ok(Try::Wait { full: false });
            }
            Room::NextSegment(refused) => {
                drop(open);
                self.ring();
                return Ok(Try::Wait { full: refused == Some(Refused::Full) });
            }
        }
        let time = open.time_at(now);
        open.last_time = time;
        let lsn = open.batch.next_lsn();
        placed.part = Some(open.batch.reserve(incoming.layout, incoming.row, time));
        if incoming.unhurried {
            open.batch.unhurried += 1;
            placed.comes = !open.sleeps;
        }
        self.placed.fetch_add(1, Ordering::Release);
        let appended = Appended { lsn, end: lsn.plus(length), time };
        let at = at.take().expect("a record is placed once");
        let r = at(appended);
        drop(open);
        Ok(Try::Placed(placed, appended, r))
    }
}

/// `None` when it takes longer.
async fn within<T>(patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    match patience {
        Duration::MAX => Some(future.await),
        patience => tokio::time::timeout(patience, future).await.ok(),
    }
}

enum Room {
    Here,
    /// When the writer has taken this one.
    NextBatch,
    /// When the writer has closed this one (`None`), or when there is one.
    NextSegment(Option<Refused>),
}

impl Open {
    fn room(&mut self, length: u64, segments: &Segments, class: Class) -> Room {
        if self.next_target.is_some() {
            return Room::NextBatch;
        }
        match self.batch.fits(length) {
            Ok(()) => return Room::Here,
            Err(NoPlace::Batch) => return Room::NextBatch,
            Err(NoPlace::Segment) => {}
        }
        let target = match segments.take_next(class) {
            Ok(target) => target,
            Err(refused) => return Room::NextSegment(Some(refused)),
        };
        crash_point!("JOURNAL_ROLL");
        if self.batch.start < self.batch.target.segment.header.size {
            self.next_target = Some(target);
            return Room::NextSegment(None);
        }
        // The segment is closed already, to its last byte: nothing is in this batch, and it moves over.
        debug_assert!(self.batch.used == 0);
        self.batch.target = target;
        self.batch.start = journal_format::segment::BLOCK;
        match self.batch.fits(length) {
            Ok(()) => Room::Here,
            Err(_) => Room::NextBatch,
        }
    }

    /// The open batch is worth a write.
    pub fn has_work(&self) -> bool {
        let waited_for = if self.phase == Phase::Running { self.batch.unhurried } else { 0 };
        self.batch.records > waited_for || self.next_target.is_some()
    }

    /// Take the open batch for writing, and open the next one behind it. Gives whether it closes its segment, and the
    /// LSN that will be durable with it.
    pub fn seal(&mut self, buffer: Buffer) -> (bool, Lsn) {
        let size = self.batch.target.segment.header.size;
        let end = self.batch.end();
        let next = self.next_target.take();
        let ends_segment = next.is_some() || end == size;
        let (target, start) = match next {
            Some(next) => (next, journal_format::segment::BLOCK),
            None => (Arc::clone(&self.batch.target), end),
        };
        let batch = Batch::new(self.batch.id + 1, target, start, buffer);
        let durable = batch.next_lsn();
        self.sealed = Some(std::mem::replace(&mut self.batch, batch));
        (ends_segment, durable)
    }
}
