//! The order of events where LSNs are given out a second time: behind the cut of a journal that was repaired.
//!
//! The index still has what was cut, under LSNs that new events get again: it would take them for older than what they
//! change, and leave that alone. So what comes behind a cut counts as later than all that the index has:
//!
//! ```text
//!  LSN     ────────────────────►│ cut ─ ─ ─ ─ ►          lost; the index has (some of) it
//!                               │ new ────────►
//!  order   ────────────────────►│ cut ─ ─ ─ ─ ►│ new ────────►
//! ```
//!
//! Bound: one entry for each repair, [`CUTS_MAX`]; the index refuses one more, and so does the start.

use super::{Live, codec};
use crate::index::store::{Key, Result};
use journal_format::ids::Lsn;
use parking_lot::RwLock;

/// Key: `B`, LSN of the cut (big-endian); value: by how much the order is ahead of LSNs from there on, u64.
const BEHIND: &[u8] = b"B";
const CUTS_MAX: usize = 4096;
const PAGE: usize = 4096;

/// By LSN, ascending; `None` until it is asked for.
#[derive(Default)]
pub(super) struct Cuts(RwLock<Option<Vec<(Lsn, u64)>>>);

impl Live {
    /// Where an event stands in the order that entries and times are kept in: its LSN, but behind a cut.
    pub fn order(&self, lsn: Lsn) -> Result<Lsn> {
        let of = |cuts: &[(Lsn, u64)]| {
            let behind = cuts.iter().rfind(|(cut, _)| *cut <= lsn);
            behind.map_or(lsn, |(_, ahead)| lsn.plus(*ahead))
        };
        if let Some(cuts) = &*self.cuts.0.read() {
            return Ok(of(cuts));
        }
        let cuts = self.stored_cuts()?;
        let order = of(&cuts);
        *self.cuts.0.write() = Some(cuts);
        Ok(order)
    }

    /// The journal was cut, and goes on at `at`. Durable when it returns, and the index states no more than that. Said
    /// again before anything was appended it changes nothing that shows. Looks at all of the index.
    pub fn note_cut(&self, at: Lsn) -> Result<()> {
        let highest = self.highest()?;
        let mut cuts = self.stored_cuts()?;
        let mut changes: Vec<_> =
            cuts.iter().filter(|(cut, _)| *cut >= at).map(|(cut, _)| (cut_key(*cut), None)).collect();
        cuts.retain(|(cut, _)| *cut < at);
        let before = cuts.last().map_or(0, |(_, ahead)| *ahead);
        let ahead = (highest.0 + 1).saturating_sub(at.0).max(before);
        if ahead > before {
            if cuts.len() >= CUTS_MAX {
                return Err(self.store.corrupt(format!("the journal was repaired more than {CUTS_MAX} times")));
            }
            changes.push((cut_key(at), Some(ahead.to_le_bytes().to_vec())));
            cuts.push((at, ahead));
        }
        self.store.write(changes);
        self.store.commit(self.store.lsn().min(at))?;
        *self.cuts.0.write() = Some(cuts);
        Ok(())
    }

    fn stored_cuts(&self) -> Result<Vec<(Lsn, u64)>> {
        let found = self.store.scan(BEHIND, None, CUTS_MAX)?;
        let parse = |key: &[u8], value: &[u8]| {
            let cut = u64::from_be_bytes(key.get(BEHIND.len()..)?.try_into().ok()?);
            Some((Lsn(cut), u64::from_le_bytes(value.try_into().ok()?)))
        };
        found.iter().map(|(key, value)| parse(key, value).ok_or_else(|| self.store.corrupt("a cut"))).collect()
    }

    /// The last in the order of all that the index has.
    fn highest(&self) -> Result<Lsn> {
        let mut highest = Lsn(0);
        for table in [codec::NODES, codec::LISTED] {
            let mut after: Option<Key> = None;
            loop {
                let page = self.store.scan(&[table], after.as_deref(), PAGE)?;
                for (key, value) in &page {
                    let by = codec::order_of(key, value).ok_or_else(|| self.store.corrupt("a record's order"))?;
                    highest = highest.max(by);
                }
                let Some((last, _)) = page.into_iter().next_back() else { break };
                after = Some(last);
            }
        }
        Ok(highest)
    }
}

fn cut_key(cut: Lsn) -> Key {
    [BEHIND, cut.0.to_be_bytes().as_slice()].concat()
}
