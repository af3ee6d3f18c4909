//! A primary that hangs pins the journal from its cursor, or its first unsettled operation, on. Past the soft limit
//! its junction's records are set aside (`journal/side.rs`), and everybody else's journal goes on.
//!
//! Order, for a junction whose primary hangs: its side is extended to the LSN that the index is about to state, then the
//! index states it, and that it lacks operations of the junction; only then are segments recycled. When every operation
//! before the side's end has ended the junction counts like any other, and when all of its locations have passed it, the
//! side goes.

use crate::core::{Core, Error, Result, blocking};
use crate::state::{Role, State};
use journal_format::event::{Cursor, Event, JobState};
use journal_format::ids::{JunctionId, LocationId, Lsn};
use std::collections::{BTreeMap, BTreeSet};

/// The junction's locations that are in use, the primary first. Of a job that is stopped nothing has been copied: its
/// destination's cursor stays behind, pins nothing, and jumps when the job starts (see `limits::pins`).
fn locations(state: &State, junction: JunctionId) -> Vec<(LocationId, Lsn)> {
    let of = |role: Role| match role {
        Role::Primary(of) => of == junction,
        Role::Destination(job) => {
            state.jobs.get(&job).is_some_and(|job| job.junction == junction && job.state != JobState::Stopped)
        }
        Role::Left => false,
    };
    let mut found: Vec<_> = state.locations.iter().filter(|(_, l)| of(l.role)).map(|(id, l)| (*id, l.cursor)).collect();
    let primary = state.junctions.get(&junction).map(|j| j.primary);
    found.sort_by_key(|(id, _)| (Some(*id) != primary, *id));
    found
}

/// Junctions whose primary hangs, and pins more than the journal has for it. `synced`: cursors that are just being told.
/// A primary whose sync is waited for, or has just ended, is slow: then its cursor says nothing.
pub fn hung(core: &Core, synced: &[Cursor], is_waited_for: impl Fn(LocationId) -> bool) -> BTreeSet<JunctionId> {
    let (journal, state) = (&core.ledger.journal, core.ledger.state());
    let end = journal.durable_lsn();
    let is_hung = |junction: &JunctionId| {
        let Some((primary, cursor)) = locations(&state, *junction).first().copied() else { return false };
        let synced = synced.iter().find(|c| c.location == primary).map(|c| c.lsn);
        let cursor = cursor.max(synced.unwrap_or_default());
        let settled = core.ledger.settled_lsn(*junction);
        let side = journal.side_end(*junction).unwrap_or(Lsn(0));
        let slow = side == Lsn(0) && (synced.is_some() || is_waited_for(primary));
        let far = |lsn: Lsn| end.0.saturating_sub(lsn.0) > journal.soft_limit();
        // The index has stated that it is past operations that have not ended; or they, or the cursor, pin too much.
        settled < side || far(settled) || (!slow && far(cursor.max(side)))
    };
    state.junctions.keys().copied().filter(is_hung).collect()
}

/// Everything of these junctions before `to` is in their sides when this returns; but for those that are returned, whose
/// records could not be written there (the disk is full), and why.
pub async fn extend(core: &Core, junctions: &BTreeSet<JunctionId>, to: Lsn) -> Result<BTreeMap<JunctionId, Error>> {
    let state = core.ledger.state();
    let mut failed = BTreeMap::new();
    for junction in junctions {
        let found = locations(&state, *junction);
        let Some(from) = found.iter().map(|(_, cursor)| *cursor).min() else { continue };
        // The index lacks what is in doubt, wherever the cursor stands.
        let from = core.ledger.doubt_from(*junction).map_or(from, |doubt| from.min(doubt));
        if core.ledger.journal.side_end(*junction).is_none() {
            tracing::warn!(%junction, %from, "the junction's primary hangs: its records are set aside, others go on");
        }
        let (journal, junction) = (core.ledger.journal.clone(), *junction);
        let ids: BTreeSet<LocationId> = found.into_iter().map(|(id, _)| id).collect();
        let extended =
            blocking(move || Ok(journal.set_aside(junction, from, to, &|event| concerns(event, junction, &ids))?))
                .await;
        match extended {
            Ok(()) => {}
            Err(error) if error.is_the_end() => return Err(error),
            Err(error) => drop(failed.insert(junction, error)),
        }
    }
    Ok(failed)
}

