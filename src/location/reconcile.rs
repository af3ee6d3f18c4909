//! Carrying a round's names out, by identity: who should be there against who is there.
//!
//! 1. *Take away*: every touched name whose present holder does not belong there. An object that has another place to
//!    go is parked in the pen under its node id; one that is gone is removed (directories through the pen, at the end,
//!    and never when they are not empty).
//! 2. *Place*: directories top-down, then everything else side by side: out of the pen, by a further link, or new.
//! 3. *Clear*: what is gone leaves the pen.
//!
//! Carried out twice it does nothing the second time: with [`Round::ask_filer`] the first step looks at the filer for
//! who is there, so any state between "nothing done" and "all done" is led to the same end. An unknown object where an
//! un-`Made` creation of the round put one of its kind *is* that node (design §4).

use super::copy::Source;
use super::projection::{PEN, pen_name};
use super::round::{Origin, Round};
use super::{Location, View, index_error};
use crate::filer::aside::side_by_side;
use crate::filer::{Changes, Error, ErrorKind, MakeAttrs, Object, Result};
use journal_format::event::{CopyFailed, What};
use journal_format::ids::{Identity, Kind, NodeId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

type Key = (NodeId, Vec<u8>);

/// A location at work on a round.
pub struct Site<'a> {
    pub location: &'a Location,
    /// Names as they should be after the round.
    pub view: &'a dyn View,
    /// Where objects that are copied come from.
    pub source: Option<&'a Source>,
    pub round: &'a Round,
    state: Mutex<SiteState>,
}

#[derive(Default)]
struct SiteState {
    /// Who is there now, for touched names (and whatever else is in the pen).
    there: BTreeMap<Key, NodeId>,
    /// Objects held for the round, where the filer cannot find them by identity.
    held: BTreeMap<NodeId, Object>,
    made: Vec<(NodeId, Identity)>,
    failed: Vec<CopyFailed>,
    broken: BTreeSet<NodeId>,
    /// Source gone: a later REMOVE says so too.
    void: BTreeSet<NodeId>,
}

/// What came of the names.
#[derive(Default)]
pub struct Settled {
    pub made: Vec<(NodeId, Identity)>,
    pub failed: Vec<CopyFailed>,
    /// Nodes that have no object because of it: nothing can be done to them.
    pub broken: BTreeSet<NodeId>,
    /// Nodes whose source was gone.
    pub void: BTreeSet<NodeId>,
}

impl<'a> Site<'a> {
    pub fn new(location: &'a Location, view: &'a dyn View, source: Option<&'a Source>, round: &'a Round) -> Self {
        Self { location, view, source, round, state: Mutex::default() }
    }

    /// Settle every name of the round.
    pub async fn settle(self) -> Result<Settled> {
        let after = self.after()?;
        self.look(&after).await?;
        crash_point!("RECONCILE_LOOKED");
        let wanted = self.wanted(&after);
        let parked = self.take_away(&after, &wanted).await?;
        crash_point!("RECONCILE_TAKEN_AWAY");
        self.place_all(&wanted, &parked).await?;
        crash_point!("RECONCILE_PLACED");
        self.clear().await?;
        crash_point!("RECONCILE_CLEARED");
        let state = self.state.into_inner();
        Ok(Settled { made: state.made, failed: state.failed, broken: state.broken, void: state.void })
    }

    fn after(&self) -> Result<BTreeMap<Key, Option<NodeId>>> {
        let mut after = BTreeMap::new();
        for key in self.round.names.keys() {
            let node = self.view.entry(key.0, &key.1).map_err(index_error)?.map(|(node, _)| node);
            after.insert(key.clone(), node);
        }
        Ok(after)
    }

