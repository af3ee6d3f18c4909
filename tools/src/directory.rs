//! A journal as a tool sees it: its directory, archives of it, or both together. Nothing is locked, nothing is written,
//! nothing is taken for granted.
//!
//! Segments are read with plain reads, one whole segment at a time (so much memory is needed), and not through maps: a
//! sector that the disk cannot read is then an error with a place and not the end of the process. The service may be
//! running: a segment that it began to use anew while it was read is looked for in the archives, and else said to be
//! recycled and passed over.

use crate::segment::{RECYCLED, SegmentFile};
use crate::sides::{self, SideFile};
use anyhow::{Context, Result, bail};
use journal_format::archive::{self, CUT, MANIFEST, manifest_lines};
use journal_format::record::ALIGN;
use journal_format::record::KIND_SEGMENT_END;
use journal_format::scan::{Found, Place, RecordRef, record_at, search};
use journal_format::segment::{BLOCK, SegmentHeader};
use journal_format::snapshot::SnapshotHeader;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Default)]
pub struct Directory {
    /// Ascending by the number in the name; of one that is there several times the first to be read.
    pub segments: Vec<SegmentFile>,
    /// Ascending.
    pub snapshots: Vec<SnapshotFile>,
    /// By junction and LSN, as their names are.
    pub sides: Vec<SideFile>,
    pub spares: usize,
    /// Things a reader should know, and no damage: names that are not ours, unfinished files.
    pub notes: Vec<String>,
    /// `repair` has cut the journal once: archives of before that may not be of today's segments.
    pub was_repaired: bool,
    /// What the lists of archives name and is not there, or is another.
    listed_wrongly: Vec<String>,
}

pub struct SnapshotFile {
    pub path: PathBuf,
    pub lsn: u64,
    pub len: u64,
    pub header: Result<SnapshotHeader, String>,
}

/// What a walk meets, in order.
pub enum Item<'a> {
    Record(RecordRef<'a>),
    /// No record where one should be. `resumes`: the next whole record of the segment.
    Gap {
        place: Place,
        what: String,
        zeros: bool,
        resumes: Option<u64>,
    },
    /// A whole segment that cannot be read, or an archive that is not what it was: what can be read of it follows.
    Unreadable(String),
}

/// A segment's number, and something in it.
pub type See<'a> = dyn FnMut(u64, Item<'_>) -> Result<()> + 'a;

