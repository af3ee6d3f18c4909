//! A journal's directory as a tool sees it: nothing is locked, nothing is written, nothing is taken for granted.
//!
//! Segments are read with plain reads, one whole segment at a time (so much memory is needed), and not through maps: a
//! sector that the disk cannot read is then an error with a place and not the end of the process. The service may be
//! running: a segment that it began to use anew while it was read is said to be recycled and passed over.

use anyhow::{Context, Result, bail};
use journal_format::record::{ALIGN, KIND_SEGMENT_END};
use journal_format::scan::{Found, Place, RecordRef, record_at, search};
use journal_format::segment::{BLOCK, SegmentHeader};
use journal_format::snapshot::SnapshotHeader;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub struct Directory {
    /// Ascending by the number in the name.
    pub segments: Vec<SegmentFile>,
    pub snapshots: Vec<SnapshotFile>,
    pub spares: usize,
    /// Things a reader should know, and no damage: names that are not ours, unfinished files.
    pub notes: Vec<String>,
}

pub struct SegmentFile {
    pub path: PathBuf,
    pub number: u64,
    pub len: u64,
    pub header: Result<SegmentHeader, String>,
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
    /// A whole segment that cannot be read.
    Unreadable(String),
}

fn number_in(name: &str, family: &str) -> Option<u64> {
    let digits = name.strip_prefix(family).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

impl Directory {
    pub fn open(path: &Path) -> Result<Directory> {
        let mut dir = Directory { segments: Vec::new(), snapshots: Vec::new(), spares: 0, notes: Vec::new() };
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(number) = number_in(&name, "segment-") {
                dir.segments.push(SegmentFile::look(entry.path(), number));
            } else if let Some(lsn) = number_in(&name, "snapshot-") {
                dir.snapshots.push(SnapshotFile::look(entry.path(), lsn));
            } else if number_in(&name, "spare-").is_some() {
                dir.spares += 1;
            } else if name != "lock" {
                dir.notes.push(format!("{name}: not a part of the journal"));
            }
        }
        if dir.segments.is_empty() {
            bail!("{} holds no journal: there is no segment in it", path.display());
        }
        dir.segments.sort_by_key(|segment| segment.number);
        dir.snapshots.sort_by_key(|snapshot| snapshot.lsn);
        Ok(dir)
    }

    /// The journal's id, as the first readable segment has it.
    pub fn journal_id(&self) -> Option<[u8; 16]> {
        self.segments.iter().find_map(|segment| segment.header.as_ref().ok()).map(|header| header.journal_id)
    }

    /// Damage that needs no look at records.
    pub fn damage(&self) -> Vec<String> {
        let mut damage = Vec::new();
        let id = self.journal_id();
        for (i, segment) in self.segments.iter().enumerate() {
            let name = segment.path.display();
            match &segment.header {
                Err(error) => damage.push(format!("{name}: {error}")),
                Ok(header) => {
                    if header.number.0 != segment.number {
                        damage.push(format!("{name}: holds segment {}", header.number));
                    }
                    if Some(header.journal_id) != id {
                        damage.push(format!("{name}: belongs to another journal"));
                    }
                    if header.size != segment.len {
                        damage.push(format!("{name}: has {} bytes, its header says {}", segment.len, header.size));
                    }
                }
            }
            let before = i.checked_sub(1).and_then(|i| self.segments.get(i));
            if let Some(before) = before.filter(|before| before.number + 1 != segment.number) {
                damage.push(format!("segments {} to {} are missing", before.number + 1, segment.number - 1));
            }
        }
        for snapshot in &self.snapshots {
            if let Err(error) = &snapshot.header {
                damage.push(format!("{}: {error}", snapshot.path.display()));
            }
        }
        damage
    }
}

impl SegmentFile {
    fn look(path: PathBuf, number: u64) -> SegmentFile {
        let read = File::open(&path).and_then(|file| {
            let mut block = Vec::new();
            let len = file.metadata()?.len();
            file.take(BLOCK).read_to_end(&mut block)?;
            Ok((len, block))
        });
        match read {
            Ok((len, block)) => {
                let header = SegmentHeader::from_bytes(&block).map_err(|error| error.to_string());
                SegmentFile { path, number, len, header }
            }
            Err(error) => SegmentFile { path, number, len: 0, header: Err(error.to_string()) },
        }
    }

    /// All bytes of the segment, in the lap that `header` begins.
    fn read(&self, header: &SegmentHeader) -> Result<Vec<u8>, String> {
        let problem = |error: std::io::Error| error.to_string();
        let file = File::open(&self.path).map_err(problem)?;
        let mut bytes = vec![0; usize::try_from(header.size.min(self.len)).map_err(|error| error.to_string())?];
        let mut at = 0;
        for chunk in bytes.chunks_mut(1 << 20) {
            file.read_exact_at(chunk, at).map_err(|error| format!("offset {at}: {error}"))?;
            at += chunk.len() as u64;
        }
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        file.read_exact_at(&mut block, 0).map_err(problem)?;
        if SegmentHeader::from_bytes(&block).as_ref() != Ok(header) {
            return Err("was recycled while it was read".into());
        }
        Ok(bytes)
    }

    /// Everything in the segment, in order; goes on behind damage.
    pub fn walk(&self, see: &mut dyn FnMut(Item<'_>) -> Result<()>) -> Result<()> {
        let bytes_of = |header: &SegmentHeader| self.read(header).map(|bytes| (*header, bytes));
        let (header, bytes) = match self.header.clone().and_then(|header| bytes_of(&header)) {
            Ok(read) => read,
            Err(error) => return see(Item::Unreadable(format!("{}: {error}", self.path.display()))),
        };
        let mut offset = BLOCK;
        while offset < header.size {
            let (place, what, zeros) = match record_at(&header, &bytes, offset) {
                Found::Record(record) => {
                    see(Item::Record(record))?;
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
            let resumes = search(&header, &bytes, offset + ALIGN).map(|record| record.offset);
            see(Item::Gap { place, what, zeros, resumes })?;
            match resumes {
                Some(next) => offset = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }
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
}