    /// Fill `there`: by the round, or by asking the filer; and hold the directories that will be worked in, since the
    /// way to them may move.
    async fn look(&self, after: &BTreeMap<Key, Option<NodeId>>) -> Result<()> {
        if !self.round.ask_filer {
            for (key, before) in &self.round.names {
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
        let mut keys: BTreeSet<Key> = after.keys().cloned().collect();
        let pen = self.location.filer.pen().await?;
        let mut from = Some(0);
        while let Some(at) = from {
            let page = self.location.filer.list(&pen, at, 1024).await?;
            keys.extend(page.names.into_iter().map(|name| (PEN, name)));
            from = page.next;
        }
        // A directory may itself be an object that is only recognised here, and node ids say nothing about depth: what
        // lies in one that is not known yet is looked at again, as long as that finds anything.
        loop {
            let before = keys.len();
            let mut later = BTreeSet::new();
            for key in keys {
                let Some(dir) = self.dir_there(key.0).await? else {
                    later.insert(key);
                    continue;
                };
                match self.location.filer.lookup(&dir, &key.1).await {
                    Ok(object) => {
                        if let Some(node) = self.recognise(&key, &object, after).await? {
                            self.state.lock().there.insert(key, node);
                        }
                    }
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if later.is_empty() || later.len() == before {
                return Ok(());
            }
            keys = later;
        }
    }

    async fn dir_there(&self, dir: NodeId) -> Result<Option<Object>> {
        if dir == PEN {
            return self.location.filer.pen().await.map(Some);
        }
        self.locate(dir).await
    }

    /// Which node an object that stands under a touched name is.
    async fn recognise(
        &self,
        key: &Key,
        object: &Object,
        after: &BTreeMap<Key, Option<NodeId>>,
    ) -> Result<Option<NodeId>> {
        if let Some(node) = self.location.objects.node(&object.id).map_err(index_error)? {
            return Ok(Some(node));
        }
        // Unknown: an un-`Made` creation of this round that stood, or should stand, under this name.
        let penned = (key.0 == PEN).then(|| std::str::from_utf8(&key.1).ok()?.parse().ok().map(NodeId)).flatten();
        let should = after.get(key).copied().flatten();
        let candidates = self.round.placed.get(key).into_iter().flatten().copied().chain(should).chain(penned);
        for node in candidates {
            let kind =
                self.round.makes.get(&node).map(|(kind, _)| *kind).or_else(|| self.round.gone.get(&node).copied());
            let known = self.location.objects.identity(node).map_err(index_error)?;
            let missing = match known {
                None => true,
                Some(_) => self.locate(node).await?.is_none(),
            };
            if kind == Some(object.kind) && missing {
                if object.kind == Kind::File {
                    // All its bytes come again from the round.
                    self.location.filer.set(object, Changes { size: Some(0), ..Changes::default() }).await?;
                }
                self.attributes(node, object).await?;
                self.note_made(node, object)?;
                return Ok(Some(node));
            }
        }
        tracing::warn!(location = %self.location.id, dir = %key.0, name = %String::from_utf8_lossy(&key.1),
            "an object that tain does not know stands in the tree; it is left alone");
        Ok(None)
    }

    /// Attributes of an adopted object, as its creation would have set them.
    async fn attributes(&self, node: NodeId, object: &Object) -> Result<()> {
        let changes = match self.round.makes.get(&node) {
            Some((_, Origin::Event(e))) => {
                // The size that it was made with; nothing else in the journal says it.
                let size = Some(e.size).filter(|size| *size > 0);
                let (uid, gid, mode) = (Some(e.uid), Some(e.gid), Some(e.mode));
                Changes { uid, gid, mode, size, atime: e.atime, mtime: None }
            }
            Some((kind, Origin::Source)) => {
                let Some(source) = self.source else { return Ok(()) };
                let Some((_, attrs, later)) = source.describe(node, *kind).await? else { return Ok(()) };
                Changes { uid: Some(attrs.uid), gid: Some(attrs.gid), mode: Some(attrs.mode), ..later }
            }
            None => return Ok(()),
        };
        let changes = if object.kind == Kind::Symlink { Changes { mode: None, ..changes } } else { changes };
        self.location.filer.set(object, changes).await
    }

    fn note_made(&self, node: NodeId, object: &Object) -> Result<()> {
        let changes = self.location.objects.put(node, &object.id).map_err(index_error)?;
        self.location.objects.store.write(changes);
        self.location.remember(node, object);
        let mut state = self.state.lock();
        state.made.push((node, object.id.clone()));
        if !self.location.filer.capabilities().open_by_identity && object.kind == Kind::Dir {
            state.held.insert(node, object.clone());
        }
        Ok(())
    }

    /// For every node, the names it should have and does not.
    fn wanted(&self, after: &BTreeMap<Key, Option<NodeId>>) -> BTreeMap<NodeId, Vec<Key>> {
        let state = self.state.lock();
        let mut wanted: BTreeMap<NodeId, Vec<Key>> = BTreeMap::new();
        for (key, node) in after {
            if let Some(node) = node
                && state.there.get(key) != Some(node)
            {
                wanted.entry(*node).or_default().push(key.clone());
            }
        }
        wanted
    }

    /// Step 1. Returns the nodes that wait in the pen for a place.
    async fn take_away(
        &self,
        after: &BTreeMap<Key, Option<NodeId>>,
        wanted: &BTreeMap<NodeId, Vec<Key>>,
    ) -> Result<BTreeSet<NodeId>> {
        let there: Vec<(Key, NodeId)> = self.state.lock().there.iter().map(|(k, n)| (k.clone(), *n)).collect();
        let mut parked: BTreeSet<NodeId> = BTreeSet::new();
        for ((dir, _), node) in &there {
            if *dir == PEN && wanted.contains_key(node) {
                parked.insert(*node);
            }
        }
        for (key, node) in there {
            if key.0 == PEN || after.get(&key).copied().flatten() == Some(node) {
                continue;
            }
            let Some(dir) = self.locate(key.0).await? else { continue };
            let is_dir = self.kind(node).await? == Some(Kind::Dir);
            let gone = self.round.gone.contains_key(&node);
            let moves = wanted.contains_key(&node) || (is_dir && gone) || (!gone && self.only_here(node, &key).await?);
            if moves && !parked.contains(&node) {
                let pen = self.location.filer.pen().await?;
                // Second run: the name is empty already, and the object in the pen or in its place.
                self.location.filer.rename(&dir, &key.1, &pen, &pen_name(node)).await?;
                parked.insert(node);
                self.state.lock().there.insert((PEN, pen_name(node)), node);
                crash_point!("RECONCILE_PARKED");
            } else if is_dir {
                continue; // a directory has one name
            } else {
                ignore(self.location.filer.remove(&dir, &key.1).await, ErrorKind::NotFound)?;
            }
            self.state.lock().there.remove(&key);
        }
        Ok(parked)
    }

    /// In a round that has not all of a node's places: it lives on, and stands under no other of its names.
    async fn only_here(&self, node: NodeId, here: &Key) -> Result<bool> {
        if !self.round.partial {
            return Ok(false);
        }
        let names = self.view.names(node, super::NAMES_TRIED_MAX).map_err(index_error)?;
        let Some(id) = self.location.objects.identity(node).map_err(index_error)? else { return Ok(false) };
        for (parent, name) in names.iter().filter(|key| *key != here) {
            let Some(dir) = self.dir_there(*parent).await? else { continue };
            match self.location.filer.lookup(&dir, name).await {
                Ok(object) if object.id == id => return Ok(false),
                Ok(_) => {}
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotDir | ErrorKind::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!names.is_empty())
    }

    async fn kind(&self, node: NodeId) -> Result<Option<Kind>> {
        if let Some(kind) = self.round.gone.get(&node) {
            return Ok(Some(*kind));
        }
        if let Some((kind, _)) = self.round.makes.get(&node) {
            return Ok(Some(*kind));
        }
        Ok(self.locate(node).await?.map(|object| object.kind))
    }

    /// Step 2.
    async fn place_all(&self, wanted: &BTreeMap<NodeId, Vec<Key>>, parked: &BTreeSet<NodeId>) -> Result<()> {
        let mut others = Vec::new();
        for node in wanted.keys() {
            if self.kind(*node).await? == Some(Kind::Dir) {
                self.place_dir(*node, wanted, parked, 0).await?;
            } else {
                others.push(*node);
            }
        }
        let places: Vec<_> =
            others.iter().map(|node| self.place_one(*node, &wanted[node], parked.contains(node))).collect();
        side_by_side(places).await.map(drop)
    }

    async fn place_one(&self, node: NodeId, keys: &[Key], parked: bool) -> Result<()> {
        let done = self.place(node, keys, parked).await;
        self.or_report(node, done).await
    }

    /// A directory, after the one it is in.
    async fn place_dir(
        &self,
        node: NodeId,
        wanted: &BTreeMap<NodeId, Vec<Key>>,
        parked: &BTreeSet<NodeId>,
        depth: usize,
    ) -> Result<()> {
        let Some(keys) = wanted.get(&node) else { return Ok(()) };
        if depth > super::DEPTH_MAX || keys.iter().all(|key| self.state.lock().there.get(key) == Some(&node)) {
            return Ok(());
        }
        for (dir, _) in keys {
            Box::pin(self.place_dir(*dir, wanted, parked, depth + 1)).await?;
        }
        self.place_one(node, keys, parked.contains(&node)).await
    }

    /// Give a node its names.
    async fn place(&self, node: NodeId, keys: &[Key], mut parked: bool) -> Result<()> {
        let mut object = if parked { None } else { self.locate(node).await? };
        for key in keys {
            let (dir_id, name) = key;
            let Some(dir) = self.dir_there(*dir_id).await? else {
                return Err(Error::new(ErrorKind::NotFound, "place", "its directory could not be made"));
            };
            let filer = &self.location.filer;
            if parked {
                filer.rename(&filer.pen().await?, &pen_name(node), &dir, name).await?;
                self.state.lock().there.remove(&(PEN, pen_name(node)));
                crash_point!("RECONCILE_OUT_OF_PEN");
                parked = false;
                object = self.locate(node).await?;
            } else if let Some(object) = &object {
                // Second run: the link is there already, and leads to it.
                match filer.link(object, &dir, name).await {
                    Err(error)
                        if error.kind == ErrorKind::Exists && filer.lookup(&dir, name).await?.id == object.id => {}
                    other => other?,
                }
            } else {
                object = self.make(node, &dir, name).await?;
                if object.is_none() {
                    self.state.lock().void.insert(node);
                    return Ok(());
                }
            }
            self.state.lock().there.insert(key.clone(), node);
        }
        Ok(())
    }

    /// A new object; `None` when its source is gone.
    async fn make(&self, node: NodeId, dir: &Object, name: &[u8]) -> Result<Option<Object>> {
        let filer = &self.location.filer;
        let Some((kind, origin)) = self.round.makes.get(&node) else {
            if self.source.is_some_and(|source| source.is_gone(node)) {
                return Ok(None);
            }
            return Err(Error::new(
                ErrorKind::Stale,
                "place",
                format!("node {node} should be on the filer and is not: it was removed behind tain's back"),
            ));
        };
        let (what, attrs, later) = match origin {
            Origin::Event(e) => {
                let size = Some(e.size).filter(|size| *size > 0);
                (
                    e.what.clone(),
                    MakeAttrs { mode: e.mode, uid: e.uid, gid: e.gid },
                    Changes { size, atime: e.atime, ..Changes::default() },
                )
            }
            Origin::Source => {
                let source = self
                    .source
                    .ok_or_else(|| Error::new(ErrorKind::Invalid, "make", "there is no source to copy from"))?;
                match source.describe(node, *kind).await? {
                    Some(found) => found,
                    // What is in it may live on elsewhere, and is here until the journal says so.
                    None if *kind == Kind::Dir => (What::Dir, self.for_now().await?, Changes::default()),
                    None => return Ok(None),
                }
            }
        };
        let object = filer.make(dir, name, &what, attrs).await?;
        crash_point!("RECONCILE_MADE");
        if later != Changes::default() {
            filer.set(&object, later).await?;
        }
        if let (Origin::Source, Some(source)) = (origin, self.source) {
            source.carry_xattrs(node, filer.as_ref(), &object).await?;
        }
        debug_assert!(what.kind() == *kind || matches!(what, What::File));
        self.note_made(node, &object)?;
        Ok(Some(object))
    }

    /// Attributes of a directory that is soon to go.
    async fn for_now(&self) -> Result<MakeAttrs> {
        let filer = &self.location.filer;
        let root = filer.stat(&filer.root().await?).await?;
        Ok(MakeAttrs { mode: 0o700, uid: root.uid, gid: root.gid })
    }

    /// An error that concerns one object only is reported and the round goes on; others end it.
    async fn or_report(&self, node: NodeId, done: Result<()>) -> Result<()> {
        let Err(error) = done else { return Ok(()) };
        if error.kind.is_transient() || error.kind == ErrorKind::ReadOnly {
            return Err(error);
        }
        let path = match self.source {
            Some(source) => source.path(node),
            None => format!("node {node}").into_bytes(),
        };
        let mut state = self.state.lock();
        state.broken.insert(node);
        state.failed.push(CopyFailed { node, path, error: error.to_string(), fatal: false });
        Ok(())
    }

    /// Step 3: what is gone leaves the pen and the index.
    async fn clear(&self) -> Result<()> {
        if self.round.partial {
            return Ok(()); // a directory may hold what another round takes away
        }
        let filer = &self.location.filer;
        for (node, kind) in &self.round.gone {
            let name = pen_name(*node);
            let penned = self.state.lock().there.get(&(PEN, name.clone())) == Some(node);
            if penned {
                let pen = filer.pen().await?;
                let done =
                    if *kind == Kind::Dir { filer.rmdir(&pen, &name).await } else { filer.remove(&pen, &name).await };
                match done {
                    Err(error) if error.kind == ErrorKind::NotEmpty => {
                        tracing::error!(location = %self.location.id, %node,
                            "a removed directory holds objects that tain does not know; it is kept in the pen");
                    }
                    other => ignore(other, ErrorKind::NotFound)?,
                }
            }
            self.location.forget(*node);
            let changes = self.location.objects.remove(*node).map_err(index_error)?;
            self.location.objects.store.write(changes);
        }
        Ok(())
    }

    /// The node's object, wherever it is now; `None` when it is nowhere.
    pub async fn locate(&self, node: NodeId) -> Result<Option<Object>> {
        if let Some(object) = self.state.lock().held.get(&node) {
            return Ok(Some(object.clone()));
        }
        if node != self.location.root && self.location.objects.identity(node).map_err(index_error)?.is_none() {
            return Ok(None);
        }
        match self.location.at_hand(node).await {
            Ok(Some(object)) => return Ok(Some(object)),
            Ok(None) => {}
            Err(error) if error.kind == ErrorKind::Stale => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(id) = self.location.objects.identity(node).map_err(index_error)? else { return Ok(None) };
        for (parent, name) in self.places(node)? {
            let Some(dir) = Box::pin(self.dir_there(parent)).await? else { continue };
            match self.location.filer.lookup(&dir, &name).await {
                Ok(object) if object.id == id => {
                    self.location.remember(node, &object);
                    return Ok(Some(object));
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NotDir | ErrorKind::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Where a node may be: by the names after the round, by those the round touched, in the pen.
    fn places(&self, node: NodeId) -> Result<Vec<Key>> {
        let mut places = self.view.names(node, super::NAMES_TRIED_MAX).map_err(index_error)?;
        if let Some(keys) = self.round.places_of.get(&node) {
            places.extend(keys.iter().cloned());
        }
        places.push((PEN, pen_name(node)));
        Ok(places)
    }
}

fn ignore(result: Result<()>, kind: ErrorKind) -> Result<()> {
    match result {
        Err(error) if error.kind == kind => Ok(()),
        other => other,
    }
}
