//! Cursors, and what they keep in the journal.

use super::{Role, State};
use journal_format::event::{self, Cursor, JobState};
use journal_format::ids::{Lsn, Time};

/// A cursor only grows; an older one that comes late is let pass, and so is one of a location that was forgotten.
pub(super) fn cursor(state: &mut State, e: &Cursor, lsn: Lsn) -> Result<(), String> {
    if e.location.0 >= state.next.location {
        return Err(format!("a cursor of location {}, which never was", e.location));
    }
    if e.lsn > lsn {
        return Err(format!("location {} has its cursor at {}, ahead of the journal", e.location, e.lsn));
    }
    if let Some(location) = state.locations.get_mut(&e.location) {
        location.cursor = location.cursor.max(e.lsn);
    }
    Ok(())
}

/// A secondary's backlog is given up for a dirty set. It may race with the end of its job, or with the switch: then there
/// is no secondary any more, and it is let pass. Out of sync already, it stays so since then.
pub(super) fn out_of_sync(state: &mut State, e: &event::OutOfSync, lsn: Lsn, time: Time) -> Result<(), String> {
    if e.location.0 >= state.next.location {
        return Err(format!("location {} is out of sync, and never was", e.location));
    }
    if e.from > lsn {
        return Err(format!("location {} is out of sync from {}, ahead of the journal", e.location, e.from));
    }
    if let Some(location) = state.locations.get_mut(&e.location)
        && matches!(location.role, Role::Destination(_))
    {
        location.out_of_sync.get_or_insert(super::OutOfSync { from: e.from, since: time });
    }
    Ok(())
}

pub(super) fn in_sync(state: &mut State, e: &event::InSync) -> Result<(), String> {
    if e.location.0 >= state.next.location {
        return Err(format!("location {} is in sync, and never was", e.location));
    }
    if let Some(location) = state.locations.get_mut(&e.location) {
        location.out_of_sync = None;
    }
    Ok(())
}

/// The oldest cursor that pins the journal: of every primary, and of every destination that is worked on. `None` when
/// no location needs anything.
pub fn oldest_cursor(state: &State) -> Option<Lsn> {
    let pins = |role: Role| match role {
        Role::Primary(_) => true,
        // Nothing has been copied, so nothing need be replayed: the cursor jumps when the job starts.
        Role::Destination(job) => state.jobs.get(&job).is_some_and(|j| j.state != JobState::Stopped),
        Role::Left => false,
    };
    state.locations.values().filter(|l| pins(l.role)).map(|l| l.cursor).min()
}
