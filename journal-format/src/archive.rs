//! Archives: closed segments, compressed and checksummed, and the list of them beside them.
//!
//! A segment is *closed* when its records lead to its end. What lies behind the last record says nothing and is not kept.
//! Bytes are packed in blocks, each with a checksum of its own, so that damage of one leaves the others readable; the
//! digest over the whole content is what the list states too.

use crate::fields::{array_at, i64_at, put, u32_at, u64_at};
use crate::ids::{Lsn, SegmentNo, Time};
use crate::record::KIND_SEGMENT_END;
use crate::scan::{Fault, Found, record_at};
use crate::segment::{BLOCK, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN, SegmentHeader};
use std::fmt::Write as _;

/// First bytes of an archive.
pub const MAGIC: [u8; 8] = *b"tain.arc";
/// Version of the archive's format.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header; blocks follow.
pub const HEADER_LEN: usize = 128;
/// Bytes of content in a block; the last has fewer.
pub const BLOCK_CONTENT: usize = 1 << 20;
/// Bytes before each block: its stored length and its checksum.
pub const BLOCK_HEAD: usize = 8;
/// Most bytes a block may take, its head left out: one that does not shrink is stored as it is.
pub const BLOCK_STORED_MAX: usize = BLOCK_CONTENT;
/// Begin of the name of an archive that is not of its segment any more, since a repair: its own name follows.
pub const CUT: &str = "cut-";
/// Name of the list beside the archives.
pub const MANIFEST: &str = "manifest";

const VERSION: usize = 8;
const JOURNAL_ID: usize = 16;
const NUMBER: usize = 32;
const FIRST_LSN: usize = 40;
const SIZE: usize = 48;
const CONTENT: usize = 56;
const STORED: usize = 64;
const FIRST_TIME: usize = 72;
const LAST_TIME: usize = 80;
const DIGEST: usize = 88;
const CRC: usize = HEADER_LEN - 4;
const _: () = assert!(DIGEST + 32 <= CRC);
/// In a block's stored length: its bytes are as they were.
const AS_IT_IS: u32 = 1 << 31;

/// Name of a segment's archive.
#[must_use]
pub fn file_name(number: SegmentNo) -> String {
    format!("archive-{:016x}", number.0)
}

/// An archive's header, as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveHeader {
    /// The journal it belongs to.
    pub journal_id: [u8; 16],
    /// The segment's number.
    pub number: SegmentNo,
    /// Bytes of the segment.
    pub size: u64,
    /// How many of them are kept, from the first; zeros stand for the rest.
    pub content: u64,
    /// Bytes of all blocks, with their heads.
    pub stored: u64,
    /// Time of the segment's first record.
    pub first_time: Time,
    /// Time of its last record.
    pub last_time: Time,
    /// BLAKE3 of the content.
    pub digest: [u8; 32],
}

