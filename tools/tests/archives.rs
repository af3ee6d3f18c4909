//! Archives from outside: made, made again, damaged, and read in the place of the segments that are gone.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use journal_format::event::{Durable, Event, codec, samples};
use journal_format::ids::{Lsn, SegmentNo, Time};
use journal_format::record::{self, RecordHeader};
use journal_format::segment::SegmentHeader;
use journal_format::snapshot::SnapshotHeader;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn tool(args: &[&str], dirs: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tain-journal")).args(args).args(dirs).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

/// A journal of a closed segment with every kind of record, and of one that has begun.
fn journal(dir: &Path) {
    let (header, mut bytes) = samples::segment();
    bytes.resize(header.size as usize, 0);
    std::fs::write(dir.join("segment-0000000000000000"), &bytes).unwrap();
    let next = SegmentHeader { number: SegmentNo(1), salt: 7, ..header };
    let event = Event::Durable(Durable { stopped: true });
    let mut archive = Vec::new();
    codec::encode(&event, &mut archive).unwrap();
    let head = RecordHeader {
        length: 0,
        kind: event.row().kind,
        version: event.row().version,
        lsn: next.first_record(),
        time: Time(1_800_000_000_000_000_000),
        durable: next.first_record(),
        flags: 0,
        archived_len: 0,
        bulk_len: 0,
        crc: 0,
    };
    let mut bytes = next.to_bytes();
    bytes.extend(record::whole(head, &archive, &[], next.salt).unwrap());
    bytes.resize(next.size as usize, 0);
    std::fs::write(dir.join("segment-0000000000000001"), &bytes).unwrap();
}

/// The same, of another id.
fn foreign_journal(dir: &Path) {
    journal(dir);
    for name in ["segment-0000000000000000", "segment-0000000000000001"] {
        let path = dir.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let header = SegmentHeader::from_bytes(&bytes).unwrap();
        bytes[..4096].copy_from_slice(&SegmentHeader { journal_id: [1; 16], ..header }.to_bytes());
        std::fs::write(&path, &bytes).unwrap();
    }
}

const ARCHIVE: &str = "archive-0000000000000000";

#[test]
fn archives_are_read_as_the_segments_were_and_are_made_once() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    let snapshot = SnapshotHeader::of(samples::segment().0.journal_id, Lsn(65536), b"");
    std::fs::write(dir.path().join("snapshot-0000000000010000"), snapshot.to_bytes()).unwrap();
    let whole = text(&tool(&["dump", "--json"], &[dir.path()]));
    let first = json(&tool(&["archive", "--json"], &[dir.path(), to.path()]));
    assert_eq!(first["archived"], serde_json::json!([0]), "{first}");
    assert!(first["stored_bytes"].as_u64().unwrap() < first["content_bytes"].as_u64().unwrap());
    let made = std::fs::metadata(to.path().join(ARCHIVE)).unwrap().modified().unwrap();
    let again = json(&tool(&["archive", "--json"], &[dir.path(), to.path()]));
    assert_eq!((&again["archived"], &again["there_already"]), (&serde_json::json!([]), &1.into()));
    assert_eq!(std::fs::metadata(to.path().join(ARCHIVE)).unwrap().modified().unwrap(), made);
    assert_eq!(std::fs::read_to_string(to.path().join("manifest")).unwrap().lines().count(), 1);

    // Both together, and then without the segment.
    assert_eq!(text(&tool(&["dump", "--json"], &[dir.path(), to.path()])), whole);
    let verified = tool(&["verify"], &[dir.path(), to.path()]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    std::fs::remove_file(dir.path().join("segment-0000000000000000")).unwrap();
    assert_eq!(text(&tool(&["dump", "--json"], &[dir.path(), to.path()])), whole);
    assert_eq!(text(&tool(&["dump", "--json"], &[to.path(), dir.path()])), whole);
    let verified = tool(&["verify"], &[dir.path(), to.path()]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    let alone = tool(&["verify"], &[to.path()]);
    assert_eq!(alone.status.code(), Some(0), "{}", text(&alone));
    let info = json(&tool(&["info", "--json"], &[dir.path(), to.path()]));
    assert_eq!((&info["segments"][0]["archived"], &info["segments"][1]["archived"]), (&true.into(), &false.into()));
    assert_eq!(info["stopped_in_order"], true);
}

#[test]
fn all_that_is_archived_was_durable() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    // No record of the archive states its last batch to be durable: that would be the next segment's first.
    let whole = text(&tool(&["dump", "--json", "--to", "65536"], &[dir.path(), to.path()]));
    assert!(!whole.contains("not_stated_durable"));
    assert!(text(&tool(&["dump", "--json"], &[to.path()])) == whole);
    for command in ["info", "verify"] {
        assert_eq!(json(&tool(&[command, "--json"], &[to.path()]))["stated_durable_lsn"], 65536, "{command}");
    }
}

#[test]
fn a_run_that_was_cut_short_is_taken_up() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    // Before the rename; before the list; in the middle of a line.
    let half = |by: &str| to.path().join(format!("{ARCHIVE}{by}.tmp"));
    // Of nobody any more (no process has so high a number), of one that may be at it, of the service.
    let (left, alive, service) = (half(".99999999"), half(&format!(".{}", std::process::id())), half(""));
    for unfinished in [&left, &alive, &service] {
        std::fs::write(unfinished, b"half").unwrap();
    }
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    assert_eq!([left, alive, service].map(|path| path.exists()), [false, true, true]);
    let list = std::fs::read(to.path().join("manifest")).unwrap();
    std::fs::write(to.path().join("manifest"), &list[..list.len() / 2]).unwrap();
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    assert_eq!(tool(&["verify"], &[to.path()]).status.code(), Some(0));
    let listed = journal_format::archive::manifest_lines(&std::fs::read(to.path().join("manifest")).unwrap());
    assert_eq!(listed.len(), 1);
    // A file that is shorter than it says is none.
    let whole = std::fs::read(to.path().join(ARCHIVE)).unwrap();
    std::fs::write(to.path().join(ARCHIVE), &whole[..whole.len() - 1]).unwrap();
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    assert_eq!(std::fs::read(to.path().join(ARCHIVE)).unwrap(), whole);
}

