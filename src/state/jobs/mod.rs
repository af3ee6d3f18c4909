//! Jobs: their states, which may follow which, and the actions of an operator.

pub mod move_job;

use super::{Job, Progress, Refusal, Role, State, fresh, junctions};
use journal_format::event::{Event, JobCreated, JobKind, JobState, JobStateChanged};
use journal_format::ids::{JobId, Lsn, Time};
use std::collections::BTreeMap;

/// Most jobs in the list. Past it the oldest ended one is forgotten; while none has ended, the next one is refused.
pub const JOBS_MAX: usize = 1_000;
/// Longest notes and longest reason, bytes.
pub const TEXT_MAX: usize = 4096;

/// What an operator can ask of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobAction {
    /// Begin, or go on after a pause.
    Start,
    /// Copy no new files; keep what is copied in step.
    Pause,
    /// Give up for good. What is at the destination stays there.
    Abort,
}

impl JobAction {
    pub const fn name(self) -> &'static str {
        match self {
            JobAction::Start => "start",
            JobAction::Pause => "pause",
            JobAction::Abort => "abort",
        }
    }
}

/// Every state, in the order of a move's life.
pub const STATES: [JobState; 8] = [
    JobState::Stopped,
    JobState::Starting,
    JobState::Moving,
    JobState::Paused,
    JobState::Synchronized,
    JobState::Transitioning,
    JobState::Completed,
    JobState::Aborted,
];

pub const fn name(state: JobState) -> &'static str {
    match state {
        JobState::Stopped => "stopped",
        JobState::Starting => "starting",
        JobState::Moving => "moving",
        JobState::Paused => "paused",
        JobState::Synchronized => "synchronized",
        JobState::Transitioning => "transitioning",
        JobState::Completed => "completed",
        JobState::Aborted => "aborted",
    }
}

pub fn parse_state(text: &str) -> Option<JobState> {
    STATES.into_iter().find(|s| name(*s) == text)
}

/// Whether the state `to` can still come about for a job that is in `from`, itself included.
pub fn can_reach(kind: JobKind, from: JobState, to: JobState) -> bool {
    let mut seen = vec![from];
    let mut at = 0;
    while let Some(state) = seen.get(at).copied() {
        for next in STATES {
            if legal(kind, state, next) && !seen.contains(&next) {
                seen.push(next);
            }
        }
        at += 1;
    }
    seen.contains(&to)
}

/// Which state may follow which.
pub fn legal(kind: JobKind, from: JobState, to: JobState) -> bool {
    match kind {
        JobKind::Move => move_job::legal(from, to),
    }
}

pub(super) fn find(state: &State, job: JobId) -> Result<&Job, Refusal> {
    state.jobs.get(&job).ok_or_else(|| Refusal::new(format!("there is no job {job}"), "'tain job list' shows them"))
}

/// An operator's action.
pub(super) fn act(state: &State, id: JobId, action: JobAction) -> Result<Vec<Event>, Refusal> {
    let job = find(state, id)?;
    let to = match job.kind {
        JobKind::Move => move_job::act(job.state, action),
    };
    match to {
        Ok(to) => Ok(vec![changed_to(id, to, "")]),
        Err(remedy) => {
            let reason = format!("job {id} is {}: it cannot be told to {}", name(job.state), action.name());
            Err(Refusal::new(reason, remedy))
        }
    }
}

/// The supervisor's step.
pub(super) fn to(state: &State, id: JobId, to: JobState, reason: &str) -> Result<Vec<Event>, Refusal> {
    let job = find(state, id)?;
    let reason = clip(reason);
    if job.state == to && job.reason == reason {
        return Ok(Vec::new());
    }
    // Not held against what was decided already: `OutOfSync` races with commands. What it keeps from a switch is that
    // the job goes back to moving, and does not leave that.
    let ahead = to == JobState::Transitioning || (to == JobState::Synchronized && job.state == JobState::Moving);
    if ahead && is_out_of_sync(state, job) {
        return Err(Refusal::new(
            format!("job {id} cannot become {}: its destination is out of sync", name(to)),
            "wait until what it lacks is copied",
        ));
    }
    check_step(job, to).map_err(|what| {
        Refusal::new(format!("job {id} cannot become {}: {what}", name(to)), "look at the job's state again")
    })?;
    Ok(vec![changed_to(id, to, &reason)])
}

/// Reasons are for people: a monstrous one is cut, not refused.
fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