/// Why a file is no usable archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadArchive {
    /// Too short, or does not begin as an archive does.
    #[error("is not an archive of a tain journal")]
    NotAnArchive,
    /// Written by a newer version.
    #[error("has format version {0}; this version of tain reads version {FORMAT_VERSION} only")]
    NewerVersion(u32),
    /// The header's checksum is wrong.
    #[error("the checksum of the archive's header is wrong")]
    Checksum,
    /// Whole, and yet impossible.
    #[error("the archive's header contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl ArchiveHeader {
    /// LSN of the segment's first byte.
    #[must_use]
    pub const fn first_lsn(&self) -> Lsn {
        Lsn(self.number.0.saturating_mul(self.size))
    }

    /// Exclusive end of the segment's LSNs.
    #[must_use]
    pub const fn end_lsn(&self) -> Lsn {
        self.first_lsn().plus(self.size)
    }

    /// Whether what `read` fills buffers with, from these places of the segment on, is what is in the archive. (Of a
    /// segment that was cut by a repair, and written again, an archive of before it holds something else.)
    ///
    /// # Errors
    /// Those of `read`.
    pub fn is_of<E>(&self, mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>) -> Result<bool, E> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        let mut part = vec![0; BLOCK_CONTENT];
        while at < self.content {
            let len = usize::try_from(self.content - at).unwrap_or(BLOCK_CONTENT).min(BLOCK_CONTENT);
            let part = part.get_mut(..len).unwrap_or_default();
            read(part, at)?;
            hasher.update(part);
            at += len as u64;
        }
        Ok(*hasher.finalize().as_bytes() == self.digest)
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, JOURNAL_ID, &self.journal_id);
        put(&mut bytes, NUMBER, &self.number.0.to_le_bytes());
        put(&mut bytes, FIRST_LSN, &self.first_lsn().0.to_le_bytes());
        put(&mut bytes, SIZE, &self.size.to_le_bytes());
        put(&mut bytes, CONTENT, &self.content.to_le_bytes());
        put(&mut bytes, STORED, &self.stored.to_le_bytes());
        put(&mut bytes, FIRST_TIME, &self.first_time.0.to_le_bytes());
        put(&mut bytes, LAST_TIME, &self.last_time.0.to_le_bytes());
        put(&mut bytes, DIGEST, &self.digest);
        let crc = crc32fast::hash(bytes.first_chunk::<CRC>().map_or(&[], |c| c.as_slice()));
        put(&mut bytes, CRC, &crc.to_le_bytes());
        bytes
    }

    /// Read the header from an archive's first bytes.
    ///
    /// # Errors
    /// When they are no header, or one that cannot be trusted or understood.
    pub fn from_bytes(bytes: &[u8]) -> Result<ArchiveHeader, BadArchive> {
        let head = bytes.first_chunk::<HEADER_LEN>().ok_or(BadArchive::NotAnArchive)?;
        if array_at(head, 0) != MAGIC {
            return Err(BadArchive::NotAnArchive);
        }
        if crc32fast::hash(head.first_chunk::<CRC>().map_or(&[], |c| c.as_slice())) != u32_at(head, CRC) {
            return Err(BadArchive::Checksum);
        }
        let version = u32_at(head, VERSION);
        if version != FORMAT_VERSION {
            return Err(BadArchive::NewerVersion(version));
        }
        let header = ArchiveHeader {
            journal_id: array_at(head, JOURNAL_ID),
            number: SegmentNo(u64_at(head, NUMBER)),
            size: u64_at(head, SIZE),
            content: u64_at(head, CONTENT),
            stored: u64_at(head, STORED),
            first_time: Time(i64_at(head, FIRST_TIME)),
            last_time: Time(i64_at(head, LAST_TIME)),
            digest: array_at(head, DIGEST),
        };
        let size_ok = (SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&header.size) && header.size.is_multiple_of(BLOCK);
        if !size_ok {
            return Err(BadArchive::Contradiction("impossible size of the segment"));
        }
        if header.content > header.size || header.content < BLOCK {
            return Err(BadArchive::Contradiction("impossible length of the content"));
        }
        if header.number.0.checked_mul(header.size) != Some(u64_at(head, FIRST_LSN)) {
            return Err(BadArchive::Contradiction("first LSN is not number times size"));
        }
        Ok(header)
    }
}

/// A closed segment, as a scan of its bytes finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Behind the last record.
    pub content: u64,
    /// Time of the first record.
    pub first_time: Time,
    /// Time of the last record.
    pub last_time: Time,
}

/// Why a segment is not archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotClosed {
    /// Records do not lead to the segment's end.
    #[error("the segment is not closed: its records end at offset {0}")]
    Open(u64),
    /// There is something else than a record.
    #[error("offset {0}: {1}")]
    Damaged(u64, Fault),
}

/// Read a segment from its first byte to its last record; every checksum is looked at.
///
/// # Errors
/// When its records do not lead to its end.
pub fn closed(header: &SegmentHeader, bytes: &[u8]) -> Result<Closed, NotClosed> {
    let mut offset = BLOCK;
    let mut times = None;
    loop {
        let ended = |offset| {
            let (first_time, last_time) = times.unwrap_or((header.created, header.created));
            Ok(Closed { content: offset, first_time, last_time })
        };
        if offset == header.size {
            return ended(offset);
        }
        match record_at(header, bytes, offset) {
            Found::Record(record) => {
                let time = record.header.time;
                times = Some((times.map_or(time, |(first, _)| first), time));
                offset = record.end_offset();
                if record.header.kind == KIND_SEGMENT_END {
                    let (first_time, last_time) = times.unwrap_or((time, time));
                    return Ok(Closed { content: offset, first_time, last_time });
                }
            }
            Found::Unwritten(place) | Found::End(place) => return Err(NotClosed::Open(place.offset)),
            Found::Bad(place, fault) => return Err(NotClosed::Damaged(place.offset, fault)),
        }
    }
}

/// Packs a segment's content, block by block.
pub struct Packer {
    header: ArchiveHeader,
    hasher: blake3::Hasher,
    packed: u64,
}

impl Packer {
    /// For a segment of which `closed` is to be kept.
    #[must_use]
    pub fn new(segment: &SegmentHeader, closed: Closed) -> Packer {
        let header = ArchiveHeader {
            journal_id: segment.journal_id,
            number: segment.number,
            size: segment.size,
            content: closed.content,
            stored: 0,
            first_time: closed.first_time,
            last_time: closed.last_time,
            digest: [0; 32],
        };
        Packer { header, hasher: blake3::Hasher::new(), packed: 0 }
    }

