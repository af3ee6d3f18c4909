//! Which files are the journal: segments in use, the next one ready, spares, and the thread that makes them ahead.
//!
//! ```text
//!            create_zeroed             header: number, salt         rolled into
//!  (nothing) ─────────────► spare ─────────────────────────► ready ─────────────► in use
//!                             ▲                                                     │ recycle: renamed
//!                             └──────────────── retired ◄───────────────────────────┘
//!                               no map of it lives
//! ```
//!
//! Every arrow is synced, with the directory, before the next one begins. All files together are at most `hard_limit /
//! segment_size`: when they are all in use, appends wait for [`Segments::recycle`]. Client operations wait two segments
//! earlier, upkeep one ([`Class`]), so that what ends operations and moves cursors (and so frees segments) always has
//! room. A retired segment counts as used until nobody has a map of it: a call that hangs may hold bytes of it for hours.

use super::AppendMode;
use super::error::{At, Error, Result};
use super::files::{self, Dir};
use super::limits::Class;
use super::map::Map;
use super::target::Target;
use crate::env::disk::{DiskFile, Open};
use journal_format::ids::{Lsn, SegmentNo};
use journal_format::segment::{BLOCK, SegmentHeader};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Fewest segments a hard limit must have room for: one filled, one ready, and the reserve.
pub const SEGMENTS_MIN: u64 = 4;
/// How often a problem (no space) or a map that is still in use is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A segment of the journal, in this lap.
pub struct Segment {
    pub header: SegmentHeader,
    dir: Dir,
    path: PathBuf,
    map: Mutex<Weak<Map>>,
    /// From here to its end it was read by calls, or it is written in this life.
    read_from: AtomicU64,
}

impl Segment {
    pub fn new(dir: &Dir, header: SegmentHeader) -> Arc<Segment> {
        Self::of(dir, header, 0)
    }

    /// One that a former life has written.
    pub fn found(dir: &Dir, header: SegmentHeader) -> Arc<Segment> {
        Self::of(dir, header, header.size)
    }

    fn of(dir: &Dir, header: SegmentHeader, read_from: u64) -> Arc<Segment> {
        let path = dir.join(files::segment_name(header.number));
        let read_from = AtomicU64::new(read_from);
        Arc::new(Segment { header, dir: dir.clone(), path, map: Mutex::new(Weak::new()), read_from })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A sector that cannot be read is an error here, with its place; through the map it would end the process without a
    /// word, at each start. What was read is cached: nobody waits for the disk again.
    /// Nothing before `from` is looked at: nobody may need it.
    pub fn read_once(&self, file: &dyn DiskFile, from: u64) -> Result<()> {
        let (from, end) = (from / BLOCK * BLOCK, self.read_from.load(Ordering::Acquire));
        if from >= end {
            return Ok(());
        }
        let mut bytes = vec![0; 1 << 20];
        let mut at = from;
        let mut step = bytes.len() as u64;
        while at < end {
            let length = step.min(end - at);
            match file.read_at(&mut bytes[..super::batch::to_usize(length)], at) {
                Ok(()) => at += length,
                // Again in blocks, for the very place.
                Err(_) if step > BLOCK => step = BLOCK,
                Err(source) => {
                    let lsn = self.header.first_lsn().plus(at);
                    return Err(Error::Unreadable { path: self.path.clone(), offset: at, lsn, source });
                }
            }
        }
        self.read_from.fetch_min(from, Ordering::AcqRel);
        Ok(())
    }

    /// The mapping, shared by all who read the segment at the same time; for one who reads from this offset on.
    pub fn map(&self, durable: &Arc<AtomicU64>, from: u64) -> Result<Arc<Map>> {
        let mut shared = self.map.lock();
        let mapped = shared.upgrade().filter(|map| map.is_current());
        if let Some(map) = mapped.filter(|_| from >= self.read_from.load(Ordering::Acquire)) {
            return Ok(map);
        }
        let file = self.open(Open::Read)?;
        self.read_once(&*file, from)?;
        if let Some(map) = shared.upgrade().filter(|map| map.is_current()) {
            return Ok(map);
        }
        let map = Map::of(self.header.first_lsn(), Arc::clone(durable), || file.view());
        let map = Arc::new(map.at("map", &self.path)?);
        *shared = Arc::downgrade(&map);
        Ok(map)
    }

    pub fn open(&self, how: Open) -> Result<Arc<dyn DiskFile>> {
        self.dir.open(&self.path, how)
    }

    /// Open for writing past the page cache; `None` where the file system cannot.
    pub fn open_direct(&self) -> Result<Option<Arc<dyn DiskFile>>> {
        self.dir.open_direct(&self.path)
    }

    fn is_mapped(&self) -> bool {
        self.map.lock().strong_count() > 0
    }
}

struct State {
    in_use: BTreeMap<SegmentNo, Arc<Segment>>,
    ready: Option<Arc<Target>>,
    /// Renamed to spares, perhaps not durably: the directory could not be synced.
    renamed: Vec<(Arc<Segment>, PathBuf)>,
    /// Renamed to spares, but perhaps still mapped.
    retired: Vec<(Arc<Segment>, PathBuf)>,
    spares: Vec<PathBuf>,
    /// A file that the thread has in hand.
    making: usize,
    stop: bool,
}

impl State {
    /// Files that no record can go into: in use, or not free yet.
    fn taken(&self) -> usize {
        self.in_use.len() + self.renamed.len() + self.retired.len()
    }

