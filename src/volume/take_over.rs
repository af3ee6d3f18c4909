//! Operations under way that the redo of their primary takes over.
//!
//! An operation whose outcome is not known tries on with the objects that it began with. When its primary falls that may
//! never end: a FUSE file system that died and was mounted anew answers "not connected" to whatever is open of the old one,
//! for ever. To give it its objects again would not do: what the new mount shows is as of some moment before, until it has
//! been redone, so that an operation that looked there could meet a directory or a file that a redo has still to make again,
//! and tell its client that it is gone.
//!
//! But it has its record, and the redo carries out every record from the cursor on, in order, finding objects by identity
//! and by name. So it is the redo's, as at a start:
//!
//! ```text
//! carry out ── not known ──► rests ── time ──► carry out
//!                              │ its primary fell, its root was reached again, and all that is inside rests
//!                              ▼
//!                            taken over ──► redone, synced, clients are let in ──► index, ledger.done
//!                              (to the end:  └─► refused for good, durable ───────► index, ledger.done
//!                               it calls its filer no more)
//! ```
//!
//! # Invariants
//!
//! * Taken over is who *rests*, that is, has no call under way; all those inside, or none. A call that has not come back
//!   could take effect behind the redo: that one is waited for.
//! * Who was taken over never goes on by himself, however often the redo fails in between: a call of his could meet what
//!   the redo has done, and take it for somebody else's.
//! * He keeps his locks and stays unsettled until he is told, so the index is changed as if he had been slow.
//!
//! **Bound**: an entry for each operation that rests, of which [`run`](super::run) bounds the number.

use super::Volume;
use super::act::{Act, Outcome};
use super::types::Status;
use crate::location::Location;
use journal_format::event::PartDone;
use journal_format::ids::{JunctionId, Lsn};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, RwLockReadGuard};
use tokio::time::Instant;

/// How often it is looked whether all that is inside rests.
const LOOK: Duration = Duration::from_millis(20);

/// How an operation ended in a redo that was not done whole; its end is durable.
type End = (Status, Option<PartDone>);

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Rests,
    Taken,
    /// It may be ended.
    Told,
}

#[derive(Default)]
struct Resting {
    stage: Stage,
    end: Option<End>,
    /// Rings at each new stage.
    bell: Arc<Notify>,
}

type Table = BTreeMap<(JunctionId, Lsn), Resting>;

/// The operations that rest. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<Table>>);

impl UnderWay {
    fn carries_out(&self, junction: JunctionId, lsn: Lsn) -> Effort {
        Effort { of: self.clone(), key: (junction, lsn), bell: Arc::default(), has_rested: AtomicBool::new(false) }
    }

    /// If those that rest are so many; one that was told is about to end.
    fn take(&self, junction: JunctionId, inside: usize) -> Option<BTreeSet<Lsn>> {
        let mut table = self.0.lock();
        let rest = table.range(all_of(junction)).filter(|(_, resting)| resting.stage != Stage::Told).count();
        if rest != inside {
            return None;
        }
        let taken = table.range_mut(all_of(junction)).map(|((_, lsn), resting)| {
            resting.ring(Stage::Taken);
            *lsn
        });
        Some(taken.collect())
    }

    fn tell(&self, junction: JunctionId) {
        let mut table = self.0.lock();
        for (_, resting) in table.range_mut(all_of(junction)).filter(|(_, resting)| resting.stage == Stage::Taken) {
            resting.ring(Stage::Told);
        }
    }
}

fn all_of(junction: JunctionId) -> RangeInclusive<(JunctionId, Lsn)> {
    (junction, Lsn(0))..=(junction, Lsn(u64::MAX))
}

impl Resting {
    fn ring(&mut self, stage: Stage) {
        self.stage = stage;
        // Kept, if nobody waits for it yet.
        self.bell.notify_one();
    }
}

/// An operation that is being carried out.
pub(super) struct Effort {
    of: UnderWay,
    key: (JunctionId, Lsn),
    bell: Arc<Notify>,
    /// Else the table need not be asked.
    has_rested: AtomicBool,
}

impl Effort {
    /// From now on, until [`goes_on`](Self::goes_on) has returned, it has no call under way.
    pub fn rests(&self) {
        self.has_rested.store(true, Ordering::Relaxed);
        let mut table = self.of.0.lock();
        table.entry(self.key).or_insert_with(|| Resting { bell: self.bell.clone(), ..Resting::default() });
    }

    /// Does not return when it was taken over: whoever waits for [`taken`](Self::taken) lets go of the rest.
    pub async fn goes_on(&self) {
        if !self.rests_no_more() {
            std::future::pending::<()>().await;
        }
    }

    /// Unless it was taken over.
    fn rests_no_more(&self) -> bool {
        let mut table = self.of.0.lock();
        let free = table.get(&self.key).is_none_or(|resting| resting.stage == Stage::Rests);
        if free {
            table.remove(&self.key);
        }
        free
    }

    async fn taken(&self) {
        self.until(Stage::Taken).await;
    }

    async fn told(&self) -> Option<End> {
        self.until(Stage::Told).await;
        self.of.0.lock().get_mut(&self.key).and_then(|resting| resting.end.take())
    }

    async fn until(&self, stage: Stage) {
        loop {
            self.bell.notified().await;
            let at = self.of.0.lock().get(&self.key).map(|resting| resting.stage);
            if at >= Some(stage) {
                // The next stage may have rung, too.
                self.bell.notify_one();
                return;
            }
        }
    }
}

impl Drop for Effort {
    fn drop(&mut self) {
        if *self.has_rested.get_mut() {
            self.of.0.lock().remove(&self.key);
        }
    }
}

impl Volume {
    /// Carry the operation out; where a redo takes it over, what that came to. And whether its end is in the journal already.
    pub(super) async fn carry_out(
        &self,
        junction: JunctionId,
        lsn: Lsn,
        act: &Act,
        location: &Location,
        moving: &mut Option<RwLockReadGuard<'_, ()>>,
    ) -> (Outcome, bool) {
        let effort = self.under_way.carries_out(junction, lsn);
        tokio::select! {
            biased;
            outcome = act.carry_out(location, &effort) => return (outcome, false),
            () = effort.taken() => {}
        }
        // It takes no name away now; whoever walks names in the redo need not wait for it.
        *moving = None;
        match effort.told().await {
            None => (Outcome::Done(None), false),
            Some((status, None)) => (Outcome::Refused(status), true),
            Some((status, Some(part))) => (Outcome::Part(part, status), true),
        }
    }

    /// The junction's primary has fallen, so nobody comes to it any more. What is under way on it is the redo's from now on:
    /// those operations, or `None` when there is one that does not rest within `patience`, and nothing has changed.
    pub async fn take_over(&self, junction: JunctionId, patience: Duration) -> Option<BTreeSet<Lsn>> {
        let until = Instant::now() + patience;
        loop {
            // Counted first: whoever comes in behind this finds no primary, so that those who rest are of these.
            let inside = self.holds.counts(junction).0;
            let taken = self.under_way.take(junction, inside);
            if taken.is_some() || Instant::now() >= until {
                return taken;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An operation that was taken over has this end, which is durable.
    pub fn refused_by_redo(&self, junction: JunctionId, op: Lsn, status: Status, part: Option<PartDone>) {
        if let Some(resting) = self.under_way.0.lock().get_mut(&(junction, op)) {
            resting.end = Some((status, part));
        }
    }

    /// The primary is redone and up: those that were taken over are done, but for those that have another end.
    pub fn is_redone(&self, junction: JunctionId) {
        self.under_way.tell(junction);
    }
}
