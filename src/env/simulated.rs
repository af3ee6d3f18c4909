//! A disk in memory, with a live and a durable image.
//!
//! # The fault model
//!
//! - What is written is seen at once, and is durable after a flush of its file. Names are durable after a sync of their
//!   directory, whatever was flushed of their files.
//! - **Power cut** ([`SimDisk::cut_power`], or at the n-th change, in the middle of it): of what was not durable any
//!   subset survives, in pieces of 4 KiB, and a piece may be torn between sectors of 512 bytes. Names keep a prefix of
//!   what was done to them, one time in four any subset. Handles and locks of before are dead.
//! - **A flush that fails** loses what it should have made durable: the live image goes on showing it, the next flush
//!   succeeds over it, and it is gone at the next power cut. So do real page caches.
//! - **A write that fails** has written some of it, not durable. **No space**: a file cannot grow past the bound.
//! - **A read that fails** does so wherever a file's named range is touched by a read; a view (a mapping) is not.
//! - `kill -9` ([`SimDisk::kill`]) loses nothing: handles and locks of before are dead.
//!
//! Everything random comes from the seed, so the same calls meet the same faults.

use super::disk::{Disk, DiskFile, Lock, Open, View};
use memmap2::MmapRaw;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PIECE: usize = 4096;
const SECTOR: usize = 512;

/// Which of the operations to come fails, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    Once(u64),
    FromThenOn(u64),
}

impl Nth {
    fn hits(self, count: u64) -> bool {
        match self {
            Nth::Once(n) => count == n,
            Nth::FromThenOn(n) => count >= n,
        }
    }
}

/// What shall go wrong. Counts begin anew whenever faults are set.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub flush_fails: Option<Nth>,
    pub write_fails: Option<Nth>,
    /// At this change (write, flush, name) the power goes: it is done in part, and everything after is refused until
    /// [`SimDisk::cut_power`].
    pub power_goes_at: Option<u64>,
    /// Bytes that all files together may have.
    pub space: Option<u64>,
    pub read_fails: Vec<(PathBuf, Range<u64>)>,
    /// The file system has no direct I/O.
    pub no_direct: bool,
    /// What a durable write takes, where the journal waits for it in virtual time.
    pub write_takes: Option<Duration>,
}

/// How often each fault came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    pub flushes_failed: u64,
    pub writes_failed: u64,
    pub reads_failed: u64,
    pub no_space: u64,
    pub power_cuts: u64,
    pub pieces_lost: u64,
    pub pieces_torn: u64,
    pub names_lost: u64,
}

