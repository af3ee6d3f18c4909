//! Side segments: what would pin the journal of a junction whose primary hangs, moved out of it (design §4 "Full").
//!
//! ```text
//! journal   ████ recycled ████████|── of everybody ──────────►
//! side J    [from ── of J ─── to)─┘   then the journal from `to` on
//! ```
//!
//! A junction's side is a row of files, each whole and synced with the directory before the next; they meet, and begin
//! at or before the earliest cursor of the junction's locations. It is durable before a segment that it stands for is
//! recycled, and before the index says that it is past it. Whoever needs the junction's records reads them through
//! [`Journal::reader_of`]: the side first, then the journal. The files are mapped for that: a redo may need all of them
//! at once.
//!
//! Bound: when all sides together have more bytes than the soft limit ([`Journal::side_is_full`]), client operations on the
//! junctions whose primary has not passed its side are told to come again.

use super::error::{At, Error, Result};
use super::files::{self, Dir};
use super::map::{self, Map};
use super::{Journal, Reader, Record};
use crate::env::disk::Open;
use bytes::Bytes;
use journal_format::event::{Event, codec};
use journal_format::ids::{JunctionId, Lsn};
use journal_format::record::{RecordHeader, whole};
use journal_format::segment::BLOCK;
use journal_format::side::{BadSide, HEADER_LEN, SideHeader, record_at};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of records in one file, about.
const FILE_BYTES: usize = if cfg!(test) { 64 << 10 } else { 32 << 20 };

/// Bytes of a file that are read at a time.
const PART: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct Piece {
    from: Lsn,
    to: Lsn,
    bytes: usize,
    path: PathBuf,
}

/// By junction, ascending, each piece beginning where the one before ends.
#[derive(Default)]
pub struct Sides {
    pieces: Mutex<BTreeMap<JunctionId, Vec<Piece>>>,
    /// Of all of them, for those who may not wait for the lock.
    bytes: AtomicU64,
    /// Held by who writes or removes files: a checkpoint that was cancelled may still be at it when the next one begins.
    files: Mutex<()>,
}

impl Sides {
    /// What lies in the directory. Blocking.
    pub fn open(dir: &Dir, id: [u8; 16]) -> Result<Sides> {
        let mut pieces: BTreeMap<JunctionId, Vec<Piece>> = BTreeMap::new();
        for path in dir.list()?.sides {
            let header = read(dir, id, &path)?.0;
            let bytes = super::batch::to_usize(header.length);
            pieces.entry(header.junction).or_default().push(Piece { from: header.from, to: header.to, bytes, path });
        }
        for row in pieces.values_mut() {
            row.sort_by_key(|piece| piece.from);
            if let Some(pair) = row.windows(2).find(|pair| pair[0].to != pair[1].from) {
                let what = format!("{} does not follow {}", pair[1].path.display(), pair[0].path.display());
                return Err(Error::NotWhole { dir: dir.path.clone(), what });
            }
        }
        let sides = Sides { pieces: Mutex::new(pieces), ..Sides::default() };
        sides.count(&sides.pieces.lock());
        Ok(sides)
    }

    fn count(&self, pieces: &BTreeMap<JunctionId, Vec<Piece>>) {
        let bytes = pieces.values().flatten().map(|piece| piece.bytes as u64).sum();
        self.bytes.store(bytes, Ordering::Release);
    }
}

/// Looked through, and checked. First by calls: a sector that cannot be read is an error then, of this file.
fn read(dir: &Dir, id: [u8; 16], path: &Path) -> Result<(SideHeader, Bytes)> {
    let file = dir.open(path, Open::Read)?;
    let size = file.size().at("look at", path)?;
    let mut part = vec![0; super::batch::to_usize(size.min(PART))];
    for at in (0..size).step_by(super::batch::to_usize(PART)) {
        let len = super::batch::to_usize((size - at).min(PART));
        file.read_at(&mut part[..len], at).at("read", path)?;
    }
    let file = if size == 0 {
        Bytes::new() // what is empty cannot be mapped
    } else {
        // All of it is durable: it had its name only then.
        let map = Map::of(Lsn(0), Arc::new(AtomicU64::new(u64::MAX)), || file.view()).at("map", path)?;
        map::bytes(&Arc::new(map), 0..size).unwrap_or_default()
    };
    match SideHeader::open(&file) {
        Ok(header) if header.journal_id != id => Err(Error::Foreign { path: path.to_owned() }),
        Ok(header) => Ok((header, file)),
        Err(error) => Err(bad(dir, path, error)),
    }
}

