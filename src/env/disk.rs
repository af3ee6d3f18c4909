//! What the journal asks of the directory it lies in. One implementation is the system's, one is simulated.

use memmap2::MmapRaw;
use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    Read,
    /// Read and write what is there.
    Write,
    /// The same past the page cache; an error of kind `InvalidInput` where the file system cannot.
    Direct,
    /// Made anew, mode 0600; what had the name is emptied.
    Create,
}

/// What came of asking for a lock.
pub enum Lock {
    /// Held until it is dropped.
    Held(Box<dyn Any + Send + Sync>),
    /// Another process has it.
    Other { pid: Option<u32> },
}

/// A directory tree. Names that are given or taken are durable after [`Disk::sync_dir`], bytes after a file's sync.
pub trait Disk: Debug + Send + Sync {
    /// Make a directory, mode 0700, and those above it, durable; nothing when it is there.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Replaces what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// An exclusive lock by the name of a file, which is made when it is not there. It cannot outlive its process.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
    /// The name of the file system, when it is one that cannot hold a journal safely.
    fn unsuitable(&self, dir: &Path) -> io::Result<Option<&'static str>>;
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// What the simulation wants the next durable write to take.
    fn write_takes(&self) -> Option<std::time::Duration> {
        None
    }
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Bytes of the file.
    fn size(&self) -> io::Result<u64>;
    /// Fill the buffer from there; an error when the file ends before.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Write all of it. Not durable.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Write in one call, durable when it returns; gives how many bytes were written.
    fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Reserve space; `Unsupported` is no failure to a caller who writes the bytes afterwards.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Bytes, and what is needed to find them.
    fn sync_data(&self) -> io::Result<()>;
    fn sync_all(&self) -> io::Result<()>;
    /// What is cached of it will not be wanted.
    fn forget_cached(&self);
    /// The bytes for reading.
    fn view(&self) -> io::Result<View>;
    /// A mapping for stores; `None` where there is none.
    fn map_for_writing(&self) -> io::Result<Option<MmapRaw>>;
}

/// A file's bytes for reading.
pub enum View {
    /// A mapping, which shows what is written later.
    Mapped(MmapRaw),
    /// A copy as of when it was asked for.
    Copied(Vec<u8>),
}
