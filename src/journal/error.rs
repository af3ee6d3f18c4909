//! What can go wrong with a journal, by what the caller can do about it.

use journal_format::event::codec;
use journal_format::ids::{Lsn, SegmentNo};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the directory.
    #[error("the journal in {} is in use by another process{}", path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, pid: Option<u32> },
    /// A write or a flush failed: nothing may be answered any more, the process must end (I8).
    #[error("the journal stopped: {0}")]
    FailStop(Arc<str>),
    /// Damage before the durable end (I8).
    #[error(
        "the journal is corrupt: segment {segment}, offset {offset} (LSN {lsn}): {what}; file segment-{:016x} was not \
         changed: tain-journal verify shows the damage, and tain-journal repair cuts there, keeping what it cuts",
        segment.0
    )]
    Corrupt { segment: SegmentNo, offset: u64, lsn: Lsn, what: String },
    /// The disk cannot give back what was written.
    #[error(
        "{}, offset {offset} (LSN {lsn}) cannot be read: {source}; copy the directory to another disk, as far as it can \
         be read, and look at the copy with tain-journal verify",
        path.display()
    )]
    Unreadable { path: PathBuf, offset: u64, lsn: Lsn, source: io::Error },
    /// Segments or snapshots are missing, doubled or out of place.
    #[error("the journal in {} is not whole: {what}", dir.display())]
    NotWhole { dir: PathBuf, what: String },
    /// A file of another journal lies among ours.
    #[error("{} belongs to another journal", path.display())]
    Foreign { path: PathBuf },
    /// Written by a newer version of tain.
    #[error("{what}")]
    NewerVersion { what: String },
    /// The hard limit is reached; segments must be recycled first. Nothing was appended.
    #[error("the journal is full: its hard limit of {limit} bytes is reached")]
    Full { limit: u64 },
    /// The record can never be appended.
    #[error("a record of {length} bytes does not fit into the journal (most: {max})")]
    TooLarge { length: u64, max: u64 },
    /// The event exceeds a bound of the format.
    #[error(transparent)]
    Event(#[from] codec::Error),
    /// That part of the journal has been recycled.
    #[error("LSN {lsn} is before the start of the journal at {start}")]
    Recycled { lsn: Lsn, start: Lsn },
    /// A position that is not durable yet was given where only a durable one will do.
    #[error("LSN {lsn} is past the durable LSN {durable}")]
    NotDurable { lsn: Lsn, durable: Lsn },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// A file system that cannot hold a journal safely.
    #[error("{} is on {kind}, which cannot hold a journal safely (choose another directory, or allow any file system)", dir.display())]
    UnsuitableFileSystem { dir: PathBuf, kind: &'static str },
    /// It was asked for, and nothing else is put in its place.
    #[error(
        "{}: this file system has no direct I/O, and [journal] append says \"direct\": leave it out (the journal then \
         takes what there is), say \"buffered\", or choose another directory",
        path.display()
    )]
    NoDirectIo { path: PathBuf },
    /// The options contradict themselves.
    #[error("journal options: {0}")]
    Options(String),
    /// The operating system refused.
    #[error("cannot {op} {}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// The journal has ended: nothing is appended any more, and the process is about to stop. Every other error is of one
    /// call, which may be made again.
    #[must_use]
    pub fn is_the_end(&self) -> bool {
        matches!(self, Self::FailStop(_) | Self::Closed)
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// What happened, and what the system said of it.
pub(super) fn with_source(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Adds what was tried, and where, to an I/O error.
pub(super) trait At<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, op: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { op, path: path.to_owned(), source: source.into() })
    }
}
