//! Start: newest valid snapshot, the fold of the rest, the live index to the journal's end (design §4).
//!
//! The live index may be ahead of the LSN it states; folding the events since again leads it to the same end. What has
//! happened on today's primaries since is not folded here: it may be in doubt, and is folded when each is redone
//! (`location::redo`), without what its filer refused.

use crate::core::{Error, LOCATION_CACHE, Result, store_name};
use crate::gateway::drc::Drc;
use crate::index::live::{Live, is_folded};
use crate::index::stores::Stores;
use crate::journal::{Error as JournalError, Journal};
use crate::location::projection;
use crate::location::redo::{Ends, fold, location_of, note_end};
use crate::state::{self, Role, State};
use journal_format::event::{Event, JobState};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId, Time};
use journal_format::segment::BLOCK;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// At least so much of the journal's end is kept, and read for calls that may be repeated across a restart.
/// (Less where tests die at crash points, so that segments are recycled there.)
pub const CALLS_BYTES: u64 = if cfg!(feature = "crash-points") { 4 << 20 } else { 16 << 20 };

/// What the journal says, at its end.
pub struct Recovered {
    pub state: State,
    /// Highest node id that was ever given out.
    pub highest_node: NodeId,
    pub records: u64,
    /// The live index holds everything of a junction before; from here on operations of its primary may be in doubt.
    pub doubts: BTreeMap<JunctionId, Lsn>,
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
    let index_from = index_from(journal, live)?;
    let calls_from = calls_from(journal, from.min(index_from))?;
    let mut ends = Ends::new();
    let mut statuses = std::collections::BTreeMap::new();
    let mut highest = live.node_max()?;
    let (mut records, mut last) = (0, Time(0));
    // From where on the second look finds something to fold, by location (or none): mostly nowhere.
    let mut folds_from: BTreeMap<Option<LocationId>, Lsn> = BTreeMap::new();
    journal.reader(from.min(index_from).min(calls_from))?.each(end, |record| -> Result<()> {
        records += 1;
        last = record.time;
        if record.lsn >= from {
            state::apply(&mut state, record.lsn, record.end, record.time, &record.event)
                .map_err(|e| Error::Other(e.to_string()))?;
        }
        highest = highest.max(highest_node(&record.event));
        note_end(&mut ends, &record.event);
        if record.lsn >= index_from && is_folded(&record.event) {
            folds_from.entry(location_of(&record.event)).or_insert(record.lsn);
        }
        match record.event {
            Event::Failed(e) => drop(statuses.insert(e.op, e.status)),
            Event::Partial(e) => drop(statuses.insert(e.op, e.status)),
            _ => {}
        }
        Ok(())
    })?;
    crash_point!("RECOVERY_ENDS_READ");
    let primaries: BTreeSet<LocationId> = state.junctions.values().map(|junction| junction.primary).collect();
    let mut doubts: BTreeMap<JunctionId, Lsn> =
        state.junctions.keys().map(|junction| (*junction, index_from)).collect();
    for junction in live.aside()? {
        let (high, from) = fold_side(journal, live, junction, index_from, &ends, &primaries)?;
        highest = highest.max(high);
        if let Some(doubt) = doubts.get_mut(&junction) {
            *doubt = from.min(*doubt);
        }
    }
    folds_from.retain(|location, _| location.is_none_or(|id| !primaries.contains(&id)));
    let again_from = folds_from.into_values().min().unwrap_or(end).min(calls_from);
    journal.reader(again_from)?.each(end, |record| -> Result<()> {
        if record.lsn >= calls_from {
            let age = Duration::from_nanos(u64::try_from(last.0.saturating_sub(record.time.0)).unwrap_or(0));
            drc.refill(record.lsn, age, &record.event, statuses.get(&record.lsn).copied());
        }
        if record.lsn >= index_from && location_of(&record.event).is_none_or(|id| !primaries.contains(&id)) {
            let end = ends.get(&record.lsn);
            fold(live, record, end)?;
        }
        Ok(())
    })?;
    crash_point!("RECOVERY_FOLDED");
    state.lsn = state.lsn.max(end);
    Ok(Recovered { state, highest_node: highest, records, doubts })
}