fn number_in(name: &str, family: &str) -> Option<u64> {
    let digits = name.strip_prefix(family).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

impl Directory {
    /// One journal, lying in these directories: its own, those of its archives.
    pub fn open(paths: &[PathBuf]) -> Result<Directory> {
        let mut dir = Directory::default();
        let mut found = Vec::new();
        for path in paths {
            dir.list(path, &mut found)?;
        }
        if found.is_empty() {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            bail!("{} holds no journal: there is no segment and no archive in it", paths.join(", "));
        }
        let last = last_with_records(&found);
        if dir.was_repaired {
            // The journal has not come so far again: these are of what was cut. (Archives were made since they were listed
            // of segments that had no records then: it is looked again.)
            let mut now = Vec::new();
            for path in paths {
                Directory::default().list(path, &mut now)?;
            }
            let notes = &mut dir.notes;
            found.retain(|segment| {
                let cut = segment.is_archive() && is_ahead(segment.number, &now);
                if cut {
                    notes.push(format!("{}: an archive of before a repair", segment.path.display()));
                }
                !cut
            });
        }
        found.sort_by_key(|segment: &SegmentFile| (segment.number, segment.header.is_err(), segment.is_archive()));
        for segment in found {
            match dir.segments.last_mut().filter(|last| last.number == segment.number) {
                Some(last) => last.others.push(segment),
                None => dir.segments.push(segment),
            }
        }
        for segment in &mut dir.segments {
            segment.is_last = last.is_none_or(|last| segment.number >= last);
        }
        dir.snapshots.sort_by_key(|snapshot| snapshot.lsn);
        dir.sides.sort_by(|a, b| a.path.file_name().cmp(&b.path.file_name()));
        if paths.len() > 1 {
            dir.is_one_journal()?;
        }
        Ok(dir)
    }

    /// Refuses segments and archives of different journals.
    pub fn is_one_journal(&self) -> Result<()> {
        let mut known = self.copies().filter_map(|copy| copy.journal().map(|journal| (copy, journal)));
        let Some((first, journal)) = known.next() else { return Ok(()) };
        if let Some((other, _)) = known.find(|(_, other)| *other != journal) {
            bail!("{} and {} are not of one journal", first.path.display(), other.path.display());
        }
        Ok(())
    }

    /// Every segment and every archive that is there.
    fn copies(&self) -> impl Iterator<Item = &SegmentFile> {
        self.segments.iter().flat_map(|segment| std::iter::once(segment).chain(&segment.others))
    }

    fn list(&mut self, path: &Path, found: &mut Vec<SegmentFile>) -> Result<()> {
        let (mut listed, mut cut) = (BTreeMap::new(), Vec::new());
        let first = found.len();
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if ["segment-", "archive-", "snapshot-", "side-"].iter().any(|family| name.starts_with(family)) {
                may_be_read(&entry.path(), File::open(entry.path()).map(drop))?;
            }
            if let Some(number) = number_in(&name, "segment-") {
                found.push(SegmentFile::look(entry.path(), number));
            } else if let Some(number) = number_in(&name, "archive-") {
                found.push(SegmentFile::look_archive(entry.path(), number));
            } else if let Some(lsn) = number_in(&name, "snapshot-") {
                self.snapshots.push(SnapshotFile::look(entry.path(), lsn));
            } else if SideFile::is_name(&name) {
                self.sides.push(SideFile::look(entry.path()));
            } else if number_in(&name, "spare-").is_some() {
                self.spares += 1;
            } else if name == MANIFEST {
                let text = std::fs::read(entry.path()).with_context(|| format!("cannot read {}", path.display()))?;
                // Of one segment the last line counts.
                listed = manifest_lines(&text).into_iter().map(|line| (line.number, line.digest)).collect();
            } else if name.starts_with(CUT) {
                cut.extend(crate::archive::archive_header(&entry.path()).map(|header| (header.number, header.digest)));
                self.notes.push(format!("{}: an archive of before a repair", entry.path().display()));
            } else if name.starts_with("repair-") {
                self.was_repaired = true;
                self.notes.push(format!("{}: what a repair has cut", entry.path().display()));
            } else if name != "lock" {
                self.notes.push(format!("{}: not a part of the journal", entry.path().display()));
            }
        }
        for (number, digest) in listed {
            let there = found.iter().skip(first).find(|s| s.is_archive() && s.number == number.0);
            let name = journal_format::archive::file_name(number);
            let name = path.join(name).display().to_string();
            match there.map(|segment| &segment.archive) {
                None if cut.contains(&(number, digest)) => {}
                None => self.listed_wrongly.push(format!("{name}: is in the list of archives, and not there")),
                Some(Some(header)) if header.digest != digest => {
                    self.listed_wrongly.push(format!("{name}: is not the one that the list of archives names"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The header of the first segment that has a whole one of the journal.
    pub fn any_header(&self) -> Option<&SegmentHeader> {
        let id = self.journal_id()?;
        self.segments.iter().filter_map(|segment| segment.header.as_ref().ok()).find(|header| header.journal_id == id)
    }

    /// The journal's id: what most of the readable segments and snapshots have, the first ones when as many have another.
    pub fn journal_id(&self) -> Option<[u8; 16]> {
        let ids = self.ids();
        let mut counts = BTreeMap::new();
        for id in &ids {
            *counts.entry(id).or_insert(0) += 1;
        }
        let most = counts.values().max().copied();
        ids.iter().find(|id| counts.get(id).copied() == most).copied()
    }

    /// Of every segment, and of the snapshots beside them.
    fn ids(&self) -> Vec<[u8; 16]> {
        let segments = self.segments.iter().filter_map(|segment| segment.header.as_ref().ok()).map(|h| h.journal_id);
        let known: BTreeSet<[u8; 16]> = segments.clone().collect();
        let snapshots =
            self.snapshots.iter().filter_map(|snapshot| snapshot.header.as_ref().ok()).map(|h| h.journal_id);
        segments.chain(snapshots.filter(|id| known.contains(id))).collect()
    }

    /// Refuses a directory that holds as much of other journals as of one.
    pub fn is_of_a_sure_journal(&self) -> Result<()> {
        let (id, ids) = (self.journal_id(), self.ids());
        let ours = ids.iter().filter(|other| Some(**other) == id).count();
        if ids.len() > 1 && ours * 2 <= ids.len() {
            bail!(
                "segments and snapshots of several journals lie here, as many of one as of others: move those away first"
            );
        }
        Ok(())
    }

    /// The first segment of the journal itself.
    pub fn first_own(&self) -> Option<&SegmentFile> {
        self.copies().find(|copy| !copy.is_archive())
    }

    /// The snapshots that the service would read.
    pub fn sound_snapshots(&self) -> impl Iterator<Item = &SnapshotFile> {
        let id = self.journal_id();
        self.snapshots.iter().filter(move |snapshot| snapshot.problem(id).is_none())
    }

    /// Why the service has nothing to begin with: what is before its own first segment no snapshot holds.
    fn unreached(&self) -> Option<String> {
        let id = self.journal_id();
        let first = self.copies().find(|copy| !copy.is_archive() && !copy.is_of_other(id))?;
        let start = first.number.saturating_mul(self.any_header()?.size);
        let reached = start == 0 || self.sound_snapshots().any(|snapshot| snapshot.lsn >= start);
        let dir = first.path.parent().unwrap_or(&first.path).display();
        (!reached).then(|| format!("{dir}: it begins at LSN {start}, and no usable snapshot reaches that far"))
    }

    /// Damage that needs no look at records.
    pub fn damage(&self) -> Vec<String> {
        let mut damage = Vec::new();
        let id = self.journal_id();
        for (i, segment) in self.segments.iter().enumerate() {
            for copy in std::iter::once(segment).chain(&segment.others) {
                copy.damage(id, &mut damage);
            }
            let before = i.checked_sub(1).and_then(|i| self.segments.get(i));
            if let Some(before) = before.filter(|before| before.number + 1 != segment.number) {
                damage.push(format!("segments {} to {} are missing", before.number + 1, segment.number - 1));
            }
        }
        for snapshot in &self.snapshots {
            damage.extend(snapshot.problem(id).map(|what| format!("{}: {what}", snapshot.path.display())));
        }
        damage.extend(self.unreached());
        sides::damage(&self.sides, id, &mut damage);
        damage.extend(self.listed_wrongly.iter().cloned());
        damage
    }

    /// Without what is none: segments that the service has recycled since they were listed. The journal begins behind
    /// them now; one that is gone from its midst is damage.
    pub fn but_recycled(&self, mut damage: Vec<String>) -> Result<Vec<String>> {
        for copy in self.copies().filter(|copy| !copy.is_archive()) {
            let what = format!("{}: {RECYCLED}", copy.path.display());
            if damage.contains(&what) && copy.path.parent().map(begin).transpose()?.flatten() > Some(copy.number) {
                damage.retain(|other| *other != what);
            }
        }
        Ok(damage)
    }

    /// Everything in the segments that hold an LSN of `from..to`, in order; goes on behind damage.
    pub fn walk(&self, from: u64, to: u64, see: &mut See<'_>) -> Result<()> {
        let (id, mut buffer) = (self.journal_id(), Vec::new());
        for segment in &self.segments {
            let outside = |h: &SegmentHeader| h.end_lsn().0 <= from || h.first_lsn().0 >= to;
            if segment.header.as_ref().is_ok_and(outside) {
                continue;
            }
            if segment.is_of_other(id) {
                see(segment.number, Item::Unreadable(segment.of_other()))?;
                continue;
            }
            walk_segment(segment, &mut buffer, see)?;
        }
        Ok(())
    }

    /// The same, with what only side segments hold before it: not all that happened then, but all of their junctions.
    pub fn walk_all(&self, from: u64, to: u64, see: &mut See<'_>) -> Result<()> {
        sides::walk(self, from, to, see)?;
        self.walk(from, to, see)
    }

    /// What whole files state by being there: only what was durable is folded into a snapshot, and only that is archived.
    pub fn stated_by_files(&self) -> u64 {
        let id = self.journal_id();
        let snapshots = self.sound_snapshots().map(|snapshot| snapshot.lsn);
        let archives = self.copies().filter(|copy| copy.is_archive() && copy.is_sound(id));
        let ends = archives.filter_map(|archive| archive.header.as_ref().ok()).map(|header| header.end_lsn().0);
        snapshots.chain(ends).max().unwrap_or(0)
    }

    /// The highest LSN that anything states to have been durable: a running service may not have made durable yet what
    /// lies behind it. Looks at records of the last segments only: what is stated grows with the LSN.
    pub fn stated_durable(&self) -> u64 {
        let mut stated = self.stated_by_files();
        let mut buffer = Vec::new();
        let id = self.journal_id();
        // Another journal's says nothing of this one.
        for segment in self.segments.iter().rev().filter(|segment| !segment.is_of_other(id)) {
            let mut records = 0;
            // The closure gives no error.
            let _ = walk_segment(segment, &mut buffer, &mut |_, item| {
                if let Item::Record(record) = item {
                    stated = stated.max(record.header.durable.0);
                    records += 1;
                }
                Ok(())
            });
            if records > 0 {
                break;
            }
        }
        stated
    }
}

/// What somebody else could read is not damaged.
fn may_be_read(path: &Path, opened: io::Result<()>) -> Result<()> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("{} may not be read: {error}; read it as the user whose service it is, or as root", path.display())
        }
        _ => Ok(()),
    }
}

/// The first segment of a journal, as it is now.
fn begin(dir: &Path) -> Result<Option<u64>> {
    let mut first = None;
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let number = number_in(&entry?.file_name().to_string_lossy(), "segment-");
        first = first.into_iter().chain(number).min();
    }
    Ok(first)
}

/// The last segment of the journal itself that anything was written to.
fn last_with_records(found: &[SegmentFile]) -> Option<u64> {
    let own = found.iter().filter(|segment| !segment.is_archive() && segment.has_records());
    own.map(|segment| segment.number).max()
}

/// In a journal that a repair has cut: it is not behind this segment's end, so that an archive of it is of what was cut.
pub fn is_ahead(number: u64, found: &[SegmentFile]) -> bool {
    let mut own = found.iter().filter(|segment| !segment.is_archive());
    match last_with_records(found) {
        // It may have ended right at the segment's end.
        Some(last) if number == last => {
            let last = own.find(|segment| segment.number == number);
            let mut bytes = Vec::new();
            let read = last.and_then(|last| last.read(&mut bytes).ok());
            !read.is_some_and(|(header, damage)| damage.is_empty() && archive::closed(&header, &bytes).is_ok())
        }
        Some(last) => number > last,
        None => own.map(|segment| segment.number).min().is_some_and(|first| number >= first),
    }
}

/// Everything in one segment, in order; goes on behind damage. `buffer` is used again and again. Of several copies it is
/// the first whole one; if none is, the first that can be read.
pub fn walk_segment(segment: &SegmentFile, buffer: &mut Vec<u8>, see: &mut See<'_>) -> Result<()> {
    let number = segment.number;
    let mut readable = None;
    for copy in std::iter::once(segment).chain(&segment.others) {
        let mut unreadable = |what: &str| see(number, Item::Unreadable(format!("{}: {what}", copy.path.display())));
        match copy.read(buffer) {
            Ok((header, damage)) => {
                for what in &damage {
                    unreadable(what)?;
                }
                let damaged = if segment.others.is_empty() { None } else { first_damage(segment, &header, buffer)? };
                if damage.is_empty() && damaged.is_none() {
                    return walk_bytes(number, &header, buffer, see);
                }
                if let Some(what) = damaged.filter(|_| damage.is_empty()) {
                    unreadable(&what)?;
                }
                readable = readable.or(Some(copy));
            }
            Err(error) => unreadable(&error)?,
        }
    }
    // It may have been recycled since.
    match readable.map(|copy| copy.read(buffer)) {
        Some(Ok((header, _))) => walk_bytes(number, &header, buffer, see),
        _ => Ok(()),
    }
}

/// Where the records of a copy do not lead to the segment's end, and why. The last segment may end anywhere.
fn first_damage(segment: &SegmentFile, header: &SegmentHeader, bytes: &[u8]) -> Result<Option<String>> {
    let mut damage = None;
    walk_bytes(segment.number, header, bytes, &mut |_, item| {
        if let Item::Gap { place, what, zeros, resumes } = item
            && !(segment.is_last && zeros && resumes.is_none())
        {
            damage.get_or_insert_with(|| format!("offset {}: {what}", place.offset));
        }
        Ok(())
    })?;
    Ok(damage)
}

fn walk_bytes(number: u64, header: &SegmentHeader, bytes: &[u8], see: &mut See<'_>) -> Result<()> {
    let mut offset = BLOCK;
    while offset < header.size {
        let (place, what, zeros) = match record_at(header, bytes, offset) {
            Found::Record(record) => {
                see(number, Item::Record(record))?;
                if record.header.kind == KIND_SEGMENT_END {
                    return Ok(());
                }
                offset = record.end_offset();
                continue;
            }
            Found::Unwritten(place) => (place, "zeros".to_owned(), true),
            Found::Bad(place, fault) => (place, fault.to_string(), false),
            Found::End(place) => (place, "the file ends".to_owned(), false),
        };
        let resumes = search(header, bytes, offset + ALIGN).map(|record| record.offset);
        see(number, Item::Gap { place, what, zeros, resumes })?;
        match resumes {
            Some(next) => offset = next,
            None => return Ok(()),
        }
    }
    Ok(())
}

impl SnapshotFile {
    fn look(path: PathBuf, lsn: u64) -> SnapshotFile {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let header = SnapshotHeader::open(&bytes).map(|(header, _)| header).map_err(|error| error.to_string());
                SnapshotFile { path, lsn, len: bytes.len() as u64, header }
            }
            Err(error) => SnapshotFile { path, lsn, len: 0, header: Err(error.to_string()) },
        }
    }

    /// Why it is of no use to the journal that has this id.
    pub fn problem(&self, id: Option<[u8; 16]>) -> Option<String> {
        match &self.header {
            Err(error) => Some(error.clone()),
            Ok(header) if id.is_some_and(|id| id != header.journal_id) => Some("belongs to another journal".into()),
            Ok(header) if header.lsn.0 != self.lsn => Some(format!("is of LSN {}", header.lsn)),
            Ok(_) => None,
        }
    }

    /// The state in it, which is JSON whose inside belongs to the service: what is taken from it is taken if it is there.
    pub fn state(&self) -> Option<serde_json::Value> {
        let bytes = std::fs::read(&self.path).ok()?;
        let (_, state) = SnapshotHeader::open(&bytes).ok()?;
        serde_json::from_slice(state).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_not_be_read_is_not_called_damaged() {
        let path = Path::new("/j/segment-0000000000000000");
        let denied = may_be_read(path, Err(io::ErrorKind::PermissionDenied.into())).map_err(|error| error.to_string());
        assert!(denied.is_err_and(|why| why.contains("/j/segment-0000000000000000 may not be read")));
        assert!(may_be_read(path, Err(io::ErrorKind::InvalidData.into())).is_ok(), "told as damage");
    }
}
