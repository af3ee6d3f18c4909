//! Checkpoints: positions from which recovery starts (design §4).
//!
//! Order, for a primary: take its settled LSN; then put kept times, sync, commit its store; only then is the position
//! its cursor. The live index's commit states a position that every operation before has ended at.
//!
//! A failed sync holds the cursor, and the location *falls* (see `Locations`): what the filer shows of the operations
//! since may be lost, and a later sync that succeeds says nothing about it. The supervisor redoes them from the cursor,
//! by writing again; clients wait, and nobody reads the location before. So too when it was mounted anew.

mod aside;

pub use aside::needed;

use crate::core::{Core, Error, Result, blocking};
use crate::filer::ErrorKind;
use crate::journal::Appended;
use crate::location::Location;
use crate::location::carry_out::put_primary_times;
use crate::service::recovery::CALLS_BYTES;
use crate::state::State;
use journal_format::event::{Cursor, Event};
use journal_format::ids::{JunctionId, LocationId, Lsn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often the service looks whether a checkpoint is due.
const TICK: Duration = Duration::from_millis(500);
/// A checkpoint is due so long after the last one, when anything happened,
const TIME_MAX: Duration = Duration::from_secs(10);
/// or when so much has been journaled since: what a restart must redo stays small,
const BYTES_MAX: u64 = 256 << 20;
/// or when so many nodes wait for their times.
const TOUCHED_MAX: usize = 16384;

/// Past the journal's soft limit one is due so often: whoever let go of the journal frees it at once.
const PRESSED: Duration = Duration::from_secs(1);
/// How long a checkpoint waits for a primary that hangs. It goes on without it, and takes what that says later.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5000 });
/// The same where a test is about to die at a crash point: there are many in a checkpoint.
const TICK_ARMED: Duration = Duration::from_millis(50);
const TIME_MAX_ARMED: Duration = Duration::from_millis(250);

/// What the last checkpoint saw.
#[derive(Default)]
pub struct Checkpoints {
    at: Lsn,
    /// What had happened when a checkpoint last took everything in.
    activity: Option<u64>,
    /// What had happened when a primary's cursor was last told and is in a snapshot, of those whose cursor says all of it.
    told: BTreeMap<LocationId, u64>,
    /// Primaries that are being synced, one try each.
    syncing: BTreeMap<LocationId, (tokio::time::Instant, JoinHandle<Result<Lsn>>)>,
}

impl Checkpoints {
    /// Run until cancelled. `told` hears after each checkpoint why it failed, if it did.
    pub async fn run(mut self, core: Core, told: impl Fn(Option<String>)) {
        let (tick, time_max) = if crate::crash::armed() { (TICK_ARMED, TIME_MAX_ARMED) } else { (TICK, TIME_MAX) };
        let mut since = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(tick).await;
            let bytes = core.ledger.journal.end_lsn().0.saturating_sub(self.at.0);
            let touched = primaries(&core).values().map(|l| l.touched()).max().unwrap_or(0);
            let due = since.elapsed() >= time_max && self.is_due_again(&core);
            let journal = &core.ledger.journal;
            let pressed = journal.used_bytes() > journal.soft_limit() && since.elapsed() >= PRESSED;
            let bytes_max = BYTES_MAX.min(journal.soft_limit() / 4);
            if !(due || pressed || bytes >= bytes_max || touched >= TOUCHED_MAX) {
                continue;
            }
            since = tokio::time::Instant::now();
            let taken = self.take(&core).await;
            told(taken.as_ref().err().map(ToString::to_string));
            if let Err(error) = taken {
                tracing::error!(%error, "no checkpoint: cursors stay where they are, and it is tried again");
                if error.is_the_end() {
                    return;
                }
            }
        }
    }

    /// Whether the last one did not take everything in; or a primary's sync has failed since, which makes it fall.
    #[must_use]
    pub fn is_due_again(&self, core: &Core) -> bool {
        Some(core.ledger.activity()) != self.activity || primaries(core).values().any(|location| location.has_lost())
    }

    /// Take one now.
    pub async fn take(&mut self, core: &Core) -> Result<()> {
        crash_point!("CHECKPOINT_BEGIN");
        // What was not to be had the last time: the archive may have come on since.
        self.recycle_if_it_can(core).await?;
        let (activity, begin) = (core.ledger.activity(), core.ledger.journal.durable_lsn());
        let cursors = self.sync(core).await?;
        // Of every junction, those that are down too; a sync that hung for a while tells of the time before.
        let all = cursors.len() == core.ledger.state().junctions.len() && cursors.iter().all(|c| c.lsn >= begin);
        crash_point!("CHECKPOINT_PRIMARIES_DONE");
        let mut aside = aside::hung(core, &cursors, |location| self.is_waited_for(location));
        let mut settled = core.ledger.settled_without(&aside);
        let pinned = aside::extend(core, &aside, settled).await?;
        if !pinned.is_empty() {
            settled = aside::without(core, &mut aside, &pinned)?.min(settled);
        }
        for junction in core.live.aside()?.into_iter().chain(aside.iter().copied()) {
            core.live.set_aside(junction, aside.contains(&junction));
        }
        let live = core.live.store.clone();
        blocking(move || Ok(live.commit(settled)?)).await?;
        crash_point!("CHECKPOINT_LIVE_COMMITTED");
        let state = core.ledger.state();
        let (mut behind, mut told) = (None, self.told.clone());
        told.retain(|id, _| state.locations.contains_key(id));
        for cursor in cursors {
            let id = cursor.location;
            let Some(from) = state.locations.get(&id).map(|l| l.cursor).filter(|from| *from < cursor.lsn) else {
                continue;
            };
            // Nothing has happened since but cursors: another one would be the next one's reason, and fill the journal.
            let size = core.ledger.journal.segment_size();
            let frees = from.0 / size < cursor.lsn.0 / size || aside::holds(core, &state, id, from);
            if self.told.get(&id) == Some(&activity) && !frees {
                continue;
            }
            if cursor.lsn >= begin {
                told.insert(id, activity);
            }
            behind = Some(self.append(core, &Event::Cursor(cursor)).await?);
        }
        if let Some((at, state)) = behind {
            crash_point!("CHECKPOINT_CURSOR_APPENDED");
            core.ledger.wait_durable(at.end).await?;
            crash_point!("CHECKPOINT_CURSOR_DURABLE");
            let (journal, json) = (core.ledger.journal.clone(), state.to_json());
            blocking(move || Ok(journal.write_snapshot(at.end, &json)?)).await?;
        }
        self.told = told;
        crash_point!("CHECKPOINT_BEFORE_RECYCLE");
        aside::drop_passed(core, settled).await?;
        self.recycle(core, settled).await?;
        crash_point!("CHECKPOINT_END");
        self.at = core.ledger.journal.end_lsn();
        // An idle service must come back to what could not be synced, or is down.
        self.activity = if all && core.ledger.journal.sides().is_empty() { Some(activity) } else { None };
        match pinned.into_iter().next() {
            None => Ok(()),
            Some((junction, error)) => Err(Error::Other(format!(
                "the records of junction {junction}, whose primary hangs, cannot be set aside, and keep the journal: {error}"
            ))),
        }
    }

    /// Sync every primary, side by side: one that hangs holds up nothing but its own cursor, and is waited for once.
    async fn sync(&mut self, core: &Core) -> Result<Vec<Cursor>> {
        let now = tokio::time::Instant::now();
        for (junction, location) in primaries(core) {
            let core = core.clone();
            self.syncing
                .entry(location.id)
                .or_insert_with(|| (now, tokio::spawn(async move { primary(&core, junction, &location).await })));
        }
        let mut cursors = Vec::new();
        for (id, (began, mut task)) in std::mem::take(&mut self.syncing) {
            match patiently(core, began, &mut task).await {
                Ok(Ok(Ok(lsn))) => cursors.push(Cursor { location: id, lsn }),
                Ok(Ok(Err(error))) if error.is_the_end() => return Err(error),
                Ok(Ok(Err(error))) => {
                    tracing::error!(location = %id, %error, "the primary could not be synced: its cursor stays");
                }
                Ok(Err(panic)) => {
                    tracing::error!(location = %id, %panic, "syncing the primary panicked: its cursor stays")
                }
                Err(_) => {
                    tracing::warn!(location = %id, "the primary hangs: its cursor stays, and others go on");
                    self.syncing.insert(id, (began, task));
                }
            }
        }
        Ok(cursors)
    }

    /// Its sync is under way, and may just be slow.
    fn is_waited_for(&self, location: LocationId) -> bool {
        self.syncing.get(&location).is_some_and(|(began, _)| began.elapsed() < PATIENCE)
    }

    /// Segments go that neither a location needs, nor the index, which states `settled`, nor the newest snapshot.
    async fn recycle(&self, core: &Core, settled: Lsn) -> Result<()> {
        // By cursors that are durable: after a power cut nobody may need what is before them.
        let state = core.ledger.state();
        core.ledger.wait_durable(state.lsn).await?;
        let floor = aside::floor(core, &state).unwrap_or(settled).min(settled);
        // Calls of this part may be repeated after a restart, and get their first answer.
        let kept = CALLS_BYTES.min(core.ledger.journal.soft_limit() / 4);
        let calls = Lsn(core.ledger.journal.end_lsn().0.saturating_sub(kept));
        let (journal, floor) = (core.ledger.journal.clone(), floor.min(calls));
        blocking(move || {
            // There may have been no room for one, and no room in the journal for the cursor that comes before the next.
            let size = journal.segment_size();
            let pins = journal.snapshot_lsn() > Lsn(0) && journal.snapshot_lsn().0 / size < floor.0 / size;
            let wrote = if pins { journal.write_snapshot(state.lsn, &state.to_json()) } else { Ok(()) };
            // As far as there is one.
            journal.recycle(floor)?;
            Ok(wrote?)
        })
        .await
    }

    /// By what the last checkpoint has stated. What keeps it from that is told at the end of one: nothing else waits for it.
    async fn recycle_if_it_can(&self, core: &Core) -> Result<()> {
        match self.recycle(core, core.live.store.lsn()).await {
            Err(error) if !error.is_the_end() => {
                tracing::debug!(%error, "nothing can be freed yet");
                Ok(())
            }
            recycled => recycled,
        }
    }

    /// At the hard limit this waits for room, which nobody but a checkpoint makes: so what can be freed meanwhile is.
    async fn append(&self, core: &Core, event: &Event) -> Result<(Appended, Arc<State>)> {
        let append = core.ledger.append_view(event);
        tokio::pin!(append);
        loop {
            match tokio::time::timeout(PRESSED, &mut append).await {
                Ok(appended) => return Ok(appended?),
                Err(_) => self.recycle_if_it_can(core).await?,
            }
        }
    }
}

