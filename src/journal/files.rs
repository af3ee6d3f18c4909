//! The journal's directory: names, the lock, file systems, and files that are whole before they have their name.

use super::error::{At, Error, Result};
use journal_format::ids::{Lsn, SegmentNo};
use journal_format::segment::{BLOCK, SegmentHeader};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub const TMP: &str = ".tmp";

pub fn segment_name(number: SegmentNo) -> String {
    format!("segment-{:016x}", number.0)
}

pub fn spare_name(number: u64) -> String {
    format!("spare-{number:016x}")
}

pub fn snapshot_name(lsn: Lsn) -> String {
    format!("snapshot-{:016x}", lsn.0)
}

/// The number in a name of this family; `None` unless the name is spelled exactly as we spell it.
fn number_in(name: &str, family: &str) -> Option<u64> {
    let digits = name.strip_prefix(family)?;
    let ours = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// What lies in a journal's directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Ascending.
    pub segments: Vec<SegmentNo>,
    pub spares: Vec<PathBuf>,
    /// Ascending.
    pub snapshots: Vec<Lsn>,
    pub unfinished: Vec<PathBuf>,
}

pub fn list(dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(TMP) {
            listing.unfinished.push(entry.path());
        } else if let Some(number) = number_in(&name, "segment-") {
            listing.segments.push(SegmentNo(number));
        } else if let Some(lsn) = number_in(&name, "snapshot-") {
            listing.snapshots.push(Lsn(lsn));
        } else if number_in(&name, "spare-").is_some() {
            listing.spares.push(entry.path());
        } else if name.starts_with("segment-") || name.starts_with("snapshot-") {
            // A copy beside the original, a renamed one: which is true cannot be told from here.
            let what = format!("{name} is not a name that tain gives; move it away");
            return Err(Error::NotWhole { dir: dir.to_owned(), what });
        }
    }
    listing.segments.sort();
    listing.snapshots.sort();
    Ok(listing)
}

/// Make the directory itself durable: names that were given or taken in it.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).at("sync", dir)
}

pub fn rename(dir: &Path, from: &Path, to: &str) -> Result<PathBuf> {
    let to = dir.join(to);
    std::fs::rename(from, &to).at("rename", from)?;
    Ok(to)
}

/// Hold the directory until the file is dropped. The lock is the kernel's: it cannot outlive its process.
pub fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The pid is a courtesy to the reader of the message; without it the refusal stands.
            let pid = (&file).take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::Locked { path: dir.to_owned(), pid });
        }
        Err(error) => return Err(error).at("lock", &path),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).at("write", &path)?;
    Ok(file)
}

/// Refuse file systems where a preallocated page can still fail, or where a flush means little.
pub fn check_file_system(dir: &Path) -> Result<()> {
    let magic = rustix::fs::statfs(dir).at("look at the file system of", dir)?.f_type;
    let kind = match u32::try_from(magic).unwrap_or_default() {
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x6573_5546 => "a FUSE file system",
        0x6969 => "NFS",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "SMB",
        0x00c3_6400 => "Ceph",
        0x0102_1997 => "9P",
        0x5346_414f | 0x6b41_4653 => "AFS",
        _ => return Ok(()),
    };
    Err(Error::UnsuitableFileSystem { dir: dir.to_owned(), kind })
}

pub fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).at("open", path)
}

/// Open for writing past the page cache; `None` where the file system cannot.
pub fn open_direct(path: &Path) -> Result<Option<File>> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error).at("open", path),
    }
}

/// A new file of `size` zeros at `path`: allocated, written once (so that no extent is unwritten and an append changes
/// no metadata) and synced; its name is not.
pub fn create_zeroed(path: &Path, size: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .at("create", path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        // Where there is no such call the zeros below allocate as well, only less tidily.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error).at("allocate", path),
    }
    zero(&file, path, 0, size)?;
    file.sync_all().at("sync", path)?;
    // The zeros are on the disk; in the page cache they would only stand in the way. Failing at that harms nothing.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(file)
}

/// Write zeros from `from` to `to`; not synced.
pub fn zero(file: &File, path: &Path, from: u64, to: u64) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let step = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..step], at).at("write", path)?;
        at += step as u64;
    }
    Ok(())
}

/// Read a segment's header block, unjudged; a file that is too short gives what there is.
pub fn read_block(file: &File, path: &Path) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    file.take(BLOCK).read_to_end(&mut block).at("read", path)?;
    Ok(block)
}

/// Write and sync a segment's header.
pub fn put_header(file: &File, path: &Path, header: &SegmentHeader) -> Result<()> {
    file.write_all_at(&header.to_bytes(), 0).and_then(|()| file.sync_all()).at("write the header of", path)
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).at("read random bytes from", Path::new("the kernel"))?;
    Ok(bytes)
}
