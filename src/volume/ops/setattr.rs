//! SETATTR.

use crate::location::Location;
use crate::semantics::setattr::{decide, guard as check_guard};
use crate::volume::act::Act;
use crate::volume::locks::{Guard, Key, Mode};
use crate::volume::resolve::{Judged, changeable};
use crate::volume::run::{Ended, Mutation};
use crate::volume::types::{Call, FILE_SIZE_MAX, NodeRef, Refused, SetAttrs, Status, Wcc};
use crate::volume::{Volume, hold::Permit};
use journal_format::event;
use journal_format::ids::{Kind, Time};
use std::sync::Arc;

impl Volume {
    /// `guard`: the ctime that the client has seen.
    pub async fn setattr(
        &self,
        call: &Call,
        node: NodeRef,
        wish: SetAttrs,
        guard: Option<Time>,
    ) -> Result<Wcc, Refused<Wcc>> {
        match self.setattr_inner(call, node, &wish, guard).await {
            Ok(wcc) => Ok(wcc),
            Err(status) => Err(self.refused_wcc(status, node).await),
        }
    }

    async fn setattr_inner(
        &self,
        call: &Call,
        node: NodeRef,
        wish: &SetAttrs,
        expected: Option<Time>,
    ) -> Result<Wcc, Status> {
        changeable(node)?;
        let (permit, location) = self.admit(node.junction).await?;
        let guard = self.acquire(node.junction, vec![(Key::Node(node.node), Mode::Exclusive)]).await?;
        let seen = self.see(&location, node).await?;
        check_guard(expected, seen.rec.ctime)?;
        let seen = self.judge(&location, call, seen).await?;
        let guard = self.set_locked(call, permit, guard, &location, &seen, wish).await?;
        Ok(self.wcc(&guard, seen.pre(), node).await)
    }

    /// SETATTR of a node that is locked; also what an UNCHECKED CREATE of an existing file comes to.
    pub(in crate::volume) async fn set_locked(
        &self,
        call: &Call,
        permit: Permit,
        guard: Guard,
        location: &Arc<Location>,
        seen: &Judged,
        wish: &SetAttrs,
    ) -> Result<Guard, Status> {
        check_size(seen.rec.kind, wish.size)?;
        let mut explicit = decide(&call.cred(), &seen.owned(), wish, self.ledger.journal.now())?;
        if seen.rec.kind == Kind::Symlink {
            // A symlink's mode means nothing, and Linux refuses to set one.
            explicit.mode = None;
        }
        if explicit.is_nothing() {
            return Ok(guard);
        }
        if explicit.uid.is_some() && !location.filer.capabilities().chown {
            return Err(Status::Perm);
        }
        let event = event::SetAttr {
            junction: seen.at.junction,
            location: location.id,
            node: seen.at.node,
            mode: explicit.mode,
            uid: explicit.uid,
            gid: explicit.gid,
            size: explicit.size,
            atime: explicit.atime,
            mtime: explicit.mtime,
            caller: call.caller(),
        };
        let act = Act::Set { event, obj: seen.obj.clone() };
        let Ended { guard, .. } = self.run(Mutation { permit, guard, location: location.clone(), act }).await?;
        Ok(guard)
    }
}

fn check_size(kind: Kind, size: Option<u64>) -> Result<(), Status> {
    match (size, kind) {
        (None, _) => Ok(()),
        (Some(size), Kind::File) if size <= FILE_SIZE_MAX => Ok(()),
        (Some(_), Kind::File) => Err(Status::FBig),
        (Some(_), Kind::Dir) => Err(Status::IsDir),
        (Some(_), _) => Err(Status::Inval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_have_a_size_that_can_be_set() {
        assert_eq!(check_size(Kind::Dir, None), Ok(()));
        assert_eq!(check_size(Kind::File, Some(FILE_SIZE_MAX)), Ok(()));
        assert_eq!(check_size(Kind::File, Some(FILE_SIZE_MAX + 1)), Err(Status::FBig));
        assert_eq!(check_size(Kind::Dir, Some(0)), Err(Status::IsDir));
        assert_eq!(check_size(Kind::Symlink, Some(0)), Err(Status::Inval));
    }
}
