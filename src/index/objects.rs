//! Per location: node <-> the filer's identity of its object there.
//!
//! ```text
//!  O node     -> version, identity
//!  I identity -> version, node u64 (little-endian)
//! ```
//!
//! One to one: a node that is put with a new identity loses its old one, and an identity that is put for a new node
//! (the filer has used it again; the old node's removal has not come by) is lost to its old one. The two keys of a pair
//! are always written together.

use super::store::{Change, Key, Result, Store};
use journal_format::ids::{Identity, NodeId};
use std::sync::Arc;

const VERSION: u8 = 1;

#[derive(Clone)]
pub struct Objects {
    pub store: Arc<Store>,
}

impl Objects {
    pub fn new(store: Arc<Store>) -> Self {
        Objects { store }
    }

    pub fn identity(&self, node: NodeId) -> Result<Option<Identity>> {
        let Some(value) = self.store.get(&node_key(node))? else { return Ok(None) };
        match value.split_first() {
            Some((&VERSION, identity)) if identity.len() <= Identity::MAX => Ok(Some(Identity(identity.to_vec()))),
            _ => Err(self.store.corrupt(format!("identity of node {node}"))),
        }
    }

    pub fn node(&self, id: &Identity) -> Result<Option<NodeId>> {
        let Some(value) = self.store.get(&identity_key(id))? else { return Ok(None) };
        match value.split_first().map(|(version, node)| (*version, <[u8; 8]>::try_from(node))) {
            Some((VERSION, Ok(node))) => Ok(Some(NodeId(u64::from_le_bytes(node)))),
            _ => Err(self.store.corrupt("node of an identity")),
        }
    }

    /// Changes that record node <-> identity (dropping an older identity of the node).
    ///
    /// They depend on what is there: write them before the next ones are asked for (`Store::update`), or see to it that
    /// they are about other nodes and other identities.
    pub fn put(&self, node: NodeId, id: &Identity) -> Result<Vec<Change>> {
        if id.0.len() > Identity::MAX {
            return Err(self.store.corrupt(format!("identity of {} bytes for node {node}", id.0.len())));
        }
        let mut changes = Vec::new();
        if let Some(old) = self.identity(node)?
            && old != *id
            && self.node(&old)? == Some(node)
        {
            changes.push((identity_key(&old), None));
        }
        if let Some(other) = self.node(id)?
            && other != node
            && self.identity(other)?.as_ref() == Some(id)
        {
            changes.push((node_key(other), None));
        }
        changes.push((node_key(node), Some([&[VERSION], id.0.as_slice()].concat())));
        changes.push((identity_key(id), Some([&[VERSION], node.0.to_le_bytes().as_slice()].concat())));
        Ok(changes)
    }

    /// Changes that forget the node, and its identity if that still is the node's.
    pub fn remove(&self, node: NodeId) -> Result<Vec<Change>> {
        let Some(id) = self.identity(node)? else { return Ok(Vec::new()) };
        let mut changes = vec![(node_key(node), None)];
        if self.node(&id)? == Some(node) {
            changes.push((identity_key(&id), None));
        }
        Ok(changes)
    }
}

fn node_key(node: NodeId) -> Key {
    [b"O", node.0.to_be_bytes().as_slice()].concat()
}

fn identity_key(id: &Identity) -> Key {
    [b"I", id.0.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::index::store::Error;

    fn objects() -> (tempfile::TempDir, Objects) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_exact(&dir.path().join("s"), 4 << 20).unwrap();
        (dir, Objects::new(Arc::new(store)))
    }

    fn id(text: &str) -> Identity {
        Identity(text.as_bytes().to_vec())
    }

    #[test]
    fn a_node_has_one_identity_and_an_identity_one_node() {
        let (_dir, objects) = objects();
        let put = |node: u64, text: &str| objects.store.write(objects.put(NodeId(node), &id(text)).unwrap());
        put(1, "a");
        put(2, "b");
        put(1, "c");
        assert_eq!(objects.identity(NodeId(1)).unwrap(), Some(id("c")));
        assert_eq!(objects.node(&id("a")).unwrap(), None);
        put(3, "b");
        assert_eq!((objects.node(&id("b")).unwrap(), objects.identity(NodeId(2)).unwrap()), (Some(NodeId(3)), None));
        put(3, "b");
        assert_eq!(objects.node(&id("b")).unwrap(), Some(NodeId(3)));
    }

    #[test]
    fn removing_a_node_leaves_its_identity_to_whoever_has_it_now() {
        let (_dir, objects) = objects();
        let put = |node: u64, text: &str| objects.store.write(objects.put(NodeId(node), &id(text)).unwrap());
        put(1, "a");
        put(2, "a");
        objects.store.write(objects.remove(NodeId(1)).unwrap());
        assert_eq!(objects.node(&id("a")).unwrap(), Some(NodeId(2)));
        objects.store.write(objects.remove(NodeId(2)).unwrap());
        assert!(objects.store.scan(b"", None, 9).unwrap().is_empty());
    }

    #[test]
    fn identities_that_do_not_decode_are_errors() {
        let (_dir, objects) = objects();
        for value in [vec![], vec![2, 1], [vec![VERSION], vec![0; Identity::MAX + 1]].concat()] {
            objects.store.write(vec![(node_key(NodeId(1)), Some(value))]);
            assert!(matches!(objects.identity(NodeId(1)), Err(Error::Corrupt { .. })));
            assert!(objects.put(NodeId(1), &id("a")).is_err());
        }
        for value in [vec![], vec![VERSION, 1], vec![9; 9], vec![VERSION; 10]] {
            objects.store.write(vec![(identity_key(&id("a")), Some(value))]);
            assert!(matches!(objects.node(&id("a")), Err(Error::Corrupt { .. })));
        }
        assert!(objects.put(NodeId(7), &Identity(vec![0; Identity::MAX + 1])).is_err());
    }
}
