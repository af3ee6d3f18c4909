//! Opening a journal: are its files whole, where does it end, and what behind that end must never come back.
//!
//! Batches are written one after the other, each begun only when the one before it is durable, and every record states
//! the durable LSN at that time. So when the scan meets something that is no record of this lap, the highest durable LSN
//! that anything states (records before it *and behind it*, and the snapshot) decides:
//!
//! | case | at the place   | stated durable LSN | whole records behind | judgement                                       |
//! | ---- | -------------- | ------------------ | -------------------- | ----------------------------------------------- |
//! | A    | end of segment | up to here         | none                 | the last segment is closed: go on in a new one  |
//! | B    | zeros          | up to here         | none                 | the end, in a segment never used before         |
//! | C    | zeros          | up to here         | some                 | torn: the batch's later blocks came first. Cut  |
//! | D    | other bytes    | up to here         | none                 | the end (an earlier lap's bytes), or torn. Cut  |
//! | E    | other bytes    | up to here         | some                 | torn in the middle of the batch. Cut            |
//! | F    | end of segment | behind it          | any                  | durable segments are missing. Stop              |
//! | G    | zeros          | behind it          | any                  | durable records were wiped. Stop                |
//! | H    | other bytes    | behind it          | any                  | durable records were damaged. Stop              |
//!
//! B and D need no cut, but cannot be told from a tail that was torn before its first record: they are cut all the same.
//!
//! **The cut**, before the first append, in this order, each step synced before the next: later segments become spares;
//! everything behind the cut in its segment is zeroed; what is kept from the stated durable LSN on is written again
//! (pages that were never synced may be in the cache only) and filled up to a whole block. Only then may the block after
//! be written. In another order a crash in between could bring a cut record back to life.

use super::error::{At, Error, Result};
use super::files::Dir;
use super::map::Map;
use super::segments::{Segment, new_header};
use super::target::Target;
use super::{Options, clock, files, snapshot};
use crate::env::disk::Open;
use journal_format::event::{Durable, Event, JournalCreated, codec};
use journal_format::ids::{Lsn, SegmentNo, Time};
use journal_format::record::{self, HEADER_LEN, KIND_PADDING, KIND_SEGMENT_END, RecordHeader, filler};
use journal_format::scan::{Fault, Found, record_at, search};
use journal_format::segment::{BLOCK, BadSegment, SEGMENT_SIZE_MAX, SEGMENT_SIZE_MIN, SegmentHeader};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{JoinHandle, spawn};

/// A journal that may be appended to.
pub struct Recovered {
    pub id: [u8; 16],
    pub size: u64,
    pub segments: Vec<Arc<Segment>>,
    pub spares: Vec<PathBuf>,
    pub target: Arc<Target>,
    /// Offset in the target where the first batch goes.
    pub start: u64,
    pub last_time: Time,
    pub snapshot: Option<Lsn>,
}

/// What is at the place where the records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    SegmentEnd,
    Zeros,
    OtherBytes(Fault),
}

/// See the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    A,
    B,
    C,
    D,
    E,
    F,
    G,
    H,
}

/// The table. `stated_behind`: something states a durable LSN behind the place.
pub fn judge(there: There, stated_behind: bool, records_behind: bool) -> Case {
    match (there, stated_behind, records_behind) {
        // Nothing lies behind the end of the last segment, so nothing whole can.
        (There::SegmentEnd, false, _) => Case::A,
        (There::Zeros, false, false) => Case::B,
        (There::Zeros, false, true) => Case::C,
        (There::OtherBytes(_), false, false) => Case::D,
        (There::OtherBytes(_), false, true) => Case::E,
        (There::SegmentEnd, true, _) => Case::F,
        (There::Zeros, true, _) => Case::G,
        (There::OtherBytes(_), true, _) => Case::H,
    }
}

/// Where the records end, and what the scan saw.
#[derive(Debug)]
pub struct Tail {
    /// Place in the list of segments.
    index: usize,
    offset: u64,
    pub lsn: Lsn,
    there: There,
    stated: Lsn,
    records_behind: bool,
    last_time: Time,
    /// The last record says that nothing was in flight behind it.
    stopped: bool,
}

