//! `tain-journal repair`: make a journal that is damaged before its durable end one that the service opens again. What is
//! taken out of it is kept, in a directory of its own, byte for byte, and never deleted. Without `--write` nothing is changed.
//!
//! Where all damage lies in segments that no start needs any more (`front`), these and the ones before go, and nothing else:
//! the journal begins behind them. Otherwise it is cut at the first damage: what is behind was durable, and was answered to
//! clients. A segment's file that is not the journal's (a copy under another number, another journal's) behind its end is
//! moved aside, and nothing is cut.
//!
//! Order: everything that goes is copied aside and synced; then snapshots, side segments and later segments are moved
//! aside, the last first (those of the beginning, the first first); then the damaged segment is zeroed behind the cut. A run
//! that was cut short is taken up by the next one.

use crate::archive::sync_dir;
use crate::directory::{Directory, Item, walk_segment};
use crate::segment::{SegmentFile, read_what_can_be};
use anyhow::{Context, Result, bail};
use clap::Args;
use journal_format::scan::RecordRef;
use journal_format::segment::{BLOCK, BadSegment, SegmentHeader};
use journal_format::snapshot::{BadSnapshot, SnapshotHeader};
use serde_json::{Value, json};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Repair {
    /// The journal's directory; the service must not be running
    dir: PathBuf,
    /// Do it. Without this it is only told what would be done
    #[arg(long)]
    write: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// What is to be done.
#[derive(Default)]
struct Plan {
    /// Why, the first damage first.
    reasons: Vec<String>,
    /// The journal ends here afterwards; `None`: nothing is cut.
    cut: Option<Cut>,
    /// The journal begins here afterwards: an LSN that a segment begins at.
    front: Option<u64>,
    /// Files that are moved aside.
    aside: Vec<PathBuf>,
    /// Whole records behind the cut, and the LSN that was durable.
    lost_records: u64,
    stated: u64,
}

impl Plan {
    /// Nothing is to be done, or nothing can be.
    fn is_empty(&self) -> bool {
        self.cut.is_none() && self.front.is_none() && self.aside.is_empty()
    }
}

struct Cut {
    lsn: u64,
    /// The segment that keeps its beginning, and where it is cut.
    inside: Option<(PathBuf, u64)>,
}

/// True when nothing is wrong, or was put right.
pub fn run(args: &Repair, out: &mut dyn Write) -> Result<bool> {
    let _lock = lock(&args.dir)?;
    let plan = plan(&args.dir)?;
    if !plan.is_empty() {
        startable(&args.dir, &plan)?;
    }
    let kept = match args.write && !plan.is_empty() {
        true => Some(carry_out(&args.dir, &plan)?),
        false => None,
    };
    let report = report(args, &plan, kept.as_deref());
    match args.json {
        true => writeln!(out, "{report}")?,
        false => print(&plan, kept.as_deref(), out)?,
    }
    Ok(plan.reasons.is_empty() || kept.is_some())
}

/// As the service holds it. Where there is no journal no file is made.
fn lock(dir: &Path) -> Result<File> {
    if Directory::open(&[dir.to_owned()])?.first_own().is_none() {
        bail!("{} holds no journal: there is no segment in it", dir.display());
    }
    let path = dir.join("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.try_lock().with_context(|| format!("{} is in use: stop the service first", dir.display()))?;
    Ok(file)
}

/// To this version whatever a newer one wrote looks damaged.
fn refuse_newer(dir: &Directory) -> Result<()> {
    let refuse = |path: &Path, why: String| -> Result<()> {
        bail!("{}: {why}: repair the journal with the version that wrote it; nothing was changed", path.display())
    };
    for segment in dir.segments.iter().flat_map(|segment| std::iter::once(segment).chain(&segment.others)) {
        let mut block = Vec::new();
        let read = File::open(&segment.path).and_then(|file| file.take(BLOCK).read_to_end(&mut block));
        if let Err(newer @ BadSegment::NewerVersion(_)) = SegmentHeader::from_bytes(&block)
            && read.is_ok()
        {
            refuse(&segment.path, newer.to_string())?;
        }
    }
    for snapshot in &dir.snapshots {
        let bytes = std::fs::read(&snapshot.path).unwrap_or_default();
        if let Err(newer @ BadSnapshot::NewerVersion(_)) = SnapshotHeader::open(&bytes) {
            refuse(&snapshot.path, newer.to_string())?;
        }
    }
    Ok(())
}

/// Where the journal is not what it was.
struct Fault {
    /// The segments that are meant.
    first: u64,
    last: u64,
    what: String,
    /// The journal up to there is whole.
    cut: Cut,
}

fn plan(path: &Path) -> Result<Plan> {
    let dir = Directory::open(&[path.to_owned()])?;
    refuse_newer(&dir)?;
    dir.is_of_a_sure_journal()?;
    let mut plan = Plan { stated: dir.stated_durable(), ..Plan::default() };
    let id = dir.journal_id();
    for snapshot in &dir.snapshots {
        if let Some(what) = snapshot.problem(id) {
            plan.reasons.push(format!("{}: {what}", snapshot.path.display()));
            plan.aside.push(snapshot.path.clone());
        }
    }
    let (mut faults, behind) = faults(&dir, &mut plan)?;
    plan.reasons.extend(behind.iter().map(|fault| fault.what.clone()));
    plan.front = front(&dir, &faults);
    if let Some(start) = plan.front {
        plan.reasons.extend(faults.iter().map(|fault| fault.what.clone()));
        let size = dir.any_header().map_or(1, |header| header.size);
        take_segments(&dir, 0..start / size, &mut plan)?;
    } else if !faults.is_empty() {
        let Fault { first, what, cut, .. } = faults.swap_remove(0);
        plan.reasons.push(what);
        let whole = first + u64::from(cut.inside.is_some());
        take_segments(&dir, whole..u64::MAX, &mut plan)?;
        count_inside(&dir, first, cut.lsn, &mut plan)?;
        let younger = dir.sound_snapshots().filter(|snapshot| snapshot.lsn > cut.lsn);
        plan.aside.extend(younger.map(|snapshot| snapshot.path.clone()));
        plan.aside.extend(sides_behind(&dir, &cut)?);
        plan.cut = Some(cut);
    }
    if let Some(first) = behind.first().map(|fault| fault.first)
        && plan.cut.is_none()
    {
        let these = dir.segments.iter().filter(|segment| segment.number >= first);
        plan.aside.extend(these.map(|segment| segment.path.clone()));
    }
    if plan.cut.is_none() && plan.front.is_none() {
        let further: Vec<String> = dir.damage().into_iter().filter(|what| !plan.reasons.contains(what)).collect();
        plan.reasons.extend(further);
    }
    Ok(plan)
}

/// What is wrong with the segments, in their order; and apart from it what lies behind the place where the service ends the
/// journal, so that nothing is lost by it.
fn faults(dir: &Directory, plan: &mut Plan) -> Result<(Vec<Fault>, Vec<Fault>)> {
    let (id, size) = (dir.journal_id(), dir.any_header().map_or(0, |header| header.size));
    let at = |segment: u64| Cut { lsn: segment.saturating_mul(size), inside: None };
    let (mut faults, mut buffer) = (Vec::<Fault>::new(), Vec::new());
    let (mut before, mut ended): (Option<u64>, Option<u64>) = (None, None);
    for segment in &dir.segments {
        let number = segment.number;
        let mut damage = Vec::new();
        segment.damage(id, &mut damage);
        let expected = before.map_or(number, |before| before + 1);
        if let Some(what) = damage.into_iter().next() {
            faults.push(Fault { first: number, last: number, what, cut: at(expected) });
            continue;
        }
        let missing = |n: u64| !faults.iter().any(|fault| (fault.first..=fault.last).contains(&n));
        if let Some(first) = (expected..number).find(|n| missing(*n)) {
            let what = format!("segments {first} to {} are missing", number - 1);
            faults.push(Fault { first, last: number - 1, what, cut: at(expected) });
        }
        before = Some(number);
        walk_segment(segment, &mut buffer, &mut |_, item| {
            match item {
                // The first of a segment tells.
                Item::Gap { .. } if faults.last().is_some_and(|fault| fault.first == number) => {}
                Item::Gap { place, what, .. } if place.lsn.0 < plan.stated => {
                    let what = format!("segment {number}, offset {} (LSN {}): {what}", place.offset, place.lsn);
                    let cut = Cut { lsn: place.lsn.0, inside: Some((segment.path.clone(), place.offset)) };
                    faults.push(Fault { first: number, last: number, what, cut });
                }
                Item::Gap { .. } => ended = ended.or(Some(number)),
                Item::Unreadable(what) => plan.reasons.push(what),
                Item::Record(_) => {}
            }
            Ok(())
        })?;
    }
    if let Some(next) = before.map(|before| before + 1)
        && ended.is_none()
        && faults.is_empty()
        && next.saturating_mul(size) < plan.stated
    {
        let what = format!("segments from {next} on are missing: everything before LSN {} was durable", plan.stated);
        faults.push(Fault { first: next, last: next, what, cut: at(next) });
    }
    Ok(faults.into_iter().partition(|fault| ended.is_none_or(|ended| fault.first <= ended)))
}

/// Where the journal may begin instead, when all that is wrong with it is before: at a segment that is not behind anything
/// that a start needs, by the newest snapshot. (What the node index needs is not known here. It never states less than all
/// primaries' cursors, and the service refuses a journal that begins behind it, without changing anything.)
fn front(dir: &Directory, faults: &[Fault]) -> Option<u64> {
    let id = dir.journal_id();
    let size = dir.any_header()?.size;
    let last = faults.iter().map(|fault| fault.last).max()?;
    let start = dir.segments.iter().find(|segment| segment.number > last && segment.is_sound(id))?.number;
    let snapshot = dir.sound_snapshots().last()?;
    let state = snapshot.state()?;
    // Some record before it is wanted, for its time.
    let mut needed = vec![snapshot.lsn.checked_sub(BLOCK + 1)? / size];
    for location in state.get("locations")?.as_array()? {
        // Those that were left are never opened again.
        if location.get("role")?.as_str() != Some("left") {
            needed.push(location.get("cursor")?.as_u64()? / size);
        }
    }
    for side in &dir.sides {
        // What follows a side is read from the journal.
        needed.push(side.header.as_ref().ok()?.to.0 / size);
    }
    needed.iter().all(|segment| start <= *segment).then(|| start.saturating_mul(size))
}

/// These segments are moved aside.
fn take_segments(dir: &Directory, numbers: Range<u64>, plan: &mut Plan) -> Result<()> {
    let mut buffer = Vec::new();
    for segment in dir.segments.iter().filter(|segment| numbers.contains(&segment.number)) {
        plan.aside.push(segment.path.clone());
        if segment.header.as_ref().is_ok_and(|header| Some(header.journal_id) == dir.journal_id()) {
            count(segment, 0, &mut buffer, plan)?;
        }
    }
    Ok(())
}

/// Records of the segment that is cut.
fn count_inside(dir: &Directory, number: u64, from: u64, plan: &mut Plan) -> Result<()> {
    match dir.segments.iter().find(|segment| segment.number == number && !plan.aside.contains(&segment.path)) {
        Some(segment) => count(segment, from, &mut Vec::new(), plan),
        None => Ok(()),
    }
}

/// Side segments of what is cut: below their ends the service would pass over what is written anew.
fn sides_behind(dir: &Directory, cut: &Cut) -> Result<Vec<PathBuf>> {
    // Where records begin again: behind the header of a new segment.
    let begin = if cut.inside.is_some() { cut.lsn } else { cut.lsn.saturating_add(BLOCK) };
    let mut behind = Vec::new();
    for side in &dir.sides {
        let Ok(header) = &side.header else { continue };
        if header.to.0 <= begin {
            continue;
        }
        if header.from.0 < cut.lsn {
            bail!(
                "the journal would be cut at LSN {}, and {} holds records of before and behind it, from LSN {} to {}: \
                 restore the location to a point in time with `tain-journal replay` and archives instead",
                cut.lsn,
                side.path.display(),
                header.from,
                header.to
            );
        }
        behind.push(side.path.clone());
    }
    Ok(behind)
}

fn count(segment: &SegmentFile, from: u64, buffer: &mut Vec<u8>, plan: &mut Plan) -> Result<()> {
    walk_segment(segment, buffer, &mut |_, item| {
        let counts = |record: &RecordRef<'_>| record.header.lsn.0 >= from && !record.header.is_filler();
        plan.lost_records += u64::from(matches!(item, Item::Record(record) if counts(&record)));
        Ok(())
    })
}

/// The service needs a snapshot, or the journal's beginning.
fn startable(path: &Path, plan: &Plan) -> Result<()> {
    let dir = Directory::open(&[path.to_owned()])?;
    let cut = plan.cut.as_ref().map(|cut| cut.lsn);
    let first = dir.segments.iter().find(|segment| !plan.aside.contains(&segment.path));
    let size = dir.any_header().map_or(0, |header| header.size);
    let start = first.map_or(u64::MAX, |segment| segment.number).saturating_mul(size);
    let end = cut.unwrap_or(u64::MAX);
    let snapshot = dir.sound_snapshots().any(|snapshot| (start..=end).contains(&snapshot.lsn));
    if (start > 0 && !snapshot) || end <= start.saturating_add(BLOCK) {
        let cut = cut.map_or_else(String::new, |lsn| format!("cut at LSN {lsn} "));
        let why = plan.reasons.first().map_or_else(String::new, |why| format!("{why}: "));
        bail!(
            "{why}{cut}nothing is left that the service could start from (no snapshot of what is before, or no \
             record): restore the location to a point in time with `tain-journal replay` and archives instead"
        );
    }
    Ok(())
}

/// The directory that what is cut is kept in.
fn carry_out(dir: &Path, plan: &Plan) -> Result<PathBuf> {
    let kept = (1..).map(|n| dir.join(format!("repair-{n}"))).find(|path| !path.exists()).context("no name is free")?;
    DirBuilder::new().mode(0o700).create(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let inside = plan.cut.as_ref().and_then(|cut| cut.inside.as_ref());
    if let Some((segment, offset)) = inside {
        let to = kept.join(segment.file_name().unwrap_or_default());
        keep(segment, *offset, &to)
            .with_context(|| format!("cannot copy {} to {}", segment.display(), to.display()))?;
    }
    if let Some(cut) = &plan.cut {
        let mark = kept.join("cut");
        std::fs::write(&mark, format!("{}\n", cut.lsn)).with_context(|| format!("cannot write {}", mark.display()))?;
        File::open(&mark)?.sync_all()?;
    }
    let told = kept.join("reasons");
    std::fs::write(&told, plan.reasons.join("\n") + "\n")
        .with_context(|| format!("cannot write {}", told.display()))?;
    File::open(&told)?.sync_all()?;
    sync_dir(&kept)?;
    sync_dir(dir)?;
    // Snapshots before sides and these before segments, later segments before earlier ones (those
    // of the journal's beginning the other way): what is left can be opened at any time, or is damaged as before.
    let mut aside = plan.aside.clone();
    aside.sort_by_key(|path| path.file_name().unwrap_or_default().to_owned());
    if plan.front.is_none() {
        aside.reverse();
    }
    for from in &aside {
        let to = kept.join(from.file_name().unwrap_or_default());
        std::fs::rename(from, &to).with_context(|| format!("cannot move {} aside", from.display()))?;
        sync_dir(&kept)?;
        sync_dir(dir)?;
    }
    if let Some((segment, offset)) = inside {
        zero(segment, *offset).with_context(|| format!("cannot cut {}", segment.display()))?;
    }
    Ok(kept)
}

/// A segment of what is cut, that the tools read: its header, nothing up to `offset`, and what is behind it. What can be read is
/// copied; a block that cannot reads as zeros, as it did when the damage was found.
fn keep(segment: &Path, offset: u64, to: &Path) -> std::io::Result<()> {
    let from = File::open(segment)?;
    let len = from.metadata()?.len();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut part = vec![0; 1 << 20];
    let header = part.get_mut(..usize::try_from(BLOCK).unwrap_or(0)).unwrap_or_default();
    read_what_can_be(&from, header, 0);
    file.write_all_at(header, 0)?;
    let mut at = offset;
    while at < len {
        let step = usize::try_from(len - at).unwrap_or(usize::MAX).min(part.len());
        let part = part.get_mut(..step).unwrap_or_default();
        read_what_can_be(&from, part, at);
        file.write_all_at(part, at)?;
        at += step as u64;
    }
    file.sync_all()
}

fn zero(segment: &Path, offset: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(segment)?;
    let len = file.metadata()?.len();
    let zeros = vec![0; 1 << 20];
    let mut at = offset;
    while at < len {
        let step = usize::try_from(len - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..step).unwrap_or_default(), at)?;
        at += step as u64;
    }
    file.sync_all()
}

fn report(args: &Repair, plan: &Plan, kept: Option<&Path>) -> Value {
    let names: Vec<String> = plan.aside.iter().map(|path| path.display().to_string()).collect();
    json!({
        "dir": args.dir.display().to_string(),
        "reasons": plan.reasons,
        "front_lsn": plan.front,
        "cut_lsn": plan.cut.as_ref().map(|cut| cut.lsn),
        "stated_durable_lsn": plan.stated,
        "lost_records_seen": plan.lost_records,
        "aside": names,
        "written": kept.is_some(),
        "kept_in": kept.map(|path| path.display().to_string()),
    })
}

fn print(plan: &Plan, kept: Option<&Path>, out: &mut dyn Write) -> Result<()> {
    if plan.reasons.is_empty() {
        writeln!(out, "nothing to repair: what is durable is whole (a torn tail is cut by the service itself)")?;
        return Ok(());
    }
    for reason in &plan.reasons {
        writeln!(out, "damage: {reason}")?;
    }
    if plan.is_empty() {
        writeln!(out, "no cut mends this: nothing was changed")?;
        return Ok(());
    }
    if let Some(cut) = &plan.cut {
        let (lsn, stated, records) = (cut.lsn, plan.stated, plan.lost_records);
        writeln!(
            out,
            "cut at LSN {lsn}: of what was durable up to LSN {stated}, {records} whole records lie behind it"
        )?;
        writeln!(
            out,
            "clients were told that these are safe: look at them with dump, in the directory they are kept in"
        )?;
        writeln!(out, "the locations and the node index may hold what is cut: bring them back to before it too")?;
    }
    if let Some(lsn) = plan.front {
        let records = plan.lost_records;
        writeln!(
            out,
            "taken out before LSN {lsn}: {records} whole records. By the newest snapshot no start needs them: it is of a later \
             LSN, and so are all cursors"
        )?;
        writeln!(
            out,
            "what goes with them is the history of that time, the answers to its calls should they come again, and a replay \
             that begins before: look at them with dump, in the directory they are kept in"
        )?;
        writeln!(out, "a node index that has not come so far is refused at the start: then move the segments back")?;
    }
    for path in &plan.aside {
        writeln!(out, "moved aside: {}", path.display())?;
    }
    match kept {
        Some(kept) => writeln!(out, "done; everything that was taken out is kept in {}", kept.display())?,
        None => writeln!(out, "nothing was changed: run it again with --write to do this")?,
    }
    Ok(())
}
