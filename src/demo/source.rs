//! The tree that is moved: first as a model, then on disk, with what real trees have and copiers trip over: names of 255
//! odd bytes, hard links, symlinks that lead nowhere, fifos, empty files and directories, files with holes, old times.

use super::content::{Extents, Rng, mix};
use super::lane::odd_name;
use super::model::{Body, New, Nid, Node, ROOT, Stamp, Tree, new_dir};
use super::nfs::{Kind, Nanos};
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Small files in all.
    pub files: u64,
    /// How many of them belong to the lanes; half when not said.
    pub lanes_files: Option<u64>,
    /// MiB of data in large files.
    pub mib: u64,
    /// Lanes that get a part of it for themselves.
    pub lanes: u64,
    pub seed: u64,
}

/// The whole tree: what nobody changes, with the lanes' own trees hung in.
pub struct Source {
    pub rest: Tree,
    /// Name at the root, and what is below it.
    pub lanes: Vec<(Bytes, Tree)>,
    pub files: u64,
    /// Of data.
    pub bytes: u64,
    /// Sum of the sizes, holes included.
    pub sizes: u64,
}

const SMALL_MAX: u64 = 12 << 10;
/// Files of one directory.
const PER_DIR: u64 = 120;

/// Plan it, make it below `root` (an existing, empty directory). Blocking.
pub fn build(root: &Path, spec: Spec) -> io::Result<Source> {
    let mut rng = Rng::new(spec.seed);
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut plan = Plan { rng: rng.clone(), owner, others: owner.0 == 0, files: 0, bytes: 0, sizes: 0 };
    // Half of it lies still, half belongs to the lanes.
    let lanes_files = spec.lanes_files.unwrap_or(spec.files / 2).min(spec.files);
    let mut rest = Tree::new(0o755, owner.0, owner.1);
    plan.small(&mut rest, spec.files - lanes_files);
    plan.large(&mut rest, spec.mib - spec.mib / 3);
    plan.oddities(&mut rest);
    plan.others = false;
    let mut lanes = Vec::new();
    for i in 0..spec.lanes {
        let mut tree = Tree::new(0o755, owner.0, owner.1);
        plan.small(&mut tree, lanes_files / spec.lanes);
        plan.large(&mut tree, spec.mib / 3 / spec.lanes);
        plan.oddities(&mut tree);
        let name = Bytes::from(format!("lane-{i}"));
        let nid = rest.add(ROOT, &name, plan.node(new_dir(), 0o755));
        rest.get_mut(nid).elsewhere = true;
        lanes.push((name, tree));
    }
    let mut writer = Writer { rng: &mut rng, owners: owner.0 == 0 };
    writer.make(root, &mut rest)?;
    for (name, tree) in &mut lanes {
        writer.make(&root.join(OsStr::from_bytes(name)), tree)?;
    }
    // The lanes' roots are directories of the rest, and have got their times last.
    Ok(Source { rest, lanes, files: plan.files, bytes: plan.bytes, sizes: plan.sizes })
}

struct Plan {
    rng: Rng,
    owner: (u32, u32),
    /// Files may belong to others.
    others: bool,
    files: u64,
    bytes: u64,
    sizes: u64,
}

impl Plan {
    fn node(&mut self, body: Body, mode: u32) -> New {
        let (mut uid, mut gid) = self.owner;
        if self.others && self.rng.chance(30) {
            let n = u32::try_from(self.rng.below(50)).unwrap_or(0);
            (uid, gid) = (1000 + n, 2000 + n);
        }
        New { body, mode, uid, gid }
    }

    fn file(&mut self, size: u64, parts: &[(u64, u64)]) -> New {
        let mut data = Extents::default();
        for (start, end) in parts {
            data.write(*start, *end, self.rng.u64());
            self.bytes += end - start;
        }
        self.files += 1;
        self.sizes += size;
        let mode = [0o644, 0o600, 0o444, 0o755, 0o640][self.rng.index(if self.others { 5 } else { 2 })];
        self.node(Body::File { size, data }, mode)
    }

    fn small(&mut self, tree: &mut Tree, files: u64) {
        let mut dirs = vec![ROOT];
        for i in 0..files {
            if i % PER_DIR == 0 {
                let above = dirs[self.rng.index(dirs.len())];
                let new = self.node(new_dir(), 0o755);
                dirs.push(tree.add(above, format!("dir-{i}").as_bytes(), new));
            }
            let size = if self.rng.chance(3) { 0 } else { self.rng.below(SMALL_MAX) };
            let new = self.file(size, &[(0, size)]);
            let dir = dirs[dirs.len() - 1];
            tree.add(dir, format!("file-{i}.dat").as_bytes(), new);
        }
    }

