//! Duplicate requests: a non-idempotent call that comes again is not run again.
//!
//! A call is known by client address, xid and a CRC-32 over procedure number and arguments (so an xid used for another
//! call is another call); the port is not part of it, because a client that lost its connection comes back on another.
//!
//! ```text
//!            begin                    finish
//!  (unknown) ─────► Running ───────────────────► Done(reply)          a repeat gets the same bytes
//!                      │ dropped without finish, or JUKEBOX ─► (unknown)     a repeat runs
//!  refill ─────────► Refilled(outcome)                                a repeat's reply is made from the outcome
//! ```
//!
//! While it is not certain yet what came of a refilled call on names its client is sent away (JUKEBOX), and a kernel
//! comes again under a new xid, which would make it another call: it would meet its own work. So what came of it is kept,
//! too, by address, user and checksum ([`Drc::sent_away`]), and told once to whoever makes this very call, if the names
//! still say so. (`volume/late.rs` does the same for operations that outlast their client's patience in one life.)
//!
//! Bounds, for each [`Class`] of calls apart, so that a stream of WRITEs, or of locks, does not push those out whose
//! repetition does more harm: [`CLIENT_MAX`] ended entries a client, [`ENTRIES_MAX`] in all; [`BYTES_MAX`] for all
//! classes, of which data gives way first and names last. At a bound the entries that ended first go (of that client,
//! of all), and a repeat of such a call would run again. Running entries are bounded by the calls in flight. What ended
//! longer ago than [`KEPT_FOR`] is unknown. Clients that were sent away: [`AWAY_MAX`], beyond it the oldest goes; and
//! [`AWAY_FOR`] since it was last sent away (a kernel comes again after 5 s).

use crate::volume::outcome::{Effect, Outcome, operation};
use crate::volume::types::Call;
use crate::wire::xdr::Frame;
use journal_format::event::{Caller, Event, PartDone};
use journal_format::ids::Lsn;
use parking_lot::Mutex;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Ended entries kept for one client, of each class.
pub const CLIENT_MAX: usize = 4096;
/// Ended entries kept in all, of each class.
pub const ENTRIES_MAX: usize = 32_768;
/// Bytes of replies kept in all.
pub const BYTES_MAX: usize = 32 << 20;
/// A call that ended longer ago (in a former life: at the start) is unknown when it comes again.
///
/// A client that hard-mounts repeats a call under the same xid until it is answered: after an hour behind a broken switch
/// it is the same call still, and must not run twice. No time is long enough for all of them; but small systems count
/// their xids from the same number at each power-on, and send the same calls in the same order then. Such a call would be
/// told that it was done, and not be done. So this is longer than it takes to have a network repaired, and shorter than
/// from one morning's power-on to the next. (Where it errs, a repeated call is told EXIST or NOENT; Linux's own server
/// forgets after two minutes.)
pub const KEPT_FOR: Duration = Duration::from_secs(4 * 3600);

/// Calls kept whose clients were sent away.
pub const AWAY_MAX: usize = 1024;
/// So long a client may take to come again.
pub const AWAY_FOR: Duration = Duration::from_secs(120);

/// Calls whose entries are bounded together: in the order in which they give way when there are too many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Class {
    /// WRITE and SETATTR.
    Data,
    /// Of the lock service.
    Locks,
    /// On names. Run again, such a call is told EXIST or NOENT.
    #[default]
    Names,
}

impl Class {
    const COUNT: usize = 3;
}

/// How a call is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    addr: [u8; 16],
    xid: u32,
    sum: u32,
}

impl Key {
    #[must_use]
    pub fn new(addr: IpAddr, xid: u32, sum: u32) -> Self {
        Self { addr: mapped(addr), xid, sum }
    }

    fn of(caller: &Caller) -> Self {
        let addr = IpAddr::from(caller.addr);
        Self::new(addr, caller.xid, caller.call_sum)
    }
}

/// An address as the journal has it: IPv4 mapped into IPv6.
#[must_use]
pub fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A call of a client that was sent away, whatever its xid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Again {
    addr: [u8; 16],
    uid: u32,
    sum: u32,
}

impl Again {
    fn of(call: &Call) -> Self {
        Self { addr: mapped(call.addr), uid: call.uid, sum: call.sum }
    }
}

struct Away {
    seq: u64,
    since: Instant,
    lsn: Lsn,
    outcome: Outcome,
}

