//! Who is called what: the one question that both the live index and a projection answer.

use crate::index::live::Live;
use crate::index::store::Result;
use journal_format::ids::{Kind, NodeId};

/// Names as they stand at some position.
pub trait View: Send + Sync {
    /// What the name leads to.
    fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<(NodeId, Kind)>>;
    /// Up to `limit` names of the node.
    fn names(&self, node: NodeId, limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>>;
}

impl View for Live {
    fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<(NodeId, Kind)>> {
        Ok(Live::entry(self, dir, name)?.map(|entry| (entry.node, entry.kind)))
    }
    fn names(&self, node: NodeId, limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>> {
        Live::names(self, node, limit)
    }
}

impl<T: View + ?Sized> View for std::sync::Arc<T> {
    fn entry(&self, dir: NodeId, name: &[u8]) -> Result<Option<(NodeId, Kind)>> {
        (**self).entry(dir, name)
    }
    fn names(&self, node: NodeId, limit: usize) -> Result<Vec<(NodeId, Vec<u8>)>> {
        (**self).names(node, limit)
    }
}
