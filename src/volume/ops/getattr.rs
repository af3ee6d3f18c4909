//! GETATTR, and attributes that go with other answers.

use crate::volume::Volume;
use crate::volume::types::{Answer, Attr, Call, NodeRef, Refused, Wcc};
use journal_format::ids::{JunctionId, NodeId};

impl Volume {
    pub async fn getattr(&self, node: NodeRef) -> Answer<Attr> {
        self.attr_now(node).await
    }

    /// post_op_attr: absent where it cannot be had now.
    pub async fn attr_opt(&self, node: NodeRef) -> Option<Attr> {
        self.attr_now(node).await.ok()
    }

    /// The junction's primary has not been redone since the start: its last operations may yet be refused.
    pub async fn in_doubt(&self, junction: JunctionId) -> bool {
        self.ledger.doubt_from(junction).is_some()
    }

    /// The node that the index knows under this name.
    pub fn leads_to(&self, dir: NodeRef, name: &[u8]) -> Answer<Option<NodeId>> {
        Ok(self.live.entry(dir.node, name)?.map(|entry| entry.node))
    }

    /// COMMIT: every WRITE was answered FILE_SYNC, so there is nothing to do.
    pub async fn commit(&self, _call: &Call, node: NodeRef) -> Result<Wcc, Refused<Wcc>> {
        match self.attr_now(node).await {
            Ok(attr) => Ok(Wcc { before: None, after: Some(attr) }),
            Err(status) => Err(Refused::new(status, Wcc::default())),
        }
    }
}
