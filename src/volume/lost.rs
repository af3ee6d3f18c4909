//! Names whose objects the filer has lost: somebody removed them there behind tain's back, or a repair of the file system
//! did. The index still has such a name, and the node has no object any more.
//!
//! To answer STALE would be about the directory's handle, which is as good as ever: a client gives it up then. So
//!
//! | call                            | is told                                                                        |
//! | ------------------------------- | ------------------------------------------------------------------------------ |
//! | LOOKUP, RENAME from it          | NOENT                                                                          |
//! | REMOVE, RMDIR, RENAME over it   | OK: the index follows, whatever has the name on the filer by now goes          |
//! | CREATE, MKDIR, … LINK           | OK: the name is taken out of the index first, as by a REMOVE ([`Volume::free`]) |
//!
//! Only who wants the name gone, or for something else, takes it out: the operation is in the journal, and removes the
//! object from the mirrors, too, which may have the last copy of it. A look at a directory must not do that. For the same
//! reason a name is taken for free only when the filer neither finds nor lists it.
//!
//! A directory that was lost with known names in it stays in the index: RMDIR says NOTEMPTY, and CREATE an I/O error.

use super::Volume;
use super::act::Act;
use super::adopt::{contradicted, still_listed};
use super::hold::Permit;
use super::ops::remove::victims;
use super::resolve::Seen;
use super::run::Mutation;
use super::types::{Call, NodeRef, Status};
use crate::filer::{self, ErrorKind, Object, Stat};
use crate::index::live::{Entry, NodeRec};
use crate::location::Location;
use crate::semantics::Owned;
use crate::semantics::permission::may_delete;
use journal_format::event::{self, Caller};
use journal_format::ids::{Identity, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a client waits for a name to be taken out, and gets JUKEBOX then while it goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a name leads to that is to go.
pub(super) struct Victim {
    pub at: NodeRef,
    pub rec: NodeRec,
    pub id: Identity,
    pub stat: Stat,
}

impl From<Seen> for Victim {
    fn from(seen: Seen) -> Self {
        let Seen { at, rec, obj, stat } = seen;
        Self { at, rec, id: obj.id, stat }
    }
}

impl Victim {
    pub fn owned(&self) -> Owned<'static> {
        let Stat { mode, uid, gid, .. } = self.stat;
        Owned { kind: self.rec.kind, mode, uid, gid, acl: None }
    }

    /// One whose object is lost: as if the directory's owner had it. Nothing is in it that the index does not know.
    fn lost(at: NodeRef, rec: NodeRec, id: Identity, dir: &Seen) -> Self {
        let stat = Stat {
            kind: rec.kind,
            mode: 0,
            uid: dir.stat.uid,
            gid: dir.stat.gid,
            nlink: 1,
            size: 0,
            used: 0,
            rdev: (0, 0),
            atime: Time::default(),
            mtime: rec.mtime,
            ctime: rec.ctime,
        };
        Self { at, rec: NodeRec { complete: true, ..rec }, id, stat }
    }
}

/// What the index says a name leads to, as the filer has it.
pub(super) enum Sight {
    There(Seen),
    Lost {
        victim: Victim,
        /// What has the name now.
        other: Option<Object>,
    },
}

impl Volume {
    /// The object of an entry whose name is locked, or that it is lost.
    pub(super) async fn sight(
        &self,
        location: &Location,
        dir: &Seen,
        name: &[u8],
        entry: &Entry,
    ) -> Result<Sight, Status> {
        let at = NodeRef { junction: dir.at.junction, node: entry.node };
        match self.see(location, at).await {
            Err(Status::Stale) => {}
            seen => return seen.map(Sight::There),
        }
        let rec = self.rec(at)?;
        let known = location.objects.identity(at.node)?;
        let other = self.ask(location, found(location, &dir.obj, name)).await?;
        match (known, other) {
            (Some(id), Some(other)) if other.id == id => {
                let error = filer::Error::new(ErrorKind::Stale, "look up", "it has the name, and cannot be reached");
                Err(contradicted(location, name, &error))
            }
            (known, other) => {
                // One that never had an identity here is no other object.
                let id = known.unwrap_or_else(|| Identity(Vec::new()));
                Ok(Sight::Lost { victim: Victim::lost(at, rec, id, dir), other })
            }
        }
    }

