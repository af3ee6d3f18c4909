//! Repair from outside: it tells, it writes only when asked, and nothing that it cuts is lost.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use journal_format::event::{Cursor, Durable, Event, codec, samples};
use journal_format::ids::{JunctionId, LocationId, Lsn, SegmentNo};
use journal_format::record::{KIND_SEGMENT_END, RecordHeader, filler, whole};
use journal_format::scan::{Found, record_at};
use journal_format::segment::{BLOCK, SegmentHeader};
use journal_format::side::SideHeader;
use journal_format::snapshot::HEADER_LEN;
use journal_format::snapshot::SnapshotHeader;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};

fn tool(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tain-journal")).args(args).arg(dir).output().unwrap()
}

fn json(args: &[&str], dir: &Path) -> Value {
    let output = tool(args, dir);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A journal of one segment, and a snapshot that says that all of it was durable. Gives the offset of the tenth record.
fn journal(dir: &Path) -> u64 {
    let (header, written) = samples::segment();
    let written = &written[..written.len() - 4096];
    let mut bytes = written.to_vec();
    bytes.resize(header.size as usize, 0);
    std::fs::write(dir.join("segment-0000000000000000"), &bytes).unwrap();
    let lsn = Lsn(written.len() as u64);
    let snapshot = SnapshotHeader::of(header.journal_id, lsn, b"");
    std::fs::write(dir.join(format!("snapshot-{:016x}", lsn.0)), snapshot.to_bytes()).unwrap();
    let mut offset = BLOCK;
    for _ in 0..10 {
        let Found::Record(record) = record_at(&header, written, offset) else { panic!("{offset}") };
        offset = record.end_offset();
    }
    offset
}

/// Every file below, with its bytes; the lock says nothing.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else if name != "lock" {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

fn damage(dir: &Path, at: u64) {
    let path = dir.join("segment-0000000000000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at as usize + 20] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_whole_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let before = files(dir.path());
    let report = json(&["repair", "--write", "--json"], dir.path());
    assert_eq!((&report["cut_lsn"], &report["written"]), (&Value::Null, &false.into()));
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = journal(dir.path());
    damage(dir.path(), at);
    let before = files(dir.path());
    let told = tool(&["repair", "--json"], dir.path());
    assert_eq!(told.status.code(), Some(1), "there is something to do");
    let report: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(report["cut_lsn"], at);
    assert!(report["lost_records_seen"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_cut_leaves_a_journal_that_is_whole_and_keeps_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let at = journal(dir.path());
    damage(dir.path(), at);
    let before = files(dir.path());
    assert_eq!(tool(&["verify"], dir.path()).status.code(), Some(1));
    let report = json(&["repair", "--write", "--json"], dir.path());
    assert_eq!(report["written"], true, "{report}");
    let after = files(dir.path());
    // The segment's end, and the snapshot that is younger than the cut, lie aside byte for byte.
    let segment = &before["segment-0000000000000000"];
    let (kept, at_end) = (&after["repair-1/segment-0000000000000000"], at as usize);
    assert_eq!((&kept[..4096], &kept[at_end..]), (&segment[..4096], &segment[at_end..]));
    assert!(kept[4096..at_end].iter().all(|byte| *byte == 0));
    assert_eq!(after["repair-1/cut"], format!("{at}\n").as_bytes());
    // And can be looked at.
    let cut = tool(&["dump"], &dir.path().join("repair-1"));
    assert!(String::from_utf8_lossy(&cut.stdout).lines().count() > 10, "{cut:?}");
    assert_eq!(after["segment-0000000000000000"][..at as usize], segment[..at as usize]);
    assert!(after["segment-0000000000000000"][at as usize..].iter().all(|byte| *byte == 0));
    let (name, snapshot) = before.iter().find(|(name, _)| name.starts_with("snapshot-")).unwrap();
    assert_eq!(&after[&format!("repair-1/{name}")], snapshot);
    assert!(!after.contains_key(name));
    assert_eq!(tool(&["verify"], dir.path()).status.code(), Some(0));
    // Once more: nothing is left to do.
    assert_eq!(json(&["repair", "--write", "--json"], dir.path())["written"], false);
}

#[test]
fn damage_that_leaves_nothing_to_start_from_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    damage(dir.path(), BLOCK);
    let before = files(dir.path());
    let refused = tool(&["repair", "--write"], dir.path());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("could start from"));
    assert_eq!(files(dir.path()), before);
}

/// An older repair on a younger journal would cut all of it.
#[test]
fn what_a_newer_version_wrote_is_refused() {
    for (family, header) in [("segment-", BLOCK as usize), ("snapshot-", HEADER_LEN)] {
        let dir = tempfile::tempdir().unwrap();
        let at = journal(dir.path());
        damage(dir.path(), at);
        let (name, mut bytes) = files(dir.path()).into_iter().find(|(name, _)| name.starts_with(family)).unwrap();
        bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..header - 4]);
        bytes[header - 4..header].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(dir.path().join(&name), bytes).unwrap();
        let before = files(dir.path());
        let refused = tool(&["repair", "--write"], dir.path());
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(why.contains(&name) && why.contains("the version that wrote it"), "{why}");
        assert_eq!(files(dir.path()), before);
    }
}

