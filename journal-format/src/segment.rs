//! The first block of a segment.

use crate::fields::{array_at, i64_at, put, u32_at, u64_at};
use crate::ids::{Lsn, SegmentNo, Time};

/// Bytes of the header block; also the device block that batches begin at.
pub const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;
/// First bytes of a segment.
pub const MAGIC: [u8; 8] = *b"tain.jnl";
/// Version of the format of segments and record headers.
pub const FORMAT_VERSION: u32 = 1;
/// Smallest segment.
pub const SEGMENT_SIZE_MIN: u64 = 64 << 10;
/// Largest segment.
pub const SEGMENT_SIZE_MAX: u64 = 1 << 32;

const VERSION: usize = 8;
const HEADER_LEN: usize = 12;
const JOURNAL_ID: usize = 16;
const NUMBER: usize = 32;
const FIRST_LSN: usize = 40;
const SIZE: usize = 48;
const SALT: usize = 56;
const CREATED: usize = 64;
const CRC: usize = BLOCK_LEN - 4;
const _: () = assert!(CREATED + 8 <= CRC);

/// A segment's header, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The journal it belongs to.
    pub journal_id: [u8; 16],
    /// Its number; segment `n` holds the LSNs from `n * size` on.
    pub number: SegmentNo,
    /// Bytes of the segment, this block included.
    pub size: u64,
    /// Random, new at each lap: what an earlier lap left behind fails every checksum.
    pub salt: u32,
    /// When this lap began.
    pub created: Time,
}

/// Why a block is not a segment's header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSegment {
    /// Too short, or does not begin as a segment does.
    #[error("does not begin like a segment of a tain journal")]
    NotASegment,
    /// Written by a newer version.
    #[error("has format version {0}; this version of tain reads version {FORMAT_VERSION} only")]
    NewerVersion(u32),
    /// Damaged.
    #[error("the checksum of the segment's header is wrong")]
    Checksum,
    /// Whole, and yet impossible.
    #[error("the segment's header contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl SegmentHeader {
    /// LSN of the segment's first byte (the header block is part of the LSN space).
    #[must_use]
    pub const fn first_lsn(&self) -> Lsn {
        Lsn(self.number.0.saturating_mul(self.size))
    }

    /// LSN of the first record.
    #[must_use]
    pub const fn first_record(&self) -> Lsn {
        self.first_lsn().plus(BLOCK)
    }

    /// Exclusive end of the segment's LSNs.
    #[must_use]
    pub const fn end_lsn(&self) -> Lsn {
        self.first_lsn().plus(self.size)
    }

    /// The block's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, HEADER_LEN, &4096u32.to_le_bytes());
        put(&mut bytes, JOURNAL_ID, &self.journal_id);
        put(&mut bytes, NUMBER, &self.number.0.to_le_bytes());
        put(&mut bytes, FIRST_LSN, &self.first_lsn().0.to_le_bytes());
        put(&mut bytes, SIZE, &self.size.to_le_bytes());
        put(&mut bytes, SALT, &self.salt.to_le_bytes());
        put(&mut bytes, CREATED, &self.created.0.to_le_bytes());
        let crc = crc32fast::hash(bytes.get(..CRC).unwrap_or_default());
        put(&mut bytes, CRC, &crc.to_le_bytes());
        bytes
    }

    /// Read the header from a segment's first bytes.
    ///
    /// # Errors
    /// When they are no header, or one that cannot be trusted or understood.
    pub fn from_bytes(bytes: &[u8]) -> Result<SegmentHeader, BadSegment> {
        let block = bytes.get(..BLOCK_LEN).ok_or(BadSegment::NotASegment)?;
        if array_at(block, 0) != MAGIC {
            return Err(BadSegment::NotASegment);
        }
        if crc32fast::hash(block.get(..CRC).unwrap_or_default()) != u32_at(block, CRC) {
            return Err(BadSegment::Checksum);
        }
        let version = u32_at(block, VERSION);
        if version != FORMAT_VERSION {
            return Err(BadSegment::NewerVersion(version));
        }
        let header = SegmentHeader {
            journal_id: array_at(block, JOURNAL_ID),
            number: SegmentNo(u64_at(block, NUMBER)),
            size: u64_at(block, SIZE),
            salt: u32_at(block, SALT),
            created: Time(i64_at(block, CREATED)),
        };
        let size_ok = (SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&header.size) && header.size.is_multiple_of(BLOCK);
        if !size_ok {
            return Err(BadSegment::Contradiction("impossible size"));
        }
        if header.number.0.checked_mul(header.size) != Some(u64_at(block, FIRST_LSN)) {
            return Err(BadSegment::Contradiction("first LSN is not number times size"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader { journal_id: [7; 16], number: SegmentNo(3), size: 1 << 20, salt: 99, created: Time(5) }
    }

    #[test]
    fn a_header_block_comes_back_and_every_damaged_byte_is_noticed() {
        let bytes = header().to_bytes();
        assert_eq!(SegmentHeader::from_bytes(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(SegmentHeader::from_bytes(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = header().to_bytes();
        put(&mut bytes, VERSION, &9u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC]);
        put(&mut bytes, CRC, &crc.to_le_bytes());
        assert_eq!(SegmentHeader::from_bytes(&bytes), Err(BadSegment::NewerVersion(9)));
    }
}
