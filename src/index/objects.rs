//! Per location: node <-> the filer's identity of its object there.

use super::store::{Change, Result, Store};
use journal_format::ids::{Identity, NodeId};
use std::sync::Arc;

#[derive(Clone)]
pub struct Objects {
    pub store: Arc<Store>,
}

impl Objects {
    pub fn identity(&self, _node: NodeId) -> Result<Option<Identity>> {
        todo!()
    }
    pub fn node(&self, _id: &Identity) -> Result<Option<NodeId>> {
        todo!()
    }
    /// Changes that record node <-> identity (dropping an older identity of the node).
    pub fn put(&self, _node: NodeId, _id: &Identity) -> Result<Vec<Change>> {
        todo!()
    }
    pub fn remove(&self, _node: NodeId) -> Result<Vec<Change>> {
        todo!()
    }
}
