//! Makes what runs equal what State wants.
//!
//! One loop looks at [`wanted()`] whenever State moves: it opens primaries (redoing each from its cursor before clients
//! reach it), starts and stops replayers and copiers, and takes jobs from one state to the next. Everything it starts
//! may be dropped at any line: what it has done is in the journal, and the next start goes on from there.

use crate::checkpoint;
use crate::copier::{Copier, Directories};
use crate::core::{Core, Error, Result, open_later, open_location};
use crate::filer::{self, ErrorKind};
use crate::ledger::CommandError;
use crate::limits::{self, Pin};
use crate::location::copy::Source;
use crate::location::projection::Projection;
use crate::location::redo::{self, Redone};
use crate::location::{Location, View};
use crate::replayer::{Handle, Replayer, Status};
use crate::state::{self, Command, Job, State, wanted};
use crate::switch::Switch;
use crate::volume::Status as NfsStatus;
use async_trait::async_trait;
use journal_format::event::{Event, Failed, JobState, Made, OutOfSync, Remove};
use journal_format::ids::{JobId, JunctionId, LocationId, Lsn, NodeId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often a location that is down is tried again, and jobs are looked at without State having moved.
const RETRY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// How long a destination's filer may take to be reached.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// A secondary that is to let go of the journal is told so again.
const PRESS_AGAIN: Duration = Duration::from_secs(1);
/// A job pauses past so many file errors (design §7).
const ERRORS_MAX: usize = 200;
/// A switch that was put off is tried again so much later.
const SWITCH_AGAIN: Duration = Duration::from_millis(500);

/// What runs for a destination.
struct Running {
    wanted: state::Replayer,
    location: Arc<Location>,
    source: Arc<Location>,
    projection: Projection,
    handle: Handle,
    replayer: JoinHandle<()>,
    copier: Option<JoinHandle<()>>,
    switch_after: Instant,
    press_after: Instant,
}

impl Running {
    async fn stop(mut self) {
        self.stop_copier().await;
        end(&mut self.replayer).await;
    }

    async fn stop_copier(&mut self) {
        if let Some(mut copier) = self.copier.take() {
            end(&mut copier).await;
        }
    }
}

/// Cancel a task and wait until it is gone.
async fn end(task: &mut JoinHandle<()>) {
    task.abort();
    if let Err(error) = task.await
        && error.is_panic()
    {
        tracing::error!(%error, "a task of a job panicked");
    }
}

/// What the operator sees of running jobs.
#[derive(Default)]
pub struct Board {
    statuses: Mutex<BTreeMap<LocationId, Status>>,
    down: Mutex<BTreeMap<LocationId, String>>,
    /// Length of the last switch's hold, by job.
    holds: Mutex<BTreeMap<JobId, Duration>>,
}

impl Board {
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
}

pub struct Supervisor {
    core: Core,
    board: Arc<Board>,
    running: BTreeMap<LocationId, Running>,
    retry_at: BTreeMap<LocationId, Instant>,
    /// Primaries that are being opened and redone.
    opening: BTreeMap<LocationId, JoinHandle<Result<()>>>,
    /// Destinations that are being opened.
    reaching: BTreeMap<LocationId, JoinHandle<Result<Arc<Location>>>>,
}

impl Supervisor {
    #[must_use]
    pub fn new(core: Core, board: Arc<Board>) -> Self {
        Self {
            core,
            board,
            running: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            opening: BTreeMap::new(),
            reaching: BTreeMap::new(),
        }
    }

    /// Run until `stop` says so; then end what runs.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) {
        let mut changed = self.core.ledger.changed();
        loop {
            drop(changed.borrow_and_update());
            if let Err(error) = self.look().await {
                tracing::error!(%error, "the supervisor could not do all that is wanted");
                if matches!(error, Error::Journal(_)) {
                    return;
                }
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.opening.values().for_each(JoinHandle::abort);
        for (_, running) in std::mem::take(&mut self.running) {
            running.stop().await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let wanted = wanted(&self.core.ledger.state());
        let primaries: BTreeSet<LocationId> = wanted.primaries.keys().copied().collect();
        for (location, junction) in &wanted.primaries {
            self.bring_up(*junction, *location).await?;
        }
        self.stop_unwanted(&wanted).await;
        for wanted in wanted.replayers.values() {
            self.keep_running(wanted, &primaries).await?;
        }
        self.let_go().await?;
        for job in wanted.finishes {
            self.to(job, JobState::Completed, "").await?;
        }
        self.advance().await
    }

    /// A primary in a task of its own: one that hangs holds up no other, and is tried once at a time.
    async fn bring_up(&mut self, junction: JunctionId, location: LocationId) -> Result<()> {
        if self.core.locations.get(location).is_some() && !self.opening.contains_key(&location) {
            return Ok(());
        }
        let is_new = !self.opening.contains_key(&location);
        if is_new {
            if !self.is_time(location) {
                return Ok(());
            }
            let core = self.core.clone();
            self.opening.insert(location, tokio::spawn(async move { bring_up(&core, junction, location).await }));
        }
        let Some(mut task) = self.opening.remove(&location) else { return Ok(()) };
        let patience = if is_new { OPEN_MAX } else { Duration::ZERO };
        let up = match tokio::time::timeout(patience, &mut task).await {
            Ok(Ok(up)) => up,
            Ok(Err(panic)) => Err(Error::Other(panic.to_string())),
            Err(_) => {
                self.opening.insert(location, task);
                let waits = format!("its filer does not answer within {OPEN_MAX:?}");
                self.board.down.lock().entry(location).or_insert(waits);
                return Ok(());
            }
        };
        self.noted(location, up).map(drop)
    }

    fn is_time(&self, location: LocationId) -> bool {
        self.retry_at.get(&location).is_none_or(|at| *at <= Instant::now())
    }

    /// A location that cannot be reached is tried again later; only the journal's end ends everything.
    fn noted<T>(&mut self, location: LocationId, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => {
                self.board.down.lock().remove(&location);
                self.retry_at.remove(&location);
                Ok(Some(value))
            }
            Err(error @ Error::Journal(_)) => Err(error),
            Err(error) => {
                let text = error.to_string();
                if self.board.down.lock().insert(location, text.clone()).as_deref() != Some(text.as_str()) {
                    tracing::error!(%location, error = text, "the location is down; it is tried again every {RETRY:?}");
                }
                self.retry_at.insert(location, Instant::now() + RETRY);
                Ok(None)
            }
        }
    }

    async fn stop_unwanted(&mut self, wanted: &state::Wanted) {
        let gone: Vec<LocationId> =
            self.running.keys().filter(|id| !wanted.replayers.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(running) = self.running.remove(&id) {
                running.stop().await;
            }
            self.board.statuses.lock().remove(&id);
        }
        // What was opened for a junction that is gone meanwhile is closed again.
        let is_stale =
            |id: LocationId, task: &JoinHandle<Result<()>>| task.is_finished() && !wanted.primaries.contains_key(&id);
        let stale: Vec<LocationId> =
            self.opening.iter().filter(|(id, task)| is_stale(**id, task)).map(|(id, _)| *id).collect();
        for id in stale {
            self.opening.remove(&id);
            self.core.locations.remove(id);
        }
        let state = self.core.ledger.state();
        self.reaching.retain(|id, task| wanted.replayers.contains_key(id) || !task.is_finished());
        self.board.holds.lock().retain(|job, _| state.jobs.contains_key(job));
        self.board.down.lock().retain(|id, _| state.locations.contains_key(id));
    }

    async fn keep_running(&mut self, wanted: &state::Replayer, primaries: &BTreeSet<LocationId>) -> Result<()> {
        let ended = self.running.get(&wanted.location).is_some_and(|running| running.replayer.is_finished());
        if ended && let Some(running) = self.running.remove(&wanted.location) {
            running.stop().await; // a panic: start afresh from the last commit
        }
        if !self.running.contains_key(&wanted.location) {
            let Some(source) = self.core.locations.get(wanted.source).filter(|s| primaries.contains(&s.id)) else {
                return Ok(()); // the primary first
            };
            if !self.is_time(wanted.location) {
                return Ok(());
            }
            let started = self.start(wanted, source).await;
            if let Some(running) = self.noted(wanted.location, started)? {
                self.running.insert(wanted.location, running);
            }
        }
        if let Some(running) = self.running.get_mut(&wanted.location) {
            running.wanted = *wanted;
            self.board.statuses.lock().insert(wanted.location, running.handle.status.borrow().clone());
            match (&running.copier, wanted.copying) {
                (Some(copier), true) if copier.is_finished() => running.stop_copier().await,
                (None, true) => running.copier = Some(tokio::spawn(copier(&self.core, running).run())),
                (Some(_), false) => running.stop_copier().await,
                _ => {}
            }
        }
        Ok(())
    }

    async fn start(&mut self, wanted: &state::Replayer, source: Arc<Location>) -> Result<Running> {
        let state = self.core.ledger.state();
        let is_out = state.locations.get(&wanted.location).is_some_and(|l| l.out_of_sync.is_some());
        let location = match self.reach(&state, wanted.location).await {
            // The journal must not wait for it: its backlog goes to the dirty set, and its filer is reached when it can be.
            Err(Error::Filer(_)) if is_out => open_later(&self.core, &state, wanted.location).await?,
            reached => reached?,
        };
        let start = state.locations.get(&wanted.location).map_or(Lsn(0), |l| l.cursor);
        let projection = Projection {
            store: location.objects.store.clone(),
            objects: location.objects.clone(),
            location: wanted.location,
            junction: wanted.junction,
        };
        projection.begin(location.root, start)?;
        let from = Source { location: source.clone(), live: self.core.live.clone() };
        let replayer =
            Replayer::new(self.core.ledger.clone(), location.clone(), projection.clone(), from, wanted.job, start);
        let handle = replayer.handle();
        let replayer = tokio::spawn(replayer.run());
        let now = Instant::now();
        let (copier, switch_after, press_after) = (None, now, now);
        Ok(Running {
            wanted: *wanted,
            location,
            source,
            projection,
            handle,
            replayer,
            copier,
            switch_after,
            press_after,
        })
    }

    /// Open a destination, one try at a time: a call that hangs holds a thread, and there must not be more and more.
    async fn reach(&mut self, state: &Arc<State>, id: LocationId) -> Result<Arc<Location>> {
        let (mut task, patience) = match self.reaching.remove(&id) {
            Some(task) => (task, Duration::ZERO),
            None => {
                let (core, state) = (self.core.clone(), state.clone());
                (tokio::spawn(async move { open_location(&core, &state, id).await }), OPEN_MAX)
            }
        };
        match tokio::time::timeout(patience, &mut task).await {
            Ok(Ok(reached)) => reached,
            Ok(Err(panic)) => Err(Error::Other(panic.to_string())),
            Err(_) => {
                self.reaching.insert(id, task);
                let what = format!("its filer does not answer within {OPEN_MAX:?}");
                Err(filer::Error::new(ErrorKind::Unknown, "open", what).into())
            }
        }
    }

    /// The soft limit: a secondary whose backlog has passed it goes out of sync and lets go of the journal.
    async fn let_go(&mut self) -> Result<()> {
        let ledger = &self.core.ledger;
        let (state, soft_limit) = (ledger.state(), ledger.journal.soft_limit());
        let settled = |junction| ledger.settled_lsn(junction).min(ledger.journal.durable_lsn());
        for Pin { location, cursor, bytes, .. } in limits::to_let_go(&state, settled, soft_limit) {
            if state.locations.get(&location).is_some_and(|l| l.out_of_sync.is_none()) {
                tracing::warn!(%location, %cursor, bytes, "the journal's soft limit: the secondary goes out of sync");
                ledger.record(&Event::OutOfSync(OutOfSync { location, from: cursor })).await?;
            }
            if let Some(running) = self.running.get_mut(&location)
                && running.press_after <= Instant::now()
            {
                running.press_after = Instant::now() + PRESS_AGAIN;
                running.handle.press();
            }
        }
        Ok(())
    }

    /// Take each job a step further, when it is time.
    async fn advance(&mut self) -> Result<()> {
        let ids: Vec<LocationId> = self.running.keys().copied().collect();
        for id in ids {
            let Some(running) = self.running.get(&id) else { continue };
            let state = self.core.ledger.state();
            let Some(job) = state.jobs.get(&running.wanted.job) else { continue };
            match job.state {
                JobState::Starting => self.to(running.wanted.job, JobState::Moving, "").await?,
                JobState::Moving => self.moving(running, job).await?,
                JobState::Synchronized => self.synchronized(id).await?,
                JobState::Transitioning => self.transition(id).await?,
                JobState::Stopped | JobState::Paused | JobState::Completed | JobState::Aborted => {}
            }
        }
        Ok(())
    }

    async fn moving(&self, running: &Running, job: &Job) -> Result<()> {
        let id = running.wanted.job;
        let status = running.handle.status.borrow().clone();
        if let Some(trouble) = &status.error
            && matches!(
                trouble.kind,
                Some(ErrorKind::NoSpace | ErrorKind::Quota | ErrorKind::ReadOnly | ErrorKind::Down)
            )
        {
            return self.to(id, JobState::Paused, &format!("the destination: {}", trouble.text)).await;
        }
        if job.errors.len() > ERRORS_MAX {
            let reason = format!("more than {ERRORS_MAX} objects could not be copied; see the job's errors");
            return self.to(id, JobState::Paused, &reason).await;
        }
        let pending = status.pending;
        if self.is_out_of_sync(running.wanted.location) || status.error.is_some() || pending.dirs + pending.files > 0 {
            return Ok(());
        }
        // Nothing is queued by what is committed; what was appended since must be seen as well.
        let end = self.core.ledger.settled_lsn(running.wanted.junction);
        if !running.handle.commit(end, Duration::from_millis(500)).await {
            return Ok(());
        }
        let pending = running.handle.status.borrow().pending;
        if pending.dirs + pending.files > 0 {
            return Ok(());
        }
        if pending.incomplete > 0 {
            let reason = format!("{} objects could not be copied; see the job's errors", pending.incomplete);
            return self.to(id, JobState::Paused, &reason).await;
        }
        self.to(id, JobState::Synchronized, "").await
    }

    fn is_out_of_sync(&self, location: LocationId) -> bool {
        self.core.ledger.state().locations.get(&location).is_some_and(|l| l.out_of_sync.is_some())
    }

    async fn synchronized(&mut self, location: LocationId) -> Result<()> {
        let Some(running) = self.running.get(&location) else { return Ok(()) };
        if self.is_out_of_sync(location) {
            return self.to(running.wanted.job, JobState::Moving, "the destination is out of sync").await;
        }
        if running.switch_after > Instant::now() {
            return Ok(());
        }
        self.to(running.wanted.job, JobState::Transitioning, "").await
    }

    async fn transition(&mut self, location: LocationId) -> Result<()> {
        let Some(mut running) = self.running.remove(&location) else { return Ok(()) };
        running.stop_copier().await;
        let job = running.wanted.job;
        let switch = Switch {
            job,
            junction: running.wanted.junction,
            source: running.source.clone(),
            destination: running.location.clone(),
            replayer: running.handle.clone(),
        };
        let result = switch.run(&self.core, || end(&mut running.replayer)).await;
        match result {
            Ok(switched) => {
                self.board.statuses.lock().remove(&location);
                self.board.holds.lock().insert(job, switched.held);
                tracing::info!(%job, held = ?switched.held, "the junction was switched");
                self.to(job, JobState::Completed, "").await
            }
            Err(error @ Error::Journal(_)) => Err(error),
            Err(error) => {
                tracing::warn!(%job, %error, "the switch is put off; clients stay on the old primary");
                if running.replayer.is_finished() {
                    running.stop().await; // started again by the next look
                } else {
                    running.switch_after = Instant::now() + SWITCH_AGAIN;
                    self.running.insert(location, running);
                }
                self.to(job, JobState::Synchronized, &format!("the switch was put off: {error}")).await
            }
        }
    }

    /// A refusal means that somebody else (an abort) was first.
    async fn to(&self, job: JobId, state: JobState, reason: &str) -> Result<()> {
        crash_point!("JOB_BEFORE_STATE");
        match self.core.ledger.command(&Command::JobTo { job, state, reason: reason.into() }).await {
            Ok(_) => {
                crash_point!("JOB_AFTER_STATE");
                tracing::info!(%job, ?state, reason, "job");
                Ok(())
            }
            Err(CommandError::Refused(why)) => {
                tracing::info!(%job, ?state, why = why.reason, "the job did not go there");
                Ok(())
            }
            Err(CommandError::Journal(error)) => Err(error.into()),
        }
    }
}

fn copier(core: &Core, running: &Running) -> Copier {
    Copier {
        ledger: core.ledger.clone(),
        live: core.live.clone(),
        source: Arc::new(Source { location: running.source.clone(), live: core.live.clone() }),
        projection: running.projection.clone(),
        directories: Arc::new(VolumeDirectories(core.clone())),
        replayer: running.handle.clone(),
        job: running.wanted.job,
    }
}

struct VolumeDirectories(Core);

#[async_trait]
impl Directories for VolumeDirectories {
    async fn complete(&self, junction: JunctionId, dir: NodeId) -> std::result::Result<(), String> {
        self.0
            .volume
            .complete(junction, dir)
            .await
            .map_err(|status| format!("the directory cannot be read: {status:?}"))
    }
    async fn lock(&self, dir: NodeId) -> Box<dyn Send> {
        Box::new(self.0.volume.lock_dir(dir).await)
    }
}

/// Open a primary and bring it to the journal's end; then clients reach it.
pub async fn bring_up(core: &Core, junction: JunctionId, id: LocationId) -> Result<()> {
    let state = core.ledger.state();
    let location = open_location(core, &state, id).await?;
    if core.live.node(location.root)?.is_none() {
        return Err(Error::Other("the junction is being added".into()));
    }
    let cursor = state.locations.get(&id).map_or(Lsn(0), |l| l.cursor);
    let begin = Instant::now();
    let Redone { operations, bytes, made, refused } =
        redo::redo(&core.ledger.journal, &core.live, &location, cursor).await?;
    crash_point!("BRING_UP_REDONE");
    for objects in made.chunks(1024) {
        core.ledger.append(&Event::Made(Made { location: id, objects: objects.to_vec() })).await?;
    }
    crash_point!("BRING_UP_MADE");
    for refused in refused {
        refuse(core, junction, &location, &refused).await?;
    }
    if operations > 0 {
        tracing::info!(location = %id, operations, bytes, took = ?begin.elapsed(), "the primary was redone from its cursor");
    }
    crash_point!("BRING_UP_BEFORE_CHECKPOINT");
    checkpoint::primary(core, junction, &location).await?;
    crash_point!("BRING_UP_END");
    core.locations.insert(location);
    Ok(())
}

/// What was in the journal without an end, and the filer refuses for good: the operation failed, and no client was
/// answered otherwise.
async fn refuse(core: &Core, junction: JunctionId, location: &Location, refused: &redo::Refused) -> Result<()> {
    tracing::warn!(location = %location.id, op = %refused.op, node = %refused.node, error = refused.error,
        "an operation in doubt was refused by the filer: it failed");
    let at = core.ledger.record(&Event::Failed(Failed { op: refused.op, status: NfsStatus::Io as u32 })).await?;
    let rec = core.live.node(refused.node)?;
    for (dir, name) in View::names(core.live.as_ref(), refused.node, 16)? {
        let kind = rec.as_ref().map_or(journal_format::ids::Kind::File, |rec| rec.kind);
        let remove = Remove {
            junction,
            location: location.id,
            dir,
            name,
            node: NodeId(refused.node.0),
            kind,
            last: true,
            caller: Default::default(),
        };
        core.live.apply(at.lsn, at.time, &Event::Remove(remove))?;
    }
    Ok(())
}
