//! Side segments: what a junction whose primary hangs would pin, moved out of the journal. Their records are shown where
//! the journal itself no longer has them.

use crate::directory::{Directory, Item, See};
use anyhow::{Context, Result};
use journal_format::ids::JunctionId;
use journal_format::record::{HEADER_LEN as RECORD_HEADER_LEN, RECORD_MAX, RecordHeader};
use journal_format::segment::SegmentHeader;
use journal_format::side::{HEADER_LEN, SideHeader, frame_at};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub struct SideFile {
    pub path: PathBuf,
    pub len: u64,
    /// Of a file whose checksums hold.
    pub header: Result<SideHeader, String>,
}

impl SideFile {
    /// Junction and first LSN in a side segment's name.
    pub fn is_name(name: &str) -> bool {
        let parts = name.strip_prefix("side-").and_then(|rest| rest.split_once('-'));
        parts.is_some_and(|(junction, lsn)| {
            let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
            hex(junction, 8) && hex(lsn, 16)
        })
    }

    /// Reads the whole file: the service writes none much longer than 32 MiB.
    pub fn look(path: PathBuf) -> SideFile {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let header = SideHeader::open(&bytes).map_err(|error| error.to_string());
                SideFile { path, len: bytes.len() as u64, header }
            }
            Err(error) => SideFile { path, len: 0, header: Err(error.to_string()) },
        }
    }
}

/// What is wrong with the sides of a journal that has this id.
pub fn damage(sides: &[SideFile], id: Option<[u8; 16]>, damage: &mut Vec<String>) {
    let mut ends = BTreeMap::new();
    for side in sides {
        let path = side.path.display();
        let header = match &side.header {
            Ok(header) => header,
            Err(error) => {
                damage.push(format!("{path}: {error}"));
                continue;
            }
        };
        if id.is_some_and(|id| id != header.journal_id) {
            damage.push(format!("{path}: belongs to another journal"));
            continue;
        }
        if let Some(end) = ends.insert(header.junction, header.to)
            && end != header.from
        {
            damage.push(format!("{path}: begins at LSN {}, and the one before it ends at {end}", header.from));
        }
        if let Err(error) = each(&side.path) {
            damage.push(format!("{path}: {error:#}"));
        }
    }
}

/// Every record of the file can be read and understood.
fn each(path: &Path) -> Result<()> {
    let mut row = Row::new([path.to_owned()].into());
    while row.advance()? {
        if let Some((record, _)) = frame_at(&row.record, 0)? {
            record.event().with_context(|| format!("LSN {}", record.header.lsn))?;
        }
    }
    Ok(())
}

/// The records of `from..to` that no segment of the directory holds, in the order of their LSNs; one that stands in the
/// sides of several junctions comes once. Holds one record for each junction.
pub fn walk(dir: &Directory, from: u64, to: u64, see: &mut See<'_>) -> Result<()> {
    let held = |lsn: u64| {
        let holds = |header: &SegmentHeader| (header.first_lsn().0..header.end_lsn().0).contains(&lsn);
        dir.segments.iter().filter_map(|segment| segment.header.as_ref().ok()).any(holds)
    };
    let mut files: BTreeMap<JunctionId, VecDeque<PathBuf>> = BTreeMap::new();
    for side in &dir.sides {
        if let Ok(header) = &side.header {
            files.entry(header.junction).or_default().push_back(side.path.clone());
        }
    }
    let mut rows: Vec<Row> = files.into_values().map(Row::new).collect();
    let (mut last, mut waiting) = (None, Vec::new());
    for (i, row) in rows.iter_mut().enumerate() {
        if step(row, see)? {
            waiting.push(i);
        }
    }
    while let Some(at) = (0..waiting.len()).min_by_key(|at| waiting.get(*at).and_then(|i| rows.get(*i)).map(|r| r.lsn))
    {
        let Some(row) = waiting.get(at).and_then(|i| rows.get_mut(*i)) else { break };
        if (from..to).contains(&row.lsn)
            && last != Some(row.lsn)
            && !held(row.lsn)
            && let Some((record, _)) = frame_at(&row.record, 0)?
        {
            see(0, Item::Record(record))?;
        }
        last = Some(row.lsn);
        if !step(row, see)? {
            waiting.swap_remove(at);
        }
    }
    Ok(())
}

/// Damage ends a row, and is told.
fn step(row: &mut Row, see: &mut See<'_>) -> Result<bool> {
    row.advance().or_else(|error| {
        see(0, Item::Unreadable(format!("{error:#}")))?;
        Ok(false)
    })
}

/// The sides of one junction, read record by record.
struct Row {
    files: VecDeque<PathBuf>,
    open: Option<(PathBuf, BufReader<File>)>,
    record: Vec<u8>,
    lsn: u64,
}

impl Row {
    fn new(files: VecDeque<PathBuf>) -> Row {
        Row { files, open: None, record: Vec::new(), lsn: 0 }
    }

    /// To the next record; false at the end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let Some((path, file)) = &mut self.open else {
                let Some(path) = self.files.pop_front() else { return Ok(false) };
                let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
                self.open = Some((path, BufReader::with_capacity(64 << 10, file)));
                continue;
            };
            match read_record(file, &mut self.record).with_context(|| path.display().to_string())? {
                Some(lsn) => {
                    self.lsn = lsn;
                    return Ok(true);
                }
                None => self.open = None,
            }
        }
    }
}

/// The record's LSN; `None` at the end of the file.
fn read_record(file: &mut impl Read, record: &mut Vec<u8>) -> Result<Option<u64>> {
    record.clear();
    file.by_ref().take(RECORD_HEADER_LEN as u64).read_to_end(record)?;
    if record.is_empty() {
        return Ok(None);
    }
    let head = record.first_chunk().context("it ends within a record")?;
    let header = RecordHeader::from_bytes(head);
    let rest = u64::from(header.length).min(RECORD_MAX).saturating_sub(RECORD_HEADER_LEN as u64);
    file.by_ref().take(rest).read_to_end(record)?;
    frame_at(record, 0)?;
    Ok(Some(header.lsn.0))
}
