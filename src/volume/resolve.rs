//! From handles and names to records, objects and attributes.

use super::hold::Permit;
use super::locks::{Guard, Key, Mode};
use super::types::{Attr, Call, NAME_MAX, NodeRef, PreAttr, Refused, Status, Wcc};
use super::{Volume, virtuals};
use crate::filer::{AclKind, Object, Stat};
use crate::index::live::{Entry, NodeRec};
use crate::location::Location;
use crate::semantics::acl::Acl;
use crate::semantics::permission::{EXEC, check, needs_acl};
use crate::semantics::{Cred, Owned};
use journal_format::event::Caller;
use journal_format::ids::{JunctionId, Kind, NodeId};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

/// A node as it is now: what tain keeps of it, its object on the primary, and that one's attributes.
#[derive(Clone)]
pub(super) struct Seen {
    pub at: NodeRef,
    pub rec: NodeRec,
    pub obj: Object,
    pub stat: Stat,
}

/// A node with all that decides what a caller may do with it.
#[derive(Clone)]
pub(super) struct Judged {
    seen: Seen,
    /// Its ACL, if it has one that could say anything about the caller.
    acl: Option<Arc<Acl>>,
}

impl Deref for Judged {
    type Target = Seen;

    fn deref(&self) -> &Seen {
        &self.seen
    }
}

impl Judged {
    pub fn into_seen(self) -> Seen {
        self.seen
    }

    pub fn owned(&self) -> Owned<'_> {
        Owned { acl: self.acl.as_deref(), ..self.seen.without_acl() }
    }

    /// It must be a directory that may be searched.
    pub fn searchable(&self, call: &Call) -> Result<(), Status> {
        if self.rec.kind != Kind::Dir {
            return Err(Status::NotDir);
        }
        Ok(check(&call.cred(), &self.owned(), EXEC)?)
    }
}

impl Seen {
    /// For rules that look at kind, owner and mode alone.
    pub fn without_acl(&self) -> Owned<'static> {
        let Stat { mode, uid, gid, .. } = self.stat;
        Owned { kind: self.rec.kind, mode, uid, gid, acl: None }
    }

    pub fn pre(&self) -> PreAttr {
        PreAttr { size: self.stat.size, mtime: self.rec.mtime, ctime: self.rec.ctime }
    }

    pub fn attr(&self, fsid: u64) -> Attr {
        attr(&self.rec, &self.stat, self.at.node, fsid)
    }
}

/// What clients see: times and identity are tain's, the rest is the primary's.
pub(super) fn attr(rec: &NodeRec, stat: &Stat, node: NodeId, fsid: u64) -> Attr {
    Attr {
        kind: rec.kind,
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        used: stat.used,
        rdev: stat.rdev,
        fsid,
        fileid: node.0,
        atime: stat.atime,
        mtime: rec.mtime,
        ctime: rec.ctime,
    }
}

impl Call {
    pub(super) fn cred(&self) -> Cred<'_> {
        Cred { uid: self.uid, gid: self.gid, gids: &self.gids }
    }

    /// What the journal keeps about the call.
    pub(super) fn caller(&self) -> Caller {
        let addr = match self.addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Caller { addr: addr.octets(), port: self.port, xid: self.xid, call_sum: self.sum, uid: self.uid, gid: self.gid }
    }
}

/// Where a name is used; `.` and `..` are answered by RFC 1813's text for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Make,
    Remove,
    Rmdir,
    Rename,
}

/// A name that names an entry: 1 to 255 bytes, no slash, no NUL, not a dot name.
pub(super) fn check_name(name: &[u8], used: Use) -> Result<(), Status> {
    match name {
        b"" => return Err(Status::Inval),
        b"." if used == Use::Make => return Err(Status::Exist),
        b".." if matches!(used, Use::Make | Use::Rmdir) => return Err(Status::Exist),
        b"." | b".." => return Err(Status::Inval),
        _ => {}
    }
    check_bytes(name)
}

/// Length and bytes of a name, dot names included.
pub(super) fn check_bytes(name: &[u8]) -> Result<(), Status> {
    if name.is_empty() || name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Status::Inval);
    }
    if name.len() > NAME_MAX {
        return Err(Status::NameTooLong);
    }
    Ok(())
}

