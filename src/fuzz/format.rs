//! The journal's bytes.

use crate::state::State;
use journal_format::archive::{self, ArchiveHeader, BLOCK_CONTENT, Packer};
use journal_format::event::{codec, samples};
use journal_format::ids::{Lsn, SegmentNo, Time};
use journal_format::record::{ALIGN, HEADER_LEN, RecordHeader, body_sum};
use journal_format::scan::{Found, record_at, search};
use journal_format::segment::{BLOCK, SEGMENT_SIZE_MIN, SegmentHeader};
use journal_format::snapshot::SnapshotHeader;

const HEADER: SegmentHeader = SegmentHeader {
    journal_id: *b"0123456789abcdef",
    number: SegmentNo(3),
    size: SEGMENT_SIZE_MIN,
    salt: 0x5eed_5a17,
    created: Time(1),
};

/// A segment with these bytes behind its header.
fn segment_of(data: &[u8]) -> Vec<u8> {
    let mut bytes = HEADER.to_bytes();
    bytes.extend_from_slice(data);
    bytes.truncate(usize::try_from(HEADER.size).unwrap_or_default());
    bytes
}

/// The bytes as they are, and once more with a checksum that holds, so that what lies behind it is met too.
pub fn record(data: &[u8]) {
    let mut bytes = segment_of(data);
    look_at(&bytes);
    let at = usize::try_from(BLOCK).unwrap_or_default();
    let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>()) else { return };
    let header = RecordHeader { lsn: HEADER.first_record(), ..RecordHeader::from_bytes(head) };
    let end = at.saturating_add(usize::try_from(header.length).unwrap_or(usize::MAX));
    let Some(body) = bytes.get(at + HEADER_LEN..end) else { return };
    let head = header.summed(body_sum(HEADER.salt, body)).to_bytes();
    bytes[at..at + HEADER_LEN].copy_from_slice(&head);
    look_at(&bytes);
}

fn look_at(bytes: &[u8]) {
    if let Found::Record(record) = record_at(&HEADER, bytes, BLOCK) {
        assert!(record.end_offset() <= bytes.len() as u64 && record.end_offset().is_multiple_of(ALIGN));
        assert!(record.bulk_offset() + record.bulk.len() as u64 <= record.end_offset());
        if let Ok(Some(event)) = record.event() {
            // One of an older version is what today's makes of it.
            assert_eq!(event.row().kind, record.header.kind);
            assert!(event.row().version >= record.header.version);
        }
    }
}

pub fn record_seeds() -> Vec<Vec<u8>> {
    let (header, bytes) = samples::segment();
    let (mut seeds, mut offset) = (Vec::new(), BLOCK);
    while let Found::Record(record) = record_at(&header, &bytes, offset) {
        let (from, to) = (usize::try_from(offset), usize::try_from(record.end_offset()));
        if let (Ok(from), Ok(to)) = (from, to) {
            seeds.push(bytes[from..to.min(from + 2048)].to_vec());
        }
        offset = record.end_offset();
    }
    seeds
}

/// As recovery and the tools walk through a segment: always forward, never outside.
pub fn segment(data: &[u8]) {
    let bytes = segment_of(data);
    let mut offset = BLOCK;
    let mut steps = 0u64;
    while offset < HEADER.size {
        steps += 1;
        assert!(steps <= HEADER.size / ALIGN, "the walk does not get on");
        match record_at(&HEADER, &bytes, offset) {
            Found::Record(record) => offset = record.end_offset(),
            Found::Unwritten(place) | Found::Bad(place, _) | Found::End(place) => {
                assert_eq!(place.offset, offset);
                match search(&HEADER, &bytes, offset + ALIGN) {
                    Some(record) => {
                        assert!(record.offset > offset);
                        offset = record.offset;
                    }
                    None => break,
                }
            }
        }
    }
    if let Ok(closed) = archive::closed(&HEADER, &bytes) {
        assert!(closed.content <= HEADER.size);
    }
    let _ = SegmentHeader::from_bytes(data);
}

