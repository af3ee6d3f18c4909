//! A batch: the records that one write makes durable.
//!
//! The bytes are one aligned buffer. Reserving splits a record's part off its front, under the journal's lock; the
//! caller fills the part with no lock held (parts are disjoint, so that needs nothing unsafe) and hands it back; the
//! writer joins the parts again, in order, without a copy. Two buffers go round: one open, one being written.

use super::target::Target;
use bytes::BytesMut;
use journal_format::event::codec::Row;
use journal_format::ids::{Lsn, Time};
use journal_format::record::{HEADER_LEN, KIND_PADDING, KIND_SEGMENT_END, Layout, RecordHeader, body_sum, filler};
use journal_format::segment::BLOCK;
use std::sync::Arc;

/// Most bytes of a batch.
pub const BATCH_MAX: u64 = 4 << 20;
/// Bytes that are copied and summed in one step.
const AT_ONCE: usize = 16 << 10;
pub const BLOCK_LEN: usize = 4096;
const BATCH_LEN: usize = 4 << 20;
const _: () = assert!(BATCH_LEN as u64 == BATCH_MAX && BLOCK_LEN as u64 == BLOCK);

/// A buffer as long as a batch may be, at an address that direct I/O accepts.
pub fn buffer() -> Buffer {
    let mut bytes = BytesMut::zeroed(BATCH_LEN + BLOCK_LEN);
    let skip = bytes.as_ptr().align_offset(BLOCK_LEN).min(BLOCK_LEN);
    drop(bytes.split_to(skip));
    bytes.truncate(BATCH_LEN);
    Buffer { bytes, parts: Vec::new() }
}

/// What goes from batch to batch: nothing is allocated for a record.
pub struct Buffer {
    pub bytes: BytesMut,
    parts: Vec<Part>,
}

pub fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("lengths inside a batch fit usize on a 64-bit machine")
}

/// A record's place in a batch, to be filled.
pub struct Part {
    pub batch: u64,
    /// Offset in the batch.
    at: u64,
    header: RecordHeader,
    layout: Layout,
    salt: u32,
    bytes: BytesMut,
    is_durable: bool,
}

impl Part {
    /// Copy the record in. The checksum of the body goes where that of the record will be.
    pub fn fill(&mut self, archive: &[u8], bulk: &[u8]) {
        let at = |n: u32| to_usize(u64::from(n));
        let layout = self.layout;
        // The layout was made from these very lengths.
        self.bytes[HEADER_LEN..at(layout.archive_end)].copy_from_slice(archive);
        self.bytes[at(layout.archive_end)..at(layout.bulk_at)].fill(0);
        let mut sum = body_sum(self.salt, &self.bytes[HEADER_LEN..at(layout.bulk_at)]);
        // Summed while the copy is still in the nearest cache.
        let to = self.bytes[at(layout.bulk_at)..at(layout.bulk_end)].chunks_mut(AT_ONCE);
        for (to, from) in to.zip(bulk.chunks(AT_ONCE)) {
            to.copy_from_slice(from);
            sum = body_sum(sum, to);
        }
        self.bytes[at(layout.bulk_end)..].fill(0);
        self.header.crc = body_sum(sum, &self.bytes[at(layout.bulk_end)..]);
    }

    /// Now the durable LSN is known: everything before this batch.
    fn seal(&mut self, durable: Lsn) {
        let header = RecordHeader { durable, ..self.header };
        self.bytes[..HEADER_LEN].copy_from_slice(&header.summed(self.header.crc).to_bytes());
    }
}

pub struct Batch {
    pub id: u64,
    pub target: Arc<Target>,
    /// Offset in the segment: a whole number of blocks.
    pub start: u64,
    /// Bytes reserved.
    pub used: u64,
    /// Parts given out and not handed back.
    pub outstanding: usize,
    pub records: u64,
    /// Those of them that nobody waits for.
    pub unhurried: u64,
    parts: Vec<Part>,
    rest: BytesMut,
}

