//! RENAME.

use super::remove::victims;
use crate::index::live::Entry;
use crate::location::Location;
use crate::semantics::permission::{WRITE, check, may_add, may_delete};
use crate::volume::Volume;
use crate::volume::act::Act;
use crate::volume::locks::{Key, Mode};
use crate::volume::lost::Sight;
use crate::volume::resolve::{Judged, LockedNames, Seen, Use, changeable, check_name};
use crate::volume::run::Mutation;
use crate::volume::types::{Call, NodeRef, Refused, Status, Wcc};
use journal_format::event::{self, Replaced};
use journal_format::ids::{Kind, NodeId};

/// Deeper than any path that a client could name; a chain of parents that is longer has a fault in it.
const DEPTH_MAX: usize = 65_536;

/// The two directories, seen.
struct Ends {
    from: Judged,
    to: Judged,
}

impl Volume {
    pub async fn rename(
        &self,
        call: &Call,
        from: NodeRef,
        name: &[u8],
        to: NodeRef,
        new: &[u8],
    ) -> Result<(Wcc, Wcc), Refused<(Wcc, Wcc)>> {
        match self.rename_inner(call, from, name, to, new).await {
            Ok(wccs) => Ok(wccs),
            Err(status) => {
                let wcc = |after| Wcc { before: None, after };
                let with = (wcc(self.attr_with(status, from).await), wcc(self.attr_with(status, to).await));
                Err(Refused::new(status, with))
            }
        }
    }

    async fn rename_inner(
        &self,
        call: &Call,
        from: NodeRef,
        name: &[u8],
        to: NodeRef,
        new: &[u8],
    ) -> Result<(Wcc, Wcc), Status> {
        changeable(from)?;
        changeable(to)?;
        check_name(name, Use::Rename)?;
        check_name(new, Use::Rename)?;
        if from.junction != to.junction {
            return Err(Status::XDev);
        }
        self.know_another_name(call, to, new).await?;
        let (permit, location) = self.admit(from.junction).await?;
        let ends =
            Ends { from: self.see_dir(&location, call, from).await?, to: self.see_dir(&location, call, to).await? };
        self.complete_below(&permit, to, new).await?;
        let LockedNames { guard, entries } =
            self.lock_names(&permit, &[(from, name), (to, new)], |entries| wanted(entries, from, to)).await?;
        let Ends { from: from_dir, to: to_dir } = ends;
        let from_dir = self.see_dir_again(&location, call, from_dir).await?;
        let ends = Ends { from: from_dir, to: self.see_dir_again(&location, call, to_dir).await? };
        let mut entries = entries.into_iter();
        let entry = entries.next().flatten().ok_or(Status::NoEnt)?;
        let over = entries.next().flatten();
        let before = (self.pre_dir(&ends.from)?, self.pre_dir(&ends.to)?);
        if over.as_ref().is_some_and(|o| o.node == entry.node) {
            // Two names of one file, or one name twice: POSIX says that nothing happens.
            return Ok((self.wcc(&guard, before.0, from).await, self.wcc(&guard, before.1, to).await));
        }
        let (moved, replaced) = self.check_rename(call, &location, &ends, (name, &entry), (new, over.as_ref())).await?;
        let event = event::Rename {
            junction: from.junction,
            location: location.id,
            from_dir: from.node,
            from_name: name.to_vec(),
            to_dir: to.node,
            to_name: new.to_vec(),
            node: entry.node,
            kind: entry.kind,
            replaced,
            caller: call.caller(),
        };
        let Ends { from: from_dir, to: to_dir } = ends;
        let act = Act::Rename { event, from: from_dir.obj.clone(), to: to_dir.obj.clone(), moved: moved.obj.id };
        let ended = self.run(Mutation { permit, guard, location, act }).await?;
        Ok((self.wcc(&ended.guard, before.0, from).await, self.wcc(&ended.guard, before.1, to).await))
    }

