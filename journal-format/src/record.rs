//! The header of a record, and its checksum.

use crate::fields::{i64_at, put, u16_at, u32_at, u64_at};
use crate::ids::{Lsn, Time};
use crc32fast::Hasher;

/// Records, their archives and their bulk data begin at multiples of this.
pub const ALIGN: u64 = 16;
/// Bytes of a record's header.
pub const HEADER_LEN: usize = 48;
const HEADER_LEN_U32: u32 = 48;
const _: () = assert!(HEADER_LEN_U32 as usize == HEADER_LEN);
/// Most bytes that may follow a header.
pub const BODY_MAX: u32 = 16 << 20;
/// Most bytes of a whole record.
pub const RECORD_MAX: u64 = HEADER_LEN as u64 + BODY_MAX as u64;

/// Kind of a record that fills space and says nothing.
pub const KIND_PADDING: u16 = 1;
/// Kind of a record behind which its segment holds nothing: go on in the next segment.
pub const KIND_SEGMENT_END: u16 = 2;

const LENGTH: usize = 0;
const KIND: usize = 4;
const VERSION: usize = 6;
const LSN: usize = 8;
const TIME: usize = 16;
const DURABLE: usize = 24;
const FLAGS: usize = 32;
const ARCHIVED_LEN: usize = 36;
const BULK_LEN: usize = 40;
const CRC: usize = 44;
const _: () = assert!(CRC + 4 == HEADER_LEN && (HEADER_LEN as u64).is_multiple_of(ALIGN));

/// A record's header, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Length of the whole record, header and padding included.
    pub length: u32,
    /// What it says; see the table of kinds.
    pub kind: u16,
    /// Version of the archived struct.
    pub version: u16,
    /// LSN of the record's first byte.
    pub lsn: Lsn,
    /// When.
    pub time: Time,
    /// Everything before this was durable when the record was written.
    pub durable: Lsn,
    /// None are defined; a record with any was written by a newer version.
    pub flags: u32,
    /// Length of the archive.
    pub archived_len: u32,
    /// Length of the bulk data.
    pub bulk_len: u32,
    /// CRC-32, seeded with the segment's salt, over body and header.
    pub crc: u32,
}

/// Where the parts of a record lie, from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the archive, which begins behind the header.
    pub archive_end: u32,
    /// Begin of the bulk data.
    pub bulk_at: u32,
    /// End of the bulk data.
    pub bulk_end: u32,
    /// Length of the record.
    pub length: u32,
}

const fn align_up(n: u64) -> u64 {
    n.div_ceil(ALIGN) * ALIGN
}

impl Layout {
    /// The layout of a record with these parts; `None` when it would be longer than the format allows.
    #[must_use]
    pub fn of(archived_len: u32, bulk_len: u32) -> Option<Layout> {
        let archive_end = HEADER_LEN as u64 + u64::from(archived_len);
        let bulk_at = align_up(archive_end);
        let bulk_end = bulk_at + u64::from(bulk_len);
        let length = align_up(bulk_end);
        if length > RECORD_MAX {
            return None;
        }
        Some(Layout {
            archive_end: u32::try_from(archive_end).ok()?,
            bulk_at: u32::try_from(bulk_at).ok()?,
            bulk_end: u32::try_from(bulk_end).ok()?,
            length: u32::try_from(length).ok()?,
        })
    }

    /// Length of the archive.
    #[must_use]
    pub const fn archived_len(&self) -> u32 {
        self.archive_end.saturating_sub(HEADER_LEN_U32)
    }
}

