//! Objects that are new in a round: making them, and recognising after a crash those that were made.
//!
//! An object is known by its identity, which the journal has from its `Made` on. Between the making and the `Made` a
//! crash leaves an object that only its name tells of, and names move: after "create a, rename a to b, create a" either
//! node may stand at `a`. So that a name alone is always enough:
//!
//! * A node whose name in the round is its own from beginning to end ([`Round::is_plain`]) is made there. No later
//!   round touches that name before the `Made` is durable (see the replayer). A client's own CREATE is of this kind,
//!   too: whoever comes after it under that name waits for its locks, and its `Made` was appended under them.
//! * Every other one, and each that redo makes, is made apart, and gets its name when its `Made` is durable: a file without
//!   any name, where the filer can do that (a crash leaves nothing of it then); else in the pen, under its node id,
//!   which no name can be mistaken for.
//!
//! | an object tain does not know stands            | it is                                                          |
//! | ---------------------------------------------- | -------------------------------------------------------------- |
//! | in the pen, under the id of a node of the round | that node, if it has no identity yet or its object is gone    |
//! | where nodes of the round got their first name  | the first of those without an identity that it can be: of its |
//! |                                                 | kind, a symlink of its text; where there are several, a       |
//! |                                                 | directory of that one whose names in the round it holds       |
//! | anywhere else, or it is of another kind         | foreign: it is left alone, and what needs its name is refused |
//!
//! A node that has an identity is never looked for under a name of the tree: when its object is gone (a power cut took
//! it), it is made again, apart: the next crash may come before its new `Made`. All bytes of a new file
//! come again from the round, so one that is recognised starts at size 0.
//!
//! What somebody has put in the place of a new object is not told from it here, though the first try goes by owner, mode,
//! links and time of birth as well (`filer/posix/names.rs: may_be_new`). By now none of these proves anything, and to call tain's own
//! object a foreign one is worse: its operation, which may have been answered, becomes `Failed`, or, where the index
//! had committed it, the junction is held until somebody takes away by hand what stands there.
//!
//! * *Born before its event?* The record's time is no reading of the clock that file systems use. It never goes back: while the clock
//!   is behind the last record (it was set back; a machine with an empty battery starts in another year) each record is stamped
//!   just after the one before, and what is made then is older than its record by as much as the clock is behind. The clock may
//!   also be set between the record and the making, which waits for a filer that hangs, and nobody takes down that it was. That
//!   it is past the record's time when a redo looks says nothing of the moment of the making. The first try has the moment before
//!   its own call to compare with, and sees a clock that is behind it; and redo comes after power cuts, which is when clocks are wrong.
//! * *Of another owner, or with more links, than it was made with?* That may be what later operations did. Of a journal that was
//!   repaired these are cut off, and the filer has them all the same; and a replay to a point in time (`tain-journal replay`)
//!   begins with a copy of the tree, which may hold more than the journal up to there.

use super::copy::{self, is_acl};
use super::projection::{PEN, pen_name};
use super::reconcile::Site;
use super::root::put_root;
use super::round::{Key, Origin};
use super::{Recorder, index_error, reconcile};
use crate::filer::aside::{PART, side_by_side};
use crate::filer::{AclKind, Changes, Error, ErrorKind, MakeAttrs, Object, Result};
use crate::semantics::acl::Acl;
use bytes::Bytes;
use journal_format::event::{Make, What};
use journal_format::ids::{Kind, NodeId};
use std::collections::{BTreeMap, BTreeSet};

const ACCESS: &[u8] = AclKind::Access.xattr().as_bytes();
const DEFAULT: &[u8] = AclKind::Default.xattr().as_bytes();

/// Names of a directory that are looked at to tell whose it is.
const HELD_MAX: usize = 1000;

/// Where an object is made: under a name, or without one.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub dir: &'a Object,
    pub name: Option<&'a [u8]>,
}