/// Names that are locked, and what they lead to.
pub(super) struct LockedNames {
    pub guard: Guard,
    pub entries: Vec<Option<Entry>>,
}

/// How often names are looked up again because they changed before they were locked.
const NAME_TRIES: usize = 16;

impl Volume {
    /// A mutation comes in: its permit, and the primary, which stays that as long as it has the permit.
    ///
    /// Asked for twice. Behind the permit, for before it a switch may come in between. And before it, because to wait for a
    /// switch is a pause of milliseconds, and to wait for a primary that is down is none: whoever stood before a held junction
    /// for that would have a place on a connection that calls to other junctions need, too. So of one that is down, or
    /// suspended, the answer is JUKEBOX at once, held or not.
    pub(super) async fn admit(&self, junction: JunctionId) -> Result<(Permit, Arc<Location>), Status> {
        self.primary(junction)?;
        let permit = self.holds.enter(junction).await?;
        let location = self.primary(junction)?;
        Ok((permit, location))
    }

    /// The same for who takes down what the filer has, a job among them; he looks the primary up when he asks it.
    pub(super) async fn admit_adoption(&self, junction: JunctionId) -> Result<Permit, Status> {
        self.location_of(junction)?;
        self.holds.enter(junction).await
    }

    /// The location that the junction points to now, for a client; of one that is suspended clients wait. A mutation asks
    /// by [`admit`](Self::admit).
    pub(super) fn primary(&self, junction: JunctionId) -> Result<Arc<Location>, Status> {
        let suspended = self.ledger.state().junctions.get(&junction).is_some_and(|found| found.suspended);
        if suspended { Err(Status::Jukebox) } else { self.location_of(junction) }
    }

    /// The same for what jobs ask as well: they go on while clients wait.
    pub(super) fn location_of(&self, junction: JunctionId) -> Result<Arc<Location>, Status> {
        let primary = self.ledger.state().junctions.get(&junction).ok_or(Status::Stale)?.primary;
        self.locations.get(primary).ok_or(Status::Jukebox)
    }

    /// The index's record of a node of this junction, with the change time that clients are to see.
    pub(super) fn rec(&self, at: NodeRef) -> Result<NodeRec, Status> {
        let Some(mut rec) = self.live.node(at.node)? else {
            // Of a primary that has not been redone yet the index lacks the last operations: then the client waits.
            return self.location_of(at.junction).and(Err(Status::Stale));
        };
        rec.ctime = self.ledger.shown_ctime(at.node, rec.ctime);
        if rec.junction == at.junction { Ok(rec) } else { Err(Status::Stale) }
    }

    pub(super) async fn see(&self, location: &Location, at: NodeRef) -> Result<Seen, Status> {
        let rec = self.rec(at)?;
        let look = async {
            let obj = location.object(self.live.as_ref(), at.node).await?;
            let stat = location.filer.stat(&obj).await?;
            Ok((obj, stat))
        };
        let (obj, stat) = self.ask(location, look).await?;
        Ok(Seen { at, rec, obj, stat })
    }

    /// Whatever decides about the caller beside what was seen.
    pub(super) async fn judge(&self, location: &Location, call: &Call, seen: Seen) -> Result<Judged, Status> {
        let decides = seen.rec.kind != Kind::Symlink && needs_acl(&call.cred(), seen.stat.mode, seen.stat.uid);
        let acl = if decides { self.acl(location, &seen, AclKind::Access).await? } else { None };
        Ok(Judged { seen, acl: acl.map(Arc::new) })
    }

    pub(super) async fn acl(&self, location: &Location, seen: &Seen, which: AclKind) -> Result<Option<Acl>, Status> {
        if !location.filer.capabilities().acls {
            return Ok(None);
        }
        let Some(bytes) = self.ask(location, location.filer.acl(&seen.obj, which)).await? else { return Ok(None) };
        let acl = Acl::parse(&bytes);
        if acl.is_none() {
            // Nobody is let in by what cannot be read.
            tracing::error!(location = %location.id, node = %seen.at.node, "an ACL that is none");
            return Err(Status::Io);
        }
        Ok(acl)
    }

