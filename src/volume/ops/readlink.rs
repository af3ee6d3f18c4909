//! READLINK.

use crate::volume::Volume;
use crate::volume::types::{Attr, Call, NodeRef, Refused, Status};
use crate::volume::virtuals::TREE;
use journal_format::ids::Kind;

impl Volume {
    /// Its text goes to the client as it is: who follows it, and where to, is the client's affair.
    pub async fn readlink(
        &self,
        _call: &Call,
        node: NodeRef,
    ) -> Result<(Vec<u8>, Option<Attr>), Refused<Option<Attr>>> {
        match self.readlink_inner(node).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.refused(status, node).await),
        }
    }

    async fn readlink_inner(&self, node: NodeRef) -> Result<(Vec<u8>, Option<Attr>), Status> {
        if node.junction == TREE {
            return Err(Status::Inval);
        }
        let (location, seen) = self.look(node).await?;
        if seen.rec.kind != Kind::Symlink {
            return Err(Status::Inval);
        }
        let target = self.ask(&location, location.filer.readlink(&seen.obj)).await?;
        Ok((target, Some(seen.attr(self.fsid(node.junction)))))
    }
}
