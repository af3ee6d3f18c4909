//! A disk that loses power, fails and fills up: a file in a FUSE file system of our own, a loop device on it, ext4 or
//! XFS on that.
//!
//! ```text
//! ext4 | XFS ── loop device, direct I/O ── FUSE file ── live image: all that was written
//!                                                       durable image: as of the last flush
//!                                                       since: written and not flushed, in order, in pieces of 4 KiB
//! ```
//!
//! A power cut leaves the durable image and any part of what was written since. [`Disk::hold`] is the instant of the cut:
//! nothing more is answered, so that nothing that happens behind it can be believed, until [`Disk::restore`] gives the
//! disk back as the cut left it. Everything is taken down when it is dropped.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tain::demo::content::Rng;

/// What a cut tears apart.
pub const PIECE: usize = 4096;

pub type Piece = Arc<[u8; PIECE]>;

/// Bytes of a disk; what is not there is zeros.
pub type Image = HashMap<u64, Piece>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fs {
    Ext4,
    Xfs,
}

impl Fs {
    fn make(self, device: &str) {
        match self {
            Self::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0", "-J", "size=8", device]),
            Self::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", device]),
        }
    }

    /// XFS makes nothing smaller.
    pub const fn size_min(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 300 << 20,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Entry {
    Write(u64, Piece),
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing is answered.
    Held,
    /// Everything is answered with EIO.
    Dead,
}

/// Errors that the disk is to give: after so many calls, so many times.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub write: Option<(u64, u64)>,
    /// A write that fails does so because there is no space (else: an I/O error).
    pub full: bool,
    pub flush: Option<(u64, u64)>,
    /// Writes that touch any of these bytes, so many of them.
    pub blocks: (Vec<Range<u64>>, u64),
    /// Reads that touch any of these.
    pub unreadable: Vec<Range<u64>>,
    pub flush_delay: Duration,
}

struct State {
    size: u64,
    live: Image,
    durable: Image,
    since: Vec<(u64, Piece)>,
    log: Option<Vec<Entry>>,
    phase: Phase,
    faults: Faults,
    fired: u64,
    flushes: u64,
    writes: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the disk is held; false when it is dead.
    fn alive(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.lock();
        while state.phase == Phase::Held {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.phase == Phase::Running).then_some(state)
    }
}

/// Whether this call is one of those that are to fail.
fn fails(fault: &mut Option<(u64, u64)>) -> bool {
    match fault {
        Some((0, times)) if *times > 0 => {
            *times -= 1;
            true
        }
        Some((0, _)) | None => false,
        Some((after, _)) => {
            *after -= 1;
            false
        }
    }
}

fn touches(ranges: &[Range<u64>], offset: u64, len: usize) -> bool {
    ranges.iter().any(|range| range.start < offset + len as u64 && offset < range.end)
}

impl State {
    fn read(&mut self, offset: u64, len: usize) -> Option<Vec<u8>> {
        if touches(&self.faults.unreadable, offset, len) {
            self.fired += 1;
            return None;
        }
        let end = (offset + len as u64).min(self.size);
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let (piece, from) = (at / PIECE as u64, usize::try_from(at % PIECE as u64).unwrap());
            let n = (PIECE - from).min(usize::try_from(end - at).unwrap());
            match self.live.get(&piece) {
                Some(piece) => bytes.extend_from_slice(&piece[from..from + n]),
                None => bytes.resize(bytes.len() + n, 0),
            }
            at += n as u64;
        }
        Some(bytes)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        self.writes += 1;
        let (blocks, times) = &mut self.faults.blocks;
        let hit = *times > 0 && touches(blocks, offset, data.len());
        *times -= u64::from(hit);
        if fails(&mut self.faults.write) || hit {
            self.fired += 1;
            return false;
        }
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (number, from) = (at / PIECE as u64, usize::try_from(at % PIECE as u64).unwrap());
            let n = (PIECE - from).min(rest.len());
            let mut piece = self.live.get(&number).map_or([0; PIECE], |piece| **piece);
            piece[from..from + n].copy_from_slice(&rest[..n]);
            let piece: Piece = Arc::new(piece);
            self.live.insert(number, piece.clone());
            if let Some(log) = &mut self.log {
                log.push(Entry::Write(number, piece.clone()));
            }
            self.since.push((number, piece));
            (at, rest) = (at + n as u64, &rest[n..]);
        }
        true
    }

    fn flush(&mut self) -> bool {
        self.flushes += 1;
        if fails(&mut self.faults.flush) {
            self.fired += 1;
            return false;
        }
        for (number, piece) in self.since.drain(..) {
            self.durable.insert(number, piece);
        }
        if let Some(log) = &mut self.log {
            log.push(Entry::Flush);
        }
        true
    }
}

/// The durable image and some of what was written since: each piece with this chance in percent.
pub fn torn(durable: &Image, since: &[(u64, Piece)], percent: u64, rng: &mut Rng) -> Image {
    let mut image = durable.clone();
    for (number, piece) in since {
        if rng.chance(percent) {
            image.insert(*number, piece.clone());
        }
    }
    image
}

