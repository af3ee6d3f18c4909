//! Mappings of a segment, for reading and for the `map` writer: the only unsafe code of the service.
#![expect(unsafe_code, reason = "a mapping has no safe form: see the SAFETY comment")]
//!
//! A `&[u8]` into a mapped file is sound as long as nobody changes those bytes and the file does not shrink while the
//! reference lives. Both hold by construction:
//!
//! - Bytes below the durable LSN are never written again in this lap: batches are whole blocks, begin where the last
//!   durable one ended, and nothing durable is ever written over. [`Map::slice`] gives nothing at or past that LSN.
//! - The next lap begins only when the last [`Map`] of the segment is gone, and every slice keeps its map alive
//!   (`segments.rs` asks the reference count before it uses a file again).
//! - A side's file has its name only when it is whole and durable, and is never written again.
//! - Segments are written full of zeros before use and never truncated or punched, and the directory is locked. (Someone
//!   who truncates a segment behind our back makes the next read raise SIGBUS, and so does a sector the disk cannot
//!   read. That is a fail stop like any other: [`end_by_bus_error`] sees to a message and a status.)
//!
//! Direct writes go past the page cache. The kernel drops the cached pages of the written range before *and after* each
//! direct write, so a page that a neighbour's read-ahead brought in early is not seen stale: we read a block only after
//! the write that filled it has returned, no block is written twice, and we never dirty pages of records by the cache
//! while appending directly.

use crate::env::disk::View;
use bytes::Bytes;
use journal_format::ids::Lsn;
use memmap2::MmapRaw;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Exit status of a fail stop: the journal, or the index, failed.
pub const EXIT_FAIL_STOP: i32 = 70;

/// A signal's handler can look at nothing; the next start reads the segments by calls, and names the place.
const BUS_ERROR: &str = "tain: a page of a journal's segment cannot be had (SIGBUS): the disk failed to read it, or somebody \
    made the file shorter. Nothing can be answered any more, the service ends; started again it reads the journal and names \
    the place\n";

/// From here on a page that cannot be had ends the process as a failed flush does. Nothing goes on behind it: a handler
/// that returned would meet the same page again.
pub fn end_by_bus_error() -> io::Result<()> {
    // SAFETY: all zeros is a `sigaction` without flags and with an empty mask. The handler makes two system calls, which
    // are allowed in one, and reads a constant.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = bus_error as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn bus_error(_signal: libc::c_int) {
    // SAFETY: the constant's bytes, and a call that does not return.
    unsafe {
        libc::write(libc::STDERR_FILENO, BUS_ERROR.as_ptr().cast(), BUS_ERROR.len());
        libc::_exit(EXIT_FAIL_STOP);
    }
}

pub struct Map {
    view: View,
    first_lsn: Lsn,
    durable: Arc<AtomicU64>,
    /// Of a copy: the durable LSN when it was taken.
    copied_at: u64,
}

impl Map {
    /// A whole segment. `durable` is the journal's durable LSN, now and later; `look` gives the bytes, after that LSN
    /// was read: a copy holds everything before it.
    pub fn of<E>(first_lsn: Lsn, durable: Arc<AtomicU64>, look: impl FnOnce() -> Result<View, E>) -> Result<Map, E> {
        let copied_at = durable.load(Ordering::Acquire);
        Ok(Map { view: look()?, first_lsn, durable, copied_at })
    }

    fn len(&self) -> u64 {
        match &self.view {
            View::Mapped(raw) => raw.len() as u64,
            View::Copied(bytes) => bytes.len() as u64,
        }
    }

    /// Everything of the segment that is durable now can be seen through it.
    pub fn is_current(&self) -> bool {
        match &self.view {
            View::Mapped(_) => true,
            View::Copied(_) => self.readable() == self.durable.load(Ordering::Acquire) || self.is_closed(),
        }
    }

    fn is_closed(&self) -> bool {
        self.copied_at >= self.first_lsn.0.saturating_add(self.len())
    }

    fn readable(&self) -> u64 {
        match &self.view {
            View::Mapped(_) => self.durable.load(Ordering::Acquire),
            View::Copied(_) => self.copied_at,
        }
    }

    /// Bytes of the segment that are durable: from its first byte, at most to its end.
    pub fn durable(&self) -> &[u8] {
        let len = self.readable().saturating_sub(self.first_lsn.0).min(self.len());
        self.slice(0..len).unwrap_or_default()
    }

    /// These bytes of the segment; `None` when they are not all durable or not all inside.
    pub fn slice(&self, range: Range<u64>) -> Option<&[u8]> {
        if range.start > range.end || self.first_lsn.0.checked_add(range.end)? > self.readable() {
            return None;
        }
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        let raw = match &self.view {
            View::Mapped(raw) if end <= raw.len() => raw,
            View::Mapped(_) => return None,
            View::Copied(bytes) => return bytes.get(start..end),
        };
        // SAFETY: start <= end <= length of the mapping, which lives as long as `self`. The bytes are initialised
        // (they are a file's) and below the durable LSN, so nobody writes them while a map of this lap lives, and the
        // file does not shrink: see the head of this module.
        Some(unsafe { std::slice::from_raw_parts(raw.as_ptr().add(start), end - start) })
    }
}

/// A mapping that batches are stored into. One writer has it, and stores only at or past the durable LSN, where no
/// [`Map`] gives a slice.
pub struct Store {
    raw: MmapRaw,
}

impl Store {
    /// `raw` is writable and maps a whole segment.
    pub fn of(raw: MmapRaw) -> Store {
        Store { raw }
    }

    /// Durable when it returns.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.raw.len()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: at + length <= length of the mapping, which is writable and lives as long as `self`. Nobody else writes
        // the file, and no slice of these bytes exists: they are not durable yet, and `Map::slice` gives only what is.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.raw.as_mut_ptr().add(at), bytes.len()) };
        self.raw.flush_range(at, bytes.len())
    }
}

/// Bytes of a map, that keep it alive.
struct Part {
    map: Arc<Map>,
    range: Range<u64>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        // The range was looked at when the part was made, and the durable LSN never goes back.
        self.map.slice(self.range.clone()).unwrap_or_default()
    }
}

/// The bytes without a copy; `None` as for [`Map::slice`].
pub fn bytes(map: &Arc<Map>, range: Range<u64>) -> Option<Bytes> {
    if range.is_empty() {
        return Some(Bytes::new());
    }
    map.slice(range.clone())?;
    Some(Bytes::from_owner(Part { map: Arc::clone(map), range }))
}
