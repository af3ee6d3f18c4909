//! The judge's file system: plain maps, folded from the journal's records with no code of the core's.
//!
//! Nodes have numbers of the model's own, since objects that were there before tain are met by it one by one; `Adopt`
//! says which node id an object has got.

use journal_format::event::{Event, PartDone, What};
use journal_format::ids::{Kind, Lsn, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The model's own number of an object.
pub type Nr = usize;

#[derive(Clone, Debug)]
pub struct Node {
    pub id: Option<NodeId>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub content: Vec<u8>,
    /// What may stand at a place instead of `content`: bytes of WRITEs that failed and may have had an effect all the
    /// same. Behind the end of `content` the file may be longer by them.
    pub unsure: BTreeMap<usize, Vec<u8>>,
    /// Where it may end instead, by SETATTRs that failed so.
    pub ends: BTreeSet<usize>,
    /// What it may have instead of its mode and owner (uid, gid), by SETATTRs that failed so.
    pub modes: BTreeSet<u32>,
    pub owners: BTreeSet<(u32, u32)>,
    pub target: Vec<u8>,
    pub rdev: (u32, u32),
    pub entries: BTreeMap<Vec<u8>, Nr>,
}

impl Node {
    #[must_use]
    pub fn new(kind: Kind, mode: u32, uid: u32, gid: u32) -> Self {
        Self {
            id: None,
            kind,
            mode,
            uid,
            gid,
            mtime: Time(0),
            content: Vec::new(),
            unsure: BTreeMap::new(),
            ends: BTreeSet::new(),
            modes: BTreeSet::new(),
            owners: BTreeSet::new(),
            target: Vec::new(),
            rdev: (0, 0),
            entries: BTreeMap::new(),
        }
    }
}

impl Node {
    /// Whether a file may have these bytes.
    #[must_use]
    pub fn may_be(&self, bytes: &[u8]) -> bool {
        let may_end = self.unsure.last_key_value().map_or(0, |(at, _)| at + 1).max(self.content.len());
        let may_end_there = (self.content.len()..=may_end).contains(&bytes.len()) || self.ends.contains(&bytes.len());
        may_end_there
            && bytes.iter().enumerate().all(|(at, byte)| {
                *byte == self.content.get(at).copied().unwrap_or(0)
                    || self.unsure.get(&at).is_some_and(|may_be| may_be.contains(byte))
            })
    }

    /// Whether it may have this mode and owner.
    #[must_use]
    pub fn may_have(&self, mode: u32, owner: (u32, u32)) -> bool {
        (mode == self.mode || self.modes.contains(&mode))
            && (owner == (self.uid, self.gid) || self.owners.contains(&owner))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.content.resize(self.content.len().max(at + bytes.len()), 0);
        self.content[at..at + bytes.len()].copy_from_slice(bytes);
        self.unsure.retain(|place, _| !(at..at + bytes.len()).contains(place));
        self.ends = self.ends.iter().map(|end| (*end).max(at + bytes.len())).collect();
    }

    fn may_have_put(&mut self, at: usize, bytes: &[u8]) {
        for (place, byte) in (at..).zip(bytes) {
            self.unsure.entry(place).or_default().push(*byte);
        }
    }

    fn may_have_cut(&mut self, size: usize) {
        let len = self.content.len();
        if size < len {
            self.may_have_put(size, &vec![0; len - size]);
            self.ends.insert(size);
        } else if size > len {
            self.may_have_put(size - 1, &[0]);
        }
    }

    fn cut(&mut self, size: usize) {
        self.ends.clear();
        // What a grown file has there are zeros, unless a failed WRITE had made it longer before.
        self.unsure.retain(|place, _| *place < size);
        self.content.resize(size, 0);
    }
}

/// How an operation ended otherwise than done, by its LSN.
pub type Ends = BTreeMap<Lsn, Option<PartDone>>;

pub fn note_end(ends: &mut Ends, event: &Event) {
    match event {
        Event::Failed(e) => drop(ends.insert(e.op, None)),
        Event::Partial(e) => drop(ends.insert(e.op, Some(e.done.clone()))),
        _ => {}
    }
}

#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: Vec<Node>,
    by_id: BTreeMap<NodeId, Nr>,
}

