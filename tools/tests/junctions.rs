//! Replay of a junction whose path was removed and added again, from outside.
#![cfg(feature = "replay")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that panics fails, as it should")]

use journal_format::event::{Event, JunctionAdded, JunctionRemoved, codec, samples};
use journal_format::ids::{Identity, JunctionId, Lsn, NodeId, Time};
use journal_format::record::{self, RecordHeader};
use journal_format::snapshot::SnapshotHeader;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn added(id: u32) -> Event {
    let sample = samples::all().into_iter().find_map(|(event, _)| match event {
        Event::JunctionAdded(added) => Some(added),
        _ => None,
    });
    let mut added = JunctionAdded { junction: JunctionId(id), path: vec![b"a".to_vec()], ..sample.unwrap() };
    (added.root, added.location.root) = (NodeId(u64::from(id)), Identity(vec![9; 20]));
    Event::JunctionAdded(added)
}

/// A journal of these, all of it durable; gives the LSNs behind them.
fn journal(dir: &Path, events: &[Event]) -> Vec<u64> {
    let (header, _) = samples::segment();
    let (mut bytes, mut ends) = (header.to_bytes(), Vec::new());
    for event in events {
        let mut archive = Vec::new();
        codec::encode(event, &mut archive).unwrap();
        let head = RecordHeader {
            length: 0,
            kind: event.row().kind,
            version: event.row().version,
            lsn: Lsn(bytes.len() as u64),
            time: Time(1_700_000_000_000_000_000 + bytes.len() as i64),
            durable: header.first_record(),
            flags: 0,
            archived_len: 0,
            bulk_len: 0,
            crc: 0,
        };
        bytes.extend(record::whole(head, &archive, &[], header.salt).unwrap());
        ends.push(bytes.len() as u64);
    }
    let lsn = Lsn(bytes.len() as u64);
    bytes.resize(header.size as usize, 0);
    std::fs::write(dir.join("segment-0000000000000000"), bytes).unwrap();
    let snapshot = SnapshotHeader::of(header.journal_id, lsn, b"");
    std::fs::write(dir.join(format!("snapshot-{:016x}", lsn.0)), snapshot.to_bytes()).unwrap();
    ends
}

fn replay(dir: &Path, state: &Path, base_lsn: u64, more: &[&str]) -> Output {
    let tree = state.with_extension("tree");
    std::fs::create_dir_all(&tree).unwrap();
    let mut tool = Command::new(env!("CARGO_BIN_EXE_tain-journal"));
    tool.args(["replay", "--json", "--base-lsn", &base_lsn.to_string()]).args(more).arg(dir);
    tool.arg("--state").arg(state).arg("--tree").arg(tree).output().unwrap()
}

fn junction_of(state: &Path, output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let meta: Value = serde_json::from_slice(&std::fs::read(state.join("replay.json")).unwrap()).unwrap();
    meta["junction"].clone()
}

#[test]
fn the_junction_is_the_one_that_the_path_led_to_when_the_copy_was_made() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("journal")).unwrap();
    let removed = |id| Event::JunctionRemoved(JunctionRemoved { junction: JunctionId(id) });
    let ends = journal(&at("journal"), &[added(1), removed(1), added(2)]);
    for (state, base_lsn, is) in [("first", ends[0], 1), ("between", ends[1], 2), ("second", ends[2], 2)] {
        let output = replay(&at("journal"), &at(state), base_lsn, &["--junction", "/a"]);
        assert_eq!(junction_of(&at(state), &output), is, "{state}");
        // Taken up, it is the one of the copy.
        let again = replay(&at("journal"), &at(state), base_lsn, &[]);
        assert_eq!(junction_of(&at(state), &again), is, "{state}");
    }
    let asked = replay(&at("journal"), &at("asked"), ends[2], &["--junction-id", "1"]);
    assert_eq!(junction_of(&at("asked"), &asked), 1);
    let other = replay(&at("journal"), &at("asked"), ends[2], &["--junction-id", "2"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("junction with the id 1"));
}

/// What it cuts in two would be left out of the copy.
#[test]
fn a_copy_of_an_lsn_within_a_record_is_refused() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("journal")).unwrap();
    let removed = Event::JunctionRemoved(JunctionRemoved { junction: JunctionId(1) });
    let ends = journal(&at("journal"), &[added(1), added(2), removed]);
    for within in [ends[0] + 1, ends[1] - 1] {
        let output = replay(&at("journal"), &at("state"), within, &["--junction-id", "2"]);
        let why = String::from_utf8_lossy(&output.stderr);
        let record = format!("LSN {within} is not where a record begins: one goes from {} to {}", ends[0], ends[1]);
        assert!(!output.status.success() && why.contains(&record), "{why}");
    }
}
