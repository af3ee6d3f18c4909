//! Changes in memory, not in the database yet.

use super::{Change, Key};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Beside its bytes a change costs about this much: two vectors and its share of a tree node.
const CHANGE_OVERHEAD: usize = 96;

/// What a key is to become: a value, or (`None`) nothing.
pub type Slot = Option<Vec<u8>>;

/// Newest change of each key, and how much memory they take.
#[derive(Default)]
pub struct Overlay {
    map: BTreeMap<Key, Slot>,
    bytes: usize,
}

impl Overlay {
    pub fn put(&mut self, (key, slot): Change) {
        let key_len = key.len();
        self.bytes += key_len + CHANGE_OVERHEAD + slot_len(&slot);
        if let Some(old) = self.map.insert(key, slot) {
            self.bytes -= key_len + CHANGE_OVERHEAD + slot_len(&old);
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.map.get(key)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.map.iter()
    }

    /// Changes from `start` on that have `prefix`, ascending.
    pub fn range<'a>(&'a self, prefix: &'a [u8], start: Bound<&'a [u8]>) -> impl Iterator<Item = (&'a Key, &'a Slot)> {
        self.map.range::<[u8], _>((start, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

fn slot_len(slot: &Slot) -> usize {
    slot.as_ref().map_or(0, Vec::len)
}

/// The first key behind everything that starts with `prefix`; `None` when nothing is behind.
pub fn prefix_end(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Where a scan of `prefix` behind `after` begins.
pub fn scan_start<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}
