//! From the record to the end of an operation, in a task of its own.
//!
//! Once an event is durable it must be carried out and ended whatever becomes of the client, so everything from
//! `ledger.begin` on runs in a spawned task that owns the permit, the locks and the objects. The client's own task only
//! waits for it: for the record as long as the journal takes (a client that was sent away repeats its call; an
//! operation must not be appended after that), and from then on no longer than [`PATIENCE`]. Then it answers JUKEBOX,
//! and the operation goes on, unsettled and locked, until the filer says what came of it. If the process dies
//! meanwhile, recovery redoes it from the journal.
//!
//! ```text
//! begin ── durable ──► carry out ─┬─ done ────► index, objects, Made ──► ledger.done
//!   │                    ▲        ├─ refused ─► ledger.ended(Failed)
//!   │ journal failed     │wait    └─ part ────► index ─────────────────► ledger.ended(Partial)
//!   ▼                    └── not known ── its primary fell ──► taken over by the redo (take_over.rs)
//! JUKEBOX
//! ```
//!
//! **Bound**: tasks whose client has been sent away count as stuck; at [`STUCK_MAX`] of them a junction's new operations
//! get JUKEBOX before they are appended, and at [`STUCK_ALL_MAX`] in all those of every junction that has any. So there are
//! never more than that and the calls in flight, which the gateway bounds; and a hung filer takes nothing from others.

use super::Volume;
use super::act::{Act, Outcome};
use super::broken_off::is_broken_off;
use super::hold::Permit;
use super::late::Owed;
use super::locks::Guard;
use super::take_over::Effort;
use super::types::Status;
use crate::filer::{self, Object};
use crate::index::store;
use crate::journal::Appended;
use crate::ledger::Op;
use crate::location::Location;
use crate::location::round::part_of;
use journal_format::event::{self, Event, Failed, Made, PartDone, Partial};
use journal_format::ids::{JunctionId, LocationId, Lsn, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a client waits for an operation that has been begun.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A junction's operations that no client waits for any more, beyond which no new ones are begun. Each may hold the
/// data of a WRITE.
pub const STUCK_MAX: usize = 64;
/// The same of all junctions.
pub const STUCK_ALL_MAX: usize = 256;
/// Between two tries: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What an operation's task owns.
pub(super) struct Mutation {
    pub permit: Permit,
    pub guard: Guard,
    pub location: Arc<Location>,
    pub act: Act,
}

/// It has ended, done; its locks are still held, so that the attributes of the answer are those it left.
pub(super) struct Ended {
    pub guard: Guard,
    /// Bytes written, of a WRITE: fewer than asked for when the rest was refused.
    pub written: u32,
    /// Kept so that a hold finds the junction drained only when the answer is made, too.
    pub _permit: Permit,
}

/// The pauses of an operation that waits for a filer.
pub(super) struct Waiting<'a> {
    name: &'static str,
    location: LocationId,
    effort: &'a Effort,
    pauses: u32,
    in_pause: bool,
    in_doubt: bool,
}

impl<'a> Waiting<'a> {
    pub const fn new(name: &'static str, location: LocationId, effort: &'a Effort) -> Self {
        Self { name, location, effort, pauses: 0, in_pause: false, in_doubt: false }
    }

    /// An earlier call's outcome was not known: a definite error proves nothing any more.
    pub const fn has_waited(&self) -> bool {
        self.pauses > 0
    }

    /// What came of it was, or is about to be, found out by looking.
    pub const fn is_in_doubt(&mut self) {
        self.in_doubt = true;
    }

    pub const fn was_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// To be called only while nothing else of the operation is under way: it may not return (`take_over.rs`).
    pub async fn pause(&mut self, error: &filer::Error) {
        if self.pauses == 0 {
            tracing::warn!(op = self.name, location = %self.location, %error, "outcome not known: held, and tried again");
        }
        self.pauses = self.pauses.saturating_add(1);
        self.in_pause = true;
        self.effort.rests();
        tokio::time::sleep(pause_after(self.pauses)).await;
        self.effort.goes_on().await;
        self.in_pause = false;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.in_pause {
            tracing::info!(op = self.name, location = %self.location, pauses = self.pauses, "left to the redo of its primary");
        } else if self.pauses > 0 {
            tracing::info!(op = self.name, location = %self.location, pauses = self.pauses, "outcome known");
        }
    }
}

/// Operations that no client waits for any more, by junction. Clones are the same counts.
#[derive(Clone, Default)]
pub(super) struct StuckCounts {
    counts: Arc<Mutex<BTreeMap<JunctionId, Hanging>>>,
    /// They may take long.
    quiet: bool,
}

/// A junction's.
struct Hanging {
    count: usize,
    since: Instant,
}