/// Why a record does not go into the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The batch is full.
    Batch,
    /// The segment is.
    Segment,
}

impl Batch {
    pub fn new(id: u64, target: Arc<Target>, start: u64, buffer: Buffer) -> Batch {
        debug_assert!(start.is_multiple_of(BLOCK) && buffer.bytes.len() == BATCH_LEN && buffer.parts.is_empty());
        Batch {
            id,
            target,
            start,
            used: 0,
            outstanding: 0,
            records: 0,
            unhurried: 0,
            parts: buffer.parts,
            rest: buffer.bytes,
        }
    }

    /// LSN of the next record, if it goes into this batch.
    pub fn next_lsn(&self) -> Lsn {
        self.target.segment.header.first_lsn().plus(self.start + self.used)
    }

    /// Largest record that some batch of these segments can hold.
    pub fn record_max(segment_size: u64) -> u64 {
        (segment_size - BLOCK).min(BATCH_MAX) - HEADER_LEN as u64
    }

    /// Is there place for a record, and a filler behind it?
    pub fn fits(&self, length: u64) -> Result<(), NoPlace> {
        let end = self.used + length + HEADER_LEN as u64;
        if self.start + end > self.target.segment.header.size {
            Err(NoPlace::Segment)
        } else if end.next_multiple_of(BLOCK) > BATCH_MAX {
            Err(NoPlace::Batch)
        } else {
            Ok(())
        }
    }

    /// Reserve the next bytes for a record that [`Self::fits`].
    pub fn reserve(&mut self, layout: Layout, row: Row, time: Time) -> Part {
        let header = RecordHeader {
            length: layout.length,
            kind: row.kind,
            version: row.version,
            lsn: self.next_lsn(),
            time,
            durable: Lsn(0),
            flags: 0,
            archived_len: layout.archived_len(),
            bulk_len: layout.bulk_end - layout.bulk_at,
            crc: 0,
        };
        let part = Part {
            batch: self.id,
            at: self.used,
            header,
            layout,
            salt: self.target.segment.header.salt,
            is_durable: row.name == "Durable",
            bytes: self.rest.split_to(to_usize(u64::from(layout.length))),
        };
        self.used += u64::from(layout.length);
        self.outstanding += 1;
        self.records += 1;
        part
    }

    /// Holds a `Durable` record and nothing else.
    pub fn is_only_durable(&self) -> bool {
        self.parts.iter().all(|part| part.is_durable)
    }

    /// A filled part comes back.
    pub fn hand_back(&mut self, part: Part) {
        self.outstanding -= 1;
        self.parts.push(part);
    }

    /// End of the batch with its filler, in the segment.
    pub fn end(&self) -> u64 {
        (self.start + self.used + HEADER_LEN as u64).next_multiple_of(BLOCK)
    }

    /// The finished bytes, every record stating `durable`, a filler at the end; and the whole buffer, for the next
    /// batch, of which those bytes are the beginning.
    pub fn finish(mut self, durable: Lsn, time: Time, ends_segment: bool) -> (Buffer, usize) {
        let header = self.target.segment.header;
        let length = self.end() - self.start - self.used;
        let kind = if ends_segment { KIND_SEGMENT_END } else { KIND_PADDING };
        let length_field = u32::try_from(length).expect("a filler is shorter than two blocks");
        let padding = filler(kind, length_field, self.next_lsn(), time, durable, header.salt);
        self.rest[..padding.len()].copy_from_slice(&padding);

        self.parts.sort_unstable_by_key(|part| part.at);
        let mut whole: Option<BytesMut> = None;
        for mut part in self.parts.drain(..) {
            part.seal(durable);
            match &mut whole {
                Some(whole) => whole.unsplit(part.bytes),
                None => whole = Some(part.bytes),
            }
        }
        let bytes = match whole {
            Some(mut whole) => {
                whole.unsplit(self.rest);
                whole
            }
            None => self.rest,
        };
        (Buffer { bytes, parts: self.parts }, to_usize(self.used + length))
    }
}
