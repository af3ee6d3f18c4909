//! A tree built from the journal alone: every event of clients, in LSN order, done to a shadow of the junction on this
//! machine. What a left-behind side must be at its switch is what the shadow is when the switch's event comes by.
//!
//! It knows only events of one junction. What lay there before is taken, as the journal says that it was met, from a
//! copy that the test made beforehand. Each node's bytes are a file of its own under its node id, so a rename is nothing
//! but a change of names here.

use journal_format::event::{Event, What};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

struct Node {
    what: What,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    links: u64,
    entries: BTreeMap<Vec<u8>, u64>,
}

pub struct Shadow {
    dir: PathBuf,
    root: u64,
    nodes: HashMap<u64, Node>,
    /// Names made that begin with `mark.`: their LSNs.
    pub marks: HashMap<Vec<u8>, u64>,
    pub switches: Vec<u64>,
    /// Differences of a side, found at its switch.
    pub bad: Vec<String>,
    /// Sides in the order in which they are left.
    sides: Vec<PathBuf>,
    /// Where the copy of each node lies that was there before the junction was.
    before: HashMap<u64, PathBuf>,
    /// Nodes that were met.
    pub adopted: usize,
    original: PathBuf,
}

impl Shadow {
    /// `original` is a copy of the junction as it was before the service knew it.
    pub fn new(dir: PathBuf, sides: Vec<PathBuf>, original: PathBuf) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let (nodes, marks, before) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (switches, bad) = (Vec::new(), Vec::new());
        Self { dir, root: 0, nodes, marks, switches, bad, sides, before, adopted: 0, original }
    }

    pub fn take(&mut self, event: &Event, bulk: &[u8], lsn: u64, time: i64) -> Result<(), String> {
        match event {
            Event::JunctionAdded(e) => {
                self.root = e.root.0;
                self.nodes.insert(self.root, node(What::Dir, 0o755, 0, 0, 0));
                self.before.insert(self.root, self.original.clone());
            }
            Event::Adopt(e) => {
                let dir = self.before.get(&e.dir.0).cloned();
                for entry in &e.entries {
                    let dir = dir.as_ref().ok_or("something was met in a directory that was made empty")?;
                    self.adopt(e.dir.0, &entry.name, entry.node.0, &dir.join(OsStr::from_bytes(&entry.name)))?;
                }
            }
            Event::Failed(e) => return Err(format!("the operation at {} failed: a shadow cannot undo", e.op.0)),
            Event::Partial(e) => return Err(format!("the operation at {} was done in part", e.op.0)),
            Event::Make(e) => {
                if e.name.starts_with(b"mark.") {
                    self.marks.insert(e.name.clone(), lsn);
                }
                let mtime = e.mtime.map_or(time, |t| t.0);
                self.nodes.insert(e.node.0, node(e.what.clone(), e.mode, e.uid, e.gid, mtime));
                if e.what == What::File {
                    self.file(e.node.0)?.set_len(e.size).map_err(text)?;
                }
                self.put(e.dir.0, &e.name, e.node.0, time)?;
            }
            Event::Write(e) => {
                self.file(e.node.0)?.write_all_at(bulk, e.offset).map_err(text)?;
                let node = self.node(e.node.0)?;
                node.mtime = time;
                node.mode = e.mode.unwrap_or(node.mode);
            }
            Event::SetAttr(e) => {
                if let Some(size) = e.size {
                    self.file(e.node.0)?.set_len(size).map_err(text)?;
                }
                let node = self.node(e.node.0)?;
                node.mode = e.mode.unwrap_or(node.mode);
                node.uid = e.uid.unwrap_or(node.uid);
                node.gid = e.gid.unwrap_or(node.gid);
                let sized = e.size.map(|_| time);
                node.mtime = e.mtime.map(|t| t.0).or(sized).unwrap_or(node.mtime);
            }
            Event::Remove(e) => self.take_name(e.dir.0, &e.name, time)?,
            Event::Rename(e) => {
                if e.replaced.is_some() {
                    self.take_name(e.to_dir.0, &e.to_name, time)?;
                }
                let from = self.node(e.from_dir.0)?;
                from.mtime = time;
                from.entries.remove(&e.from_name);
                self.node(e.node.0)?.links -= 1;
                self.put(e.to_dir.0, &e.to_name, e.node.0, time)?;
            }
            Event::Link(e) => self.put(e.dir.0, &e.name, e.node.0, time)?,
            Event::JunctionSwitched(_) => {
                let side = self.sides.get(self.switches.len()).cloned().ok_or("a switch too many")?;
                self.switches.push(lsn);
                self.compare(&side);
            }
            _ => {}
        }
        Ok(())
    }

    fn node(&mut self, id: u64) -> Result<&mut Node, String> {
        self.nodes.get_mut(&id).ok_or_else(|| format!("node {id} is used and was never made"))
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn file(&self, id: u64) -> Result<File, String> {
        File::options().create(true).truncate(false).write(true).open(self.path(id)).map_err(text)
    }

    fn put(&mut self, dir: u64, name: &[u8], id: u64, time: i64) -> Result<(), String> {
        let node = self.node(dir)?;
        node.mtime = time;
        if node.entries.insert(name.to_vec(), id).is_some() {
            return Err(format!("{} was there already", name.escape_ascii()));
        }
        self.node(id)?.links += 1;
        Ok(())
    }

    fn adopt(&mut self, dir: u64, name: &[u8], id: u64, copy: &Path) -> Result<(), String> {
        if !self.nodes.contains_key(&id) {
            let meta = std::fs::symlink_metadata(copy).map_err(|e| format!("{} was met: {e}", copy.display()))?;
            let what = if meta.is_symlink() {
                let target = std::fs::read_link(copy).map_err(text)?;
                What::Symlink { target: target.into_os_string().into_encoded_bytes() }
            } else if meta.is_dir() {
                What::Dir
            } else if meta.is_file() {
                std::fs::copy(copy, self.path(id)).map_err(text)?;
                What::File
            } else {
                return Err(format!("{}: a kind that the test does not make", copy.display()));
            };
            let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            self.nodes.insert(id, node(what, meta.mode() & 0o7777, meta.uid(), meta.gid(), mtime));
            self.before.insert(id, copy.to_path_buf());
            self.adopted += 1;
        }
        if self.node(dir)?.entries.insert(name.to_vec(), id).is_some() {
            return Err(format!("{} was met twice", name.escape_ascii()));
        }
        self.node(id)?.links += 1;
        Ok(())
    }

    fn take_name(&mut self, dir: u64, name: &[u8], time: i64) -> Result<(), String> {
        let node = self.node(dir)?;
        node.mtime = time;
        let id = node.entries.remove(name).ok_or_else(|| format!("{} was not there", name.escape_ascii()))?;
        let node = self.node(id)?;
        node.links -= 1;
        if node.links == 0 {
            self.nodes.remove(&id);
            let _ = std::fs::remove_file(self.path(id));
        }
        Ok(())
    }

    /// A directory on this machine against the shadow as it is now.
    pub fn compare(&mut self, side: &Path) {
        let mut bad = Vec::new();
        let mut inodes = HashMap::new();
        self.compare_dir(side, self.root, true, &mut inodes, &mut bad);
        self.bad.extend(bad.into_iter().map(|b| format!("{}: {b}", side.display())));
    }

    fn compare_dir(&self, path: &Path, id: u64, top: bool, inodes: &mut HashMap<u64, u64>, bad: &mut Vec<String>) {
        let hidden = [&b".tain-pen"[..], b".tain-owner"];
        let mut due: BTreeMap<&[u8], u64> = self.nodes[&id].entries.iter().map(|(n, i)| (&n[..], *i)).collect();
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if top && hidden.contains(&name.as_bytes()) {
                continue;
            }
            match due.remove(name.as_bytes()) {
                Some(child) => self.compare_node(&entry.path(), child, inodes, bad),
                None => bad.push(format!("{} should not be there", entry.path().display())),
            }
        }
        bad.extend(due.keys().map(|n| format!("{} is missing in {}", n.escape_ascii(), path.display())));
    }

    fn compare_node(&self, path: &Path, id: u64, inodes: &mut HashMap<u64, u64>, bad: &mut Vec<String>) {
        let node = &self.nodes[&id];
        let meta = std::fs::symlink_metadata(path).unwrap();
        let mut check = |what: &str, ok: bool| {
            if !ok {
                bad.push(format!("{}: {what} is not what the journal says", path.display()));
            }
        };
        check("owner", (meta.uid(), meta.gid()) == (node.uid, node.gid));
        check("mtime", meta.mtime() * 1_000_000_000 + meta.mtime_nsec() == node.mtime);
        match &node.what {
            What::Dir => check("kind", meta.is_dir()),
            What::File => {
                check("kind", meta.is_file());
                check("links", meta.nlink() == node.links);
                check("identity", *inodes.entry(id).or_insert(meta.ino()) == meta.ino());
                check("bytes", std::fs::read(path).unwrap() == std::fs::read(self.path(id)).unwrap());
            }
            What::Symlink { target } => {
                check("text", std::fs::read_link(path).is_ok_and(|t| t.as_os_str().as_bytes() == target));
            }
            _ => {}
        }
        if !meta.is_symlink() {
            check("mode", meta.permissions().mode() & 0o7777 == node.mode);
        }
        if meta.is_dir() && node.what == What::Dir {
            self.compare_dir(path, id, false, inodes, bad);
        }
    }
}

fn node(what: What, mode: u32, uid: u32, gid: u32, mtime: i64) -> Node {
    Node { what, mode, uid, gid, mtime, links: 0, entries: BTreeMap::new() }
}

fn text(e: std::io::Error) -> String {
    e.to_string()
}
