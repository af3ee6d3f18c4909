//! Makes what runs equal what State wants.
//!
//! One loop looks at [`wanted()`] and sees to it that somebody looks after each location and job that wants it. It
//! never waits for a filer itself: each of these is a task of its own, so that a filer that hangs holds up what needs
//! this filer, and nothing else.
//!
//! | task                           | does                                                                             |
//! | ------------------------------ | -------------------------------------------------------------------------------- |
//! | [`primary::look_after`]        | opens a primary and redoes it from its cursor before clients reach it; closes it when its junction is gone |
//! | [`destination::Keeper`]        | one for each job: replayer, copier, the job's steps, the switch                   |
//! | [`finish::finish`]             | leaves the old side of a switched job as it was at the switch; ends the job       |
//!
//! Each may be dropped at any line: what it has done is in the journal, and the next start goes on from there. A task
//! ends when State no longer wants it; one that hangs in a filer's call cannot end, and nothing else is begun for its
//! location until it does: a call that is still under way must not take effect among those of a later life.

mod destination;
mod finish;
mod primary;
#[cfg(test)]
mod tests;

use crate::core::Core;
use crate::replayer::Status;
use crate::state::wanted;
use journal_format::ids::{JobId, LocationId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often a location that is down is tried again, and jobs are looked at without State having moved.
const RETRY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// A location that has not come up after this time is shown as down, while it is still waited for.
const SLOW: Duration = Duration::from_secs(5);
/// How long tasks may take to end at stop; a call that hangs in a filer is left behind then.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What the operator sees of running jobs.
#[derive(Default)]
pub struct Board {
    statuses: Mutex<BTreeMap<LocationId, Status>>,
    down: Mutex<BTreeMap<LocationId, String>>,
    /// Length of the last switch's hold, by job.
    holds: Mutex<BTreeMap<JobId, Duration>>,
    /// Why a destination's store is dead.
    dead: Mutex<Option<String>>,
    /// Why the last checkpoint failed.
    checkpoint: Mutex<Option<String>>,
}

impl Board {
    /// There is one from before the destination's replayer starts until it has ended.
    pub fn replayer(&self, location: LocationId) -> Option<Status> {
        self.statuses.lock().get(&location).cloned()
    }
    /// Locations that cannot be reached, and why.
    pub fn down(&self) -> BTreeMap<LocationId, String> {
        self.down.lock().clone()
    }
    pub fn hold(&self, job: JobId) -> Option<Duration> {
        self.holds.lock().get(&job).copied()
    }

    /// Why the last checkpoint failed: until one succeeds the journal keeps everything.
    pub fn checkpoint_failed(&self) -> Option<String> {
        self.checkpoint.lock().clone()
    }
    /// What is said of the last checkpoint.
    pub fn checkpoint(&self, failed: Option<String>) {
        *self.checkpoint.lock() = failed;
    }

    /// Why a destination's part of the index cannot be used any more, before another start.
    pub fn index_failed(&self) -> Option<String> {
        self.dead.lock().clone()
    }

    fn is_up(&self, location: LocationId) {
        self.down.lock().remove(&location);
    }

    fn is_down(&self, location: LocationId, why: &str) {
        if self.down.lock().insert(location, why.to_owned()).as_deref() != Some(why) {
            tracing::error!(%location, error = why, "the location is down; it is tried again every {RETRY:?}");
        }
    }

    /// `work`, for which the location must answer; when it takes long it is shown as down. By a task of its own: bulk work
    /// may block the one that waits for it.
    async fn watched<T>(self: &Arc<Self>, location: LocationId, what: &str, work: impl Future<Output = T>) -> T {
        let (board, over) = (self.clone(), Arc::new(Mutex::new(false)));
        let why = format!("{what} takes long: its filer does not answer, or there is much to do");
        let _watch = Watch {
            over: over.clone(),
            task: tokio::spawn(async move {
                tokio::time::sleep(SLOW).await;
                let over = over.lock();
                if !*over {
                    board.is_down(location, &why);
                }
            }),
        };
        work.await
    }
}

/// When it is dropped nothing more is said.
struct Watch {
    over: Arc<Mutex<bool>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.over.lock() = true;
        self.task.abort();
    }
}

/// Who looks after what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Primary(LocationId),
    Destination(LocationId),
    Finish(JobId),
}

pub struct Supervisor {
    core: Core,
    board: Arc<Board>,
    tasks: BTreeMap<Task, JoinHandle<()>>,
    /// Bound: as many as tasks.
    again_at: BTreeMap<Task, Instant>,
}

impl Supervisor {
    #[must_use]
    pub fn new(core: Core, board: Arc<Board>) -> Self {
        Self { core, board, tasks: BTreeMap::new(), again_at: BTreeMap::new() }
    }

    /// Run until `stop` says so; then end what runs, as far as it can be ended.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            self.look(&stop);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        let until = Instant::now() + STOP_MAX;
        for (task, handle) in &mut self.tasks {
            if tokio::time::timeout_at(until, &mut *handle).await.is_err() {
                handle.abort();
                tracing::warn!(?task, "still waits for its filer at stop: left as it is, the journal knows what to do");
            }
        }
    }

    /// Begin what is wanted and not there; clear away what has ended.
    fn look(&mut self, stop: &watch::Receiver<bool>) {
        let state = self.core.ledger.state();
        let wanted = wanted(&state);
        let ended: Vec<Task> = self.tasks.iter().filter(|(_, task)| task.is_finished()).map(|(id, _)| *id).collect();
        for task in ended {
            self.tasks.remove(&task);
            // A task that ended although it is wanted (a panic of ours) is begun again, but not in a tight loop.
            self.again_at.insert(task, Instant::now() + RETRY);
        }
        self.again_at.retain(|_, at| *at > Instant::now());
        for (location, junction) in &wanted.primaries {
            let task = Task::Primary(*location);
            if self.is_free(task) {
                let (core, board, stop) = (self.core.clone(), self.board.clone(), stop.clone());
                self.begin(task, primary::look_after(core, board, *junction, *location, stop));
            }
        }
        for replayer in wanted.replayers.values() {
            let task = Task::Destination(replayer.location);
            if self.is_free(task) {
                let keeper = destination::Keeper::new(self.core.clone(), self.board.clone(), *replayer, stop.clone());
                self.begin(task, keeper.run());
            }
        }
        for job in wanted.finishes {
            let task = Task::Finish(job);
            if self.is_free(task) {
                self.begin(task, finish::finish(self.core.clone(), job));
            }
        }
        self.board.holds.lock().retain(|job, _| state.jobs.contains_key(job));
        self.board.down.lock().retain(|id, _| state.locations.contains_key(id));
    }

    fn is_free(&self, task: Task) -> bool {
        !self.tasks.contains_key(&task) && !self.again_at.contains_key(&task)
    }

    fn begin(&mut self, task: Task, work: impl Future<Output = ()> + Send + 'static) {
        let work = tokio::spawn(work);
        self.tasks.insert(task, work);
    }
}

/// Cancel a task and wait until it is gone. Who gives up waiting still has it.
async fn end(task: &mut Option<JoinHandle<()>>) {
    let Some(running) = task else { return };
    running.abort();
    if let Err(error) = running.await
        && error.is_panic()
    {
        tracing::error!(%error, "a task of a job panicked");
    }
    *task = None;
}