#[test]
fn damage_of_an_archive_is_told_with_its_place_and_the_rest_is_read() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    let path = to.path().join(ARCHIVE);
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[300] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let verified = tool(&["verify"], &[to.path()]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains(ARCHIVE), "{}", text(&verified));
    // Beside the segment itself nothing is lost.
    assert_eq!(text(&tool(&["dump"], &[dir.path(), to.path()])), text(&tool(&["dump"], &[dir.path()])));
    assert_eq!(tool(&["verify"], &[dir.path(), to.path()]).status.code(), Some(1));

    // Damage that its header does not show.
    std::fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    let (info, stats) = (tool(&["info"], &[to.path()]), tool(&["stats"], &[to.path()]));
    assert_eq!(info.status.code(), Some(1));
    for told in [text(&info), text(&stats)] {
        assert!(told.contains(&format!("{ARCHIVE}: 4 bytes behind its end")), "{told}");
    }

    std::fs::remove_file(&path).unwrap();
    let missing = tool(&["verify"], &[dir.path(), to.path()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("is in the list of archives, and not there"), "{}", text(&missing));
}

#[test]
fn of_a_damaged_segment_its_archive_is_read_and_the_damage_is_told() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    let whole = text(&tool(&["dump", "--json"], &[dir.path()]));
    let path = dir.path().join("segment-0000000000000000");
    let bytes = std::fs::read(&path).unwrap();
    let (mut flipped, mut zeroed) = (bytes.clone(), bytes.clone());
    flipped[4200] ^= 1;
    zeroed[4096..].fill(0);
    for (damaged, place) in [(flipped, 4176), (zeroed, 4096)] {
        std::fs::write(&path, &damaged).unwrap();
        let dumped = tool(&["dump", "--json"], &[dir.path(), to.path()]);
        let place = format!("segment-0000000000000000: offset {place}: ");
        let (bad, rest) = std::str::from_utf8(&dumped.stdout).unwrap().split_once('\n').unwrap();
        assert!(bad.contains("\"bad\"") && bad.contains(&place), "{bad}");
        assert!(rest == whole, "{rest}");
        let verified = tool(&["verify"], &[dir.path(), to.path()]);
        assert_eq!(verified.status.code(), Some(1));
        assert!(text(&verified).contains(&place), "{}", text(&verified));
    }
}