    fn total(&self) -> usize {
        self.taken() + usize::from(self.ready.is_some()) + self.spares.len() + self.making
    }

    /// What nobody has a map of any more is a spare; whether there was any.
    fn let_go(&mut self) -> bool {
        let before = self.spares.len();
        let free = self.retired.extract_if(.., |(segment, _)| Arc::strong_count(segment) == 1 && !segment.is_mapped());
        self.spares.extend(free.map(|(_, path)| path));
        self.spares.len() > before
    }
}

pub struct Segments {
    pub dir: Dir,
    pub id: [u8; 16],
    pub size: u64,
    pub max: usize,
    pub mode: AppendMode,
    state: Mutex<State>,
    /// Held by who frees segments: a checkpoint that was cancelled may still be at it when the next one begins.
    freeing: Mutex<()>,
    /// How many are in use, and how many are taken ([`State::taken`]), for those who may not wait for the lock.
    count: AtomicUsize,
    taken: AtomicUsize,
    work: Condvar,
    /// The same without a thread.
    bell: Notify,
    /// Appends that wait for a segment.
    pub room: Arc<Notify>,
    spare_serial: AtomicU64,
    /// Why the last file could not be made.
    trouble: Mutex<Option<String>>,
}

/// Why there is no next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is being made.
    NotReady,
    /// The hard limit is reached.
    Full,
}

/// What the thread does next.
enum Chore {
    Ready(PathBuf),
    Create,
    Wait,
}

