//! Carrying a round's names out, by identity: who should be there against who is there.
//!
//! 1. *Take away*: every touched name whose present holder does not belong there. An object that has another place to
//!    go is parked in the pen under its node id; one that is gone is removed (directories through the pen, at the end,
//!    and never when they are not empty). In redo a last name is never taken of an object that lives on.
//! 2. *Make*: new objects ([`newborn`](super::newborn)), in place or, where that could be mistaken later, apart.
//! 3. *Place*: directories top-down, then everything else side by side: out of the pen, by a link, or new.
//! 4. *Complete*: what was made before, and is known, gets the attributes of its creation again (redo only).
//! 5. *Clear*: what is gone leaves the pen.
//!
//! Carried out twice it does nothing the second time: with [`Round::ask_filer`] the first step looks at the filer for
//! who is there, so any state between "nothing done" and "all done" is led to the same end.

use super::copy::Source;
use super::look::is_elsewhere;
use super::newborn::Spot;
use super::projection::{PEN, pen_name};
use super::round::{Key, Round};
use super::{Location, Recorder, View, index_error};
use crate::filer::aside::side_by_side;
use crate::filer::{CoreFiler, Error, ErrorKind, Object, Result};
use bytes::Bytes;
use journal_format::event::{CopyFailed, PartDone};
use journal_format::ids::{Identity, Kind, Lsn, NodeId, Time};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// New objects that are made, and then placed, at a time: filers still hold them open.
const AT_HAND: usize = 1024;

/// What a filer refused for good, of a primary's redo.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The last operation that asked for it.
    pub op: Lsn,
    pub node: NodeId,
    /// What of it was done; `None`: provably nothing.
    pub part: Option<PartDone>,
    pub error: Error,
}

/// A location at work on a round.
pub struct Site<'a> {
    pub location: &'a Location,
    /// Names as they should be after the round.
    pub view: &'a dyn View,
    /// Where objects that are copied come from.
    pub source: Option<&'a Source>,
    pub round: &'a Round,
    /// Takes down what was made where nothing but that would tell it later.
    pub recorder: Option<&'a dyn Recorder>,
    pub(super) state: Mutex<SiteState>,
}

#[derive(Default)]
pub(super) struct SiteState {
    /// Who is there now, for touched names (and whatever else is in the pen).
    pub there: BTreeMap<Key, NodeId>,
    /// Touched names under which an object stands that tain does not know.
    pub foreign: BTreeSet<Key>,
    /// The pen, once it has been asked for.
    pub pen: Option<Object>,
    /// Objects held for the round, where the filer cannot find them by identity.
    pub held: BTreeMap<NodeId, Object>,
    /// Made, and not recorded yet.
    pub made: Vec<(NodeId, Identity)>,
    /// Made or recognised in this round: these have all that their creation gives.
    pub complete: BTreeSet<NodeId>,
    pub failed: Vec<CopyFailed>,
    pub refused: Vec<Refusal>,
    pub broken: BTreeSet<NodeId>,
    /// Source gone: a later REMOVE says so too.
    pub void: BTreeSet<NodeId>,
    /// Made as they are to be in the end, with this modification time: no data operation is left.
    pub whole: BTreeMap<NodeId, Option<Time>>,
    /// Default ACLs of directories of the round, as they were when first asked for.
    pub handed_on: BTreeMap<NodeId, Option<Bytes>>,
}

/// What came of the names.
#[derive(Default)]
pub struct Settled {
    pub made: Vec<(NodeId, Identity)>,
    pub failed: Vec<CopyFailed>,
    pub refused: Vec<Refusal>,
    /// Nodes that have no object because of it: nothing can be done to them.
    pub broken: BTreeSet<NodeId>,
    /// Nodes whose source was gone.
    pub void: BTreeSet<NodeId>,
    /// Nodes that were made as they are to be in the end, with this modification time.
    pub whole: BTreeMap<NodeId, Option<Time>>,
}

