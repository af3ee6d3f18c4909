//! The tool from outside, over journals made of the format's samples.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use journal_format::event::{codec, samples};
use journal_format::ids::{JunctionId, Lsn};
use journal_format::record::{RecordHeader, whole};
use journal_format::scan::{Found, record_at};
use journal_format::segment::SegmentHeader;
use journal_format::side::SideHeader;
use journal_format::snapshot::SnapshotHeader;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tool(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tain-journal")).args(args).arg(dir).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A journal of one segment with every kind of record; gives the segment's path and its written bytes.
fn journal(dir: &Path) -> (PathBuf, Vec<u8>) {
    let (header, written) = samples::segment();
    // Behind the segment's end record nothing is looked at; without it, zeros follow and are the journal's end.
    let written = written[..written.len() - 4096].to_vec();
    let mut bytes = written.clone();
    bytes.resize(usize::try_from(header.size).unwrap(), 0);
    let path = dir.join("segment-0000000000000000");
    std::fs::write(&path, &bytes).unwrap();
    (path, written)
}

fn snapshot(dir: &Path, id: [u8; 16], lsn: u64) -> PathBuf {
    let path = dir.join(format!("snapshot-{lsn:016x}"));
    std::fs::write(&path, SnapshotHeader::of(id, Lsn(lsn), b"").to_bytes()).unwrap();
    path
}

fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn dump_shows_every_kind_as_json_lines_and_as_text_and_never_the_key() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let json = text(&tool(&["dump", "--json"], dir.path()));
    let plain = text(&tool(&["dump"], dir.path()));
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), samples::all().len());
    assert_eq!(plain.lines().count(), lines.len());
    for row in codec::KINDS {
        assert!(lines.iter().any(|line| line["kind"] == row.name), "{}", row.name);
        assert!(plain.contains(row.name), "{}", row.name);
    }
    assert!(json.contains(r"not \\xff utf-8 \\\\ \\x0a"), "names are escaped reversibly");
    assert!(!json.contains("5a5a5a") && !plain.contains("5a5a5a"));
}

#[test]
fn dump_takes_a_range_and_kinds() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let all = text(&tool(&["dump", "--json"], dir.path()));
    let second: Value = serde_json::from_str(all.lines().nth(1).unwrap()).unwrap();
    let (from, to) = (second["lsn"].to_string(), second["end"].to_string());
    let one = text(&tool(&["dump", "--json", "--from", &from, "--to", &to], dir.path()));
    assert_eq!(one.lines().collect::<Vec<_>>(), [all.lines().nth(1).unwrap()]);
    let made = text(&tool(&["dump", "--kind", "made", "--kind", "Cursor"], dir.path()));
    assert_eq!(made.lines().count(), 2);
    let unknown = tool(&["dump", "--kind", "Nonsense"], dir.path());
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn info_names_the_journal_its_positions_cursors_and_junctions() {
    let dir = tempfile::tempdir().unwrap();
    let (_, written) = journal(dir.path());
    let info: Value = serde_json::from_str(&text(&tool(&["info", "--json"], dir.path()))).unwrap();
    assert_eq!(info["journal_id"], "30313233343536373839616263646566");
    assert_eq!(info["segments"][0]["written_to"], written.len());
    assert_eq!(info["cursors"][0]["lsn"], 65536);
    assert_eq!(info["records"]["Make"], 7);
    assert!(text(&tool(&["info"], dir.path())).contains("30313233343536373839616263646566"));
}

