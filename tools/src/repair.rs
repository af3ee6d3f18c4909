//! `tain-journal repair`: make a journal that is damaged before its durable end one that the service opens again, by
//! cutting it at the first damage. What is cut was durable, and was answered to clients: it is kept, in a directory of its
//! own, byte for byte, and never deleted. Without `--write` nothing is changed.
//!
//! Order: everything that goes is copied aside and synced; then snapshots, side segments and later segments are moved
//! aside, the last first; then the damaged segment is zeroed behind the cut. A run that was cut short is taken up by the
//! next one.

use crate::archive::sync_dir;
use crate::directory::{Directory, Item, walk_segment};
use crate::segment::read_what_can_be;
use anyhow::{Context, Result, bail};
use clap::Args;
use journal_format::segment::{BLOCK, BadSegment, SegmentHeader};
use journal_format::snapshot::{BadSnapshot, SnapshotHeader};
use serde_json::{Value, json};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
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
    /// Files that are moved aside.
    aside: Vec<PathBuf>,
    /// Whole records behind the cut, and the LSN that was durable.
    lost_records: u64,
    stated: u64,
}

impl Plan {
    /// Nothing is to be done, or nothing can be.
    fn is_empty(&self) -> bool {
        self.cut.is_none() && self.aside.is_empty()
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
        startable(&args.dir, plan.cut.as_ref().map(|cut| cut.lsn))?;
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

fn plan(path: &Path) -> Result<Plan> {
    let dir = Directory::open(&[path.to_owned()])?;
    refuse_newer(&dir)?;
    let mut plan = Plan { stated: dir.stated_durable(), ..Plan::default() };
    let id = dir.journal_id();
    for snapshot in &dir.snapshots {
        if let Some(what) = snapshot.problem(id) {
            plan.reasons.push(format!("{}: {what}", snapshot.path.display()));
            plan.aside.push(snapshot.path.clone());
        }
    }
    let size = dir.any_header().map_or(0, |header| header.size);
    let (mut buffer, mut before): (_, Option<u64>) = (Vec::new(), None);
    for segment in &dir.segments {
        if plan.cut.is_some() {
            plan.aside.push(segment.path.clone());
            count(segment, &mut buffer, &mut plan)?;
            continue;
        }
        let mut damage = Vec::new();
        segment.damage(id, &mut damage);
        if let Some(before) = before
            && segment.number != before + 1
        {
            damage.push(format!("segments {} to {} are missing", before + 1, segment.number - 1));
        }
        let first = segment.number.saturating_mul(size);
        if let Some(what) = damage.into_iter().next() {
            plan.reasons.push(what);
            plan.cut = Some(Cut { lsn: before.map_or(first, |n| (n + 1).saturating_mul(size)), inside: None });
            plan.aside.push(segment.path.clone());
            count(segment, &mut buffer, &mut plan)?;
            continue;
        }
        before = Some(segment.number);
        look_inside(segment, &mut buffer, &mut plan)?;
    }
    if let Some(cut) = &plan.cut {
        let younger = dir.sound_snapshots().filter(|snapshot| snapshot.lsn > cut.lsn);
        plan.aside.extend(younger.map(|snapshot| snapshot.path.clone()));
        plan.aside.extend(sides_behind(&dir, cut)?);
    }
    if plan.cut.is_none() {
        let further: Vec<String> = dir.damage().into_iter().filter(|what| !plan.reasons.contains(what)).collect();
        plan.reasons.extend(further);
    }
    Ok(plan)
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

/// The first place without a record before the durable end.
fn look_inside(segment: &crate::segment::SegmentFile, buffer: &mut Vec<u8>, plan: &mut Plan) -> Result<()> {
    walk_segment(segment, buffer, &mut |number, item| {
        match item {
            Item::Record(record) => plan.lost_records += u64::from(plan.cut.is_some() && !record.header.is_filler()),
            Item::Gap { place, what, .. } if plan.cut.is_none() && place.lsn.0 < plan.stated => {
                plan.reasons.push(format!("segment {number}, offset {} (LSN {}): {what}", place.offset, place.lsn));
                plan.cut = Some(Cut { lsn: place.lsn.0, inside: Some((segment.path.clone(), place.offset)) });
            }
            Item::Gap { .. } => {}
            Item::Unreadable(what) => plan.reasons.push(what),
        }
        Ok(())
    })
}

fn count(segment: &crate::segment::SegmentFile, buffer: &mut Vec<u8>, plan: &mut Plan) -> Result<()> {
    walk_segment(segment, buffer, &mut |_, item| {
        plan.lost_records += u64::from(matches!(item, Item::Record(record) if !record.header.is_filler()));
        Ok(())
    })
}

/// The service needs a snapshot, or the journal's beginning.
fn startable(path: &Path, cut: Option<u64>) -> Result<()> {
    let dir = Directory::open(&[path.to_owned()])?;
    let first = dir.segments.iter().find(|segment| segment.header.is_ok()).map_or(u64::MAX, |segment| segment.number);
    let size = dir.any_header().map_or(0, |header| header.size);
    let start = first.saturating_mul(size);
    let end = cut.unwrap_or(u64::MAX);
    let snapshot = dir.sound_snapshots().any(|snapshot| (start..=end).contains(&snapshot.lsn));
    if (start > 0 && !snapshot) || end <= start + BLOCK {
        let cut = cut.map_or_else(String::new, |lsn| format!("cut at LSN {lsn} "));
        bail!(
            "{cut}nothing is left that the service could start from (no snapshot of what is before, or no \
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
    // Snapshots before sides and these before segments, later segments before earlier ones: what is left can be opened at any time.
    let mut aside = plan.aside.clone();
    aside.sort_by_key(|path| path.file_name().unwrap_or_default().to_owned());
    for from in aside.iter().rev() {
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
    for path in &plan.aside {
        writeln!(out, "moved aside: {}", path.display())?;
    }
    match kept {
        Some(kept) => writeln!(out, "done; everything that was cut is kept in {}", kept.display())?,
        None => writeln!(out, "nothing was changed: run it again with --write to do this")?,
    }
    Ok(())
}
