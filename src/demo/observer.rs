//! Reads the journal's segments while the service writes them, by the format's own crate: which call became which LSN,
//! where the switch lies, which copy steps are said to be done. Nothing here asks the service.
//!
//! A thread follows the end by short reads. A record that is not whole yet is read again later; a segment that is gone
//! before it was read is an error, told when somebody asks.

use journal_format::event::{Caller, Event};
use journal_format::record::{KIND_SEGMENT_END, RECORD_MAX};
use journal_format::scan::{Fault, Found, record_at};
use journal_format::segment::{BLOCK, SegmentHeader};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pause between looks.
const EVERY: Duration = Duration::from_millis(20);
/// Calls whose LSN is kept.
const CALLS_MAX: usize = 8_000_000;
/// First read of a look; doubled while a record is longer.
const WINDOW: u64 = 256 << 10;

/// A copy step: location, node, offset.
pub type Step = (u32, u64, u64);

#[derive(Clone, Copy, Debug)]
pub struct Switch {
    pub job: u32,
    pub lsn: u64,
    /// Nanoseconds since 1970.
    pub time: i64,
    pub from: u32,
    pub to: u32,
}

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// LSN of each client call that changed something, by xid.
    pub calls: HashMap<u32, u64>,
    by_lsn: HashMap<u64, u32>,
    pub switches: Vec<Switch>,
    /// Where each junction that was switched leads now.
    primaries: HashMap<u32, u32>,
    /// Steps ordered, with their lengths.
    pub ordered: HashMap<Step, u64>,
    /// Where the newest steps go.
    pub ordered_last_location: Option<u32>,
    /// Steps done: LSN of their first `CopyDone`, and bytes.
    pub done: HashMap<Step, (u64, u64)>,
    /// Steps that a second `CopyDone` names.
    pub done_again: Vec<Step>,
    pub done_bytes: u64,
    pub failed_steps: Vec<String>,
    pub events: u64,
    /// Everything before is read.
    pub lsn: u64,
    /// Why reading has ended.
    pub broken: Option<String>,
}

/// Called with every event in LSN order, its bulk data, LSN and time; an error ends the reading.
pub type Hook = Box<dyn FnMut(&Event, &[u8], u64, i64) -> Result<(), String> + Send>;

pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Observer {
    /// Follow the journal in `dir`; it may not be there yet.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, Box::new(|_, _, _, _| Ok(())))
    }

    /// The same, with somebody else looking on.
    pub fn start_with(dir: &Path, hook: Hook) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let mut tail = Tail { dir: dir.to_path_buf(), seen: seen.clone(), at: None, hook };
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            loop {
                // Read once more after the order to stop, so that what was there then is seen.
                let last = stopping.load(Ordering::Acquire);
                if let Err(e) = tail.follow() {
                    tail.lock().broken = Some(e);
                    return;
                }
                if last {
                    return;
                }
                std::thread::sleep(EVERY);
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until a whole look has found nothing new.
    pub fn settle(&self) -> Result<(), String> {
        loop {
            let before = self.seen().events;
            std::thread::sleep(EVERY * 4);
            let seen = self.seen();
            if let Some(e) = &seen.broken {
                return Err(e.clone());
            }
            if seen.events == before {
                return Ok(());
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Tail {
    dir: PathBuf,
    seen: Arc<Mutex<Seen>>,
    at: Option<Segment>,
    hook: Hook,
}

struct Segment {
    header: SegmentHeader,
    file: File,
    /// The segment's first bytes, as far as they are read.
    bytes: Vec<u8>,
    /// The next record.
    offset: u64,
}

enum Pace {
    /// Nothing more for now.
    Wait,
    /// The segment is read to its end.
    Ended,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&mut self) -> Result<(), String> {
        loop {
            let Some(mut segment) = self.at.take() else {
                self.at = open(&self.dir, None)?;
                if self.at.is_none() {
                    return Ok(());
                }
                continue;
            };
            let hook = &mut self.hook;
            let seen = &self.seen;
            let pace = segment.read(|event, bulk, lsn, time| {
                hook(&event, bulk, lsn, time)?;
                seen.lock().unwrap_or_else(PoisonError::into_inner).take(event, lsn, time)
            })?;
            self.lock().lsn = segment.header.first_lsn().0 + segment.offset;
            match pace {
                Pace::Wait => {
                    self.at = Some(segment);
                    return Ok(());
                }
                Pace::Ended => match open(&self.dir, Some(segment.header.number.0 + 1))? {
                    Some(next) => self.at = Some(next),
                    None => {
                        self.at = Some(segment);
                        return Ok(());
                    }
                },
            }
        }
    }
}

/// The segment with that number, or the first one.
fn open(dir: &Path, number: Option<u64>) -> Result<Option<Segment>, String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(None) };
    let mut found: Vec<(SegmentHeader, File)> = Vec::new();
    for path in entries.flatten().map(|e| e.path()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with("segment") {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(4096)];
        if file.read_exact_at(&mut block, 0).is_ok()
            && let Ok(header) = SegmentHeader::from_bytes(&block)
        {
            found.push((header, file));
        }
    }
    found.sort_by_key(|(h, _)| h.number);
    if let (Some(number), Some((first, _))) = (number, found.first())
        && first.number.0 > number
    {
        return Err(format!("segment {number} was recycled before it was read; the oldest is {}", first.number.0));
    }
    let wanted = |h: &SegmentHeader| number.is_none_or(|n| h.number.0 == n);
    Ok(found.into_iter().find(|(h, _)| wanted(h)).map(|(header, file)| Segment {
        header,
        file,
        bytes: Vec::new(),
        offset: BLOCK,
    }))
}

impl Segment {
    fn read(&mut self, mut take: impl FnMut(Event, &[u8], u64, i64) -> Result<(), String>) -> Result<Pace, String> {
        let mut window = WINDOW;
        loop {
            if self.offset >= self.header.size {
                return Ok(Pace::Ended);
            }
            let begun = self.offset;
            self.load(window)?;
            let whole = self.bytes.len() as u64;
            let stopped = loop {
                match record_at(&self.header, &self.bytes, self.offset) {
                    Found::Record(record) => {
                        if record.header.kind == KIND_SEGMENT_END {
                            return Ok(Pace::Ended);
                        }
                        let (lsn, time) = (record.header.lsn.0, record.header.time.0);
                        if let Some(event) = record.event().map_err(|e| format!("LSN {lsn}: {e}"))? {
                            take(event, record.bulk, lsn, time)?;
                        }
                        self.offset = record.end_offset();
                    }
                    other => break other,
                }
            };
            match stopped {
                // The bytes at hand end here, not the records.
                Found::End(_) | Found::Bad(_, Fault::TooLong) if whole < self.header.size => {
                    if self.offset == begun {
                        if window >= 2 * RECORD_MAX {
                            return Ok(Pace::Wait);
                        }
                        window *= 2;
                    }
                }
                Found::End(_) => return Ok(Pace::Ended),
                Found::Record(_) | Found::Unwritten(_) | Found::Bad(..) => return Ok(Pace::Wait),
            }
        }
    }

    /// Read anew from the next record on: what was not whole may be now.
    fn load(&mut self, window: u64) -> Result<(), String> {
        let block = usize::try_from(BLOCK).unwrap_or(4096);
        let mut head = vec![0; block];
        self.file.read_exact_at(&mut head, 0).map_err(|e| e.to_string())?;
        let now = SegmentHeader::from_bytes(&head).ok();
        if now.map(|h| (h.number, h.salt)) != Some((self.header.number, self.header.salt)) {
            return Err(format!("segment {} was recycled while it was read", self.header.number.0));
        }
        let from = usize::try_from(self.offset).map_err(|e| e.to_string())?;
        let to = usize::try_from((self.offset + window).min(self.header.size)).map_err(|e| e.to_string())?;
        // Bytes before the next record are never looked at again: they only keep the offsets true.
        self.bytes.resize(from, 0);
        self.bytes.resize(to, 0);
        self.file.read_exact_at(&mut self.bytes[from..], self.offset).map_err(|e| e.to_string())
    }
}

impl Seen {
    fn take(&mut self, event: Event, lsn: u64, time: i64) -> Result<(), String> {
        self.events += 1;
        self.goes_to_the_primary(&event, lsn)?;
        match event {
            Event::Write(e) => self.call(&e.caller, lsn),
            Event::SetAttr(e) => self.call(&e.caller, lsn),
            Event::Make(e) => self.call(&e.caller, lsn),
            Event::Remove(e) => self.call(&e.caller, lsn),
            Event::Rename(e) => self.call(&e.caller, lsn),
            Event::Link(e) => self.call(&e.caller, lsn),
            Event::Failed(e) => {
                if let Some(xid) = self.by_lsn.remove(&e.op.0) {
                    self.calls.remove(&xid);
                }
                Ok(())
            }
            Event::JunctionSwitched(e) => {
                self.primaries.insert(e.junction.0, e.to.0);
                self.switches.push(Switch { job: e.job.0, lsn, time, from: e.from.0, to: e.to.0 });
                Ok(())
            }
            Event::CopyRange(e) => {
                self.ordered_last_location = Some(e.location.0);
                for r in &e.ranges {
                    self.ordered.insert((e.location.0, r.node.0, r.offset), r.len);
                }
                Ok(())
            }
            Event::CopyDone(e) => {
                for r in &e.ranges {
                    let step = (e.location.0, r.node.0, r.offset);
                    match self.done.entry(step) {
                        Entry::Vacant(first) => {
                            first.insert((lsn, r.len));
                            self.done_bytes += r.len;
                        }
                        Entry::Occupied(_) if r.void => {}
                        Entry::Occupied(_) => self.done_again.push(step),
                    }
                }
                let failed = e.failed.iter().map(|f| format!("{}: {}", f.path.escape_ascii(), f.error));
                self.failed_steps.extend(failed.take(100));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Behind a switch every operation goes to the new location (I5).
    fn goes_to_the_primary(&self, event: &Event, lsn: u64) -> Result<(), String> {
        let (junction, location) = match event {
            Event::Write(e) => (e.junction, e.location),
            Event::SetAttr(e) => (e.junction, e.location),
            Event::Make(e) => (e.junction, e.location),
            Event::Remove(e) => (e.junction, e.location),
            Event::Rename(e) => (e.junction, e.location),
            Event::Link(e) => (e.junction, e.location),
            Event::Adopt(e) => (e.junction, e.location),
            _ => return Ok(()),
        };
        match self.primaries.get(&junction.0) {
            Some(primary) if *primary != location.0 => Err(format!(
                "the operation at {lsn} is on {location}, and junction {junction} leads to l{primary} by then"
            )),
            _ => Ok(()),
        }
    }

    fn call(&mut self, caller: &Caller, lsn: u64) -> Result<(), String> {
        if self.calls.len() >= CALLS_MAX {
            return Err(format!("more than {CALLS_MAX} calls"));
        }
        // A call that ran twice would be here twice; the first one counts, the model finds the second.
        self.calls.entry(caller.xid).or_insert(lsn);
        self.by_lsn.insert(lsn, caller.xid);
        Ok(())
    }

    /// The switch that a job made.
    pub fn switch(&self, job: u32) -> Option<Switch> {
        self.switches.iter().find(|s| s.job == job).copied()
    }

    /// Bytes of steps that were ordered and are not said to be done.
    pub fn in_flight_bytes(&self) -> u64 {
        self.ordered.iter().filter(|(step, _)| !self.done.contains_key(*step)).map(|(_, len)| *len).sum()
    }
}
