//! Append and fold as one step, in LSN order; views of State; which operations have not ended.
//!
//! * State is folded under the journal's short lock, the moment a record gets its place: State is always the fold of
//!   exactly the records before the journal's end.
//! * A client operation is *unsettled* from the moment it has an LSN until it has one of its ends (design §4). The
//!   settled LSN of a junction is the first unsettled operation's, or the journal's end: replayers read below it, and
//!   a primary's cursor never passes it.
//! * Commands are decided and appended one at a time, so that no decision is made on a State that another decision is
//!   about to change.
//!
//! Bound: unsettled operations are as many as the gateway lets be in flight, and as have room for their ends in the
//! journal's reserve.

use crate::env::watch;
use crate::journal::{Appended, Class, Journal, Result};
use crate::state::{Command, Refusal, State};
use journal_format::event::{Event, Failed, Partial};
use journal_format::ids::{JunctionId, Lsn, NodeId, Time};
use parking_lot::{Mutex, RwLock};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

#[derive(Clone)]
pub struct Ledger {
    pub journal: Journal,
    inner: Arc<Inner>,
}

/// Told of every event of a command when it is durable: what State does not keep (a junction's root node) goes on to
/// the index from here.
pub type Told = Box<dyn Fn(&Appended, &Event) + Send + Sync>;

struct Inner {
    told: Told,
    state: RwLock<Arc<State>>,
    unsettled: Mutex<BTreeMap<JunctionId, BTreeSet<Lsn>>>,
    /// Times of the unsettled operations that change a node.
    under_way: Mutex<HashMap<NodeId, Vec<Time>>>,
    doubts: Mutex<BTreeMap<JunctionId, Lsn>>,
    /// One command at a time.
    commands: tokio::sync::Mutex<()>,
    moved: watch::Sender<u64>,
    activity: AtomicU64,
    /// Room in the journal's last segment for the ends of operations that are under way.
    ends: Arc<Semaphore>,
}

/// How long a command waits for room in a journal that is full.
const ROOM_WAIT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// How often it looks whether there is room, and how long it keeps others from their turn for that.
const ROOM_LOOK: Duration = Duration::from_millis(20);
const TURN_MAX: Duration = Duration::from_millis(100);
/// What an end takes, with the filler of a batch of its own.
const END_BYTES_MAX: u64 = 8192;
/// Small segments are for tests, which fill no reserve.
const ENDS_MIN: u64 = 512;

/// A client operation that was appended and has not ended: while one is alive, its junction's settled LSN stays
/// at or before it. It must be given back to [`Ledger::done`] or [`Ledger::ended`]; one that is lost on the way (a
/// panic) stays unsettled until the next start, which redoes it.
#[must_use]
#[derive(Debug)]
pub struct Op {
    pub at: Appended,
    junction: JunctionId,
    /// Those it changes.
    nodes: [Option<NodeId>; 4],
    /// Room for its end.
    end: Option<OwnedSemaphorePermit>,
}

impl Inner {
    /// State as it is right behind the record.
    fn fold(&self, at: Appended, event: &Event) -> Arc<State> {
        let mut state = self.state.write();
        crate::state::apply(Arc::make_mut(&mut state), at.lsn, at.end, at.time, event)
            .expect("an event that was decided on this State cannot contradict it");
        state.clone()
    }
}

impl Ledger {
    #[must_use]
    pub fn new(journal: Journal, state: State, told: Told) -> Self {
        let ends = (journal.segment_size() / END_BYTES_MAX).max(ENDS_MIN);
        let inner = Inner {
            told,
            state: RwLock::new(Arc::new(state)),
            unsettled: Mutex::default(),
            under_way: Mutex::default(),
            doubts: Mutex::default(),
            commands: tokio::sync::Mutex::new(()),
            moved: watch::Sender::new(0),
            activity: AtomicU64::new(0),
            ends: Arc::new(Semaphore::new(usize::try_from(ends).unwrap_or(Semaphore::MAX_PERMITS))),
        };
        Self { journal, inner: Arc::new(inner) }
    }

    /// Append a client operation and wait until it is durable. From the moment it has an LSN it is unsettled.
    pub async fn begin(&self, junction: JunctionId, event: &Event, bulk: &[u8]) -> Result<Op> {
        self.inner.activity.fetch_add(1, Ordering::Relaxed);
        // There are always some that can end: those that cannot are fewer (the volume bounds them).
        let end = self.inner.ends.clone().acquire_owned().await.map_err(|_| crate::journal::Error::Closed)?;
        self.begin_with(end, junction, event, bulk).await
    }