/// What to do with a call.
pub enum Begin {
    /// It is new: run it, then [`Running::finish`].
    Run(Running),
    /// It has been answered.
    Done(Frame),
    /// It was answered, or would have been, before a crash.
    Refilled(Outcome),
}

enum Slot {
    Running(watch::Receiver<Option<Frame>>),
    Done { seq: u64, ended: Instant, frame: Frame, class: Class },
    Refilled { seq: u64, ended: Instant, lsn: Lsn, outcome: Outcome },
}

impl Slot {
    fn bytes(&self) -> usize {
        match self {
            Slot::Done { frame, .. } => frame.wire_len(),
            Slot::Running(_) | Slot::Refilled { .. } => 0,
        }
    }

    fn class(&self) -> Class {
        match self {
            Slot::Running(_) => Class::default(),
            Slot::Done { class, .. } => *class,
            Slot::Refilled { outcome, .. } => match outcome.effect {
                Effect::Wrote { .. } | Effect::Set { .. } => Class::Data,
                Effect::Made { .. } | Effect::Removed { .. } | Effect::Renamed { .. } | Effect::Linked { .. } => {
                    Class::Names
                }
            },
        }
    }

    /// It is nobody's any more: [`KEPT_FOR`].
    fn is_old(&self) -> bool {
        match self {
            Slot::Running(_) => false,
            Slot::Done { ended, .. } | Slot::Refilled { ended, .. } => ended.elapsed() > KEPT_FOR,
        }
    }
}

#[derive(Default)]
struct Table {
    slots: HashMap<Key, Slot>,
    /// Ended entries of each class in the order they ended.
    order: [BTreeMap<u64, Key>; Class::COUNT],
    clients: HashMap<([u8; 16], Class), BTreeMap<u64, Key>>,
    /// Refilled entries by the LSN of their operation.
    by_lsn: HashMap<Lsn, Key>,
    away: HashMap<Again, Away>,
    away_order: BTreeMap<u64, Again>,
    bytes: usize,
    seq: u64,
}

/// The cache. Clones are the same cache.
#[derive(Clone, Default)]
pub struct Drc {
    table: Arc<Mutex<Table>>,
}

/// A call that runs. Dropped without [`finish`](Running::finish), it was never known.
pub struct Running {
    drc: Drc,
    key: Key,
    reply: watch::Sender<Option<Frame>>,
    class: Class,
    finished: bool,
}

impl Drc {
    /// Says what to do with a call; waits while the same call is running.
    pub async fn begin(&self, key: Key) -> Begin {
        loop {
            let mut first = match self.table.lock().young(&key).slots.entry(key) {
                Entry::Vacant(slot) => {
                    let (reply, receiver) = watch::channel(None);
                    slot.insert(Slot::Running(receiver));
                    return Begin::Run(Running {
                        drc: self.clone(),
                        key,
                        reply,
                        class: Class::default(),
                        finished: false,
                    });
                }
                Entry::Occupied(slot) => match slot.get() {
                    Slot::Running(reply) => reply.clone(),
                    Slot::Done { frame, .. } => return Begin::Done(frame.clone()),
                    Slot::Refilled { outcome, .. } => return Begin::Refilled(*outcome),
                },
            };
            // An error is a first call that panicked, and was never known: this one runs in its place.
            if let Ok(frame) = first.wait_for(Option::is_some).await {
                let frame = frame.clone().expect("waited for some");
                return Begin::Done(frame);
            }
        }
    }

    /// An operation of the journal, recovered at start; in LSN order. `failed`: the nfsstat3 it ended with, if that is
    /// known already; `Failed` and `Partial` events may be given too, and amend the operation they name. `age`: how long before
    /// the journal's last record it was; what was down since then does not count, a client may be waiting all the time.
    pub fn refill(&self, lsn: Lsn, age: Duration, event: &Event, failed: Option<u32>) {
        let mut table = self.table.lock();
        match event {
            Event::Failed(end) => return table.amend(end.op, |outcome| outcome.failed = Some(end.status)),
            Event::Partial(end) => {
                return table.amend(end.op, |outcome| match (&end.done, &mut outcome.effect) {
                    (PartDone::Bytes(done), Effect::Wrote { count, .. }) if *done > 0 => *count = *done,
                    _ => outcome.failed = Some(end.status),
                });
            }
            _ => {}
        }
        let Some((caller, junction, effect)) = operation(event) else { return };
        let key = Key::of(caller);
        table.remove(&key);
        let ended = Instant::now().checked_sub(age).filter(|_| age <= KEPT_FOR);
        if let Some(ended) = ended
            && failed != Some(JUKEBOX)
        {
            table.seq += 1;
            let seq = table.seq;
            table.by_lsn.insert(lsn, key);
            let outcome = Outcome { junction, effect, failed };
            table.keep(key, seq, Slot::Refilled { seq, ended, lsn, outcome });
        }
    }