pub(super) fn changed_to(job: JobId, to: JobState, reason: &str) -> Event {
    Event::JobStateChanged(JobStateChanged { job, to, reason: reason.to_owned() })
}

fn is_out_of_sync(state: &State, job: &Job) -> bool {
    state.locations.get(&job.destination).is_some_and(|l| l.out_of_sync.is_some())
}

/// What both `decide` and `apply` hold a step against.
fn check_step(job: &Job, to: JobState) -> Result<(), String> {
    if !legal(job.kind, job.state, to) {
        return Err(format!("it is {}", name(job.state)));
    }
    match (to, job.switched) {
        (JobState::Completed, None) => Err("its junction has not been switched".into()),
        (JobState::Synchronized, Some(_)) => Err("its junction has been switched".into()),
        (
            JobState::Stopped
            | JobState::Starting
            | JobState::Moving
            | JobState::Paused
            | JobState::Synchronized
            | JobState::Transitioning
            | JobState::Completed
            | JobState::Aborted,
            _,
        ) => Ok(()),
    }
}

pub(super) fn created(state: &mut State, e: &JobCreated, end: Lsn, time: Time) -> Result<(), String> {
    let next = fresh("job", e.job.0, &state.next.job)?;
    let next_location = fresh("location", e.destination.location.0, &state.next.location)?;
    let junction = state.junctions.get(&e.junction).ok_or_else(|| format!("junction {} is not there", e.junction))?;
    if junction.primary != e.source {
        return Err(format!("job {} from {}, which is not the primary of {}", e.job, e.source, e.junction));
    }
    if !state.filers.contains_key(&e.destination.filer) {
        return Err(format!("job {} to filer {}, which is not there", e.job, e.destination.filer));
    }
    state.next.job = next;
    state.next.location = next_location;
    let location = junctions::new_location(&e.destination, Role::Destination(e.job), end);
    state.locations.insert(e.destination.location, location);
    let job = Job {
        kind: e.kind,
        junction: e.junction,
        source: e.source,
        destination: e.destination.location,
        state: if e.stopped { JobState::Stopped } else { JobState::Starting },
        reason: String::new(),
        notes: e.notes.clone(),
        created: time,
        ended: None,
        switched: None,
        progress: Progress::default(),
        errors: BTreeMap::new(),
    };
    state.jobs.insert(e.job, job);
    while state.jobs.len() > JOBS_MAX && forget_oldest(state) {}
    Ok(())
}

/// The oldest job that has ended leaves the list, and what only it named is forgotten. `false`: none has ended.
fn forget_oldest(state: &mut State) -> bool {
    let Some(id) = state.jobs.iter().find(|(_, j)| j.state.has_ended()).map(|(id, _)| *id) else { return false };
    if let Some(job) = state.jobs.remove(&id) {
        state.forget_if_unused(job.source);
        state.forget_if_unused(job.destination);
    }
    true
}

pub(super) fn changed(state: &mut State, e: &JobStateChanged, end: Lsn, time: Time) -> Result<(), String> {
    let job = state.jobs.get_mut(&e.job).ok_or_else(|| format!("job {} is not there", e.job))?;
    check_step(job, e.to).map_err(|what| format!("job {} becomes {}, but {what}", e.job, name(e.to)))?;
    let from = job.state;
    job.state = e.to;
    job.reason.clone_from(&e.reason);
    if e.to.has_ended() {
        job.ended = Some(time);
    }
    if from == JobState::Paused && e.to == JobState::Moving {
        // A new attempt: what still fails is reported anew.
        job.errors.clear();
    }
    let destination = job.destination;
    if let Some(location) = state.locations.get_mut(&destination) {
        if from == JobState::Stopped && e.to == JobState::Starting {
            // Nothing was there before, so nothing before this concerns it: a job that waited pins no journal.
            location.cursor = location.cursor.max(end);
        }
        if e.to == JobState::Aborted {
            location.role = Role::Left;
        }
    }
    Ok(())
}

/// What can be asked of a state.
pub trait HasEnded {
    /// Completed or aborted: nothing follows.
    fn has_ended(self) -> bool;
}

impl HasEnded for JobState {
    fn has_ended(self) -> bool {
        match self {
            JobState::Completed | JobState::Aborted => true,
            JobState::Stopped
            | JobState::Starting
            | JobState::Moving
            | JobState::Paused
            | JobState::Synchronized
            | JobState::Transitioning => false,
        }
    }
}
