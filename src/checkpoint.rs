//! Checkpoints: positions from which recovery starts (design §4).
//!
//! Order, for a primary: take its settled LSN; then put kept times, sync, commit its store; only then is the position
//! its cursor. The live index's commit states a position that every operation before has ended at. A failed sync holds
//! the cursor, and the operations since are redone at the next start.

use crate::core::{Core, Error, Result, blocking};
use crate::location::Location;
use crate::location::carry_out::put_times;
use crate::service::recovery::CALLS_BYTES;
use crate::state::{Role, State};
use journal_format::event::{Cursor, Event};
use journal_format::ids::{JunctionId, LocationId, Lsn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often the service looks whether a checkpoint is due.
const TICK: Duration = Duration::from_millis(500);
/// A checkpoint is due so long after the last one, when anything happened,
const TIME_MAX: Duration = Duration::from_secs(10);
/// or when so much has been journaled since: what a restart must redo stays small,
const BYTES_MAX: u64 = 256 << 20;
/// or when so many nodes wait for their times.
const TOUCHED_MAX: usize = 16384;

/// What the last checkpoint saw.
#[derive(Default)]
pub struct Checkpoints {
    at: Lsn,
    activity: u64,
    snapshot: Lsn,
}

impl Checkpoints {
    /// Run until cancelled.
    pub async fn run(mut self, core: Core) {
        let mut since = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            let bytes = core.ledger.journal.end_lsn().0.saturating_sub(self.at.0);
            let touched = primaries(&core).values().map(|l| l.touched()).max().unwrap_or(0);
            let due = since.elapsed() >= TIME_MAX && core.ledger.activity() != self.activity;
            if !(due || bytes >= BYTES_MAX || touched >= TOUCHED_MAX) {
                continue;
            }
            since = tokio::time::Instant::now();
            if let Err(error) = self.take(&core).await {
                tracing::error!(%error, "no checkpoint: cursors stay where they are, and it is tried again");
                if matches!(error, Error::Journal(_)) {
                    return;
                }
            }
        }
    }

    /// Take one now.
    pub async fn take(&mut self, core: &Core) -> Result<()> {
        let activity = core.ledger.activity();
        let settled = core.ledger.settled_all_lsn();
        let mut cursors = Vec::new();
        for (junction, location) in primaries(core) {
            match primary(core, junction, &location).await {
                Ok(lsn) => cursors.push(Cursor { location: location.id, lsn }),
                Err(error @ Error::Journal(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(location = %location.id, %error, "the primary could not be synced: its cursor stays")
                }
            }
        }
        let live = core.live.store.clone();
        blocking(move || Ok(live.commit(settled)?)).await?;
        let state = core.ledger.state();
        let mut behind = None;
        for cursor in cursors {
            if state.locations.get(&cursor.location).is_some_and(|l| l.cursor < cursor.lsn) {
                behind = Some(core.ledger.append_view(&Event::Cursor(cursor)).await?);
            }
        }
        if let Some((at, state)) = behind {
            core.ledger.wait_durable(at.end).await?;
            self.snapshot(core, at.end, &state).await?;
        }
        let floor = floor(&core.ledger.state()).unwrap_or(settled).min(settled).min(self.snapshot);
        // Calls of this part may be repeated after a restart, and get their first answer.
        let calls = Lsn(core.ledger.journal.end_lsn().0.saturating_sub(CALLS_BYTES));
        let (journal, floor) = (core.ledger.journal.clone(), floor.min(calls));
        blocking(move || Ok(journal.recycle(floor)?)).await?;
        self.at = core.ledger.journal.end_lsn();
        self.activity = activity;
        Ok(())
    }

    async fn snapshot(&mut self, core: &Core, lsn: Lsn, state: &Arc<State>) -> Result<()> {
        let (journal, json) = (core.ledger.journal.clone(), state.to_json());
        blocking(move || Ok(journal.write_snapshot(lsn, &json)?)).await?;
        self.snapshot = lsn;
        Ok(())
    }
}

/// The earliest cursor of a location that is still in use.
fn floor(state: &State) -> Option<Lsn> {
    state.locations.values().filter(|l| l.role != Role::Left).map(|l| l.cursor).min()
}

fn primaries(core: &Core) -> BTreeMap<JunctionId, Arc<Location>> {
    let state = core.ledger.state();
    let open = |id: LocationId| core.locations.get(id);
    state.junctions.iter().filter_map(|(id, junction)| Some((*id, open(junction.primary)?))).collect()
}

/// Everything before the returned position is durable on the primary.
pub async fn primary(core: &Core, junction: JunctionId, location: &Location) -> Result<Lsn> {
    // The position first: what is done after this line may or may not be in the sync.
    let retired = location.take_retired();
    let settled = core.ledger.settled_lsn(junction).min(core.ledger.journal.durable_lsn());
    let touched = location.take_touched();
    let synced = async {
        put_times(location, core.live.as_ref(), &core.live, &touched).await?;
        location.filer.sync().await
    };
    if let Err(error) = synced.await {
        for node in touched {
            location.touch(node);
        }
        for (lsn, node) in retired {
            location.retire(lsn, node);
        }
        return Err(error.into());
    }
    for (lsn, node) in retired {
        if lsn < settled {
            location.objects.store.write(location.objects.remove(node)?);
        } else {
            location.retire(lsn, node);
        }
    }
    let store = location.objects.store.clone();
    blocking(move || Ok(store.commit(settled)?)).await?;
    Ok(settled)
}