/// Open the directory's journal, or make one where there is none. The directory is locked.
pub fn recover(options: &Options, dir: &Dir) -> Result<Recovered> {
    let listing = dir.list()?;
    for unfinished in &listing.unfinished {
        dir.remove(unfinished)?;
    }
    if listing.segments.is_empty() {
        if !listing.snapshots.is_empty() {
            return Err(not_whole(options, "there are snapshots but no segments"));
        }
        create(options, dir)?;
        return recover(options, dir);
    }
    let mut segments = open_segments(options, dir, &listing.segments)?;
    let (id, size) = segments.first().map(|s| (s.header.journal_id, s.header.size)).unwrap_or_default();
    if size != options.segment_size {
        tracing::warn!(size, asked = options.segment_size, "the journal keeps the segment size it was made with");
    }
    let start = segments.first().map_or(Lsn(0), |segment| segment.header.first_lsn());
    let snapshot = snapshot::newest(dir, id, start)?.map(|(lsn, _)| lsn);
    if snapshot.is_none() && start > Lsn(0) {
        let what = format!("it begins at LSN {start}, and no usable snapshot reaches that far");
        return Err(not_whole(options, &what));
    }
    let headers: Vec<SegmentHeader> = segments.iter().map(|segment| segment.header).collect();
    let mut ahead = Ahead { segments: &segments, next: None };
    let tail = examine(&headers, snapshot, |index| ahead.look(index))?;
    drop(ahead);

    crash_point!("RECOVER_BEFORE_SPARES");
    let mut spares = usable_spares(dir, listing.spares, size)?;
    // The last first and each made durable, so that a crash leaves no gap.
    for later in segments.drain(tail.index + 1..).rev() {
        spares.push(dir.rename(later.path(), &files::spare_name(later.header.number.0))?);
        dir.sync()?;
    }
    crash_point!("CUT_BEGIN");
    let start = cut(&segments, &tail)?;
    crash_point!("CUT_END");
    let last = segments.last().ok_or_else(|| not_whole(options, "there are no segments"))?;
    let target = Target::open(Arc::clone(last), options.append)?;
    let mode = target.mode();
    if options.append == super::AppendMode::Best && mode == super::AppendMode::Buffered {
        tracing::warn!(dir = %options.dir.display(), "no direct I/O here: appending through the page cache");
    } else {
        tracing::info!(append = mode.name(), "appending");
    }
    Ok(Recovered { id, size, segments, spares, target, start, last_time: tail.last_time, snapshot })
}

fn not_whole(options: &Options, what: &str) -> Error {
    Error::NotWhole { dir: options.dir.clone(), what: what.to_owned() }
}

fn corrupt(header: &SegmentHeader, offset: u64, what: String) -> Error {
    Error::Corrupt { segment: header.number, offset, lsn: header.first_lsn().plus(offset), what }
}

/// A new journal: its first segment gets its name when header and first record are durable, so that a journal without
/// them never exists.
fn create(options: &Options, dir: &Dir) -> Result<()> {
    let size = options.segment_size;
    if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&size) || !size.is_multiple_of(BLOCK) {
        let what = format!(
            "segment_size must be a multiple of {BLOCK} from {SEGMENT_SIZE_MIN} to {SEGMENT_SIZE_MAX}, not {size}"
        );
        return Err(Error::Options(what));
    }
    let header = new_header(files::random()?, SegmentNo(0), size)?;
    let event = Event::JournalCreated(JournalCreated { handle_key: files::random()? });
    let mut archive = Vec::new();
    codec::encode(&event, &mut archive)?;
    let (first, time) = (header.first_record(), header.created);
    let head = RecordHeader {
        length: 0,
        kind: event.row().kind,
        version: event.row().version,
        lsn: first,
        time,
        durable: first,
        flags: 0,
        archived_len: 0,
        bulk_len: 0,
        crc: 0,
    };
    let mut batch = record::whole(head, &archive, &[], header.salt).unwrap_or_default();
    let rest = u32::try_from(BLOCK - batch.len() as u64).unwrap_or_default();
    let padding = filler(KIND_PADDING, rest, first.plus(batch.len() as u64), time, first, header.salt);
    batch.extend_from_slice(&padding);

    let name = files::segment_name(header.number);
    let tmp = dir.join(format!("{name}{}", files::TMP));
    let file = dir.create_zeroed(&tmp, size)?;
    crash_point!("CREATE_ZEROED");
    file.write_at(&batch, BLOCK).at("write", &tmp)?;
    crash_point!("CREATE_FIRST_BATCH");
    files::put_header(&*file, &tmp, &header)?;
    crash_point!("CREATE_BEFORE_RENAME");
    dir.rename(&tmp, &name)?;
    crash_point!("CREATE_RENAMED");
    dir.sync()
}