#[test]
fn what_only_side_segments_hold_is_shown_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    // Their segment was recycled: the journal goes on behind it.
    let (path, written) = journal(dir.path());
    let all = text(&tool(&["dump"], dir.path()));
    let mut header = SegmentHeader::from_bytes(&written).unwrap();
    header.number.0 = 7;
    let mut segment = header.to_bytes();
    segment.resize(usize::try_from(header.size).unwrap(), 0);
    std::fs::remove_file(path).unwrap();
    std::fs::write(dir.path().join("segment-0000000000000007"), segment).unwrap();
    snapshot(dir.path(), header.journal_id, header.first_lsn().0);
    assert_eq!(text(&tool(&["dump"], dir.path())), "");
    let records = samples::side().split_off(64);
    let mut side = SideHeader::of(header.journal_id, JunctionId(3), Lsn(4096), Lsn(1 << 20), &records);
    let name = |junction: u32| dir.path().join(format!("side-{junction:08x}-0000000000001000"));
    // A record that concerns two junctions comes once.
    for junction in [3, 4] {
        side.junction = JunctionId(junction);
        std::fs::write(name(junction), [&side.to_bytes(), records.as_slice()].concat()).unwrap();
    }
    let dumped = text(&tool(&["dump"], dir.path()));
    assert_eq!(dumped.lines().count(), all.lines().count(), "{dumped}");
    let stats: Value = serde_json::from_str(&text(&tool(&["stats", "--json"], dir.path()))).unwrap();
    assert_eq!(stats["kinds"].as_array().unwrap().len(), samples::all().len().min(codec::KINDS.len()), "{stats}");
    let info: Value = serde_json::from_str(&text(&tool(&["info", "--json"], dir.path()))).unwrap();
    assert_eq!(info["sides"].as_array().unwrap().len(), 2);
    assert_eq!((&info["notes"], &info["damage"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert!(text(&tool(&["info"], dir.path())).contains("side of junction"));
    assert!(tool(&["verify"], dir.path()).status.success());
    damage(&name(4), 100);
    let verified = tool(&["verify"], dir.path());
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("side-00000004-0000000000001000: is damaged"), "{}", text(&verified));
}

#[test]
fn verify_tells_a_whole_journal_a_torn_tail_and_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let (path, written) = journal(dir.path());
    let whole = tool(&["verify"], dir.path());
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    assert!(text(&whole).contains(&format!("ends at LSN {}", written.len())));

    // The samples state durable LSN 4096: everything behind may be torn.
    damage(&path, 4200);
    let torn = tool(&["verify"], dir.path());
    assert_eq!(torn.status.code(), Some(0), "{}", text(&torn));
    assert!(text(&torn).contains("torn at LSN 4176"), "{}", text(&torn));
    damage(&path, 4200);

    // A snapshot knows that more was durable.
    let (header, _) = samples::segment();
    snapshot(dir.path(), header.journal_id, written.len() as u64);
    assert_eq!(tool(&["verify"], dir.path()).status.code(), Some(0));
    damage(&path, 4200);
    let corrupt = tool(&["verify"], dir.path());
    assert_eq!(corrupt.status.code(), Some(1));
    assert!(text(&corrupt).contains("segment 0, offset 4176 (LSN 4176)"), "{}", text(&corrupt));
    let json: Value = serde_json::from_str(&text(&tool(&["verify", "--json"], dir.path()))).unwrap();
    assert_eq!(json["ok"], false);
}

#[test]
fn info_and_stats_tell_damage_that_is_inside_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (path, written) = journal(dir.path());
    let (header, _) = samples::segment();
    snapshot(dir.path(), header.journal_id, written.len() as u64);
    let told = |status: i32, what: &str| {
        let (info, stats) = (tool(&["info"], dir.path()), tool(&["stats"], dir.path()));
        assert_eq!(info.status.code(), Some(status), "{}", text(&info));
        for output in [&info, &stats] {
            assert_eq!(text(output).contains("DAMAGE"), status != 0, "{}", text(output));
            assert!(text(output).contains(what), "{what}: {}", text(output));
        }
    };
    told(0, "");
    damage(&path, 4200);
    told(1, "DAMAGE: segment 0, offset 4176 (LSN 4176)");
    damage(&path, 4200);
    // No record follows it in its segment.
    let bytes = std::fs::read(&path).unwrap();
    let mut zeroed = bytes.clone();
    zeroed[4176..].fill(0);
    std::fs::write(&path, zeroed).unwrap();
    told(1, "DAMAGE: segment 0, offset 4176 (LSN 4176): zeros");
    let info: Value = serde_json::from_str(&text(&tool(&["info", "--json"], dir.path()))).unwrap();
    assert_eq!((&info["segments"][0]["gaps"], info["damage"].as_array().unwrap().len()), (&1.into(), 1), "{info}");
    // A torn tail is no damage, and a bad header is told once.
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(dir.path().join(format!("snapshot-{:016x}", written.len()))).unwrap();
    damage(&path, 4200);
    told(0, "");
    damage(&path, 20);
    let header = text(&tool(&["info"], dir.path()));
    assert_eq!(header.matches("DAMAGE").count(), 1, "{header}");
}

