//! Start: newest valid snapshot, the fold of the rest, the live index to the journal's end (design §4).
//!
//! The live index may be ahead of the LSN it states; folding the events since again leads it to the same end. An
//! operation without an end counts as done: redo carries it out, or records that the filer refused it.

use crate::core::{Error, Result};
use crate::gateway::drc::Drc;
use crate::index::live::Live;
use crate::journal::{Journal, Record};
use crate::location::redo::{End, Ends, note_end};
use crate::state::{self, State};
use journal_format::event::{Event, PartDone};
use journal_format::ids::{JunctionId, Lsn, NodeId};

/// At least so much of the journal's end is kept, and read for calls that may be repeated across a restart.
/// (Less where tests die at crash points, so that segments are recycled there.)
pub const CALLS_BYTES: u64 = if cfg!(feature = "crash-points") { 4 << 20 } else { 16 << 20 };

/// What the journal says, at its end.
pub struct Recovered {
    pub state: State,
    /// Highest node id that was ever given out.
    pub highest_node: NodeId,
    pub records: u64,
}

/// Fold State and the live index to the journal's end, and refill the duplicate-request cache. Blocking.
pub fn recover(journal: &Journal, live: &Live, drc: &Drc) -> Result<Recovered> {
    let end = journal.durable_lsn();
    let (mut state, from) = match journal.snapshot()? {
        Some((lsn, json)) => {
            let state = State::from_json(&json).map_err(|e| Error::Other(format!("the snapshot at {lsn}: {e}")))?;
            (state, lsn)
        }
        None => (State::default(), journal.start_lsn()),
    };
    let index_from = if live.store.lsn() == Lsn(0) { journal.start_lsn() } else { live.store.lsn() };
    let calls_from = calls_from(journal);
    let mut ends = Ends::new();
    let mut reader = journal.reader(index_from.min(calls_from))?;
    let mut statuses = std::collections::BTreeMap::new();
    while let Some(record) = reader.next(end)? {
        note_end(&mut ends, &record.event);
        match record.event {
            Event::Failed(e) => drop(statuses.insert(e.op, e.status)),
            Event::Partial(e) => drop(statuses.insert(e.op, e.status)),
            _ => {}
        }
    }
    crash_point!("RECOVERY_ENDS_READ");
    let mut highest = live.node_max()?;
    let mut records = 0;
    for junction in live.aside()? {
        highest = highest.max(fold_side(journal, live, junction, index_from, &ends)?);
    }
    let mut reader = journal.reader(from.min(index_from).min(calls_from))?;
    while let Some(record) = reader.next(end)? {
        records += 1;
        if record.lsn >= from {
            state::apply(&mut state, record.lsn, record.end, record.time, &record.event)
                .map_err(|e| Error::Other(e.to_string()))?;
        }
        highest = highest.max(highest_node(&record.event));
        if record.lsn >= calls_from {
            drc.refill(record.lsn, record.time, &record.event, statuses.get(&record.lsn).copied());
        }
        if record.lsn >= index_from {
            fold(live, &record, ends.get(&record.lsn))?;
        }
    }
    crash_point!("RECOVERY_FOLDED");
    state.lsn = state.lsn.max(end);
    Ok(Recovered { state, highest_node: highest, records })
}

/// The index lacks some of the junction's operations before the LSN it states: they are in its side, all of them, and
/// folding them again over what it has comes to the same end.
fn fold_side(journal: &Journal, live: &Live, junction: JunctionId, to: Lsn, later: &Ends) -> Result<NodeId> {
    let from =
        journal.side_start(junction).ok_or_else(|| Error::Other(format!("the side of {junction} is not there")))?;
    let mut ends = later.clone();
    let mut reader = journal.reader_of(junction, from)?;
    while let Some(record) = reader.next(to)? {
        note_end(&mut ends, &record.event);
    }
    let mut highest = NodeId(0);
    let mut reader = journal.reader_of(junction, from)?;
    while let Some(record) = reader.next(to)? {
        highest = highest.max(highest_node(&record.event));
        if junction_of(&record.event) == Some(junction) {
            fold(live, &record, ends.get(&record.lsn))?;
        }
    }
    Ok(highest)
}

fn junction_of(event: &Event) -> Option<JunctionId> {
    match event {
        Event::Write(e) => Some(e.junction),
        Event::SetAttr(e) => Some(e.junction),
        Event::Make(e) => Some(e.junction),
        Event::Remove(e) => Some(e.junction),
        Event::Rename(e) => Some(e.junction),
        Event::Link(e) => Some(e.junction),
        Event::Adopt(e) => Some(e.junction),
        Event::JunctionAdded(e) => Some(e.junction),
        _ => None,
    }
}

/// From where on calls may come again: the beginning of a segment, so that a record begins there.
fn calls_from(journal: &Journal) -> Lsn {
    let at = journal.end_lsn().0.saturating_sub(CALLS_BYTES);
    journal.start_lsn().max(Lsn(at / journal.segment_size() * journal.segment_size()))
}

fn fold(live: &Live, record: &Record, end: Option<&End>) -> Result<()> {
    match end {
        Some(End::Failed) => return Ok(()),
        Some(End::Partial(PartDone::Attrs { size, times, .. })) => {
            if let Event::SetAttr(e) = &record.event {
                let mut part = e.clone();
                part.size = part.size.filter(|_| *size);
                part.mtime = part.mtime.filter(|_| *times);
                live.apply(record.lsn, record.time, &Event::SetAttr(part))?;
                return Ok(());
            }
        }
        Some(End::Partial(PartDone::Bytes(_))) | None => {}
    }
    live.apply(record.lsn, record.time, &record.event)?;
    Ok(())
}

/// Node ids given out, whatever became of them.
fn highest_node(event: &Event) -> NodeId {
    match event {
        Event::Make(e) => e.node,
        Event::Adopt(e) => e.entries.iter().map(|a| a.node).max().unwrap_or_default(),
        Event::JunctionAdded(e) => e.root,
        _ => NodeId(0),
    }
}
