//! ACCESS.

use crate::semantics::Owned;
use crate::semantics::permission;
use crate::volume::Volume;
use crate::volume::types::{Answer, Attr, Call, NodeRef};
use crate::volume::virtuals::TREE;

/// What nobody is granted in a tree, or by an export, that is read-only.
pub const CHANGING: u32 = permission::ACCESS_MODIFY | permission::ACCESS_EXTEND | permission::ACCESS_DELETE;

impl Volume {
    pub async fn access(&self, call: &Call, node: NodeRef, mask: u32) -> Answer<(u32, Attr)> {
        let cred = call.cred();
        if node.junction == TREE {
            let attr = self.attr_now(node).await?;
            let owned = Owned { kind: attr.kind, mode: attr.mode, uid: attr.uid, gid: attr.gid, acl: None };
            return Ok((permission::access(&cred, &owned, mask) & !CHANGING, attr));
        }
        let (location, seen) = self.look(node).await?;
        let seen = self.judge(&location, call, seen).await?;
        Ok((permission::access(&cred, &seen.owned(), mask), seen.attr(self.fsid(node.junction))))
    }
}