    /// The next block's bytes, for the next [`BLOCK_CONTENT`] bytes of content (fewer for the last).
    pub fn block(&mut self, content: &[u8]) -> Vec<u8> {
        self.hasher.update(content);
        self.packed += content.len() as u64;
        let mut block = vec![0; BLOCK_HEAD];
        let packed = lz4_flex::block::compress(content);
        let mark = if packed.len() < content.len() {
            block.extend_from_slice(&packed);
            0
        } else {
            block.extend_from_slice(content);
            AS_IT_IS
        };
        let stored = block.get(BLOCK_HEAD..).unwrap_or_default();
        let (len, crc) = (u32::try_from(stored.len()).unwrap_or(u32::MAX), crc32fast::hash(stored));
        put(&mut block, 0, &(len | mark).to_le_bytes());
        put(&mut block, 4, &crc.to_le_bytes());
        self.header.stored += block.len() as u64;
        block
    }

    /// The header, to be written before the blocks; `None` when not all content has come by.
    #[must_use]
    pub fn finish(mut self) -> Option<ArchiveHeader> {
        self.header.digest = *self.hasher.finalize().as_bytes();
        (self.packed == self.header.content).then_some(self.header)
    }
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// The file ends in it.
    #[error("the archive ends too early")]
    Short,
    /// Its length is impossible: where the next one begins is not known.
    #[error("the block's length is impossible")]
    Length,
    /// Its checksum is wrong.
    #[error("the block's checksum is wrong")]
    Checksum,
    /// Its checksum holds, and it does not unpack to what it should be.
    #[error("the block does not unpack")]
    Content,
}

/// A block as it stands in a file.
pub struct Block<'a> {
    stored: &'a [u8],
    as_it_is: bool,
    crc: u32,
}

impl<'a> Block<'a> {
    /// The block at the beginning of these bytes, and what follows it.
    ///
    /// # Errors
    /// When no block can begin there.
    pub fn split(bytes: &'a [u8]) -> Result<(Block<'a>, &'a [u8]), BadBlock> {
        let (head, rest) = bytes.split_first_chunk::<BLOCK_HEAD>().ok_or(BadBlock::Short)?;
        let (mark, crc) = (u32_at(head, 0), u32_at(head, 4));
        let len = usize::try_from(mark & !AS_IT_IS).map_err(|_| BadBlock::Length)?;
        if len > BLOCK_STORED_MAX {
            return Err(BadBlock::Length);
        }
        let (stored, rest) = rest.split_at_checked(len).ok_or(BadBlock::Short)?;
        Ok((Block { stored, as_it_is: mark & AS_IT_IS != 0, crc }, rest))
    }

    /// Its content, which must fill `into`.
    ///
    /// # Errors
    /// When it is damaged; `into` then holds nothing of use.
    pub fn unpack(&self, into: &mut [u8]) -> Result<(), BadBlock> {
        if crc32fast::hash(self.stored) != self.crc {
            return Err(BadBlock::Checksum);
        }
        if self.as_it_is {
            if self.stored.len() != into.len() {
                return Err(BadBlock::Content);
            }
            into.copy_from_slice(self.stored);
            return Ok(());
        }
        match lz4_flex::block::decompress_into(self.stored, into) {
            Ok(len) if len == into.len() => Ok(()),
            _ => Err(BadBlock::Content),
        }
    }
}

/// A place of an archive that could not be unpacked: the content there reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Offset in the segment.
    pub offset: u64,
    /// How much is missing.
    pub len: u64,
    /// Why.
    pub what: BadBlock,
}

/// Unpack a whole archive file into `segment`, which becomes as long as the segment was.
///
/// # Errors
/// When the header cannot be used. Damage behind it is told by holes; a wrong digest by `digest_holds`.
pub fn unpack(file: &[u8], segment: &mut Vec<u8>) -> Result<Unpacked, BadArchive> {
    let header = ArchiveHeader::from_bytes(file)?;
    let mut rest = file.get(HEADER_LEN..).unwrap_or_default();
    // What the file cannot hold is not made room for: LZ4 packs at best 255 to 1.
    if header.content / 255 > file.len() as u64 {
        return Err(BadArchive::Contradiction("the content is longer than the file can hold"));
    }
    let content =
        usize::try_from(header.content).map_err(|_| BadArchive::Contradiction("too long for this machine"))?;
    segment.clear();
    segment.resize(content, 0);
    let (mut holes, mut offset, mut lost) = (Vec::new(), 0u64, None);
    for part in segment.chunks_mut(BLOCK_CONTENT) {
        let len = part.len() as u64;
        let unpacked = match lost {
            Some(what) => Err(what),
            None => match Block::split(rest) {
                Ok((block, next)) => {
                    rest = next;
                    block.unpack(part)
                }
                Err(what) => {
                    lost = Some(what);
                    Err(what)
                }
            },
        };
        if let Err(what) = unpacked {
            part.fill(0);
            holes.push(Hole { offset, len, what });
        }
        offset += len;
    }
    let digest_holds = *blake3::hash(segment).as_bytes() == header.digest;
    Ok(Unpacked { header, holes, digest_holds, rest: rest.len() as u64 })
}