    /// What came of a call of a former life, as far as it is known.
    #[must_use]
    pub fn refilled(&self, key: Key) -> Option<Outcome> {
        match self.table.lock().slots.get(&key) {
            Some(Slot::Refilled { outcome, .. }) => Some(*outcome),
            _ => None,
        }
    }

    /// The client of a refilled call on names, which is in doubt, is about to be sent away.
    pub fn sent_away(&self, call: &Call, key: Key) {
        let mut table = self.table.lock();
        let Some(Slot::Refilled { lsn, outcome, .. }) = table.slots.get(&key) else { return };
        if let Effect::Made { .. } | Effect::Removed { .. } | Effect::Renamed { .. } | Effect::Linked { .. } =
            outcome.effect
        {
            let away = Away { seq: 0, since: Instant::now(), lsn: *lsn, outcome: *outcome };
            table.go_away(Again::of(call), away);
        }
    }

    /// What came, as far as it is known, of the same call of a client that was sent away.
    pub fn away(&self, call: &Call) -> Option<Outcome> {
        let mut table = self.table.lock();
        if table.away.is_empty() {
            return None;
        }
        let again = Again::of(call);
        if table.away.get(&again).is_some_and(|away| away.since.elapsed() > AWAY_FOR) {
            table.came_back(&again);
        }
        table.away.get(&again).map(|away| away.outcome)
    }

    /// It is sent away once more.
    pub fn away_again(&self, call: &Call) {
        if let Some(away) = self.table.lock().away.get_mut(&Again::of(call)) {
            away.since = Instant::now();
        }
    }

    /// The same as [`Drc::away`], to be told now: nobody else is told.
    pub fn came_back(&self, call: &Call) -> Option<Outcome> {
        let mut table = self.table.lock();
        if table.away.is_empty() { None } else { table.came_back(&Again::of(call)) }
    }