fn bad(dir: &Dir, path: &Path, error: BadSide) -> Error {
    let what = format!("{} {error}", path.display());
    match error {
        BadSide::NewerVersion(_) => Error::NewerVersion { what },
        _ => Error::NotWhole { dir: dir.path.clone(), what },
    }
}

impl Journal {
    /// Everything of the junction before this is in its side; `None` when it has none.
    pub fn side_end(&self, junction: JunctionId) -> Option<Lsn> {
        self.inner.sides.pieces.lock().get(&junction).and_then(|row| row.last()).map(|piece| piece.to)
    }

    /// Where the junction's side begins.
    pub fn side_start(&self, junction: JunctionId) -> Option<Lsn> {
        self.inner.sides.pieces.lock().get(&junction).and_then(|row| row.first()).map(|piece| piece.from)
    }

    /// Junctions that have a side, and the bytes of it.
    pub fn sides(&self) -> BTreeMap<JunctionId, u64> {
        let pieces = self.inner.sides.pieces.lock();
        pieces.iter().map(|(id, row)| (*id, row.iter().map(|piece| piece.bytes as u64).sum())).collect()
    }

    /// Sides have as many bytes as they may, and this junction has one.
    pub fn side_is_full(&self, junction: JunctionId) -> bool {
        let sides = &self.inner.sides;
        sides.bytes.load(Ordering::Acquire) > self.soft_limit() && sides.pieces.lock().contains_key(&junction)
    }

    /// Copy the junction's records into its side: from where it ends (or `from`) to `to`, which must be durable.
    /// `of` says which records are the junction's. Durable when it returns. Blocking.
    pub fn set_aside(&self, junction: JunctionId, from: Lsn, to: Lsn, of: &dyn Fn(&Event) -> bool) -> Result<()> {
        let durable = self.durable_lsn();
        if to > durable {
            return Err(Error::NotDurable { lsn: to, durable });
        }
        let _alone = self.inner.sides.files.lock();
        let from = self.side_end(junction).unwrap_or(from);
        let (mut start, mut records) = (from, Vec::new());
        let mut reader = self.reader(from)?;
        while let Some(record) = reader.next(to)? {
            if of(&record.event) {
                records.extend(encode(&record)?);
            }
            if records.len() >= FILE_BYTES {
                self.put_aside(junction, start, record.end, std::mem::take(&mut records))?;
                start = record.end;
            }
        }
        if start < to {
            self.put_aside(junction, start, to, records)?;
        }
        Ok(())
    }

    /// One more piece; small ones are written together with the one before, so that there are few.
    fn put_aside(&self, junction: JunctionId, from: Lsn, to: Lsn, records: Vec<u8>) -> Result<()> {
        let segments = &self.inner.shared.segments;
        let dir = &segments.dir;
        let last = self.inner.sides.pieces.lock().get(&junction).and_then(|row| row.last()).cloned();
        let merged = last.filter(|last| last.bytes + records.len() <= FILE_BYTES);
        let (from, records) = match &merged {
            Some(last) => {
                let before = read(dir, segments.id, &last.path)?.1;
                (last.from, [before.get(HEADER_LEN..).unwrap_or_default(), &records].concat())
            }
            None => (from, records),
        };
        let name = files::side_name(junction, from);
        let tmp = dir.join(format!("{name}{}", files::TMP));
        let header = SideHeader::of(segments.id, junction, from, to, &records).to_bytes();
        let file = dir.disk.open(&tmp, Open::Create).at("create", &tmp)?;
        let written = file
            .write_at(&header, 0)
            .and_then(|()| file.write_at(&records, header.len() as u64))
            .and_then(|()| file.sync_all())
            .at("write", &tmp);
        if let Err(error) = written {
            // Give the space back; nothing was promised on it.
            let _ = dir.remove(&tmp);
            return Err(error);
        }
        let path = dir.rename(&tmp, &name)?;
        dir.sync()?;
        let mut pieces = self.inner.sides.pieces.lock();
        let row = pieces.entry(junction).or_default();
        if merged.is_some() {
            row.pop();
        }
        row.push(Piece { from, to, bytes: records.len(), path });
        self.inner.sides.count(&pieces);
        Ok(())
    }