/// What [`unpack`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The header.
    pub header: ArchiveHeader,
    /// Damage, in order.
    pub holes: Vec<Hole>,
    /// The digest over the content is the one in the header.
    pub digest_holds: bool,
    /// Bytes behind the last block.
    pub rest: u64,
}

impl Unpacked {
    /// Whether anything is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.holes.is_empty() && self.digest_holds && self.rest == 0
    }
}

/// A line of the list beside the archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The segment.
    pub number: SegmentNo,
    /// BLAKE3 of its content.
    pub digest: [u8; 32],
}

/// The line for an archive.
#[must_use]
pub fn manifest_line(header: &ArchiveHeader) -> String {
    let digest = header.digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let (first, end, content, stored) = (header.first_lsn(), header.end_lsn(), header.content, header.stored);
    format!("{} lsn {first} {end} content {content} stored {stored} blake3 {digest}\n", file_name(header.number))
}

/// The lines of a list; what is no whole line (a crash cut it short) is left out, for the archive says the same. Of one
/// segment the last line counts.
#[must_use]
pub fn manifest_lines(text: &[u8]) -> Vec<Listed> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let text = String::from_utf8_lossy(text.get(..whole).unwrap_or_default());
    text.lines().filter_map(listed).collect()
}

fn listed(line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    let digits = words.next()?.strip_prefix("archive-")?;
    let number = SegmentNo(u64::from_str_radix(digits, 16).ok()?);
    let hex = line.rsplit_once(" blake3 ")?.1;
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(Listed { number, digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples;

    fn archive() -> (Vec<u8>, Vec<u8>) {
        let (header, bytes) = samples::segment();
        let closed = closed(&header, &bytes).unwrap();
        assert_eq!(closed.content, bytes.len() as u64);
        let mut packer = Packer::new(&header, closed);
        let blocks: Vec<u8> = bytes.chunks(BLOCK_CONTENT).flat_map(|part| packer.block(part)).collect();
        let head = packer.finish().unwrap();
        ([head.to_bytes().as_slice(), &blocks].concat(), bytes)
    }

    #[test]
    fn a_closed_segment_comes_back_and_takes_less() {
        let (file, bytes) = archive();
        let mut segment = Vec::new();
        let unpacked = unpack(&file, &mut segment).unwrap();
        assert!(unpacked.is_whole());
        assert_eq!(segment, bytes);
        assert!(file.len() < bytes.len());
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let (file, _) = archive();
        let mut segment = Vec::new();
        for at in 0..file.len() {
            for pattern in [0x01, 0x80] {
                let mut damaged = file.clone();
                damaged[at] ^= pattern;
                assert!(!unpack(&damaged, &mut segment).is_ok_and(|found| found.is_whole()), "byte {at}");
            }
            assert!(!unpack(&file[..at], &mut segment).is_ok_and(|found| found.is_whole()), "cut at {at}");
        }
    }

    #[test]
    fn a_segment_that_is_open_or_damaged_is_not_archived() {
        let (header, mut bytes) = samples::segment();
        let last = bytes.len() - 4096;
        assert_eq!(closed(&header, &bytes[..last]), Err(NotClosed::Open(last as u64)));
        bytes[5000] ^= 1;
        assert!(matches!(closed(&header, &bytes), Err(NotClosed::Damaged(..))));
    }

    #[test]
    fn the_list_is_read_back_and_a_line_cut_short_is_left_out() {
        let (file, _) = archive();
        let header = ArchiveHeader::from_bytes(&file).unwrap();
        let line = manifest_line(&header);
        let text = line.repeat(2);
        let due = Listed { number: header.number, digest: header.digest };
        assert_eq!(manifest_lines(text.as_bytes()), [due.clone(), due.clone()]);
        for cut in line.len()..text.len() - 1 {
            assert_eq!(manifest_lines(&text.as_bytes()[..cut]), std::slice::from_ref(&due));
        }
    }
}
