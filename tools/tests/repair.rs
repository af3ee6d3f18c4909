//! Repair from outside: it tells, it writes only when asked, and nothing that it cuts is lost.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use journal_format::event::samples;
use journal_format::ids::{JunctionId, Lsn};
use journal_format::scan::{Found, record_at};
use journal_format::segment::BLOCK;
use journal_format::side::SideHeader;
use journal_format::snapshot::HEADER_LEN;
use journal_format::snapshot::SnapshotHeader;
use serde_json::Value;
use std::collections::BTreeMap;
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