impl<'a> Site<'a> {
    pub fn new(location: &'a Location, view: &'a dyn View, source: Option<&'a Source>, round: &'a Round) -> Self {
        Self { location, view, source, round, recorder: None, state: Mutex::default() }
    }

    #[must_use]
    pub fn recorded(mut self, recorder: &'a dyn Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Settle every name of the round. What was made is recorded when it fails, too: whoever tries again knows these
    /// objects, and takes them for recorded.
    pub async fn settle(self) -> Result<Settled> {
        if let Err(error) = self.run().await {
            if let Some(recorder) = self.recorder {
                self.record(recorder).await?;
            }
            return Err(error);
        }
        let SiteState { made, failed, refused, broken, void, whole, .. } = self.state.into_inner();
        Ok(Settled { made, failed, refused, broken, void, whole })
    }

    async fn run(&self) -> Result<()> {
        let after = self.after()?;
        self.look(&after).await?;
        crash_point!("RECONCILE_LOOKED");
        let mut wanted = self.wanted(&after);
        let mut parked = self.take_away(&after, &mut wanted).await?;
        crash_point!("RECONCILE_TAKEN_AWAY");
        if let Some(recorder) = self.recorder.filter(|_| self.round.ask_filer) {
            self.record(recorder).await?; // who was recognised
        }
        self.make_and_place(&wanted, &mut parked).await?;
        crash_point!("RECONCILE_PLACED");
        self.complete().await?;
        self.leave_pen().await?;
        self.clear().await?;
        crash_point!("RECONCILE_CLEARED");
        Ok(())
    }

    fn after(&self) -> Result<BTreeMap<Key, Option<NodeId>>> {
        let mut after = BTreeMap::new();
        for key in self.round.names.keys() {
            let node = self.view.entry(key.0, &key.1).map_err(index_error)?.map(|(node, _)| node);
            after.insert(key.clone(), node);
        }
        Ok(after)
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
        wanted: &mut BTreeMap<NodeId, Vec<Key>>,
    ) -> Result<BTreeSet<NodeId>> {
        let there: Vec<(Key, NodeId)> = self.state.lock().there.iter().map(|(k, n)| (k.clone(), *n)).collect();
        // Whoever is in the pen is not moved there from another of its names: that rename would do nothing, not even take the
        // name away.
        let in_pen = there.iter().filter(|((dir, _), _)| *dir == PEN);
        let mut parked: BTreeSet<NodeId> = in_pen.map(|(_, node)| *node).collect();
        for (key, node) in there {
            if key.0 == PEN || after.get(&key).copied().flatten() == Some(node) {
                continue;
            }
            let Some(dir) = self.locate(key.0).await? else { continue };
            let is_dir = self.kind(node).await? == Some(Kind::Dir);
            // What a primary's redo removes goes through the pen, too: the operation may yet be refused.
            let through_pen = is_dir || self.source.is_none();
            let gone = self.round.gone.contains_key(&node);
            let moves =
                wanted.contains_key(&node) || (through_pen && gone) || (!gone && self.only_here(node, &key).await?);
            let lost = if moves || is_dir { Vec::new() } else { self.lost_names(node).await? };
            let done = if (moves && !parked.contains(&node)) || !lost.is_empty() {
                let parking = self.park(&dir, &key, node).await;
                if parking.is_ok() {
                    parked.insert(node);
                    wanted.entry(node).or_default().extend(lost);
                }
                parking
            } else if is_dir {
                continue; // a directory has one name
            } else {
                take_name(self.location.filer.as_ref(), &dir, &key.1, false).await
            };
            match done {
                Ok(()) => drop(self.state.lock().there.remove(&key)),
                Err(error) => self.refused(node, &key, error)?,
            }
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
                Err(error) if is_elsewhere(error.kind) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!names.is_empty())
    }

    /// Second run: the name is empty already, and the object in the pen or in its place.
    async fn park(&self, dir: &Object, key: &Key, node: NodeId) -> Result<()> {
        let pen = self.pen().await?;
        self.location.filer.rename(dir, &key.1, &pen, &pen_name(node)).await?;
        self.state.lock().there.insert((PEN, pen_name(node)), node);
        crash_point!("RECONCILE_PARKED");
        Ok(())
    }

    /// A name is to be taken away of a node that lives on by other names. If it is the last one that the filer still
    /// has (a power cut lost a LINK and kept the name), the object would go with it: these are to be given back first.
    async fn lost_names(&self, node: NodeId) -> Result<Vec<Key>> {
        if !self.round.ask_filer || self.round.gone.contains_key(&node) {
            return Ok(Vec::new());
        }
        let Some(object) = self.locate(node).await? else { return Ok(Vec::new()) };
        if self.location.filer.stat(&object).await?.nlink > 1 {
            return Ok(Vec::new());
        }
        let names = self.view.names(node, super::NAMES_TRIED_MAX).map_err(index_error)?;
        if !names.is_empty() {
            tracing::warn!(location = %self.location.id, %node, "a hard link was lost by the filer: it is made again");
        }
        Ok(names)
    }

    /// A primary's redo goes on behind a refusal that time cannot change, and says whose it is. Otherwise the round ends.
    fn refused(&self, node: NodeId, key: &Key, error: Error) -> Result<()> {
        let op = self.round.op_on(key);
        match op {
            Some(op) if self.source.is_none() && is_final(error.kind) => {
                let mut state = self.state.lock();
                state.broken.insert(node);
                state.refused.push(Refusal { op, node, part: None, error });
                Ok(())
            }
            _ => Err(error),
        }
    }

    pub(super) async fn kind(&self, node: NodeId) -> Result<Option<Kind>> {
        if let Some(kind) = self.round.gone.get(&node) {
            return Ok(Some(*kind));
        }
        if let Some((kind, _)) = self.round.makes.get(&node) {
            return Ok(Some(*kind));
        }
        Ok(self.locate(node).await?.map(|object| object.kind))
    }

    /// Steps 2 and 3. Everything but directories in parts, so that what was made is still at hand when it is placed.
    async fn make_and_place(&self, wanted: &BTreeMap<NodeId, Vec<Key>>, parked: &mut BTreeSet<NodeId>) -> Result<()> {
        let (mut dirs, mut others) = (Vec::new(), Vec::new());
        for node in wanted.keys() {
            if self.kind(*node).await? == Some(Kind::Dir) { &mut dirs } else { &mut others }.push(*node);
        }
        self.make_apart(&dirs, wanted, parked).await?;
        for node in dirs {
            self.place_dir(node, wanted, parked, 0).await?;
        }
        let at_hand = AT_HAND.min(self.location.filer.nameless_max()).max(1);
        for part in others.chunks(at_hand) {
            self.make_apart(part, wanted, parked).await?;
            let place = |node: &NodeId| self.place_one(*node, &wanted[node], parked.contains(node));
            side_by_side(apart(part, wanted).iter().map(place).collect()).await?;
            let mut state = self.state.lock();
            part.iter().for_each(|node| drop(state.held.remove(node)));
        }
        Ok(())
    }

    async fn place_one(&self, node: NodeId, keys: &[Key], parked: bool) -> Result<()> {
        if self.state.lock().broken.contains(&node) {
            return Ok(());
        }
        let (mut parked, mut object) = (parked, None);
        for key in keys {
            if object.is_none() && !parked {
                object = self.locate(node).await?;
            }
            let done = self.place(node, key, &mut object, &mut parked).await;
            if !self.or_report(node, Some(key), done).await? {
                return Ok(());
            }
        }
        Ok(())
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

    /// Give a node one of its names. `false`: there is nothing to give it to, its source has gone.
    async fn place(&self, node: NodeId, key: &Key, object: &mut Option<Object>, parked: &mut bool) -> Result<bool> {
        let (dir_id, name) = key;
        if self.state.lock().there.get(key) == Some(&node) {
            return Ok(true); // it is in the pen, where it belongs
        }
        let Some(dir) = self.dir_there(*dir_id).await? else {
            return Err(Error::new(ErrorKind::Stale, "place", "its directory is not there, or could not be made"));
        };
        if self.state.lock().there.get(key).is_some_and(|other| *other != node) {
            return Err(Error::new(ErrorKind::Exists, "place", "who has its name could not be taken away"));
        }
        if self.state.lock().foreign.contains(key) {
            return Err(Error::new(ErrorKind::Exists, "place", "an object that tain does not know has its name"));
        }
        let filer = &self.location.filer;
        if *parked {
            filer.rename_free(&self.pen().await?, &pen_name(node), &dir, name).await?;
            self.state.lock().there.remove(&(PEN, pen_name(node)));
            crash_point!("RECONCILE_OUT_OF_PEN");
            self.state.lock().there.insert(key.clone(), node);
            *parked = false;
            return Ok(true);
        }
        if let Some(object) = object {
            // Second run: the link is there already, and leads to it.
            match filer.link(object, &dir, name).await {
                Err(error) if error.kind == ErrorKind::Exists && filer.lookup(&dir, name).await?.id == object.id => {}
                other => other?,
            }
        } else {
            *object = self.make(node, Spot { dir: &dir, name: Some(name) }).await?;
            if object.is_none() {
                self.state.lock().void.insert(node);
                return Ok(false);
            }
        }
        self.state.lock().there.insert(key.clone(), node);
        Ok(true)
    }

    /// An error that concerns one object only is reported and the round goes on (`false`: without it); others end it.
    pub(super) async fn or_report(&self, node: NodeId, key: Option<&Key>, done: Result<bool>) -> Result<bool> {
        let error = match done {
            Ok(on) => return Ok(on),
            Err(error) => error,
        };
        if !is_final(error.kind) {
            return Err(error);
        }
        let Some(source) = self.source else {
            // An object that somebody else removed is no refusal: there is nothing left that could be done to it.
            if error.kind == ErrorKind::Stale {
                tracing::error!(location = %self.location.id, %node, %error, "an object is gone from the primary");
                let (path, error) = (format!("node {node}").into_bytes(), error.to_string());
                let mut state = self.state.lock();
                state.broken.insert(node);
                state.failed.push(CopyFailed { node, path, error, fatal: false });
                return Ok(false);
            }
            let Some(key) = key else { return Err(error) };
            return self.refused(node, key, error).map(|()| false);
        };
        let failed = CopyFailed { node, path: source.path(node), error: error.to_string(), fatal: false };
        let mut state = self.state.lock();
        state.broken.insert(node);
        state.failed.push(failed);
        Ok(false)
    }

    /// Who was parked in a run that died, and by now lives on by other names alone, leaves the pen. (A stale name there
    /// would be taken for its place, and a rename onto it would do nothing: both are the same object.)
    async fn leave_pen(&self) -> Result<()> {
        if !self.round.ask_filer || !self.state.lock().refused.is_empty() {
            return Ok(());
        }
        let penned: Vec<(Key, NodeId)> =
            self.state.lock().there.iter().filter(|(key, _)| key.0 == PEN).map(|(k, n)| (k.clone(), *n)).collect();
        for (key, node) in penned {
            let belongs = self.view.entry(PEN, &key.1).map_err(index_error)?.is_some_and(|(there, _)| there == node);
            if belongs || self.round.gone.contains_key(&node) || self.kind(node).await? == Some(Kind::Dir) {
                continue;
            }
            let pen = self.pen().await?;
            let object = match self.location.filer.lookup(&pen, &key.1).await {
                Err(error) if error.kind == ErrorKind::NotFound => continue,
                object => object?,
            };
            if self.location.filer.stat(&object).await?.nlink > 1 {
                take_name(self.location.filer.as_ref(), &pen, &key.1, false).await?;
                self.state.lock().there.remove(&key);
            }
        }
        Ok(())
    }

    /// Step 5: what is gone leaves the pen and the index.
    async fn clear(&self) -> Result<()> {
        if self.round.partial {
            return Ok(()); // a directory may hold what another round takes away
        }
        if !self.state.lock().refused.is_empty() {
            return Ok(()); // what has gone may have to come back
        }
        // All of them first: a mounted NFS keeps a name of a removed file that is held, and so its directory.
        self.round.gone.keys().for_each(|node| self.location.forget(*node));
        for (node, kind) in &self.round.gone {
            let name = pen_name(*node);
            let penned = self.state.lock().there.get(&(PEN, name.clone())) == Some(node);
            if penned && !self.clear_pen(*node, *kind, &name).await? {
                continue;
            }
            if self.state.lock().broken.contains(node) {
                continue; // its removal was refused: it is there
            }
            if self.source.is_none() {
                // Until the location is synced a power cut may bring the object back, and then it must be known.
                self.location.retire(Lsn(0), *node);
                continue;
            }
            let changes = self.location.objects.remove(*node).map_err(index_error)?;
            self.location.objects.store.write(changes);
        }
        Ok(())
    }

    /// Whether it has left the pen.
    async fn clear_pen(&self, node: NodeId, kind: Kind, name: &[u8]) -> Result<bool> {
        let filer = &self.location.filer;
        let pen = self.pen().await?;
        match take_name(filer.as_ref(), &pen, name, kind == Kind::Dir).await {
            Err(error) if is_final(error.kind) && self.source.is_none() => {
                let removed = self.round.places_of(node);
                let Some(op) = removed.filter_map(|key| self.round.op_on(key)).max() else {
                    return Err(error);
                };
                self.state.lock().refused.push(Refusal { op, node, part: None, error });
                Ok(false)
            }
            Err(error) if error.kind == ErrorKind::NotEmpty => {
                tracing::error!(location = %self.location.id, %node,
                    "a removed directory holds objects that tain does not know; it is kept in the pen");
                Ok(true)
            }
            other => other.map(|()| true),
        }
    }
}

/// The nodes in an order in which neighbours go into different directories: a file system changes one directory at a
/// time.
fn apart(nodes: &[NodeId], wanted: &BTreeMap<NodeId, Vec<Key>>) -> Vec<NodeId> {
    let dir = |node: &NodeId| wanted[node].first().map_or(PEN, |key| key.0);
    let mut sorted = nodes.to_vec();
    sorted.sort_by_key(dir);
    let mut by_dir: Vec<_> = sorted.chunk_by(|a, b| dir(a) == dir(b)).map(|group| group.iter()).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while order.len() < nodes.len() {
        order.extend(by_dir.iter_mut().filter_map(|group| group.next().copied()));
    }
    order
}

/// A refusal that waiting does not change.
pub fn is_final(kind: ErrorKind) -> bool {
    !kind.is_transient() && kind != ErrorKind::ReadOnly
}

/// Take a name away; one that is not there, or that the filer takes from nobody, is taken away already. A filer that
/// calls a name free which it shows is asked again later.
async fn take_name(filer: &dyn CoreFiler, dir: &Object, name: &[u8], is_dir: bool) -> Result<()> {
    let done = if is_dir { filer.rmdir(dir, name).await } else { filer.remove(dir, name).await };
    let Err(error) = done else { return Ok(()) };
    if !error.kind.is_no_entry() {
        return Err(error);
    }
    match filer.lookup(dir, name).await {
        Ok(_) if error.kind != ErrorKind::NotFound => Err(error),
        Ok(_) => Err(Error::new(ErrorKind::Io, error.op, "the filer calls a name free that it shows")),
        Err(error) if error.kind.is_no_entry() => Ok(()),
        Err(error) => Err(error),
    }
}
