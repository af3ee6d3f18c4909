//! Reading in order, through maps, never past the durable LSN.

use super::Record;
use super::append::Shared;
use super::error::{Error, Result};
use super::map::{self, Map};
use super::segments::Segment;
use super::side::Aside;
use journal_format::event::codec;
use journal_format::ids::{Lsn, SegmentNo};
use journal_format::record::KIND_SEGMENT_END;
use journal_format::scan::{Found, header_at, record_at};
use journal_format::segment::BLOCK;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads records in order, never past the durable LSN. While it lives, the segment it stands in is not used again.
pub struct Reader {
    shared: Arc<Shared>,
    position: Lsn,
    here: Option<(Arc<Segment>, Arc<Map>)>,
    /// Before the journal.
    aside: Option<Aside>,
    only: Option<fn(u16) -> bool>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Lsn) -> Result<Reader> {
        let mut reader = Reader { shared, position: from, here: None, aside: None, only: None };
        let start = reader.shared.segments.start_lsn();
        // The header block of the first segment names nothing: a position in it is the start.
        if from < start && from.plus(BLOCK) < start {
            return Err(Error::Recycled { lsn: from, start });
        }
        reader.position = from.max(start);
        reader.enter()?;
        Ok(reader)
    }

    /// Records of other kinds are left out, and not even checked: somebody else reads them whole.
    #[must_use]
    pub fn only(mut self, wanted: fn(u16) -> bool) -> Reader {
        self.only = Some(wanted);
        self
    }

    /// Where the next record begins.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Read this first, from `from` on.
    pub(super) fn begin_aside(&mut self, aside: Aside, from: Lsn) {
        self.aside = Some(aside);
        self.position = from;
    }

    fn next_aside(&mut self, limit: Lsn) -> Result<Option<Record>> {
        let Some(aside) = &mut self.aside else { return Ok(None) };
        let segments = &self.shared.segments;
        match aside.next(&segments.dir, segments.id, self.position)? {
            Some((record, next)) => {
                if record.end > limit {
                    return Ok(None);
                }
                aside.passed(next);
                self.position = record.end;
                Ok(Some(record))
            }
            None if aside.to > limit => Ok(None),
            None => {
                self.position = self.position.max(aside.to);
                self.aside = None;
                Ok(None)
            }
        }
    }

    /// The next record that ends at or before `limit` (and is durable); `None` when there is none now.
    pub fn next(&mut self, limit: Lsn) -> Result<Option<Record>> {
        if self.aside.is_some() {
            let record = self.next_aside(limit)?;
            if record.is_some() || self.aside.is_some() {
                return Ok(record);
            }
        }
        loop {
            let bound = limit.min(Lsn(self.shared.durable.load(Ordering::Acquire)));
            if self.position >= bound || !self.enter()? {
                return Ok(None);
            }
            let Some((segment, map)) = &self.here else { return Ok(None) };
            let offset = (self.position.0 - segment.header.first_lsn().0).max(BLOCK);
            let at = segment.header.first_lsn().plus(offset);
            if at >= bound {
                // No record stands in a segment's first block.
                self.position = self.position.max(bound);
                return Ok(None);
            }
            if let Some(wanted) = self.only
                && let Some(header) = header_at(&segment.header, map.durable(), offset)
                && header.kind != KIND_SEGMENT_END
                && !wanted(header.kind)
                && header.end() <= bound
            {
                self.position = header.end();
                continue;
            }
            let record = match record_at(&segment.header, map.durable(), offset) {
                Found::Record(record) => record,
                Found::Unwritten(place) => {
                    return Err(self.corrupt(place.offset, "durable records are missing".into()));
                }
                Found::Bad(place, fault) => return Err(self.corrupt(place.offset, fault.to_string())),
                Found::End(place) => return Err(self.corrupt(place.offset, "the segment ends too early".into())),
            };
            let end = record.header.end();
            if end > bound {
                return Ok(None);
            }
            let next = if record.header.kind == KIND_SEGMENT_END { segment.header.end_lsn() } else { end };
            if self.only.is_some_and(|wanted| !wanted(record.header.kind)) {
                self.position = next;
                continue;
            }
            let event = match record.event() {
                Ok(event) => event,
                Err(error) => return Err(self.unreadable(record.offset, error)),
            };
            let Some(event) = event else {
                self.position = next;
                continue;
            };
            let range = record.bulk_offset()..record.bulk_offset() + u64::from(record.header.bulk_len);
            let Some(bulk) = map::bytes(map, range) else {
                return Err(self.corrupt(record.offset, "bulk data outside the segment".into()));
            };
            let (lsn, time) = (record.header.lsn, record.header.time);
            self.position = next;
            return Ok(Some(Record { lsn, end, time, event, bulk }));
        }
    }

    /// Stand in the segment of the position; `false` when there is none yet.
    fn enter(&mut self) -> Result<bool> {
        let number = SegmentNo(self.position.0 / self.shared.segments.size);
        if self.here.as_ref().is_some_and(|(segment, map)| segment.header.number == number && map.is_current()) {
            return Ok(true);
        }
        self.here = None;
        let Some(segment) = self.shared.segments.get(number) else {
            let start = self.shared.segments.start_lsn();
            if self.position < start {
                return Err(Error::Recycled { lsn: self.position, start });
            }
            return Ok(false);
        };
        let map = segment.map(&self.shared.durable, self.position.0 % self.shared.segments.size)?;
        self.here = Some((segment, map));
        Ok(true)
    }

    fn corrupt(&self, offset: u64, what: String) -> Error {
        let number = self.here.as_ref().map_or(SegmentNo(0), |(segment, _)| segment.header.number);
        let first = self.here.as_ref().map_or(Lsn(0), |(segment, _)| segment.header.first_lsn());
        Error::Corrupt { segment: number, offset, lsn: first.plus(offset), what }
    }

    fn unreadable(&self, offset: u64, error: codec::Error) -> Error {
        match error {
            codec::Error::UnknownKind { .. }
            | codec::Error::NewerVersion { .. }
            | codec::Error::UnknownFlags { .. } => Error::NewerVersion { what: error.to_string() },
            codec::Error::Archive { .. } | codec::Error::Bound { .. } => self.corrupt(offset, error.to_string()),
        }
    }
}
