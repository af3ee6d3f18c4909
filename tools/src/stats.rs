//! `tain-journal stats`: who did how much, where, and when. Operations that failed count too: they were asked for.

use crate::damage::{Gap, before_durable, believed, missing_behind};
use crate::directory::{Directory, Item, SnapshotFile};
use crate::filter::{self, Filter, paths_of};
use crate::names::Names;
use crate::{position, show};
use anyhow::Result;
use clap::Args;
use journal_format::event::Event;
use journal_format::ids::Time;
use journal_format::scan::RecordRef;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;

/// Keys of one table that are told apart; what comes later counts as others.
const KEYS_MAX: usize = 100_000;
/// Spans of time; at more, neighbours are put together.
const BUCKETS_MAX: usize = 1000;
const OTHERS: &str = "(others)";
const UNKNOWN: &str = "(named before the oldest record)";

#[derive(Args)]
pub struct Stats {
    /// The journal's directory, archives of it, or both
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    /// Paths are counted by so many of their first names
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: usize,
    /// Length of a span of time; doubled until there are at most 1000
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = position::span)]
    bucket: i64,
    /// Lines of a table of text
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

#[derive(Clone, Copy, Default)]
struct Count {
    ops: u64,
    /// Bytes that clients wrote.
    data: u64,
    /// Bytes of the journal.
    journal: u64,
}

#[derive(Default)]
struct Tables {
    all: Count,
    kinds: HashMap<String, Count>,
    clients: HashMap<String, Count>,
    uids: HashMap<String, Count>,
    paths: HashMap<String, Count>,
    times: BTreeMap<i64, Count>,
    span: i64,
    range: Option<(Time, Time)>,
    unreadable: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.ops += other.ops;
        self.data += other.data;
        self.journal += other.journal;
    }

    fn json(self, name: &str, key: &str) -> Value {
        json!({ name: key, "ops": self.ops, "data_bytes": self.data, "journal_bytes": self.journal })
    }
}

pub fn run(args: &Stats, out: &mut dyn Write) -> Result<()> {
    args.filter.check()?;
    let (tables, damage) = believed(|| look(args))?;
    let report = tables.report(args, &damage);
    match args.json {
        true => writeln!(out, "{report}")?,
        false => print(args, &report, out)?,
    }
    Ok(())
}

fn look(args: &Stats) -> Result<(Directory, Tables, Vec<String>)> {
    let dir = Directory::open(&args.dirs)?;
    let mut names = Names::default();
    dir.sound_snapshots().filter_map(SnapshotFile::state).for_each(|state| names.seed(&state));
    let mut tables = Tables { span: args.bucket, ..Tables::default() };
    // Looked at before the records: a service goes on, and what is read of its end must not be judged by what it does
    // later.
    let (stated, mut damage, mut gaps) = (dir.stated_durable(), dir.damage(), Vec::new());
    // From the beginning, for the names.
    dir.walk_all(0, args.filter.lsns().1, &mut |segment, item| {
        match item {
            Item::Record(record) => tables.record(args, &mut names, &record),
            Item::Gap { place, what, zeros, resumes } => gaps.push(Gap::new(segment, place, what, zeros, resumes)),
            // A bad header was told already.
            Item::Unreadable(what) if damage.contains(&what) => {}
            Item::Unreadable(what) => damage.push(what),
        }
        Ok(())
    })?;
    damage.extend(before_durable(&gaps, stated));
    if args.filter.lsns().1 == u64::MAX {
        damage.extend(missing_behind(&dir, &gaps, stated));
    }
    Ok((dir, tables, damage))
}