    /// The same for what follows from an operation whose end is recorded, and which is not [`done`](Self::done): it has the
    /// room of that one's end. (To wait for more while all others do the same would never end.)
    pub async fn begin_behind(&self, ended: &mut Op, event: &Event, bulk: &[u8]) -> Result<Op> {
        let junction = ended.junction;
        match ended.end.take() {
            Some(end) => self.begin_with(end, junction, event, bulk).await,
            None => self.begin(junction, event, bulk).await,
        }
    }

    async fn begin_with(
        &self,
        end: OwnedSemaphorePermit,
        junction: JunctionId,
        event: &Event,
        bulk: &[u8],
    ) -> Result<Op> {
        crash_point!(crate::crash::kind(event), "BEFORE_APPEND");
        let (unsettled, under_way, nodes) = (&self.inner.unsettled, &self.inner.under_way, changed_by(event));
        let (pending, ()) = self
            .journal
            .append_pending(event, bulk, |at| {
                unsettled.lock().entry(junction).or_default().insert(at.lsn);
                let mut under_way = under_way.lock();
                for node in nodes.into_iter().flatten() {
                    under_way.entry(node).or_default().push(at.time);
                }
            })
            .await?;
        let at = pending.at();
        crash_point!(crate::crash::kind(event), "AFTER_APPEND");
        // On a failure the process stops (I8); the operation stays unsettled, as it must.
        if !crate::planted::is('b') {
            pending.durable().await?;
        }
        crash_point!(crate::crash::kind(event), "AFTER_DURABLE");
        Ok(Op { at, junction, nodes, end: Some(end) })
    }

    /// The operation was carried out whole.
    pub fn done(&self, op: Op) {
        let mut unsettled = self.inner.unsettled.lock();
        if let Some(set) = unsettled.get_mut(&op.junction) {
            set.remove(&op.at.lsn);
            if set.is_empty() {
                unsettled.remove(&op.junction);
            }
        }
        drop(unsettled);
        let mut under_way = self.inner.under_way.lock();
        for node in op.nodes.into_iter().flatten() {
            if let Entry::Occupied(mut times) = under_way.entry(node) {
                times.get_mut().retain(|time| *time != op.at.time);
                if times.get().is_empty() {
                    times.remove();
                }
            }
        }
        drop(under_way);
        self.wake();
    }

    /// A node's change time as clients are to see it; `last` is that of the last operation on it that is done. While older
    /// ones are under way it lies a nanosecond for each of them before `last`: when such a one ends whoever looked before
    /// sees that something has changed since, and when none is left it is what the journal says, also after a crash.
    /// (Records' times differ by a nanosecond at least, so that it grows with each operation that ends, in any order.)
    #[must_use]
    pub fn shown_ctime(&self, node: NodeId, last: Time) -> Time {
        let under_way = self.inner.under_way.lock();
        let older = under_way.get(&node).map_or(0, |times| times.iter().filter(|time| **time < last).count());
        Time(last.0.saturating_sub(i64::try_from(older).unwrap_or(i64::MAX)))
    }

