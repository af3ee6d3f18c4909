//! Finding records in a segment's bytes. No opinion on what a bad one means: recovery and tools judge.

use crate::event::{Event, codec};
use crate::ids::Lsn;
use crate::planted::is;
use crate::record::{ALIGN, HEADER_LEN, Layout, RECORD_MAX, RecordHeader, body_sum, claimed_lsn, header_sum};
use crate::segment::SegmentHeader;

/// What lies at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found<'a> {
    /// A whole record.
    Record(RecordRef<'a>),
    /// A header of zeros.
    Unwritten(Place),
    /// Something else: damaged, torn, or left behind by an earlier lap.
    Bad(Place, Fault),
    /// The segment's bytes end here.
    End(Place),
}

/// A place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the segment's first byte.
    pub offset: u64,
    /// The same as an LSN.
    pub lsn: Lsn,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its LSN is not that of its place.
    #[error("the record states an LSN that is not its place")]
    Lsn,
    /// Its lengths are impossible.
    #[error("the record's lengths are impossible")]
    Length,
    /// It reaches past the end of the bytes.
    #[error("the record reaches past the end of its segment")]
    TooLong,
    /// Its checksum is wrong.
    #[error("the record's checksum is wrong")]
    Checksum,
}

/// A record whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordRef<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Where it is, from the segment's first byte.
    pub offset: u64,
    /// The archived event.
    pub archive: &'a [u8],
    /// The bulk data.
    pub bulk: &'a [u8],
}

impl RecordRef<'_> {
    /// Offset behind the record.
    #[must_use]
    pub const fn end_offset(&self) -> u64 {
        self.offset + self.header.length as u64
    }

    /// Offset of the bulk data, from the segment's first byte.
    #[must_use]
    pub fn bulk_offset(&self) -> u64 {
        let at = Layout::of(self.header.archived_len, self.header.bulk_len).map_or(0, |layout| layout.bulk_at);
        self.offset + u64::from(at)
    }

    /// What the record says; `None` for padding and a segment's end.
    ///
    /// # Errors
    /// When a newer version wrote it, or its archive is not what its kind says.
    pub fn event(&self) -> Result<Option<Event>, codec::Error> {
        if self.header.flags != 0 {
            return Err(codec::Error::UnknownFlags { flags: self.header.flags, kind: self.header.kind });
        }
        if self.header.is_filler() {
            return Ok(None);
        }
        let event = codec::decode(self.header.kind, self.header.version, self.archive)?;
        codec::check(&event, self.bulk.len())?;
        Ok(Some(event))
    }
}

/// What lies at `offset` of the segment. `bytes` begin with the segment's first byte and may end before the segment
/// does. Total: any bytes give an answer, in time bounded by one record.
#[must_use]
pub fn record_at<'a>(segment: &SegmentHeader, bytes: &'a [u8], offset: u64) -> Found<'a> {
    let place = Place { offset, lsn: segment.first_lsn().plus(offset) };
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    let Some((head, _)) = rest.split_first_chunk::<HEADER_LEN>() else {
        return Found::End(place);
    };
    if head.iter().all(|byte| *byte == 0) {
        return Found::Unwritten(place);
    }
    match whole_record(segment, head, rest, place) {
        Ok(record) => Found::Record(record),
        Err(fault) => Found::Bad(place, fault),
    }
}

/// The header at `offset`, if it may be one, for whoever passes over records that are checked elsewhere: its checksum
/// says nothing yet.
#[must_use]
pub fn header_at(segment: &SegmentHeader, bytes: &[u8], offset: u64) -> Option<RecordHeader> {
    let place = Place { offset, lsn: segment.first_lsn().plus(offset) };
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..))?;
    let (head, _) = rest.split_first_chunk::<HEADER_LEN>()?;
    let (header, _) = possible(segment, head, place).ok()?;
    (rest.len() as u64 >= u64::from(header.length)).then_some(header)
}

/// A header in its place that contradicts neither itself nor the segment.
fn possible(segment: &SegmentHeader, head: &[u8; HEADER_LEN], place: Place) -> Result<(RecordHeader, Layout), Fault> {
    let header = RecordHeader::from_bytes(head);
    let old_lap = is('f') && header.lsn.0 % segment.size == place.lsn.0 % segment.size;
    if header.lsn != place.lsn && !old_lap {
        return Err(Fault::Lsn);
    }
    let layout = Layout::of(header.archived_len, header.bulk_len).ok_or(Fault::Length)?;
    // Fillers are longer than their parts; nothing else is.
    let fits = if header.is_filler() { header.length >= layout.length } else { header.length == layout.length };
    if !fits || u64::from(header.length) > RECORD_MAX || !u64::from(header.length).is_multiple_of(ALIGN) {
        return Err(Fault::Length);
    }
    Ok((header, layout))
}

fn whole_record<'a>(
    segment: &SegmentHeader,
    head: &[u8; HEADER_LEN],
    rest: &'a [u8],
    place: Place,
) -> Result<RecordRef<'a>, Fault> {
    let (header, layout) = possible(segment, head, place)?;
    let length = usize::try_from(header.length).map_err(|_| Fault::Length)?;
    let record = rest.get(..length).ok_or(Fault::TooLong)?;
    let body = record.get(HEADER_LEN..).ok_or(Fault::Length)?;
    if header_sum(body_sum(segment.salt, body), head) != header.crc && !is('d') {
        return Err(Fault::Checksum);
    }
    let part = |from: usize, len: u32| {
        let len = usize::try_from(len).ok()?;
        record.get(from..from.checked_add(len)?)
    };
    let bulk_at = usize::try_from(layout.bulk_at).map_err(|_| Fault::Length)?;
    Ok(RecordRef {
        header,
        offset: place.offset,
        archive: part(HEADER_LEN, header.archived_len).ok_or(Fault::Length)?,
        bulk: part(bulk_at, header.bulk_len).ok_or(Fault::Length)?,
    })
}

/// The first whole record at or behind `from`, searched for by alignment: for what lies behind a bad one.
#[must_use]
pub fn search<'a>(segment: &SegmentHeader, bytes: &'a [u8], from: u64) -> Option<RecordRef<'a>> {
    let mut offset = from.next_multiple_of(ALIGN);
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..))?;
    let first = segment.first_lsn();
    for step in rest.chunks_exact(16) {
        // The LSN lies in the first 16 bytes of a header; nearly every place fails this cheap look.
        if claimed_lsn(step) == first.plus(offset)
            && let Found::Record(record) = record_at(segment, bytes, offset)
        {
            return Some(record);
        }
        offset += ALIGN;
    }
    None
}
