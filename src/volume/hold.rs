//! The pause of a switch: new mutations of a junction wait, those under way end, reads go on.
//!
//! Every mutation passes [`Holds::enter`], by `Volume::admit`, so that nobody waits here for a primary that is down, and
//! keeps its [`Permit`] until it has ended (done, `Failed` or `Partial`), an operation whose outcome is not known as long as
//! that lasts. The junction's location is looked up (again) behind `enter`, so between [`Holds::drained`] and the drop of the
//! [`HoldGuard`] nothing can reach the old primary (I5).
//!
//! **Bounds**: at most [`WAITERS_MAX`] mutations wait at one junction, each for [`WAIT_MAX`]; beyond either the client
//! gets JUKEBOX and comes again. A junction is in the table only while somebody is inside or holds it.

use journal_format::ids::JunctionId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use super::types::Status;

/// Most mutations that wait at one junction.
pub const WAITERS_MAX: usize = 1024;
/// How long one waits.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// The gates of all junctions. Clones are the same gates.
#[derive(Clone, Default)]
pub struct Holds {
    gates: Arc<Mutex<BTreeMap<JunctionId, Gate>>>,
}

#[derive(Default)]
struct Gate {
    /// Mutations between `enter` and their end.
    inside: usize,
    /// Holds that have not been released.
    holds: usize,
    waiting: usize,
    /// Somebody waits for `inside` to become 0.
    draining: usize,
    /// Wakes at each release and whenever the last one inside has left.
    moved: Arc<Notify>,
}

impl Gate {
    fn is_idle(&self) -> bool {
        self.inside == 0 && self.holds == 0 && self.waiting == 0 && self.draining == 0
    }
}

/// A mutation is inside. Clones keep it inside until the last one is dropped.
#[derive(Clone)]
pub struct Permit {
    inside: Arc<Inside>,
}

impl Permit {
    /// The junction that it is for.
    #[must_use]
    pub fn junction(&self) -> JunctionId {
        self.inside.junction
    }
}

struct Inside {
    holds: Holds,
    junction: JunctionId,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.holds.change(self.junction, |gate| {
            gate.inside -= 1;
            if gate.inside == 0 {
                gate.moved.notify_waiters();
            }
        });
    }
}

/// New mutations wait until this is dropped.
pub struct HoldGuard {
    holds: Holds,
    junction: JunctionId,
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.holds.change(self.junction, |gate| {
            gate.holds -= 1;
            if gate.holds == 0 {
                gate.moved.notify_waiters();
            }
        });
    }
}

/// Counts itself in a gate while it lives: a future that is dropped must not stay counted.
struct Counted<'a> {
    holds: &'a Holds,
    junction: JunctionId,
    which: fn(&mut Gate) -> &mut usize,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.holds.change(self.junction, |gate| *(self.which)(gate) -= 1);
    }
}

enum Entry<'a> {
    In(Permit),
    Wait(Counted<'a>),
    Full,
}

impl Holds {
    /// Come in; waits while the junction is held.
    pub async fn enter(&self, junction: JunctionId) -> Result<Permit, Status> {
        self.enter_within(junction, WAIT_MAX).await
    }

    async fn enter_within(&self, junction: JunctionId, patience: Duration) -> Result<Permit, Status> {
        match self.try_enter(junction) {
            Entry::In(permit) => Ok(permit),
            Entry::Full => Err(Status::Jukebox),
            Entry::Wait(_counted) => {
                tokio::time::timeout(patience, self.wait(junction)).await.map_err(|_| Status::Jukebox)
            }
        }
    }

    async fn wait(&self, junction: JunctionId) -> Permit {
        loop {
            let moved = self.change(junction, |gate| gate.moved.clone());
            let notified = moved.notified();
            tokio::pin!(notified);
            // Registered before looking again, or a release between the look and the wait would be missed.
            notified.as_mut().enable();
            if let Some(permit) = self.pass(junction) {
                return permit;
            }
            notified.await;
        }
    }

