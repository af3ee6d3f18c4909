//! Walks a directory on this machine and compares it with what a model says it must be: names, kinds, bytes, sizes,
//! modes, owners, modification times, symlink texts, hard links, and that holes stayed holes. No symlink is followed.
//! Of the service it knows three names at the root of a location that clients do not see.

use super::model::{Body, Nid, ROOT, Stamp, Tree};
use super::nfs::Kind;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, openat, readlinkat, statat};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Names at a location's root that belong to the service.
const HIDDEN: [&[u8]; 3] = [b".tain-pen", b".tain-owner", b".tain-owner.new"];
/// Differences that are listed; more are counted only.
const LISTED_MAX: usize = 20;
/// Deepest tree that is walked; each level holds one open directory.
const DEPTH_MAX: usize = 500;

/// What is compared beside names, kinds, bytes, sizes, modes, symlinks, links and holes.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub owners: bool,
    pub mtimes: bool,
    /// The time of the root too: not of a location's, which the service's hidden names move.
    pub root_mtime: bool,
}

impl Default for Compare {
    fn default() -> Self {
        Self { owners: true, mtimes: true, root_mtime: false }
    }
}

/// What was found. No differences: equal.
#[derive(Debug, Default)]
pub struct Found {
    pub files: u64,
    pub dirs: u64,
    pub others: u64,
    /// Sum of the sizes of files; one with several names counts once.
    pub bytes: u64,
    pub differences: Vec<String>,
    pub differences_more: u64,
}

impl Found {
    pub fn equal(&self) -> bool {
        self.differences.is_empty()
    }

    pub fn report(&self) -> String {
        let mut out = String::new();
        for d in &self.differences {
            let _ = writeln!(out, "  {d}");
        }
        if self.differences_more > 0 {
            let _ = writeln!(out, "  and {} more", self.differences_more);
        }
        out
    }

    pub fn add(&mut self, other: Found) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.others += other.others;
        self.bytes += other.bytes;
        self.differences_more += other.differences_more;
        for d in other.differences {
            self.differ(d);
        }
    }

    fn differ(&mut self, what: String) {
        if self.differences.len() < LISTED_MAX {
            self.differences.push(what);
        } else {
            self.differences_more += 1;
        }
    }
}

/// The tree at `root` against `model`. Blocking.
pub fn compare(root: &Path, model: &Tree, how: Compare) -> std::io::Result<Found> {
    let fd = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    let mut walk = Walk { model, how, found: Found::default(), by_inode: HashMap::new(), by_nid: HashMap::new() };
    walk.attributes(ROOT, &stat, b".");
    walk.dir(&fd, ROOT, &mut Vec::new(), 0)?;
    Ok(walk.found)
}

struct Walk<'a> {
    model: &'a Tree,
    how: Compare,
    found: Found,
    /// Files with several names: which node an inode turned out to be, and the other way round.
    by_inode: HashMap<(u64, u64), Nid>,
    by_nid: HashMap<Nid, (u64, u64)>,
}