pub fn segment_seeds() -> Vec<Vec<u8>> {
    // Of another segment: made over for this place.
    let (header, bytes) = samples::segment();
    let (mut out, mut offset) = (Vec::new(), BLOCK);
    while let Found::Record(record) = record_at(&header, &bytes, offset) {
        let (from, to) = (usize::try_from(offset).unwrap_or_default(), usize::try_from(record.end_offset()));
        let Some(body) = to.ok().and_then(|to| bytes.get(from + HEADER_LEN..to)) else { break };
        let lsn = HEADER.first_lsn().plus(offset);
        let head = RecordHeader { lsn, ..record.header };
        out.extend_from_slice(&head.summed(body_sum(HEADER.salt, body)).to_bytes());
        out.extend_from_slice(body);
        offset = record.end_offset();
    }
    let mut torn = out.clone();
    torn[100] ^= 1;
    vec![out, torn, header.to_bytes()]
}

/// The frame; and the bytes as a state, which must come back as it was.
pub fn snapshot(data: &[u8]) {
    if let Ok((header, state)) = SnapshotHeader::open(data) {
        assert_eq!(header.length, state.len() as u64);
    }
    if let Ok(state) = State::from_json(data) {
        let json = state.to_json();
        assert!(State::from_json(&json).is_ok_and(|again| again == state), "a state does not come back");
    }
}

pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    let state = super::fold::sample_state().to_json();
    let header = SnapshotHeader::of(HEADER.journal_id, Lsn(8192), &state).to_bytes();
    vec![[header.as_slice(), &state].concat(), state, State::default().to_json()]
}

/// An archive of any kind: what is read can be written, and is then read as the same.
pub fn codec(data: &[u8]) {
    let Some((kind, archive)) = data.split_first() else { return };
    let row = codec::KINDS[usize::from(*kind) % codec::KINDS.len()];
    let Ok(event) = codec::decode(row.kind, row.version, archive) else { return };
    assert_eq!(event.row(), row);
    let mut again = Vec::new();
    if codec::encode(&event, &mut again).is_ok() {
        assert!(codec::decode(row.kind, row.version, &again).is_ok_and(|back| back == event), "{event:?}");
    }
}

pub fn codec_seeds() -> Vec<Vec<u8>> {
    let one = |event: &journal_format::event::Event| {
        let mut archive = Vec::new();
        codec::encode(event, &mut archive).ok()?;
        let place = codec::KINDS.iter().position(|row| *row == event.row())?;
        Some([&[u8::try_from(place).ok()?], archive.as_slice()].concat())
    };
    samples::all().iter().filter_map(|(event, _)| one(event)).collect()
}

/// The file as it is, once more with a header that holds, and as a list of archives.
pub fn archive(data: &[u8]) {
    let mut segment = Vec::new();
    let mut look = |file: &[u8]| {
        if let Ok(found) = archive::unpack(file, &mut segment) {
            assert_eq!(segment.len() as u64, found.header.content);
            assert!(!found.is_whole() || found.rest == 0);
        }
    };
    look(data);
    if let Some((head, blocks)) = data.split_first_chunk::<{ archive::HEADER_LEN }>() {
        let at =
            |at: usize| head.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b));
        let header = ArchiveHeader {
            journal_id: HEADER.journal_id,
            number: HEADER.number,
            size: HEADER.size,
            content: BLOCK + at(56) % (HEADER.size - BLOCK),
            stored: blocks.len() as u64,
            first_time: Time(0),
            last_time: Time(0),
            digest: [0; 32],
        };
        look(&[header.to_bytes().as_slice(), blocks].concat());
    }
    for line in archive::manifest_lines(data) {
        assert!(archive::file_name(line.number).len() == "archive-".len() + 16);
    }
}

pub fn archive_seeds() -> Vec<Vec<u8>> {
    let (header, bytes) = samples::segment();
    let Ok(closed) = archive::closed(&header, &bytes) else { return Vec::new() };
    let mut packer = Packer::new(&header, closed);
    let blocks: Vec<u8> = bytes.chunks(BLOCK_CONTENT).flat_map(|part| packer.block(part)).collect();
    let Some(head) = packer.finish() else { return Vec::new() };
    vec![[head.to_bytes().as_slice(), &blocks].concat(), archive::manifest_line(&head).into_bytes()]
}