impl Segments {
    pub fn new(
        options: &super::Options,
        dir: Dir,
        id: [u8; 16],
        size: u64,
        in_use: Vec<Arc<Segment>>,
        spares: Vec<PathBuf>,
        room: Arc<Notify>,
    ) -> Segments {
        let state = State {
            in_use: in_use.into_iter().map(|segment| (segment.header.number, segment)).collect(),
            ready: None,
            renamed: Vec::new(),
            retired: Vec::new(),
            spares,
            making: 0,
            stop: false,
        };
        Segments {
            dir,
            id,
            size,
            max: usize::try_from(options.hard_limit / size).unwrap_or(usize::MAX),
            mode: options.append,
            count: AtomicUsize::new(state.in_use.len()),
            taken: AtomicUsize::new(state.taken()),
            state: Mutex::new(state),
            freeing: Mutex::new(()),
            work: Condvar::new(),
            bell: Notify::new(),
            room,
            spare_serial: AtomicU64::new(1 << 63),
            trouble: Mutex::new(None),
        }
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub fn get(&self, number: SegmentNo) -> Option<Arc<Segment>> {
        self.state.lock().in_use.get(&number).cloned()
    }

    pub fn start_lsn(&self) -> Lsn {
        self.state.lock().in_use.values().next().map_or(Lsn(0), |segment| segment.header.first_record())
    }

    pub fn in_use(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Those in use, and those that are not any more and cannot be used again yet.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    fn count(&self, state: &State) {
        self.count.store(state.in_use.len(), Ordering::Release);
        self.taken.store(state.taken(), Ordering::Release);
    }

    /// Segments that records of this class may fill.
    fn limit(&self, class: Class) -> usize {
        self.max.saturating_sub(class.keeps_free())
    }

    /// Client operations may go on in the segment they are in: the reserve has not been begun.
    pub fn has_room_for_ops(&self) -> bool {
        self.taken() <= self.limit(Class::Operation)
    }

    /// Client operations may begin another segment.
    pub fn may_begin_for_ops(&self) -> bool {
        self.taken() < self.limit(Class::Operation)
    }

    /// The next segment, if it is ready and may be used. Never blocks on I/O.
    pub fn take_next(&self, class: Class) -> std::result::Result<Arc<Target>, Refused> {
        let mut state = self.state.lock();
        if state.taken() >= self.limit(class) {
            return Err(Refused::Full);
        }
        let Some(target) = state.ready.take() else {
            return Err(Refused::NotReady);
        };
        state.in_use.insert(target.segment.header.number, Arc::clone(&target.segment));
        self.count(&state);
        self.ring();
        Ok(target)
    }

    /// Free the segments that lie wholly before `before`; the newest is always kept. Blocking.
    pub fn recycle(&self, before: Lsn) -> Result<()> {
        let _alone = self.freeing.lock();
        let mut freed = self.sync_renamed()?;
        loop {
            let oldest = {
                let mut state = self.state.lock();
                let oldest = state.in_use.values().next().filter(|s| s.header.end_lsn() <= before).cloned();
                match oldest {
                    Some(oldest) if state.in_use.len() > 1 => {
                        state.in_use.remove(&oldest.header.number);
                        self.count(&state);
                        state.making += 1;
                        oldest
                    }
                    _ => break,
                }
            };
            // Oldest first and each made durable, so that a crash leaves no gap.
            crash_point!("RECYCLE_BEFORE_RENAME");
            let renamed = self.dir.rename(&oldest.path, &files::spare_name(oldest.header.number.0));
            {
                let mut state = self.state.lock();
                state.making -= 1;
                match renamed {
                    Ok(path) => state.renamed.push((oldest, path)),
                    Err(error) => {
                        state.in_use.insert(oldest.header.number, oldest);
                        self.count(&state);
                        return Err(error);
                    }
                }
                self.count(&state);
            }
            freed |= self.sync_renamed()?;
            crash_point!("RECYCLE_SYNCED");
        }
        if freed {
            self.ring();
            self.room.notify_waiters();
        }
        Ok(())
    }

    /// What was renamed may be used when that is durable; whether there was any.
    fn sync_renamed(&self) -> Result<bool> {
        if self.state.lock().renamed.is_empty() {
            return Ok(false);
        }
        self.dir.sync()?;
        let mut state = self.state.lock();
        let renamed = std::mem::take(&mut state.renamed);
        state.retired.extend(renamed);
        state.let_go();
        self.count(&state);
        Ok(true)
    }

    fn ring(&self) {
        self.work.notify_one();
        self.bell.notify_one();
    }

    /// End the thread; `make_ahead` returns soon after.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_all();
        self.bell.notify_one();
    }

    /// The thread: keeps the next segment ready and one spare behind it, until told to stop.
    pub fn make_ahead(&self) {
        let mut complained = false;
        loop {
            match self.make_one(&mut complained) {
                Step::Stop => return,
                Step::Done => {}
                Step::Wait(mut state) => drop(self.work.wait_for(&mut state, LOOK_AGAIN)),
            }
        }
    }

    /// The same as a task.
    pub async fn make_ahead_inline(&self) {
        let mut complained = false;
        loop {
            let wait = match self.make_one(&mut complained) {
                Step::Stop => return,
                Step::Done => false,
                Step::Wait(_) => true,
            };
            if wait {
                // Whether it was rung or the time is up: look again.
                let _ = tokio::time::timeout(LOOK_AGAIN, self.bell.notified()).await;
            }
        }
    }

    fn make_one(&self, complained: &mut bool) -> Step<'_> {
        let mut state = self.state.lock();
        if state.stop {
            return Step::Stop;
        }
        if state.let_go() {
            self.count(&state);
            self.room.notify_waiters();
        }
        let chore = self.choose(&mut state);
        if let Chore::Wait = chore {
            return Step::Wait(state);
        }
        let next = state.in_use.keys().next_back().map_or(SegmentNo(0), |last| SegmentNo(last.0 + 1));
        state.making += 1;
        drop(state);
        let done = match chore {
            Chore::Ready(spare) => self.make_ready(&spare, next).map_err(|error| (error, Some(spare))),
            Chore::Create | Chore::Wait => self.create_spare().map_err(|error| (error, None)),
        };
        let mut state = self.state.lock();
        state.making -= 1;
        match done {
            Ok(Made::Ready(target)) => state.ready = Some(target),
            Ok(Made::Spare(path)) => state.spares.push(path),
            Err((error, spare)) => {
                // Not a flush of the journal: nothing was promised on this file. Said once, tried again.
                let why = super::error::with_source(&error);
                if !*complained {
                    tracing::error!(error = why, "cannot make the journal's next segment; trying again");
                }
                *complained = true;
                *self.trouble.lock() = Some(why);
                state.spares.extend(spare.filter(|path| self.dir.size(path).is_ok()));
                return Step::Wait(state);
            }
        }
        drop(state);
        *complained = false;
        *self.trouble.lock() = None;
        self.room.notify_waiters();
        Step::Done
    }

