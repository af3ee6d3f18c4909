//! READDIR and READDIRPLUS.
//!
//! The directory is made complete first, so that the index alone answers, by cookie: the serial of the entry. What comes
//! later comes last and what goes leaves a gap, so a listing that goes on while names change, or across a switch or a
//! restart, neither skips nor doubles what stays. The cookie verifier is therefore always the same, and never refused.

use crate::index::live::Entry;
use crate::location::Location;
use crate::semantics::permission::{EXEC, READ, check};
use crate::volume::Volume;
use crate::volume::resolve::{self, Seen};
use crate::volume::types::{
    Attr, Call, DirEntry, Listing, MayUse, NodeRef, READDIR_MAX, Refused, Room, RoomPlus, Status,
};
use crate::volume::virtuals::TREE;
use crate::volume::virtuals::fileid_in_tree;
use journal_format::ids::Kind;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Bytes of an entry in a reply beside its padded name: follows, fileid, name length, cookie.
pub const ENTRY_BYTES: usize = 4 + 8 + 4 + 8;
/// `.` and `..`.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// Entries whose attributes are asked for side by side.
const SIDE_BY_SIDE: usize = 16;
/// Entries read from the index at a time.
const BATCH: usize = 512;

/// Fills a reply up to its size.
pub(in crate::volume) struct Filling {
    entries: Vec<DirEntry>,
    left: Room,
    full: bool,
}

impl Filling {
    pub fn new(room: Room) -> Self {
        let left = Room { bytes: room.bytes.min(READDIR_MAX as usize), ..room };
        Self { entries: Vec::new(), left, full: false }
    }

    /// False when it does not fit any more.
    pub fn push(&mut self, entry: DirEntry) -> bool {
        match self.left.without(ENTRY_BYTES + entry.name.len().next_multiple_of(4)) {
            Some(left) => {
                self.left = left;
                self.entries.push(entry);
                true
            }
            None => {
                self.full = true;
                false
            }
        }
    }

    /// The entries, and whether they reach the end. Not even one fits: the client's buffer is too small.
    pub fn end(self) -> Result<(Vec<DirEntry>, bool), Status> {
        if self.full && self.entries.is_empty() {
            return Err(Status::TooSmall);
        }
        Ok((self.entries, !self.full))
    }
}

impl Room {
    /// Without one more entry, which takes so many bytes for its name, fileid and cookie; `None`: it has none for it.
    fn without(self, name: usize) -> Option<Self> {
        let Some(plus) = self.plus else {
            return self.bytes.checked_sub(name).map(Self::plain);
        };
        let bytes = self.bytes.checked_sub(name + plus.entry)?;
        Some(Self { bytes, plus: Some(RoomPlus { names: plus.names.checked_sub(name)?, ..plus }) })
    }
}

impl Volume {
    /// Entries behind `cookie`, as many as there is room for. Attributes are asked for of these, and of no other; nor
    /// of what leads into a junction that the caller may not use: that is a name and nothing more.
    pub async fn readdir(
        &self,
        call: &Call,
        dir: NodeRef,
        cookie: u64,
        _verifier: u64,
        room: Room,
        may: MayUse<'_>,
    ) -> Result<Listing, Refused<Option<Attr>>> {
        let listing = if dir.junction == TREE {
            self.virtual_readdir(dir.node, cookie, room, may).await
        } else {
            self.readdir_inner(call, dir, cookie, room).await
        };
        match listing {
            Ok(listing) => Ok(listing),
            Err(status) => Err(self.refused(status, dir).await),
        }
    }

    async fn readdir_inner(&self, call: &Call, dir: NodeRef, cookie: u64, room: Room) -> Result<Listing, Status> {
        let (location, seen) = self.look(dir).await?;
        if seen.rec.kind != Kind::Dir {
            return Err(Status::NotDir);
        }
        let seen = self.judge(&location, call, seen).await?;
        check(&call.cred(), &seen.owned(), READ)?;
        self.know_names(dir.junction, dir.node).await?;
        let mut filling = Filling::new(room);
        self.fill(&mut filling, dir, cookie)?;
        let (mut entries, eof) = filling.end()?;
        if room.plus.is_some() {
            if check(&call.cred(), &seen.owned(), EXEC).is_err() {
                names_alone(&mut entries);
            }
            self.add_attrs_at_once(&location, &seen, &mut entries).await;
            self.add_attrs(&location, dir, &mut entries).await;
            if !self.is_still_primary(dir.junction, &location) {
                entries.iter_mut().for_each(|entry| entry.attr = None);
            }
        }
        Ok(Listing { entries, eof, dir: Some(seen.attr(self.fsid(dir.junction))) })
    }

    fn fill(&self, filling: &mut Filling, dir: NodeRef, cookie: u64) -> Result<(), Status> {
        let plus = filling.left.plus.is_some();
        let made = |name: &[u8], cookie, node: NodeRef| DirEntry {
            name: name.to_vec(),
            fileid: fileid_in_tree(node),
            cookie,
            node: plus.then_some(node),
            attr: None,
        };
        if cookie < DOT && !filling.push(made(b".", DOT, dir)) {
            return Ok(());
        }
        if cookie < DOT_DOT && !filling.push(made(b"..", DOT_DOT, self.parent(dir)?)) {
            return Ok(());
        }
        let mut after = cookie.max(DOT_DOT);
        loop {
            let batch: Vec<Entry> = self.live.list(dir.node, after, BATCH)?;
            for entry in &batch {
                let node = NodeRef { junction: dir.junction, node: entry.node };
                if !filling.push(made(&entry.name, entry.cookie, node)) {
                    return Ok(());
                }
            }
            match batch.last() {
                Some(last) if batch.len() == BATCH => after = last.cookie,
                _ => return Ok(()),
            }
        }
    }

