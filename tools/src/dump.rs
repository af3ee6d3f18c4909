//! `tain-journal dump`: every record, a line each; places without a record too.

use crate::directory::{Directory, Item};
use crate::filter::{Filter, paths_of};
use crate::names::Names;
use crate::show;
use anyhow::Result;
use clap::Args;
use journal_format::event::codec;
use journal_format::record::{KIND_PADDING, KIND_SEGMENT_END};
use journal_format::scan::RecordRef;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Dump {
    /// The journal's directory, archives of it, or both
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    /// The paths of what each record is about (reads the journal from its beginning)
    #[arg(long)]
    paths: bool,
    /// Fillers too: padding, and the ends of segments
    #[arg(long)]
    all: bool,
}

/// While the journal is read.
struct Dumper<'a> {
    args: &'a Dump,
    names: Option<Names>,
    /// What begins here or behind may not be durable yet.
    stated: u64,
    /// A place without a record that nothing follows is the end of the journal: only then it need not be told.
    gap: Option<Value>,
}

pub fn run(args: &Dump, out: &mut dyn Write) -> Result<()> {
    args.filter.check()?;
    let dir = Directory::open(&args.dirs)?;
    let mut dumper = Dumper { args, names: None, stated: dir.stated_durable(), gap: None };
    let (mut from, to) = args.filter.lsns();
    if args.paths || args.filter.wants_paths() {
        let mut names = Names::default();
        dir.snapshots.iter().filter_map(|snapshot| snapshot.state()).for_each(|state| names.seed(&state));
        dumper.names = Some(names);
        from = 0;
    }
    dir.walk(from, to, &mut |segment, item| dumper.item(segment, item, out))
}

impl Dumper<'_> {
    fn item(&mut self, segment: u64, item: Item<'_>, out: &mut dyn Write) -> Result<()> {
        let is_end = matches!(item, Item::Gap { resumes: None, .. });
        if let Some(gap) = self.gap.take_if(|_| !is_end) {
            print(self.args, &gap, out)?;
        }
        let line = match item {
            Item::Record(record) => match self.line_of(&record) {
                Some(line) => line,
                None => return Ok(()),
            },
            Item::Gap { place, what, resumes, .. } => {
                let bad = json!({ "lsn": place.lsn.0, "segment": segment, "offset": place.offset, "bad": what });
                match resumes {
                    Some(_) => bad,
                    None => {
                        // The first: the segments made ready behind it are empty too.
                        self.gap.get_or_insert(bad);
                        return Ok(());
                    }
                }
            }
            Item::Unreadable(what) => json!({ "segment": segment, "bad": what }),
        };
        print(self.args, &line, out)
    }

    fn line_of(&mut self, record: &RecordRef<'_>) -> Option<Value> {
        let (header, args) = (&record.header, self.args);
        let wanted = args.filter.in_range(header)
            && if header.is_filler() { args.all } else { args.filter.takes_kind(header.kind) };
        if !wanted && self.names.is_none() {
            return None;
        }
        let event = record.event();
        let mut paths = Vec::new();
        if let Ok(Some(event)) = &event {
            paths = paths_of(self.names.as_mut(), header, event);
            if !args.filter.takes(event, &paths) {
                return None;
            }
        } else if !args.filter.takes_any_event() {
            return None;
        }
        if !wanted {
            return None;
        }
        let mut line = Map::new();
        line.insert("lsn".into(), json!(header.lsn.0));
        line.insert("time".into(), json!(show::time(header.time)));
        match &event {
            Ok(Some(event)) => {
                line.insert("kind".into(), json!(event.row().name));
                let fields = show::fields(event).into_iter().map(|(name, value)| (name.to_owned(), value));
                line.insert("event".into(), Value::Object(fields.collect()));
            }
            Ok(None) => drop(line.insert("kind".into(), json!(filler_name(header.kind)))),
            Err(error) => {
                line.insert("kind".into(), json!(kind_name(header.kind)));
                line.insert("error".into(), json!(error.to_string()));
            }
        }
        if args.paths {
            line.insert("paths".into(), json!(paths));
        }
        line.insert("end".into(), json!(header.end().0));
        line.insert("durable".into(), json!(header.durable.0));
        line.insert("bulk".into(), json!(header.bulk_len));
        if header.end().0 > self.stated {
            line.insert("not_stated_durable".into(), json!(true));
        }
        Some(Value::Object(line))
    }
}

fn filler_name(kind: u16) -> String {
    match kind {
        KIND_PADDING => "(padding)".to_owned(),
        KIND_SEGMENT_END => "(segment end)".to_owned(),
        kind => kind_name(kind),
    }
}

fn kind_name(kind: u16) -> String {
    let row = codec::KINDS.iter().find(|row| row.kind == kind);
    row.map_or_else(|| format!("(kind {kind})"), |row| row.name.to_owned())
}

fn print(args: &Dump, line: &Value, out: &mut dyn Write) -> Result<()> {
    if args.json {
        serde_json::to_writer(&mut *out, line)?;
        out.write_all(b"\n")?;
        return Ok(());
    }
    let get = |name: &str| line.get(name).map(show::text).unwrap_or_default();
    if let Some(bad) = line.get("bad") {
        let (lsn, segment, offset) = (get("lsn"), get("segment"), get("offset"));
        writeln!(out, "{lsn:>12} NO RECORD in segment {segment} at offset {offset}: {}", show::text(bad))?;
        return Ok(());
    }
    write!(out, "{:>12} {} {}", get("lsn"), get("time"), get("kind"))?;
    for (name, value) in line.get("event").and_then(Value::as_object).into_iter().flatten() {
        if !value.is_null() {
            write!(out, " {name}={}", show::text(value))?;
        }
    }
    for path in line.get("paths").and_then(Value::as_array).into_iter().flatten() {
        write!(out, " path={}", show::text(path))?;
    }
    if let Some(error) = line.get("error") {
        write!(out, " error={}", show::text(error))?;
    }
    if line.get("not_stated_durable").is_some() {
        write!(out, " (not stated durable)")?;
    }
    writeln!(out)?;
    Ok(())
}
