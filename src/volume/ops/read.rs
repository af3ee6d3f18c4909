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
        let short = data.len() < len as usize;
        if short && end != seen.stat.size && offset < seen.stat.size || end > seen.stat.size && !data.is_empty() {
            // Changed meanwhile: attributes that are older than the data would make the client cut it off, and the end of
            // what was read is not that of the file.
            let (now, grown) = self.look(seen.at).await?;
            if !Arc::ptr_eq(&now, location) {
                return Ok(None);
            }
            seen = grown;
        }
        // Not because it is short: behind that there may be bytes by now, which a client that is told of an end takes for zeros.
        // (A filer that has nothing where it says that there is something ends there, lest the client ask for ever.)
        let nothing = data.is_empty() && len > 0;
        let attr = Some(seen.attr(self.fsid(seen.at.junction)));
        Ok(Some(ReadOk { eof: nothing || end >= seen.stat.size, data, attr }))
    }
}