pub struct Disk {
    pub fs: Fs,
    dir: PathBuf,
    /// Where the file system is mounted.
    pub mnt: PathBuf,
    shared: Arc<Shared>,
    session: Option<fuser::BackgroundSession>,
    device: String,
    mounted: bool,
}

impl Disk {
    /// A new file system, mounted at `mnt`, an empty directory. Needs root, /dev/fuse and a free loop device: without
    /// them it panics, and the test fails.
    pub fn new(fs: Fs, size: u64, mnt: &Path) -> Self {
        sweep();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                size,
                live: Image::new(),
                durable: Image::new(),
                since: Vec::new(),
                log: None,
                phase: Phase::Running,
                faults: Faults::default(),
                fired: 0,
                flushes: 0,
                writes: 0,
            }),
            changed: Condvar::new(),
        });
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("tain-power".into())];
        let session = fuser::spawn_mount(File { shared: shared.clone(), size }, &dir, &config)
            .unwrap_or_else(|e| panic!("no FUSE mount (root and /dev/fuse are needed): {e}"));
        let mut disk = Self {
            fs,
            mnt: mnt.to_path_buf(),
            shared,
            session: Some(session),
            device: String::new(),
            mounted: false,
            dir,
        };
        let file = disk.dir.join("disk");
        // Another process may take the free device between finding and using it.
        for _ in 0..20 {
            let out = Command::new("losetup").args(["--direct-io=on", "-f", "--show"]).arg(&file).output().unwrap();
            if out.status.success() {
                disk.device = String::from_utf8_lossy(&out.stdout).trim().into();
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(!disk.device.is_empty(), "no loop device to be had");
        fs.make(&disk.device);
        disk.mount();
        disk
    }

    pub fn mount(&mut self) {
        assert!(!self.mounted);
        let mut last = String::new();
        // A device that was just let go may still be busy for a moment.
        for _ in 0..20 {
            let out = Command::new("mount").arg(&self.device).arg(&self.mnt).output().unwrap();
            if out.status.success() {
                self.mounted = true;
                return;
            }
            last = String::from_utf8_lossy(&out.stderr).into_owned();
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{:?} cannot be mounted: {last}", self.fs);
    }

    /// False when it stays busy.
    fn try_unmount(&mut self) -> bool {
        let begun = Instant::now();
        while self.mounted && begun.elapsed() < Duration::from_secs(20) {
            self.mounted = !Command::new("umount").arg(&self.mnt).output().unwrap().status.success();
            if self.mounted {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        !self.mounted
    }

    pub fn unmount(&mut self) {
        assert!(self.try_unmount(), "{} stays busy", self.mnt.display());
    }

    /// The power goes: what the disk holds now is all there will be. Nothing is answered from here on.
    pub fn hold(&self) {
        let mut state = self.shared.lock();
        assert_eq!(state.phase, Phase::Running);
        state.phase = Phase::Held;
    }

    /// Let go of all who wait, with errors. Whoever could tell somebody must be dead.
    pub fn die(&self) {
        self.shared.lock().phase = Phase::Dead;
        self.shared.changed.notify_all();
    }

    /// Give the disk back as the cut left it: each piece that was not flushed is there with this chance.
    pub fn restore(&mut self, percent: u64, rng: &mut Rng) {
        let image = {
            let state = self.shared.lock();
            torn(&state.durable, &state.since, percent, rng)
        };
        self.put(image);
    }

    /// Another image altogether.
    pub fn put(&mut self, image: Image) {
        self.die();
        self.unmount();
        {
            let mut state = self.shared.lock();
            state.live = image.clone();
            state.durable = image;
            state.since.clear();
            state.faults = Faults::default();
            state.phase = Phase::Running;
        }
        self.mount();
    }

    /// Flush all, and log every write from here on; what the disk holds now.
    pub fn begin_log(&self) -> Image {
        run("sync", &["-f", &self.mnt.to_string_lossy()]);
        let mut state = self.shared.lock();
        assert!(state.flush());
        state.log = Some(Vec::new());
        state.durable.clone()
    }

    pub fn log_len(&self) -> usize {
        self.shared.lock().log.as_ref().map_or(0, Vec::len)
    }

    pub fn end_log(&self) -> Vec<Entry> {
        self.shared.lock().log.take().unwrap_or_default()
    }

    #[allow(dead_code, reason = "for the planted bugs")]
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.shared.lock();
        state.faults = faults;
        state.fired = 0;
    }

    /// Where on the disk a file's bytes are, from its first one on.
    #[allow(dead_code, reason = "for the planted bugs")]
    pub fn blocks_of(&self, file: &Path) -> Vec<Range<u64>> {
        let out = Command::new("filefrag").args(["-v", "-b4096"]).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "filefrag: {text} {}", String::from_utf8_lossy(&out.stderr));
        let extent = |line: &str| {
            let mut fields = line.split(':').map(str::trim);
            fields.next()?.parse::<u64>().ok()?;
            let (first, last) = fields.nth(1)?.split_once("..")?;
            let block = |text: &str| text.trim().parse::<u64>().ok();
            Some(block(first)? * PIECE as u64..(block(last)? + 1) * PIECE as u64)
        };
        let blocks: Vec<_> = text.lines().filter_map(extent).collect();
        assert!(!blocks.is_empty(), "filefrag knows no blocks: {text}");
        blocks
    }

    /// Errors given since the faults were set.
    #[allow(dead_code, reason = "for the planted bugs")]
    pub fn fired(&self) -> u64 {
        self.shared.lock().fired
    }

    /// What it holds, for a look after a test has failed.
    fn keep(&self) {
        let dir = tempfile::Builder::new().prefix("disk").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        let copied = Command::new("cp").arg("-a").arg(self.mnt.join(".")).arg(&dir).status();
        eprintln!("what the {:?} disk holds is kept for a look: {} ({copied:?})", self.fs, dir.display());
    }

    /// Pieces that were written and not flushed.
    pub fn unflushed(&self) -> usize {
        self.shared.lock().since.len()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && crate::support::is_failing() && self.shared.lock().phase == Phase::Running {
            self.keep();
        }
        self.die();
        if !self.try_unmount() {
            let _ = Command::new("umount").arg("-l").arg(&self.mnt).status();
        }
        if !self.device.is_empty() {
            let _ = Command::new("losetup").args(["-d", &self.device]).status();
        }
        if let Some(session) = self.session.take()
            && let Err(e) = session.umount_and_join()
        {
            eprintln!("{}: {e}", self.dir.display());
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

const PREFIX: &str = "tain-power-";

/// Take down what a process left behind that was killed and could not do it itself.
fn sweep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
            if Path::new("/proc").join(pid).exists() {
                continue;
            }
            let file = entry.path().join("disk");
            let out = Command::new("losetup").arg("-j").arg(&file).output().unwrap();
            for line in String::from_utf8_lossy(&out.stdout).lines() {
                let device = line.split(':').next().unwrap_or_default().to_owned();
                let _ = Command::new("umount").arg("-l").arg(&device).status();
                let _ = Command::new("losetup").args(["-d", &device]).status();
            }
            let _ = Command::new("umount").arg("-l").arg(entry.path()).output();
            let _ = std::fs::remove_dir(entry.path());
        }
    });
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The FUSE file system: a directory with one file, the disk.
struct File {
    shared: Arc<Shared>,
    size: u64,
}

const DISK: fuser::INodeNo = fuser::INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

impl File {
    fn attr(&self, ino: fuser::INodeNo) -> fuser::FileAttr {
        let is_disk = ino == DISK;
        fuser::FileAttr {
            ino,
            size: if is_disk { self.size } else { 0 },
            blocks: if is_disk { self.size / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { fuser::FileType::RegularFile } else { fuser::FileType::Directory },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl fuser::Filesystem for File {
    fn init(&mut self, _: &fuser::Request, config: &mut fuser::KernelConfig) -> std::io::Result<()> {
        // What the kernel does not take it answers with what it does.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &fuser::Request, _parent: fuser::INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        if name == "disk" {
            reply.entry(&TTL, &self.attr(DISK), fuser::Generation(0));
        } else {
            reply.error(fuser::Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &fuser::Request, ino: fuser::INodeNo, _: Option<fuser::FileHandle>, reply: fuser::ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &fuser::Request, _: fuser::INodeNo, _: fuser::OpenFlags, reply: fuser::ReplyOpen) {
        reply.opened(fuser::FileHandle(0), fuser::FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        _: fuser::FileHandle,
        offset: u64,
        size: u32,
        _: fuser::OpenFlags,
        _: Option<fuser::LockOwner>,
        reply: fuser::ReplyData,
    ) {
        match self.shared.alive().and_then(|mut state| state.read(offset, size as usize)) {
            Some(bytes) => reply.data(&bytes),
            None => reply.error(fuser::Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        _: fuser::FileHandle,
        offset: u64,
        data: &[u8],
        _: fuser::WriteFlags,
        _: fuser::OpenFlags,
        _: Option<fuser::LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let mut full = false;
        let written = self.shared.alive().is_some_and(|mut state| {
            full = state.faults.full;
            state.write(offset, data)
        });
        if written {
            reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
        } else {
            reply.error(if full { fuser::Errno::ENOSPC } else { fuser::Errno::EIO });
        }
    }

    fn fsync(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        _: fuser::FileHandle,
        _datasync: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let delay = self.shared.lock().faults.flush_delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if self.shared.alive().is_some_and(|mut state| state.flush()) {
            reply.ok();
        } else {
            reply.error(fuser::Errno::EIO);
        }
    }
}
