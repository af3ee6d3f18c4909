//! A side segment: records of one junction that would pin the journal, moved out of it with their LSNs.
//!
//! A header, then the records as they are in the journal, back to back, in LSN order, each summed with salt 0. Nothing
//! of the junction between the header's two LSNs is missing. Written once and whole.

use crate::event::{Event, codec};
use crate::fields::{array_at, put, u32_at, u64_at};
use crate::ids::{JunctionId, Lsn};
use crate::record::{HEADER_LEN as RECORD_HEADER_LEN, Layout, RecordHeader, body_sum, header_sum};
use crate::scan::RecordRef;
use std::ops::Range;

/// First bytes of a side segment.
pub const MAGIC: [u8; 8] = *b"tain.sid";
/// Version of its frame.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header; the records follow.
pub const HEADER_LEN: usize = 64;

const VERSION: usize = 8;
const RECORDS_CRC: usize = 12;
const JOURNAL_ID: usize = 16;
const FROM: usize = 32;
const TO: usize = 40;
const LENGTH: usize = 48;
const JUNCTION: usize = 56;
const CRC: usize = HEADER_LEN - 4;
const _: () = assert!(JUNCTION + 4 <= CRC);

/// A side segment's header, as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideHeader {
    /// The journal it belongs to.
    pub journal_id: [u8; 16],
    /// Whose records it holds.
    pub junction: JunctionId,
    /// It holds all of them from here,
    pub from: Lsn,
    /// to here, exclusively.
    pub to: Lsn,
    /// Bytes of the records.
    pub length: u64,
    /// CRC-32 of the records.
    pub records_crc: u32,
}

/// Why a file is no usable side segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSide {
    /// Too short, or does not begin as a side segment does.
    #[error("is not a side segment of a tain journal")]
    NotASide,
    /// Written by a newer version.
    #[error("has format version {0}; this version of tain reads version {FORMAT_VERSION} only")]
    NewerVersion(u32),
    /// Damaged or cut short.
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    /// A record that cannot be read.
    #[error("the record at LSN {0} cannot be read: {1}")]
    Record(Lsn, codec::Error),
}

/// One record of a side segment.
#[derive(Clone, Debug, PartialEq)]
pub struct SideRecord {
    /// Its header.
    pub header: RecordHeader,
    /// What it says.
    pub event: Event,
    /// Where its bulk data is, in the file.
    pub bulk: Range<usize>,
}

impl SideHeader {
    /// The header for these records.
    #[must_use]
    pub fn of(journal_id: [u8; 16], junction: JunctionId, from: Lsn, to: Lsn, records: &[u8]) -> SideHeader {
        let records_crc = crc32fast::hash(records);
        SideHeader { journal_id, junction, from, to, length: records.len() as u64, records_crc }
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, RECORDS_CRC, &self.records_crc.to_le_bytes());
        put(&mut bytes, JOURNAL_ID, &self.journal_id);
        put(&mut bytes, FROM, &self.from.0.to_le_bytes());
        put(&mut bytes, TO, &self.to.0.to_le_bytes());
        put(&mut bytes, LENGTH, &self.length.to_le_bytes());
        put(&mut bytes, JUNCTION, &self.junction.0.to_le_bytes());
        let crc = crc32fast::hash(bytes.first_chunk::<CRC>().map_or(&[], |c| c.as_slice()));
        put(&mut bytes, CRC, &crc.to_le_bytes());
        bytes
    }

    /// The header of a whole file, whose checksums hold.
    ///
    /// # Errors
    /// When it is damaged or cannot be understood.
    pub fn open(file: &[u8]) -> Result<SideHeader, BadSide> {
        let (head, records) = file.split_first_chunk::<HEADER_LEN>().ok_or(BadSide::NotASide)?;
        if array_at(head, 0) != MAGIC {
            return Err(BadSide::NotASide);
        }
        if crc32fast::hash(head.first_chunk::<CRC>().map_or(&[], |c| c.as_slice())) != u32_at(head, CRC) {
            return Err(BadSide::Damaged("the header's checksum is wrong"));
        }
        let version = u32_at(head, VERSION);
        if version != FORMAT_VERSION {
            return Err(BadSide::NewerVersion(version));
        }
        let header = SideHeader {
            journal_id: array_at(head, JOURNAL_ID),
            junction: JunctionId(u32_at(head, JUNCTION)),
            from: Lsn(u64_at(head, FROM)),
            to: Lsn(u64_at(head, TO)),
            length: u64_at(head, LENGTH),
            records_crc: u32_at(head, RECORDS_CRC),
        };
        if header.length != records.len() as u64 {
            return Err(BadSide::Damaged("it is not as long as its header says"));
        }
        if crc32fast::hash(records) != header.records_crc {
            return Err(BadSide::Damaged("the records' checksum is wrong"));
        }
        Ok(header)
    }
}

