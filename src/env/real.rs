//! The system's own: clock, entropy, threads, file systems.
#![expect(clippy::disallowed_methods, reason = "this is the place they are kept for")]

use super::Stopping;
use super::disk::{Disk, DiskFile, Lock, Open, View};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::ReadWriteFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn wall_nanos() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

/// How much nicer others are.
const FIRST: i32 = 10;

pub fn go_first() {
    use rustix::process::{getpriority_process, setpriority_process};
    let thread = rustix::thread::gettid();
    let first = getpriority_process(Some(thread)).and_then(|now| setpriority_process(Some(thread), now - FIRST));
    if let Err(error) = first {
        // Slower under load, and right all the same: an ordinary user may not.
        tracing::debug!(%error, "the thread's priority stays as it is");
    }
}

pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopping> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Stopping),
    }
}

pub fn aside_detached(work: impl FnOnce() + Send + 'static) {
    // Without a runtime nobody waits any more.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn_blocking(work));
    }
}

/// File systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// A lock file. A child that this process is just starting has it open, too, until it becomes its own program: closing
/// would leave the lock to it for that moment.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::debug!(%error, "a lock is given up by closing its file");
        }
    }
}

impl Disk for RealDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.exists() {
            return Ok(());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // The pid is a courtesy to the reader of the message; without it the refusal stands.
                let pid = (&file).take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Ok(Lock::Other { pid });
            }
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock::Held(Box::new(Locked(file))))
    }

    /// Refused are those where a preallocated page can still fail, or where a flush means little.
    fn unsuitable(&self, dir: &Path) -> io::Result<Option<&'static str>> {
        let magic = rustix::fs::statfs(dir)?.f_type;
        Ok(match u32::try_from(magic).unwrap_or_default() {
            0x9123_683e => Some("btrfs"),
            0x0102_1994 => Some("tmpfs"),
            0x8584_58f6 => Some("ramfs"),
            0x6573_5546 => Some("a FUSE file system"),
            0x6969 => Some("NFS"),
            0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("SMB"),
            0x00c3_6400 => Some("Ceph"),
            0x0102_1997 => Some("9P"),
            0x5346_414f | 0x6b41_4653 => Some("AFS"),
            _ => None,
        })
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        match how {
            Open::Read | Open::Write => {}
            Open::Direct => {
                options.custom_flags(i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default());
            }
            Open::Create => {
                options.create(true).truncate(true).mode(0o600);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev2(&self.0, &[IoSlice::new(bytes)], at, ReadWriteFlags::DSYNC)?)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, size) {
            Err(rustix::io::Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            result => Ok(result?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn forget_cached(&self) {
        // Advice: failing at it harms nothing.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn view(&self) -> io::Result<View> {
        Ok(View::Mapped(MmapOptions::new().map_raw_read_only(&self.0)?))
    }

    fn map_for_writing(&self) -> io::Result<Option<MmapRaw>> {
        Ok(Some(MmapOptions::new().map_raw(&self.0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_up_is_free_although_a_child_that_is_being_started_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let _child_s = file.try_clone().unwrap();
        drop(Locked(file));
        assert!(matches!(RealDisk.lock(&path).unwrap(), Lock::Held(_)));
    }
}