    /// Two dense files, and one that is mostly holes.
    fn large(&mut self, tree: &mut Tree, mib: u64) {
        let dir = self.node(new_dir(), 0o755);
        let dir = tree.add(ROOT, b"large", dir);
        let bytes = mib << 20;
        let dense = bytes * 7 / 16;
        for i in 0..2u8 {
            let odd = dense + self.rng.below(9999);
            let new = self.file(odd, &[(0, odd)]);
            tree.add(dir, &[b'd', b'e', b'n', b's', b'e', b'-', b'0' + i], new);
        }
        let part = (bytes / 8 / 16).max(4096);
        let parts: Vec<(u64, u64)> =
            (0..16).map(|i| (i * 4 * part + 4096 * i, i * 4 * part + 4096 * i + part)).collect();
        let new = self.file(64 * part + (16 << 20) + 77, &parts);
        tree.add(dir, b"sparse", new);
    }

    fn oddities(&mut self, tree: &mut Tree) {
        let new = self.node(new_dir(), 0o711);
        let dir = tree.add(ROOT, b"odd", new);
        for i in 0..8 {
            let new = self.file(100 * i, &[(0, 100 * i)]);
            let name = odd_name(self.rng.u64(), 255);
            let nid = tree.add(dir, &name, new);
            if i % 2 == 0 {
                let name = Bytes::from(odd_name(self.rng.u64(), 200));
                tree.apply(&super::model::Change::Link { node: nid, dir: ROOT, name });
            }
        }
        for i in 0..5 {
            let target = Bytes::from(odd_name(self.rng.u64(), 1 + 200 * i));
            let new = self.node(Body::Symlink { target }, 0o777);
            tree.add(dir, format!("symlink-{i}").as_bytes(), new);
            let new = self.node(new_dir(), 0o755);
            tree.add(dir, format!("empty-{i}").as_bytes(), new);
        }
        for (name, kind) in [(&b"fifo"[..], Kind::Fifo), (b"socket", Kind::Socket)] {
            let new = self.node(Body::Other(kind), 0o600);
            tree.add(dir, name, new);
        }
        let new = self.node(Body::Symlink { target: Bytes::from_static(b"../../../../etc/passwd") }, 0o777);
        tree.add(dir, b"way-out", new);
    }
}

/// Puts a model on disk and notes the times it gave.
struct Writer<'a> {
    rng: &'a mut Rng,
    owners: bool,
}