    /// A node for reading: no permit, the primary of this moment.
    pub(super) async fn look(&self, at: NodeRef) -> Result<(Arc<Location>, Seen), Status> {
        loop {
            let location = self.primary(at.junction)?;
            let seen = self.see(&location, at).await;
            // An error of a side that was left meanwhile is none either.
            if self.is_still_primary(at.junction, &location) {
                return Ok((location, seen?));
            }
        }
    }

    /// Behind a look: if there was a switch since, what the old side says is older than what the index says, and must not be
    /// shown with it: clients would keep it.
    pub(super) fn is_still_primary(&self, junction: JunctionId, location: &Location) -> bool {
        self.ledger.state().junctions.get(&junction).is_none_or(|found| found.primary == location.id)
    }

    pub(super) async fn attr_now(&self, at: NodeRef) -> Result<Attr, Status> {
        if at.junction == virtuals::TREE {
            return self.virtual_attr(at.node);
        }
        let (_, seen) = self.look(at).await?;
        Ok(seen.attr(self.fsid(at.junction)))
    }

    /// Attributes to go with an error; none where asking would only make the client wait longer.
    pub(super) async fn attr_with(&self, status: Status, at: NodeRef) -> Option<Attr> {
        match status {
            Status::Jukebox | Status::Stale | Status::BadHandle => None,
            _ => self.attr_now(at).await.ok(),
        }
    }

    pub(super) async fn refused(&self, status: Status, at: NodeRef) -> Refused<Option<Attr>> {
        Refused::new(status, self.attr_with(status, at).await)
    }

    pub(super) async fn refused_wcc(&self, status: Status, at: NodeRef) -> Refused<Wcc> {
        Refused::new(status, Wcc { before: None, after: self.attr_with(status, at).await })
    }

    /// wcc of `at` after an operation whose locks are still held. `before` is proof that nothing was missed only if
    /// nobody shared the node meanwhile.
    pub(super) async fn wcc(&self, guard: &Guard, before: PreAttr, at: NodeRef) -> Wcc {
        let after = self.attr_now(at).await.ok();
        let before = guard.alone(&Key::Node(at.node)).then_some(before);
        Wcc { before, after }
    }

    /// A directory's attributes before the operation, its names being locked.
    pub(super) fn pre_dir(&self, dir: &Seen) -> Result<PreAttr, Status> {
        let rec = self.rec(dir.at)?;
        Ok(PreAttr { size: dir.stat.size, mtime: rec.mtime, ctime: rec.ctime })
    }

    /// What `name` in `dir` leads to: by the index, or, in a directory that is not complete, by the filer, adopted. A
    /// mutation hands its permit on, a reader has none.
    pub(super) async fn entry(
        &self,
        permit: Option<&Permit>,
        dir: NodeRef,
        name: &[u8],
    ) -> Result<Option<Entry>, Status> {
        if let Some(entry) = self.live.entry(dir.node, name)? {
            return Ok(Some(entry));
        }
        if self.rec(dir)?.complete {
            // Looked up once more: it may have been adopted, and the directory completed, since we looked. "No such name"
            // is said only while the primary is up: before it is redone the index lacks the last operations.
            let entry = self.live.entry(dir.node, name)?;
            return if entry.is_none() { self.primary(dir.junction).and(Ok(None)) } else { Ok(entry) };
        }
        let permit = match permit {
            Some(permit) => permit.clone(),
            None => self.admit_adoption(dir.junction).await?,
        };
        self.adopt_one(permit, dir, name).await
    }

    /// Lock names, their directories, and what `more` wants beside, given what the names lead to. What they lead to is
    /// only known for sure once they are locked, and what is to be locked depends on it: look, lock, look again.
    pub(super) async fn lock_names(
        &self,
        permit: &Permit,
        names: &[(NodeRef, &[u8])],
        more: impl Fn(&[Option<Entry>]) -> Vec<(Key, Mode)>,
    ) -> Result<LockedNames, Status> {
        for _ in 0..NAME_TRIES {
            let mut entries = Vec::with_capacity(names.len());
            for (dir, name) in names {
                entries.push(self.entry(Some(permit), *dir, name).await?);
            }
            let mut wanted = more(&entries);
            for (dir, name) in names {
                wanted.push((Key::Dir(dir.node), Mode::Shared));
                wanted.push((Key::Node(dir.node), Mode::Shared));
                wanted.push((Key::Name(dir.node, name.to_vec()), Mode::Exclusive));
            }
            let guard = self.acquire(permit.junction(), wanted).await?;
            if self.still_lead_to(names, &entries)? {
                return Ok(LockedNames { guard, entries });
            }
        }
        Err(Status::Jukebox)
    }

