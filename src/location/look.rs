//! Where objects are: who stands under the names of a round, and where a node's object is now.

use super::index_error;
use super::projection::{PEN, pen_name};
use super::reconcile::Site;
use super::round::{Key, Touched};
use crate::filer::aside::side_by_side;
use crate::filer::{ErrorKind, Object, Result, exact};
use journal_format::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Names that are asked for at a time; as many objects, and their descriptors, are held.
const LOOKED_AT_ONCE: usize = 256;

impl Site<'_> {
    /// The pen, asked for once.
    pub(super) async fn pen(&self) -> Result<Object> {
        if let Some(pen) = self.state.lock().pen.clone() {
            return Ok(pen);
        }
        let pen = self.location.filer.pen().await?;
        self.state.lock().pen = Some(pen.clone());
        Ok(pen)
    }

    /// Fill `there`: by the round, or by asking the filer; and hold the directories that will be worked in, since the
    /// way to them may move.
    pub(super) async fn look(&self, after: &BTreeMap<Key, Option<NodeId>>) -> Result<()> {
        if !self.round.ask_filer {
            for (key, Touched { before, .. }) in &self.round.names {
                // A node without identity has no object: its source was gone, or it could not be made.
                if let Some(node) = before
                    && self.location.objects.identity(*node).map_err(index_error)?.is_some()
                {
                    self.state.lock().there.insert(key.clone(), *node);
                }
            }
        }
        if !self.location.filer.capabilities().open_by_identity {
            let dirs: BTreeSet<NodeId> = after.keys().map(|(dir, _)| *dir).filter(|dir| *dir != PEN).collect();
            for dir in dirs {
                if let Some(object) = self.locate(dir).await? {
                    self.state.lock().held.insert(dir, object);
                }
            }
        }
        if self.round.ask_filer {
            self.look_at_filer(after).await?;
        }
        Ok(())
    }

    async fn look_at_filer(&self, after: &BTreeMap<Key, Option<NodeId>>) -> Result<()> {
        let pen = self.pen().await?;
        let mut penned = BTreeSet::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let page = self.location.filer.list(&pen, at, 1024).await?;
            penned.extend(page.names.into_iter().map(|name| (PEN, name)));
            from = page.next;
        }
        // The pen first: what is in it is known by its name alone.
        let (in_pen, in_tree): (Vec<&Key>, Vec<&Key>) = after.keys().partition(|key| key.0 == PEN);
        penned.extend(in_pen.into_iter().cloned());
        let mut keys: Vec<Key> = penned.into_iter().chain(in_tree.into_iter().cloned()).collect();
        // A directory may itself be an object that is only recognised here, and node ids say nothing about depth: what
        // lies in one that is not known yet is looked at again, as long as that finds anything.
        loop {
            let before = keys.len();
            keys = self.look_once(keys).await?;
            if keys.is_empty() || keys.len() == before {
                return Ok(());
            }
        }
    }

    /// Look at the names whose directories are known; the others are returned.
    async fn look_once(&self, keys: Vec<Key>) -> Result<Vec<Key>> {
        let mut later = Vec::new();
        let mut batch = Vec::with_capacity(LOOKED_AT_ONCE);
        let mut at: Option<(NodeId, Option<Object>)> = None;
        for key in keys {
            let dir = match &at {
                Some((node, dir)) if *node == key.0 => dir.clone(),
                _ => {
                    let dir = self.dir_there(key.0).await?;
                    at = Some((key.0, dir.clone()));
                    dir
                }
            };
            let Some(dir) = dir else {
                later.push(key);
                continue;
            };
            batch.push((dir, key));
            if batch.len() == LOOKED_AT_ONCE {
                self.look_up(std::mem::take(&mut batch)).await?;
            }
        }
        self.look_up(batch).await?;
        Ok(later)
    }

    /// Asked side by side, recognised in order: of two objects that may be one new node, the first is it.
    async fn look_up(&self, batch: Vec<(Object, Key)>) -> Result<()> {
        let filer = &self.location.filer;
        let asked = batch.into_iter().map(|(dir, key)| async move {
            match exact::lookup(filer.as_ref(), &dir, &key.1).await {
                Ok(object) => Ok(Some((key, object))),
                Err(error) if error.kind.is_no_entry() => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found = side_by_side(asked.collect()).await?;
        let found: BTreeMap<Key, Object> = found.into_iter().flatten().collect();
        for (key, object) in found {
            match self.recognise(&key, &object).await? {
                Some(node) => drop(self.state.lock().there.insert(key, node)),
                None => drop(self.state.lock().foreign.insert(key)),
            }
        }
        Ok(())
    }

    pub(super) async fn dir_there(&self, dir: NodeId) -> Result<Option<Object>> {
        if dir == PEN {
            return self.pen().await.map(Some);
        }
        self.locate(dir).await
    }

    /// The node's object, wherever it is now; `None` when it is nowhere.
    pub async fn locate(&self, node: NodeId) -> Result<Option<Object>> {
        self.locate_below(node, &mut Vec::new()).await
    }

    /// What is tried again may be held and have no name any more: a link that failed was believed to be there, and the
    /// other name was taken away. Nothing can be done to such an object but to make it anew.
    async fn has_a_name(&self, node: NodeId, object: &Object) -> Result<bool> {
        if self.source.is_none() || !self.round.ask_filer || !self.round.makes.contains_key(&node) {
            return Ok(true);
        }
        match self.location.filer.stat(object).await {
            Ok(stat) if stat.nlink > 0 => Ok(true),
            Err(error) if !matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) => Err(error),
            _ => {
                self.location.forget(node);
                Ok(false)
            }
        }
    }

    /// `below` is being looked for: a directory may be in one of its places, and that one in a place of this one's (two
    /// that changed places), but never is one in itself.
    async fn locate_below(&self, node: NodeId, below: &mut Vec<NodeId>) -> Result<Option<Object>> {
        if let Some(object) = self.state.lock().held.get(&node) {
            return Ok(Some(object.clone()));
        }
        if node != self.location.root && self.location.objects.identity(node).map_err(index_error)?.is_none() {
            return Ok(None);
        }
        match self.location.at_hand(node).await {
            Ok(Some(object)) if self.has_a_name(node, &object).await? => return Ok(Some(object)),
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::Stale => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(id) = self.location.objects.identity(node).map_err(index_error)? else { return Ok(None) };
        below.push(node);
        let mut found = None;
        for (parent, name) in self.places(node)? {
            let dir = match parent {
                PEN => Some(self.pen().await?),
                parent if below.contains(&parent) => None,
                parent => Box::pin(self.locate_below(parent, below)).await?,
            };
            let Some(dir) = dir else { continue };
            match self.location.filer.lookup(&dir, &name).await {
                Ok(object) if object.id == id => {
                    self.location.remember(node, &object);
                    found = Some(object);
                    break;
                }
                Ok(_) => {}
                Err(error) if is_elsewhere(error.kind) => {}
                Err(error) => return Err(error),
            }
        }
        below.pop();
        Ok(found)
    }

    /// Where a node may be: by the names after the round, by those the round touched, in the pen.
    fn places(&self, node: NodeId) -> Result<Vec<Key>> {
        let mut places = self.view.names(node, super::NAMES_TRIED_MAX).map_err(index_error)?;
        places.extend(self.round.places_of(node).cloned());
        places.push((PEN, pen_name(node)));
        Ok(places)
    }
}

/// What was looked for under a name is not there.
pub(super) fn is_elsewhere(kind: ErrorKind) -> bool {
    kind.is_no_entry() || matches!(kind, ErrorKind::NotDir | ErrorKind::Stale)
}