impl StuckCounts {
    /// Of what reads directories before it is known what is in them.
    pub fn of_readings() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    pub fn all(&self) -> usize {
        self.counts.lock().values().map(|hanging| hanging.count).sum()
    }

    /// Of each junction that has any, how many, and since when it has had some.
    pub fn by_junction(&self) -> BTreeMap<JunctionId, (usize, Duration)> {
        self.counts.lock().iter().map(|(id, hanging)| (*id, (hanging.count, hanging.since.elapsed()))).collect()
    }

    pub fn any(&self, junction: JunctionId) -> bool {
        self.counts.lock().contains_key(&junction)
    }

    fn may_begin(&self, junction: JunctionId) -> bool {
        let counts = self.counts.lock();
        match counts.get(&junction) {
            None => true,
            Some(own) => {
                own.count < STUCK_MAX && counts.values().map(|hanging| hanging.count).sum::<usize>() < STUCK_ALL_MAX
            }
        }
    }

    pub fn one_more(&self, junction: JunctionId) -> Stuck {
        let mut counts = self.counts.lock();
        let hanging = counts.entry(junction).or_insert_with(|| {
            if self.quiet {
                tracing::info!(%junction, "a directory takes longer to be read than its client waits: it goes on, and the client comes again");
            } else {
                tracing::warn!(%junction, "an operation that has begun does not end: its filer hangs, and its clients wait");
            }
            Hanging { count: 0, since: Instant::now() }
        });
        hanging.count += 1;
        drop(counts);
        Stuck { counts: self.clone(), junction }
    }
}

/// Counts one that its client does not wait for any more.
pub(super) struct Stuck {
    counts: StuckCounts,
    junction: JunctionId,
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let mut counts = self.counts.counts.lock();
        if let Some(hanging) = counts.get_mut(&self.junction) {
            hanging.count -= 1;
            if hanging.count == 0 {
                tracing::info!(junction = %self.junction, after = ?hanging.since.elapsed(), "everything that hung has ended");
                counts.remove(&self.junction);
            }
        }
    }
}

/// `work`, counted as stuck from `patience` on.
async fn counted<T>(stuck: StuckCounts, junction: JunctionId, patience: Duration, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if let Ok(result) = tokio::time::timeout(patience, &mut work).await {
        return result;
    }
    let _stuck = stuck.one_more(junction);
    work.await
}

fn pause_after(pauses: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << pauses.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

type Work<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// Work on its way that must not stop half way: an operation, mostly. It goes where whoever waits for it goes, which costs
/// no change of threads; when he leaves it goes on in a task of its own.
struct Going<T: Send + 'static> {
    op: Option<Work<T>>,
    stuck: StuckCounts,
    junction: JunctionId,
}

impl<T: Send + 'static> Going<T> {
    /// Nobody waits for it any more.
    fn leave(mut self) {
        if let Some(op) = self.op.take() {
            let stuck = self.stuck.one_more(self.junction);
            tokio::spawn(async move {
                let _stuck = stuck;
                op.await
            });
        }
    }
}

impl<T: Send + 'static> Future for Going<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken out, so that one that panics is not driven on.
        let mut op = self.op.take().expect("polled until it has ended");
        let polled = op.as_mut().poll(context);
        if polled.is_pending() {
            self.op = Some(op);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Going<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the next start redoes it.
        if let (Some(op), Ok(runtime)) = (self.op.take(), Handle::try_current()) {
            runtime.spawn(counted(self.stuck.clone(), self.junction, PATIENCE, op));
        }
    }
}

impl Volume {
    /// Begin the operation and see it to its end.
    pub(super) async fn run(&self, mutation: Mutation) -> Result<Ended, Status> {
        let junction = mutation.permit.junction();
        self.check_stuck(junction)?;
        let (begun, has_begun) = oneshot::channel();
        let volume = self.clone();
        let op = Box::pin(async move { volume.begin_and_end(mutation, begun).await });
        let mut going = Going { op: Some(op), stuck: self.stuck.clone(), junction };
        let owed = tokio::select! {
            biased;
            ended = &mut going => return ended,
            owed = has_begun => owed.unwrap_or_default(),
        };
        if let Ok(ended) = tokio::time::timeout(PATIENCE, &mut going).await {
            return ended;
        }
        self.remember(owed, going);
        Err(Status::Jukebox)
    }

