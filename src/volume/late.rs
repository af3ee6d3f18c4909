//! Name operations whose client was sent away (JUKEBOX) after they had begun, and comes again.
//!
//! A kernel repeats such a call under a new xid, so the duplicate-request cache takes it for another one, and would let
//! it meet its own work: a MKDIR would be told EXIST, a REMOVE NOENT. So whoever is sent away is remembered by
//! address, user and checksum of the call (which leaves the xid out), and the same call is answered with what came of
//! the operation.
//!
//! ```text
//!          client sent away            done
//!  (none) ─────────────────► Running ───────► Done ── the call comes: answered once, if it is its time (below)
//!                               │ failed, or the process ends
//!                               ▼
//!                             (none): the call that comes runs
//! ```
//!
//! Only operations on names: a WRITE or SETATTR that runs again has the same effect, and one that is *not* run again might
//! be a new one.
//!
//! Within [`REPEATED_WITHIN`] of the last time that the client was told JUKEBOX the call that comes *is* the repetition,
//! and is answered whatever the names say: somebody else may have used a name in the pause that the kernel makes, and a
//! REMOVE that ran again would remove *his* file. Later, or when the same user of that client has changed one of the names
//! since, the call might be a new one, of somebody who has given the old one up (his program was killed). So then what the
//! operation left must still be there, else the call runs: answering a call whose effect is there without running it takes
//! nothing from anybody.
//!
//! **Bound**: [`LATE_MAX`] calls; beyond it the oldest goes, and its repetition runs.

use super::Volume;
use super::outcome::{Outcome, operation};
use super::types::{Call, Status};
use crate::index::live::Live;
use journal_format::event::{Caller, Event};
use journal_format::ids::NodeId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Calls remembered.
pub const LATE_MAX: usize = 1024;
/// A kernel that was told JUKEBOX repeats the call by itself after 5 s (Linux: NFS_JUKEBOX_RETRY_TIME), and may have to
/// wait for its turn on the connection.
pub const REPEATED_WITHIN: Duration = Duration::from_secs(15);

/// A call, whatever its xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    addr: [u8; 16],
    uid: u32,
    sum: u32,
}

impl Key {
    const fn of(caller: &Caller) -> Self {
        Self { addr: caller.addr, uid: caller.uid, sum: caller.call_sum }
    }
}

/// A name, and the node that it leads to when the operation is done.
type Expected = (NodeId, Vec<u8>, Option<NodeId>);

/// What a client is owed that is sent away from an operation.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    key: Key,
    outcome: Outcome,
    expected: Vec<Expected>,
}

impl Owed {
    /// `None`: not an operation on names.
    pub fn of(event: &Event) -> Option<Self> {
        let expected = match event {
            Event::Make(e) => vec![(e.dir, e.name.clone(), Some(e.node))],
            Event::Remove(e) => vec![(e.dir, e.name.clone(), None)],
            Event::Rename(e) => {
                vec![(e.from_dir, e.from_name.clone(), None), (e.to_dir, e.to_name.clone(), Some(e.node))]
            }
            Event::Link(e) => vec![(e.dir, e.name.clone(), Some(e.node))],
            _ => return None,
        };
        let (caller, junction, effect) = operation(event)?;
        Some(Self { key: Key::of(caller), outcome: Outcome { junction, effect, failed: None }, expected })
    }
}

/// What is known of a call that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is still under way: the client must come again.
    Running,
    /// It is done; this is to be answered.
    Done(Outcome),
}

struct Slot {
    seq: u64,
    /// When the client was last told JUKEBOX.
    sent_away: Instant,
    /// `None` while it runs.
    done: Option<(Outcome, Vec<Expected>)>,
    /// Its client has changed one of the names since.
    used: bool,
}

#[derive(Default)]
struct Table {
    slots: HashMap<Key, Slot>,
    order: BTreeMap<u64, Key>,
    seq: u64,
}

/// The calls that are remembered. Clones are the same table.
#[derive(Clone, Default)]
pub(super) struct Late {
    table: Arc<Mutex<Table>>,
}

impl Late {
    /// The client is about to be sent away. Gives what [`Late::ended`] is to be told.
    pub fn begin(&self, owed: &Owed) -> u64 {
        let mut table = self.table.lock();
        table.forget(&owed.key);
        table.seq += 1;
        let seq = table.seq;
        table.slots.insert(owed.key, Slot { seq, sent_away: Instant::now(), done: None, used: false });
        table.order.insert(seq, owed.key);
        if table.order.len() > LATE_MAX
            && let Some((_, oldest)) = table.order.pop_first()
        {
            table.slots.remove(&oldest);
        }
        seq
    }

    pub fn ended(&self, seq: u64, owed: Owed, done: bool) {
        let mut table = self.table.lock();
        match table.slots.get_mut(&owed.key).filter(|slot| slot.seq == seq) {
            Some(slot) if done => slot.done = Some((owed.outcome, owed.expected)),
            Some(_) => table.forget(&owed.key),
            // Pushed out by younger ones.
            None => {}
        }
    }

    /// This operation of a client begins. Where it changes names of one that he was sent away from, and that is done, he may
    /// have given that one up.
    pub fn begins(&self, owed: &Owed) {
        let mut table = self.table.lock();
        if table.slots.is_empty() {
            return;
        }
        let names = |(dir, name, _): &Expected| owed.expected.iter().any(|(d, n, _)| (d, n) == (dir, name));
        for (key, slot) in &mut table.slots {
            let his = (key.addr, key.uid) == (owed.key.addr, owed.key.uid);
            slot.used |= his && slot.done.as_ref().is_some_and(|(_, those)| those.iter().any(names));
        }
    }

    fn known(&self, live: &Live, key: Key) -> Result<Option<Known>, Status> {
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(&key) else { return Ok(None) };
        let Some((outcome, expected)) = &slot.done else {
            slot.sent_away = Instant::now();
            return Ok(Some(Known::Running));
        };
        let is_repetition = !slot.used && slot.sent_away.elapsed() <= REPEATED_WITHIN;
        let known = (is_repetition || is_as_left(live, expected)?).then_some(Known::Done(*outcome));
        table.forget(&key);
        Ok(known)
    }
}

/// The names lead where the operation left them.
fn is_as_left(live: &Live, expected: &[Expected]) -> Result<bool, Status> {
    for (dir, name, node) in expected {
        if live.entry(*dir, name)?.map(|entry| entry.node) != *node {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Table {
    fn forget(&mut self, key: &Key) {
        if let Some(slot) = self.slots.remove(key) {
            self.order.remove(&slot.seq);
        }
    }
}

impl Volume {
    /// Whether this very call was sent away before, and what came of it; what is done is told once.
    pub fn late(&self, call: &Call) -> Result<Option<Known>, Status> {
        self.late.known(&self.live, Key::of(&call.caller()))
    }
}