/// The journal says what cannot be.
pub type Wrong = String;

pub const ROOT: Nr = 0;

impl Model {
    /// What is on the filer before there is a junction; number 0 is the root.
    #[must_use]
    pub fn new(nodes: Vec<Node>) -> Self {
        Self { nodes, by_id: BTreeMap::new() }
    }

    #[must_use]
    pub fn by_id(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(*self.by_id.get(&id)?)
    }

    fn nr(&self, id: NodeId) -> Result<Nr, Wrong> {
        self.by_id.get(&id).copied().ok_or_else(|| format!("node {id} is used and was never given out"))
    }

    fn of(&mut self, id: NodeId) -> Result<&mut Node, Wrong> {
        let nr = self.nr(id)?;
        Ok(&mut self.nodes[nr])
    }

    fn name(&mut self, nr: Nr, id: NodeId) -> Result<(), Wrong> {
        if self.by_id.insert(id, nr).is_some_and(|old| old != nr) {
            return Err(format!("node id {id} was given out twice"));
        }
        match self.nodes[nr].id.replace(id) {
            Some(old) if old != id => Err(format!("an object has two node ids, {old} and {id}")),
            _ => Ok(()),
        }
    }

    fn put(&mut self, dir: NodeId, name: &[u8], nr: Nr) -> Result<(), Wrong> {
        let dir = self.of(dir)?;
        match dir.entries.insert(name.to_vec(), nr) {
            Some(old) if old != nr => Err(format!("{:?} is given and was not free", String::from_utf8_lossy(name))),
            _ => Ok(()),
        }
    }

    fn take(&mut self, dir: NodeId, name: &[u8], id: NodeId) -> Result<Nr, Wrong> {
        let nr = self.nr(id)?;
        let dir = self.of(dir)?;
        match dir.entries.remove(name) {
            Some(there) if there == nr => Ok(nr),
            _ => Err(format!("{:?} does not lead to node {id}, from which it is taken", String::from_utf8_lossy(name))),
        }
    }