    fn still_lead_to(&self, names: &[(NodeRef, &[u8])], entries: &[Option<Entry>]) -> Result<bool, Status> {
        for ((dir, name), before) in names.iter().zip(entries) {
            let now = self.live.entry(dir.node, name)?;
            if now.map(|e| (e.node, e.kind)) != before.as_ref().map(|e| (e.node, e.kind)) {
                return Ok(false);
            }
            self.rec(*dir)?;
        }
        Ok(true)
    }

    /// A directory that names are to be changed in: of a junction, a directory, searchable.
    pub(super) async fn see_dir(&self, location: &Location, call: &Call, dir: NodeRef) -> Result<Judged, Status> {
        let seen = self.see(location, dir).await?;
        let seen = self.judge(location, call, seen).await?;
        seen.searchable(call)?;
        Ok(seen)
    }

    /// The same directory behind the lock of its names: who waited for it judges what is there by now.
    pub(super) async fn see_dir_again(&self, location: &Location, call: &Call, dir: Judged) -> Result<Judged, Status> {
        // Whatever changes a node moves its ctime.
        if self.rec(dir.at)?.ctime == dir.rec.ctime { Ok(dir) } else { self.see_dir(location, call, dir.at).await }
    }

    /// The directory that `dir` is in: above a junction's root, the virtual one.
    pub(super) fn parent(&self, dir: NodeRef) -> Result<NodeRef, Status> {
        let state = self.ledger.state();
        let junction = state.junctions.get(&dir.junction).ok_or(Status::Stale)?;
        if junction.root == dir.node {
            return Ok(NodeRef { junction: virtuals::TREE, node: junction.parent });
        }
        let names = self.live.names(dir.node, 1)?;
        let (parent, _) = names.first().ok_or(Status::Stale)?;
        Ok(NodeRef { junction: dir.junction, node: *parent })
    }
}

/// The tree above the junctions is read-only.
pub(super) fn changeable(at: NodeRef) -> Result<(), Status> {
    if at.junction == virtuals::TREE { Err(Status::RoFs) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_name_no_entry_are_refused() {
        assert_eq!(check_name(b"", Use::Make), Err(Status::Inval));
        assert_eq!(check_name(b"a/b", Use::Make), Err(Status::Inval));
        assert_eq!(check_name(b"a\0b", Use::Remove), Err(Status::Inval));
        assert_eq!(check_name(&[b'a'; 256], Use::Make), Err(Status::NameTooLong));
        assert_eq!(check_name(&[0xff; 255], Use::Make), Ok(()));
        assert_eq!(check_name(b"...", Use::Rename), Ok(()));
    }

    #[test]
    fn dot_names_exist_for_makers_and_are_invalid_for_others() {
        assert_eq!(check_name(b".", Use::Make), Err(Status::Exist));
        assert_eq!(check_name(b"..", Use::Make), Err(Status::Exist));
        assert_eq!(check_name(b".", Use::Rmdir), Err(Status::Inval));
        assert_eq!(check_name(b"..", Use::Rmdir), Err(Status::Exist));
        assert_eq!(check_name(b".", Use::Remove), Err(Status::Inval));
        assert_eq!(check_name(b"..", Use::Rename), Err(Status::Inval));
    }

    #[test]
    fn an_ipv4_caller_is_journaled_as_a_mapped_address() {
        let call = Call { uid: 1, gid: 2, gids: vec![3], addr: IpAddr::from([10, 0, 0, 7]), port: 700, xid: 9, sum: 8 };
        let caller = call.caller();
        assert_eq!(caller.addr[10..], [0xff, 0xff, 10, 0, 0, 7]);
        assert_eq!((caller.port, caller.xid, caller.call_sum, caller.uid, caller.gid), (700, 9, 8, 1, 2));
    }
}
