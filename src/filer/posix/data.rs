//! Bytes of regular files.

use super::errno::fail;
use super::node::Node;
use super::tree::Tree;
use crate::filer::{Error, ErrorKind, Result};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fstat, seek};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, pread, preadv2, pwrite};
use std::sync::Arc;

/// Parts of a file that one answer tells apart; what is behind the last counts as data.
const RANGES_MAX: usize = 1 << 16;

/// A buffer is not made larger than this before it is known that the file has so much.
const TRUSTED_LEN: u32 = 1 << 20;

/// Copying more than this takes longer than waking another thread.
const AT_ONCE_MAX: u32 = 128 << 10;

/// The end of the largest file that the kernel can address.
const END_MAX: u64 = i64::MAX.cast_unsigned();

static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

pub(super) fn read(tree: &Tree, node: &Arc<Node>, offset: u64, len: u32) -> Result<Bytes> {
    let fd = tree.file(node, false)?;
    read_fd(&fd, offset, len)
}

/// What is in the page cache, without waiting and without another thread: a hot file's READ is one system call.
/// `None` when some of it is not, or where the file system cannot say.
pub(super) fn read_at_once(tree: &Tree, node: &Node, offset: u64, len: u32) -> Option<Bytes> {
    if !tree.at_once || len == 0 || len > AT_ONCE_MAX {
        return None;
    }
    let fd = node.open_file(false)?;
    let wanted = addressable(offset, len);
    let end = offset.saturating_add(wanted as u64);
    let mut data = vec![0; wanted];
    let got = preadv2(&fd, &mut [IoSliceMut::new(&mut data)], offset, ReadWriteFlags::NOWAIT).ok()?;
    if got < data.len() {
        // Either the end of the file, or of what is in the cache.
        let left = size(&fd).ok()?.min(end).saturating_sub(offset);
        if left > got as u64 {
            return None;
        }
        data.truncate(got);
    }
    Some(data.into())
}

/// How many of `len` bytes lie before the largest offset: the kernel refuses a read that reaches past it, although what
/// is before it may be there.
fn addressable(offset: u64, len: u32) -> usize {
    let left = END_MAX.saturating_sub(offset);
    usize::try_from(left).map_or(len as usize, |left| left.min(len as usize))
}

fn read_fd(fd: &OwnedFd, offset: u64, len: u32) -> Result<Bytes> {
    let mut wanted = addressable(offset, len);
    if wanted == 0 {
        return Ok(Bytes::new());
    }
    if len > TRUSTED_LEN {
        let left = size(fd)?.saturating_sub(offset);
        wanted = wanted.min(usize::try_from(left).unwrap_or(wanted));
    }
    let mut data = Vec::with_capacity(wanted);
    while data.len() < wanted {
        let at = offset + data.len() as u64;
        match pread(fd, spare_capacity(&mut data), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(fail("read")(e)),
        }
    }
    data.truncate(wanted);
    Ok(data.into())
}

pub(super) fn write(tree: &Tree, node: &Arc<Node>, offset: u64, data: &[u8]) -> Result<()> {
    let fd = tree.file(node, true)?;
    write_fd(&fd, offset, data)
}

pub(super) fn write_fd(fd: &OwnedFd, offset: u64, data: &[u8]) -> Result<()> {
    if offset.checked_add(data.len() as u64).is_none_or(|end| end > END_MAX) {
        return Err(Error::new(ErrorKind::FileTooBig, "write", "beyond the largest offset"));
    }
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match pwrite(fd, rest, offset + done as u64) {
            Ok(0) => return Err(short(Error::new(ErrorKind::Io, "write", "nothing was taken"), done)),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(short(fail("write")(e), done)),
        }
    }
    Ok(())
}

fn short(error: Error, done: usize) -> Error {
    Error { done: done as u64, ..error }
}

fn size(fd: &OwnedFd) -> Result<u64> {
    Ok(u64::try_from(fstat(fd).map_err(fail("stat"))?.st_size).unwrap_or(0))
}

/// The shared descriptor will do: these seeks start where they are told to, and nothing else uses its position.
pub(super) fn data_ranges(tree: &Tree, node: &Arc<Node>, offset: u64, len: u64) -> Result<Vec<(u64, u64)>> {
    let fd = tree.file(node, false)?;
    let end = offset.saturating_add(len).min(size(&fd)?);
    let mut ranges = Vec::new();
    let mut at = offset;
    while at < end {
        if ranges.len() == RANGES_MAX {
            ranges.push((at, end - at));
            break;
        }
        let start = match seek(&fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            // A hole up to the end of the file.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(vec![(offset, end - offset)]),
            Err(e) => return Err(fail("look for data")(e)),
        };
        if start >= end {
            break;
        }
        let stop = match seek(&fd, SeekFrom::Hole(start)) {
            // Truncated since.
            Err(Errno::NXIO) => break,
            other => other.map_err(fail("look for a hole"))?.min(end),
        };
        ranges.push((start, stop - start));
        at = stop;
    }
    Ok(ranges)
}

pub(super) fn punch(tree: &Tree, node: &Arc<Node>, offset: u64, len: u64) -> Result<()> {
    let fd = tree.file(node, true)?;
    let end = offset.saturating_add(len).min(size(&fd)?);
    if offset >= end {
        return Ok(());
    }
    match fallocate(&fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, end - offset) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        other => return other.map_err(fail("punch a hole")),
    }
    let mut at = offset;
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        write_fd(&fd, at, &ZEROS[..part]).map_err(|e| Error { op: "punch a hole", ..e })?;
        at += part as u64;
    }
    Ok(())
}
