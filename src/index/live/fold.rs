//! What an event changes in the live index.
//!
//! # Why folding again converges
//!
//! The index states an LSN (its last commit's) but may be *ahead* of it: operations that were done later are in it,
//! some of them, each whole. Recovery folds every done event from that LSN on, in order. The end must be what folding
//! each event once, in order, gives. What makes it so, key by key:
//!
//! * **An entry** carries in `put_by` the LSN of the event that put it there. An event never touches an entry that
//!   is younger than itself: it neither replaces nor removes it. So an entry is either as the event at hand found it the
//!   first time (and is changed as then), or has come from a later event (and stays), or is absent because a later
//!   event removed it. In the last case a put brings it back until that later event is folded again, which removes it.
//!   Operations on one name exclude each other (locks, §4), so they are applied in LSN order while live as well.
//!   Its cookie is that LSN, too, but where a RENAME finds an entry that it replaces: then that one's. So a cookie belongs
//!   to one name of one directory for ever, and one that differs because the name was absent differs until that removal
//!   only.
//!   (An unconditional put would converge too, at the suffix's end; but a name that has not changed since would move
//!   away and back meanwhile, and whoever walks paths in recovery would miss it.)
//! * **mtime** belongs to the last event in LSN order that sets it: its LSN is kept beside it (`mtime_by`), and an
//!   event sets mtime only if it is not older. That holds for any order and any repetition. (Taking the maximum instead
//!   would be wrong twice: a WRITE after `mtime := 2040` must bring the present time back; and a WRITE folded again
//!   before an explicit older mtime would win over it where the suffix ends between the two.) Two WRITEs to different
//!   ranges of a file may be applied in either order; a SETATTR excludes both.
//! * **ctime** is the maximum of all times, as it never goes back; at adoption no later than the record's. A maximum does
//!   not mind order or repetition. (What clients see while older operations are under way: `Ledger::shown_ctime`.)
//! * **A node's record** is made once (ids are never used again): a second Make or Adopt of it finds it and leaves it.
//!   The removal of its last name deletes it; a Make folded again after that brings it back until the removal is folded
//!   again. Events on a node without a record change no record. `complete` is only ever set.
//! * **C and R keys** are put and dropped with their entry, in the same write, whatever the entry was.
//! * **The highest node id** only grows.
//!
//! ("LSN" is the event's place in the order here: `order.rs`.)
//!
//! It follows that recovery has to fold the suffix to its end before anybody looks.

use super::codec::{self, Stored};
use super::{Entry, Live, NodeRec};
use crate::index::store::{Change, Key, Result};
use journal_format::event::{Adopt, Event, JunctionAdded, Link, Make, Remove, Rename, SetAttr};
use journal_format::ids::{JunctionId, Kind, Lsn, NodeId, Time};
use std::collections::BTreeMap;

/// The keys an event writes: a function of the event, and of what is there where that is younger than the event.
///
/// The caller keeps other folds away until the changes are written ([`Live::apply`], or `Store::update`).
pub fn fold(live: &Live, lsn: Lsn, time: Time, event: &Event) -> Result<Vec<Change>> {
    fold_events(live, std::iter::once((lsn, time, event)))
}

/// The same for several, in LSN order: a key is written once, and what came and went within them not at all.
pub(super) fn fold_all(live: &Live, events: &[(Lsn, Time, Event)]) -> Result<Vec<Change>> {
    fold_events(live, events.iter().map(|(lsn, time, event)| (*lsn, *time, event)))
}

fn fold_events<'e>(live: &Live, events: impl Iterator<Item = (Lsn, Time, &'e Event)>) -> Result<Vec<Change>> {
    let mut fold = Fold { live, lsn: Lsn(0), time: Time(0), changes: BTreeMap::new() };
    for (lsn, time, event) in events {
        (fold.lsn, fold.time) = (live.order(lsn)?, time);
        fold.event(event)?;
    }
    Ok(fold.changes.into_iter().map(|(key, Changed { slot, .. })| (key, slot)).collect())
}

/// Whether the event may change anything in an index.
#[must_use]
pub fn is_folded(event: &Event) -> bool {
    matches!(
        event,
        Event::Write(_)
            | Event::SetAttr(_)
            | Event::Make(_)
            | Event::Remove(_)
            | Event::Rename(_)
            | Event::Link(_)
            | Event::Adopt(_)
            | Event::JunctionAdded(_)
    )
}

/// What a key is to become, and what is known of it.
struct Changed {
    slot: Option<Vec<u8>>,
    /// The store does not have it.
    new: bool,
}

/// Events being folded, one after the other. Reads see their own changes.
struct Fold<'a> {
    live: &'a Live,
    /// Its place in the order.
    lsn: Lsn,
    time: Time,
    changes: BTreeMap<Key, Changed>,
}

