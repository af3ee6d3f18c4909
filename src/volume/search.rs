//! A file with several names, on a filer that cannot find objects by identity.
//!
//! There a node is reached by the names that the index knows, and of a file with hard links it may know only some: the
//! others are in directories that nobody has looked into yet. Were the last known name taken away, the file would live
//! on and could not be reached: its handles would be stale, and a copy could not read it. So before that happens the
//! junction's directories are completed, one after the other, until another name is met; clients get JUKEBOX meanwhile.
//!
//! A name may lie outside the junction's tree. When all of it has been looked at in vain that is remembered, and the
//! known name goes; the file's handles go with it, as they would on any server that exports the tree.

use super::Volume;
use super::lost::Victim;
use super::types::{Call, NodeRef, Status};
use crate::location::Location;
use journal_format::ids::{JunctionId, Kind, NodeId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a client waits for another name to be found, and gets JUKEBOX then while the search goes on.
const PATIENCE: Duration = Duration::from_secs(5);
/// A directory that could not be completed in time is asked for again so much later.
const AGAIN: Duration = Duration::from_millis(200);
/// Entries of a directory looked at together.
const PAGE: usize = 256;
/// Directories below one another that are looked into: what lies deeper cannot be walked to anyway.
const DEPTH_MAX: usize = 1024;
/// Nodes remembered to have no other name in their trees; past it all are forgotten, and searched for again.
const OUTSIDE_MAX: usize = 4096;

/// Searches that are under way, and what they did not find. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Searches(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    running: BTreeSet<JunctionId>,
    outside: BTreeSet<NodeId>,
}

impl Searches {
    fn is_outside(&self, node: NodeId) -> bool {
        self.0.lock().outside.contains(&node)
    }

    fn put_outside(&self, node: NodeId) {
        let outside = &mut self.0.lock().outside;
        if outside.len() >= OUTSIDE_MAX {
            outside.clear();
        }
        outside.insert(node);
    }

    /// One at a time in a junction: `None` while there is one.
    fn begin(&self, junction: JunctionId) -> Option<Turn> {
        self.0.lock().running.insert(junction).then(|| Turn { searches: self.clone(), junction })
    }
}

struct Turn {
    searches: Searches,
    junction: JunctionId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.searches.0.lock().running.remove(&self.junction);
    }
}

impl Volume {
    /// Before `name` is taken away: if it is the only one known of a file that has others, one of them is looked for.
    /// No permit is held meanwhile, so a switch does not wait for it.
    pub(super) async fn know_another_name(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<(), Status> {
        let location = self.primary(dir.junction)?;
        if location.filer.capabilities().open_by_identity {
            return Ok(());
        }
        self.see_dir(&location, call, dir).await?;
        let Some(entry) = self.entry(None, dir, name).await? else { return Ok(()) };
        if entry.kind == Kind::Dir || self.live.names(entry.node, 2)?.len() > 1 {
            return Ok(());
        }
        let victim = match self.see(&location, NodeRef { junction: dir.junction, node: entry.node }).await {
            // Somebody else takes it away at this moment: what has the name then is found out under the lock.
            Err(Status::Stale) => return Ok(()),
            seen => Victim::from(seen?),
        };
        if !self.would_be_lost(&location, &victim)? {
            return Ok(());
        }
        let turn = self.searches.begin(dir.junction).ok_or(Status::Jukebox)?;
        let volume = self.clone();
        let search = async move {
            let _turn = turn;
            volume.search(dir.junction, entry.node).await
        };
        self.detached(dir.junction, PATIENCE, search).await
    }

    /// Whether the file would live on where nobody finds it, if one of its names went.
    pub(super) fn would_be_lost(&self, location: &Location, victim: &Victim) -> Result<bool, Status> {
        let several = victim.rec.kind != Kind::Dir && victim.stat.nlink > 1;
        Ok(several
            && !location.filer.capabilities().open_by_identity
            && self.live.names(victim.at.node, 2)?.len() <= 1
            && !self.searches.is_outside(victim.at.node))
    }

    /// Depth first; the way down is all that is kept.
    async fn search(&self, junction: JunctionId, node: NodeId) -> Result<(), Status> {
        tracing::info!(%junction, %node, "the only known name of a file with hard links is to go: looking for another");
        let root = self.ledger.state().junctions.get(&junction).ok_or(Status::Stale)?.root;
        self.look_into(junction, root).await?;
        let mut way = vec![(root, 0)];
        while let Some((dir, after)) = way.last_mut() {
            if self.live.names(node, 2)?.len() > 1 {
                return Ok(());
            }
            let page = self.live.list(*dir, *after, PAGE)?;
            if let Some(below) = page.iter().find(|entry| entry.kind == Kind::Dir) {
                *after = below.cookie;
                let below = below.node;
                if way.len() < DEPTH_MAX {
                    self.look_into(junction, below).await?;
                    way.push((below, 0));
                }
            } else if let Some(last) = page.last().filter(|_| page.len() == PAGE) {
                *after = last.cookie;
            } else {
                way.pop();
            }
        }
        if self.live.names(node, 2)?.len() <= 1 {
            tracing::info!(%junction, %node, "its other names are outside the junction's tree");
            self.searches.put_outside(node);
        }
        Ok(())
    }

    async fn look_into(&self, junction: JunctionId, dir: NodeId) -> Result<(), Status> {
        loop {
            match self.complete(junction, dir).await {
                Err(Status::Jukebox) => tokio::time::sleep(AGAIN).await,
                // Removed meanwhile.
                Err(Status::Stale | Status::NoEnt) => return Ok(()),
                // Behind its mount points there is no other name of the file.
                Err(Status::XDev) => return Ok(()),
                other => return other,
            }
        }
    }
}