impl Tables {
    fn record(&mut self, args: &Stats, names: &mut Names, record: &RecordRef<'_>) {
        let header = &record.header;
        let event = match record.event() {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                self.unreadable += 1;
                return;
            }
        };
        let paths = paths_of(Some(names), header, &event);
        let wanted = args.filter.in_range(header) && args.filter.takes_kind(header.kind);
        if !wanted || !args.filter.takes(&event, &paths) {
            return;
        }
        let count = Count { ops: 1, data: u64::from(header.bulk_len), journal: u64::from(header.length) };
        self.all.add(count);
        let first = self.range.map_or(header.time, |(first, _)| first);
        self.range = Some((first, header.time));
        put(&mut self.kinds, event.row().name, count);
        if let Some(caller) = filter::caller(&event) {
            put(&mut self.clients, &filter::address(caller).to_string(), count);
            put(&mut self.uids, &caller.uid.to_string(), count);
            put(&mut self.paths, &prefix(paths.first(), args.depth), count);
        } else if matches!(event, Event::Adopt(_)) {
            put(&mut self.paths, &prefix(paths.first(), args.depth), count);
        }
        self.times.entry(header.time.0.div_euclid(self.span)).or_default().add(count);
        if self.times.len() > BUCKETS_MAX {
            self.span *= 2;
            for (at, count) in std::mem::take(&mut self.times) {
                self.times.entry(at.div_euclid(2)).or_default().add(count);
            }
        }
    }

    fn report(&self, args: &Stats, damage: &[String]) -> Value {
        let dirs: Vec<String> = args.dirs.iter().map(|dir| dir.display().to_string()).collect();
        let (first, last) = self.range.map_or((None, None), |(a, b)| (Some(show::time(a)), Some(show::time(b))));
        let times: Vec<Value> =
            self.times.iter().map(|(at, count)| count.json("from", &show::time(Time(at * self.span)))).collect();
        json!({
            "dirs": dirs,
            "ops": self.all.ops,
            "data_bytes": self.all.data,
            "journal_bytes": self.all.journal,
            "first_time": first,
            "last_time": last,
            "kinds": sorted(&self.kinds, "kind"),
            "clients": sorted(&self.clients, "client"),
            "uids": sorted(&self.uids, "uid"),
            "paths": sorted(&self.paths, "path"),
            "bucket_seconds": self.span / 1_000_000_000,
            "times": times,
            "unreadable_records": self.unreadable,
            "damage": damage,
        })
    }
}

fn put(table: &mut HashMap<String, Count>, key: &str, count: Count) {
    if let Some(known) = table.get_mut(key) {
        return known.add(count);
    }
    let key = if table.len() < KEYS_MAX { key } else { OTHERS };
    table.entry(key.to_owned()).or_default().add(count);
}

/// The first names of a path.
fn prefix(path: Option<&String>, depth: usize) -> String {
    let Some(path) = path else { return UNKNOWN.to_owned() };
    let end = path.match_indices('/').nth(depth).map_or(path.len(), |(at, _)| at);
    let first = path.get(..end).unwrap_or_default();
    if first.is_empty() { "/".to_owned() } else { first.to_owned() }
}

/// Most operations first.
fn sorted(table: &HashMap<String, Count>, name: &str) -> Vec<Value> {
    let mut rows: Vec<(&String, &Count)> = table.iter().collect();
    rows.sort_by(|a, b| b.1.ops.cmp(&a.1.ops).then(a.0.cmp(b.0)));
    rows.into_iter().map(|(key, count)| count.json(name, key)).collect()
}

fn print(args: &Stats, report: &Value, out: &mut dyn Write) -> Result<()> {
    let get = |value: &Value, name: &str| value.get(name).map(show::text).unwrap_or_default();
    let (ops, data, journal) = (get(report, "ops"), get(report, "data_bytes"), get(report, "journal_bytes"));
    writeln!(out, "{ops} records, {data} bytes of data, {journal} bytes of journal")?;
    writeln!(out, "from {} to {}", get(report, "first_time"), get(report, "last_time"))?;
    for (table, name) in
        [("kinds", "kind"), ("clients", "client"), ("uids", "uid"), ("paths", "path"), ("times", "from")]
    {
        let rows = report.get(table).and_then(Value::as_array).cloned().unwrap_or_default();
        writeln!(out, "\n{:>12} {:>16} {:>16}  {name}", "ops", "data bytes", "journal bytes")?;
        // Times in their order, and all of them.
        let shown = if table == "times" { rows.len() } else { args.top };
        for row in rows.iter().take(shown) {
            let (ops, data, journal) = (get(row, "ops"), get(row, "data_bytes"), get(row, "journal_bytes"));
            writeln!(
                out,
                "{ops:>12} {data:>16} {journal:>16}  {}",
                row.get(name).and_then(Value::as_str).unwrap_or_default()
            )?;
        }
        if rows.len() > shown {
            writeln!(out, "{:>12} further lines: see --top, --json", rows.len() - shown)?;
        }
    }
    if get(report, "unreadable_records") != "0" {
        writeln!(out, "\n{} records are of a newer version, or damaged", get(report, "unreadable_records"))?;
    }
    for damage in report.get("damage").and_then(Value::as_array).into_iter().flatten() {
        writeln!(out, "DAMAGE: {}", damage.as_str().unwrap_or_default())?;
    }
    Ok(())
}
