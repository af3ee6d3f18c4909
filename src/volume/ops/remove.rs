//! REMOVE and RMDIR.

use crate::index::live::Entry;
use crate::semantics::permission::may_delete;
use crate::volume::Volume;
use crate::volume::act::Act;
use crate::volume::hold::Permit;
use crate::volume::locks::{Key, Mode};
use crate::volume::lost::Victim;
use crate::volume::resolve::{Use, changeable, check_name};
use crate::volume::run::Mutation;
use crate::volume::types::{Call, NodeRef, Refused, Status, Wcc};
use journal_format::event;
use journal_format::ids::Kind;

impl Volume {
    pub async fn remove(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>> {
        match self.remove_inner(call, dir, name, Use::Remove).await {
            Ok(wcc) => Ok(wcc),
            Err(status) => Err(self.refused_wcc(status, dir).await),
        }
    }

    pub async fn rmdir(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>> {
        match self.remove_inner(call, dir, name, Use::Rmdir).await {
            Ok(wcc) => Ok(wcc),
            Err(status) => Err(self.refused_wcc(status, dir).await),
        }
    }

    async fn remove_inner(&self, call: &Call, dir: NodeRef, name: &[u8], used: Use) -> Result<Wcc, Status> {
        changeable(dir)?;
        check_name(name, used)?;
        if used == Use::Remove {
            self.know_another_name(call, dir, name).await?;
        }
        let (permit, location) = self.admit(dir.junction).await?;
        let parent = self.see_dir(&location, call, dir).await?;
        if used == Use::Rmdir {
            self.complete_below(&permit, dir, name).await?;
        }
        let locked = self.lock_names(&permit, &[(dir, name)], victims).await?;
        let parent = self.see_dir_again(&location, call, parent).await?;
        let entry = locked.entries.into_iter().next().flatten().ok_or(Status::NoEnt)?;
        let victim = self.victim(&location, &parent, name, &entry).await?;
        let may = may_delete(&call.cred(), &parent.owned(), &victim.owned());
        if !crate::planted::is('o') {
            may?;
        }
        // Behind the permission, as on Linux.
        check_kind(entry.kind, used)?;
        self.check_empty(&victim)?;
        if self.would_be_lost(&location, &victim)? {
            return Err(Status::Jukebox);
        }
        let before = self.pre_dir(&parent)?;
        let event = event::Remove {
            junction: dir.junction,
            location: location.id,
            dir: dir.node,
            name: name.to_vec(),
            node: entry.node,
            kind: entry.kind,
            last: self.is_last_name(&victim)?,
            caller: call.caller(),
        };
        let act = Act::Remove { event, dir: parent.obj.clone(), victim: victim.id, lost: false };
        let ended = self.run(Mutation { permit, guard: locked.guard, location, act }).await?;
        if crate::planted::is('o') {
            may?;
        }
        Ok(self.wcc(&ended.guard, before, dir).await)
    }

    /// If the name leads to a directory, the index must know all that is in it before it can be called empty.
    pub(in crate::volume) async fn complete_below(
        &self,
        permit: &Permit,
        dir: NodeRef,
        name: &[u8],
    ) -> Result<(), Status> {
        match self.entry(Some(permit), dir, name).await? {
            Some(entry) if entry.kind == Kind::Dir => {
                let below = NodeRef { junction: dir.junction, node: entry.node };
                match self.complete_inside(permit.clone(), below).await {
                    // Somebody else takes it away at this moment: what has the name then is found out under the lock.
                    Err(Status::Stale) => Ok(()),
                    // It has mount points in it, which is found out there, too.
                    Err(Status::XDev) => Ok(()),
                    completed => completed,
                }
            }
            _ => Ok(()),
        }
    }

    /// A directory that is to go, locked exclusively, must be empty.
    pub(in crate::volume) fn check_empty(&self, victim: &Victim) -> Result<(), Status> {
        if victim.rec.kind != Kind::Dir {
            return Ok(());
        }
        if self.mounted_in.has(victim.at.node) && !victim.rec.complete {
            return Err(Status::NotEmpty);
        }
        if !victim.rec.complete {
            // Another directory came under this name since it was completed.
            return Err(Status::Jukebox);
        }
        if self.live.list(victim.at.node, 0, 1)?.is_empty() { Ok(()) } else { Err(Status::NotEmpty) }
    }

    /// Is the name that is to go the node's last? The index may not know all names of a file with hard links (its other
    /// directories may not be complete), the filer's link count does.
    pub(in crate::volume) fn is_last_name(&self, victim: &Victim) -> Result<bool, Status> {
        let one_link = victim.rec.kind == Kind::Dir || victim.stat.nlink <= 1;
        Ok(one_link && self.live.names(victim.at.node, 2)?.len() <= 1)
    }
}

/// Nodes that lose a name are locked; a directory also against names being made in it.
pub(in crate::volume) fn victims(entries: &[Option<Entry>]) -> Vec<(Key, Mode)> {
    let mut wanted = Vec::new();
    for entry in entries.iter().flatten() {
        wanted.push((Key::Node(entry.node), Mode::Exclusive));
        if entry.kind == Kind::Dir {
            wanted.push((Key::Dir(entry.node), Mode::Exclusive));
        }
    }
    wanted
}

fn check_kind(kind: Kind, used: Use) -> Result<(), Status> {
    match (used, kind) {
        (Use::Rmdir, Kind::Dir) => Ok(()),
        (Use::Rmdir, _) => Err(Status::NotDir),
        (_, Kind::Dir) => Err(Status::IsDir),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remove_takes_no_directory_and_rmdir_nothing_else() {
        assert_eq!(check_kind(Kind::Dir, Use::Rmdir), Ok(()));
        assert_eq!(check_kind(Kind::Symlink, Use::Rmdir), Err(Status::NotDir));
        assert_eq!(check_kind(Kind::Dir, Use::Remove), Err(Status::IsDir));
        assert_eq!(check_kind(Kind::Fifo, Use::Remove), Ok(()));
    }
}