/// A side segment without records, from there to there; its name.
fn side(dir: &Path, from: u64, to: u64) -> String {
    let (id, junction) = (samples::segment().0.journal_id, JunctionId(3));
    let name = format!("side-{:08x}-{from:016x}", junction.0);
    std::fs::write(dir.join(&name), SideHeader::of(id, junction, Lsn(from), Lsn(to), &[]).to_bytes()).unwrap();
    name
}

#[test]
fn side_segments_of_what_is_cut_go_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = journal(dir.path());
    let names = [(BLOCK, at), (at, at + 8), (at + 8, at + 16)].map(|(from, to)| side(dir.path(), from, to));
    assert!(tool(&["verify"], dir.path()).status.success());
    damage(dir.path(), at);
    json(&["repair", "--write", "--json"], dir.path());
    let after = files(dir.path());
    assert!(after.contains_key(&names[0]), "of before the cut");
    for name in &names[1..] {
        assert!(!after.contains_key(name) && after.contains_key(&format!("repair-1/{name}")), "{name}");
    }
    assert!(tool(&["verify"], dir.path()).status.success());
}

#[test]
fn a_side_segment_across_the_cut_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = journal(dir.path());
    let name = side(dir.path(), BLOCK, at + 8);
    damage(dir.path(), at);
    let before = files(dir.path());
    for args in [["repair"].as_slice(), &["repair", "--write"]] {
        let refused = tool(args, dir.path());
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains(&name) && why.contains("before and behind"), "{why}");
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn a_snapshot_of_another_journal_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let name = "snapshot-0000000000100000";
    let foreign = SnapshotHeader::of([1; 16], Lsn(1 << 20), b"").to_bytes();
    std::fs::write(dir.path().join(name), foreign).unwrap();
    let before = files(dir.path());
    let report = json(&["repair", "--write", "--json"], dir.path());
    assert_eq!((&report["cut_lsn"], &report["written"]), (&Value::Null, &true.into()), "{report}");
    let mut after = files(dir.path());
    assert_eq!(after.remove(&format!("repair-1/{name}")).unwrap(), foreign);
    after.retain(|name, _| !name.starts_with("repair-1/"));
    after.insert(name.into(), foreign.into());
    assert_eq!(after, before);
    assert!(tool(&["verify"], dir.path()).status.success());
}