    /// Attributes of what the filer can tell without waiting: most of a directory that is in use, and not worth a task
    /// each.
    async fn add_attrs_at_once(&self, location: &Location, dir: &Seen, entries: &mut [DirEntry]) {
        if !location.filer.answers_at_once() {
            return;
        }
        let fsid = self.fsid(dir.at.junction);
        for entry in entries {
            // A long page must let others have their turn.
            tokio::task::coop::consume_budget().await;
            entry.attr = entry.node.and_then(|node| self.attr_at_once(location, dir, &entry.name, node, fsid));
        }
    }

    fn attr_at_once(&self, location: &Location, dir: &Seen, name: &[u8], node: NodeRef, fsid: u64) -> Option<Attr> {
        if node.junction != dir.at.junction || name == b"." || name == b".." {
            return None;
        }
        let rec = self.rec(node).ok()?;
        let stat = location.stat_at_once(&dir.obj, name, node.node)?;
        Some(resolve::attr(&rec, &stat, node.node, fsid))
    }

    /// The other attributes, [`SIDE_BY_SIDE`] at a time. An entry whose object cannot be reached just now has none.
    async fn add_attrs(&self, location: &Arc<Location>, dir: NodeRef, entries: &mut [DirEntry]) {
        let fsid = self.fsid(dir.junction);
        let mut tasks = JoinSet::new();
        let mut next = 0;
        let mut attrs: Vec<Option<Attr>> = entries.iter().map(|entry| entry.attr).collect();
        loop {
            while tasks.len() < SIDE_BY_SIDE && next < entries.len() {
                if let (Some(node), None) = (entries[next].node, entries[next].attr) {
                    let (volume, location, i) = (self.clone(), location.clone(), next);
                    tasks.spawn(async move { (i, volume.attr_in(&location, dir, node, fsid).await) });
                }
                next += 1;
            }
            match tasks.join_next().await {
                None => break,
                Some(Ok((i, attr))) => attrs[i] = attr,
                Some(Err(error)) => tracing::error!(%error, "an entry's attributes ended before their time"),
            }
        }
        for (entry, attr) in entries.iter_mut().zip(attrs) {
            entry.attr = attr;
        }
    }

    async fn attr_in(&self, location: &Location, dir: NodeRef, node: NodeRef, fsid: u64) -> Option<Attr> {
        if node.junction != dir.junction {
            // `..` of a junction's root.
            return self.attr_now(node).await.ok();
        }
        let seen = self.see(location, node).await.ok()?;
        Some(seen.attr(fsid))
    }
}

/// Who may read a directory and not search it is told its names, as by READDIR: a handle or attributes of what is in it
/// would be more than LOOKUP gives him.
fn names_alone(entries: &mut [DirEntry]) {
    for entry in entries.iter_mut().filter(|entry| entry.name != b"." && entry.name != b"..") {
        entry.node = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> DirEntry {
        DirEntry { name: name.as_bytes().to_vec(), fileid: 1, cookie: 16, node: None, attr: None }
    }

    fn plain(bytes: usize) -> Filling {
        Filling::new(Room::plain(bytes))
    }

    #[test]
    fn a_reply_is_filled_up_to_its_size_and_says_that_it_is_not_the_end() {
        let mut filling = plain(2 * (ENTRY_BYTES + 4));
        assert!(filling.push(entry("a")));
        assert!(filling.push(entry("abcd")));
        assert!(!filling.push(entry("c")));
        let (entries, eof) = filling.end().expect("some fit");
        assert_eq!((entries.len(), eof), (2, false));
    }

    #[test]
    fn names_are_counted_padded() {
        let mut filling = plain(ENTRY_BYTES + 4);
        assert!(!filling.push(entry("abcde")));
        let mut filling = plain(ENTRY_BYTES + 8);
        assert!(filling.push(entry("abcde")));
        assert!(filling.end().is_ok_and(|(_, eof)| eof));
    }

    #[test]
    fn a_buffer_that_takes_not_even_one_entry_is_too_small_but_an_empty_listing_is_not() {
        let mut filling = plain(10);
        assert!(!filling.push(entry("a")));
        assert_eq!(filling.end().err(), Some(Status::TooSmall));
        assert_eq!(plain(10).end(), Ok((Vec::new(), true)));
    }

    #[test]
    fn what_names_take_and_what_all_takes_are_bounds_of_their_own() {
        // Each entry takes 28 bytes for its name, fileid and cookie, and 100 more.
        let entries = |bytes, names| {
            let mut filling = Filling::new(Room::plus(bytes, names, 100));
            (0..10).take_while(|_| filling.push(entry("abcd"))).count()
        };
        for (bytes, names, fit) in [
            (1280, 280, 10),
            (1279, 280, 9),
            (1280, 279, 9),
            (1280, 28, 1),
            (128, 280, 1),
            (127, 280, 0),
            (1280, 27, 0),
        ] {
            assert_eq!(entries(bytes, names), fit, "{bytes} {names}");
        }
    }
}