    /// May it? What is moved, and what is replaced by it. Everything is locked.
    async fn check_rename(
        &self,
        call: &Call,
        location: &Location,
        ends: &Ends,
        (name, entry): (&[u8], &Entry),
        (new, over): (&[u8], Option<&Entry>),
    ) -> Result<(Seen, Option<Replaced>), Status> {
        let cred = call.cred();
        let moved = match self.sight(location, &ends.from, name, entry).await? {
            Sight::There(moved) => moved,
            Sight::Lost { .. } => return Err(Status::NoEnt),
        };
        // In the order in which Linux finds out, for there may be several reasons: also of a file over a directory that
        // it is in, or that its directory is below. Within one directory neither can be.
        let parts = ends.from.at != ends.to.at;
        if parts && entry.kind == Kind::Dir && self.is_below(ends.to.at.node, entry.node).await? {
            return Err(Status::Inval);
        }
        if let Some(over) = over.filter(|over| parts && over.kind == Kind::Dir)
            && self.is_below(ends.from.at.node, over.node).await?
        {
            return Err(Status::NotEmpty);
        }
        may_delete(&cred, &ends.from.owned(), &moved.without_acl())?;
        let victim = match over {
            Some(over) => {
                let victim = self.victim(location, &ends.to, new, over).await?;
                may_delete(&cred, &ends.to.owned(), &victim.owned())?;
                check_kinds(entry.kind, over.kind)?;
                Some((over, victim))
            }
            None => {
                may_add(&cred, &ends.to.owned())?;
                None
            }
        };
        if entry.kind == Kind::Dir && ends.from.at != ends.to.at {
            // Its `..` changes, which is a name in it.
            let moved = self.judge(location, call, moved.clone()).await?;
            check(&cred, &moved.owned(), WRITE)?;
        }
        let Some((over, victim)) = victim else { return Ok((moved, None)) };
        self.check_empty(&victim)?;
        if self.would_be_lost(location, &victim)? {
            return Err(Status::Jukebox);
        }
        let last = self.is_last_name(&victim)?;
        Ok((moved, Some(Replaced { node: over.node, kind: over.kind, last })))
    }

    /// Is `dir` the directory `above`, or somewhere below it?
    async fn is_below(&self, dir: NodeId, above: NodeId) -> Result<bool, Status> {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            // A long way up must let others have their turn.
            tokio::task::coop::consume_budget().await;
            if at == above {
                return Ok(true);
            }
            match self.live.names(at, 1)?.first() {
                Some((parent, _)) => at = *parent,
                // The junction's root.
                None => return Ok(false),
            }
        }
        tracing::error!(%dir, "its chain of parents does not end");
        Err(Status::ServerFault)
    }
}

/// The node that moves, the one that is replaced (with its names, if it is a directory), and, if a directory gets
/// another parent, all such moves of the junction: two at once could make a circle, each being right by itself.
fn wanted(entries: &[Option<Entry>], from: NodeRef, to: NodeRef) -> Vec<(Key, Mode)> {
    let (moved, replaced) = entries.split_at(1.min(entries.len()));
    let mut wanted = victims(replaced);
    for entry in moved.iter().flatten() {
        wanted.push((Key::Node(entry.node), Mode::Exclusive));
        if entry.kind == Kind::Dir && from != to {
            wanted.push((Key::Moves(from.junction), Mode::Exclusive));
        }
    }
    wanted
}

fn check_kinds(moved: Kind, replaced: Kind) -> Result<(), Status> {
    match (moved, replaced) {
        (Kind::Dir, Kind::Dir) => Ok(()),
        (Kind::Dir, _) => Err(Status::NotDir),
        (_, Kind::Dir) => Err(Status::IsDir),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::ids::JunctionId;

    fn entry(node: u64, kind: Kind) -> Option<Entry> {
        Some(Entry { name: b"x".to_vec(), node: NodeId(node), kind, cookie: 16, put_by: 16 })
    }

    fn at(node: u64) -> NodeRef {
        NodeRef { junction: JunctionId(1), node: NodeId(node) }
    }

    #[test]
    fn a_directory_replaces_a_directory_and_a_file_a_file() {
        assert_eq!(check_kinds(Kind::Dir, Kind::Dir), Ok(()));
        assert_eq!(check_kinds(Kind::File, Kind::Symlink), Ok(()));
        assert_eq!(check_kinds(Kind::Dir, Kind::File), Err(Status::NotDir));
        assert_eq!(check_kinds(Kind::File, Kind::Dir), Err(Status::IsDir));
    }

    #[test]
    fn only_a_directory_that_gets_another_parent_takes_the_junctions_rename_lock() {
        let moves = (Key::Moves(JunctionId(1)), Mode::Exclusive);
        assert!(wanted(&[entry(5, Kind::Dir), None], at(2), at(3)).contains(&moves));
        assert!(!wanted(&[entry(5, Kind::Dir), None], at(2), at(2)).contains(&moves));
        assert!(!wanted(&[entry(5, Kind::File), None], at(2), at(3)).contains(&moves));
    }

    #[test]
    fn a_replaced_directory_is_locked_against_names_being_made_in_it() {
        let wanted = wanted(&[entry(5, Kind::Dir), entry(6, Kind::Dir)], at(2), at(2));
        assert!(wanted.contains(&(Key::Dir(NodeId(6)), Mode::Exclusive)));
        assert!(!wanted.contains(&(Key::Dir(NodeId(5)), Mode::Exclusive)));
        assert!(wanted.contains(&(Key::Node(NodeId(5)), Mode::Exclusive)));
    }
}