/// The record at `at` of a whole file (the first is at [`HEADER_LEN`]), and where the next one is; `None` at the end.
///
/// # Errors
/// When it is damaged or cannot be understood.
pub fn record_at(file: &[u8], at: usize) -> Result<Option<(SideRecord, usize)>, BadSide> {
    let Some((record, next)) = frame_at(file, at)? else { return Ok(None) };
    let header = record.header;
    let event = codec::decode(header.kind, header.version, record.archive)
        .and_then(|event| codec::check(&event, record.bulk.len()).map(|()| event))
        .map_err(|error| BadSide::Record(header.lsn, error))?;
    let bulk = usize::try_from(record.bulk_offset()).map_err(|_| IMPOSSIBLE)?;
    Ok(Some((SideRecord { header, event, bulk: bulk..bulk + record.bulk.len() }, next)))
}

const IMPOSSIBLE: BadSide = BadSide::Damaged("a record's lengths are impossible");

/// The same, not yet understood. `file` may be a part of a file: the offset is from its first byte.
///
/// # Errors
/// When it is damaged.
pub fn frame_at(file: &[u8], at: usize) -> Result<Option<(RecordRef<'_>, usize)>, BadSide> {
    let rest = file.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let (head, _) = rest.split_first_chunk::<RECORD_HEADER_LEN>().ok_or(IMPOSSIBLE)?;
    let header = RecordHeader::from_bytes(head);
    let layout =
        Layout::of(header.archived_len, header.bulk_len).filter(|l| l.length == header.length).ok_or(IMPOSSIBLE)?;
    let to = |n: u32| usize::try_from(n).map_err(|_| IMPOSSIBLE);
    let record = rest.get(..to(layout.length)?).ok_or(IMPOSSIBLE)?;
    let body = record.get(RECORD_HEADER_LEN..).ok_or(IMPOSSIBLE)?;
    if header_sum(body_sum(0, body), head) != header.crc {
        return Err(BadSide::Damaged("a record's checksum is wrong"));
    }
    let archive = record.get(RECORD_HEADER_LEN..to(layout.archive_end)?).ok_or(IMPOSSIBLE)?;
    let bulk = record.get(to(layout.bulk_at)?..to(layout.bulk_end)?).ok_or(IMPOSSIBLE)?;
    Ok(Some((RecordRef { header, offset: at as u64, archive, bulk }, at + record.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples;

    #[test]
    fn a_side_segment_reads_back_and_every_damaged_byte_is_noticed() {
        let mut file = samples::side();
        let said: Vec<Event> = samples::all().into_iter().map(|(event, _)| event).collect();
        SideHeader::open(&file).unwrap();
        let (mut at, mut read) = (HEADER_LEN, Vec::new());
        while let Some((record, next)) = record_at(&file, at).unwrap() {
            at = next;
            read.push(record.event);
        }
        assert_eq!(read, said);
        for at in 0..file.len() {
            file[at] ^= 4;
            assert!(SideHeader::open(&file).is_err(), "byte {at}");
            let _ = record_at(&file, HEADER_LEN);
            file[at] ^= 4;
        }
        for cut in 0..file.len() {
            assert!(SideHeader::open(&file[..cut]).is_err());
        }
    }
}