    /// Entries, running ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().slots.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const JUKEBOX: u32 = crate::volume::types::Status::Jukebox as u32;

impl Running {
    /// It is of this class, and not on names.
    #[must_use]
    pub fn of(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The reply, for those who wait and those who come. `keep` is false for an answer that asks to try again.
    pub fn finish(mut self, frame: &Frame, keep: bool) {
        self.finished = true;
        let mut table = self.drc.table.lock();
        table.remove(&self.key);
        if keep && !crate::planted::is('k') {
            table.seq += 1;
            let seq = table.seq;
            let slot = Slot::Done { seq, ended: Instant::now(), frame: frame.clone(), class: self.class };
            table.keep(self.key, seq, slot);
        }
        drop(table);
        self.reply.send_replace(Some(frame.clone()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            self.drc.table.lock().remove(&self.key);
        }
    }
}

impl Table {
    /// The table without this entry, if it is too old to be told.
    fn young(&mut self, key: &Key) -> &mut Self {
        if self.slots.get(key).is_some_and(Slot::is_old) {
            self.remove(key);
        }
        self
    }

    fn keep(&mut self, key: Key, seq: u64, slot: Slot) {
        let class = slot.class();
        self.bytes += slot.bytes();
        self.slots.insert(key, slot);
        self.order[class as usize].insert(seq, key);
        let of_client = self.clients.entry((key.addr, class)).or_default();
        of_client.insert(seq, key);
        if of_client.len() > CLIENT_MAX
            && let Some((_, oldest)) = of_client.first_key_value()
        {
            let oldest = *oldest;
            self.remove(&oldest);
        }
        while let Some(oldest) = self.too_many() {
            self.remove(&oldest);
        }
    }

    /// What has to go.
    fn too_many(&self) -> Option<Key> {
        let full = self.order.iter().find(|of_class| of_class.len() > ENTRIES_MAX);
        let gives_way = || self.order.iter().find(|of_class| self.bytes > BYTES_MAX && !of_class.is_empty());
        full.or_else(gives_way)?.first_key_value().map(|(_, oldest)| *oldest)
    }

    fn remove(&mut self, key: &Key) {
        let Some(slot) = self.slots.remove(key) else { return };
        self.bytes -= slot.bytes();
        let class = slot.class();
        let seq = match slot {
            Slot::Running(_) => return,
            Slot::Done { seq, .. } => seq,
            Slot::Refilled { seq, lsn, .. } => {
                self.by_lsn.remove(&lsn);
                seq
            }
        };
        self.order[class as usize].remove(&seq);
        if let Entry::Occupied(mut client) = self.clients.entry((key.addr, class)) {
            client.get_mut().remove(&seq);
            if client.get().is_empty() {
                client.remove();
            }
        }
    }

    fn go_away(&mut self, again: Again, away: Away) {
        self.came_back(&again);
        self.seq += 1;
        let seq = self.seq;
        self.away.insert(again, Away { seq, ..away });
        self.away_order.insert(seq, again);
        if self.away_order.len() > AWAY_MAX
            && let Some((_, oldest)) = self.away_order.pop_first()
        {
            self.away.remove(&oldest);
        }
    }

    fn came_back(&mut self, again: &Again) -> Option<Outcome> {
        let away = self.away.remove(again)?;
        self.away_order.remove(&away.seq);
        Some(away.outcome)
    }

    fn amend(&mut self, op: Lsn, change: impl Fn(&mut Outcome)) {
        for away in self.away.values_mut().filter(|away| away.lsn == op) {
            change(&mut away.outcome);
        }
        let Some(key) = self.by_lsn.get(&op).copied() else { return };
        if let Some(Slot::Refilled { outcome, .. }) = self.slots.get_mut(&key) {
            change(outcome);
            if outcome.failed == Some(JUKEBOX) {
                self.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::xdr::Writer;
    use journal_format::event::{Failed, Link, Partial, Write};
    use journal_format::ids::{JunctionId, Kind, NodeId};

    fn frame(word: u32) -> Frame {
        let mut w = Writer::default();
        w.u32(word);
        w.finish()
    }

    fn key(client: u8, xid: u32) -> Key {
        Key::new(IpAddr::from([127, 0, 0, client]), xid, 1)
    }

    async fn run(drc: &Drc, key: Key) -> Running {
        match drc.begin(key).await {
            Begin::Run(running) => running,
            Begin::Done(_) | Begin::Refilled(_) => panic!("known"),
        }
    }

    #[tokio::test]
    async fn a_repeat_gets_the_kept_reply_and_a_repeat_in_progress_waits_for_it() {
        let drc = Drc::default();
        let first = run(&drc, key(1, 1)).await;
        let waiter = tokio::spawn({
            let drc = drc.clone();
            async move { matches!(drc.begin(key(1, 1)).await, Begin::Done(f) if f.to_vec() == frame(7).to_vec()) }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        first.finish(&frame(7), true);
        assert!(waiter.await.unwrap());
        assert!(matches!(drc.begin(key(1, 1)).await, Begin::Done(_)));
        let mapped = Key::new("::ffff:127.0.0.1".parse().unwrap(), 1, 1);
        assert!(matches!(drc.begin(mapped).await, Begin::Done(_)), "one client, however its address is written");
        run(&drc, key(2, 1)).await;
        run(&drc, key(1, 2)).await;
    }

    #[tokio::test]
    async fn a_call_that_asks_to_try_again_or_died_runs_again() {
        let drc = Drc::default();
        run(&drc, key(1, 1)).await.finish(&frame(7), false);
        let second = run(&drc, key(1, 1)).await;
        let waiter = tokio::spawn({
            let drc = drc.clone();
            async move { matches!(drc.begin(key(1, 1)).await, Begin::Run(_)) }
        });
        tokio::task::yield_now().await;
        drop(second);
        assert!(waiter.await.unwrap(), "the waiter runs in place of the one that died");
        assert!(drc.is_empty());
    }

    #[tokio::test]
    async fn at_the_bound_of_a_client_its_oldest_entry_goes_and_no_others() {
        let drc = Drc::default();
        run(&drc, key(2, 0)).await.finish(&frame(0), true);
        for xid in 0..u32::try_from(CLIENT_MAX).unwrap() + 10 {
            run(&drc, key(1, xid)).await.finish(&frame(xid), true);
        }
        assert_eq!(drc.len(), CLIENT_MAX + 1);
        assert!(matches!(drc.begin(key(2, 0)).await, Begin::Done(_)));
        assert!(matches!(drc.begin(key(1, 10)).await, Begin::Done(_)));
        run(&drc, key(1, 9)).await;
    }

    #[tokio::test]
    async fn a_stream_of_writes_or_of_locks_pushes_no_operation_on_names_out() {
        let drc = Drc::default();
        run(&drc, key(1, 0)).await.finish(&frame(7), true);
        let all = [Class::Data, Class::Locks];
        for client in 1..=10 {
            for xid in 1..=u32::try_from(CLIENT_MAX).unwrap() {
                for (class, sum) in all.into_iter().zip(1..) {
                    let key = Key::new(IpAddr::from([127, 0, 0, client]), xid, sum);
                    run(&drc, key).await.of(class).finish(&frame(xid), true);
                }
            }
        }
        assert_eq!(drc.len(), ENTRIES_MAX * all.len() + 1);
        assert!(matches!(drc.begin(key(1, 0)).await, Begin::Done(_)));
        // What is kept of answers has one bound, and data gives way first, names last.
        let big = |len: usize| {
            let mut w = Writer::default();
            w.opaque(&vec![0; len]);
            w.finish()
        };
        let left = || drc.table.lock().order.each_ref().map(BTreeMap::len);
        run(&drc, key(2, 0)).await.finish(&big(BYTES_MAX - ENTRIES_MAX * 8 - 4096), true);
        assert!(left()[0] < ENTRIES_MAX && left()[1..] == [ENTRIES_MAX, 2], "{:?}", left());
        run(&drc, key(2, 1)).await.finish(&big(ENTRIES_MAX * 4), true);
        assert!(left()[0] == 0 && left()[1] < ENTRIES_MAX && left()[2] == 3, "{:?}", left());
        assert!(matches!(drc.begin(key(1, 0)).await, Begin::Done(_)));
    }

    #[tokio::test]
    async fn kept_bytes_are_bounded_in_all() {
        let drc = Drc::default();
        let mut w = Writer::default();
        w.opaque(&vec![0; BYTES_MAX / 10]);
        let big = w.finish();
        for xid in 0..100 {
            run(&drc, key(1, xid)).await.finish(&big, true);
        }
        assert!(drc.len() < 10 && !drc.is_empty(), "{}", drc.len());
        assert!(drc.table.lock().bytes <= BYTES_MAX);
    }

    /// A machine that counts its calls from the same number each morning; tain was off over night, too.
    #[tokio::test(start_paused = true)]
    async fn what_was_old_when_the_service_ended_is_unknown_to_the_next_life() {
        let drc = Drc::default();
        let second = Duration::from_secs(1);
        drc.refill(Lsn(1), KEPT_FOR + second, &write(1), None);
        drc.refill(Lsn(2), KEPT_FOR - second, &write(2), None);
        drc.refill(Lsn(3), Duration::ZERO, &write(3), None);
        run(&drc, key(1, 1)).await;
        for xid in [2, 3] {
            assert!(matches!(drc.begin(key(1, xid)).await, Begin::Refilled(_)));
        }
        tokio::time::advance(second * 2).await;
        run(&drc, key(1, 2)).await;
        assert!(matches!(drc.begin(key(1, 3)).await, Begin::Refilled(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_long_ago_is_unknown_and_runs_again() {
        let drc = Drc::default();
        run(&drc, key(1, 1)).await.finish(&frame(7), true);
        drc.refill(Lsn(2), Duration::ZERO, &write(2), None);
        let slow = run(&drc, key(1, 3)).await;
        // A client that was cut off for an hour, and takes a while to come back, repeats its calls.
        tokio::time::advance(Duration::from_secs(3600 + 600)).await;
        assert!(matches!(drc.begin(key(1, 1)).await, Begin::Done(_)));
        assert!(matches!(drc.begin(key(1, 2)).await, Begin::Refilled(_)));
        // That it came makes it no younger; and what still runs is known whatever its age.
        tokio::time::advance(KEPT_FOR).await;
        slow.finish(&frame(3), true);
        assert!(matches!(drc.begin(key(1, 3)).await, Begin::Done(_)));
        for xid in [1, 2] {
            run(&drc, key(1, xid)).await.finish(&frame(xid), true);
            assert!(matches!(drc.begin(key(1, xid)).await, Begin::Done(_)));
        }
        let table = drc.table.lock();
        let ordered: usize = table.order.iter().map(BTreeMap::len).sum();
        assert_eq!((table.slots.len(), ordered, table.by_lsn.len()), (3, 3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_sent_away_is_known_for_a_while_is_told_once_and_beyond_the_bound_the_oldest_goes() {
        let drc = Drc::default();
        let junction = JunctionId(1);
        let away =
            |sum: u32| Call { uid: 7, gid: 7, gids: vec![], addr: IpAddr::from([127, 0, 0, 1]), port: 1, xid: 9, sum };
        let refill = |xid: u32| {
            let location = journal_format::ids::LocationId(1);
            let (node, dir, name) = (NodeId(5), NodeId(2), b"x".to_vec());
            let link = Link { junction, location, node, kind: Kind::File, dir, name, caller: caller(xid) };
            drc.refill(Lsn(u64::from(xid)), Duration::ZERO, &Event::Link(link), None);
        };
        refill(1);
        drc.refill(Lsn(2), Duration::ZERO, &write(2), None);
        drc.sent_away(&away(1), key(1, 1));
        drc.sent_away(&away(2), key(1, 2));
        assert!(drc.away(&away(1)).is_some() && drc.away(&away(3)).is_none());
        assert!(drc.away(&Call { uid: 8, ..away(1) }).is_none(), "another's call");
        assert!(drc.away(&away(2)).is_none(), "a WRITE that runs again does no harm");
        // What came of it is known although its own entry has gone.
        for xid in 100..100 + u32::try_from(CLIENT_MAX).unwrap() {
            run(&drc, key(1, xid)).await.finish(&frame(xid), true);
        }
        assert!(drc.refilled(key(1, 1)).is_none());
        drc.refill(Lsn(3), Duration::ZERO, &Event::Failed(Failed { op: Lsn(1), status: 28 }), None);
        assert_eq!(drc.away(&away(1)).unwrap().failed, Some(28));
        assert!(drc.came_back(&away(1)).is_some());
        assert!(drc.away(&away(1)).is_none() && drc.came_back(&away(1)).is_none(), "told once");

        refill(1);
        for sum in 0..=u32::try_from(AWAY_MAX).unwrap() {
            drc.sent_away(&away(sum), key(1, 1));
        }
        assert!(drc.away(&away(0)).is_none() && drc.away(&away(1)).is_some());
        tokio::time::advance(AWAY_FOR).await;
        drc.away_again(&away(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(drc.away(&away(1)).is_some() && drc.away(&away(2)).is_none());
        let table = drc.table.lock();
        assert_eq!(table.away.len(), table.away_order.len());
    }

    fn caller(xid: u32) -> Caller {
        Caller { addr: mapped(IpAddr::from([127, 0, 0, 1])), xid, call_sum: 1, ..Caller::default() }
    }

    fn write(xid: u32) -> Event {
        let (junction, location) = (JunctionId(1), journal_format::ids::LocationId(1));
        let caller = caller(xid);
        Event::Write(Write { junction, location, node: NodeId(5), offset: 0, len: 9, mode: None, caller })
    }

    #[tokio::test]
    async fn refilled_operations_are_amended_by_their_ends() {
        let drc = Drc::default();
        for xid in 1..=4 {
            drc.refill(Lsn(u64::from(xid)), Duration::ZERO, &write(xid), None);
        }
        let failed = |op, status| Event::Failed(Failed { op: Lsn(op), status });
        drc.refill(Lsn(10), Duration::ZERO, &failed(2, 28), None);
        drc.refill(Lsn(11), Duration::ZERO, &failed(3, JUKEBOX), None);
        let part = Partial { op: Lsn(4), done: PartDone::Bytes(3), status: 28 };
        drc.refill(Lsn(12), Duration::ZERO, &Event::Partial(part), None);
        let outcome = |effect, failed| Outcome { junction: JunctionId(1), effect, failed };
        let wrote = |count| Effect::Wrote { node: NodeId(5), count };
        for (xid, expected) in
            [(1, outcome(wrote(9), None)), (2, outcome(wrote(9), Some(28))), (4, outcome(wrote(3), None))]
        {
            assert!(matches!(drc.begin(key(1, xid)).await, Begin::Refilled(o) if o == expected), "xid {xid}");
        }
        run(&drc, key(1, 3)).await;
        let link = Link {
            junction: JunctionId(1),
            location: journal_format::ids::LocationId(1),
            node: NodeId(5),
            kind: Kind::File,
            dir: NodeId(2),
            name: b"x".to_vec(),
            caller: caller(9),
        };
        drc.refill(Lsn(20), Duration::ZERO, &Event::Link(link), Some(17));
        assert!(matches!(drc.begin(key(1, 9)).await, Begin::Refilled(Outcome { failed: Some(17), .. })));
    }
}