    /// `end`: how the operation ended, if not done.
    pub fn apply(
        &mut self,
        time: Time,
        event: &Event,
        bulk: &[u8],
        end: Option<&Option<PartDone>>,
    ) -> Result<(), Wrong> {
        let part = match end {
            Some(None) => return Ok(()),
            Some(Some(part)) => Some(part),
            None => None,
        };
        match event {
            Event::JunctionAdded(e) => self.name(ROOT, e.root)?,
            Event::Adopt(e) => {
                for adopted in &e.entries {
                    let dir = self.nr(e.dir)?;
                    let Some(nr) = self.nodes[dir].entries.get(&adopted.name).copied() else {
                        return Err(format!(
                            "{:?} is adopted and is not there",
                            String::from_utf8_lossy(&adopted.name)
                        ));
                    };
                    if self.nodes[nr].id.is_none() {
                        self.nodes[nr].mtime = adopted.mtime;
                    }
                    self.name(nr, adopted.node)?;
                }
            }
            Event::Write(e) => {
                let done = match part {
                    Some(PartDone::Bytes(n)) => usize::try_from(*n).unwrap_or(0).min(bulk.len()),
                    _ => bulk.len(),
                };
                let whole = part.is_none();
                let node = self.of(e.node)?;
                let at = usize::try_from(e.offset).map_err(|e| e.to_string())?;
                if done > 0 {
                    node.put(at, &bulk[..done]);
                }
                node.may_have_put(at + done, &bulk[done..]);
                if !whole {
                    node.modes.extend(e.mode);
                    if done == 0 {
                        return Ok(()); // of its time nothing shows
                    }
                }
                if let Some(mode) = e.mode.filter(|_| whole) {
                    (node.mode, node.modes) = (mode, BTreeSet::new());
                }
                node.mtime = time;
            }
            Event::SetAttr(e) => self.set(time, e, part)?,
            Event::Make(e) => {
                let kind = e.what.kind();
                let mut node = Node::new(kind, if kind == Kind::Symlink { 0o777 } else { e.mode }, e.uid, e.gid);
                node.mtime = e.mtime.unwrap_or(time);
                match &e.what {
                    What::File => node.content.resize(usize::try_from(e.size).unwrap_or(0), 0),
                    What::Symlink { target } => node.target.clone_from(target),
                    What::Char { major, minor } | What::Block { major, minor } => node.rdev = (*major, *minor),
                    What::Dir | What::Fifo | What::Socket => {}
                }
                self.nodes.push(node);
                let nr = self.nodes.len() - 1;
                self.name(nr, e.node)?;
                self.put(e.dir, &e.name, nr)?;
                self.of(e.dir)?.mtime = time;
            }
            Event::Remove(e) => {
                self.take(e.dir, &e.name, e.node)?;
                self.of(e.dir)?.mtime = time;
                self.check_last(e.node, e.last)?;
            }
            Event::Rename(e) => {
                if let Some(replaced) = e.replaced {
                    self.take(e.to_dir, &e.to_name, replaced.node)?;
                    self.check_last(replaced.node, replaced.last)?;
                }
                let nr = self.take(e.from_dir, &e.from_name, e.node)?;
                self.put(e.to_dir, &e.to_name, nr)?;
                self.of(e.from_dir)?.mtime = time;
                self.of(e.to_dir)?.mtime = time;
            }
            Event::Link(e) => {
                let nr = self.nr(e.node)?;
                self.put(e.dir, &e.name, nr)?;
                self.of(e.dir)?.mtime = time;
            }
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, time: Time, e: &journal_format::event::SetAttr, part: Option<&PartDone>) -> Result<(), Wrong> {
        let (m, o, s, t) = match part {
            Some(PartDone::Attrs { mode, owner, size, times }) => (*mode, *owner, *size, *times),
            _ => (true, true, true, true),
        };
        let node = self.of(e.node)?;
        if let Some(mode) = e.mode.filter(|_| node.kind != Kind::Symlink) {
            if m {
                (node.mode, node.modes) = (mode, BTreeSet::new());
            } else {
                node.modes.insert(mode);
            }
        }
        let owner = (e.uid.unwrap_or(node.uid), e.gid.unwrap_or(node.gid));
        if o {
            if e.uid.is_some() || e.gid.is_some() {
                node.owners.clear();
            }
            (node.uid, node.gid) = owner;
        } else {
            node.owners.insert(owner);
        }
        if let Some(size) = e.size {
            let size = usize::try_from(size).map_err(|e| e.to_string())?;
            if s {
                node.cut(size);
                node.mtime = time;
            } else {
                node.may_have_cut(size);
            }
        }
        node.mtime = e.mtime.filter(|_| t).unwrap_or(node.mtime);
        Ok(())
    }

    /// Does the journal say rightly whether that was the node's last name?
    fn check_last(&self, id: NodeId, last: bool) -> Result<(), Wrong> {
        let nr = self.nr(id)?;
        let named = self.nodes.iter().any(|node| node.entries.values().any(|there| *there == nr));
        if named == last {
            return Err(format!("node {id} loses a name, last: {last}, and has another: {named}"));
        }
        Ok(())
    }

    /// Paths of everything that has a name, depth first by name.
    #[must_use]
    pub fn paths(&self) -> Vec<(Vec<u8>, Nr)> {
        let mut paths = vec![(Vec::new(), ROOT)];
        let mut next = 0;
        while let Some((path, nr)) = paths.get(next).cloned() {
            for (name, below) in &self.nodes[nr].entries {
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(name);
                paths.push((path, *below));
            }
            next += 1;
        }
        paths
    }
}
