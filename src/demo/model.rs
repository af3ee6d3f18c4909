//! What a tree must look like: a plain tree in memory, changed by the same calls that are sent to the service. It
//! predicts names, kinds, sizes, bytes, modes, owners, links; handles, fileids and times it learns when it first sees
//! them, and from then on they may change only when a call of its own changes them.
//!
//! Bytes are kept as extents with a seed, so its memory grows with names and writes, not with data.

use super::content::Extents;
use super::nfs::{Attr, Fh, Kind, Nanos};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A node of one [`Tree`]; never used again.
pub type Nid = u32;
pub const ROOT: Nid = 0;

/// What is known of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamp {
    #[default]
    Unknown,
    /// A call has changed it and did not say to what: not before this.
    AtLeast(Nanos),
    Exactly(Nanos),
}

impl Stamp {
    fn floor(self) -> Nanos {
        match self {
            Stamp::Unknown => Nanos::MIN,
            Stamp::AtLeast(t) | Stamp::Exactly(t) => t,
        }
    }

    /// A call changes it; the next look tells to what.
    pub fn loosen(&mut self) {
        *self = match *self {
            Stamp::Unknown => Stamp::Unknown,
            Stamp::AtLeast(t) | Stamp::Exactly(t) => Stamp::AtLeast(t),
        };
    }

    pub fn raise(&mut self, to: Nanos) {
        *self = Stamp::AtLeast(self.floor().max(to));
    }

    fn see(&mut self, what: &str, seen: Nanos) -> Result<(), String> {
        match *self {
            Stamp::Exactly(t) if t != seen => Err(format!("{what} {seen} where {t} was seen before")),
            Stamp::AtLeast(t) if seen < t => Err(format!("{what} {seen} went back from {t}")),
            Stamp::Unknown | Stamp::AtLeast(_) | Stamp::Exactly(_) => {
                *self = Stamp::Exactly(seen);
                Ok(())
            }
        }
    }
}

#[derive(Clone, Debug)]
pub enum Body {
    File {
        size: u64,
        data: Extents,
    },
    Dir {
        entries: BTreeMap<Bytes, Nid>,
        parent: Nid,
    },
    Symlink {
        target: Bytes,
    },
    /// Fifo, socket, device.
    Other(Kind),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub body: Body,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Every name it has; the root has none.
    pub names: Vec<(Nid, Bytes)>,
    pub mtime: Stamp,
    pub ctime: Stamp,
    pub fh: Option<Fh>,
    pub fileid: Option<u64>,
    /// Its contents are in another tree: walkers see that it is a directory and stay out.
    pub elsewhere: bool,
}

impl Node {
    pub fn kind(&self) -> Kind {
        match &self.body {
            Body::File { .. } => Kind::File,
            Body::Dir { .. } => Kind::Dir,
            Body::Symlink { .. } => Kind::Symlink,
            Body::Other(kind) => *kind,
        }
    }

    pub fn size(&self) -> Option<u64> {
        match &self.body {
            Body::File { size, .. } => Some(*size),
            Body::Symlink { target } => Some(target.len() as u64),
            Body::Dir { .. } | Body::Other(_) => None,
        }
    }

    /// Attributes must be what they are to be. Times and fileid are learned where they are open.
    pub fn see(&mut self, a: &Attr) -> Result<(), String> {
        let want = |what: &str, wanted: u64, got: u64| {
            if wanted == got { Ok(()) } else { Err(format!("{what} {got} where {wanted} was due")) }
        };
        if a.kind != self.kind() {
            return Err(format!("kind {:?} where {:?} was due", a.kind, self.kind()));
        }
        let fileid = *self.fileid.get_or_insert(a.fileid);
        want("fileid", fileid, a.fileid)?;
        if self.elsewhere {
            return Ok(());
        }
        want("mode", u64::from(self.mode), u64::from(a.mode))?;
        want("uid", u64::from(self.uid), u64::from(a.uid))?;
        want("gid", u64::from(self.gid), u64::from(a.gid))?;
        if let Some(size) = self.size() {
            want("size", size, a.size)?;
        }
        if !matches!(self.body, Body::Dir { .. }) {
            want("nlink", self.names.len() as u64, u64::from(a.nlink))?;
        }
        self.mtime.see("mtime", a.mtime)?;
        self.ctime.see("ctime", a.ctime)
    }
}

