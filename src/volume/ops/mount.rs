//! What MOUNT asks: directories by path, and the list of exports.

use crate::state::State;
use crate::volume::Volume;
use crate::volume::resolve::check_bytes;
use crate::volume::types::{Answer, MayUse, NodeRef, Status};
use crate::volume::virtuals::{ROOT, TREE};
use journal_format::event::Event;
use journal_format::ids::{JunctionId, Kind};
use std::sync::Arc;

impl Volume {
    /// A directory by its client path, above, at or below a junction. Whether the caller may is the export policy's
    /// affair (`may`), as on any server: modes are looked at when the handle is used. Below a junction that the caller may
    /// not use no name is looked at: how long that takes would tell.
    pub async fn mount(&self, path: &[u8], may: MayUse<'_>) -> Answer<NodeRef> {
        let mut at = NodeRef { junction: TREE, node: ROOT };
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if name == b".." {
                return Err(Status::Inval);
            }
            check_bytes(name)?;
            at = if at.junction == TREE {
                self.virtual_child(at.node, name)?
            } else if self.rec(at)?.kind == Kind::Dir {
                self.step(at, name).await?
            } else {
                return Err(Status::NotDir);
            };
            if at.junction != TREE && !may(at.junction) {
                return Err(Status::Access);
            }
        }
        if at.junction != TREE && self.rec(at)?.kind != Kind::Dir {
            return Err(Status::NotDir);
        }
        Ok(at)
    }

    /// Junctions and policies as they are now.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.ledger.state()
    }

    /// Append an event that is nobody's operation; durable when this returns.
    pub async fn append_fact(&self, event: &Event) -> Answer<()> {
        self.ledger.record(event).await.map(|_| ()).map_err(|_| Status::Jukebox)
    }

    /// Every junction with its path.
    #[must_use]
    pub fn exports(&self) -> Vec<(JunctionId, Vec<u8>)> {
        let state = self.ledger.state();
        state.junctions.iter().map(|(junction, found)| (*junction, slashed(&found.path))).collect()
    }
}

fn slashed(path: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for name in path {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_exports_begin_with_a_slash() {
        assert_eq!(slashed(&[b"data".to_vec(), b"a b".to_vec()]), b"/data/a b");
    }
}