#[test]
fn damage_that_no_cut_mends_is_told_and_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let side = dir.path().join("side-00000003-0000000000001000");
    std::fs::write(&side, b"no side").unwrap();
    let before = files(dir.path());
    let told = tool(&["repair", "--write"], dir.path());
    assert_eq!(told.status.code(), Some(1));
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(said.contains("side-00000003-0000000000001000: is not a side segment"), "{said}");
    assert!(said.contains("no cut mends this") && !said.contains("nothing to repair"), "{said}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn where_there_is_no_journal_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tool(&["repair", "--write"], dir.path()).status.code(), Some(1));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_journal_in_use_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let at = journal(dir.path());
    damage(dir.path(), at);
    let lock = std::fs::File::create(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let refused = tool(&["repair", "--write"], dir.path());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop the service first"));
}

/// Segments of a journal, as the service leaves it that stopped in order: all but the last are closed, every record says
/// that what is before it was durable. Gives where the last record begins.
fn segments(dir: &Path, numbers: Range<u64>) -> u64 {
    let (sample, last) = (samples::segment().0, numbers.end - 1);
    let mut end = 0;
    for number in numbers {
        let header = SegmentHeader { number: SegmentNo(number), salt: sample.salt + number as u32, ..sample };
        let mut bytes = header.to_bytes();
        let head = |lsn: Lsn, event: &Event| RecordHeader {
            length: 0,
            kind: event.row().kind,
            version: event.row().version,
            lsn,
            time: sample.created,
            durable: lsn,
            flags: 0,
            archived_len: 0,
            bulk_len: 0,
            crc: 0,
        };
        let mut put = |bytes: &mut Vec<u8>, event: Event| {
            let mut archive = Vec::new();
            codec::encode(&event, &mut archive).unwrap();
            let lsn = header.first_lsn().plus(bytes.len() as u64);
            bytes.extend(whole(head(lsn, &event), &archive, &[], header.salt).unwrap());
            end = lsn.0;
        };
        for lsn in 0..20 {
            put(&mut bytes, Event::Cursor(Cursor { location: LocationId(1), lsn: Lsn(lsn) }));
        }
        if number == last {
            put(&mut bytes, Event::Durable(Durable { stopped: true }));
            bytes.resize(header.size as usize, 0);
        } else {
            let lsn = header.first_lsn().plus(bytes.len() as u64);
            let length = header.size as u32 - bytes.len() as u32;
            bytes.extend(filler(KIND_SEGMENT_END, length, lsn, sample.created, lsn, header.salt));
        }
        std::fs::write(dir.join(name(number)), bytes).unwrap();
    }
    end
}

fn name(number: u64) -> String {
    format!("segment-{number:016x}")
}

/// A snapshot in this segment, by which the location's cursor is there.
fn snapshot(dir: &Path, segment: u64, cursor: u64) -> String {
    let (header, _) = samples::segment();
    let lsn = Lsn(segment * header.size + 2 * BLOCK);
    let state =
        format!(r#"{{"locations":[{{"id":1,"role":{{"primary":1}},"cursor":{}}}]}}"#, cursor * header.size + BLOCK);
    let bytes = [&SnapshotHeader::of(header.journal_id, lsn, state.as_bytes()).to_bytes(), state.as_bytes()].concat();
    let name = format!("snapshot-{:016x}", lsn.0);
    std::fs::write(dir.join(&name), bytes).unwrap();
    name
}

fn flip(dir: &Path, segment: u64) {
    let path = dir.join(name(segment));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[BLOCK as usize + 100] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn durable_segments_that_are_missing_at_the_end_are_damage_to_all_tools_and_cut_where_there_is_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    segments(dir.path(), 8..12);
    let (old, new) = (snapshot(dir.path(), 8, 8), snapshot(dir.path(), 10, 10));
    for number in [10, 11] {
        std::fs::remove_file(dir.path().join(name(number))).unwrap();
    }
    for args in [["verify"].as_slice(), &["info"], &["repair"]] {
        assert_eq!(tool(args, dir.path()).status.code(), Some(1), "{args:?}");
    }
    let said = String::from_utf8(tool(&["stats"], dir.path()).stdout).unwrap();
    assert!(said.contains("segments are missing"), "{said}");
    let report = json(&["repair", "--write", "--json"], dir.path());
    let end = 10 * samples::segment().0.size;
    assert_eq!((&report["cut_lsn"], &report["written"]), (&end.into(), &true.into()), "{report}");
    let after = files(dir.path());
    assert!(after.contains_key(&old) && after.contains_key(&format!("repair-1/{new}")));
    assert_eq!(after["repair-1/cut"], format!("{end}\n").as_bytes());
    assert!(tool(&["verify"], dir.path()).status.success());

    // Without an older snapshot nothing could be started from.
    let dir = tempfile::tempdir().unwrap();
    segments(dir.path(), 8..12);
    snapshot(dir.path(), 10, 10);
    for number in [10, 11] {
        std::fs::remove_file(dir.path().join(name(number))).unwrap();
    }
    let refused = tool(&["repair", "--write"], dir.path());
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("segments from 10 on are missing") && why.contains("could start from"), "{why}");
}

#[test]
fn a_segment_that_is_none_behind_the_end_is_moved_aside_and_nothing_is_cut() {
    let foreign = |dir: &Path| {
        let path = dir.join(name(11));
        let bytes = std::fs::read(&path).unwrap();
        let header =
            SegmentHeader { number: SegmentNo(12), journal_id: [1; 16], ..SegmentHeader::from_bytes(&bytes).unwrap() };
        // A whole record of its own, that says that more was durable.
        let lsn = header.first_record();
        let mut other = header.to_bytes();
        other.extend(filler(KIND_SEGMENT_END, 4096, lsn, header.created, Lsn(lsn.0 * 9), header.salt));
        other.resize(bytes.len(), 0);
        std::fs::write(dir.join(name(12)), other).unwrap();
    };
    let copy = |dir: &Path| assert!(std::fs::copy(dir.join(name(11)), dir.join(name(12))).is_ok());
    for stray in [&copy as &dyn Fn(&Path), &foreign] {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path(), 8..12);
        snapshot(dir.path(), 10, 10);
        let before = files(dir.path());
        stray(dir.path());
        let verified = String::from_utf8(tool(&["verify"], dir.path()).stdout).unwrap();
        assert_eq!(verified.lines().filter(|line| line.starts_with("CORRUPT")).count(), 1, "{verified}");
        let report = json(&["repair", "--write", "--json"], dir.path());
        assert_eq!((&report["cut_lsn"], &report["front_lsn"]), (&Value::Null, &Value::Null), "{report}");
        let mut after = files(dir.path());
        assert!(after.remove(&format!("repair-1/{}", name(12))).is_some());
        assert!(after.remove("repair-1/reasons").is_some());
        assert_eq!(after, before, "nothing else was touched, and no cut is told");
        assert!(tool(&["verify"], dir.path()).status.success());
    }
}