    /// It ended otherwise: `end` is its `Failed` or `Partial`; durable when this returns.
    pub async fn ended(&self, op: Op, end: Event) -> Result<()> {
        debug_assert!(
            matches!(end, Event::Failed(Failed { op: lsn, .. }) | Event::Partial(Partial { op: lsn, .. }) if lsn == op.at.lsn)
        );
        if crate::planted::is('m') {
            let ledger = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                if ledger.append(&end).await.is_ok() {
                    ledger.done(op);
                }
            });
            return Ok(());
        }
        crash_point!("ENDED_BEFORE_APPEND");
        let at = self.append(&end).await?;
        crash_point!("ENDED_APPENDED");
        self.journal.wait_durable(at.end).await?;
        crash_point!("ENDED_DURABLE");
        self.done(op);
        Ok(())
    }

    /// The junction's operations from `lsn` on are in doubt: its primary has not been redone since the start, and they are
    /// not in the live index. Until they are [`decided`](Self::decided) its settled LSN stays there.
    pub fn doubt(&self, junction: JunctionId, lsn: Lsn) {
        self.inner.doubts.lock().insert(junction, lsn);
    }

    /// Every operation of the junction before the journal's end has ended, and is in the live index.
    pub fn decided(&self, junction: JunctionId) {
        self.inner.doubts.lock().remove(&junction);
        self.wake();
    }

    /// From where on operations are in doubt, if they are.
    #[must_use]
    pub fn doubt_from(&self, junction: JunctionId) -> Option<Lsn> {
        self.inner.doubts.lock().get(&junction).copied()
    }

    /// Tell what an event that is durable says, as those of a command are told.
    pub fn tell(&self, at: &Appended, event: &Event) {
        (self.inner.told)(at, event);
    }

    /// Append any other event; State is folded with it in the same step. Not durable yet.
    pub async fn append(&self, event: &Event) -> Result<Appended> {
        Ok(self.append_view(event).await?.0)
    }

    /// The same, with State as it is right behind the record: what a snapshot at `end` holds.
    pub async fn append_view(&self, event: &Event) -> Result<(Appended, Arc<State>)> {
        let inner = &self.inner;
        if !matches!(event, Event::Cursor(_)) {
            inner.activity.fetch_add(1, Ordering::Relaxed);
        }
        let appended = self.journal.append_with(event, &[], |at| inner.fold(at, event)).await?;
        self.wake();
        Ok(appended)
    }

    /// [`append`](Self::append) what nobody waits for.
    pub async fn append_unhurried(&self, event: &Event) -> Result<Appended> {
        let inner = &self.inner;
        inner.activity.fetch_add(1, Ordering::Relaxed);
        let (at, _) = self.journal.append_unhurried(event, |at| inner.fold(at, event)).await?;
        self.wake();
        Ok(at)
    }

    pub async fn wait_durable(&self, end: Lsn) -> Result<()> {
        self.journal.wait_durable(end).await
    }

    /// Append and wait until durable.
    pub async fn record(&self, event: &Event) -> Result<Appended> {
        let at = self.append(event).await?;
        self.journal.wait_durable(at.end).await?;
        Ok(at)
    }

    /// decide, append all, wait until durable: one step, no other command between.
    pub async fn command(&self, command: &Command) -> std::result::Result<Vec<Appended>, CommandError> {
        self.command_by(command, None).await
    }

    /// The same; what has no place in the journal by then gets none.
    pub async fn command_by(
        &self,
        command: &Command,
        by: Option<Instant>,
    ) -> std::result::Result<Vec<Appended>, CommandError> {
        let (_turn, events, first) = self.begin_command(command, by).await?;
        let mut appended: Vec<Appended> = first.into_iter().collect();
        // Upkeep, all of them: what was begun is not told that there is no room.
        for event in events.iter().skip(1) {
            appended.push(self.append(event).await?);
        }
        crash_point!("COMMAND_APPENDED");
        if let Some(last) = appended.last() {
            self.journal.wait_durable(last.end).await?;
        }
        crash_point!("COMMAND_DURABLE");
        for (at, event) in appended.iter().zip(&events) {
            (self.inner.told)(at, event);
        }
        crash_point!("COMMAND_TOLD");
        Ok(appended)
    }

    /// Its turn, what it comes to, and the place of the first event. A command that waits for room gives its turn to others
    /// meanwhile: what takes jobs on and switches has room that it has not.
    async fn begin_command(
        &self,
        command: &Command,
        by: Option<Instant>,
    ) -> std::result::Result<Begun<'_>, CommandError> {
        let full_at = Instant::now() + ROOM_WAIT;
        loop {
            let turn = before(by, self.inner.commands.lock()).await.ok_or(CommandError::Late)?;
            let events = crate::state::decide(&self.state(), command).map_err(CommandError::Refused)?;
            crash_point!("COMMAND_DECIDED");
            let Some(first) = events.first() else { return Ok((turn, events, None)) };
            if crate::planted::is('i') && matches!(first, Event::JunctionSwitched(_)) {
                let at = self.only_fold(first);
                return Ok((turn, events, Some(at)));
            }
            let may_find_none = Class::of(first) == Class::Operation;
            let until = if may_find_none { Some(Instant::now() + TURN_MAX) } else { by };
            if let Some(at) = before(until, self.append(first)).await {
                let at = at?;
                #[cfg(feature = "crash-points")]
                if let Event::JunctionSwitched(_) = first {
                    crash_point!("SWITCH_APPENDED");
                }
                return Ok((turn, events, Some(at)));
            }
            // Given up before it had a place: nothing was appended.
            drop(turn);
            if !may_find_none || by.is_some_and(|by| by <= Instant::now()) {
                return Err(CommandError::Late);
            }
            while self.journal.is_full() && Instant::now() < full_at {
                tokio::time::sleep(ROOM_LOOK).await;
            }
            if Instant::now() >= full_at {
                let limit = self.journal.stats().segments_max * self.journal.segment_size();
                return Err(crate::journal::Error::Full { limit }.into());
            }
        }
    }

    /// Planted bug (i): State is changed, the journal is not.
    fn only_fold(&self, event: &Event) -> Appended {
        let end = self.journal.end_lsn();
        let at = Appended { lsn: end, end: end.plus(1), time: Default::default() };
        let mut shared = self.inner.state.write();
        let state = Arc::make_mut(&mut shared);
        let lsn = state.lsn;
        crate::state::apply(state, at.lsn, at.end, at.time, event)
            .expect("an event that was decided on this State cannot contradict it");
        state.lsn = lsn;
        Appended { end, ..at }
    }

    /// State as of the last append.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.inner.state.read().clone()
    }

    /// Every operation on the junction before this LSN has ended.
    #[must_use]
    pub fn settled_lsn(&self, junction: JunctionId) -> Lsn {
        // The end first: an operation appended after this line lies at or behind it.
        let end = self.journal.end_lsn();
        let unsettled = self.inner.unsettled.lock();
        let settled = unsettled.get(&junction).and_then(BTreeSet::first).map_or(end, |lsn| end.min(*lsn));
        drop(unsettled);
        self.doubt_from(junction).map_or(settled, |lsn| settled.min(lsn))
    }

    /// Every operation on any junction before this LSN has ended, and its record is durable.
    #[must_use]
    pub fn settled_all_lsn(&self) -> Lsn {
        let end = self.journal.durable_lsn();
        let unsettled = self.inner.unsettled.lock();
        let settled = unsettled.values().filter_map(BTreeSet::first).min().map_or(end, |lsn| end.min(*lsn));
        drop(unsettled);
        self.inner.doubts.lock().values().min().map_or(settled, |lsn| settled.min(*lsn))
    }

    /// The same without these junctions.
    #[must_use]
    pub fn settled_without(&self, aside: &BTreeSet<JunctionId>) -> Lsn {
        let end = self.journal.durable_lsn();
        let unsettled = self.inner.unsettled.lock();
        let others = unsettled.iter().filter(|(junction, _)| !aside.contains(junction));
        let settled = others.filter_map(|(_, ops)| ops.first()).min().map_or(end, |lsn| end.min(*lsn));
        drop(unsettled);
        let doubts = self.inner.doubts.lock();
        let others = doubts.iter().filter(|(junction, _)| !aside.contains(junction));
        others.map(|(_, lsn)| *lsn).min().map_or(settled, |lsn| settled.min(lsn))
    }

    /// All sides have what they may have, and the junction's would grow: its primary has not passed it.
    #[must_use]
    pub fn side_is_full(&self, junction: JunctionId) -> bool {
        self.journal.side_is_full(junction) && {
            let state = self.state();
            let primary = state.junctions.get(&junction).and_then(|found| state.locations.get(&found.primary));
            primary.is_some_and(|at| self.journal.side_end(junction).is_some_and(|end| at.cursor < end))
        }
    }

    /// Grows with everything that is appended, cursors apart: unchanged, there is nothing new to checkpoint.
    #[must_use]
    pub fn activity(&self) -> u64 {
        self.inner.activity.load(Ordering::Relaxed)
    }

    /// Operations that have not ended.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.inner.unsettled.lock().values().map(BTreeSet::len).sum()
    }

    /// Wakes whenever an operation has ended or State has moved.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.moved.subscribe()
    }

    fn wake(&self) {
        self.inner.moved.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Nodes whose change time an operation sets, each once, but for the one it makes.
fn changed_by(event: &Event) -> [Option<NodeId>; 4] {
    match event {
        Event::Write(e) => [Some(e.node), None, None, None],
        Event::SetAttr(e) => [Some(e.node), None, None, None],
        Event::Make(e) => [Some(e.dir), None, None, None],
        Event::Remove(e) => [Some(e.dir), Some(e.node), None, None],
        Event::Link(e) => [Some(e.dir), Some(e.node), None, None],
        Event::Rename(e) => {
            let to = (e.to_dir != e.from_dir).then_some(e.to_dir);
            [Some(e.from_dir), to, Some(e.node), e.replaced.as_ref().map(|replaced| replaced.node)]
        }
        _ => [None; 4],
    }
}

/// A command's turn, its events, and the place of the first.
type Begun<'a> = (MutexGuard<'a, ()>, Vec<Event>, Option<Appended>);

/// `None` when it is not done by then.
async fn before<T>(by: Option<Instant>, done: impl Future<Output = T>) -> Option<T> {
    match by {
        None => Some(done.await),
        Some(by) => tokio::time::timeout_at(by, done).await.ok(),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Refused(Refusal),
    /// Nothing was appended.
    #[error("other commands, or a journal without room, took too long")]
    Late,
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
}

#[cfg(test)]
mod tests;
