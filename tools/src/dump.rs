//! `tain-journal dump`: every record, a line each; places without a record too.

use crate::directory::{Directory, Item, SnapshotFile};
use crate::filter::{Filter, paths_of};
use crate::line::{Line, Style};
use crate::names::Names;
use crate::show::{self, Show};
use anyhow::Result;
use clap::Args;
use journal_format::event::{Event, codec};
use journal_format::record::{KIND_PADDING, KIND_SEGMENT_END};
use journal_format::scan::{Place, RecordRef};
use std::borrow::Cow;
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
    gap: Option<(u64, Place, String)>,
    /// Records that would be shown, or might be, with a path that is not known.
    unnamed: u64,
    line: Line,
}

pub fn run(args: &Dump, out: &mut dyn Write) -> Result<()> {
    args.filter.check()?;
    let dir = Directory::open(&args.dirs)?;
    let line = Line::new(if args.json { Style::Json } else { Style::Words });
    let mut dumper = Dumper { args, names: None, stated: dir.stated_durable(), gap: None, unnamed: 0, line };
    let (mut from, to) = args.filter.lsns();
    if args.paths || args.filter.wants_paths() {
        let mut names = Names::default();
        dir.sound_snapshots().filter_map(SnapshotFile::state).for_each(|state| names.seed(&state));
        dumper.names = Some(names);
        from = 0;
    }
    dir.walk_all(from, to, &mut |segment, item| dumper.item(segment, item, out))?;
    if dumper.unnamed > 0 {
        let left_out = if args.filter.wants_paths() { ", and what --path leaves out is not known" } else { "" };
        eprintln!(
            "tain-journal: {} records are about what was named before the oldest record at hand: its paths are not \
             known{left_out}; give the archives too",
            dumper.unnamed
        );
    }
    Ok(())
}

impl Dumper<'_> {
    fn item(&mut self, segment: u64, item: Item<'_>, out: &mut dyn Write) -> Result<()> {
        let is_end = matches!(item, Item::Gap { resumes: None, .. });
        if let Some((segment, place, what)) = self.gap.take_if(|_| !is_end) {
            self.bad(segment, Some(place), &what, out)?;
        }
        match item {
            Item::Record(record) => self.record(&record, out),
            Item::Gap { place, what, resumes: Some(_), .. } => self.bad(segment, Some(place), &what, out),
            Item::Gap { place, what, resumes: None, .. } => {
                // The first: the segments made ready behind it are empty too.
                self.gap.get_or_insert((segment, place, what));
                Ok(())
            }
            Item::Unreadable(what) => self.bad(segment, None, &what, out),
        }
    }

    /// Where no record is.
    fn bad(&mut self, segment: u64, place: Option<Place>, what: &str, out: &mut dyn Write) -> Result<()> {
        let line = &mut self.line;
        line.begin();
        match line.style() {
            Style::Json => {
                line.open(b'{');
                if let Some(place) = place {
                    line.field("lsn", &place.lsn);
                    line.field("offset", &place.offset);
                }
                line.field("segment", &segment);
                line.field("bad", what);
                line.close(b'}');
            }
            Style::Words => {
                let (lsn, offset) = place.map_or_else(Default::default, |place| {
                    (place.lsn.to_string(), format!(" at offset {}", place.offset))
                });
                line.raw(format!("{lsn:>12} NO RECORD in segment {segment}{offset}: {what}").as_bytes());
            }
        }
        self.print(out)
    }

    fn record(&mut self, record: &RecordRef<'_>, out: &mut dyn Write) -> Result<()> {
        let (header, args) = (&record.header, self.args);
        let wanted = args.filter.in_range(header)
            && if header.is_filler() { args.all } else { args.filter.takes_kind(header.kind) };
        if !wanted && self.names.is_none() {
            return Ok(());
        }
        let event = record.event();
        let mut paths = Vec::new();
        if let Ok(Some(event)) = &event {
            paths = paths_of(self.names.as_mut(), header, event);
            let unnamed = wanted && self.names.is_some() && Names::lacks(event, &paths);
            self.unnamed += u64::from(unnamed && args.filter.takes_but_path(event));
            if !args.filter.takes(event, &paths) {
                return Ok(());
            }
        } else if !args.filter.takes_any_event() {
            return Ok(());
        }
        if !wanted {
            return Ok(());
        }
        match self.line.style() {
            Style::Json => self.json(record, &event, &paths),
            Style::Words => self.words(record, &event, &paths),
        }
        self.print(out)
    }

    fn json(&mut self, record: &RecordRef<'_>, event: &Decoded, paths: &[String]) {
        let (header, line) = (&record.header, &mut self.line);
        line.begin();
        line.open(b'{');
        line.field("lsn", &header.lsn);
        line.field("time", &header.time);
        line.field("kind", &*kind_name(header.kind));
        match event {
            Ok(Some(event)) => {
                line.key("event");
                line.open(b'{');
                show::fields(event, line);
                line.close(b'}');
            }
            Ok(None) => {}
            Err(error) => line.field("error", &error.to_string()),
        }
        if self.args.paths {
            line.field("paths", paths);
        }
        line.field("end", &header.end());
        line.field("durable", &header.durable);
        line.field("bulk", &header.bulk_len);
        if header.end().0 > self.stated {
            line.field("not_stated_durable", &true);
        }
        line.close(b'}');
    }

    fn words(&mut self, record: &RecordRef<'_>, event: &Decoded, paths: &[String]) {
        let (header, line) = (&record.header, &mut self.line);
        line.begin();
        let digits = header.lsn.0.checked_ilog10().unwrap_or(0) as usize + 1;
        line.raw(&b"            "[digits.min(12)..]);
        line.number(header.lsn.0);
        line.raw(b" ");
        header.time.show(line);
        line.raw(b" ");
        line.raw(kind_name(header.kind).as_bytes());
        if let Ok(Some(event)) = event {
            show::fields(event, line);
        }
        if self.args.paths {
            paths.iter().for_each(|path| line.field("path", path));
        }
        if let Err(error) = event {
            line.field("error", &error.to_string());
        }
        if header.end().0 > self.stated {
            line.raw(b" (not stated durable)");
        }
    }

    fn print(&mut self, out: &mut dyn Write) -> Result<()> {
        self.line.raw(b"\n");
        out.write_all(self.line.bytes())?;
        Ok(())
    }
}

type Decoded = std::result::Result<Option<Event>, codec::Error>;

fn kind_name(kind: u16) -> Cow<'static, str> {
    match kind {
        KIND_PADDING => "(padding)".into(),
        KIND_SEGMENT_END => "(segment end)".into(),
        kind => match codec::KINDS.iter().find(|row| row.kind == kind) {
            Some(row) => row.name.into(),
            None => format!("(kind {kind})").into(),
        },
    }
}
