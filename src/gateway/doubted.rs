//! Calls on names that come again after a restart while it is not certain yet what came of them: their clients are sent
//! away (JUKEBOX), and a kernel comes again under a new xid, for which the duplicate-request cache knows nobody. So who is
//! sent away is remembered by address, user and checksum of the call (which leaves the xid out), and the same call is
//! told what came of the first one, once, if the names still say so. (`volume/late.rs` does the same for operations that
//! outlast their client's patience in one life of the service.)
//!
//! **Bound**: [`DOUBTED_MAX`] calls; beyond it the oldest goes, and its repetition runs.

use super::drc;
use crate::volume::types::Call;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// Calls remembered.
pub(super) const DOUBTED_MAX: usize = 1024;

/// A call, whatever its xid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    addr: [u8; 16],
    uid: u32,
    sum: u32,
}

impl Key {
    fn of(call: &Call) -> Self {
        Self { addr: drc::mapped(call.addr), uid: call.uid, sum: call.sum }
    }
}

#[derive(Default)]
struct Table {
    firsts: HashMap<Key, (u64, drc::Key)>,
    order: BTreeMap<u64, Key>,
    seq: u64,
}

impl Table {
    fn forget(&mut self, key: &Key) {
        if let Some((seq, _)) = self.firsts.remove(key) {
            self.order.remove(&seq);
        }
    }
}

#[derive(Default)]
pub(super) struct Doubted {
    table: Mutex<Table>,
}

impl Doubted {
    /// The client is about to be sent away; `first` is how the cache knows what came of its call.
    pub fn sent_away(&self, call: &Call, first: drc::Key) {
        let key = Key::of(call);
        let mut table = self.table.lock();
        table.forget(&key);
        table.seq += 1;
        let seq = table.seq;
        table.firsts.insert(key, (seq, first));
        table.order.insert(seq, key);
        if table.order.len() > DOUBTED_MAX
            && let Some((_, oldest)) = table.order.pop_first()
        {
            table.firsts.remove(&oldest);
        }
    }

    /// How the cache knows the call that this one repeats.
    pub fn first(&self, call: &Call) -> Option<drc::Key> {
        let table = self.table.lock();
        if table.firsts.is_empty() { None } else { table.firsts.get(&Key::of(call)).map(|(_, first)| *first) }
    }

    /// It has been told, or is not to be.
    pub fn forget(&self, call: &Call) {
        self.table.lock().forget(&Key::of(call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn beyond_the_bound_the_oldest_goes() {
        let call = |sum| Call { uid: 1, gid: 1, gids: vec![], addr: IpAddr::from([10, 0, 0, 1]), port: 1, xid: 1, sum };
        let first = drc::Key::new(IpAddr::from([10, 0, 0, 1]), 1, 0);
        let doubted = Doubted::default();
        let most = u32::try_from(DOUBTED_MAX).unwrap();
        for sum in 0..=most {
            doubted.sent_away(&call(sum), first);
            doubted.sent_away(&call(sum), first);
        }
        assert!(doubted.first(&call(0)).is_none() && doubted.first(&call(1)).is_some());
        assert_eq!(doubted.table.lock().order.len(), DOUBTED_MAX);
        doubted.forget(&call(1));
        assert!(doubted.first(&call(1)).is_none() && doubted.first(&call(most)).is_some());
    }
}
