//! WRITE. Always FILE_SYNC: what is answered is durable in the journal (I1).

use crate::semantics::permission::may_write_data;
use crate::semantics::resulting;
use crate::volume::Volume;
use crate::volume::act::Act;
use crate::volume::locks::{Key, Mode};
use crate::volume::resolve::changeable;
use crate::volume::run::Mutation;
use crate::volume::types::{Call, FILE_SIZE_MAX, NodeRef, Refused, Status, Wcc};
use bytes::Bytes;
use journal_format::event;
use journal_format::ids::Kind;

impl Volume {
    /// Answers how many bytes were written: fewer than given when the filer had no room for the rest.
    pub async fn write(
        &self,
        call: &Call,
        node: NodeRef,
        offset: u64,
        data: Bytes,
    ) -> Result<(u32, Wcc), Refused<Wcc>> {
        match self.write_inner(call, node, offset, data).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.refused_wcc(status, node).await),
        }
    }

    async fn write_inner(&self, call: &Call, node: NodeRef, offset: u64, data: Bytes) -> Result<(u32, Wcc), Status> {
        changeable(node)?;
        let len = u32::try_from(data.len()).map_err(|_| Status::Inval)?;
        let to = offset.checked_add(u64::from(len)).filter(|to| *to <= FILE_SIZE_MAX).ok_or(Status::FBig)?;
        let (permit, location) = self.admit(node.junction).await?;
        let range = Mode::Range { from: offset, to };
        let wanted = vec![(Key::Node(node.node), Mode::Shared), (Key::Bytes(node.node), range)];
        let guard = self.acquire(node.junction, wanted).await?;
        let seen = self.see(&location, node).await?;
        match seen.rec.kind {
            Kind::File => {}
            Kind::Dir => return Err(Status::IsDir),
            _ => return Err(Status::Inval),
        }
        let seen = self.judge(&location, call, seen).await?;
        if !may_write_data(&call.cred(), &seen.owned()) {
            return Err(Status::Access);
        }
        if len == 0 {
            return Ok((0, self.wcc(&guard, seen.pre(), node).await));
        }
        let event = event::Write {
            junction: node.junction,
            location: location.id,
            node: node.node,
            offset,
            len,
            mode: resulting::after_write(&call.cred(), &seen.owned()),
            caller: call.caller(),
        };
        let act = Act::Write { event, obj: seen.obj.clone(), data };
        let ended = self.run(Mutation { permit, guard, location, act }).await?;
        Ok((ended.written, self.wcc(&ended.guard, seen.pre(), node).await))
    }
}