    /// The client is sent away; what comes of its call is kept for when it comes again.
    fn remember(&self, owed: Option<Owed>, mut going: Going<Ended>) {
        let Some(op) = going.op.take() else { return };
        let stuck = self.stuck.one_more(going.junction);
        let late = self.late.clone();
        let owed = owed.map(|owed| (late.begin(&owed), owed));
        let op = tokio::spawn(op);
        tokio::spawn(async move {
            let _stuck = stuck;
            let ended = op.await;
            if let Some((seq, owed)) = owed {
                late.ended(seq, owed, matches!(ended, Ok(Ok(_))));
            }
            if let Err(error) = ended {
                // Our own bug. What it had begun stays unsettled, and is redone at the next start.
                tracing::error!(%error, "an operation's task ended before the operation did");
            }
        });
    }

    /// Reading of the junction's directories that must not stop half way; JUKEBOX when it takes longer, and it goes on. It
    /// must not make its thread wait: see [`detached`](Self::detached).
    pub(super) async fn seen_through<T: Send + 'static>(
        &self,
        junction: JunctionId,
        patience: Duration,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        if !self.reading.may_begin(junction) {
            return Err(Status::Jukebox);
        }
        let mut going = Going { op: Some(Box::pin(work)), stuck: self.reading.clone(), junction };
        if let Ok(ended) = tokio::time::timeout(patience, &mut going).await {
            return ended;
        }
        going.leave();
        Err(Status::Jukebox)
    }

    /// The same in a task of its own, for bulk work: while that makes its thread wait its client must be told all the same.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        junction: JunctionId,
        patience: Duration,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let ended = async move {
            tokio::spawn(work).await.unwrap_or_else(|error| {
                // Our own bug.
                tracing::error!(%error, "work on a junction ended before it was done");
                Err(Status::ServerFault)
            })
        };
        self.seen_through(junction, patience, ended).await
    }

    fn check_stuck(&self, junction: JunctionId) -> Result<(), Status> {
        let may_begin = self.stuck.may_begin(junction) && !self.ledger.side_is_full(junction);
        if may_begin { Ok(()) } else { Err(Status::Jukebox) }
    }

    async fn begin_and_end(&self, mutation: Mutation, begun: oneshot::Sender<Option<Owed>>) -> Result<Ended, Status> {
        let event = mutation.act.event();
        let owed = Owed::of(&event);
        if let Some(owed) = &owed {
            self.late.begins(owed);
        }
        let op = self.ledger.begin(mutation.permit.junction(), &event, mutation.act.bulk()).await?;
        // Nobody listens when whoever waited has left.
        let _ = begun.send(owed);
        self.end(mutation, event, op).await
    }

    /// [`run`](Self::run) inside a task that is the operation's own already.
    pub(super) async fn to_the_end(&self, mutation: Mutation) -> Result<Ended, Status> {
        let event = mutation.act.event();
        let op = self.ledger.begin(mutation.permit.junction(), &event, mutation.act.bulk()).await?;
        self.end(mutation, event, op).await
    }

    async fn end(&self, mutation: Mutation, event: Event, op: Op) -> Result<Ended, Status> {
        let Mutation { permit, guard, location, act } = mutation;
        let junction = permit.junction();
        let mut ended = Ended { guard, written: 0, _permit: permit };
        let mut moving = if act.takes_names() { Some(location.names_move().await) } else { None };
        let (outcome, recorded) = self.carry_out(junction, op.at.lsn, &act, &location, &mut moving).await;
        match outcome {
            Outcome::Done(made) => {
                crash_point!(crate::crash::kind(&event), "AFTER_CARRY_OUT");
                self.settle(&location, op.at, &act, &event, made.as_ref()).await?;
                drop(moving);
                crash_point!(crate::crash::kind(&event), "AFTER_INDEX");
                if let Event::Write(write) = &event {
                    ended.written = write.len;
                }
                self.ledger.done(op);
                crash_point!(crate::crash::kind(&event), "BEFORE_ANSWER");
                Ok(ended)
            }
            Outcome::Refused(status) => {
                let failed = Failed { op: op.at.lsn, status: status as u32 };
                self.ended(op, Event::Failed(failed), recorded).await?;
                Err(status)
            }
            Outcome::Part(done, status) => {
                let written = if let PartDone::Bytes(bytes) = &done { *bytes } else { 0 };
                // The filer may have changed more than it says, its times among it.
                if let Event::Write(event::Write { node, .. }) | Event::SetAttr(event::SetAttr { node, .. }) = &event {
                    location.touch(*node);
                }
                if let Some(part) = part_of(event, &done) {
                    self.settle(&location, op.at, &act, &part, None).await?;
                }
                let broken_off = !recorded && is_broken_off(&act.event(), &done, status);
                let partial = Event::Partial(Partial { op: op.at.lsn, done, status: status as u32 });
                if broken_off {
                    self.end_broken_off(&location, &act, op, partial, written).await?;
                } else {
                    self.ended(op, partial, recorded).await?;
                }
                // A short WRITE is a success; the client asks for the rest and hears then what is wrong with it.
                ended.written = written;
                if written > 0 { Ok(ended) } else { Err(status) }
            }
        }
    }

    /// It has this end, which may be in the journal already.
    pub(super) async fn ended(&self, op: Op, end: Event, recorded: bool) -> Result<(), Status> {
        if recorded {
            self.ledger.done(op);
            return Ok(());
        }
        Ok(self.ledger.ended(op, end).await?)
    }

    /// Put what was done into index and objects, and say what was made. `event` is what was done of `act`.
    pub(super) async fn settle(
        &self,
        location: &Location,
        at: Appended,
        act: &Act,
        event: &Event,
        made: Option<&Object>,
    ) -> Result<(), Status> {
        let mut pause = 0;
        while let Err(error) = self.record(location, at, act, event, made) {
            // Done on the filer and not in the index: nobody may see this node before it is. Locked, until it works.
            tracing::error!(%error, op = act.name(), lsn = %at.lsn, "the node index failed; trying again");
            pause += 1;
            tokio::time::sleep(pause_after(pause)).await;
        }
        if let (Act::Make { event, .. }, Some(made)) = (act, made) {
            crash_point!("OP_BEFORE_MADE");
            let made = Made { location: location.id, objects: vec![(event.node, made.id.clone())] };
            // Should a power cut take it, the object is found by its name: nothing that comes later is durable then either.
            self.ledger.append_unhurried(&Event::Made(made)).await?;
        }
        Ok(())
    }

    /// Idempotent.
    fn record(
        &self,
        location: &Location,
        at: Appended,
        act: &Act,
        event: &Event,
        made: Option<&Object>,
    ) -> store::Result<()> {
        // Objects first: whoever finds a new node in the index must be able to reach it.
        if let (Act::Make { event, .. }, Some(made)) = (act, made) {
            put(location, event.node, made)?;
        }
        if let Act::Adopt { objects, .. } = act {
            for (node, object) in objects {
                put(location, *node, object)?;
            }
        }
        self.live.apply(at.lsn, at.time, event)?;
        follow(location, at.lsn, event);
        Ok(())
    }
}

