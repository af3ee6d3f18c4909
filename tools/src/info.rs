//! `tain-journal info`: what is in a journal, at a glance.

use crate::damage::{Gap, before_durable, believed, missing_behind};
use crate::directory::{Directory, Item, SnapshotFile};
use crate::names::snapshot_path;
use crate::segment::SegmentFile;
use crate::show;
use anyhow::Result;
use clap::Args;
use journal_format::event::Event;
use journal_format::ids::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Info {
    /// The journal's directory, archives of it, or both
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Segment {
    number: u64,
    /// It is read from an archive.
    archived: bool,
    first_lsn: u64,
    end_lsn: u64,
    /// Behind the last record before the first gap.
    written_to: u64,
    records: u64,
    times: Option<(Time, Time)>,
    /// Places without a record that are followed by one, or by what was durable.
    gaps: u64,
    problem: Option<String>,
}

/// What the events say, as far as the journal reaches back.
#[derive(Default)]
struct Facts {
    kinds: BTreeMap<&'static str, u64>,
    unreadable: u64,
    stated: u64,
    cursors: BTreeMap<u32, u64>,
    /// Secondaries whose backlog went to their dirty sets, from which LSN on.
    out_of_sync: BTreeMap<u32, u64>,
    /// Path and location, by number.
    junctions: BTreeMap<u32, (String, u32)>,
    /// The last record is that of an orderly stop.
    stopped: bool,
}

/// True when nothing that it looked at is damaged.
pub fn run(args: &Info, out: &mut dyn Write) -> Result<bool> {
    let (mut report, damage) = believed(|| look(&args.dirs))?;
    let whole = damage.is_empty();
    if let Some(report) = report.as_object_mut() {
        report.insert("damage".into(), damage.into());
    }
    match args.json {
        true => writeln!(out, "{report}")?,
        false => print(&report, out)?,
    }
    Ok(whole)
}

/// All but the damage, and the damage.
fn look(paths: &[PathBuf]) -> Result<(Directory, Value, Vec<String>)> {
    let dir = Directory::open(paths)?;
    let mut segments: BTreeMap<u64, Segment> =
        dir.segments.iter().map(|file| (file.number, Segment::of(file))).collect();
    let (mut facts, mut damage, mut gaps) = (Facts::default(), dir.damage(), Vec::new());
    // The oldest: what records say later is younger.
    if let Some(state) = dir.sound_snapshots().find_map(SnapshotFile::state) {
        facts.seed(&state);
    }
    dir.walk(0, u64::MAX, &mut |number, item| {
        let segment = segments.entry(number).or_default();
        match item {
            Item::Record(record) => {
                segment.record(&record);
                facts.stated = facts.stated.max(record.header.durable.0);
                facts.event(record.event());
            }
            Item::Gap { place, what, zeros, resumes } => {
                segment.gaps += u64::from(resumes.is_some());
                gaps.push(Gap::new(number, place, what, zeros, resumes));
            }
            Item::Unreadable(what) => {
                // A bad header was told already.
                if !damage.contains(&what) {
                    damage.push(what.clone());
                }
                segment.problem = Some(what);
            }
        }
        Ok(())
    })?;
    let stated = dir.stated_by_files().max(facts.stated);
    damage.extend(before_durable(&gaps, stated));
    damage.extend(missing_behind(&dir, &gaps, stated));
    for gap in gaps.iter().filter(|gap| gap.lsn < stated && !gap.records_behind) {
        segments.entry(gap.segment).or_default().gaps += 1;
    }
    let sides: Vec<Value> = dir
        .sides
        .iter()
        .filter_map(|side| side.header.as_ref().ok().map(|header| (side, header)))
        .map(|(side, h)| json!({ "junction": h.junction.0, "from": h.from.0, "to": h.to.0, "bytes": side.len }))
        .collect();
    let snapshots: Vec<Value> =
        dir.snapshots.iter().map(|s| json!({ "lsn": s.lsn, "bytes": s.len, "whole": s.header.is_ok() })).collect();
    let junctions: Vec<Value> = facts
        .junctions
        .iter()
        .map(|(junction, (path, location))| json!({ "junction": junction, "path": path, "location": location }))
        .collect();
    let cursors: Vec<Value> =
        facts.cursors.iter().map(|(location, lsn)| {
            json!({ "location": location, "lsn": lsn, "out_of_sync_from": facts.out_of_sync.get(location) })
        }).collect();
    let report = json!({
        "dirs": paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "journal_id": dir.journal_id().map(|id| show::hex(&id)),
        "segment_size": dir.any_header().map(|header| header.size),
        "start_lsn": segments.values().find(|s| s.records > 0).map(|s| s.first_lsn),
        "end_lsn": segments.values().filter(|s| s.records > 0).map(|s| s.written_to).max(),
        "stated_durable_lsn": stated,
        "bytes_in_files": dir.segments.iter().map(|s| s.len).sum::<u64>(),
        "segments": segments.values().map(Segment::json).collect::<Vec<_>>(),
        "spares": dir.spares,
        "snapshots": snapshots,
        "sides": sides,
        "stopped_in_order": facts.stopped,
        "records": facts.kinds,
        "unreadable_records": facts.unreadable,
        "cursors": cursors,
        "junctions": junctions,
        "notes": dir.notes,
    });
    Ok((dir, report, damage))
}

impl Segment {
    fn of(file: &SegmentFile) -> Segment {
        let mut segment = Segment { number: file.number, archived: file.is_archive(), ..Segment::default() };
        if let Ok(header) = &file.header {
            (segment.first_lsn, segment.end_lsn) = (header.first_lsn().0, header.end_lsn().0);
            segment.written_to = header.first_record().0;
        }
        segment
    }

    fn record(&mut self, record: &journal_format::scan::RecordRef<'_>) {
        let time = record.header.time;
        let first = self.times.map_or(time, |(first, _)| first);
        self.times = Some((first, time));
        self.records += u64::from(!record.header.is_filler());
        if self.gaps == 0 {
            self.written_to = record.header.end().0;
        }
    }

    fn json(&self) -> Value {
        json!({
            "number": self.number,
            "archived": self.archived,
            "first_lsn": self.first_lsn,
            "end_lsn": self.end_lsn,
            "written_to": self.written_to,
            "records": self.records,
            "first_time": self.times.map(|(first, _)| show::time(first)),
            "last_time": self.times.map(|(_, last)| show::time(last)),
            "gaps": self.gaps,
            "problem": self.problem,
        })
    }
}

impl Facts {
    /// What a snapshot says, as far as it is there: its inside belongs to the service.
    fn seed(&mut self, state: &Value) {
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
        let id = |value: &Value, name: &str| number(value, name).and_then(|n| u32::try_from(n).ok());
        let list = |name: &str| state.get(name).and_then(Value::as_array).into_iter().flatten();
        for location in list("locations") {
            if let (Some(location), Some(lsn)) = (id(location, "id"), number(location, "cursor")) {
                self.cursors.insert(location, lsn);
            }
            let from = location.get("out_of_sync").and_then(|out| number(out, "from"));
            if let (Some(location), Some(from)) = (id(location, "id"), from) {
                self.out_of_sync.insert(location, from);
            }
        }
        for junction in list("junctions") {
            if let (Some(id), Some(primary)) = (id(junction, "id"), id(junction, "primary")) {
                self.junctions.insert(id, (snapshot_path(junction.get("path")), primary));
            }
        }
    }

    fn event(&mut self, event: Result<Option<Event>, journal_format::event::codec::Error>) {
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                self.unreadable += 1;
                return;
            }
        };
        *self.kinds.entry(event.row().name).or_default() += 1;
        self.stopped = matches!(&event, Event::Durable(durable) if durable.stopped);
        match event {
            Event::Cursor(e) => drop(self.cursors.insert(e.location.0, e.lsn.0)),
            Event::OutOfSync(e) => {
                self.out_of_sync.entry(e.location.0).or_insert(e.from.0);
            }
            Event::InSync(e) => drop(self.out_of_sync.remove(&e.location.0)),
            Event::JunctionAdded(e) => {
                self.junctions.insert(e.junction.0, (show::path(&e.path), e.location.location.0));
            }
            Event::JunctionRemoved(e) => drop(self.junctions.remove(&e.junction.0)),
            Event::JunctionSwitched(e) => {
                let unnamed = ("(added before the journal's start)".to_owned(), e.to.0);
                self.junctions.entry(e.junction.0).or_insert(unnamed).1 = e.to.0;
            }
            _ => {}
        }
    }
}

