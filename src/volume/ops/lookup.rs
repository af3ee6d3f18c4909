//! LOOKUP.

use crate::volume::Volume;
use crate::volume::locks::{Key, Mode};
use crate::volume::lost::Sight;
use crate::volume::resolve::check_bytes;
use crate::volume::types::{Attr, Call, Found, NodeRef, Refused, Status, Wcc};
use crate::volume::virtuals::TREE;

/// How often a name is looked up that others replace meanwhile.
const TRIES: usize = 16;

impl Volume {
    pub async fn lookup(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Found, Refused<Option<Attr>>> {
        if dir.junction == TREE {
            return self.virtual_lookup(dir.node, name).await;
        }
        for _ in 0..TRIES {
            let (location, seen) = match self.look(dir).await {
                Ok(looked) => looked,
                Err(status) => return Err(Refused::new(status, None)),
            };
            let dir_attr = seen.attr(self.fsid(dir.junction));
            let found = async {
                match self.judge(&location, call, seen).await {
                    // The other side is to be asked.
                    Err(_) if !self.is_still_primary(dir.junction, &location) => return Ok(None),
                    judged => judged?.searchable(call)?,
                }
                check_bytes(name)?;
                let node = self.step(dir, name).await?;
                let Some(attr) = self.attr_of_entry(dir, name, node).await? else { return Ok(None) };
                Ok(Some(Found { node, attr, dir: Wcc { before: None, after: Some(dir_attr) } }))
            };
            match found.await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(status) => return Err(Refused::new(status, Some(dir_attr))),
            }
        }
        Err(Refused::new(Status::Jukebox, None))
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

    /// Attributes of what a name led to. `None`: it was removed, or replaced, since, and that has ended: the name is to be
    /// looked up again. A name that is replaced is there at every moment.
    async fn attr_of_entry(&self, dir: NodeRef, name: &[u8], node: NodeRef) -> Result<Option<Attr>, Status> {
        match self.attr_now(node).await {
            Err(Status::Stale) if name != b"." && name != b".." => {
                let ended =
                    self.acquire(dir.junction, vec![(Key::Name(dir.node, name.to_vec()), Mode::Shared)]).await?;
                let now = self.live.entry(dir.node, name)?.filter(|entry| entry.node == node.node);
                let Some(entry) = now else { return Ok(None) };
                let (location, parent) = self.look(dir).await?;
                let sight = self.sight(&location, &parent, name, &entry).await?;
                drop(ended);
                // Of a side that was left meanwhile it says nothing.
                if self.is_still_primary(dir.junction, &location) && matches!(sight, Sight::Lost { .. }) {
                    return Err(Status::NoEnt);
                }
                Ok(None)
            }
            attr => attr.map(Some),
        }
    }
}