/// The segments' headers, each judged alone and all together.
fn open_segments(options: &Options, dir: &Dir, numbers: &[SegmentNo]) -> Result<Vec<Arc<Segment>>> {
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    for number in numbers {
        let path = dir.join(files::segment_name(*number));
        let file = dir.open(&path, Open::Read)?;
        let header = match SegmentHeader::from_bytes(&files::read_block(&*file, &path)?) {
            Ok(header) => header,
            Err(error @ BadSegment::NewerVersion(_)) => {
                return Err(Error::NewerVersion { what: format!("{} {error}", path.display()) });
            }
            Err(error) => {
                let lsn = segments.last().map_or(Lsn(0), |before| before.header.end_lsn());
                return Err(Error::Corrupt { segment: *number, offset: 0, lsn, what: error.to_string() });
            }
        };
        if header.number != *number {
            return Err(not_whole(options, &format!("{} holds segment {}", path.display(), header.number)));
        }
        let len = file.size().at("look at", &path)?;
        if len != header.size {
            return Err(not_whole(options, &format!("{} has {len} bytes, not {}", path.display(), header.size)));
        }
        if let Some(before) = segments.last().map(|segment| segment.header) {
            if header.journal_id != before.journal_id {
                return Err(Error::Foreign { path });
            }
            if header.size != before.size {
                return Err(not_whole(options, &format!("{} has another size than the others", path.display())));
            }
            if header.number.0 != before.number.0 + 1 {
                return Err(not_whole(options, &format!("segment {} is missing", before.number.0 + 1)));
            }
        }
        segments.push(Segment::found(dir, header));
    }
    Ok(segments)
}

/// Where the journal ends, or why it must not be opened. `look` gives a segment's bytes.
pub fn examine<B: AsRef<[u8]>>(
    headers: &[SegmentHeader],
    snapshot: Option<Lsn>,
    look: impl FnMut(usize) -> Result<B>,
) -> Result<Tail> {
    let tail = scan(headers, snapshot, look)?;
    crash_point!("RECOVER_SCANNED");
    let case = judge(tail.there, tail.stated > tail.lsn, tail.records_behind);
    tracing::info!(?case, end = %tail.lsn, durable = %tail.stated, "the journal's end");
    refuse_corruption(headers, &tail, case)?;
    Ok(tail)
}

/// Read on from the snapshot's segment (from the beginning, without one) to where the records end, and look at
/// everything behind that.
fn scan<B: AsRef<[u8]>>(
    headers: &[SegmentHeader],
    snapshot: Option<Lsn>,
    mut look: impl FnMut(usize) -> Result<B>,
) -> Result<Tail> {
    let from = scan_from(headers, snapshot);
    let created = headers.iter().map(|header| header.created).max().unwrap_or_else(clock::now);
    let mut tail = Tail {
        index: headers.len().saturating_sub(1),
        offset: 0,
        lsn: Lsn(0),
        there: There::SegmentEnd,
        stated: snapshot.unwrap_or_default(),
        records_behind: false,
        last_time: created,
        stopped: false,
    };
    let mut ended = false;
    for (index, header) in headers.iter().enumerate().skip(from) {
        let bytes = look(index)?;
        let bytes = bytes.as_ref();
        if ended {
            look_behind(&mut tail, header, bytes, BLOCK);
            continue;
        }
        tail.index = index;
        if let Some(there) = read_through(&mut tail, header, bytes) {
            ended = true;
            tail.there = there;
            let behind = tail.offset + journal_format::record::ALIGN;
            look_behind(&mut tail, header, bytes, behind);
        }
    }
    Ok(tail)
}

