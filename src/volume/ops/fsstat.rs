//! FSSTAT.

use crate::filer::FsStat;
use crate::volume::Volume;
use crate::volume::types::{Answer, Call, NodeRef, Space};
use crate::volume::virtuals::TREE;

impl Volume {
    /// Space of the primary's file system; the tree above the junctions has none.
    pub async fn fsstat(&self, _call: &Call, node: NodeRef) -> Answer<Space> {
        let attr = self.attr_now(node).await?;
        if node.junction == TREE {
            return Ok(Space { attr: Some(attr), fs: FsStat::default() });
        }
        let location = self.primary(node.junction)?;
        let fs = self.ask(&location, location.filer.statfs()).await?;
        Ok(Space { attr: Some(attr), fs })
    }
}
