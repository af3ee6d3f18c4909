//! MKDIR, SYMLINK and MKNOD; and what CREATE shares with them.

use crate::filer::{AclKind, Stat};
use crate::location::Location;
use crate::semantics::permission::may_add;
use crate::semantics::resulting;
use crate::volume::Volume;
use crate::volume::act::Act;
use crate::volume::hold::Permit;
use crate::volume::locks::Guard;
use crate::volume::resolve::{Judged, Use, attr, changeable, check_name};
use crate::volume::run::Mutation;
use crate::volume::types::{
    Call, FILE_SIZE_MAX, Found, NewNode, NodeRef, PreAttr, Refused, SYMLINK_MAX, SetTime, Status, Wcc,
};
use journal_format::event::{self, What};
use journal_format::ids::{Kind, Time};
use std::sync::Arc;

/// A directory with one of its names locked, to make something there.
pub(in crate::volume) struct Place<'a> {
    pub permit: Permit,
    pub guard: Guard,
    pub location: &'a Arc<Location>,
    pub dir: &'a Judged,
    pub before: PreAttr,
    pub name: &'a [u8],
}

impl Volume {
    pub async fn make(&self, call: &Call, dir: NodeRef, name: &[u8], new: NewNode) -> Result<Found, Refused<Wcc>> {
        match self.make_inner(call, dir, name, new).await {
            Ok(found) => Ok(found),
            Err(status) => Err(self.refused_wcc(status, dir).await),
        }
    }

    async fn make_inner(&self, call: &Call, dir: NodeRef, name: &[u8], new: NewNode) -> Result<Found, Status> {
        changeable(dir)?;
        check_name(name, Use::Make)?;
        let (permit, location) = self.admit(dir.junction).await?;
        let seen = self.see_dir(&location, call, dir).await?;
        self.free(call, &permit, dir, name).await?;
        let locked = self.lock_names(&permit, &[(dir, name)], |_| Vec::new()).await?;
        let seen = self.see_dir_again(&location, call, seen).await?;
        if locked.entries.iter().any(Option::is_some) {
            return Err(Status::Exist);
        }
        // Before what is to be made is looked at, as Linux does: who may add nothing here is told that.
        may_add(&call.cred(), &seen.owned())?;
        check_what(call, &location, &new.what)?;
        let before = self.pre_dir(&seen)?;
        let place = Place { permit, guard: locked.guard, location: &location, dir: &seen, before, name };
        self.make_at(call, place, new, None).await
    }

    /// Make it under a name that is locked and free.
    pub(in crate::volume) async fn make_at(
        &self,
        call: &Call,
        place: Place<'_>,
        new: NewNode,
        verifier: Option<[u8; 8]>,
    ) -> Result<Found, Status> {
        let Place { permit, guard, location, dir, before, name } = place;
        may_add(&call.cred(), &dir.owned())?;
        let mut new = new;
        if !matches!(new.what, What::Symlink { .. })
            && let Some(acl) = self.acl(location, dir, AclKind::Default).await?
        {
            // It takes the umask's place; the client has taken its own off already.
            new.attrs.mode = Some(acl.handed_on(new.attrs.mode.unwrap_or(0)));
        }
        let event = self.make_event(call, location, dir, name, new, verifier)?;
        let node = NodeRef { junction: dir.at.junction, node: event.node };
        let stat = made_stat(&event);
        let act = Act::Make { event, dir: dir.obj.clone() };
        let ended = self.run(Mutation { permit, guard, location: location.clone(), act }).await?;
        let attr = match self.attr_now(node).await {
            Ok(attr) => attr,
            // Done all the same: an error here would make the client repeat it, and meet its own file.
            Err(_) => {
                let rec = self.rec(node)?;
                let atime = if stat.atime == Time::default() { rec.ctime } else { stat.atime };
                let stat = Stat { atime, ..stat };
                attr(&rec, &stat, node.node, self.fsid(node.junction))
            }
        };
        Ok(Found { node, attr, dir: self.wcc(&ended.guard, before, dir.at).await })
    }