/// The segment of the snapshot, or the one before when the snapshot is at its beginning: some record is wanted, for its
/// time.
fn scan_from(headers: &[SegmentHeader], snapshot: Option<Lsn>) -> usize {
    let Some(lsn) = snapshot else { return 0 };
    headers.iter().rposition(|header| header.first_record() < lsn).unwrap_or(0)
}

/// A whole segment. Nobody writes while the journal is recovered: all of it may be looked at.
struct Whole(Map);

impl Whole {
    fn of(segment: &Segment) -> Result<Whole> {
        let file = segment.open(Open::Read)?;
        segment.read_once(&*file, 0)?;
        let all = Arc::new(AtomicU64::new(u64::MAX));
        let map = Map::of(segment.header.first_lsn(), all, || file.view()).at("map", segment.path())?;
        Ok(Whole(map))
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.durable()
    }
}

/// Segments in order: one is read from the disk while the one before it is looked at. (In a simulated world there are no
/// threads.)
struct Ahead<'a> {
    segments: &'a [Arc<Segment>],
    next: Option<(usize, JoinHandle<Result<Whole>>)>,
}

impl Ahead<'_> {
    fn look(&mut self, index: usize) -> Result<Whole> {
        let read = match self.next.take() {
            Some((at, reading)) if at == index => reading.join().unwrap_or_else(|panic| resume_unwind(panic)),
            _ => Whole::of(&self.segments[index]),
        };
        if let Some(next) = self.segments.get(index + 1).filter(|_| !crate::env::is_simulated()).cloned() {
            self.next = Some((index + 1, spawn(move || Whole::of(&next))));
        }
        read
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        if let Some((_, reading)) = self.next.take() {
            drop(reading.join()); // the scan ended with an error: nobody wants it any more
        }
    }
}

/// Records in order; `None` when they lead into the next segment.
fn read_through(tail: &mut Tail, header: &SegmentHeader, bytes: &[u8]) -> Option<There> {
    tail.offset = BLOCK;
    let durable = Event::Durable(Durable { stopped: true }).row().kind;
    loop {
        tail.lsn = header.first_lsn().plus(tail.offset);
        let record = match record_at(header, bytes, tail.offset) {
            Found::Record(record) => record,
            Found::Bad(..) if crate::planted::is('e') && search(header, bytes, tail.offset + 16).is_some() => {
                tail.offset = search(header, bytes, tail.offset + 16).map_or(0, |record| record.offset);
                continue;
            }
            Found::Unwritten(_) => return Some(There::Zeros),
            Found::Bad(_, fault) => return Some(There::OtherBytes(fault)),
            Found::End(_) => return Some(There::OtherBytes(Fault::TooLong)),
        };
        tail.stated = tail.stated.max(record.header.durable);
        tail.last_time = tail.last_time.max(record.header.time);
        if record.header.kind == KIND_SEGMENT_END {
            tail.offset = header.size;
            tail.lsn = header.end_lsn();
            return None;
        }
        if !record.header.is_filler() {
            // Nothing else is decoded here: a million records are a million fewer.
            tail.stopped = record.header.kind == durable
                && matches!(record.event(), Ok(Some(Event::Durable(Durable { stopped: true }))));
        }
        tail.offset = record.end_offset();
    }
}

/// What whole records behind the end have to say.
fn look_behind(tail: &mut Tail, header: &SegmentHeader, bytes: &[u8], from: u64) {
    let mut from = from;
    while let Some(record) = search(header, bytes, from) {
        tail.records_behind = true;
        tail.stated = tail.stated.max(record.header.durable);
        from = record.end_offset();
    }
}

fn refuse_corruption(headers: &[SegmentHeader], tail: &Tail, case: Case) -> Result<()> {
    let what = match case {
        Case::A | Case::B | Case::C | Case::D | Case::E => return Ok(()),
        Case::F => "durable segments behind this one are missing".to_owned(),
        Case::G => "durable records were wiped: zeros".to_owned(),
        Case::H => match tail.there {
            There::OtherBytes(fault) => fault.to_string(),
            There::SegmentEnd | There::Zeros => "durable records are damaged".to_owned(),
        },
    };
    let what = format!("{what}; everything before LSN {} was durable", tail.stated);
    Err(match headers.get(tail.index) {
        Some(header) => corrupt(header, tail.offset, what),
        None => Error::Corrupt { segment: SegmentNo(0), offset: tail.offset, lsn: tail.lsn, what },
    })
}

