//! Jobs.

use crate::event::junction::LocationSpec;
use crate::ids::{JobId, JunctionId, LocationId};
use rkyv::{Archive, Deserialize, Serialize};

/// A job was created.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JobCreated {
    /// Its number.
    pub job: JobId,
    /// What it does.
    pub kind: JobKind,
    /// The junction it works on.
    pub junction: JunctionId,
    /// The primary then.
    pub source: LocationId,
    /// The new location.
    pub destination: LocationSpec,
    /// It waits to be started; otherwise it is starting.
    pub stopped: bool,
    /// Free text.
    pub notes: String,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum JobKind {
    /// FlashMove.
    Move,
}

/// A job's state. See the drawing in the service's `state::jobs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub enum JobState {
    /// Waiting to be started.
    Stopped,
    /// Being set up.
    Starting,
    /// Copying, and keeping in step what is copied.
    Moving,
    /// No new files are copied; what is copied is kept in step.
    Paused,
    /// Everything is there and in step.
    Synchronized,
    /// Switching the junction.
    Transitioning,
    /// Done.
    Completed,
    /// Given up for good.
    Aborted,
}

/// A job went from one state to another.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct JobStateChanged {
    /// Which.
    pub job: JobId,
    /// To what.
    pub to: JobState,
    /// Why, for people; empty when it needs no saying.
    pub reason: String,
}