impl Writer<'_> {
    fn make(&mut self, root: &Path, tree: &mut Tree) -> io::Result<()> {
        let mut made: HashMap<Nid, PathBuf> = HashMap::new();
        let mut dirs = vec![(ROOT, root.to_path_buf())];
        let mut at = 0;
        while at < dirs.len() {
            let (dir, path) = dirs[at].clone();
            at += 1;
            let entries: Vec<(Bytes, Nid)> = tree.entries(dir).iter().map(|(n, i)| (n.clone(), *i)).collect();
            for (name, nid) in entries {
                let path = path.join(OsStr::from_bytes(&name));
                if let Some(first) = made.get(&nid) {
                    rustix::fs::linkat(CWD, first, CWD, &path, AtFlags::empty())?;
                    continue;
                }
                self.object(&path, tree.get(nid))?;
                if tree.is_dir(nid) {
                    dirs.push((nid, path));
                } else {
                    self.times(&path, nid, tree)?;
                    made.insert(nid, path);
                }
            }
        }
        // Times of directories, when nothing is made in them any more.
        for (nid, path) in dirs {
            self.times(&path, nid, tree)?;
        }
        Ok(())
    }

    fn object(&self, path: &Path, node: &Node) -> io::Result<()> {
        match &node.body {
            Body::Dir { .. } => std::fs::create_dir(path)?,
            Body::Symlink { target } => std::os::unix::fs::symlink(OsStr::from_bytes(target), path)?,
            Body::Other(kind) => {
                let kind = if *kind == Kind::Fifo { FileType::Fifo } else { FileType::Socket };
                rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(node.mode), 0)?;
            }
            Body::File { size, data } => {
                let file = std::fs::File::create(path)?;
                let mut buf = vec![0; 1 << 20];
                for (start, end, seed) in data.iter() {
                    let mut offset = start;
                    while offset < end {
                        let n = usize::try_from((end - offset).min(1 << 20)).unwrap_or(0);
                        super::content::fill(seed, offset, &mut buf[..n]);
                        file.write_all_at(&buf[..n], offset)?;
                        offset += n as u64;
                    }
                }
                file.set_len(*size)?;
            }
        }
        if self.owners {
            std::os::unix::fs::lchown(path, Some(node.uid), Some(node.gid))?;
        }
        if !matches!(node.body, Body::Symlink { .. }) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(node.mode))?;
        }
        Ok(())
    }

    /// Some time in the past, to the nanosecond.
    fn times(&mut self, path: &Path, nid: Nid, tree: &mut Tree) -> io::Result<()> {
        let t: Nanos = 1_500_000_000_000_000_000 + i64::try_from(mix(self.rng.u64()) >> 7).unwrap_or(0);
        let spec = Timespec { tv_sec: t.div_euclid(1_000_000_000), tv_nsec: t.rem_euclid(1_000_000_000) };
        let times = Timestamps { last_access: spec, last_modification: spec };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        // A file system may keep less than was given.
        let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
        let kept = stat.st_mtime * 1_000_000_000 + i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        tree.get_mut(nid).mtime = if nid == ROOT { Stamp::Unknown } else { Stamp::Exactly(kept) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::walker::{Compare, compare};

    fn built() -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let source = build(dir.path(), Spec { files: 300, lanes_files: None, mib: 3, lanes: 2, seed: 5 }).unwrap();
        (dir, source)
    }

    #[test]
    fn what_was_built_is_what_the_walker_finds() {
        let (dir, source) = built();
        let mut found = compare(dir.path(), &source.rest, Compare::default()).unwrap();
        for (name, tree) in &source.lanes {
            found.add(compare(&dir.path().join(OsStr::from_bytes(name)), tree, Compare::default()).unwrap());
        }
        assert!(found.equal(), "{}", found.report());
        assert_eq!(found.files, source.files);
    }

    #[test]
    fn the_walker_sees_each_kind_of_damage() {
        let damage: [(&str, fn(&Path)); 8] = [
            ("a byte", |p| {
                std::fs::File::options()
                    .write(true)
                    .open(p.join("large/dense-0"))
                    .unwrap()
                    .write_all_at(b"x", 9)
                    .unwrap()
            }),
            ("a missing name", |p| std::fs::remove_file(p.join("odd/fifo")).unwrap()),
            ("a name too many", |p| std::fs::write(p.join("odd/new"), b"").unwrap()),
            ("a mode", |p| {
                std::fs::set_permissions(p.join("odd/empty-1"), std::fs::Permissions::from_mode(0o700)).unwrap()
            }),
            ("a kind", |p| {
                std::fs::remove_file(p.join("odd/socket")).unwrap();
                std::fs::write(p.join("odd/socket"), b"").unwrap();
            }),
            ("a symlink's text", |p| {
                std::fs::remove_file(p.join("odd/way-out")).unwrap();
                std::os::unix::fs::symlink("elsewhere", p.join("odd/way-out")).unwrap();
            }),
            ("a time", |p| {
                std::fs::File::open(p.join("odd/empty-0")).unwrap().set_modified(std::time::SystemTime::now()).unwrap()
            }),
            ("holes filled", |p| {
                let path = p.join("large/sparse");
                let bytes = std::fs::read(&path).unwrap();
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.write_all_at(&bytes, 0).unwrap();
            }),
        ];
        for (what, harm) in damage {
            let (dir, source) = built();
            harm(dir.path());
            let found = compare(dir.path(), &source.rest, Compare::default()).unwrap();
            assert!(!found.equal(), "{what} went unseen");
        }
    }

    #[test]
    fn a_hard_link_that_became_a_copy_is_seen() {
        let (dir, source) = built();
        let node = source.rest.nodes.values().find(|n| n.names.len() > 1).unwrap();
        let path =
            node.names.iter().find(|(d, _)| *d == ROOT).map(|(_, n)| dir.path().join(OsStr::from_bytes(n))).unwrap();
        let copy = dir.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        let found = compare(dir.path(), &source.rest, Compare { mtimes: false, ..Compare::default() }).unwrap();
        assert!(!found.equal());
    }
}
