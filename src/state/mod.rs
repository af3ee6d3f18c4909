//! PURE: the fold of events, and decisions. No I/O, no clock, no randomness; ordered maps only.
//!
//! Per-node state (names, copy progress) is not here but in the index: State stays small however large the trees are,
//! so it can be cloned, and a snapshot of it is one JSON document ([`State::to_json`]).
//!
//! ```text
//!   command ──decide──► events ──journal──► apply ──► State ──wanted──► what should run
//!              │                              │
//!           Refusal (nothing changed)     Contradiction (the journal disagrees with itself: stop)
//! ```
//!
//! Invariants, checked by [`State::check`] in tests and when a snapshot is read:
//! * a junction has exactly one primary, and that location's role says so (I5);
//! * every location of role `Destination(job)` belongs to a job that has not ended;
//! * a location is kept only while a junction uses it or a job names it; numbers are never used again;
//! * the tree holds exactly the directories that lead to a junction, and `/`.
//!
//! [`apply`] is total: it returns an error only for a journal that contradicts itself, and then has changed nothing.
//! Facts that race with a control command (a `Cursor` or `CopyDone` of a replayer whose job was just aborted) are not
//! contradictions: they are let pass. An event about a number that was never given out is one.

mod conflict;
mod copy;
pub mod filers;
pub mod hosts;
pub mod jobs;
pub mod junctions;
pub mod policies;
pub mod positions;
mod snapshot;
pub mod text;
pub mod wanted;

#[cfg(test)]
mod tests;

pub use jobs::JobAction;
pub use snapshot::SnapshotError;
pub use wanted::{Replayer, Wanted, wanted, wanted_replayer};