#[test]
fn an_archive_of_before_a_repair_is_kept_aside_and_the_segment_archived_anew() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    let (path, list) = (to.path().join(ARCHIVE), to.path().join("manifest"));
    let good = std::fs::read(&path).unwrap();
    let mut header = journal_format::archive::ArchiveHeader::from_bytes(&good).unwrap();
    header.digest[0] ^= 1;
    let stale = [header.to_bytes().as_slice(), &good[128..]].concat();
    std::fs::write(&path, &stale).unwrap();
    std::fs::write(&list, journal_format::archive::manifest_line(&header)).unwrap();
    let again = json(&tool(&["archive", "--json"], &[dir.path(), to.path()]));
    assert_eq!(again["there_already"], 1, "nothing was cut: {again}");
    std::fs::create_dir(dir.path().join("repair-1")).unwrap();
    let again = json(&tool(&["archive", "--json"], &[dir.path(), to.path()]));
    assert_eq!(again["archived"], serde_json::json!([0]), "{again}");
    assert_eq!(std::fs::read(&path).unwrap(), good);
    assert_eq!(std::fs::read(to.path().join(format!("cut-{ARCHIVE}-1"))).unwrap(), stale);
    // One of a segment that the journal has not come to again is not read, and kept aside with the next run.
    let ahead = to.path().join("archive-0000000000000001");
    header.number = SegmentNo(1);
    std::fs::write(&ahead, [header.to_bytes().as_slice(), &good[128..]].concat()).unwrap();
    let mut lines = std::fs::read_to_string(&list).unwrap();
    lines.push_str(&journal_format::archive::manifest_line(&header));
    std::fs::write(&list, lines).unwrap();
    let verified = tool(&["verify"], &[dir.path(), to.path()]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    assert!(
        text(&tool(&["dump", "--json"], &[dir.path(), to.path()])) == text(&tool(&["dump", "--json"], &[dir.path()]))
    );
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    assert!(!ahead.exists() && to.path().join("cut-archive-0000000000000001-1").exists());
    let verified = tool(&["verify"], &[to.path()]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    // The journal ends right at the end of a segment: the archive of that is a good one.
    let next = dir.path().join("segment-0000000000000001");
    let bytes = std::fs::read(&next).unwrap();
    std::fs::remove_file(&next).unwrap();
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    assert_eq!(std::fs::read(&path).unwrap(), good);
    std::fs::write(&next, bytes).unwrap();
    // A damaged segment is no reason to give up the archive of it.
    let path_of_segment = dir.path().join("segment-0000000000000000");
    let mut bytes = std::fs::read(&path_of_segment).unwrap();
    bytes[4200] ^= 1;
    std::fs::write(&path_of_segment, bytes).unwrap();
    let again = json(&tool(&["archive", "--json"], &[dir.path(), to.path()]));
    assert_eq!(again["there_already"], 1, "{again}");
    assert_eq!(std::fs::read(&path).unwrap(), good);
    let verified = tool(&["verify"], &[to.path()]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
}

#[test]
fn a_damaged_segment_and_a_foreign_directory_are_refused() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    let path = dir.path().join("segment-0000000000000000");
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[4200] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let refused = tool(&["archive"], &[dir.path(), to.path()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("NOT ARCHIVED"), "{}", text(&refused));
    assert!(!to.path().join(ARCHIVE).exists());

    std::fs::write(&path, &whole).unwrap();
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    let other = tempfile::tempdir().unwrap();
    foreign_journal(other.path());
    let foreign = tool(&["archive"], &[other.path(), to.path()]);
    assert_eq!(foreign.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&foreign.stderr).contains("archive of another journal"));
}

#[test]
fn directories_of_different_journals_are_not_read_together() {
    let (dir, to, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    text(&tool(&["archive"], &[dir.path(), to.path()]));
    foreign_journal(other.path());
    // The one is beside the other, and in its place.
    for behind in [false, true] {
        if behind {
            std::fs::remove_file(other.path().join("segment-0000000000000000")).unwrap();
        }
        for command in ["info", "dump", "verify", "stats"] {
            let refused = tool(&[command], &[other.path(), to.path()]);
            assert_eq!(refused.status.code(), Some(1), "{command}");
            let why = String::from_utf8_lossy(&refused.stderr).into_owned();
            let named = why.contains(ARCHIVE) && why.contains(&other.path().display().to_string());
            assert!(named && why.contains("not of one journal"), "{why}");
        }
    }
}

#[test]
fn one_directory_with_a_foreign_segment_is_looked_at_and_not_replayed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    journal(dir.path());
    foreign_journal(other.path());
    let name = "segment-0000000000000001";
    std::fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    text(&tool(&["info"], &[dir.path()]));
    let verified = tool(&["verify"], &[dir.path()]);
    assert!(text(&verified).contains("belongs to another journal"), "{}", text(&verified));
    if cfg!(feature = "replay") {
        let tree = tempfile::tempdir().unwrap();
        let at = tree.path().display().to_string();
        let refused = tool(&["replay", "--base-lsn", "4096", "--tree", &at], &[dir.path()]);
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains("not of one journal") && why.contains(name), "{why}");
    }
}