#[test]
fn verify_tells_that_no_snapshot_or_a_foreign_one_leaves_nothing_to_begin_with() {
    let dir = tempfile::tempdir().unwrap();
    let (path, written) = journal(dir.path());
    let id = SegmentHeader::from_bytes(&written).unwrap().journal_id;
    let damage = |what: &str| {
        let verified = tool(&["verify"], dir.path());
        assert_eq!(verified.status.code(), Some(1));
        assert!(text(&verified).contains(what), "{}", text(&verified));
    };
    let foreign = snapshot(dir.path(), [1; 16], 8192);
    damage("snapshot-0000000000002000: belongs to another journal");
    std::fs::rename(foreign, dir.path().join("snapshot-0000000000000000")).unwrap();
    snapshot(dir.path(), id, 8192);
    damage("snapshot-0000000000000000: belongs to another journal");
    std::fs::rename(dir.path().join("snapshot-0000000000002000"), dir.path().join("snapshot-0000000000000000"))
        .unwrap();
    damage("snapshot-0000000000000000: is of LSN 8192");

    let mut header = SegmentHeader::from_bytes(&written).unwrap();
    header.number.0 = 7;
    let mut segment = header.to_bytes();
    segment.resize(usize::try_from(header.size).unwrap(), 0);
    std::fs::write(dir.path().join("segment-0000000000000007"), segment).unwrap();
    std::fs::remove_file(path).unwrap();
    let start = header.first_lsn().0;
    for lsn in [None, Some(start - 1)] {
        lsn.map(|lsn| snapshot(dir.path(), id, lsn));
        damage("it begins at LSN 458752, and no usable snapshot reaches that far");
    }
    std::fs::remove_file(dir.path().join("snapshot-0000000000000000")).unwrap();
    snapshot(dir.path(), id, start);
    let verified = tool(&["verify"], dir.path());
    assert!(verified.status.success(), "{}", text(&verified));
}

#[test]
fn a_damaged_record_is_named_in_the_dump_and_what_follows_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = journal(dir.path());
    damage(&path, 4200);
    let dump = text(&tool(&["dump"], dir.path()));
    assert!(dump.contains("4176 NO RECORD in segment 0 at offset 4176"), "{dump}");
    assert_eq!(dump.lines().count(), samples::all().len());
}

#[test]
fn damaged_headers_missing_segments_and_empty_directories_are_told_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tool(&["info"], dir.path()).status.code(), Some(1));
    let (path, _) = journal(dir.path());
    std::fs::copy(&path, dir.path().join("segment-0000000000000002")).unwrap();
    damage(&path, 20);
    for command in ["info", "dump", "verify"] {
        let output = tool(&[command], dir.path());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let verify = tool(&["verify"], dir.path());
    assert_eq!(verify.status.code(), Some(1));
    for what in ["checksum of the segment's header", "segments 1 to 1 are missing", "holds segment 0"] {
        assert!(text(&verify).contains(what), "{what}: {}", text(&verify));
    }
    std::fs::write(&path, b"short").unwrap();
    assert_eq!(tool(&["verify"], dir.path()).status.code(), Some(1));
    assert_eq!(tool(&["nonsense"], dir.path()).status.code(), Some(2));
}

#[test]
fn what_a_newer_version_wrote_is_no_damage_and_not_well() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut bytes) = journal(dir.path());
    let header = SegmentHeader::from_bytes(&bytes).unwrap();
    let Found::Record(first) = record_at(&header, &bytes, 4096) else { panic!("no record") };
    let newer = whole(RecordHeader { kind: 999, ..first.header }, first.archive, first.bulk, header.salt).unwrap();
    bytes[4096..4096 + newer.len()].copy_from_slice(&newer);
    bytes.resize(usize::try_from(header.size).unwrap(), 0);
    std::fs::write(path, bytes).unwrap();
    let verified = tool(&["verify"], dir.path());
    assert_eq!(verified.status.code(), Some(1));
    let said = text(&verified);
    assert!(said.contains("UNKNOWN: segment 0, offset 4096 (LSN 4096): record kind 999"), "{said}");
    assert!(said.contains("needs a newer tain") && !said.contains("CORRUPT"), "{said}");
    let report: Value = serde_json::from_str(&text(&tool(&["verify", "--json"], dir.path()))).unwrap();
    assert_eq!((&report["ok"], &report["corruption"]), (&false.into(), &Value::Array(Vec::new())));
}

#[test]
fn dump_tells_that_it_does_not_know_what_was_named_before_the_oldest_record() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let hint = |args: &[&str]| String::from_utf8(tool(args, dir.path()).stderr).unwrap();
    assert!(hint(&["dump", "--path", "/"]).contains("what --path leaves out is not known"));
    assert!(hint(&["dump", "--paths"]).contains("give the archives too"));
    assert_eq!(hint(&["dump"]), "");
    assert_eq!(hint(&["dump", "--paths", "--kind", "Cursor"]), "");
}
