//! Junction 0: the read-only tree that leads to the junctions. It is State's, not a filer's.
//!
//! Every directory is root's, mode 0555, and its times are those of the last junction added or removed below it. A name
//! that leads to a junction is answered with the junction's root, so a client crosses into it as into a mounted
//! file system (another fsid). Until it has crossed, it shows the junction's root under the fsid of this tree: so fileids
//! here are none that a node may have, or a directory and a junction in it could look like one ("file system loop",
//! says `find`). Cookies are made of the children's numbers, which are never used again: a listing does
//! not shift when junctions come and go.

use super::Volume;
use super::types::{Attr, DirEntry, Found, Listing, MayUse, NodeRef, Refused, Room, Status, Wcc};
use crate::state::{Child, State, VirtualDir};
use journal_format::ids::{JunctionId, Kind, NodeId};

/// Its number.
pub const TREE: JunctionId = JunctionId(0);
/// Node of `/`.
pub const ROOT: NodeId = NodeId(1);

/// Fileids of the directories below `/` begin here, behind every node's.
const FILEIDS: u64 = 1 << 48;

/// `/` keeps 1, which no node ever gets.
fn fileid(node: NodeId) -> u64 {
    if node == ROOT { node.0 } else { FILEIDS.saturating_add(node.0) }
}

pub(super) fn fileid_in_tree(at: NodeRef) -> u64 {
    if at.junction == TREE { fileid(at.node) } else { at.node.0 }
}

fn attr_of(node: NodeId, dir: &VirtualDir, fsid: u64) -> Attr {
    let dirs = u32::try_from(dir.children.len()).unwrap_or(u32::MAX);
    Attr {
        kind: Kind::Dir,
        mode: 0o555,
        nlink: dirs.saturating_add(2),
        uid: 0,
        gid: 0,
        size: 4096,
        used: 4096,
        rdev: (0, 0),
        fsid,
        fileid: fileid(node),
        atime: dir.changed,
        mtime: dir.changed,
        ctime: dir.changed,
    }
}

/// Where a child leads; `None` for a junction that State does not have (which it always has).
fn leads_to(state: &State, child: Child) -> Option<NodeRef> {
    match child {
        Child::Dir(node) => Some(NodeRef { junction: TREE, node }),
        Child::Junction(junction) => state.junctions.get(&junction).map(|found| NodeRef { junction, node: found.root }),
    }
}

/// The junction that this name leads to.
pub fn junction_at(state: &State, dir: NodeId, name: &[u8]) -> Option<JunctionId> {
    match state.tree.get(&dir)?.children.get(name)? {
        Child::Junction(junction) => Some(*junction),
        Child::Dir(_) => None,
    }
}

fn cookie(child: Child) -> u64 {
    match child {
        Child::Dir(node) => node.0.saturating_mul(2).saturating_add(16),
        Child::Junction(junction) => u64::from(junction.0) * 2 + 17,
    }
}

impl Volume {
    pub(super) fn virtual_attr(&self, node: NodeId) -> Result<Attr, Status> {
        let state = self.ledger.state();
        let dir = state.tree.get(&node).ok_or(Status::Stale)?;
        Ok(attr_of(node, dir, self.fsid(TREE)))
    }

    /// The node that `name` in a virtual directory leads to.
    pub(super) fn virtual_child(&self, dir: NodeId, name: &[u8]) -> Result<NodeRef, Status> {
        let state = self.ledger.state();
        let found = state.tree.get(&dir).ok_or(Status::Stale)?;
        match name {
            b"." => Ok(NodeRef { junction: TREE, node: dir }),
            b".." => Ok(NodeRef { junction: TREE, node: found.parent }),
            _ => {
                let child = found.children.get(name).ok_or(Status::NoEnt)?;
                leads_to(&state, *child).ok_or(Status::NoEnt)
            }
        }
    }