    /// What a name leads to that is to go: on the filer, or in the index alone.
    pub(super) async fn victim(
        &self,
        location: &Location,
        dir: &Seen,
        name: &[u8],
        entry: &Entry,
    ) -> Result<Victim, Status> {
        Ok(match self.sight(location, dir, name, entry).await? {
            Sight::There(seen) => seen.into(),
            Sight::Lost { victim, .. } => victim,
        })
    }

    /// Before something is made under a name: if it leads to an object that is lost, it is taken out of the index.
    pub(super) async fn free(&self, call: &Call, permit: &Permit, dir: NodeRef, name: &[u8]) -> Result<(), Status> {
        let Some(entry) = self.live.entry(dir.node, name)? else { return Ok(()) };
        let location = self.primary(dir.junction)?;
        match self.see(&location, NodeRef { junction: dir.junction, node: entry.node }).await {
            Err(Status::Stale) => {}
            // Whatever is wrong with it is found out under the lock.
            _ => return Ok(()),
        }
        let call = call.clone();
        // Its own operation: who repeats the call must not be taken for who repeats this.
        let caller = Caller { xid: 0, call_sum: 0, ..call.caller() };
        let (volume, permit, name) = (self.clone(), permit.clone(), name.to_vec());
        let work = async move { volume.take_out(&call, permit, location, dir, &name, caller).await };
        self.seen_through(dir.junction, PATIENCE, work).await
    }

    async fn take_out(
        &self,
        call: &Call,
        permit: Permit,
        location: Arc<Location>,
        dir: NodeRef,
        name: &[u8],
        caller: Caller,
    ) -> Result<(), Status> {
        let locked = self.lock_names(&permit, &[(dir, name)], victims).await?;
        let Some(entry) = locked.entries.into_iter().next().flatten() else { return Ok(()) };
        let parent = self.see_dir(&location, call, dir).await?;
        let victim = match self.sight(&location, &parent, name, &entry).await? {
            Sight::There(_) => return Ok(()),
            Sight::Lost { victim, other: None } => victim,
            Sight::Lost { .. } => {
                return Err(refused(&location, &entry, name, "something else has its name on the filer"));
            }
        };
        // Who may not remove it, or add anything, is told so by what he asked for, and the name stays.
        if may_delete(&call.cred(), &parent.owned(), &victim.owned()).is_err() {
            return Ok(());
        }
        must_not_be_listed(&location, &parent.obj, name).await?;
        match self.check_empty(&victim) {
            Err(Status::NotEmpty) => {
                return Err(refused(&location, &entry, name, "it is a directory, and names in it are known"));
            }
            empty => empty?,
        }
        let name = name.to_vec();
        tracing::warn!(location = %location.id, node = %entry.node, name = %String::from_utf8_lossy(&name), "the primary has lost an object: its name is taken out, for something else is to have it");
        let last = self.is_last_name(&victim)?;
        let (node, kind) = (entry.node, entry.kind);
        let (junction, of) = (dir.junction, location.id);
        let event = event::Remove { junction, location: of, dir: dir.node, name, node, kind, last, caller };
        let act = Act::Remove { event, dir: parent.obj.clone(), victim: victim.id, lost: true };
        self.to_the_end(Mutation { permit, guard: locked.guard, location, act }).await.map(drop)
    }
}

async fn found(location: &Location, dir: &Object, name: &[u8]) -> filer::Result<Option<Object>> {
    match location.filer.lookup(dir, name).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A filer that lists the name may have denied it for a moment.
async fn must_not_be_listed(location: &Location, dir: &Object, name: &[u8]) -> Result<(), Status> {
    let error = filer::Error::new(ErrorKind::NotFound, "look up", "it is listed, and not found");
    let mut denied = BTreeMap::from([(name.to_vec(), error)]);
    still_listed(location, dir, &mut denied).await?;
    match denied.first_key_value() {
        Some((name, error)) => Err(contradicted(location, name, error)),
        None => Ok(()),
    }
}

fn refused(location: &Location, entry: &Entry, name: &[u8], why: &str) -> Status {
    let name = String::from_utf8_lossy(name);
    tracing::error!(location = %location.id, node = %entry.node, %name, why, "the primary has lost an object, and its name cannot be used");
    Status::Io
}