/// What a task said that began then. The journal may fill up behind one that hangs: past its soft limit less is waited.
async fn patiently<T>(
    core: &Core,
    began: tokio::time::Instant,
    task: &mut JoinHandle<T>,
) -> std::result::Result<std::result::Result<T, tokio::task::JoinError>, tokio::time::error::Elapsed> {
    let journal = &core.ledger.journal;
    let hurried = tokio::time::timeout_at(began + PATIENCE.min(PRESSED), &mut *task).await;
    if hurried.is_ok() {
        return hurried;
    }
    loop {
        let now = tokio::time::Instant::now();
        let pressed = journal.used_bytes() > journal.soft_limit();
        let until = if pressed { now } else { (now + TICK).min(began + PATIENCE) };
        let said = tokio::time::timeout_at(until, &mut *task).await;
        if said.is_ok() || pressed || until >= began + PATIENCE {
            return said;
        }
    }
}

fn primaries(core: &Core) -> BTreeMap<JunctionId, Arc<Location>> {
    let state = core.ledger.state();
    let open = |id: LocationId| core.locations.get(id);
    state.junctions.iter().filter_map(|(id, junction)| Some((*id, open(junction.primary)?))).collect()
}

/// Everything before the returned position is durable on the primary. Whoever does not wait for the end of it loses
/// nothing: it has a task of its own, and what it has in hand is not dropped half way.
pub async fn primary(core: &Core, junction: JunctionId, location: &Arc<Location>) -> Result<Lsn> {
    sync_of(core, junction, location, false).await
}

