//! What should run, as a function of State. The supervisor makes it so; a task may die at any line and lose nothing.

use super::{Role, State};
use journal_format::event::JobState;
use journal_format::ids::{JobId, JunctionId, LocationId};
use std::collections::BTreeMap;

/// What should be running now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Locations to be open for clients, and for which junction.
    pub primaries: BTreeMap<LocationId, JunctionId>,
    /// By destination.
    pub replayers: BTreeMap<LocationId, Replayer>,
    /// Jobs whose junction is to be switched: transitioning, and it has not happened.
    pub switches: Vec<JobId>,
    /// Jobs whose junction has been switched and that are to be completed (after tidying up the old primary).
    pub finishes: Vec<JobId>,
}

/// A replayer, with its copier when `copying`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayer {
    /// The destination: its one writer.
    pub location: LocationId,
    pub job: JobId,
    pub junction: JunctionId,
    /// The primary: what copy steps read.
    pub source: LocationId,
    /// New copy steps are wanted; without, only what is copied is kept in step.
    pub copying: bool,
}

pub fn wanted(state: &State) -> Wanted {
    let mut wanted = Wanted::default();
    for (id, location) in &state.locations {
        if let Role::Primary(junction) = location.role {
            wanted.primaries.insert(*id, junction);
        }
    }
    for (id, job) in &state.jobs {
        if job.state == JobState::Transitioning {
            let to = if job.switched.is_some() { &mut wanted.finishes } else { &mut wanted.switches };
            to.push(*id);
        }
        if let Some(replayer) = wanted_replayer(state, *id) {
            wanted.replayers.insert(job.destination, replayer);
        }
    }
    wanted
}

/// What the job's destination wants; `None`: nothing is to be written there.
pub fn wanted_replayer(state: &State, id: JobId) -> Option<Replayer> {
    let job = state.jobs.get(&id)?;
    if job.switched.is_some() {
        // The destination is the primary now; nothing is replayed to it any more.
        return None;
    }
    let copying = match job.state {
        JobState::Stopped | JobState::Completed | JobState::Aborted => return None,
        // While the destination is out of sync nothing new is copied to it.
        JobState::Moving => state.locations.get(&job.destination).is_some_and(|l| l.out_of_sync.is_none()),
        JobState::Starting | JobState::Paused | JobState::Synchronized | JobState::Transitioning => false,
    };
    Some(Replayer { location: job.destination, job: id, junction: job.junction, source: job.source, copying })
}
