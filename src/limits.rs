//! What pins the journal, and who has to let go of it (design §4 "Full"). Pure.
//!
//! A location pins what lies behind its cursor. Past the soft limit a secondary lets go: its backlog becomes its dirty
//! set, and its cursor follows the journal from then on. A primary cannot: what it has not carried out is in the
//! journal alone.

use crate::state::{Role, State};
use journal_format::event::JobState;
use journal_format::ids::{JobId, JunctionId, LocationId, Lsn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Primary(JunctionId),
    Secondary(JobId),
}

/// A location, and what it keeps in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub location: LocationId,
    pub who: Who,
    pub cursor: Lsn,
    /// From its cursor to the journal's end.
    pub bytes: u64,
}

/// Every location that pins anything, the one that pins most first.
#[must_use]
pub fn pins(state: &State, end: Lsn) -> Vec<Pin> {
    let mut pins: Vec<Pin> = state
        .locations
        .iter()
        .filter_map(|(id, location)| {
            let who = match location.role {
                Role::Primary(junction) => Who::Primary(junction),
                // Nothing has been copied: its cursor jumps when the job starts.
                Role::Destination(job) if state.jobs.get(&job)?.state == JobState::Stopped => return None,
                Role::Destination(job) => Who::Secondary(job),
                Role::Left => return None,
            };
            let bytes = end.0.saturating_sub(location.cursor.0);
            Some(Pin { location: *id, who, cursor: location.cursor, bytes })
        })
        .collect();
    pins.sort_by_key(|pin| (std::cmp::Reverse(pin.bytes), pin.location));
    pins
}

/// Secondaries whose backlog, up to their junction's settled LSN, has passed the soft limit. (What is not settled they
/// cannot have: that is the primary's.) A switch that is under way ends first: it is over in a moment, or put off.
#[must_use]
pub fn to_let_go(state: &State, settled: impl Fn(JunctionId) -> Lsn, soft_limit: u64) -> Vec<Pin> {
    let mut pins = pins(state, state.lsn);
    pins.retain(|pin| match pin.who {
        Who::Secondary(job) => state.jobs.get(&job).is_some_and(|job| {
            let backlog = settled(job.junction).0.saturating_sub(pin.cursor.0);
            backlog > soft_limit && job.state != JobState::Transitioning
        }),
        Who::Primary(_) => false,
    });
    pins
}
