//! ACCESS.

use crate::semantics::permission;
use crate::semantics::{Cred, Owned};
use crate::volume::Volume;
use crate::volume::types::{Answer, Attr, Call, NodeRef};
use crate::volume::virtuals::TREE;

/// What nobody is granted in a tree, or by an export, that is read-only.
pub const CHANGING: u32 = permission::ACCESS_MODIFY | permission::ACCESS_EXTEND | permission::ACCESS_DELETE;

impl Volume {
    pub async fn access(&self, call: &Call, node: NodeRef, mask: u32) -> Answer<(u32, Attr)> {
        let attr = self.attr_now(node).await?;
        let owned = Owned { kind: attr.kind, mode: attr.mode, uid: attr.uid, gid: attr.gid };
        let cred: Cred<'_> = call.cred();
        let granted = permission::access(&cred, &owned, mask);
        let read_only = node.junction == TREE;
        Ok((if read_only { granted & !CHANGING } else { granted }, attr))
    }
}
