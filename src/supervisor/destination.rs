//! A job's destination: its replayer, its copier, and the job's steps from one state to the next.

use super::{Board, LOOK, RETRY, end};
use crate::copier::{Copier, Directories};
use crate::core::{Core, Error, Result, blocking, open_later, open_location};
use crate::filer::ErrorKind;
use crate::ledger::CommandError;
use crate::limits::{self, Pin};
use crate::location::Location;
use crate::location::copy::Source;
use crate::location::projection::Projection;
use crate::replayer::{self, Handle, Replayer, Status};
use crate::state::{self, Command, Job, wanted_replayer};
use crate::switch::Switch;
use crate::volume::Status as NfsStatus;
use async_trait::async_trait;
use journal_format::event::{Cursor, Event, JobState, OutOfSync};
use journal_format::ids::{JobId, JunctionId, LocationId, Lsn, NodeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a destination's filer may take to be reached.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// A secondary that is to let go of the journal is told so again.
const PRESS_AGAIN: Duration = Duration::from_secs(1);
/// A job pauses past so many file errors (design §7).
const ERRORS_MAX: usize = 200;
/// A directory that the volume could not complete in time is asked for again so much later.
const AGAIN: Duration = Duration::from_millis(200);
/// A switch that was put off is tried again so much later.
const SWITCH_AGAIN: Duration = Duration::from_millis(500);

/// Looks after one destination for as long as State wants its replayer.
pub(super) struct Keeper {
    core: Core,
    board: Arc<Board>,
    id: LocationId,
    job: JobId,
    stop: watch::Receiver<bool>,
    /// A filer that has not answered yet: it is asked once, however often it is looked at.
    opening: Option<JoinHandle<Result<Arc<Location>>>>,
}

/// What runs for it.
struct Running {
    wanted: state::Replayer,
    location: Arc<Location>,
    source: Arc<Location>,
    projection: Projection,
    handle: Handle,
    replayer: Option<JoinHandle<()>>,
    copier: Option<JoinHandle<()>>,
    switch_after: Instant,
    press_after: Instant,
    /// Since when the job has been moving without a pause.
    moving_since: Option<Instant>,
}

impl Running {
    /// Back when nothing of it runs any more, a call that hangs in a filer included.
    async fn stop(&mut self) {
        self.stop_copier().await;
        end(&mut self.replayer).await;
    }

    async fn stop_copier(&mut self) {
        end(&mut self.copier).await;
    }

    /// The replayer has ended (a panic), or reads from a location that is not the open primary any more.
    fn is_over(&self, core: &Core) -> bool {
        let source = core.locations.get(self.wanted.source);
        self.replayer.as_ref().is_none_or(JoinHandle::is_finished)
            || !source.is_some_and(|source| Arc::ptr_eq(&source, &self.source))
    }
}

impl Keeper {
    pub(super) fn new(core: Core, board: Arc<Board>, wanted: state::Replayer, stop: watch::Receiver<bool>) -> Self {
        Self { core, board, id: wanted.location, job: wanted.job, stop, opening: None }
    }

    pub(super) async fn run(mut self) {
        while let Some(wanted) = self.wanted() {
            let mut pause = LOOK;
            if let Err(error) = self.no_switch_is_under_way().await {
                tracing::error!(job = %self.job, %error, "the job's state could not be recorded");
                break; // the process is about to stop
            }
            if let Err(error) = self.let_go(None).await {
                tracing::error!(job = %self.job, %error, "that the destination is out of sync could not be recorded");
                break; // the process is about to stop
            }
            // The primary first.
            if let Some(source) = self.core.locations.get(wanted.source) {
                let cursor = self.core.ledger.state().locations.get(&self.id).map_or(Lsn(0), |l| l.cursor);
                self.board.statuses.lock().insert(self.id, Status::at(cursor));
                match self.start(&wanted, source).await {
                    Ok(running) => {
                        self.board.is_up(self.id);
                        self.keep(running).await;
                    }
                    Err(error) if error.is_the_end() => break,
                    Err(error) => {
                        self.board.is_down(self.id, &error.to_string());
                        pause = RETRY;
                    }
                }
                self.board.statuses.lock().remove(&self.id);
            }
            if self.stopped_within(pause).await {
                break;
            }
        }
        self.board.statuses.lock().remove(&self.id);
    }

    /// A switch that a former life began, or that was broken off, is begun anew from the state before it: from there it
    /// may be paused and aborted, and goes out of sync as any other, whether or not its destination can be opened.
    async fn no_switch_is_under_way(&self) -> Result<()> {
        let state = self.core.ledger.state();
        if state.jobs.get(&self.job).is_some_and(|job| job.state == JobState::Transitioning) {
            return self.to(JobState::Synchronized, "the switch was broken off: it is tried again").await;
        }
        Ok(())
    }

    fn wanted(&self) -> Option<state::Replayer> {
        wanted_replayer(&self.core.ledger.state(), self.job)
    }

    async fn stopped_within(&mut self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    async fn open(&mut self) -> Result<Arc<Location>> {
        let (core, state, id) = (self.core.clone(), self.core.ledger.state(), self.id);
        let is_out = self.is_out_of_sync();
        let opened = self.opening.take();
        let mut opening = opened.unwrap_or_else(|| {
            let (core, state) = (core.clone(), state.clone());
            tokio::spawn(async move { open_location(&core, &state, id).await })
        });
        let opened = match tokio::time::timeout(OPEN_MAX, &mut opening).await {
            Ok(opened) => opened.unwrap_or_else(|panic| Err(Error::Other(panic.to_string()))),
            Err(_) => {
                self.opening = Some(opening);
                Err(Error::Other(format!("its filer does not answer within {OPEN_MAX:?}")))
            }
        };
        match opened {
            // The journal must not wait for it: its backlog goes to the dirty set, and its filer is reached when it can be.
            Err(Error::Filer(_) | Error::Other(_)) if is_out => open_later(&core, &state, id).await,
            opened => opened,
        }
    }

    async fn start(&mut self, wanted: &state::Replayer, source: Arc<Location>) -> Result<Running> {
        let location = self.open().await?;
        let state = self.core.ledger.state();
        let start = state.locations.get(&wanted.location).map_or(Lsn(0), |l| l.cursor);
        let projection = Projection {
            store: location.objects.store.clone(),
            objects: location.objects.clone(),
            location: wanted.location,
            junction: wanted.junction,
        };
        if self.wanted().is_none() {
            return Err(Error::Other("the job has ended meanwhile".into()));
        }
        if projection.is_ahead(self.core.ledger.journal.durable_lsn())? {
            self.let_all_go(wanted.junction).await?;
            return Err(Error::Other(format!(
                "the journal was repaired since location {} was begun: what was cut is missing there, or was never brought \
                 over; abort the job and create it again",
                self.id
            )));
        }
        if projection.store.lsn() < start {
            self.rebuild(&projection, location.root, start).await?;
        }
        projection.begin(location.root, start)?;
        let from = Source { location: source.clone(), live: self.core.live.clone() };
        let replayer =
            Replayer::new(self.core.ledger.clone(), location.clone(), projection.clone(), from, wanted.job, start);
        let handle = replayer.handle();
        let replayer = Some(tokio::spawn(replayer.run()));
        let now = Instant::now();
        Ok(Running {
            wanted: *wanted,
            location,
            source,
            projection,
            handle,
            replayer,
            copier: None,
            switch_after: now,
            press_after: now,
            moving_since: None,
        })
    }

    /// The destination is new, or its store was lost.
    async fn rebuild(&self, projection: &Projection, root: NodeId, cursor: Lsn) -> Result<()> {
        let (journal, projection, job) = (self.core.ledger.journal.clone(), projection.clone(), self.job);
        let is_out = self.is_out_of_sync();
        let rebuilt = blocking(move || {
            let rebuilt = replayer::rebuild(&projection, &journal, job, root, cursor, is_out);
            rebuilt.map_err(|error| Error::Other(error.to_string()))
        });
        let state = self.core.ledger.state();
        let begun = state.jobs.get(&job).is_some_and(|job| job.progress != state::Progress::default());
        if rebuilt.await? || !begun {
            return Ok(());
        }
        Err(Error::Other(format!(
            "the store of location {} is missing, and the journal does not reach back to the job's beginning, or the \
             location was out of sync: what was copied cannot be told. Put the index directory ([state] dir) back, or \
             abort the job and create it again",
            self.id
        )))
    }

    fn is_out_of_sync(&self) -> bool {
        self.core.ledger.state().locations.get(&self.id).is_some_and(|l| l.out_of_sync.is_some())
    }

    /// The soft limit: a secondary whose backlog has passed it goes out of sync and lets go of the journal.
    async fn let_go(&self, running: Option<&mut Running>) -> Result<()> {
        let ledger = &self.core.ledger;
        let (state, soft_limit) = (ledger.state(), ledger.journal.soft_limit());
        let settled = |junction| ledger.settled_lsn(junction).min(ledger.journal.durable_lsn());
        let pins = limits::to_let_go(&state, settled, soft_limit);
        let Some(Pin { location, cursor, bytes, .. }) = pins.into_iter().find(|pin| pin.location == self.id) else {
            return Ok(());
        };
        if !self.is_out_of_sync() {
            tracing::warn!(%location, %cursor, bytes, "the journal's soft limit: the secondary goes out of sync");
            ledger.record(&Event::OutOfSync(OutOfSync { location, from: cursor })).await?;
        }
        if let Some(running) = running
            && running.press_after <= Instant::now()
        {
            running.press_after = Instant::now() + PRESS_AGAIN;
            running.handle.press();
        }
        Ok(())
    }

    /// One that is never gone on with, and out of sync, needs nothing of the journal.
    async fn let_all_go(&self, junction: JunctionId) -> Result<()> {
        let ledger = &self.core.ledger;
        let lsn = ledger.settled_lsn(junction).min(ledger.journal.durable_lsn());
        let cursor = ledger.state().locations.get(&self.id).map_or(lsn, |l| l.cursor);
        if self.is_out_of_sync() && lsn.0.saturating_sub(cursor.0) >= ledger.journal.segment_size() {
            ledger.record(&Event::Cursor(Cursor { location: self.id, lsn })).await?;
        }
        Ok(())
    }

    /// Until it is not wanted any more, or must be started afresh. Nothing of it runs when this returns.
    async fn keep(&mut self, mut running: Running) {
        while let Some(wanted) = self.wanted() {
            if let Some(why) = running.location.objects.store.failed() {
                *self.board.dead.lock() = Some(why.to_owned());
            }
            if running.is_over(&self.core) {
                break;
            }
            running.wanted = wanted;
            self.board.statuses.lock().insert(self.id, running.handle.status.borrow().clone());
            match (&running.copier, wanted.copying) {
                (Some(copier), true) if copier.is_finished() => running.stop_copier().await,
                (None, true) => running.copier = Some(tokio::spawn(copier(&self.core, &running).run())),
                (Some(_), false) => running.stop_copier().await,
                _ => {}
            }
            let done = match self.let_go(Some(&mut running)).await {
                Ok(()) => self.advance(&mut running).await,
                error => error,
            };
            match done {
                Ok(()) => {}
                Err(error) if error.is_the_end() => break,
                Err(error) => {
                    tracing::error!(job = %self.job, %error, "the job's next step failed; it is tried again");
                    if self.stopped_within(RETRY).await {
                        break;
                    }
                }
            }
            if self.stopped_within(LOOK).await {
                break;
            }
        }
        running.stop().await;
    }

    /// Take the job a step further, when it is time.
    async fn advance(&self, running: &mut Running) -> Result<()> {
        let state = self.core.ledger.state();
        let Some(job) = state.jobs.get(&self.job) else { return Ok(()) };
        running.moving_since =
            (job.state == JobState::Moving).then(|| running.moving_since.unwrap_or_else(Instant::now));
        match job.state {
            JobState::Starting => self.to(JobState::Moving, "").await,
            JobState::Moving => self.moving(running, job).await,
            JobState::Synchronized if self.is_out_of_sync() => {
                self.to(JobState::Moving, "the destination is out of sync").await
            }
            // A rename brought it in, or the switch found it: nobody copies but a moving job.
            JobState::Synchronized if is_pending(running) => {
                self.to(JobState::Moving, "something came that is not copied yet").await
            }
            JobState::Synchronized if running.switch_after > Instant::now() => Ok(()),
            JobState::Synchronized => self.to(JobState::Transitioning, "").await,
            JobState::Transitioning => self.transition(running).await,
            JobState::Stopped | JobState::Paused | JobState::Completed | JobState::Aborted => Ok(()),
        }
    }

    async fn moving(&self, running: &mut Running, job: &Job) -> Result<()> {
        let status = running.handle.status.borrow().clone();
        // What it met before the job was started again may be mended: it tries, and will say.
        if let Some(trouble) = &status.error
            && running.moving_since.is_none_or(|since| trouble.at >= since)
            && matches!(
                trouble.kind,
                Some(ErrorKind::NoSpace | ErrorKind::Quota | ErrorKind::ReadOnly | ErrorKind::Down)
            )
        {
            return self.pause(running, &format!("the destination: {}", trouble.text)).await;
        }
        if job.errors.len() > ERRORS_MAX {
            let reason = format!("more than {ERRORS_MAX} objects could not be copied; see the job's errors");
            return self.pause(running, &reason).await;
        }
        let pending = status.pending;
        if self.is_out_of_sync() || status.error.is_some() || pending.dirs + pending.files > 0 {
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
            return self.pause(running, &reason).await;
        }
        if pending.limbo > 0 {
            let reason = format!("{} objects wait in the destination's pen for a name in the tree", pending.limbo);
            return self.pause(running, &reason).await;
        }
        self.to(JobState::Synchronized, "").await
    }

    /// It may be started again before it is looked at here again: what it met until now is not held against it then.
    async fn pause(&self, running: &mut Running, reason: &str) -> Result<()> {
        running.moving_since = None;
        self.to(JobState::Paused, reason).await
    }

    async fn transition(&self, running: &mut Running) -> Result<()> {
        running.stop_copier().await;
        let switch = Switch {
            job: self.job,
            junction: running.wanted.junction,
            source: running.source.clone(),
            destination: running.location.clone(),
            replayer: running.handle.clone(),
        };
        let replayer = &mut running.replayer;
        match switch.run(&self.core, || end(replayer)).await {
            Ok(switched) => {
                self.board.holds.lock().insert(self.job, switched.held);
                tracing::info!(job = %self.job, held = ?switched.held, "the junction was switched");
                Ok(())
            }
            Err(error @ Error::Journal(_)) => Err(error),
            Err(error) => {
                tracing::warn!(job = %self.job, %error, "the switch is put off; clients stay on the old primary");
                running.switch_after = Instant::now() + SWITCH_AGAIN;
                self.to(JobState::Synchronized, &format!("the switch was put off: {error}")).await
            }
        }
    }

    async fn to(&self, state: JobState, reason: &str) -> Result<()> {
        to(&self.core, self.job, state, reason).await
    }
}

/// Something is not copied, or not whole, or has no place.
fn is_pending(running: &Running) -> bool {
    !running.handle.status.borrow().pending.is_none()
}

/// A refusal means that somebody else (an abort) was first.
pub(super) async fn to(core: &Core, job: JobId, state: JobState, reason: &str) -> Result<()> {
    crash_point!("JOB_BEFORE_STATE");
    match core.ledger.command(&Command::JobTo { job, state, reason: reason.into() }).await {
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
        Err(late @ CommandError::Late) => Err(Error::Other(late.to_string())),
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
        // Somebody may have unmounted what was there a moment ago, and started the job again for it.
        self.0.volume.look_again(dir);
        loop {
            match self.0.volume.complete(junction, dir).await {
                Ok(()) => return Ok(()),
                // A primary that is slow, or does not answer, is waited for: nothing is wrong with the directory.
                Err(NfsStatus::Jukebox) => tokio::time::sleep(AGAIN).await,
                Err(status) => return Err(format!("the directory cannot be read: {}", what_it_means(status))),
            }
        }
    }
    async fn lock(&self, dir: NodeId) -> Box<dyn Send> {
        Box::new(self.0.volume.lock_dir(dir).await)
    }
}

/// Why a directory could not be made complete, for the job's report.
fn what_it_means(status: NfsStatus) -> String {
    match status {
        NfsStatus::XDev => {
            "a file system is mounted in it, which is no part of the export (the service's log names the place)".into()
        }
        NfsStatus::Io => {
            "the primary gives an I/O error for it, or for a name in it (the service's log names it)".into()
        }
        other => format!("the primary says {other:?}"),
    }
}
