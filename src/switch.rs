//! The switch of a junction (design §6): the one instant at which clients go to another location.
//!
//! ```text
//! catch up   the destination commits, again and again, until little is left   ── CATCH_UP_MAX, else put off
//! hold       new mutations wait (reads go on); those under way end          ─┐
//! drain      the replayer commits everything; the primary's times are put    │ HOLD_MAX at most, else release
//! append     JunctionSwitched, flushed; from its append on State says so    ─┘ and put off
//! release    held operations find the new primary
//! ```

use crate::checkpoint;
use crate::core::{Core, Error, Result};
use crate::filer::Changes;
use crate::ledger::CommandError;
use crate::location::Location;
use crate::location::root::put_root;
use crate::replayer::Handle;
use crate::state::Command;
use journal_format::ids::{JobId, JunctionId};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest hold before the append.
const HOLD_MAX: Duration = Duration::from_millis(500);
/// Rounds of catching up before the hold is tried anyway, and what counts as caught up.
const CATCH_UP_ROUNDS: usize = 20;
const LAG_BYTES: u64 = 1 << 20;
const CATCH_UP_TIME: Duration = Duration::from_secs(10);
/// Longest catching up in all: meanwhile the job cannot be aborted.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// What is switched.
pub struct Switch {
    pub job: JobId,
    pub junction: JunctionId,
    pub source: Arc<Location>,
    pub destination: Arc<Location>,
    pub replayer: Handle,
}

/// How long clients were held.
pub struct Switched {
    pub held: Duration,
}

impl Switch {
    /// Switch, or say why not now; then nothing has changed. `stop_replayer` ends the destination's one writer and
    /// returns when it has.
    pub async fn run<F: Future<Output = ()>>(
        &self,
        core: &Core,
        stop_replayer: impl FnOnce() -> F,
    ) -> Result<Switched> {
        let Ok(caught_up) = tokio::time::timeout(CATCH_UP_MAX, self.catch_up(core)).await else {
            return Err(Error::Other(format!("the two sides did not sync within {CATCH_UP_MAX:?}")));
        };
        caught_up?;
        let begin = Instant::now();
        crash_point!("SWITCH_CAUGHT_UP");
        let hold = core.volume.hold(self.junction);
        crash_point!("SWITCH_HELD");
        let Ok(drained) = tokio::time::timeout(HOLD_MAX, self.drain(core, begin)).await else {
            return Err(Error::Other(format!("the destination did not catch up within {HOLD_MAX:?} of hold")));
        };
        drained?;
        // It has nothing to do: this takes no time, unless it hangs in a call.
        let left = HOLD_MAX.saturating_sub(begin.elapsed());
        if tokio::time::timeout(left, stop_replayer()).await.is_err() {
            return Err(Error::Other(format!("the destination's replayer did not end within {HOLD_MAX:?} of hold")));
        }
        crash_point!("SWITCH_REPLAYER_STOPPED");
        if self.destination.fence.is_closed() {
            return Err(Error::Other("the destination's replayer had something under way".into()));
        }
        self.destination.objects.store.set_exact(false);
        core.locations.insert(self.destination.clone());
        crash_point!("SWITCH_BEFORE_APPEND");
        // From its place in the journal on nothing but the flush decides.
        let switch = Command::SwitchJunction { job: self.job };
        if let Err(error) = core.ledger.command_by(&switch, Some(begin + HOLD_MAX)).await {
            core.locations.remove(self.destination.id);
            self.destination.objects.store.set_exact(true);
            return Err(match error {
                CommandError::Refused(why) => Error::Other(why.reason),
                CommandError::Journal(error) => error.into(),
                CommandError::Late => {
                    Error::Other(format!("the journal had no place for it within {HOLD_MAX:?} of hold"))
                }
            });
        }
        crash_point!("SWITCH_FLUSHED");
        drop(hold);
        let held = begin.elapsed();
        crash_point!("SWITCH_RELEASED");
        core.locations.remove(self.source.id);
        core.volume.closed(self.source.id);
        Ok(Switched { held })
    }

    async fn catch_up(&self, core: &Core) -> Result<()> {
        for _ in 0..CATCH_UP_ROUNDS {
            let to = core.ledger.settled_lsn(self.junction);
            if !self.replayer.commit(to, CATCH_UP_TIME).await {
                return Err(Error::Other("the destination does not catch up".into()));
            }
            checkpoint::left(core, self.junction, &self.source).await?;
            if core.ledger.journal.end_lsn().0.saturating_sub(to.0) <= LAG_BYTES {
                break;
            }
        }
        // Once more with little to do, so that the sync inside the hold is short.
        self.replayer.commit(core.ledger.settled_lsn(self.junction), HOLD_MAX).await;
        Ok(())
    }

    async fn drain(&self, core: &Core, begin: Instant) -> Result<()> {
        if !crate::planted::is('n') {
            core.volume.drained(self.junction).await;
        }
        crash_point!("SWITCH_DRAINED");
        let to = core.ledger.journal.end_lsn();
        core.ledger.wait_durable(to).await?;
        // The old side is left as clients last saw it, times included.
        checkpoint::left(core, self.junction, &self.source).await?;
        crash_point!("SWITCH_SOURCE_SYNCED");
        let left = HOLD_MAX.saturating_sub(begin.elapsed());
        if !crate::planted::is('n') && !self.replayer.commit(to, left).await {
            return Err(Error::Other("the destination did not commit in time".into()));
        }
        crash_point!("SWITCH_COMMITTED");
        if !self.replayer.status.borrow().pending.is_none() {
            return Err(Error::Other("something came that is not copied yet".into()));
        }
        self.tidy(core).await
    }

    /// Take the pen away, which touched the root's times. What waits in it must have found its place.
    async fn tidy(&self, core: &Core) -> Result<()> {
        let pen = self.destination.filer.pen().await?;
        if !self.destination.filer.list(&pen, 0, 1).await?.names.is_empty() {
            return Err(Error::Other("the destination's pen holds objects that have no place: see the log".into()));
        }
        self.destination.filer.remove_pen().await?;
        if let Some(rec) = core.live.node(self.destination.root)? {
            let root = self.destination.filer.root().await?;
            // Again: on the filers somebody may have changed what no client can.
            put_root(self.source.filer.as_ref(), self.destination.filer.as_ref()).await?;
            let changes = Changes { mtime: Some(rec.mtime), ..Changes::default() };
            self.destination.filer.set(&root, changes).await?;
        }
        crash_point!("SWITCH_TIDIED");
        self.destination.filer.sync().await?;
        Ok(())
    }
}