#[derive(Clone, Debug, Default)]
struct FileData {
    live: Vec<u8>,
    durable_len: usize,
    /// Pieces that are not durable, and the durable bytes beneath.
    unsynced: BTreeMap<usize, Vec<u8>>,
    /// The same, of pieces that a failed flush has made look clean.
    lost: BTreeMap<usize, Vec<u8>>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Give(PathBuf, usize),
    Take(PathBuf),
    Move(PathBuf, PathBuf),
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameOp::Give(path, file) => drop(names.insert(path.clone(), *file)),
            NameOp::Take(path) => drop(names.remove(path)),
            NameOp::Move(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            NameOp::Give(path, _) | NameOp::Take(path) | NameOp::Move(_, path) => path.parent(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    files: Vec<FileData>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<NameOp>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier life are dead.
    life: u64,
    off: bool,
    faults: Faults,
    changes: u64,
    flushes: u64,
    writes: u64,
    fired: Fired,
}

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn refused(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl State {
    /// splitmix64.
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        match () {
            () if self.off => Err(refused("the power is off")),
            () if self.life != life => Err(refused("this handle is of an earlier life")),
            () => Ok(()),
        }
    }

    /// A change begins; `true` when the power goes in the middle of it.
    fn change(&mut self) -> bool {
        self.changes += 1;
        let goes = self.faults.power_goes_at == Some(self.changes);
        self.off |= goes;
        goes
    }

    fn name(&mut self, op: NameOp) -> io::Result<()> {
        self.alive(self.life)?;
        let goes = self.change();
        op.apply(&mut self.names);
        self.pending.push(op);
        if goes { Err(refused("the power went")) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn room_for(&mut self, file: usize, len: usize) -> io::Result<()> {
        let used: usize = self.files.iter().enumerate().filter(|(i, _)| *i != file).map(|(_, f)| f.live.len()).sum();
        match self.faults.space {
            Some(space) if (used + len) as u64 > space && len > self.files[file].live.len() => {
                self.fired.no_space += 1;
                Err(io::Error::from_raw_os_error(28))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, file: usize, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        self.room_for(file, at + bytes.len())?;
        let goes = self.change();
        self.writes += 1;
        let fails = self.faults.write_fails.is_some_and(|nth| nth.hits(self.writes));
        let length = if fails { usize::try_from(self.random(bytes.len() as u64)).unwrap_or(0) } else { bytes.len() };
        self.files[file].put(&bytes[..length], at);
        if fails {
            self.fired.writes_failed += 1;
            return Err(eio());
        }
        if goes { Err(refused("the power went")) } else { Ok(()) }
    }

    fn flush(&mut self, file: usize) -> io::Result<()> {
        if self.change() {
            return Err(refused("the power went"));
        }
        self.flushes += 1;
        let fails = self.faults.flush_fails.is_some_and(|nth| nth.hits(self.flushes));
        let data = &mut self.files[file];
        let unsynced = std::mem::take(&mut data.unsynced);
        if fails {
            data.lost.extend(unsynced);
            self.fired.flushes_failed += 1;
            return Err(eio());
        }
        data.durable_len = data.live.len();
        Ok(())
    }

    fn cut(&mut self) {
        self.fired.power_cuts += 1;
        let pending = std::mem::take(&mut self.pending);
        let (any_subset, kept) = (self.random(4) == 0, self.random(pending.len() as u64 + 1));
        for (i, op) in pending.iter().enumerate() {
            let survives = if any_subset { self.random(2) == 0 } else { (i as u64) < kept };
            if survives {
                op.apply(&mut self.durable_names);
            } else {
                self.fired.names_lost += 1;
            }
        }
        self.names = self.durable_names.clone();
        for file in 0..self.files.len() {
            let manner = self.random(4);
            let mut data = std::mem::take(&mut self.files[file]);
            let keep_length = data.live.len() <= data.durable_len || self.random(2) == 0;
            for (piece, old) in std::mem::take(&mut data.unsynced) {
                match (manner, self.random(4)) {
                    (0, _) | (2 | 3, 0) => {
                        self.fired.pieces_lost += 1;
                        data.restore(piece, &old, 0..PIECE / SECTOR);
                    }
                    (3, 1) => {
                        self.fired.pieces_torn += 1;
                        let from = usize::try_from(self.random(8)).unwrap_or(0);
                        data.restore(piece, &old, if self.random(2) == 0 { from..8 } else { 0..from });
                    }
                    _ => {}
                }
            }
            for (piece, old) in std::mem::take(&mut data.lost) {
                self.fired.pieces_lost += 1;
                data.restore(piece, &old, 0..PIECE / SECTOR);
            }
            if !keep_length {
                data.live.truncate(data.durable_len);
            }
            data.durable_len = data.live.len();
            self.files[file] = data;
        }
        self.die();
    }

    fn die(&mut self) {
        self.off = false;
        self.life += 1;
        self.locks.clear();
    }
}

impl FileData {
    fn put(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        for piece in at / PIECE..=(end - 1) / PIECE {
            if self.unsynced.contains_key(&piece) {
                continue;
            }
            let old = self.lost.remove(&piece).unwrap_or_else(|| {
                let begin = piece * PIECE;
                self.live[begin.min(self.live.len())..(begin + PIECE).min(self.live.len())].to_vec()
            });
            self.unsynced.insert(piece, old);
        }
        self.live[at..end].copy_from_slice(bytes);
    }

    /// Put the durable bytes of these sectors of a piece back.
    fn restore(&mut self, piece: usize, old: &[u8], sectors: Range<usize>) {
        let range = sectors.start * SECTOR..sectors.end * SECTOR;
        for (i, live) in self.live.iter_mut().skip(piece * PIECE).enumerate().take(range.end).skip(range.start) {
            *live = old.get(i).copied().unwrap_or(0);
        }
    }
}

impl SimDisk {
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State { seed, ..State::default() })) }
    }

    /// What goes wrong from here on, instead of what was said before.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state.lock();
        (state.changes, state.flushes, state.writes) = (0, 0, 0);
        state.faults = faults;
    }

    #[must_use]
    pub fn fired(&self) -> Fired {
        self.state.lock().fired
    }

    /// Changes (writes, flushes, names) and flushes since the faults were set.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.changes, state.flushes)
    }

    /// The power has gone at the change that was asked for.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// The power goes now; what comes is refused until [`SimDisk::cut_power`].
    pub fn switch_off(&self) {
        self.state.lock().off = true;
    }