impl Site<'_> {
    /// Which node an object that stands under a touched name is.
    pub(super) async fn recognise(&self, key: &Key, object: &Object) -> Result<Option<NodeId>> {
        if let Some(node) = self.location.objects.node(&object.id).map_err(index_error)? {
            return Ok(Some(node));
        }
        let unmade = self.unmade(key).await?;
        for node in unmade.iter().copied() {
            let alone = unmade.len() == 1;
            if !self.fits(node, object).await? || !(alone || self.holds_its_own(node, object).await?) {
                continue;
            }
            if object.kind == Kind::File {
                self.location.filer.set(object, Changes { size: Some(0), ..Changes::default() }).await?;
            }
            let done = self.attributes(node, object).await;
            if self.source.is_some() {
                self.or_report(node, Some(key), done.map(|()| true)).await?;
            } else {
                done?;
            }
            self.note_made(node, object, true)?;
            return Ok(Some(node));
        }
        tracing::warn!(location = %self.location.id, dir = %key.0, name = %String::from_utf8_lossy(&key.1),
            "an object that tain does not know stands in the tree; it is left alone");
        Ok(None)
    }

    /// Who it may be: those that were made there and have no identity, in that order. (A dirty set does not keep it.) It
    /// need not be the first: one that came and went within what an earlier try took for a round was never made. Files that
    /// are taken for one another come to no harm: all they are comes again from the round.
    async fn unmade(&self, key: &Key) -> Result<Vec<NodeId>> {
        let penned = (key.0 == PEN).then(|| std::str::from_utf8(&key.1).ok()?.parse().ok().map(NodeId)).flatten();
        if let Some(node) = penned
            && self.location.objects.identity(node).map_err(index_error)?.is_some()
            && self.locate(node).await?.is_none()
        {
            return Ok(vec![node]);
        }
        let born = self.round.names.get(key).into_iter().flat_map(|touched| touched.born.iter().copied());
        let mut unmade = Vec::new();
        for node in penned.into_iter().chain(born) {
            if self.location.objects.identity(node).map_err(index_error)?.is_none() {
                unmade.push(node);
            }
        }
        Ok(unmade)
    }

    /// A directory, by what is in it: names that the round touched in this node.
    async fn holds_its_own(&self, node: NodeId, object: &Object) -> Result<bool> {
        if object.kind != Kind::Dir {
            return Ok(true);
        }
        let page = self.location.filer.list(object, 0, HELD_MAX).await?;
        Ok(page.names.into_iter().all(|name| self.round.names.contains_key(&(node, name))))
    }

    async fn fits(&self, node: NodeId, object: &Object) -> Result<bool> {
        if let Some(kind) = self.round.gone.get(&node) {
            return Ok(*kind == object.kind);
        }
        let Some((kind, origin)) = self.round.makes.get(&node) else { return Ok(false) };
        if *kind != object.kind {
            return Ok(false);
        }
        match origin {
            Origin::Event(e) if let What::Symlink { target } = &e.what => {
                Ok(self.location.filer.readlink(object).await? == *target)
            }
            Origin::Source if *kind == Kind::Symlink => {
                let Some(source) = self.source else { return Ok(true) };
                // Of one that has gone on the source it is found out later.
                let Some(link) = source.object(node).await? else { return Ok(true) };
                Ok(self.location.filer.readlink(object).await? == source.location.filer.readlink(&link).await?)
            }
            _ => Ok(true),
        }
    }

    /// Attributes of an adopted object, as its creation would have set them.
    async fn attributes(&self, node: NodeId, object: &Object) -> Result<()> {
        if let Some(source) = self.source.filter(|_| node == self.location.root) {
            return put_root(source.location.filer.as_ref(), self.location.filer.as_ref()).await;
        }
        let changes = match self.round.makes.get(&node) {
            Some((_, Origin::Event(e))) => {
                let finished = self.has_its_acls(e, object).await?;
                Changes {
                    uid: Some(e.uid),
                    gid: Some(e.gid),
                    mode: Some(e.mode).filter(|_| !finished),
                    size: Some(e.size).filter(|size| *size > 0),
                    atime: e.atime,
                    mtime: None,
                }
            }
            Some((kind, Origin::Source)) => {
                let Some(source) = self.source else { return Ok(()) };
                let Some((_, attrs, later)) = source.describe(node, *kind).await? else { return Ok(()) };
                self.put_xattrs(object, &source.xattrs(node, *kind).await?).await?;
                Changes { uid: Some(attrs.uid), gid: Some(attrs.gid), mode: Some(attrs.mode), ..later }
            }
            None => return Ok(()),
        };
        let changes = if object.kind == Kind::Symlink { Changes { mode: None, ..changes } } else { changes };
        self.location.filer.set(object, changes).await
    }

    /// What has no name yet is held for the round, and for no longer.
    fn note_made(&self, node: NodeId, object: &Object, has_name: bool) -> Result<()> {
        let changes = self.location.objects.put(node, &object.id).map_err(index_error)?;
        self.location.objects.store.write(changes);
        if has_name {
            self.location.remember(node, object);
        }
        let mut state = self.state.lock();
        state.complete.insert(node);
        state.made.push((node, object.id.clone()));
        if !self.location.filer.capabilities().open_by_identity && object.kind == Kind::Dir {
            state.held.insert(node, object.clone());
        }
        Ok(())
    }

    /// A filer makes an object in steps, and a power cut may have kept the first ones alone: its name and identity,
    /// without the owner, mode and size that its creation gave it. Objects that were made before this round ran, and are
    /// known, get them again; whatever was done to them since is carried out behind this.
    pub(super) async fn complete(&self) -> Result<()> {
        if !self.round.ask_filer {
            return Ok(());
        }
        let known: Vec<NodeId> = {
            let state = self.state.lock();
            self.round.makes.keys().filter(|node| !state.complete.contains(node)).copied().collect()
        };
        for part in known.chunks(PART) {
            side_by_side(part.iter().map(|node| self.complete_one(*node)).collect()).await?;
        }
        Ok(())
    }

    async fn complete_one(&self, node: NodeId) -> Result<()> {
        let Some(object) = self.locate(node).await? else { return Ok(()) };
        let done = self.attributes(node, &object).await.map(|()| true);
        let key = self.round.places_of(node).next();
        self.or_report(node, key, done).await.map(drop)
    }

    /// Step 2, of these nodes: apart, what a name alone would not tell for sure; recorded before any of it gets its name.
    pub(super) async fn make_apart(
        &self,
        nodes: &[NodeId],
        wanted: &BTreeMap<NodeId, Vec<Key>>,
        parked: &mut BTreeSet<NodeId>,
    ) -> Result<()> {
        let Some(recorder) = self.recorder else { return Ok(()) };
        let mut apart = Vec::new();
        for node in nodes {
            let keys = &wanted[node];
            let plain = !self.round.ask_filer && keys.first().is_none_or(|key| self.round.is_plain(*node, key));
            let new = self.round.makes.contains_key(node) && !parked.contains(node);
            if new && !plain && !self.state.lock().broken.contains(node) && self.locate(*node).await?.is_none() {
                apart.push((*node, keys.first()));
            }
        }
        if apart.is_empty() {
            return Ok(());
        }
        let pen = self.pen().await?;
        for part in apart.chunks(PART) {
            let makes: Vec<_> = part.iter().map(|(node, key)| self.make_one_apart(*node, *key, &pen)).collect();
            parked.extend(side_by_side(makes).await?.into_iter().flatten());
            self.record(recorder).await?;
        }
        Ok(())
    }

    pub(super) async fn record(&self, recorder: &dyn Recorder) -> Result<()> {
        let made = std::mem::take(&mut self.state.lock().made);
        if made.is_empty() { Ok(()) } else { recorder.made(self.location.id, &made).await }
    }

    /// Returns the node if it is in the pen now; without a name it is held for the round.
    async fn make_one_apart(&self, node: NodeId, key: Option<&Key>, pen: &Object) -> Result<Option<NodeId>> {
        let is_file = self.round.makes.get(&node).is_some_and(|(kind, _)| *kind == Kind::File);
        let dir = match key {
            Some((dir, _)) if is_file && self.location.filer.capabilities().nameless => self.dir_there(*dir).await?,
            _ => None,
        };
        let name = pen_name(node);
        let spot = dir.as_ref().map_or(Spot { dir: pen, name: Some(&name) }, |dir| Spot { dir, name: None });
        let done = match self.make(node, spot).await {
            Ok(Some(object)) if spot.name.is_none() => {
                self.state.lock().held.insert(node, object);
                return Ok(None);
            }
            Ok(Some(_)) => {
                self.state.lock().there.insert((PEN, name), node);
                return Ok(Some(node));
            }
            Ok(None) => {
                self.state.lock().void.insert(node);
                Ok(false)
            }
            Err(error) => Err(error),
        };
        // What came before the error stays in the pen: the next try finds it there.
        self.or_report(node, key, done).await.map(|_| None)
    }

    /// A new object; `None` when its source is gone.
    pub(super) async fn make(&self, node: NodeId, spot: Spot<'_>) -> Result<Option<Object>> {
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
                if let Some(object) = self.make_whole(node, e, spot).await? {
                    return Ok(Some(object));
                }
                let size = Some(e.size).filter(|size| *size > 0);
                (
                    e.what.clone(),
                    MakeAttrs { mode: e.mode, uid: e.uid, gid: e.gid, inherits: false },
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
        let xattrs = match (origin, self.source) {
            (Origin::Source, Some(source)) => source.xattrs(node, *kind).await?,
            (Origin::Event(e), _) => self.inherited(e).await?,
            (Origin::Source, None) => Vec::new(),
        };
        // Until its ACL is there the mode decides alone, and the group bits are an ACL's mask: wider than its groups'.
        let shut = xattrs.iter().any(|(name, _)| is_acl(name));
        let first = MakeAttrs { mode: if shut { attrs.mode & !0o077 } else { attrs.mode }, ..attrs };
        let object = self.make_with(spot, &what, first, later).await?;
        let finish = async {
            self.put_xattrs(&object, &xattrs).await?;
            let mode = Changes { mode: Some(attrs.mode), ..Changes::default() };
            if shut { filer.set(&object, mode).await } else { Ok(()) }
        };
        if let Err(error) = finish.await {
            return Err(self.unmake(spot, *kind, error).await);
        }
        debug_assert!(what.kind() == *kind || matches!(what, What::File));
        self.note_made(node, &object, spot.name.is_some())?;
        Ok(Some(object))
    }

    /// A directory's default ACL. One that was made in the round, and is not there (it is still to be made, or is gone
    /// again) or may not have its own yet (a power cut took that), has that of the directory it was made in.
    async fn handed_on(&self, dir: NodeId) -> Result<Option<Bytes>> {
        if !self.location.filer.capabilities().acls {
            return Ok(None);
        }
        if let Some(acl) = self.state.lock().handed_on.get(&dir) {
            return Ok(acl.clone());
        }
        let acl = self.ask_handed_on(dir).await.map_err(not_of_the_object)?;
        self.state.lock().handed_on.insert(dir, acl.clone());
        Ok(acl)
    }

    async fn ask_handed_on(&self, mut dir: NodeId) -> Result<Option<Bytes>> {
        for _ in 0..=self.round.dirs_made_max() {
            let object = self.locate(dir).await?;
            if let Some(object) = &object {
                let acl = self.location.filer.acl(object, AclKind::Default).await?;
                if acl.is_some() || self.state.lock().complete.contains(&dir) {
                    return Ok(acl);
                }
            }
            dir = match (self.round.made_in(dir), self.round.makes.get(&dir), self.source) {
                (Some(above), ..) => above,
                (None, Some(_), Some(source)) => return source.default_acl(dir).await,
                (None, ..) => {
                    if object.is_none() {
                        tracing::warn!(location = %self.location.id, %dir,
                            "a directory has gone, and whether it handed on an ACL to what was made in it cannot be told");
                    }
                    return Ok(None);
                }
            };
        }
        Ok(None)
    }

    /// The ACLs that a client's new object has from the directory it was made in, wherever it is by now, with its mode
    /// put on them; by name.
    async fn inherited(&self, made: &Make) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let kind = made.what.kind();
        if kind == Kind::Symlink {
            return Ok(Vec::new());
        }
        let Some(default) = self.handed_on(made.dir).await? else { return Ok(Vec::new()) };
        let Some(acl) = Acl::parse(&default) else {
            return Err(Error::new(ErrorKind::Io, "inherit", "what the directory hands on is no ACL"));
        };
        let mut acls = vec![(ACCESS.to_vec(), acl.with_mode(made.mode).to_bytes())];
        if kind == Kind::Dir {
            acls.push((DEFAULT.to_vec(), default.to_vec()));
        }
        Ok(acls)
    }

    /// Put those ACLs that an object which was there lacks; one that it has may be an administrator's, and stays. Whether
    /// it had its own, and a mode that goes with it: while an object is made there is nothing in it for others.
    async fn has_its_acls(&self, made: &Make, object: &Object) -> Result<bool> {
        let filer = self.location.filer.as_ref();
        if object.kind == Kind::Symlink || !filer.capabilities().acls {
            return Ok(false);
        }
        let has_access = filer.acl(object, AclKind::Access).await?.is_some();
        let has_default = object.kind != Kind::Dir || filer.acl(object, AclKind::Default).await?.is_some();
        let finished = has_access && filer.stat(object).await?.mode & 0o077 != 0;
        if !(has_access && has_default) {
            let mut acls = self.inherited(made).await?;
            acls.retain(|(name, _)| if name == DEFAULT { !has_default } else { !has_access });
            self.put_xattrs(object, &acls).await?;
        }
        Ok(finished)
    }

    /// Redo of a primary waits for what may pass; a copy goes on without one object.
    async fn put_xattrs(&self, object: &Object, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let filer = self.location.filer.as_ref();
        if self.source.is_some() {
            copy::put_xattrs(filer, object, xattrs).await
        } else {
            copy::put_all(filer, object, xattrs).await
        }
    }

    /// All of it or nothing, but for an error that may pass.
    async fn make_with(&self, spot: Spot<'_>, what: &What, attrs: MakeAttrs, later: Changes) -> Result<Object> {
        let filer = &self.location.filer;
        let object = match spot.name {
            Some(name) => filer.make(spot.dir, name, what, attrs).await?,
            None => filer.make_nameless(spot.dir, attrs).await?,
        };
        crash_point!("RECONCILE_MADE");
        if later != Changes::default()
            && let Err(error) = filer.set(&object, later).await
        {
            return Err(self.unmake(spot, what.kind(), error).await);
        }
        Ok(object)
    }

    /// Redo of a primary: as the object is to be in the end, where the round does nothing but that to it; it need not be
    /// found again then. `None` where there is more to do; and where the filer refuses it for good, because that must
    /// be the refusal of the one operation that asked for what it refuses.
    async fn make_whole(&self, node: NodeId, made: &Make, spot: Spot<'_>) -> Result<Option<Object>> {
        if !self.round.ask_filer || self.source.is_some() {
            return Ok(None);
        }
        let Some(end) = self.round.in_the_end(node) else { return Ok(None) };
        if made.what.kind() != Kind::Symlink && self.handed_on(made.dir).await?.is_some() {
            return Ok(None); // its mode is put on its ACL
        }
        let attrs = MakeAttrs {
            mode: end.mode.unwrap_or(made.mode),
            uid: end.uid.unwrap_or(made.uid),
            gid: end.gid.unwrap_or(made.gid),
            inherits: false,
        };
        let later = Changes { uid: None, gid: None, mode: None, ..end };
        if later.size.is_some() && attrs.mode & 0o6000 != 0 {
            return Ok(None); // a size that is set later may clear these bits
        }
        let object = match self.make_with(spot, &made.what, attrs, later).await {
            Err(error) if reconcile::is_final(error.kind) => return Ok(None),
            other => other?,
        };
        self.note_made(node, &object, spot.name.is_some())?;
        self.state.lock().whole.insert(node, end.mtime);
        Ok(Some(object))
    }

    /// Attributes of a directory that is soon to go.
    async fn for_now(&self) -> Result<MakeAttrs> {
        let filer = &self.location.filer;
        let root = filer.stat(&filer.root().await?).await?;
        Ok(MakeAttrs { mode: 0o700, uid: root.uid, gid: root.gid, inherits: false })
    }

    /// A creation has all its effect or none.
    async fn unmake(&self, spot: Spot<'_>, kind: Kind, error: Error) -> Error {
        let Some(name) = spot.name.filter(|_| reconcile::is_final(error.kind)) else {
            return error; // the next try finds it, and sets what is missing; without a name it is gone
        };
        let filer = &self.location.filer;
        let gone =
            if kind == Kind::Dir { filer.rmdir(spot.dir, name).await } else { filer.remove(spot.dir, name).await };
        if let Err(left) = gone {
            tracing::warn!(location = %self.location.id, error = %left, "an object that could not be finished stays");
        }
        error
    }
}

/// What a directory refuses is no refusal of what was made in it: it is asked again. A directory of the source that
/// cannot be read is not: what was made in it is reported with it.
fn not_of_the_object(error: Error) -> Error {
    if error.kind == ErrorKind::OfObject || !reconcile::is_final(error.kind) {
        return error;
    }
    Error::new(ErrorKind::Io, error.op, format!("whether the directory hands on an ACL cannot be told: {error}"))
}
