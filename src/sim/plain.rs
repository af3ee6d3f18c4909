//! A small file system of paths, which knows what a workload makes of it without any journal.

use crate::filer::memory::{Found, Memory};
use crate::filer::{CoreFiler, MakeAttrs, Object};
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::Kind;
use std::collections::BTreeMap;

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Write {
        path: &'static str,
        at: u64,
        len: u64,
    },
    Truncate {
        path: &'static str,
        size: u64,
    },
    Create(&'static str),
    Mkdir(&'static str),
    Remove(&'static str),
    Rmdir(&'static str),
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    /// COMMIT, and a checkpoint.
    Commit(&'static str),
}

/// What workloads are made of: `a` and `b` are files, `d` is a directory; `c`, `d/a` and `e` are free.
pub const OPS: &[Op] = &[
    Op::Write { path: "a", at: 0, len: 5000 },
    Op::Write { path: "a", at: 6000, len: 5000 },
    Op::Write { path: "c", at: 100, len: 300 },
    Op::Rename("a", "b"),
    Op::Rename("a", "c"),
    Op::Rename("c", "a"),
    Op::Rename("a", "d/a"),
    Op::Rename("d/a", "b"),
    Op::Rename("d", "e"),
    Op::Create("c"),
    Op::Create("d/a"),
    Op::Remove("a"),
    Op::Remove("c"),
    Op::Rmdir("d"),
    Op::Truncate { path: "a", size: 100 },
    Op::Truncate { path: "a", size: 20_000 },
    Op::Commit("b"),
    Op::Link("a", "c"),
    Op::Link("a", "d/a"),
    Op::Mkdir("e"),
    Op::Mkdir("c"),
];

impl Op {
    /// Bytes that say which operation wrote them, and where.
    #[must_use]
    pub fn data(nth: usize, at: u64, len: u64) -> Vec<u8> {
        let byte = |at: u64| u8::try_from((nth as u64 + 2) * 32 + (at / 512) % 32).unwrap_or(255);
        (at..at + len).map(byte).collect()
    }

    /// How many bytes a client is told.
    #[must_use]
    pub fn bytes(self) -> u32 {
        if let Self::Write { len, .. } = self { u32::try_from(len).unwrap_or(0) } else { 0 }
    }

    /// Success without a record would be a lie.
    #[must_use]
    pub fn is_journaled(self) -> bool {
        !matches!(self, Self::Commit(_))
    }
}

/// Names, and the files' bytes by number.
#[derive(Clone, Debug)]
pub struct Plain {
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

/// What a path shows: of a file its bytes and the first of its names.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    Dir,
    File { bytes: Vec<u8>, first: String },
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::File { bytes, first } = self else { return f.write_str("dir") };
        write!(f, "file {first} of {}: {:02x?}…", bytes.len(), bytes.iter().step_by(512).collect::<Vec<_>>())
    }
}

impl Plain {
    /// What is there before the first operation.
    #[must_use]
    pub fn base() -> Self {
        let files = vec![vec![0x41; 6000], vec![0x42; 100]];
        let names = [("a", Node::File(0)), ("b", Node::File(1)), ("d", Node::Dir)];
        Self { files, names: names.into_iter().map(|(name, node)| (name.to_owned(), node)).collect() }
    }

    /// # Errors
    /// A filer that refuses.
    pub async fn put_on(&self, memory: &Memory, attrs: MakeAttrs) -> crate::filer::Result<()> {
        let root: Object = memory.root().await?;
        for (name, node) in &self.names {
            match node {
                Node::Dir => drop(memory.make(&root, name.as_bytes(), &What::Dir, attrs).await?),
                Node::File(n) => {
                    let file = memory.make(&root, name.as_bytes(), &What::File, attrs).await?;
                    memory.write(&file, 0, Bytes::from(self.files[*n].clone())).await?;
                }
            }
        }
        memory.sync().await
    }

    /// Do it, if it can be done.
    pub fn apply(&mut self, op: Op, nth: usize) -> bool {
        match op {
            Op::Write { path, at, len } => {
                let (from, to) = (usize::try_from(at).unwrap_or(0), usize::try_from(at + len).unwrap_or(0));
                self.file(path).is_some_and(|file| {
                    file.resize(file.len().max(to), 0);
                    file[from..to].copy_from_slice(&Op::data(nth, at, len));
                    true
                })
            }
            Op::Truncate { path, size } => self.file(path).is_some_and(|file| {
                file.resize(usize::try_from(size).unwrap_or(0), 0);
                true
            }),
            Op::Create(path) => {
                self.files.push(Vec::new());
                self.give(path, Node::File(self.files.len() - 1))
            }
            Op::Mkdir(path) => self.give(path, Node::Dir),
            Op::Remove(path) => self.file(path).is_some() && self.names.remove(path).is_some(),
            Op::Rmdir(path) => self.is_empty_dir(path) && self.names.remove(path).is_some(),
            Op::Rename(from, to) => self.rename(from, to),
            Op::Link(path, to) => match self.names.get(path).copied() {
                Some(Node::File(n)) => self.give(to, Node::File(n)),
                _ => false,
            },
            Op::Commit(path) => self.names.contains_key(path),
        }
    }

    fn file(&mut self, path: &str) -> Option<&mut Vec<u8>> {
        match self.names.get(path) {
            Some(Node::File(n)) => self.files.get_mut(*n),
            _ => None,
        }
    }

    fn is_empty_dir(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.names.get(path) == Some(&Node::Dir) && !self.names.keys().any(|name| name.starts_with(&below))
    }

    fn may_be_in(&self, path: &str) -> bool {
        path.rsplit_once('/').is_none_or(|(dir, _)| self.names.get(dir) == Some(&Node::Dir))
    }

    fn give(&mut self, path: &str, node: Node) -> bool {
        let free = self.may_be_in(path) && !self.names.contains_key(path);
        if free {
            self.names.insert(path.to_owned(), node);
        }
        free
    }

    /// No directory goes over another one here. Two names of one file are left as they are.
    fn rename(&mut self, from: &str, to: &str) -> bool {
        let (Some(moved), there) = (self.names.get(from).copied(), self.names.get(to).copied()) else { return false };
        let may = match (moved, there) {
            (_, None) => true,
            (Node::File(_), Some(Node::File(_))) => true,
            (Node::Dir, Some(_)) | (Node::File(_), Some(Node::Dir)) => false,
        };
        if !may || !self.may_be_in(to) || there == Some(moved) {
            return false;
        }
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.names.keys().filter(|name| *name == from || name.starts_with(&below)).cloned().collect();
        for name in moved {
            if let Some(node) = self.names.remove(&name) {
                self.names.insert(format!("{to}{}", &name[from.len()..]), node);
            }
        }
        true
    }

    #[must_use]
    pub fn shown(&self) -> BTreeMap<String, Shown> {
        let mut first: BTreeMap<usize, String> = BTreeMap::new();
        let show = |(name, node): (&String, &Node)| {
            let shown = match node {
                Node::Dir => Shown::Dir,
                Node::File(n) => {
                    let first = first.entry(*n).or_insert_with(|| name.clone()).clone();
                    Shown::File { bytes: self.files[*n].clone(), first }
                }
            };
            (name.clone(), shown)
        };
        self.names.iter().map(show).collect()
    }
}

/// The same of a filer.
#[must_use]
pub fn shown(found: &[Found]) -> BTreeMap<String, Shown> {
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for it in found.iter().filter(|it| !it.path.is_empty()) {
        let name = String::from_utf8_lossy(&it.path[1..]).into_owned();
        let shown = match it.stat.kind {
            Kind::Dir => Shown::Dir,
            _ => {
                let first = first.entry(it.number).or_insert_with(|| name.clone()).clone();
                Shown::File { bytes: it.bytes.clone(), first }
            }
        };
        all.insert(name, shown);
    }
    all
}
