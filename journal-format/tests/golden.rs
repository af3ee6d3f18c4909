//! Journals that released versions wrote stay readable, byte for byte; damage is noticed wherever it falls.
//! `TAIN_GOLDEN=write cargo test -p journal-format` makes the current version's files anew: only before its release.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use journal_format::event::{Event, codec, samples};
use journal_format::record::RecordHeader;
use journal_format::scan::{Found, RecordRef, record_at, search};
use journal_format::segment::{BLOCK, SegmentHeader};
use journal_format::side::{self, SideHeader};
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Every record, fillers included, until something else is met.
fn records<'a>(segment: &SegmentHeader, bytes: &'a [u8]) -> Vec<RecordRef<'a>> {
    let mut records = Vec::new();
    let mut offset = BLOCK;
    while let Found::Record(record) = record_at(segment, bytes, offset) {
        offset = record.end_offset();
        records.push(record);
    }
    records
}

fn text(segment: &SegmentHeader, bytes: &[u8]) -> String {
    let mut text = format!("{segment:?}\n");
    for record in records(segment, bytes) {
        let RecordHeader { lsn, length, time, durable, kind, version, .. } = record.header;
        let event = record.event().expect("a readable record");
        let event = event.map_or("filler".into(), |event| format!("{event:?}"));
        text += &format!("{lsn} +{length} {} <{durable} {kind}.{version} {event} bulk {:?}\n", time.0, record.bulk);
    }
    text
}

#[test]
fn version_1_reads_and_writes_the_same_bytes_for_ever() {
    let (segment, bytes) = samples::segment();
    if std::env::var_os("TAIN_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(golden("v1.segment"), &bytes).unwrap();
        std::fs::write(golden("v1.txt"), text(&segment, &bytes)).unwrap();
    }
    let kept = std::fs::read(golden("v1.segment")).unwrap();
    assert!(kept == bytes, "what this version writes differs from golden/v1.segment");
    let header = SegmentHeader::from_bytes(&kept).unwrap();
    assert_eq!(header, segment);
    assert_eq!(text(&header, &kept), std::fs::read_to_string(golden("v1.txt")).unwrap());
}

#[test]
fn the_golden_journal_has_every_kind_and_both_fillers() {
    let (segment, bytes) = samples::segment();
    let records = records(&segment, &bytes);
    assert_eq!(records.last().unwrap().end_offset(), bytes.len() as u64);
    for row in codec::KINDS {
        assert!(records.iter().any(|record| record.header.kind == row.kind), "{}", row.name);
    }
    assert_eq!(records.iter().filter(|record| record.header.is_filler()).count(), 2);
    let events: Vec<Event> = records.iter().filter_map(|record| record.event().unwrap()).collect();
    assert_eq!(events.len(), samples::all().len());
}

#[test]
fn each_damaged_byte_of_a_segment_is_noticed_where_it_is() {
    let (segment, bytes) = samples::segment();
    let whole = records(&segment, &bytes);
    for record in &whole {
        for at in record.offset..record.end_offset() {
            for pattern in [0x01, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at as usize] ^= pattern;
                let found = record_at(&segment, &damaged, record.offset);
                assert!(matches!(found, Found::Bad(place, _) if place.offset == record.offset), "byte {at}");
            }
        }
    }
}

#[test]
fn a_record_behind_a_bad_one_is_found_by_alignment() {
    let (segment, mut bytes) = samples::segment();
    let (bad, next) = {
        let records = records(&segment, &bytes);
        (records[1].offset, records[2].offset)
    };
    bytes[bad as usize] ^= 0xff;
    assert_eq!(search(&segment, &bytes, bad).unwrap().offset, next);
}

#[test]
fn another_laps_salt_makes_every_record_bad() {
    let (segment, bytes) = samples::segment();
    let other = SegmentHeader { salt: segment.salt ^ 1, ..segment };
    assert!(matches!(record_at(&other, &bytes, BLOCK), Found::Bad(..)));
    assert!(search(&other, &bytes, BLOCK).is_none());
}

#[test]
fn a_segment_cut_anywhere_ends_without_a_panic() {
    let (segment, bytes) = samples::segment();
    for end in (0..bytes.len()).step_by(7) {
        for offset in (0..bytes.len() as u64).step_by(48) {
            let _ = record_at(&segment, &bytes[..end], offset);
        }
        let _ = SegmentHeader::from_bytes(&bytes[..end]);
    }
}

#[test]
fn version_1_of_a_side_segment_reads_and_writes_the_same_bytes_for_ever() {
    let bytes = samples::side();
    if std::env::var_os("TAIN_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(golden("v1.side"), &bytes).unwrap();
    }
    let kept = std::fs::read(golden("v1.side")).unwrap();
    assert!(kept == bytes, "what this version writes differs from golden/v1.side");
    SideHeader::open(&kept).unwrap();
    let (mut at, mut kinds) = (side::HEADER_LEN, std::collections::BTreeSet::new());
    while let Some((record, next)) = side::record_at(&kept, at).unwrap() {
        kinds.insert(record.header.kind);
        at = next;
    }
    assert_eq!(kinds.len(), codec::KINDS.len());
}