/// Destinations of a journal that was repaired are never gone on with: the primary has something of the cut part that nobody
/// would bring over, and one that is ahead lacks what comes instead. To be called before anything is appended. Blocking.
pub fn note_cut(journal: &Journal, stores: &dyn Stores, state: &State) -> Result<()> {
    let cuts = journal.new_cuts()?;
    if cuts.is_empty() {
        return Ok(());
    }
    for (id, at) in &state.locations {
        let Role::Destination(job) = at.role else { continue };
        let is_begun = state.jobs.get(&job).is_some_and(|job| job.state != JobState::Stopped);
        let store = stores.open(&store_name(*id), LOCATION_CACHE, true)?;
        if is_begun || store.lsn() > journal.durable_lsn() {
            projection::note_cut(&store)?;
        }
    }
    Ok(journal.cuts_are_taken(&cuts)?)
}

/// From where on the live index is folded. One that is new, or was lost, is made from the whole journal.
fn index_from(journal: &Journal, live: &Live) -> Result<Lsn> {
    let (start, end) = (journal.start_lsn(), journal.durable_lsn());
    if !live.is_of(journal.id())? {
        return Err(Error::Other(
            "the node index was made from another journal. Is the journal's disk mounted, and are [journal] dir and \
             [state] dir those of one service? Nothing was changed in either"
                .into(),
        ));
    }
    // Of one that `tain-journal repair` has cut since the last start, the index has some of the cut part.
    if !journal.new_cuts()?.is_empty() {
        tracing::warn!(
            index = %live.store.lsn(), journal = %end,
            "the journal was repaired: the node index still has what was cut; handles of what was made there lead to what \
             the filers have"
        );
        for junction in live.aside()? {
            // Moved away by the repair: all of it lay behind the cut.
            if journal.side_start(junction).is_none() {
                live.set_aside(junction, false);
            }
        }
        live.note_cut(end)?;
    }
    let stated = live.store.lsn();
    // It never states more than is durable.
    if stated > end {
        return Err(Error::Other(format!(
            "the node index ends at {stated} and the journal at {end}: the index was not made from this journal. Is the \
             journal's disk mounted, and [journal] dir right? Nothing was changed in the index. (When an older copy of \
             the journal was put back, put back the index directory of the same time, too.)"
        )));
    }
    // It may state the end of the segment before, and the journal begin behind the header of the next one.
    if stated.plus(BLOCK) >= start {
        return Ok(stated.max(start));
    }
    let whole = start.0 < journal.segment_size();
    if stated == Lsn(0) && whole {
        return Ok(start);
    }
    Err(Error::Other(format!(
        "the node index ends at {stated} and the journal begins at {start}: what lies between is not to be had, and \
         without it handles that clients hold would lead nowhere. Put the index directory ([state] dir) of this \
         journal back, or an older copy of the journal's segments beside the newer ones, and start again"
    )))
}

/// The index lacks some of the junction's operations before the LSN it states: they are in its side, all of them, and
/// folding them again over what it has comes to the same end. Those of today's primary wait for its redo. Where from.
fn fold_side(
    journal: &Journal,
    live: &Live,
    junction: JunctionId,
    to: Lsn,
    later: &Ends,
    primaries: &BTreeSet<LocationId>,
) -> Result<(NodeId, Lsn)> {
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
        let decided = location_of(&record.event).is_none_or(|id| !primaries.contains(&id));
        if decided && junction_of(&record.event) == Some(junction) {
            let end = ends.get(&record.lsn);
            fold(live, record, end)?;
        }
    }
    Ok((highest, from))
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

/// From where on calls may come again: the beginning of a segment, so that a record begins there. `needed` is read
/// anyway; a sector before it that cannot be read costs nobody more than the answer to a call that comes again.
fn calls_from(journal: &Journal, needed: Lsn) -> Result<Lsn> {
    let size = journal.segment_size();
    let at = journal.end_lsn().0.saturating_sub(CALLS_BYTES);
    let mut from = journal.start_lsn().max(Lsn(at / size * size));
    let mut segment = from.0 / size * size;
    while segment < needed.0 {
        // The last of them holds what is needed, too: that is looked at by who reads it.
        let end = needed.min(Lsn(segment + size));
        match journal.look_at(Lsn(segment)) {
            Err(error @ JournalError::Unreadable { .. }) => {
                tracing::error!(%error, "repeated calls of that time are not recognised; nothing else needs them");
                from = end;
            }
            looked => looked?,
        }
        segment += size;
    }
    Ok(from)
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