    fn choose(&self, state: &mut State) -> Chore {
        if state.ready.is_none()
            && let Some(spare) = state.spares.pop()
        {
            return Chore::Ready(spare);
        }
        let want = state.ready.is_none() || (state.spares.is_empty() && state.retired.is_empty());
        if want && state.total() < self.max { Chore::Create } else { Chore::Wait }
    }

    fn create_spare(&self) -> Result<Made> {
        let serial = self.spare_serial.fetch_add(1, Ordering::Relaxed);
        let tmp = self.dir.join(files::spare_name(serial) + files::TMP);
        crash_point!("SPARE_BEFORE_CREATE");
        let made = self.dir.create_zeroed(&tmp, self.size).and_then(|_| {
            crash_point!("SPARE_CREATED");
            let path = self.dir.rename(&tmp, &files::spare_name(serial))?;
            crash_point!("SPARE_RENAMED");
            self.dir.sync()?;
            crash_point!("SPARE_SYNCED");
            Ok(Made::Spare(path))
        });
        if made.is_err() {
            // Give the space back; the next try begins anew, on another file. (Not under the spare's name: one of a
            // former life may have it.)
            let _ = self.dir.remove(&tmp);
        }
        made
    }

    fn make_ready(&self, spare: &Path, number: SegmentNo) -> Result<Made> {
        let header = new_header(self.id, number, self.size)?;
        crash_point!("READY_BEFORE_HEADER");
        files::put_header(&*self.dir.open(spare, Open::Write)?, spare, &header)?;
        crash_point!("READY_AFTER_HEADER");
        let segment = Segment::new(&self.dir, header);
        self.dir.rename(spare, &files::segment_name(number))?;
        crash_point!("READY_RENAMED");
        self.dir.sync()?;
        crash_point!("READY_SYNCED");
        Ok(Made::Ready(Target::open(segment, self.mode)?))
    }
}

/// What the thread did, or is to do.
enum Step<'a> {
    Stop,
    Done,
    Wait(MutexGuard<'a, State>),
}

enum Made {
    Ready(Arc<Target>),
    Spare(PathBuf),
}

/// A header for a new lap.
pub fn new_header(journal_id: [u8; 16], number: SegmentNo, size: u64) -> Result<SegmentHeader> {
    let salt = if crate::planted::is('f') { 0 } else { u32::from_le_bytes(files::random()?) };
    Ok(SegmentHeader { journal_id, number, size, salt, created: super::clock::now() })
}