/// The same of one that its clients are about to leave, and to which nothing is lost by that: that it is read-only, and takes no
/// times, is no error then, though its cursor stays.
pub async fn left(core: &Core, junction: JunctionId, location: &Arc<Location>) -> Result<()> {
    sync_of(core, junction, location, true).await.map(drop)
}

async fn sync_of(core: &Core, junction: JunctionId, location: &Arc<Location>, leaving: bool) -> Result<Lsn> {
    let (core, location) = (core.clone(), location.clone());
    let task = tokio::spawn(async move {
        // One at a time: a younger one must not pass what an older one still has in hand.
        let turn = tokio::time::timeout(2 * PATIENCE, location.syncing.lock()).await;
        let Ok(_turn) = turn else { return Err(Error::Other("an earlier sync of it hangs".into())) };
        sync_primary(&core, junction, &location, leaving).await
    });
    task.await.unwrap_or_else(|error| Err(Error::Other(error.to_string())))
}

async fn sync_primary(core: &Core, junction: JunctionId, location: &Location, leaving: bool) -> Result<Lsn> {
    // The position first: what is done after this line may or may not be in the sync.
    let retired = location.take_retired();
    let settled = core.ledger.settled_lsn(junction).min(core.ledger.journal.durable_lsn());
    let touched = location.take_touched();
    crash_point!("CHECKPOINT_BEFORE_TIMES");
    let timed = put_primary_times(location, &core.live, &touched).await;
    crash_point!("CHECKPOINT_AFTER_TIMES");
    let synced = location.sync().await;
    if synced.is_err() && core.locations.fall(location.id) {
        tracing::error!(location = %location.id, "a sync failed: clients wait until what is not durable is written again");
    }
    let is_read_only =
        leaving && synced.is_ok() && timed.as_ref().is_err_and(|error| error.kind == ErrorKind::ReadOnly);
    if let Err(error) = synced.and(timed) {
        for node in touched {
            location.touch(node);
        }
        for (lsn, node) in retired {
            location.retire(lsn, node);
        }
        location.sync_has_ended();
        if is_read_only {
            tracing::warn!(location = %location.id, "it is read-only: it is left with other times than clients saw");
            return Ok(settled);
        }
        return Err(error.into());
    }
    location.sync_has_ended();
    crash_point!("CHECKPOINT_SYNCED");
    for (lsn, node) in retired {
        if lsn < settled {
            location.objects.store.write(location.objects.remove(node)?);
        } else {
            location.retire(lsn, node);
        }
    }
    crash_point!("CHECKPOINT_BEFORE_STORE");
    let store = location.objects.store.clone();
    blocking(move || Ok(store.commit(settled)?)).await?;
    Ok(settled)
}
