//! Carrying it out.

use super::history::{At, History};
use crate::show;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use journal_format::event::{Adopt, Event, JunctionAdded};
use journal_format::ids::{JunctionId, Kind, LocationId, Lsn, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tain::filer::{self, ErrorKind, posix};
use tain::index::live::{Entry, Live};
use tain::index::objects::Objects;
use tain::index::store::Store;
use tain::location::carry_out::{DoneSteps, carry_out, put_times};
use tain::location::redo::{End, as_ended};
use tain::location::round::{DataOp, Origin, Round};
use tain::location::{InStore, Location, View};

/// Names touched in a stretch; one that was begun may be longer.
const NAMES_MAX: usize = 100_000;
/// Differences that are listed.
const LISTED_MAX: usize = 20;
const CACHE: usize = 32 << 20;

/// What is kept of a copy, beside the stores.
#[derive(Clone, Serialize, Deserialize)]
pub struct Meta {
    pub journal_id: String,
    pub junction: u32,
    root: u64,
    /// What the copy held at first.
    pub base_lsn: u64,
    /// A stretch with this end was begun: nothing behind it has been carried out.
    pub high_lsn: u64,
}

impl Meta {
    pub fn new(id: &[u8; 16], added: &JunctionAdded, base_lsn: u64) -> Meta {
        Meta { journal_id: show::hex(id), junction: added.junction.0, root: added.root.0, base_lsn, high_lsn: 0 }
    }

    pub fn load(state: &Path) -> Result<Option<Meta>> {
        let path = state.join("replay.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("{}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn save(&self, state: &Path) -> Result<()> {
        let (path, tmp) = (state.join("replay.json"), state.join("replay.json.tmp"));
        let write = || {
            let mut file = std::fs::File::create(&tmp)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            std::fs::rename(&tmp, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        crate::archive::sync_dir(state)
    }
}

pub struct Engine<'a> {
    history: &'a History,
    tree: PathBuf,
    state: PathBuf,
    meta: Meta,
    live: Arc<Live>,
    location: Location,
}

#[derive(Default)]
pub struct Done {
    pub from: u64,
    pub operations: u64,
    pub bytes: u64,
}

/// A part of the journal that is carried out as one.
#[derive(Default)]
struct Stretch {
    end: u64,
    adopts: Vec<(Lsn, Adopt)>,
    round: Round,
    operations: u64,
}

impl<'a> Engine<'a> {
    pub async fn open(history: &'a History, tree: &Path, state: &Path, meta: Meta) -> Result<Engine<'a>> {
        let found = posix::probe(tree.to_owned()).await.map_err(told)?;
        let filer = posix::open(tree.to_owned(), &found.root, &[], None).await.map_err(told)?;
        let root = filer.root().await.map_err(told)?;
        if history.roots.contains(&root.id) {
            bail!("{} is a location of the service itself: replay wants a copy", tree.display());
        }
        let fresh = Meta::load(state)?.is_none();
        if fresh {
            // Left by a run that did not come to its first position.
            for name in ["live.redb", "objects.redb"] {
                let _ = std::fs::remove_file(state.join(name));
            }
        }
        let live = Arc::new(Live::new(Arc::new(Store::open(&state.join("live.redb"), CACHE)?)));
        let objects = Objects::new(Arc::new(Store::open_exact(&state.join("objects.redb"), CACHE)?));
        let node = NodeId(meta.root);
        objects.store.write(objects.put(node, &root.id)?);
        let location = Location::new(LocationId(0), node, filer, objects);
        let (tree, state) = (tree.to_owned(), state.to_owned());
        let engine = Engine { history, tree, state, meta, live, location };
        if fresh {
            engine.begin().await?;
        }
        Ok(engine)
    }

    /// The names as of the base's LSN, and their objects in the copy.
    async fn begin(&self) -> Result<()> {
        let base = self.meta.base_lsn;
        self.fold(0, base)?;
        self.identify().await?;
        self.location.objects.store.commit(Lsn(base))?;
        self.live.store.commit(Lsn(base))?;
        self.meta.save(&self.state)
    }

    /// Go back to an earlier position, in what is known: the tree stays, and is led to the same end again.
    pub async fn rewind(&mut self, to: Option<u64>) -> Result<()> {
        let Some(to) = to else { return Ok(()) };
        if to < self.meta.base_lsn || to > self.live.store.lsn().0 {
            bail!("--again-from must lie between LSN {} and {}", self.meta.base_lsn, self.live.store.lsn());
        }
        let path = self.state.join("live.redb");
        // The old store is closed before its file goes.
        self.live = Arc::new(Live::new(Arc::new(Store::open(&self.state.join("rewind.redb"), CACHE)?)));
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        self.live = Arc::new(Live::new(Arc::new(Store::open(&path, CACHE)?)));
        let _ = std::fs::remove_file(self.state.join("rewind.redb"));
        self.fold(0, to)?;
        self.live.store.commit(Lsn(to))?;
        Ok(())
    }

    /// To the history's end.
    pub async fn run(&mut self) -> Result<Done> {
        let mut done = Done { from: self.live.store.lsn().0, ..Done::default() };
        let mut from = done.from;
        while from < self.history.to {
            let stretch = self.collect(from)?;
            done.operations += stretch.operations;
            done.bytes += self.stretch(from, &stretch).await?;
            from = stretch.end;
        }
        // The pen is empty when all is in its place; a root that it stood in gets its time back.
        if std::fs::remove_dir(self.tree.join(".tain-pen")).is_ok() {
            let root = BTreeSet::from([self.location.root]);
            put_times(&self.location, self.live.as_ref(), &self.live, &root).await.map_err(told)?;
        }
        Ok(done)
    }

    /// Node events of the junction.
    fn is_ours(&self, event: &Event) -> bool {
        let junction = |id: JunctionId| id.0 == self.meta.junction;
        match event {
            Event::Write(e) => junction(e.junction),
            Event::SetAttr(e) => junction(e.junction),
            Event::Make(e) => junction(e.junction),
            Event::Remove(e) => junction(e.junction),
            Event::Rename(e) => junction(e.junction),
            Event::Link(e) => junction(e.junction),
            Event::Adopt(e) => junction(e.junction),
            Event::JunctionAdded(e) => junction(e.junction),
            _ => false,
        }
    }

    /// Fold what happened into the names.
    fn fold(&self, from: u64, to: u64) -> Result<()> {
        self.history.read(from, to, &mut |at| {
            if self.is_ours(&at.event)
                && let Some(event) = as_ended(at.event, self.history.ends.get(&at.lsn.0))
            {
                self.live.apply(at.lsn, at.time, &event)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Every name that is known must be in the copy, as the kind that it is known as; and nothing else where all are known.
    async fn identify(&self) -> Result<()> {
        let (live, location) = (&self.live, &self.location);
        let mut wrong = Vec::new();
        let mut dirs = VecDeque::from([(location.root, String::new())]);
        while let Some((dir, path)) = dirs.pop_front() {
            let object = location.object(live.as_ref(), dir).await.map_err(told)?;
            let (mut after, mut names) = (0, BTreeSet::new());
            loop {
                let page = live.list(dir, after, 1024)?;
                let Some(last) = page.last() else { break };
                after = last.cookie;
                for entry in page {
                    let path = format!("{path}/{}", show::escape(&entry.name));
                    match self.place(&object, &entry).await? {
                        Some(problem) => wrong.push(format!("{path}: {problem}")),
                        None if entry.kind == Kind::Dir => dirs.push_back((entry.node, path)),
                        None => {}
                    }
                    names.insert(entry.name);
                }
            }
            if live.node(dir)?.is_some_and(|node| node.complete) {
                let strange = self.strangers(&object, &names).await?;
                wrong.extend(strange.iter().map(|name| format!("{path}/{}: should not be there", show::escape(name))));
            }
            if wrong.len() > LISTED_MAX {
                break;
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.truncate(LISTED_MAX);
        bail!("the tree is not what it was at LSN {}: it does not fit:\n  {}", self.meta.base_lsn, wrong.join("\n  "))
    }

    /// Note which object the name leads to; else what is wrong with it.
    async fn place(&self, dir: &filer::Object, entry: &Entry) -> Result<Option<String>> {
        let object = match self.location.filer.lookup(dir, &entry.name).await {
            Ok(object) => object,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Some("is missing".into())),
            Err(error) => return Err(told(error)),
        };
        if object.kind != entry.kind {
            return Ok(Some(format!("is a {:?}, should be a {:?}", object.kind, entry.kind).to_lowercase()));
        }
        let objects = &self.location.objects;
        objects.store.write(objects.put(entry.node, &object.id)?);
        self.location.remember(entry.node, &object);
        Ok(None)
    }

    async fn strangers(&self, dir: &filer::Object, known: &BTreeSet<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let (mut strange, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let page = self.location.filer.list(dir, at, 1024).await.map_err(told)?;
            strange.extend(page.names.into_iter().filter(|name| !known.contains(name)).take(LISTED_MAX));
            from = page.next.filter(|_| strange.len() < LISTED_MAX);
        }
        Ok(strange)
    }

    /// The next stretch, and what it asks of names.
    fn collect(&self, from: u64) -> Result<Stretch> {
        let begun = self.meta.high_lsn;
        // What was begun is ended before anything further is looked up in the tree.
        let limit = if begun > from { begun } else { self.history.to };
        let mut stretch = Stretch { end: limit, round: Round::redo(), ..Stretch::default() };
        self.history.read(from, limit, &mut |at| {
            if self.is_ours(&at.event)
                && let Some(event) = as_ended(at.event, self.history.ends.get(&at.lsn.0))
            {
                stretch.take(at.lsn, event);
            }
            if begun <= from && stretch.round.names.len() >= NAMES_MAX {
                stretch.end = at.end.0;
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(stretch)
    }

    /// Carry a stretch out; the bytes written.
    async fn stretch(&mut self, from: u64, stretch: &Stretch) -> Result<u64> {
        if stretch.end > self.meta.high_lsn {
            self.look_up(stretch).await?;
            self.location.objects.store.commit(Lsn(from))?;
            self.meta.high_lsn = stretch.end;
            self.meta.save(&self.state)?;
        }
        self.fold(from, stretch.end)?;
        let live = self.live.clone();
        let (recorder, none) = (InStore(self.location.objects.clone()), DoneSteps::new());
        let carried = carry_out(&self.location, live.as_ref(), None, &stretch.round, &none, &recorder).await;
        refused(carried.map_err(told)?.failed)?;
        let mut touched = stretch.round.times.clone();
        let (mut at, mut bytes) = (from, 0);
        while at < stretch.end {
            let (round, next) = self.window(at, stretch.end)?;
            bytes += round.bytes();
            touched.extend(round.times.iter().copied());
            let carried = carry_out(&self.location, live.as_ref(), None, &round, &none, &recorder).await;
            refused(carried.map_err(told)?.failed)?;
            at = next;
        }
        put_times(&self.location, live.as_ref(), &live, &touched).await.map_err(told)?;
        self.location.filer.sync().await.map_err(told)?;
        for (_, node) in self.location.take_retired() {
            self.location.objects.store.write(self.location.objects.remove(node)?);
        }
        self.location.objects.store.commit(Lsn(stretch.end))?;
        self.live.store.commit(Lsn(stretch.end))?;
        Ok(bytes)
    }

    /// Objects that were met in the stretch: where they are said to have been met they still are, for nothing was done to
    /// them before. Their directories were there before the stretch, too: one made in it has no unknown objects.
    async fn look_up(&self, stretch: &Stretch) -> Result<()> {
        let mut met = Met { live: &self.live, names: BTreeMap::new() };
        for (lsn, adopt) in &stretch.adopts {
            for entry in &adopt.entries {
                if self.location.objects.identity(entry.node)?.is_some() {
                    continue;
                }
                let dir = self.location.object(&met, adopt.dir).await.map_err(told)?;
                let wanted =
                    Entry { name: entry.name.clone(), node: entry.node, kind: entry.kind, cookie: 0, put_by: 0 };
                if let Some(problem) = self.place(&dir, &wanted).await? {
                    let name = show::escape(&entry.name);
                    bail!("the tree does not fit: {name} in node {}, met at LSN {lsn}, {problem}", adopt.dir);
                }
                met.names.insert(entry.node, (adopt.dir, entry.name.clone()));
            }
        }
        Ok(())
    }

    /// Bytes and attributes from `from` on, as much as is carried out at once, and where it ends.
    fn window(&self, from: u64, to: u64) -> Result<(Round, u64)> {
        let (mut round, mut next) = (Round::default(), to);
        self.history.read(from, to, &mut |at| {
            if self.is_ours(&at.event) {
                self.data(&mut round, &at)?;
            }
            if round.is_full() {
                next = at.end.0;
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((round, next))
    }

    fn data(&self, round: &mut Round, at: &At<'_>) -> Result<()> {
        let (node, op) = match &at.event {
            Event::Write(e) => {
                (e.node, DataOp::Write { offset: e.offset, data: Bytes::copy_from_slice(at.bulk), mode: e.mode })
            }
            Event::SetAttr(e) => (e.node, DataOp::set(e)),
            _ => return Ok(()),
        };
        let op = match self.history.ends.get(&at.lsn.0) {
            Some(End::Failed) => return Ok(()),
            Some(End::Partial(done)) => op.part(done),
            None => op,
        };
        // What is gone at the stretch's end needs no bytes.
        if self.live.node(node)?.is_some() {
            round.data(node, op);
        }
        Ok(())
    }
}

impl Stretch {
    fn take(&mut self, lsn: Lsn, event: Event) {
        self.operations += 1;
        let round = &mut self.round;
        match event {
            Event::Adopt(e) => self.adopts.push((lsn, e)),
            Event::Make(e) => {
                // Told before its name: an object that is not known yet is recognised by the first one.
                round.make(e.node, e.what.kind(), Origin::Event(Box::new(e.clone())));
                touch(round, e.dir, &e.name, e.node);
            }
            Event::Remove(e) => {
                touch(round, e.dir, &e.name, e.node);
                if e.last {
                    round.gone(e.node, e.kind);
                }
            }
            Event::Rename(e) => {
                touch(round, e.from_dir, &e.from_name, e.node);
                touch(round, e.to_dir, &e.to_name, e.node);
                if let Some(replaced) = e.replaced {
                    touch(round, e.to_dir, &e.to_name, replaced.node);
                    if replaced.last {
                        round.gone(replaced.node, replaced.kind);
                    }
                }
            }
            Event::Link(e) => touch(round, e.dir, &e.name, e.node),
            _ => {}
        }
    }
}

fn touch(round: &mut Round, dir: NodeId, name: &[u8], node: NodeId) {
    round.touch_name(dir, name, None);
    round.placed(dir, name, node);
}

fn refused(failed: Vec<journal_format::event::CopyFailed>) -> Result<()> {
    let lines: Vec<String> = failed
        .iter()
        .take(LISTED_MAX)
        .map(|failed| format!("{}: {}", show::escape(&failed.path), failed.error))
        .collect();
    match lines.is_empty() {
        true => Ok(()),
        false => bail!("the tree refused what the journal holds ({} in all):\n  {}", failed.len(), lines.join("\n  ")),
    }
}

/// A filer's error with its source.
fn told(error: filer::Error) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// Names before the stretch, and those that were met since.
struct Met<'a> {
    live: &'a Live,
    names: BTreeMap<NodeId, (NodeId, Vec<u8>)>,
}

impl View for Met<'_> {
    fn entry(&self, dir: NodeId, name: &[u8]) -> tain::index::store::Result<Option<(NodeId, Kind)>> {
        View::entry(self.live, dir, name)
    }
    fn names(&self, node: NodeId, limit: usize) -> tain::index::store::Result<Vec<(NodeId, Vec<u8>)>> {
        match self.names.get(&node) {
            Some(name) => Ok(vec![name.clone()]),
            None => View::names(self.live, node, limit),
        }
    }
}