impl Fold<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        if !is_folded(event) {
            return Ok(());
        }
        match event {
            Event::Write(event) => {
                self.touch(event.node, Some(self.time))?;
                self.made_for_good(event.node)?;
            }
            Event::SetAttr(event) => self.set_attr(event)?,
            Event::Make(event) => self.make(event)?,
            Event::Remove(event) => self.remove(event)?,
            Event::Rename(event) => self.rename(event)?,
            Event::Link(event) => self.link(event)?,
            Event::Adopt(event) => self.adopt(event)?,
            Event::JunctionAdded(event) => self.junction_added(event)?,
            // A removed junction's nodes stay: its handles must not lead anywhere, which State sees to, and its ids are
            // not used again.
            Event::JunctionRemoved(_) | Event::JunctionSwitched(_) | Event::JunctionModified(_) => {}
            Event::Failed(_) | Event::Partial(_) | Event::Made(_) => {}
            Event::FilerAdded(_) | Event::FilerRemoved(_) | Event::JobCreated(_) | Event::JobStateChanged(_) => {}
            Event::PolicySet(_) | Event::PolicyRemoved(_) => {}
            Event::HostMonitored(_) | Event::HostForgotten(_) | Event::LocksLost(_) => {}
            Event::ListBegin(_) | Event::Listed(_) | Event::CopyRange(_) | Event::CopyDone(_) => {}
            Event::Cursor(_)
            | Event::OutOfSync(_)
            | Event::InSync(_)
            | Event::Durable(_)
            | Event::JournalCreated(_) => {}
        }
        Ok(())
    }

    fn set_attr(&mut self, event: &SetAttr) -> Result<()> {
        let mtime = event.mtime.or(event.size.map(|_| self.time));
        self.touch(event.node, mtime)?;
        self.made_for_good(event.node)
    }

    /// Its maker has had the answer, for he goes on: an exclusive CREATE with the same verifier is somebody else's from now on.
    fn made_for_good(&mut self, node: NodeId) -> Result<()> {
        if let Some(mut stored) = self.node(node)?.filter(|stored| stored.rec.verifier.is_some()) {
            stored.rec.verifier = None;
            self.put_node(node, &stored);
        }
        Ok(())
    }

    fn make(&mut self, event: &Make) -> Result<()> {
        let kind = event.what.kind();
        let rec = NodeRec {
            junction: event.junction,
            kind,
            mtime: event.mtime.unwrap_or(self.time),
            ctime: self.time,
            verifier: event.verifier,
            // New and empty, and all that comes into it comes through us.
            complete: kind == Kind::Dir,
        };
        self.new_node(event.node, rec, false)?;
        self.put_entry(event.dir, &event.name, event.node, kind, self.lsn.0, false)?;
        self.touch(event.dir, Some(self.time))
    }

    fn remove(&mut self, event: &Remove) -> Result<()> {
        self.drop_entry(event.dir, &event.name, event.node)?;
        self.unlinked(event.node, event.last)?;
        self.touch(event.dir, Some(self.time))
    }

    fn rename(&mut self, event: &Rename) -> Result<()> {
        if let Some(replaced) = &event.replaced {
            self.unlinked(replaced.node, replaced.last)?;
        }
        let over = event.replaced.is_some();
        self.put_entry(event.to_dir, &event.to_name, event.node, event.kind, self.lsn.0, over)?;
        if (event.from_dir, &event.from_name) != (event.to_dir, &event.to_name) {
            self.drop_entry(event.from_dir, &event.from_name, event.node)?;
        }
        self.touch(event.node, None)?;
        self.touch(event.from_dir, Some(self.time))?;
        self.touch(event.to_dir, Some(self.time))
    }

    fn link(&mut self, event: &Link) -> Result<()> {
        self.put_entry(event.dir, &event.name, event.node, event.kind, self.lsn.0, false)?;
        self.touch(event.node, None)?;
        self.touch(event.dir, Some(self.time))
    }

    /// Names that were there already: nothing happened to the directory.
    fn adopt(&mut self, event: &Adopt) -> Result<()> {
        for (cookie, adopted) in (self.lsn.0..).zip(&event.entries) {
            // The filer's clock may be ahead.
            let (mtime, ctime, kind) = (adopted.mtime, adopted.ctime.min(self.time), adopted.kind);
            self.new_node(adopted.node, plain(event.junction, kind, mtime, ctime), false)?;
            // Met a second time it keeps its place: a listing under way must not show it twice.
            let known = self.entry(event.dir, &adopted.name)?;
            if known.is_none_or(|entry| entry.node != adopted.node) {
                self.put_entry(event.dir, &adopted.name, adopted.node, kind, cookie, false)?;
            }
        }
        if event.complete
            && let Some(mut dir) = self.node(event.dir)?
        {
            dir.rec.complete = true;
            self.put_node(event.dir, &dir);
        }
        Ok(())
    }

    fn junction_added(&mut self, event: &JunctionAdded) -> Result<()> {
        let ctime = event.ctime.min(self.time);
        self.new_node(event.root, plain(event.junction, Kind::Dir, event.mtime, ctime), true)
    }

    /// The event changes the node: its ctime, and where `mtime` is given that too, unless a younger event has set it.
    fn touch(&mut self, node: NodeId, mtime: Option<Time>) -> Result<()> {
        let Some(mut stored) = self.node(node)? else { return Ok(()) };
        stored.rec.ctime = stored.rec.ctime.max(self.time);
        if let Some(mtime) = mtime
            && stored.mtime_by <= self.lsn
        {
            stored.rec.mtime = mtime;
            stored.mtime_by = self.lsn;
        }
        self.put_node(node, &stored);
        Ok(())
    }

    /// A name of the node has gone.
    fn unlinked(&mut self, node: NodeId, last: bool) -> Result<()> {
        if last {
            self.put(codec::node_key(node), None);
            return Ok(());
        }
        self.touch(node, None)
    }

    fn new_node(&mut self, node: NodeId, rec: NodeRec, root: bool) -> Result<()> {
        let key = codec::node_key(node);
        let (held, new) = self.read(&key)?;
        if held.is_none() {
            let stored = Stored { rec, mtime_by: self.lsn, root };
            self.changes.insert(key, Changed { slot: Some(codec::encode_node(&stored)), new });
        }
        let highest = match self.get(codec::MAX_KEY)? {
            Some(value) => codec::decode_max(&value).ok_or_else(|| self.live.store.corrupt("highest node id"))?,
            None => NodeId(0),
        };
        if node > highest {
            self.put(codec::MAX_KEY.to_vec(), Some(codec::encode_max(node)));
        }
        Ok(())
    }

    /// `over`: the name stays where it is in its directory, whoever has it.
    fn put_entry(&mut self, dir: NodeId, name: &[u8], node: NodeId, kind: Kind, put_by: u64, over: bool) -> Result<()> {
        let (held, new) = self.read(&codec::entry_key(dir, name))?;
        let mut cookie = put_by;
        if let Some(old) = self.decoded(dir, name, held)? {
            if old.put_by > put_by {
                return Ok(());
            }
            if over {
                cookie = old.cookie;
            }
            self.drop_keys(dir, &old);
        }
        let entry = Entry { name: name.to_vec(), node, kind, cookie, put_by };
        // The three keys come and go together: without the first the store has neither of the others.
        let mut put = |key, value| self.changes.insert(key, Changed { slot: Some(value), new });
        put(codec::entry_key(dir, name), codec::encode_entry(&entry));
        put(codec::cookie_key(dir, cookie), codec::encode_listed(&entry));
        put(codec::name_key(node, dir, name), Vec::new());
        Ok(())
    }

    /// Take the name away if it leads to the node, and did so before this event.
    fn drop_entry(&mut self, dir: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        if let Some(entry) = self.entry(dir, name)?
            && entry.node == node
            && entry.put_by < self.lsn.0
        {
            self.drop_keys(dir, &entry);
        }
        Ok(())
    }

    fn drop_keys(&mut self, dir: NodeId, entry: &Entry) {
        self.put(codec::entry_key(dir, &entry.name), None);
        self.put(codec::cookie_key(dir, entry.cookie), None);
        self.put(codec::name_key(entry.node, dir, &entry.name), None);
    }

    fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let held = self.get(&codec::entry_key(dir, name))?;
        self.decoded(dir, name, held)
    }

    fn decoded(&self, dir: NodeId, name: &[u8], held: Option<Vec<u8>>) -> Result<Option<Entry>> {
        let Some(value) = held else { return Ok(None) };
        let entry = codec::decode_entry(name, &value);
        entry.map(Some).ok_or_else(|| self.live.store.corrupt(format!("entry in directory {dir}")))
    }

    fn node(&self, node: NodeId) -> Result<Option<Stored>> {
        let Some(value) = self.get(&codec::node_key(node))? else { return Ok(None) };
        let stored = codec::decode_node(&value);
        stored.map(Some).ok_or_else(|| self.live.store.corrupt(format!("record of node {node}")))
    }

    fn put_node(&mut self, node: NodeId, stored: &Stored) {
        self.put(codec::node_key(node), Some(codec::encode_node(stored)));
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.read(key)?.0)
    }

    /// The key as it is by now, and whether the store is known not to have it.
    fn read(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, bool)> {
        if let Some(changed) = self.changes.get(key) {
            return Ok((changed.slot.clone(), changed.new));
        }
        let held = self.live.store.get(key)?;
        let new = held.is_none();
        Ok((held, new))
    }

    fn put(&mut self, key: Key, slot: Option<Vec<u8>>) {
        use std::collections::btree_map::Entry;
        match self.changes.entry(key) {
            // It came and goes in between.
            Entry::Occupied(changed) if slot.is_none() && changed.get().new => drop(changed.remove()),
            Entry::Occupied(mut changed) => changed.get_mut().slot = slot,
            Entry::Vacant(free) => drop(free.insert(Changed { slot, new: false })),
        }
    }
}

/// Record of an object that was there before us; a directory's names are still to be met.
fn plain(junction: JunctionId, kind: Kind, mtime: Time, ctime: Time) -> NodeRec {
    NodeRec { junction, kind, mtime, ctime, verifier: None, complete: false }
}