#[derive(Clone, Debug)]
pub struct New {
    pub body: Body,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a call that succeeded did.
#[derive(Clone, Debug)]
pub enum Change {
    Make { dir: Nid, name: Bytes, node: Nid, new: Box<New> },
    Write { node: Nid, offset: u64, len: u32, seed: u64 },
    SetAttr { node: Nid, mode: Option<u32>, owner: Option<(u32, u32)>, size: Option<u64>, mtime: Option<Nanos> },
    Remove { dir: Nid, name: Bytes },
    Rename { from: Nid, name: Bytes, to: Nid, new: Bytes },
    Link { node: Nid, dir: Nid, name: Bytes },
}

impl Change {
    /// A call that did this has left an event; others may have had nothing to do.
    pub fn leaves_event(&self) -> bool {
        match self {
            Self::Make { .. } | Self::Remove { .. } | Self::Link { .. } => true,
            Self::Write { len, .. } => *len > 0,
            Self::SetAttr { .. } | Self::Rename { .. } => false,
        }
    }
}

/// One call that changed something, as it is kept for the model of an earlier moment.
#[derive(Clone, Debug)]
pub struct Logged {
    /// All it was sent under.
    pub xids: Vec<u32>,
    pub change: Change,
    /// Modification times afterwards, as the reply told them.
    pub mtimes: Vec<(Nid, Nanos)>,
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<Nid, Node>,
    next: Nid,
}

impl Tree {
    pub fn new(mode: u32, uid: u32, gid: u32) -> Self {
        let body = Body::Dir { entries: BTreeMap::new(), parent: ROOT };
        let mut tree = Self { nodes: BTreeMap::new(), next: 1 };
        tree.nodes.insert(ROOT, node(New { body, mode, uid, gid }));
        tree
    }

    /// A number for the next [`Change::Make`].
    pub fn take_nid(&mut self) -> Nid {
        let nid = self.next;
        self.next += 1;
        nid
    }

    pub fn nid_end(&self) -> Nid {
        self.next
    }

    pub fn get(&self, nid: Nid) -> &Node {
        &self.nodes[&nid]
    }

    pub fn get_mut(&mut self, nid: Nid) -> &mut Node {
        self.nodes.get_mut(&nid).expect("a nid that its tree has handed out and not taken back")
    }

    pub fn entries(&self, dir: Nid) -> &BTreeMap<Bytes, Nid> {
        match &self.get(dir).body {
            Body::Dir { entries, .. } => entries,
            Body::File { .. } | Body::Symlink { .. } | Body::Other(_) => panic!("model: {dir} is no directory"),
        }
    }

    pub fn child(&self, dir: Nid, name: &[u8]) -> Option<Nid> {
        self.entries(dir).get(name).copied()
    }

    pub fn is_dir(&self, nid: Nid) -> bool {
        matches!(self.get(nid).body, Body::Dir { .. })
    }

    /// `nid` is `above` or lies below it.
    pub fn is_within(&self, mut nid: Nid, above: Nid) -> bool {
        loop {
            if nid == above {
                return true;
            }
            match &self.get(nid).body {
                Body::Dir { parent, .. } if nid != ROOT => nid = *parent,
                _ => return false,
            }
        }
    }