fn usable_spares(dir: &Dir, found: Vec<PathBuf>, size: u64) -> Result<Vec<PathBuf>> {
    let mut spares = Vec::new();
    for path in found {
        if dir.size(&path)? == size {
            spares.push(path);
        } else {
            dir.remove(&path)?;
        }
    }
    Ok(spares)
}

/// Make the cut durable; gives the offset in the last segment where appending goes on.
fn cut(segments: &[Arc<Segment>], tail: &Tail) -> Result<u64> {
    let Some(last) = segments.last() else { return Ok(tail.offset) };
    let size = last.header.size;
    // Nothing was in flight behind an orderly stop.
    if tail.offset < size && (tail.records_behind || !tail.stopped) {
        let file = last.open(Open::Write)?;
        files::zero(&*file, last.path(), tail.offset, size)?;
        crash_point!("CUT_ZEROED");
        file.sync_data().at("sync", last.path())?;
        crash_point!("CUT_ZEROS_SYNCED");
    }
    for segment in segments.iter().filter(|segment| segment.header.end_lsn() > tail.stated) {
        let end = if segment.header.number == last.header.number { tail.offset } else { size };
        rewrite(segment, tail, end)?;
    }
    let filled = filler_len(tail.offset);
    Ok(tail.offset + filled)
}

/// Length of the filler that takes the tail to a whole block.
fn filler_len(offset: u64) -> u64 {
    if offset.is_multiple_of(BLOCK) {
        return 0;
    }
    (offset + HEADER_LEN as u64).next_multiple_of(BLOCK) - offset
}

/// Write again what is kept of a segment from the stated durable LSN on, up to `end`, and fill its last block.
fn rewrite(segment: &Segment, tail: &Tail, end: u64) -> Result<()> {
    let header = &segment.header;
    let from = tail.stated.0.saturating_sub(header.first_lsn().0).max(BLOCK) / BLOCK * BLOCK;
    if from >= end {
        return Ok(());
    }
    let file = segment.open(Open::Write)?;
    let at_once = 1 << 20;
    let mut at = from;
    while at < end {
        let step = (end - at).min(at_once);
        let mut bytes = vec![0; super::batch::to_usize(step)];
        file.read_at(&mut bytes, at).at("read", segment.path())?;
        if at + step == end {
            let lsn = header.first_lsn().plus(end);
            let length = u32::try_from(filler_len(end)).unwrap_or_default();
            if length > 0 {
                let closes = end + u64::from(length) == header.size;
                let kind = if closes { KIND_SEGMENT_END } else { KIND_PADDING };
                bytes.extend(filler(kind, length, lsn, tail.last_time, tail.stated, header.salt));
            }
        }
        file.write_at(&bytes, at).at("write", segment.path())?;
        crash_point!("CUT_REWRITTEN");
        at += step;
    }
    file.sync_data().at("sync", segment.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_of_cases_is_complete_and_every_letter_is_reached() {
        let theres = [There::SegmentEnd, There::Zeros, There::OtherBytes(Fault::Checksum)];
        let mut seen = BTreeSet::new();
        for there in theres {
            for stated_behind in [false, true] {
                for records_behind in [false, true] {
                    let case = judge(there, stated_behind, records_behind);
                    seen.insert(case);
                    // The one thing that decides between cutting and stopping (I8).
                    assert_eq!(case >= Case::F, stated_behind, "{there:?} {records_behind}");
                }
            }
        }
        let letters = [Case::A, Case::B, Case::C, Case::D, Case::E, Case::F, Case::G, Case::H];
        assert_eq!(seen, BTreeSet::from(letters));
        let prose = include_str!("recover.rs");
        for letter in letters {
            assert!(prose.contains(&format!("//! | {letter:?}    |")), "no prose for {letter:?}");
        }
    }

    #[test]
    fn a_filler_takes_any_offset_to_a_block() {
        for offset in (0..3 * BLOCK).step_by(16) {
            let filled = filler_len(offset);
            assert!((offset + filled).is_multiple_of(BLOCK) && (filled == 0 || filled >= HEADER_LEN as u64));
        }
    }
}