/// What the index may state when the sides of these could not be extended. One of which the index lacks operations already
/// pins the journal where its side ends, which is not before what the index has stated; any other one is as if it did not
/// hang, whatever part of a side it has got.
pub fn without(core: &Core, aside: &mut BTreeSet<JunctionId>, failed: &BTreeMap<JunctionId, Error>) -> Result<Lsn> {
    let lacking: BTreeSet<JunctionId> = core.live.aside()?.into_iter().collect();
    aside.retain(|junction| !failed.contains_key(junction) || lacking.contains(junction));
    let settled = core.ledger.settled_without(aside);
    let pinned = failed.keys().filter(|junction| lacking.contains(junction));
    Ok(pinned.filter_map(|junction| core.ledger.journal.side_end(*junction)).fold(settled, Lsn::min))
}

/// Whether the record says anything about the junction or its locations, or may.
fn concerns(event: &Event, junction: JunctionId, locations: &BTreeSet<LocationId>) -> bool {
    match event {
        Event::Write(e) => e.junction == junction,
        Event::SetAttr(e) => e.junction == junction,
        Event::Make(e) => e.junction == junction,
        Event::Remove(e) => e.junction == junction,
        Event::Rename(e) => e.junction == junction,
        Event::Link(e) => e.junction == junction,
        Event::Adopt(e) => e.junction == junction,
        Event::JunctionAdded(e) => e.junction == junction,
        Event::JunctionSwitched(e) => e.junction == junction,
        Event::JunctionRemoved(e) => e.junction == junction,
        Event::JunctionModified(e) => e.junction == junction,
        Event::Made(e) => locations.contains(&e.location),
        Event::ListBegin(e) => locations.contains(&e.location),
        Event::Listed(e) => locations.contains(&e.location),
        Event::CopyRange(e) => locations.contains(&e.location),
        Event::CopyDone(e) => locations.contains(&e.location),
        // By an operation's LSN alone; a job's by its number.
        Event::Failed(_) | Event::Partial(_) | Event::JobStateChanged(_) => true,
        Event::FilerAdded(_)
        | Event::FilerRemoved(_)
        | Event::PolicySet(_)
        | Event::PolicyRemoved(_)
        | Event::HostMonitored(_)
        | Event::HostForgotten(_)
        | Event::LocksLost(_)
        | Event::JobCreated(_)
        | Event::Cursor(_)
        | Event::OutOfSync(_)
        | Event::InSync(_)
        | Event::Durable(_)
        | Event::JournalCreated(_) => false,
    }
}

/// Whether the junction's side stays because this location has not passed it.
pub fn holds(core: &Core, state: &State, location: LocationId, cursor: Lsn) -> bool {
    let junction = match state.locations.get(&location).map(|l| l.role) {
        Some(Role::Primary(junction)) => Some(junction),
        Some(Role::Destination(job)) => state.jobs.get(&job).map(|job| job.junction),
        Some(Role::Left) | None => None,
    };
    junction.and_then(|junction| core.ledger.journal.side_end(junction)).is_some_and(|end| cursor < end)
}

/// Sides that everybody has passed go: the junction's locations, durably, and the index, which states `settled`.
pub async fn drop_passed(core: &Core, settled: Lsn) -> Result<()> {
    let state = core.ledger.state();
    for junction in core.ledger.journal.sides().into_keys() {
        let Some(to) = core.ledger.journal.side_end(junction) else { continue };
        let behind = locations(&state, junction).iter().any(|(_, cursor)| *cursor < to);
        if behind || settled < to || core.live.aside()?.contains(&junction) {
            continue;
        }
        // The cursors that say so.
        core.ledger.wait_durable(state.lsn).await?;
        let journal = core.ledger.journal.clone();
        blocking(move || Ok(journal.drop_side(junction)?)).await?;
        tracing::info!(%junction, "everybody has passed the junction's side: it is gone");
    }
    Ok(())
}

/// From where on each location in use needs the journal itself.
pub fn needed(core: &Core, state: &State) -> Vec<(LocationId, Lsn)> {
    let journal = &core.ledger.journal;
    let pins = crate::limits::pins(state, journal.durable_lsn());
    pins.iter()
        .filter_map(|pin| {
            let junction = match pin.who {
                crate::limits::Who::Primary(junction) => junction,
                crate::limits::Who::Secondary(job) => state.jobs.get(&job)?.junction,
            };
            Some((pin.location, pin.cursor.max(journal.side_end(junction).unwrap_or(Lsn(0)))))
        })
        .collect()
}

/// The earliest of these.
pub fn floor(core: &Core, state: &State) -> Option<Lsn> {
    needed(core, state).into_iter().map(|(_, from)| from).min()
}
