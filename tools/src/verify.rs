//! `tain-journal verify`: is everything that was durable still there, whole, and can this version read it? Tells a torn tail
//! from corruption.

use crate::damage::{Gap, before_durable, believed};
use crate::directory::{Directory, Item, walk_segment};
use crate::segment::SegmentFile;
use anyhow::Result;
use clap::Args;
use journal_format::event::codec;
use journal_format::record::KIND_SEGMENT_END;
use journal_format::segment::SegmentHeader;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Verify {
    /// The journal's directory, archives of it, or both
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Seen {
    records: u64,
    bytes: u64,
    end: u64,
    /// The highest durable LSN that anything states.
    stated: u64,
    last_time: i64,
    gaps: Vec<Gap>,
    damage: Vec<String>,
    /// Records of a newer version: whole, and not understood.
    unknown: Vec<String>,
}

/// True when nothing is wrong, and nothing is unknown.
pub fn run(args: &Verify, out: &mut dyn Write) -> Result<bool> {
    let (seen, corruption) = believed(|| look(&args.dirs))?;
    let tail = seen.tail();
    let ok = corruption.is_empty() && seen.unknown.is_empty();
    if args.json {
        let report = json!({
            "dirs": args.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>(),
            "ok": ok,
            "records": seen.records,
            "bytes": seen.bytes,
            "end_lsn": seen.end,
            "stated_durable_lsn": seen.stated,
            "tail": tail,
            "unknown": seen.unknown,
            "corruption": corruption,
        });
        writeln!(out, "{report}")?;
        return Ok(ok);
    }
    let Seen { records, bytes, end, stated, .. } = &seen;
    writeln!(
        out,
        "{records} records, {bytes} bytes, end at LSN {end}; everything before LSN {stated} was stated durable"
    )?;
    writeln!(out, "tail: {tail}")?;
    for unknown in &seen.unknown {
        writeln!(out, "UNKNOWN: {unknown}")?;
    }
    for what in &corruption {
        writeln!(out, "CORRUPT: {what}")?;
    }
    // Nothing is said to be damaged that may just not be understood.
    match (corruption.is_empty(), ok) {
        (true, true) => writeln!(out, "ok")?,
        (true, false) => writeln!(out, "this journal needs a newer tain: what is known of it is whole")?,
        (false, _) => writeln!(out, "the journal is corrupt")?,
    }
    Ok(ok)
}

fn look(paths: &[PathBuf]) -> Result<(Directory, Seen, Vec<String>)> {
    let dir = Directory::open(paths)?;
    let (damage, stated) = (dir.damage(), dir.stated_by_files());
    let mut seen = Seen { last_time: i64::MIN, damage, stated, ..Seen::default() };
    let mut buffer = Vec::new();
    let id = dir.journal_id();
    // Another journal's was told already, and says nothing of this one.
    for segment in dir.segments.iter().filter(|segment| !segment.is_of_other(id)) {
        let header = segment.header.as_ref().ok();
        walk_segment(segment, &mut buffer, &mut |_, item| {
            match item {
                Item::Record(record) => seen.record(segment.number, header, &record),
                Item::Gap { place, what, zeros, resumes } => {
                    seen.gaps.push(Gap::new(segment.number, place, what, zeros, resumes));
                }
                // A bad header was told already.
                Item::Unreadable(what) if header.is_some() => seen.damage.push(what),
                Item::Unreadable(_) => {}
            }
            Ok(())
        })?;
        for copy in &segment.others {
            seen.copy(copy, &mut buffer)?;
        }
    }
    let corruption = seen.corruption();
    Ok((dir, seen, corruption))
}

impl Seen {
    /// A further copy of a segment: an archive of it beside it. Every record of it, too.
    fn copy(&mut self, copy: &SegmentFile, buffer: &mut Vec<u8>) -> Result<()> {
        if copy.header.is_err() {
            return Ok(());
        }
        walk_segment(copy, buffer, &mut |_, item| {
            match item {
                Item::Record(record) => self.bytes += u64::from(record.header.length),
                Item::Gap { place, what, .. } if copy.is_archive() => {
                    self.damage.push(format!("{}: offset {}: {what}", copy.path.display(), place.offset));
                }
                Item::Gap { .. } => {}
                Item::Unreadable(what) => self.damage.push(what),
            }
            Ok(())
        })
    }

    fn record(
        &mut self,
        segment: u64,
        in_segment: Option<&SegmentHeader>,
        record: &journal_format::scan::RecordRef<'_>,
    ) {
        let header = &record.header;
        self.records += 1;
        self.bytes += u64::from(header.length);
        // What stands behind a gap is not the end of anything.
        if self.gaps.is_empty() {
            let next = in_segment.filter(|_| header.kind == KIND_SEGMENT_END).map(|segment| segment.end_lsn());
            self.end = next.unwrap_or(header.end()).0;
        }
        self.stated = self.stated.max(header.durable.0);
        let place = || format!("segment {segment}, offset {} (LSN {})", record.offset, header.lsn);
        match record.event() {
            Ok(_) => {}
            Err(error @ (codec::Error::Archive { .. } | codec::Error::Bound { .. })) => {
                self.damage.push(format!("{}: {error}", place()));
            }
            Err(error) => self.unknown.push(format!("{}: {error}", place())),
        }
        if header.time.0 < self.last_time && self.gaps.is_empty() {
            self.damage.push(format!("{}: its time is before that of the record before", place()));
        }
        self.last_time = header.time.0;
    }

    fn corruption(&self) -> Vec<String> {
        let mut all = self.damage.clone();
        all.extend(before_durable(&self.gaps, self.stated));
        if self.gaps.is_empty() && self.end < self.stated {
            all.push(format!("the journal ends at LSN {}, before what was durable: segments are missing", self.end));
        }
        all
    }

    fn tail(&self) -> String {
        match self.gaps.iter().find(|gap| gap.lsn >= self.stated) {
            None => "the last segment is closed".into(),
            Some(gap) if gap.records_behind => {
                format!("torn at LSN {}: whole records stand behind it, and will be cut", gap.lsn)
            }
            Some(gap) if gap.zeros => format!("ends at LSN {}", gap.lsn),
            Some(gap) => format!(
                "ends at LSN {}, before bytes that are no record: of an earlier lap, or of a torn write, which will be cut",
                gap.lsn
            ),
        }
    }
}