#[test]
fn filters_take_clients_users_jobs_paths_and_times() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let lines = |args: &[&str]| -> Vec<Value> {
        // Some of the samples' nodes have no names.
        let dumped = tool(&[&["dump", "--json"], args].concat(), &[dir.path()]).stdout;
        String::from_utf8(dumped).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&[]);
    let calls = all.iter().filter(|line| line["event"]["caller"]["addr"] == "192.0.2.7").count();
    assert!(calls > 0 && calls < all.len());
    assert_eq!(lines(&["--client", "192.0.2.7"]).len(), calls);
    assert_eq!(lines(&["--client", "192.0.2.8"]).len(), 0);
    assert_eq!(lines(&["--uid", "1000"]).len(), calls);
    assert_eq!(lines(&["--uid", "0"]).len(), 0);
    let job = all.iter().filter(|line| !line["event"]["job"].is_null()).count();
    let of_job = lines(&["--job", &all.iter().find_map(|l| l["event"]["job"].as_u64()).unwrap().to_string()]);
    assert!(!of_job.is_empty() && of_job.len() <= job);
    assert_eq!(lines(&["--from", "2027-01-01T00:00:00Z"]).len(), 1, "the record of the second segment");
    assert_eq!(lines(&["--to", "@1790000000"]).len(), all.len() - 1);
    assert_eq!(lines(&["--from", "65536"]).len(), 1);
    let added = all.iter().find(|line| line["kind"] == "JunctionAdded").unwrap();
    let below = lines(&["--path", added["event"]["path"].as_str().unwrap(), "--paths"]);
    assert!(!below.is_empty() && below.len() < all.len());
    assert!(below.iter().all(|line| !line["paths"].as_array().unwrap().is_empty()));
    assert_eq!(tool(&["dump", "--from", "yesterday"], &[dir.path()]).status.code(), Some(2));
}

#[test]
fn stats_add_up_by_kind_client_path_and_time() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let stats = json(&tool(&["stats", "--json", "--bucket", "1h"], &[dir.path()]));
    let sum = |table: &str, what: &str| -> u64 {
        stats[table].as_array().unwrap().iter().map(|row| row[what].as_u64().unwrap()).sum()
    };
    assert_eq!(stats["ops"], samples::all().len() as u64 + 1);
    for what in ["ops", "data_bytes", "journal_bytes"] {
        assert_eq!(sum("kinds", what), stats[what].as_u64().unwrap());
        assert_eq!(sum("times", what), stats[what].as_u64().unwrap());
    }
    assert_eq!(stats["data_bytes"], 100);
    assert_eq!(sum("clients", "data_bytes"), 100);
    assert_eq!(sum("clients", "ops"), sum("uids", "ops"));
    assert_eq!(stats["bucket_seconds"], 3600);
    let plain = text(&tool(&["stats", "--kind", "Write"], &[dir.path()]));
    assert!(plain.contains("1 records, 100 bytes of data"), "{plain}");
    assert_eq!(tool(&["stats", "--bucket", "1w"], &[dir.path()]).status.code(), Some(2));
}

#[test]
fn the_journals_own_directory_takes_no_archives() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path());
    let count = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = count();
    let refused = Command::new(env!("CARGO_BIN_EXE_tain-journal"))
        .arg("archive")
        .args([dir.path(), &dir.path().join(".")])
        .output();
    let why = String::from_utf8(refused.unwrap().stderr).unwrap();
    assert!(why.contains("own directory") && count() == before, "{why}");
}