    fn make_event(
        &self,
        call: &Call,
        location: &Location,
        dir: &Judged,
        name: &[u8],
        new: NewNode,
        verifier: Option<[u8; 8]>,
    ) -> Result<event::Make, Status> {
        let NewNode { what, attrs } = new;
        let kind = what.kind();
        let size = if kind == Kind::File { attrs.size.unwrap_or(0) } else { 0 };
        if size > FILE_SIZE_MAX {
            return Err(Status::FBig);
        }
        let asked = if kind == Kind::Symlink { 0o777 } else { attrs.mode.unwrap_or(0) };
        let (mode, group) = resulting::made(&call.cred(), &dir.owned(), kind, asked);
        let (uid, gid) = if !location.filer.capabilities().chown {
            // The service is an ordinary user there: what it makes is its own, whoever asked for it.
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        } else if call.cred().is_root() {
            (attrs.uid.unwrap_or(call.uid), attrs.gid.unwrap_or(group))
        } else {
            (call.uid, group)
        };
        Ok(event::Make {
            junction: dir.at.junction,
            location: location.id,
            dir: dir.at.node,
            name: name.to_vec(),
            node: self.ids.allot(),
            what,
            mode,
            uid,
            gid,
            size,
            atime: clients(attrs.atime),
            mtime: clients(attrs.mtime),
            verifier,
            caller: call.caller(),
        })
    }

    /// What a name already led to, as the answer of a CREATE. `set`: what it has by this call, for when the filer cannot be
    /// asked: an error would say that nothing was done.
    pub(in crate::volume) async fn found(
        &self,
        guard: &Guard,
        node: NodeRef,
        set: Option<Stat>,
        before: PreAttr,
        dir: NodeRef,
    ) -> Result<Found, Status> {
        let attr = match (self.attr_now(node).await, set) {
            (Err(_), Some(stat)) => attr(&self.rec(node)?, &stat, node.node, self.fsid(node.junction)),
            (attr, _) => attr?,
        };
        Ok(Found { node, attr, dir: self.wcc(guard, before, dir).await })
    }
}

/// Attributes as they were asked for, for when the filer cannot be asked just after it made the object.
fn made_stat(event: &event::Make) -> Stat {
    let rdev = match event.what {
        What::Char { major, minor } | What::Block { major, minor } => (major, minor),
        What::File | What::Dir | What::Symlink { .. } | What::Fifo | What::Socket => (0, 0),
    };
    let size = if let What::Symlink { target } = &event.what { target.len() as u64 } else { event.size };
    let kind = event.what.kind();
    Stat {
        kind,
        mode: event.mode,
        uid: event.uid,
        gid: event.gid,
        nlink: if kind == Kind::Dir { 2 } else { 1 },
        size,
        used: 0,
        rdev,
        atime: event.atime.unwrap_or_default(),
        mtime: Time::default(),
        ctime: Time::default(),
    }
}

/// The server's time is the record's, which every new object has anyhow.
fn clients(time: SetTime) -> Option<Time> {
    match time {
        SetTime::Client(time) => Some(time),
        SetTime::Keep | SetTime::Server => None,
    }
}

fn check_what(call: &Call, location: &Location, what: &What) -> Result<(), Status> {
    match what {
        What::Dir => Ok(()),
        // CREATE makes files.
        What::File => Err(Status::BadType),
        What::Symlink { target } => check_target(target),
        What::Char { .. } | What::Block { .. } if !call.cred().is_root() => Err(Status::Perm),
        // Linux has no greater numbers, and would make another device of them.
        What::Char { major, minor } | What::Block { major, minor } if *major > 0xfff || *minor > 0xf_ffff => {
            Err(Status::Inval)
        }
        What::Fifo | What::Socket => Ok(()),
        What::Char { .. } | What::Block { .. } => {
            if location.filer.capabilities().special_files {
                Ok(())
            } else {
                Err(Status::NotSupp)
            }
        }
    }
}

fn check_target(target: &[u8]) -> Result<(), Status> {
    match target {
        [] => Err(Status::Inval),
        _ if target.len() > SYMLINK_MAX => Err(Status::NameTooLong),
        _ if target.contains(&0) => Err(Status::Inval),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_s_text_is_any_bytes_but_none_or_nul() {
        assert_eq!(check_target(b"../a//b"), Ok(()));
        assert_eq!(check_target(b""), Err(Status::Inval));
        assert_eq!(check_target(b"a\0"), Err(Status::Inval));
        assert_eq!(check_target(&[b'a'; 4095]), Ok(()));
        assert_eq!(check_target(&[b'a'; 4096]), Err(Status::NameTooLong));
    }

    #[test]
    fn only_a_clients_own_time_is_kept_with_a_new_object() {
        assert_eq!(clients(SetTime::Client(Time(3))), Some(Time(3)));
        assert_eq!(clients(SetTime::Server), None);
        assert_eq!(clients(SetTime::Keep), None);
    }
}