fn put(location: &Location, node: NodeId, object: &Object) -> store::Result<()> {
    location.objects.store.write(location.objects.put(node, &object.id)?);
    location.remember(node, object);
    Ok(())
}

/// Kept times that are now others than the filer's are to be put on it before the location's cursor passes; the objects
/// of nodes that are gone are forgotten when that is durable.
fn follow(location: &Location, lsn: Lsn, event: &Event) {
    match event {
        Event::Write(write) => {
            location.touch(write.node);
        }
        // A time that a client sets is put on the filer at once; but a checkpoint may have read the one before, and put
        // it behind.
        Event::SetAttr(set) if set.size.is_some() || set.mtime.is_some() => {
            location.touch(set.node);
        }
        Event::Make(make) => {
            location.touch(make.dir);
            if make.mtime.is_none() {
                location.touch(make.node);
            }
        }
        Event::Remove(remove) => {
            location.touch(remove.dir);
            if remove.last {
                location.retire(lsn, remove.node);
            }
        }
        Event::Rename(rename) => {
            location.touch(rename.from_dir);
            location.touch(rename.to_dir);
            if let Some(replaced) = rename.replaced
                && replaced.last
            {
                location.retire(lsn, replaced.node);
            }
        }
        Event::Link(link) => {
            location.touch(link.dir);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_junction_with_too_many_stuck_operations_begins_none_and_others_go_on() {
        let stuck = StuckCounts::default();
        let hung = JunctionId(1);
        let held: Vec<Stuck> = (0..STUCK_MAX).map(|_| stuck.one_more(hung)).collect();
        assert!(!stuck.may_begin(hung));
        assert!(stuck.may_begin(JunctionId(2)));
        let more: Vec<Stuck> = (0..STUCK_ALL_MAX - STUCK_MAX).map(|i| stuck.one_more(junction(3 + i % 4))).collect();
        assert!(!stuck.may_begin(JunctionId(3)), "all together hold too much");
        assert!(stuck.may_begin(JunctionId(2)), "but who has none is not held for it");
        drop(held);
        assert!(stuck.may_begin(hung) && stuck.may_begin(JunctionId(3)));
        drop(more);
        assert!(stuck.counts.lock().is_empty());
    }

    fn junction(n: usize) -> JunctionId {
        JunctionId(u32::try_from(n).unwrap())
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        assert_eq!(pause_after(1), PAUSE_MIN);
        assert_eq!(pause_after(2), PAUSE_MIN * 2);
        assert_eq!(pause_after(1000), PAUSE_MAX);
    }
}