    pub(super) async fn virtual_lookup(&self, dir: NodeId, name: &[u8]) -> Result<Found, Refused<Option<Attr>>> {
        let dir_attr = self.virtual_attr(dir).map_err(|status| Refused::new(status, None))?;
        let found = async {
            let node = self.virtual_child(dir, name)?;
            let attr = self.attr_now(node).await?;
            Ok(Found { node, attr, dir: Wcc { before: None, after: Some(dir_attr) } })
        };
        found.await.map_err(|status| Refused::new(status, Some(dir_attr)))
    }

    pub(super) async fn virtual_readdir(
        &self,
        dir: NodeId,
        after: u64,
        room: Room,
        may: MayUse<'_>,
    ) -> Result<Listing, Status> {
        let state = self.ledger.state();
        let found = state.tree.get(&dir).ok_or(Status::Stale)?;
        let own = NodeRef { junction: TREE, node: dir };
        let parent = NodeRef { junction: TREE, node: found.parent };
        let mut all = vec![(1, b".".to_vec(), own), (2, b"..".to_vec(), parent)];
        let children = found.children.iter();
        all.extend(
            children.filter_map(|(name, child)| Some((cookie(*child), name.clone(), leads_to(&state, *child)?))),
        );
        all.sort();
        let mut listing = super::ops::readdir::Filling::new(room);
        for (cookie, name, node) in all.into_iter().filter(|(cookie, _, _)| *cookie > after) {
            // What a closed junction's filer says, and how long it takes, is not the caller's affair.
            let shown = room.plus.is_some() && (node.junction == TREE || may(node.junction));
            let fileid = fileid_in_tree(node);
            let entry = DirEntry { name, fileid, cookie, node: shown.then_some(node), attr: None };
            if !listing.push(entry) {
                break;
            }
        }
        let (mut entries, eof) = listing.end()?;
        // Side by side: the filers of some junctions may not answer for a while.
        let attrs = entries.iter().map(|entry| async {
            match entry.node {
                Some(node) => self.attr_now(node).await.ok(),
                None => None,
            }
        });
        let attrs = futures_util::future::join_all(attrs).await;
        entries.iter_mut().zip(attrs).for_each(|(entry, attr)| entry.attr = attr);
        Ok(Listing { entries, eof, dir: Some(attr_of(dir, found, self.fsid(TREE))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::ids::Time;
    use std::collections::BTreeMap;

    #[test]
    fn a_virtual_directory_is_roots_read_only_and_as_old_as_its_last_change() {
        let dir = VirtualDir {
            parent: ROOT,
            children: BTreeMap::from([(b"a".to_vec(), Child::Dir(NodeId(2)))]),
            changed: Time(7),
        };
        let attr = attr_of(ROOT, &dir, 99);
        assert_eq!((attr.kind, attr.mode, attr.uid, attr.gid), (Kind::Dir, 0o555, 0, 0));
        assert_eq!((attr.nlink, attr.fsid, attr.fileid), (3, 99, 1));
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (Time(7), Time(7), Time(7)));
    }

    #[test]
    fn a_directory_of_the_tree_never_has_the_fileid_of_a_node() {
        assert_eq!(fileid(ROOT), 1);
        let at = |junction, node| NodeRef { junction, node: NodeId(node) };
        assert_ne!(fileid_in_tree(at(TREE, 2)), fileid_in_tree(at(JunctionId(1), 2)), "one fsid shows both");
        assert_eq!(fileid_in_tree(at(JunctionId(1), 2)), 2);
    }

    #[test]
    fn cookies_of_directories_and_junctions_never_meet_and_begin_at_sixteen() {
        let dirs: Vec<u64> = (1..50).map(|n| cookie(Child::Dir(NodeId(n)))).collect();
        let junctions: Vec<u64> = (0..50).map(|n| cookie(Child::Junction(JunctionId(n)))).collect();
        assert!(dirs.iter().all(|c| *c >= 16 && !junctions.contains(c)));
        assert!(junctions.iter().all(|c| *c >= 16));
    }
}