    /// The power goes and comes back.
    pub fn cut_power(&self) {
        self.state.lock().cut();
    }

    /// The process that had the handles is no more.
    pub fn kill(&self) {
        self.state.lock().die();
    }

    /// Another disk with the same images, names and pending changes, and a seed of its own.
    #[must_use]
    pub fn fork(&self, seed: u64) -> SimDisk {
        let state = self.state.lock();
        let forked = State {
            seed,
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending: state.pending.clone(),
            dirs: state.dirs.clone(),
            life: state.life,
            ..State::default()
        };
        SimDisk { state: Arc::new(Mutex::new(forked)) }
    }

    /// A file's bytes, as they are seen.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let file = state.find(path)?;
        Ok(state.files[file].live.clone())
    }

    /// Put a file there, or in its place, durable: damage, or what someone else left.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state.lock();
        let data = FileData { live: bytes.to_vec(), durable_len: bytes.len(), ..FileData::default() };
        let file = match state.find(path) {
            Ok(file) => file,
            Err(_) => {
                state.files.push(FileData::default());
                state.files.len() - 1
            }
        };
        state.files[file] = data;
        state.names.insert(path.to_owned(), file);
        state.durable_names.insert(path.to_owned(), file);
    }

    /// Take a file away, durable.
    pub fn uproot(&self, path: &Path) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }
}

impl Disk for SimDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.state.lock().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive(state.life)?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        Ok(state.names.keys().filter(|path| path.parent() == Some(dir)).filter_map(name).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive(state.life)?;
        if state.change() {
            return Err(refused("the power went"));
        }
        state.flushes += 1;
        let count = state.flushes;
        if state.faults.flush_fails.is_some_and(|nth| nth.hits(count)) {
            state.fired.flushes_failed += 1;
            return Err(eio());
        }
        let (here, elsewhere) =
            std::mem::take(&mut state.pending).into_iter().partition::<Vec<_>, _>(|op| op.dir() == Some(dir));
        state.pending = elsewhere;
        here.iter().for_each(|op| op.apply(&mut state.durable_names));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.find(from)?;
        state.name(NameOp::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.find(path)?;
        state.name(NameOp::Take(path.to_owned()))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut state = self.state.lock();
        state.alive(state.life)?;
        if !state.locks.insert(path.to_owned()) {
            return Ok(Lock::Other { pid: None });
        }
        let held = Held { disk: self.clone(), path: path.to_owned(), life: state.life };
        Ok(Lock::Held(Box::new(held)))
    }

    fn unsuitable(&self, _: &Path) -> io::Result<Option<&'static str>> {
        Ok(None)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.alive(state.life)?;
        if how == Open::Direct && state.faults.no_direct {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = match (how, state.find(path)) {
            (Open::Create, Ok(_)) | (Open::Create, Err(_)) => {
                state.files.push(FileData::default());
                let file = state.files.len() - 1;
                state.name(NameOp::Give(path.to_owned(), file))?;
                file
            }
            (Open::Read | Open::Write | Open::Direct, found) => found?,
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file, path: path.to_owned(), life: state.life }))
    }

    fn write_takes(&self) -> Option<Duration> {
        self.state.lock().faults.write_takes
    }
}

struct Held {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
    path: PathBuf,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, f: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        state.alive(self.life)?;
        f(&mut state, self.file)
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[file].live.len() as u64))
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.with(|state, file| {
            let end = at + bytes.len() as u64;
            let hit = |(path, range): &(PathBuf, Range<u64>)| *path == self.path && at < range.end && range.start < end;
            if state.faults.read_fails.iter().any(hit) {
                state.fired.reads_failed += 1;
                return Err(eio());
            }
            let range =
                usize::try_from(at).map_err(io::Error::other)?..usize::try_from(end).map_err(io::Error::other)?;
            let found = state.files[file].live.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.with(|state, file| state.write(file, bytes, at))
    }

    fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.with(|state, file| {
            state.write(file, bytes, at)?;
            state.flush(file)?;
            Ok(bytes.len())
        })
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.with(|state, file| state.room_for(file, usize::try_from(size).map_err(io::Error::other)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(State::flush)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.with(State::flush)
    }

    fn forget_cached(&self) {}

    fn view(&self) -> io::Result<View> {
        self.with(|state, file| Ok(View::Copied(state.files[file].live.clone())))
    }

    fn map_for_writing(&self) -> io::Result<Option<MmapRaw>> {
        Ok(None)
    }
}