fn print(report: &Value, out: &mut dyn Write) -> Result<()> {
    let get = |value: &Value, name: &str| value.get(name).map(show::text).unwrap_or_default();
    let list = |name: &str| report.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let dirs: Vec<String> = list("dirs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    writeln!(out, "journal {} in {}", get(report, "journal_id"), dirs.join(", "))?;
    let stopped = if report.get("stopped_in_order") == Some(&json!(true)) {
        "stopped in order"
    } else {
        "in use, or not stopped in order"
    };
    writeln!(out, "segments of {} bytes, {} spare; {stopped}", get(report, "segment_size"), get(report, "spares"))?;
    let (start, end, stated) = (get(report, "start_lsn"), get(report, "end_lsn"), get(report, "stated_durable_lsn"));
    writeln!(out, "LSN {start} to {end}; everything before {stated} was stated durable")?;
    writeln!(out, "{:>8} {:>14} {:>14} {:>9}  last record", "segment", "first LSN", "written to", "records")?;
    for segment in list("segments") {
        let (number, first, to) = (get(&segment, "number"), get(&segment, "first_lsn"), get(&segment, "written_to"));
        let (records, time) = (get(&segment, "records"), get(&segment, "last_time"));
        let time = if time == "null" { "-" } else { &time };
        let archived = if segment.get("archived") == Some(&json!(true)) { "  (archive)" } else { "" };
        writeln!(out, "{number:>8} {first:>14} {to:>14} {records:>9}  {time}{archived}")?;
    }
    for snapshot in list("snapshots") {
        writeln!(out, "snapshot at LSN {}: {} bytes", get(&snapshot, "lsn"), get(&snapshot, "bytes"))?;
    }
    for side in list("sides") {
        let (from, to, bytes) = (get(&side, "from"), get(&side, "to"), get(&side, "bytes"));
        writeln!(out, "side of junction {}: LSN {from} to {to}, {bytes} bytes", get(&side, "junction"))?;
    }
    for junction in list("junctions") {
        let (path, location) = (get(&junction, "path"), get(&junction, "location"));
        writeln!(out, "junction {} {path}: location {location}", get(&junction, "junction"))?;
    }
    for cursor in list("cursors") {
        let from = get(&cursor, "out_of_sync_from");
        let dirty = if from == "null" { String::new() } else { format!(", out of sync from {from} on") };
        writeln!(out, "cursor of location {}: LSN {}{dirty}", get(&cursor, "location"), get(&cursor, "lsn"))?;
    }
    for (kind, count) in report.get("records").and_then(Value::as_object).into_iter().flatten() {
        writeln!(out, "{count:>10} {kind}")?;
    }
    for note in list("notes") {
        writeln!(out, "note: {}", note.as_str().unwrap_or_default())?;
    }
    for damage in list("damage") {
        writeln!(out, "DAMAGE: {}", damage.as_str().unwrap_or_default())?;
    }
    Ok(())
}