impl RecordHeader {
    /// The header's bytes; `crc` is put in as it is.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, LENGTH, &self.length.to_le_bytes());
        put(&mut bytes, KIND, &self.kind.to_le_bytes());
        put(&mut bytes, VERSION, &self.version.to_le_bytes());
        put(&mut bytes, LSN, &self.lsn.0.to_le_bytes());
        put(&mut bytes, TIME, &self.time.0.to_le_bytes());
        put(&mut bytes, DURABLE, &self.durable.0.to_le_bytes());
        put(&mut bytes, FLAGS, &self.flags.to_le_bytes());
        put(&mut bytes, ARCHIVED_LEN, &self.archived_len.to_le_bytes());
        put(&mut bytes, BULK_LEN, &self.bulk_len.to_le_bytes());
        put(&mut bytes, CRC, &self.crc.to_le_bytes());
        bytes
    }

    /// The fields in these bytes, unjudged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> RecordHeader {
        RecordHeader {
            length: u32_at(bytes, LENGTH),
            kind: u16_at(bytes, KIND),
            version: u16_at(bytes, VERSION),
            lsn: Lsn(u64_at(bytes, LSN)),
            time: Time(i64_at(bytes, TIME)),
            durable: Lsn(u64_at(bytes, DURABLE)),
            flags: u32_at(bytes, FLAGS),
            archived_len: u32_at(bytes, ARCHIVED_LEN),
            bulk_len: u32_at(bytes, BULK_LEN),
            crc: u32_at(bytes, CRC),
        }
    }

    /// The record says nothing to the fold: padding, or the end of its segment.
    #[must_use]
    pub const fn is_filler(&self) -> bool {
        self.kind == KIND_PADDING || self.kind == KIND_SEGMENT_END
    }

    /// Exclusive end of the record.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.lsn.plus(self.length as u64)
    }

    /// The header with its checksum put in, for a body whose [`body_sum`] is `body`.
    #[must_use]
    pub fn summed(mut self, body: u32) -> RecordHeader {
        self.crc = header_sum(body, &self.to_bytes());
        self
    }
}

/// Checksum of a record's body (all behind the header, padding included), seeded with the segment's salt. The header
/// is added last, by [`RecordHeader::summed`]: the durable LSN in it is known only when the record is about to be
/// written, long after the body was copied.
#[must_use]
pub fn body_sum(salt: u32, body: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt);
    hasher.update(body);
    hasher.finalize()
}

/// Checksum of body and header, for a body whose [`body_sum`] is `body`. Leaves out the checksum's own field.
#[must_use]
pub fn header_sum(body: u32, header: &[u8; HEADER_LEN]) -> u32 {
    let mut hasher = Hasher::new_with_initial(body);
    hasher.update(header.first_chunk::<CRC>().map_or(&[], |c| c.as_slice()));
    hasher.finalize()
}

/// The LSN that the bytes say they have, if they are a record's header: a cheap first look for a search by alignment.
#[must_use]
pub fn claimed_lsn(bytes: &[u8]) -> Lsn {
    Lsn(u64_at(bytes, LSN))
}

/// Bytes of a whole record with these parts; `header` gives kind, version, LSN, time and durable LSN, all else follows.
/// `None` when the parts are longer than the format allows.
#[must_use]
pub fn whole(header: RecordHeader, archive: &[u8], bulk: &[u8], salt: u32) -> Option<Vec<u8>> {
    let (archived_len, bulk_len) = (u32::try_from(archive.len()).ok()?, u32::try_from(bulk.len()).ok()?);
    let layout = Layout::of(archived_len, bulk_len)?;
    let mut body = archive.to_vec();
    body.resize(usize::try_from(layout.bulk_at).ok()? - HEADER_LEN, 0);
    body.extend_from_slice(bulk);
    body.resize(usize::try_from(layout.length).ok()? - HEADER_LEN, 0);
    let header = RecordHeader { length: layout.length, archived_len, bulk_len, ..header };
    let mut bytes = header.summed(body_sum(salt, &body)).to_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Some(bytes)
}

/// Bytes of a whole record without event, `length` long, that states nothing but time and durable LSN.
#[must_use]
pub fn filler(kind: u16, length: u32, lsn: Lsn, time: Time, durable: Lsn, salt: u32) -> Vec<u8> {
    let body = vec![0; usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(HEADER_LEN)];
    let header =
        RecordHeader { length, kind, version: 1, lsn, time, durable, flags: 0, archived_len: 0, bulk_len: 0, crc: 0 };
    let mut bytes = header.summed(body_sum(salt, &body)).to_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        let header = RecordHeader {
            length: 96,
            kind: 16,
            version: 3,
            lsn: Lsn(4096),
            time: Time(-7),
            durable: Lsn(0x0102_0304_0506_0708),
            flags: 0x8000_0001,
            archived_len: 21,
            bulk_len: 5,
            crc: 0xdead_beef,
        };
        assert_eq!(RecordHeader::from_bytes(&header.to_bytes()), header);
    }

    #[test]
    fn lengths_past_the_bound_have_no_layout() {
        assert!(Layout::of(BODY_MAX, 0).is_some());
        assert!(Layout::of(BODY_MAX - 15, 16).is_none());
        assert!(Layout::of(u32::MAX, u32::MAX).is_none());
    }
}