impl Walk<'_> {
    fn dir(&mut self, fd: &OwnedFd, nid: Nid, path: &mut Vec<u8>, depth: usize) -> std::io::Result<()> {
        self.found.dirs += 1;
        if depth > DEPTH_MAX {
            return Err(std::io::Error::other(format!("deeper than {DEPTH_MAX} directories: {}", shown(path))));
        }
        let model = self.model;
        let mut due: BTreeMap<&[u8], Nid> = model.entries(nid).iter().map(|(n, i)| (&n[..], *i)).collect();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." || (depth == 0 && HIDDEN.contains(&bytes)) {
                continue;
            }
            let len = path.len();
            path.extend_from_slice(b"/");
            path.extend_from_slice(bytes);
            match due.remove(bytes) {
                Some(child) => self.entry(fd, name, child, path, depth)?,
                None => self.found.differ(format!("{}: should not be there", shown(path))),
            }
            path.truncate(len);
        }
        for name in due.keys() {
            let at = [&path[..], b"/", name].concat();
            self.found.differ(format!("{}: is missing", shown(&at)));
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &CStr, nid: Nid, path: &mut Vec<u8>, depth: usize) -> std::io::Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let node = self.model.get(nid);
        let kind = kind(&stat);
        if kind != Some(node.kind()) {
            self.found.differ(format!("{}: is {kind:?}, should be {:?}", shown(path), node.kind()));
            return Ok(());
        }
        if node.elsewhere {
            return Ok(());
        }
        self.attributes(nid, &stat, path);
        let seen_before = node.names.len() > 1 && !self.links(nid, &stat, path);
        match &node.body {
            Body::Dir { .. } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(dir, name, flags, Mode::empty())?;
                self.dir(&fd, nid, path, depth + 1)?;
            }
            Body::File { .. } if !seen_before => {
                self.found.files += 1;
                self.found.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(dir, name, flags, Mode::empty())?;
                self.bytes(nid, file, &stat, path)?;
            }
            Body::File { .. } => {}
            Body::Symlink { target } => {
                self.found.others += 1;
                let text = readlinkat(dir, name, Vec::new())?;
                if text.to_bytes() != &target[..] {
                    let text = shown(text.to_bytes());
                    self.found.differ(format!("{}: leads to {text}, should to {}", shown(path), shown(target)));
                }
            }
            Body::Other(_) => self.found.others += 1,
        }
        Ok(())
    }

    fn attributes(&mut self, nid: Nid, stat: &Stat, path: &[u8]) {
        let node = self.model.get(nid);
        let mut bad = Vec::new();
        let mut check = |what: &str, is: u64, due: u64| {
            if is != due {
                bad.push(format!("{}: {what} is {is}, should be {due}", shown(path)));
            }
        };
        if !matches!(node.body, Body::Symlink { .. }) {
            check("mode", u64::from(stat.st_mode & 0o7777), u64::from(node.mode));
        }
        if self.how.owners {
            check("uid", u64::from(stat.st_uid), u64::from(node.uid));
            check("gid", u64::from(stat.st_gid), u64::from(node.gid));
        }
        if let Some(size) = node.size() {
            check("size", u64::try_from(stat.st_size).unwrap_or(u64::MAX), size);
        }
        if !matches!(node.body, Body::Dir { .. }) {
            check("links", stat.st_nlink, node.names.len() as u64);
        }
        let timed = self.how.mtimes && (nid != ROOT || self.how.root_mtime);
        if let (true, Stamp::Exactly(due)) = (timed, node.mtime) {
            let is = stat.st_mtime * 1_000_000_000 + i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
            if is != due {
                let ms = (is - due) / 1_000_000;
                bad.push(format!("{}: mtime is {is}, should be {due} ({ms} ms off)", shown(path)));
            }
        }
        for b in bad {
            self.found.differ(b);
        }
    }

    /// Whether this is the first name of a node with several.
    fn links(&mut self, nid: Nid, stat: &Stat, path: &[u8]) -> bool {
        let inode = (stat.st_dev, stat.st_ino);
        let known = (self.by_inode.get(&inode).copied(), self.by_nid.get(&nid).copied());
        if known == (None, None) {
            self.by_inode.insert(inode, nid);
            self.by_nid.insert(nid, inode);
            return true;
        }
        if known != (Some(nid), Some(inode)) {
            self.found.differ(format!("{}: is not the same file as its other names", shown(path)));
        }
        false
    }

    fn bytes(&mut self, nid: Nid, file: OwnedFd, stat: &Stat, path: &[u8]) -> std::io::Result<()> {
        let Body::File { size, data } = &self.model.get(nid).body else { return Ok(()) };
        let mut file = std::fs::File::from(file);
        let step = 256 << 10;
        let len = usize::try_from((*size).min(step as u64)).unwrap_or(step).max(1);
        let (mut is, mut due) = (vec![0; len], vec![0; len]);
        let mut offset = 0;
        loop {
            let n = read_full(&mut file, &mut is)?;
            if n == 0 {
                break;
            }
            data.read(offset, &mut due[..n]);
            // As a whole first: byte by byte it is most of the time that a test takes, in a build that is not optimized.
            if is[..n] != due[..n] {
                let at = is[..n].iter().zip(&due[..n]).take_while(|(a, b)| a == b).count();
                let at = offset + at as u64;
                let digest = blake3::hash(&is[..n]).to_hex();
                self.found.differ(format!("{}: bytes differ from offset {at} on ({})", shown(path), &digest[..12]));
                return Ok(());
            }
            offset += n as u64;
        }
        let taken = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        let holes = *size - data.iter().map(|(s, e, _)| e.min(*size) - s).sum::<u64>();
        // A file system may give more than was written: whole clusters, room ahead. Not the holes.
        let due = data.blocks(4096) + (64 << 10) * (data.len() as u64 + 1);
        if holes > (1 << 20) && taken > due.max(*size / 8) {
            self.found.differ(format!("{}: takes {taken} bytes, holes were filled (data needs {due})", shown(path)));
        }
        Ok(())
    }
}

fn read_full(file: &mut std::fs::File, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match file.read(&mut buf[n..])? {
            0 => break,
            k => n += k,
        }
    }
    Ok(n)
}

fn kind(stat: &Stat) -> Option<Kind> {
    use rustix::fs::FileType;
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        _ => return None,
    })
}

/// A path for people.
pub fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

/// A digest of everything below `root` that a client can see; equal digests are equal trees. Blocking.
pub fn digest(root: &Path) -> std::io::Result<String> {
    let fd = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let mut hasher = blake3::Hasher::new();
    digest_dir(fd.as_fd(), &mut hasher, 0)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn digest_dir(dir: std::os::fd::BorrowedFd<'_>, into: &mut blake3::Hasher, depth: usize) -> std::io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        let bytes = name.to_bytes();
        if bytes != b"." && bytes != b".." && !(depth == 0 && HIDDEN.contains(&bytes)) {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let stat = statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        let size = if kind(&stat) == Some(Kind::Dir) { 0 } else { stat.st_size };
        into.update(name.to_bytes_with_nul());
        let line = format!(
            "{:o} {} {} {size} {}.{} {depth}\n",
            stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec
        );
        into.update(line.as_bytes());
        match kind(&stat) {
            Some(Kind::Dir) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                digest_dir(openat(dir, &*name, flags, Mode::empty())?.as_fd(), into, depth + 1)?;
            }
            Some(Kind::File) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                into.update_reader(std::fs::File::from(openat(dir, &*name, flags, Mode::empty())?))?;
            }
            Some(Kind::Symlink) => {
                into.update(readlinkat(dir, &*name, Vec::new())?.to_bytes());
            }
            _ => {}
        }
    }
    Ok(())
}