use journal_format::event::{AccessRule, Event, FilerFound, Host, JobKind, JobState};
use journal_format::ids::{FilerId, Identity, JobId, JunctionId, LocationId, Lsn, NodeId, PolicyId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The fold of every event before `lsn`. A snapshot is its JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Exclusive end of what is folded in.
    pub lsn: Lsn,
    /// Key of the handles' MAC.
    pub handle_key: [u8; 32],
    pub filers: BTreeMap<FilerId, Filer>,
    pub locations: BTreeMap<LocationId, LocationState>,
    pub junctions: BTreeMap<JunctionId, Junction>,
    /// The read-only tree above the junctions; `NodeId(1)` is `/` and always there. Ids grow, and are not used again.
    pub tree: BTreeMap<NodeId, VirtualDir>,
    pub jobs: BTreeMap<JobId, Job>,
    pub policies: BTreeMap<PolicyId, Policy>,
    /// Client hosts that may hold locks, and where they asked for them.
    pub hosts: BTreeMap<Host, hosts::KnownAt>,
    /// How often locks were lost, as hosts are told: odd, and grows.
    pub locks_number: u32,
    /// Next free numbers.
    pub next: Next,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    pub filer: u32,
    pub location: u32,
    pub junction: u32,
    pub job: u32,
    pub virtual_dir: u64,
    pub policy: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Filer {
    pub name: String,
    pub url: String,
    pub root: Vec<u8>,
    pub found: FilerFound,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LocationState {
    pub filer: FilerId,
    pub subdir: Vec<Vec<u8>>,
    /// Identity of the location's root directory.
    pub root: Identity,
    pub role: Role,
    /// Everything before it is durable there, or in its dirty set. Starts at the end of the record that named the
    /// location.
    pub cursor: Lsn,
    /// It fell out of the journal's reach, and is not back yet.
    pub out_of_sync: Option<OutOfSync>,
}

/// Since when a secondary lacks what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfSync {
    /// It held everything before this.
    pub from: Lsn,
    pub since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary(JunctionId),
    /// Destination of a job that has not ended.
    Destination(JobId),
    /// Left behind by a switch, an aborted job or a removed junction: no longer written or read. It is forgotten
    /// (taken out of `locations`) when the last job that names it leaves the list, or at once when no job does.
    Left,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Junction {
    pub path: Vec<Vec<u8>>,
    /// The virtual directory it hangs in.
    pub parent: NodeId,
    /// The one location it points to (I5).
    pub primary: LocationId,
    /// Node of its root.
    pub root: NodeId,
    pub epoch: u64,
    pub added: Time,
    /// Who may; none: the built-in [`policies::LOCAL`].
    pub access: Option<PolicyId>,
    /// Its clients are asked to wait.
    pub suspended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// The first one that covers a client decides; whom none covers is refused.
    pub rules: Vec<AccessRule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VirtualDir {
    /// `/` is its own parent.
    pub parent: NodeId,
    pub children: BTreeMap<Vec<u8>, Child>,
    /// When it last changed.
    pub changed: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Dir(NodeId),
    Junction(JunctionId),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub kind: JobKind,
    pub junction: JunctionId,
    pub source: LocationId,
    pub destination: LocationId,
    pub state: JobState,
    pub reason: String,
    pub notes: String,
    pub created: Time,
    pub ended: Option<Time>,
    /// LSN of `JunctionSwitched` (its record's first byte: everything before it went to the source), once it is there.
    pub switched: Option<Lsn>,
    pub progress: Progress,
    /// Of the newest attempt, by node, at most [`Job::ERRORS_MAX`]; a later success takes one out.
    pub errors: BTreeMap<NodeId, JobError>,
}

impl Job {
    pub const ERRORS_MAX: usize = 256;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub files: u64,
    pub dirs: u64,
    pub bytes: u64,
    pub ranges: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    pub path: Vec<u8>,
    pub error: String,
    pub fatal: bool,
    pub time: Time,
}

/// What control and the supervisor ask for. Everything that takes I/O, a clock or chance (identities, what a probe
/// found, new node ids, the canonical URL) was resolved before and is passed in.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    AddFiler {
        name: String,
        /// Canonical.
        url: String,
        /// Identity of the export's root.
        root: Vec<u8>,
        found: FilerFound,
    },
    RemoveFiler {
        name: String,
    },
    AddJunction {
        /// Names from `/` down.
        path: Vec<Vec<u8>>,
        /// Name of the filer.
        filer: String,
        subdir: Vec<Vec<u8>>,
        /// Identity of the directory it leads to.
        root: Identity,
        /// The new node that directory becomes.
        node: NodeId,
        mtime: Time,
        ctime: Time,
        /// Name of its policy.
        access: Option<String>,
    },
    /// By its number: at its path there may be another one by now.
    RemoveJunction {
        junction: JunctionId,
    },
    /// Change what is given.
    ModifyJunction {
        junction: JunctionId,
        /// Name of a policy.
        access: Option<String>,
        suspended: Option<bool>,
    },
    AddPolicy {
        name: String,
        rules: Vec<AccessRule>,
    },
    /// Other rules.
    ModifyPolicy {
        name: String,
        rules: Vec<AccessRule>,
    },
    RemovePolicy {
        name: String,
    },
    CreateMove {
        /// The junction's path.
        source: Vec<Vec<u8>>,
        /// Name of the destination's filer.
        filer: String,
        subdir: Vec<Vec<u8>>,
        /// Identity of the destination directory.
        root: Identity,
        notes: String,
        /// Leave it waiting.
        stopped: bool,
    },
    JobAction {
        job: JobId,
        action: JobAction,
    },
    /// Internal: the supervisor reports where a job has come to. The state it is in already, with the reason it has
    /// already, is no event.
    JobTo {
        job: JobId,
        state: JobState,
        reason: String,
    },
    /// Internal: the one event of a switch (I5). The job must be transitioning; `JobTo` completed comes after it.
    SwitchJunction {
        job: JobId,
    },
}

/// Why a command cannot be obeyed, and what to do. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// The journal says what cannot be after what it said before. Fail stop: State was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal contradicts itself at LSN {lsn}: {what}")]
pub struct Contradiction {
    /// First byte of the record.
    pub lsn: Lsn,
    pub what: String,
}

/// `/`.
pub const ROOT_DIR: NodeId = NodeId(1);

impl Default for State {
    fn default() -> Self {
        let root = VirtualDir { parent: ROOT_DIR, children: BTreeMap::new(), changed: Time(0) };
        Self {
            lsn: Lsn(0),
            handle_key: [0; 32],
            filers: BTreeMap::new(),
            locations: BTreeMap::new(),
            junctions: BTreeMap::new(),
            tree: BTreeMap::from([(ROOT_DIR, root)]),
            jobs: BTreeMap::new(),
            policies: BTreeMap::new(),
            hosts: BTreeMap::new(),
            locks_number: 1,
            next: Next::default(),
        }
    }
}

impl Default for Next {
    fn default() -> Self {
        // 0 is no junction, and no number of anything else; `/` has the first directory's.
        Self { filer: 1, location: 1, junction: 1, job: 1, virtual_dir: ROOT_DIR.0 + 1, policy: 1 }
    }
}

/// Fold one record in: `lsn` its first byte, `end` its exclusive end.
pub fn apply(state: &mut State, lsn: Lsn, end: Lsn, time: Time, event: &Event) -> Result<(), Contradiction> {
    fold(state, lsn, end, time, event).map_err(|what| Contradiction { lsn, what })?;
    state.lsn = end;
    Ok(())
}

fn fold(state: &mut State, lsn: Lsn, end: Lsn, time: Time, event: &Event) -> Result<(), String> {
    if lsn < state.lsn {
        return Err(format!("everything before {} is folded in already", state.lsn));
    }
    if end <= lsn {
        return Err(format!("a record that ends at {end}"));
    }
    match event {
        // Nodes are the index's.
        Event::Write(_)
        | Event::SetAttr(_)
        | Event::Make(_)
        | Event::Remove(_)
        | Event::Rename(_)
        | Event::Link(_)
        | Event::Adopt(_)
        | Event::Failed(_)
        | Event::Partial(_)
        | Event::Made(_) => Ok(()),
        // Orders, answered by `CopyDone`; the projection knows them.
        Event::ListBegin(_) | Event::CopyRange(_) => Ok(()),
        Event::Durable(_) => Ok(()),
        Event::FilerAdded(e) => filers::added(state, e),
        Event::FilerRemoved(e) => filers::removed(state, e),
        Event::JunctionAdded(e) => junctions::added(state, e, end, time),
        Event::JunctionRemoved(e) => junctions::removed(state, e, time),
        Event::JunctionModified(e) => policies::junction_modified(state, e),
        Event::PolicySet(e) => policies::was_set(state, e),
        Event::PolicyRemoved(e) => policies::removed(state, e),
        Event::HostMonitored(e) => hosts::monitored(state, e),
        Event::HostForgotten(e) => hosts::forgotten(state, e),
        Event::LocksLost(e) => hosts::lost(state, e),
        Event::JunctionSwitched(e) => junctions::switched(state, e, lsn),
        Event::JobCreated(e) => jobs::created(state, e, end, time),
        Event::JobStateChanged(e) => jobs::changed(state, e, end, time),
        Event::Listed(e) => copy::listed(state, e),
        Event::CopyDone(e) => copy::done(state, e, time),
        Event::Cursor(e) => positions::cursor(state, e, lsn),
        Event::OutOfSync(e) => positions::out_of_sync(state, e, lsn, time),
        Event::InSync(e) => positions::in_sync(state, e),
        Event::JournalCreated(e) => {
            if state.handle_key != [0; 32] {
                return Err("the journal was created already".into());
            }
            state.handle_key = e.handle_key;
            if let Some(root) = state.tree.get_mut(&ROOT_DIR) {
                root.changed = time;
            }
            Ok(())
        }
    }
}

/// The events that obey the command, or why it cannot be obeyed. The events, folded, are never a contradiction.
pub fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Refusal> {
    match command {
        Command::AddFiler { name, url, root, found } => filers::add(state, name, url, root, *found),
        Command::RemoveFiler { name } => filers::remove(state, name),
        Command::AddJunction { path, filer, subdir, root, node, mtime, ctime, access } => {
            let at = conflict::Place { filer, subdir, root };
            junctions::add(state, path, &at, *node, (*mtime, *ctime), access.as_deref())
        }
        Command::RemoveJunction { junction } => junctions::remove(state, *junction),
        Command::ModifyJunction { junction, access, suspended } => {
            policies::modify_junction(state, *junction, access.as_deref(), *suspended)
        }
        Command::AddPolicy { name, rules } => policies::add(state, name, rules),
        Command::ModifyPolicy { name, rules } => policies::modify(state, name, rules),
        Command::RemovePolicy { name } => policies::remove(state, name),
        Command::CreateMove { source, filer, subdir, root, notes, stopped } => {
            let to = conflict::Place { filer, subdir, root };
            jobs::move_job::create(state, source, &to, notes, *stopped)
        }
        Command::JobAction { job, action } => jobs::act(state, *job, *action),
        Command::JobTo { job, state: to, reason } => jobs::to(state, *job, *to, reason),
        Command::SwitchJunction { job } => jobs::move_job::switch(state, *job),
    }
}

impl State {
    pub fn filer_by_name(&self, name: &str) -> Option<(FilerId, &Filer)> {
        self.filers.iter().find(|(_, f)| f.name == name).map(|(id, f)| (*id, f))
    }

    pub fn policy_by_name(&self, name: &str) -> Option<(PolicyId, &Policy)> {
        self.policies.iter().find(|(_, p)| p.name == name).map(|(id, p)| (*id, p))
    }

    /// The name of a junction's policy.
    pub fn policy_name(&self, junction: &Junction) -> &str {
        let policy = junction.access.and_then(|id| self.policies.get(&id));
        policy.map_or(policies::LOCAL, |policy| &policy.name)
    }

    pub fn junction_by_path(&self, path: &[Vec<u8>]) -> Option<(JunctionId, &Junction)> {
        self.junctions.iter().find(|(_, j)| j.path == path).map(|(id, j)| (*id, j))
    }

    /// `filer:/sub/dir`, for people; a filer that is gone by its number.
    pub fn location_name(&self, id: LocationId) -> String {
        self.locations.get(&id).map_or_else(|| id.to_string(), |l| self.place_name(l.filer, &l.subdir))
    }

    pub(crate) fn place_name(&self, filer: FilerId, subdir: &[Vec<u8>]) -> String {
        let filer = self.filers.get(&filer).map_or_else(|| filer.to_string(), |f| f.name.clone());
        format!("{filer}:{}", text::path(subdir))
    }

    /// The job that has moved away from there, and still takes away what tain kept: until it has ended nobody else may use
    /// the place.
    pub fn tidied_by(&self, id: LocationId) -> Option<JobId> {
        let tidies = |job: &Job| job.source == id && job.switched.is_some() && job.state == JobState::Transitioning;
        self.jobs.iter().find(|(_, job)| tidies(job)).map(|(id, _)| *id)
    }

    /// Take a location out that nothing runs on and no job names any more.
    fn forget_if_unused(&mut self, id: LocationId) {
        let left = self.locations.get(&id).is_some_and(|l| l.role == Role::Left);
        let named = self.jobs.values().any(|j| j.source == id || j.destination == id);
        if left && !named {
            self.locations.remove(&id);
        }
    }
}

/// A number that may be given out now: never one that was given out before.
fn fresh(what: &str, id: u32, next: &u32) -> Result<u32, String> {
    if id < *next {
        return Err(format!("{what} {id} was given out before"));
    }
    id.checked_add(1).ok_or_else(|| format!("{what} {id} leaves no number for the next"))
}
