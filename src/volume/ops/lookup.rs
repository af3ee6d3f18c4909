//! LOOKUP.

use crate::volume::Volume;
use crate::volume::resolve::check_bytes;
use crate::volume::types::{Attr, Call, Found, NodeRef, Refused, Status, Wcc};
use crate::volume::virtuals::TREE;

impl Volume {
    pub async fn lookup(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Found, Refused<Option<Attr>>> {
        if dir.junction == TREE {
            return self.virtual_lookup(dir.node, name).await;
        }
        let (location, seen) = match self.look(dir).await {
            Ok(looked) => looked,
            Err(status) => return Err(Refused::new(status, None)),
        };
        let dir_attr = seen.attr(self.fsid(dir.junction));
        let found = async {
            self.judge(&location, call, seen).await?.searchable(call)?;
            check_bytes(name)?;
            let node = self.step(dir, name).await?;
            let attr = self.attr_of_entry(dir, name, node).await?;
            Ok(Found { node, attr, dir: Wcc { before: None, after: Some(dir_attr) } })
        };
        found.await.map_err(|status| Refused::new(status, Some(dir_attr)))
    }

    /// Where `name` leads to from a directory of a junction.
    pub(in crate::volume) async fn step(&self, dir: NodeRef, name: &[u8]) -> Result<NodeRef, Status> {
        match name {
            b"." => Ok(dir),
            b".." => self.parent(dir),
            _ => {
                let entry = self.entry(None, dir, name).await?.ok_or(Status::NoEnt)?;
                Ok(NodeRef { junction: dir.junction, node: entry.node })
            }
        }
    }

    /// Attributes of what a name led to. If it was removed since, the name has no entry now, and that is the answer.
    async fn attr_of_entry(&self, dir: NodeRef, name: &[u8], node: NodeRef) -> Result<Attr, Status> {
        match self.attr_now(node).await {
            Err(Status::Stale) if name != b"." && name != b".." => {
                let gone = self.live.entry(dir.node, name)?.is_none_or(|e| e.node != node.node);
                Err(if gone { Status::NoEnt } else { Status::Stale })
            }
            other => other,
        }
    }
}
