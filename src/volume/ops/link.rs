//! LINK.

use crate::semantics::permission::may_add;
use crate::volume::Volume;
use crate::volume::act::Act;
use crate::volume::locks::{Key, Mode};
use crate::volume::resolve::{Use, changeable, check_name};
use crate::volume::run::Mutation;
use crate::volume::types::{Attr, Call, LINK_MAX, NodeRef, Refused, Status, Wcc};
use journal_format::event;
use journal_format::ids::Kind;

impl Volume {
    pub async fn link(
        &self,
        call: &Call,
        node: NodeRef,
        dir: NodeRef,
        name: &[u8],
    ) -> Result<(Option<Attr>, Wcc), Refused<(Option<Attr>, Wcc)>> {
        match self.link_inner(call, node, dir, name).await {
            Ok(answer) => Ok(answer),
            Err(status) => {
                let wcc = Wcc { before: None, after: self.attr_with(status, dir).await };
                Err(Refused::new(status, (self.attr_with(status, node).await, wcc)))
            }
        }
    }

    async fn link_inner(
        &self,
        call: &Call,
        node: NodeRef,
        dir: NodeRef,
        name: &[u8],
    ) -> Result<(Option<Attr>, Wcc), Status> {
        changeable(dir)?;
        changeable(node)?;
        check_name(name, Use::Make)?;
        if node.junction != dir.junction {
            return Err(Status::XDev);
        }
        let (permit, location) = self.admit(dir.junction).await?;
        let parent = self.see_dir(&location, call, dir).await?;
        self.free(call, &permit, dir, name).await?;
        let with_node = |_: &[_]| vec![(Key::Node(node.node), Mode::Exclusive)];
        let locked = self.lock_names(&permit, &[(dir, name)], with_node).await?;
        let parent = self.see_dir_again(&location, call, parent).await?;
        let target = self.see(&location, node).await?;
        if target.rec.kind == Kind::Dir {
            return Err(Status::IsDir);
        }
        if locked.entries.iter().any(Option::is_some) {
            return Err(Status::Exist);
        }
        may_add(&call.cred(), &parent.owned())?;
        if !location.filer.capabilities().hard_links {
            return Err(Status::NotSupp);
        }
        if target.stat.nlink >= LINK_MAX {
            return Err(Status::MLink);
        }
        let before = self.pre_dir(&parent)?;
        let event = event::Link {
            junction: dir.junction,
            location: location.id,
            node: node.node,
            kind: target.rec.kind,
            dir: dir.node,
            name: name.to_vec(),
            caller: call.caller(),
        };
        let act = Act::Link { event, obj: target.obj, dir: parent.obj.clone() };
        let ended = self.run(Mutation { permit, guard: locked.guard, location, act }).await?;
        let attr = self.attr_now(node).await.ok();
        Ok((attr, self.wcc(&ended.guard, before, dir).await))
    }
}
