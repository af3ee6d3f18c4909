//! FlashMove.
//!
//! ```text
//!                          ┌──────────── start ───────────┐
//!                          ▼                              │
//! stopped ─► starting ─► moving ◄── copied again ──┐      │
//!   start       │         │  │                     │      │
//!               │         │  └─ pause, errors ──► paused ◄┴─ pause ─┐
//!               └─ error ─┼──────────────────────► │                 │
//!                         ▼                                          │
//!                    synchronized ───────────────────────────────────┘
//!                      │      ▲
//!                      ▼      │ the switch was put off
//!                   transitioning ══ JunctionSwitched ══► completed
//!
//! any that has not ended, and is not transitioning ── abort ─► aborted
//! ```
//!
//! A job cannot be aborted while it transitions: the instant of the switch may have passed.

use super::super::conflict::{Place, refuse_overlap};
use super::super::{Refusal, State, junctions, text};
use super::{HasEnded, JOBS_MAX, JobAction, TEXT_MAX, find, name};
use journal_format::event::{Event, JobCreated, JobKind, JobState, JunctionSwitched, LocationSpec};
use journal_format::ids::{JobId, LocationId};

/// The drawing as a function.
pub(super) const fn legal(from: JobState, to: JobState) -> bool {
    use JobState::{Aborted, Completed, Moving, Paused, Starting, Stopped, Synchronized, Transitioning};
    match (from, to) {
        (Stopped, Starting | Aborted)
        | (Starting, Moving | Paused | Aborted)
        | (Moving, Paused | Synchronized | Aborted)
        | (Paused, Moving | Aborted)
        // A file may turn out to be missing after all.
        | (Synchronized, Moving | Paused | Transitioning | Aborted)
        | (Transitioning, Synchronized | Completed) => true,
        (Stopped, Stopped | Moving | Paused | Synchronized | Transitioning | Completed)
        | (Starting, Stopped | Starting | Synchronized | Transitioning | Completed)
        | (Moving, Stopped | Starting | Moving | Transitioning | Completed)
        | (Paused, Stopped | Starting | Paused | Synchronized | Transitioning | Completed)
        | (Synchronized, Stopped | Starting | Synchronized | Completed)
        | (Transitioning, Stopped | Starting | Moving | Paused | Transitioning | Aborted) => false,
        (Completed | Aborted, Stopped | Starting | Moving | Paused | Synchronized | Transitioning | Completed | Aborted) => {
            false
        }
    }
}

/// The state that an action leads to, or what to do instead.
pub(super) const fn act(from: JobState, action: JobAction) -> Result<JobState, &'static str> {
    use JobState::{Aborted, Completed, Moving, Paused, Starting, Stopped, Synchronized, Transitioning};
    match (from, action) {
        (Stopped, JobAction::Start) => Ok(Starting),
        (Paused, JobAction::Start) => Ok(Moving),
        (Starting | Moving | Synchronized | Transitioning, JobAction::Start) => Err("it is running: nothing is to do"),
        (Starting | Moving | Synchronized, JobAction::Pause) => Ok(Paused),
        (Stopped | Paused, JobAction::Pause) => Err("it is not copying: nothing is to do"),
        (Transitioning, JobAction::Pause) => Err("wait: the switch is under way"),
        (Stopped | Starting | Moving | Paused | Synchronized, JobAction::Abort) => Ok(Aborted),
        (Transitioning, JobAction::Abort) => Err("wait: the switch is under way"),
        (Completed | Aborted, JobAction::Start | JobAction::Pause | JobAction::Abort) => {
            Err("it has ended: create another job")
        }
    }
}

pub(in super::super) fn create(
    state: &State,
    source: &[Vec<u8>],
    to: &Place<'_>,
    notes: &str,
    stopped: bool,
) -> Result<Vec<Event>, Refusal> {
    let (junction, it) = junctions::find(state, source)?;
    let path = text::path(source);
    if let Some((job, other)) = state.jobs.iter().find(|(_, j)| j.junction == junction && !j.state.has_ended()) {
        return Err(Refusal::new(
            format!("junction {path} is the source of job {job} already, which is {}", name(other.state)),
            format!("wait for it, or abort it: tain job abort {job}"),
        ));
    }
    let (filer, _) = to.resolve(state)?;
    refuse_overlap(state, filer, to, Some(it.primary))?;
    if notes.len() > TEXT_MAX {
        return Err(Refusal::new(format!("the notes are longer than {TEXT_MAX} bytes"), "shorten them"));
    }
    if state.jobs.len() >= JOBS_MAX && !state.jobs.values().any(|j| j.state.has_ended()) {
        return Err(Refusal::new(
            format!("there are {JOBS_MAX} jobs, and none has ended"),
            "wait for one, or abort one",
        ));
    }
    let destination = LocationSpec {
        location: LocationId(state.next.location),
        filer,
        subdir: to.subdir.to_vec(),
        root: to.root.clone(),
    };
    let job = JobId(state.next.job);
    // One event: a job that should start is never found stopped after a crash.
    let created = JobCreated {
        job,
        kind: JobKind::Move,
        junction,
        source: it.primary,
        destination,
        stopped,
        notes: notes.into(),
    };
    Ok(vec![Event::JobCreated(created)])
}

pub(in super::super) fn switch(state: &State, id: JobId) -> Result<Vec<Event>, Refusal> {
    let job = find(state, id)?;
    if job.state != JobState::Transitioning {
        return Err(Refusal::new(
            format!("job {id} is {}, not transitioning", name(job.state)),
            "look at the job's state again",
        ));
    }
    if job.switched.is_some() {
        return Err(Refusal::new(format!("job {id} has switched its junction"), "complete the job"));
    }
    if super::is_out_of_sync(state, job) {
        return Err(Refusal::new(
            format!("the destination of job {id} is out of sync"),
            "wait until what it lacks is copied",
        ));
    }
    let Some(junction) = state.junctions.get(&job.junction) else {
        return Err(Refusal::new(format!("the junction of job {id} is not there"), "abort the job"));
    };
    let event = JunctionSwitched {
        junction: job.junction,
        job: id,
        from: junction.primary,
        to: job.destination,
        epoch: junction.epoch.saturating_add(1),
    };
    Ok(vec![Event::JunctionSwitched(event)])
}