    /// Names from the root down to `nid`, by its first name.
    pub fn path(&self, mut nid: Nid) -> Vec<u8> {
        let mut names = Vec::new();
        while let Some((dir, name)) = self.get(nid).names.first() {
            names.push(name.clone());
            nid = *dir;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Make something at once; for building.
    pub fn add(&mut self, dir: Nid, name: &[u8], new: New) -> Nid {
        let nid = self.take_nid();
        let name = Bytes::copy_from_slice(name);
        self.apply(&Change::Make { dir, name, node: nid, new: Box::new(new) });
        nid
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Make { dir, name, node: nid, new } => {
                let mut new = node((**new).clone());
                if let Body::Dir { parent, .. } = &mut new.body {
                    *parent = *dir;
                }
                self.next = self.next.max(nid + 1);
                self.nodes.insert(*nid, new);
                self.put(*dir, name.clone(), *nid);
            }
            Change::Write { node, offset, len, seed } => {
                if let Body::File { size, data } = &mut self.get_mut(*node).body {
                    let end = offset + u64::from(*len);
                    data.write(*offset, end, *seed);
                    *size = (*size).max(end);
                }
            }
            Change::SetAttr { node, mode, owner, size, mtime } => self.set_attr(*node, *mode, *owner, *size, *mtime),
            Change::Remove { dir, name } => self.take(*dir, name),
            Change::Rename { from, name, to, new } => self.rename(*from, name, *to, new),
            Change::Link { node, dir, name } => {
                self.get_mut(*node).ctime.loosen();
                self.put(*dir, name.clone(), *node);
            }
        }
    }

    /// Apply what was logged, with the times that were seen.
    pub fn replay(&mut self, logged: &Logged) {
        self.apply(&logged.change);
        let exact = matches!(logged.change, Change::SetAttr { mtime: Some(_), .. });
        for (nid, mtime) in &logged.mtimes {
            if let Some(node) = self.nodes.get_mut(nid) {
                let mtime = if exact { *mtime } else { node.mtime.floor().max(*mtime) };
                node.mtime = Stamp::Exactly(mtime);
            }
        }
    }

    fn set_attr(
        &mut self,
        nid: Nid,
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
        new_size: Option<u64>,
        mtime: Option<Nanos>,
    ) {
        let node = self.get_mut(nid);
        node.ctime.loosen();
        node.mode = mode.unwrap_or(node.mode);
        (node.uid, node.gid) = owner.unwrap_or((node.uid, node.gid));
        if let (Some(new), Body::File { size, data }) = (new_size, &mut node.body) {
            data.truncate(new);
            *size = new;
            node.mtime.loosen();
        }
        if let Some(t) = mtime {
            node.mtime = Stamp::Exactly(t);
        }
    }

    fn rename(&mut self, from: Nid, name: &Bytes, to: Nid, new: &Bytes) {
        let Some(nid) = self.child(from, name) else { return };
        if self.child(to, new) == Some(nid) {
            return; // two names of one file, or one name: nothing happens
        }
        if self.child(to, new).is_some() {
            self.take(to, new);
        }
        self.entries_mut(from).remove(name);
        self.get_mut(nid).names.retain(|(d, n)| !(*d == from && n == name));
        self.get_mut(nid).ctime.loosen();
        self.touch(from);
        self.put(to, new.clone(), nid);
    }

    fn put(&mut self, dir: Nid, name: Bytes, nid: Nid) {
        self.entries_mut(dir).insert(name.clone(), nid);
        self.touch(dir);
        let node = self.get_mut(nid);
        node.names.push((dir, name));
        if let Body::Dir { parent, .. } = &mut node.body {
            *parent = dir;
        }
    }

    /// Take a name away, and the node with its last one.
    fn take(&mut self, dir: Nid, name: &Bytes) {
        if let Some(nid) = self.entries_mut(dir).remove(name) {
            self.touch(dir);
            let node = self.get_mut(nid);
            node.names.retain(|(d, n)| !(*d == dir && n == name));
            node.ctime.loosen();
            if node.names.is_empty() {
                self.nodes.remove(&nid);
            }
        }
    }

    fn touch(&mut self, dir: Nid) {
        let node = self.get_mut(dir);
        node.mtime.loosen();
        node.ctime.loosen();
    }

    fn entries_mut(&mut self, dir: Nid) -> &mut BTreeMap<Bytes, Nid> {
        match &mut self.get_mut(dir).body {
            Body::Dir { entries, .. } => entries,
            Body::File { .. } | Body::Symlink { .. } | Body::Other(_) => panic!("model: {dir} is no directory"),
        }
    }
}

fn node(new: New) -> Node {
    Node {
        body: new.body,
        mode: new.mode,
        uid: new.uid,
        gid: new.gid,
        names: Vec::new(),
        mtime: Stamp::Unknown,
        ctime: Stamp::Unknown,
        fh: None,
        fileid: None,
        elsewhere: false,
    }
}

pub fn new_file() -> Body {
    Body::File { size: 0, data: Extents::default() }
}

pub fn new_dir() -> Body {
    Body::Dir { entries: BTreeMap::new(), parent: ROOT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(body: Body) -> New {
        New { body, mode: 0o644, uid: 0, gid: 0 }
    }

    #[test]
    fn a_rename_over_a_file_takes_its_name_and_its_last_name_takes_the_node() {
        let mut t = Tree::new(0o755, 0, 0);
        let a = t.add(ROOT, b"a", new(new_file()));
        let b = t.add(ROOT, b"b", new(new_file()));
        let b2: Bytes = Bytes::from_static(b"b2");
        t.apply(&Change::Link { node: b, dir: ROOT, name: b2.clone() });
        let (na, nb) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        t.apply(&Change::Rename { from: ROOT, name: na.clone(), to: ROOT, new: nb.clone() });
        assert_eq!(t.child(ROOT, b"b"), Some(a));
        assert_eq!(t.child(ROOT, b"a"), None);
        assert_eq!(t.get(b).names, vec![(ROOT, b2.clone())]);
        t.apply(&Change::Remove { dir: ROOT, name: b2 });
        assert!(!t.nodes.contains_key(&b));
    }

    #[test]
    fn renaming_one_name_of_a_file_onto_another_does_nothing() {
        let mut t = Tree::new(0o755, 0, 0);
        let a = t.add(ROOT, b"a", new(new_file()));
        let (na, nb) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        t.apply(&Change::Link { node: a, dir: ROOT, name: nb.clone() });
        t.apply(&Change::Rename { from: ROOT, name: na, to: ROOT, new: nb });
        assert_eq!(t.entries(ROOT).len(), 2);
        assert_eq!(t.get(a).names.len(), 2);
    }

    #[test]
    fn a_time_that_no_call_changed_must_stay() {
        let mut s = Stamp::Unknown;
        s.see("mtime", 5).unwrap();
        s.see("mtime", 5).unwrap();
        assert!(s.see("mtime", 6).is_err());
        s.loosen();
        assert!(s.see("mtime", 4).is_err());
        s.see("mtime", 6).unwrap();
    }
}