#[test]
fn damage_before_all_that_a_start_needs_costs_the_segments_before_it_and_no_more() {
    let flipped = |dir: &Path| flip(dir, 8);
    let header = |dir: &Path| std::fs::write(dir.join(name(9)), vec![7; samples::segment().0.size as usize]).unwrap();
    let missing = |dir: &Path| std::fs::remove_file(dir.join(name(9))).unwrap();
    for (damage, start) in [(&flipped as &dyn Fn(&Path), 9), (&header, 10), (&missing, 10)] {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path(), 8..12);
        snapshot(dir.path(), 10, 10);
        damage(dir.path());
        let before = files(dir.path());
        assert_eq!(tool(&["repair"], dir.path()).status.code(), Some(1));
        assert_eq!(files(dir.path()), before);
        let report = json(&["repair", "--write", "--json"], dir.path());
        let lsn = start * samples::segment().0.size;
        assert_eq!((&report["front_lsn"], &report["cut_lsn"]), (&lsn.into(), &Value::Null), "{report}");
        let mut after = files(dir.path());
        assert!(after.remove("repair-1/reasons").is_some());
        // Nothing is lost, and nothing is told to be cut.
        let moved = |(name, bytes): (String, Vec<u8>)| (name.trim_start_matches("repair-1/").to_owned(), bytes);
        assert_eq!(after.clone().into_iter().map(moved).collect::<BTreeMap<_, _>>(), before);
        for number in 8..12 {
            assert!(number < start || after.contains_key(&name(number)), "{number}");
        }
        assert!(tool(&["verify"], dir.path()).status.success());
    }
}

#[test]
fn the_front_is_not_cut_where_something_may_be_needed() {
    // The snapshot's own segment; a cursor; a snapshot that says nothing of cursors; what follows a side segment.
    let snapshot_there = |dir: &Path| drop(snapshot(dir, 8, 10));
    let cursor_there = |dir: &Path| drop(snapshot(dir, 10, 8));
    let nothing_said = |dir: &Path| {
        let name = snapshot(dir, 10, 10);
        let (header, bytes) = (samples::segment().0, std::fs::read(dir.join(&name)).unwrap());
        let lsn = SnapshotHeader::open(&bytes).unwrap().0.lsn;
        std::fs::write(dir.join(name), SnapshotHeader::of(header.journal_id, lsn, b"").to_bytes()).unwrap();
    };
    let side_there = |dir: &Path| {
        snapshot(dir, 10, 10);
        let size = samples::segment().0.size;
        side(dir, 7 * size, 8 * size + BLOCK);
    };
    for needed in [&snapshot_there as &dyn Fn(&Path), &cursor_there, &nothing_said, &side_there] {
        let dir = tempfile::tempdir().unwrap();
        segments(dir.path(), 8..12);
        needed(dir.path());
        flip(dir.path(), 8);
        let before = files(dir.path());
        let refused = tool(&["repair", "--write"], dir.path());
        assert_eq!(refused.status.code(), Some(1));
        assert!(!refused.stderr.is_empty(), "{}", String::from_utf8_lossy(&refused.stdout));
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn a_segment_of_another_journal_before_the_beginning_takes_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    segments(dir.path(), 8..12);
    snapshot(dir.path(), 10, 10);
    let before = files(dir.path());
    let header = SegmentHeader { journal_id: [1; 16], ..samples::segment().0 };
    let mut foreign = header.to_bytes();
    foreign.resize(header.size as usize, 0);
    std::fs::write(dir.path().join(name(0)), foreign).unwrap();
    json(&["repair", "--write", "--json"], dir.path());
    let mut after = files(dir.path());
    assert!(after.remove(&format!("repair-1/{}", name(0))).is_some());
    assert!(after.remove("repair-1/reasons").is_some());
    assert_eq!(after, before);
    assert!(tool(&["verify"], dir.path()).status.success());
}

#[test]
fn where_it_cannot_be_told_which_journal_is_meant_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    segments(dir.path(), 0..1);
    let header = SegmentHeader { journal_id: [1; 16], number: SegmentNo(1), ..samples::segment().0 };
    let mut foreign = header.to_bytes();
    foreign.resize(header.size as usize, 0);
    std::fs::write(dir.path().join(name(1)), foreign).unwrap();
    let before = files(dir.path());
    let refused = tool(&["repair", "--write"], dir.path());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("several journals"));
    assert_eq!(files(dir.path()), before);
}