    fn try_enter(&self, junction: JunctionId) -> Entry<'_> {
        if let Some(permit) = self.pass(junction) {
            return Entry::In(permit);
        }
        let full = self.change(junction, |gate| {
            let full = gate.waiting >= WAITERS_MAX;
            if !full {
                gate.waiting += 1;
            }
            full
        });
        if full { Entry::Full } else { Entry::Wait(Counted { holds: self, junction, which: |gate| &mut gate.waiting }) }
    }

    fn pass(&self, junction: JunctionId) -> Option<Permit> {
        let open = self.change(junction, |gate| {
            let open = gate.holds == 0;
            if open {
                gate.inside += 1;
            }
            open
        });
        open.then(|| Permit { inside: Arc::new(Inside { holds: self.clone(), junction }) })
    }

    /// From now on new mutations wait. Holds add up.
    #[must_use = "dropping it releases the junction"]
    pub fn hold(&self, junction: JunctionId) -> HoldGuard {
        self.change(junction, |gate| gate.holds += 1);
        HoldGuard { holds: self.clone(), junction }
    }

    /// Until no mutation is between `enter` and its end. Means something only under a [`HoldGuard`].
    pub async fn drained(&self, junction: JunctionId) {
        self.change(junction, |gate| gate.draining += 1);
        let _counted = Counted { holds: self, junction, which: |gate| &mut gate.draining };
        loop {
            let moved = self.change(junction, |gate| gate.moved.clone());
            let notified = moved.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.change(junction, |gate| gate.inside == 0) {
                return;
            }
            notified.await;
        }
    }

    /// Mutations inside and waiting, for the metrics.
    #[must_use]
    pub fn counts(&self, junction: JunctionId) -> (usize, usize) {
        self.gates.lock().get(&junction).map_or((0, 0), |gate| (gate.inside, gate.waiting))
    }

    fn change<R>(&self, junction: JunctionId, f: impl FnOnce(&mut Gate) -> R) -> R {
        let mut gates = self.gates.lock();
        let gate = gates.entry(junction).or_default();
        let result = f(gate);
        if gate.is_idle() {
            gates.remove(&junction);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const J: JunctionId = JunctionId(1);

    async fn soon<T>(f: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(30), f).await.ok()
    }

    /// What must come; a hang fails.
    async fn at_last<T>(f: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_secs(60), f).await.ok()
    }

    #[tokio::test]
    async fn a_held_junction_lets_nobody_in_until_released_and_others_are_free() {
        let holds = Holds::default();
        let hold = holds.hold(J);
        assert!(soon(holds.enter(J)).await.is_none());
        assert!(soon(holds.enter(JunctionId(2))).await.is_some_and(|p| p.is_ok()));
        let waiter = tokio::spawn({
            let holds = holds.clone();
            async move { holds.enter(J).await.map(|p| p.junction()) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(hold);
        assert_eq!(waiter.await.expect("no panic"), Ok(J));
    }

    #[tokio::test]
    async fn drained_waits_for_the_last_clone_of_every_permit() {
        let holds = Holds::default();
        let permit = holds.enter(J).await.expect("open");
        let clone = permit.clone();
        let _hold = holds.hold(J);
        assert!(soon(holds.drained(J)).await.is_none());
        drop(permit);
        assert!(soon(holds.drained(J)).await.is_none());
        drop(clone);
        assert!(soon(holds.drained(J)).await.is_some());
    }

    #[tokio::test]
    async fn drained_is_woken_by_the_last_one_to_leave() {
        let holds = Holds::default();
        let permit = holds.enter(J).await.expect("open");
        let drained = tokio::spawn({
            let holds = holds.clone();
            async move { holds.drained(J).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(permit);
        assert!(at_last(drained).await.is_some());
    }

    #[tokio::test]
    async fn two_holds_must_both_be_released() {
        let holds = Holds::default();
        let (a, b) = (holds.hold(J), holds.hold(J));
        drop(a);
        assert!(soon(holds.enter(J)).await.is_none());
        drop(b);
        assert!(soon(holds.enter(J)).await.is_some());
    }

    #[tokio::test]
    async fn who_waits_too_long_gets_jukebox() {
        let holds = Holds::default();
        let _hold = holds.hold(J);
        let entered = holds.enter_within(J, Duration::from_millis(20)).await;
        assert_eq!(entered.err(), Some(Status::Jukebox));
        assert_eq!(holds.counts(J), (0, 0));
    }

    #[tokio::test]
    async fn waiters_beyond_the_bound_get_jukebox_at_once() {
        let holds = Holds::default();
        let hold = holds.hold(J);
        let mut waiters = tokio::task::JoinSet::new();
        for _ in 0..WAITERS_MAX {
            let holds = holds.clone();
            waiters.spawn(async move { holds.enter(J).await.map(drop) });
        }
        while holds.counts(J).1 < WAITERS_MAX {
            tokio::task::yield_now().await;
        }
        assert_eq!(soon(holds.enter(J)).await.map(|r| r.err()), Some(Some(Status::Jukebox)));
        drop(hold);
        while let Some(waiter) = waiters.join_next().await {
            assert_eq!(waiter.expect("no panic"), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_junction_that_nobody_uses_is_not_in_the_table() {
        let holds = Holds::default();
        let hold = holds.hold(J);
        assert!(soon(holds.enter(J)).await.is_none(), "and a dropped waiter is not counted any more");
        drop(hold);
        drop(holds.enter(J).await);
        assert!(holds.gates.lock().is_empty());
    }
}
