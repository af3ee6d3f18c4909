//! `tain-journal dump`: every record, a line each; places without a record too.

use crate::directory::{Directory, Item};
use crate::show;
use anyhow::{Result, bail};
use clap::Args;
use journal_format::event::codec;
use journal_format::record::{KIND_PADDING, KIND_SEGMENT_END};
use journal_format::scan::RecordRef;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Dump {
    /// The journal's directory
    dir: PathBuf,
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    /// Only records that begin at this LSN or behind it
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    from: u64,
    /// Only records that end at this LSN or before it
    #[arg(long, value_name = "LSN", default_value_t = u64::MAX)]
    to: u64,
    /// Only records of this kind (Write, Rename, Cursor, …); may be given more than once
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Fillers too: padding, and the ends of segments
    #[arg(long)]
    all: bool,
}

pub fn run(args: &Dump, out: &mut dyn Write) -> Result<()> {
    for kind in &args.kind {
        if !codec::KINDS.iter().any(|row| row.name.eq_ignore_ascii_case(kind)) {
            let known: Vec<&str> = codec::KINDS.iter().map(|row| row.name).collect();
            bail!("there is no record kind {kind:?}; known are {}", known.join(", "));
        }
    }
    let dir = Directory::open(&args.dir)?;
    // A place without a record that nothing follows is the end of the journal: only then it need not be told.
    let mut gap: Option<Value> = None;
    for segment in &dir.segments {
        if segment
            .header
            .as_ref()
            .is_ok_and(|header| header.end_lsn().0 <= args.from || header.first_lsn().0 >= args.to)
        {
            continue;
        }
        segment.walk(&mut |item| {
            let is_end = matches!(item, Item::Gap { resumes: None, .. });
            if let Some(gap) = gap.take_if(|_| !is_end) {
                print(args, &gap, out)?;
            }
            let line = match item {
                Item::Record(record) => match line_of(args, &record) {
                    Some(line) => line,
                    None => return Ok(()),
                },
                Item::Gap { place, what, resumes, .. } => {
                    let bad =
                        json!({ "lsn": place.lsn.0, "segment": segment.number, "offset": place.offset, "bad": what });
                    match resumes {
                        Some(_) => bad,
                        None => {
                            // The first: the segments made ready behind it are empty too.
                            gap.get_or_insert(bad);
                            return Ok(());
                        }
                    }
                }
                Item::Unreadable(what) => json!({ "segment": segment.number, "bad": what }),
            };
            print(args, &line, out)
        })?;
    }
    Ok(())
}

fn line_of(args: &Dump, record: &RecordRef<'_>) -> Option<Value> {
    let header = &record.header;
    if header.lsn.0 < args.from || header.end().0 > args.to {
        return None;
    }
    let event = record.event();
    let name = match &event {
        Ok(Some(event)) => event.row().name.to_owned(),
        Ok(None) if header.kind == KIND_PADDING => "(padding)".to_owned(),
        Ok(None) if header.kind == KIND_SEGMENT_END => "(segment end)".to_owned(),
        Ok(None) | Err(_) => format!("(kind {})", header.kind),
    };
    let wanted = args.kind.is_empty() || args.kind.iter().any(|kind| kind.eq_ignore_ascii_case(&name));
    if !wanted || (header.is_filler() && !args.all) {
        return None;
    }
    let mut line = Map::new();
    line.insert("lsn".into(), json!(header.lsn.0));
    line.insert("time".into(), json!(show::time(header.time)));
    line.insert("kind".into(), json!(name));
    match &event {
        Ok(Some(event)) => {
            let fields: Map<String, Value> =
                show::fields(event).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            line.insert("event".into(), Value::Object(fields));
        }
        Ok(None) => {}
        Err(error) => drop(line.insert("error".into(), json!(error.to_string()))),
    }
    line.insert("end".into(), json!(header.end().0));
    line.insert("durable".into(), json!(header.durable.0));
    line.insert("bulk".into(), json!(header.bulk_len));
    Some(Value::Object(line))
}

fn print(args: &Dump, line: &Value, out: &mut dyn Write) -> Result<()> {
    if args.json {
        writeln!(out, "{line}")?;
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
    if let Some(error) = line.get("error") {
        write!(out, " error={}", show::text(error))?;
    }
    writeln!(out)?;
    Ok(())
}
