//! READ. No lock and no permit: it sees each write before or after, as on any NAS, and goes on through a hold.

use crate::location::Location;
use crate::semantics::permission::may_read_data;
use crate::volume::Volume;
use crate::volume::resolve::Seen;
use crate::volume::types::{Attr, Call, NodeRef, READ_MAX, ReadOk, Refused, Status};
use crate::volume::virtuals::TREE;
use bytes::Bytes;
use journal_format::ids::Kind;
use std::sync::Arc;

impl Volume {
    /// At most [`READ_MAX`] bytes.
    pub async fn read(
        &self,
        call: &Call,
        node: NodeRef,
        offset: u64,
        len: u32,
    ) -> Result<ReadOk, Refused<Option<Attr>>> {
        match self.read_inner(call, node, offset, len.min(READ_MAX)).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.refused(status, node).await),
        }
    }

    async fn read_inner(&self, call: &Call, node: NodeRef, offset: u64, len: u32) -> Result<ReadOk, Status> {
        if node.junction == TREE {
            return Err(Status::IsDir);
        }
        loop {
            let (location, seen) = self.look(node).await?;
            if let Some(read) = self.read_from(call, &location, seen, offset, len).await? {
                return Ok(read);
            }
        }
    }

    /// `None`: the junction was switched meanwhile, and the other side is to be asked.
    async fn read_from(
        &self,
        call: &Call,
        location: &Arc<Location>,
        seen: Seen,
        offset: u64,
        len: u32,
    ) -> Result<Option<ReadOk>, Status> {
        match seen.rec.kind {
            Kind::File => {}
            Kind::Dir => return Err(Status::IsDir),
            _ => return Err(Status::Inval),
        }
        let at = seen.at;
        let judged = match self.judge(location, call, seen).await {
            Err(_) if !self.is_still_primary(at.junction, location) => return Ok(None),
            judged => judged?,
        };
        if !may_read_data(&call.cred(), &judged.owned()) {
            return Err(Status::Access);
        }
        let mut seen = judged.into_seen();
        let data = if len == 0 || offset >= seen.stat.size {
            Bytes::new()
        } else {
            match self.ask(location, location.filer.read(&seen.obj, offset, len)).await {
                Err(_) if !self.is_still_primary(seen.at.junction, location) => return Ok(None),
                read => read?,
            }
        };
        let end = offset.saturating_add(data.len() as u64);
        if end > seen.stat.size && !data.is_empty() {
            // Grew meanwhile: attributes that are older than the data would make the client cut it off.
            let (now, grown) = self.look(seen.at).await?;
            if !Arc::ptr_eq(&now, location) {
                return Ok(None);
            }
            seen = grown;
        }
        let short = data.len() < len as usize;
        let attr = Some(seen.attr(self.fsid(seen.at.junction)));
        Ok(Some(ReadOk { eof: short || end >= seen.stat.size, data, attr }))
    }
}
