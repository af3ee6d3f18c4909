//! The journal's directory: names, the lock, file systems, and files that are whole before they have their name.

use super::batch::BLOCK_LEN;
use super::error::{At, Error, Result};
use crate::env::disk::{Disk, DiskFile, Lock, Open};
use journal_format::ids::{JunctionId, Lsn, SegmentNo};
use journal_format::segment::{BLOCK, SegmentHeader};
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Unique by its beginning; it is rewritten as a whole when it grows.
pub fn side_name(junction: JunctionId, from: Lsn) -> String {
    format!("side-{:08x}-{:016x}", junction.0, from.0)
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
    /// Side segments.
    pub sides: Vec<PathBuf>,
}

/// The journal's directory, on the disk that the options name.
#[derive(Clone, Debug)]
pub struct Dir {
    pub disk: Arc<dyn Disk>,
    pub path: PathBuf,
}

impl Dir {
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    pub fn make(&self) -> Result<()> {
        self.disk.make_dir(&self.path).at("create", &self.path)
    }

    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for name in self.disk.list(&self.path).at("list", &self.path)? {
            if name.ends_with(TMP) {
                listing.unfinished.push(self.join(&name));
            } else if let Some(number) = number_in(&name, "segment-") {
                listing.segments.push(SegmentNo(number));
            } else if let Some(lsn) = number_in(&name, "snapshot-") {
                listing.snapshots.push(Lsn(lsn));
            } else if number_in(&name, "spare-").is_some() {
                listing.spares.push(self.join(&name));
            } else if name.starts_with("side-") {
                listing.sides.push(self.join(&name));
            } else if name.starts_with("segment-") || name.starts_with("snapshot-") {
                // A copy beside the original, a renamed one: which is true cannot be told from here.
                let what = format!("{name} is not a name that tain gives; move it away");
                return Err(Error::NotWhole { dir: self.path.clone(), what });
            }
        }
        listing.segments.sort();
        listing.snapshots.sort();
        listing.spares.sort();
        Ok(listing)
    }

    /// Make the directory itself durable: names that were given or taken in it.
    pub fn sync(&self) -> Result<()> {
        self.disk.sync_dir(&self.path).at("sync", &self.path)
    }

    pub fn rename(&self, from: &Path, to: &str) -> Result<PathBuf> {
        let to = self.join(to);
        self.disk.rename(from, &to).at("rename", from)?;
        Ok(to)
    }

    pub fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path).at("remove", path)
    }

    /// Hold the directory until it is dropped.
    pub fn lock(&self) -> Result<Box<dyn Any + Send + Sync>> {
        let path = self.join("lock");
        match self.disk.lock(&path).at("lock", &path)? {
            Lock::Held(held) => Ok(held),
            Lock::Other { pid } => Err(Error::Locked { path: self.path.clone(), pid }),
        }
    }

    /// Refuse file systems where a preallocated page can still fail, or where a flush means little.
    pub fn check_file_system(&self) -> Result<()> {
        match self.disk.unsuitable(&self.path).at("look at the file system of", &self.path)? {
            Some(kind) => Err(Error::UnsuitableFileSystem { dir: self.path.clone(), kind }),
            None => Ok(()),
        }
    }

    pub fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>> {
        self.disk.open(path, how).at("open", path)
    }

    /// Open for writing past the page cache; `None` where the file system cannot.
    pub fn open_direct(&self, path: &Path) -> Result<Option<Arc<dyn DiskFile>>> {
        match self.disk.open(path, Open::Direct) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error).at("open", path),
        }
    }

    pub fn size(&self, path: &Path) -> Result<u64> {
        self.open(path, Open::Read)?.size().at("look at", path)
    }

    /// All of a file that is known to be small.
    pub fn read_whole(&self, path: &Path) -> Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let size = file.size().at("look at", path)?;
        let mut bytes = vec![0; super::batch::to_usize(size)];
        file.read_at(&mut bytes, 0).at("read", path)?;
        Ok(bytes)
    }

    /// A new file of `size` zeros at `path`: allocated, written once (so that no extent is unwritten and an append
    /// changes no metadata) and synced; its name is not.
    pub fn create_zeroed(&self, path: &Path, size: u64) -> Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, Open::Create).at("create", path)?;
        match file.allocate(size) {
            // Where there is no such call the zeros below allocate as well, only less tidily.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            allocated => allocated.at("allocate", path)?,
        }
        // Past the page cache: half the time there, and a tenth of the processor's.
        match self.open_direct(path)?.map(|direct| zero(&*direct, path, 0, size)) {
            Some(Ok(())) => {}
            // Some file systems say so only here; and where it begins anew nothing is lost.
            Some(Err(Error::Io { source, .. })) if source.kind() == io::ErrorKind::InvalidInput => {
                zero(&*file, path, 0, size)?;
            }
            Some(failed) => failed?,
            None => zero(&*file, path, 0, size)?,
        }
        file.sync_all().at("sync", path)?;
        // The zeros are on the disk; in the page cache they would only stand in the way.
        file.forget_cached();
        Ok(file)
    }
}

/// Zeros that are written at once.
const ZEROS: usize = 1 << 20;

/// Write zeros from `from` to `to`; not synced.
pub fn zero(file: &dyn DiskFile, path: &Path, from: u64, to: u64) -> Result<()> {
    let buf = vec![0; ZEROS + BLOCK_LEN];
    // Aligned, as direct writes must be.
    let skip = buf.as_ptr().align_offset(BLOCK_LEN).min(BLOCK_LEN);
    let zeros = &buf[skip..skip + ZEROS];
    let mut at = from;
    while at < to {
        let step = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(&zeros[..step], at).at("write", path)?;
        at += step as u64;
    }
    Ok(())
}

/// Read a segment's header block, unjudged; a file that is too short gives what there is.
pub fn read_block(file: &dyn DiskFile, path: &Path) -> Result<Vec<u8>> {
    let size = file.size().at("look at", path)?.min(BLOCK);
    let mut block = vec![0; super::batch::to_usize(size)];
    file.read_at(&mut block, 0).at("read", path)?;
    Ok(block)
}

/// Write and sync a segment's header.
pub fn put_header(file: &dyn DiskFile, path: &Path, header: &SegmentHeader) -> Result<()> {
    file.write_at(&header.to_bytes(), 0).and_then(|()| file.sync_all()).at("write the header of", path)
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    crate::env::random().at("read random bytes from", Path::new("the kernel"))
}