    /// Nobody needs the junction's side any more. Blocking.
    pub fn drop_side(&self, junction: JunctionId) -> Result<()> {
        let sides = &self.inner.sides;
        let _alone = sides.files.lock();
        let dir = &self.inner.shared.segments.dir;
        // The last one first: what a crash, or an error, leaves still begins where it did.
        loop {
            let last = sides.pieces.lock().get(&junction).and_then(|row| row.last()).map(|piece| piece.path.clone());
            let Some(path) = last else { break };
            match dir.remove(&path) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            dir.sync()?;
            sides.pieces.lock().get_mut(&junction).and_then(Vec::pop);
        }
        let mut pieces = sides.pieces.lock();
        pieces.remove(&junction);
        sides.count(&pieces);
        Ok(())
    }

    /// The junction's records from `from` on: from the journal, or as far as that was recycled from its side. Others'
    /// records come only where they come from the journal.
    pub fn reader_of(&self, junction: JunctionId, from: Lsn) -> Result<Reader> {
        if from.plus(BLOCK) >= self.start_lsn() {
            return self.reader(from);
        }
        let row = self.inner.sides.pieces.lock().get(&junction).cloned().unwrap_or_default();
        let (Some(first), Some(last)) = (row.first(), row.last()) else { return self.reader(from) };
        if from < first.from || from >= last.to {
            return self.reader(from);
        }
        let (to, paths) =
            (last.to, row.iter().filter(|piece| piece.to > from).map(|piece| piece.path.clone()).collect());
        let mut reader = self.reader(to)?;
        reader.begin_aside(Aside { paths, file: Bytes::new(), at: 0, to }, from);
        Ok(reader)
    }
}

#[cfg(test)]
impl Journal {
    pub fn dir_names(&self) -> Vec<String> {
        let dir = &self.inner.shared.segments.dir;
        dir.disk.list(&dir.path).unwrap()
    }
}

fn encode(record: &Record) -> Result<Vec<u8>> {
    let row = record.event.row();
    let mut archive = Vec::new();
    codec::encode(&record.event, &mut archive)?;
    let header = RecordHeader {
        length: 0,
        kind: row.kind,
        version: row.version,
        lsn: record.lsn,
        time: record.time,
        durable: Lsn(0),
        flags: 0,
        archived_len: 0,
        bulk_len: 0,
        crc: 0,
    };
    let length = archive.len() + record.bulk.len();
    whole(header, &archive, &record.bulk, 0).ok_or(Error::TooLarge { length: length as u64, max: length as u64 })
}

/// A reader's way through a side.
pub(super) struct Aside {
    paths: VecDeque<PathBuf>,
    file: Bytes,
    at: usize,
    pub to: Lsn,
}

impl Aside {
    /// The next record at or behind `position`; `None` at the end of the side.
    pub fn next(&mut self, dir: &Dir, id: [u8; 16], position: Lsn) -> Result<Option<(Record, usize)>> {
        loop {
            let found = record_at(&self.file, self.at.max(HEADER_LEN)).map_err(|error| bad(dir, &dir.path, error))?;
            let Some((found, next)) = found else {
                let Some(path) = self.paths.pop_front() else { return Ok(None) };
                (self.file, self.at) = (read(dir, id, &path)?.1, HEADER_LEN);
                continue;
            };
            if found.header.lsn < position {
                self.at = next;
                continue;
            }
            let (lsn, end, time) = (found.header.lsn, found.header.end(), found.header.time);
            let record = Record { lsn, end, time, event: found.event, bulk: self.file.slice(found.bulk) };
            return Ok(Some((record, next)));
        }
    }

    pub fn passed(&mut self, next: usize) {
        self.at = next;
    }
}
