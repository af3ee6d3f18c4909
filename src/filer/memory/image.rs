//! Everything on the filer at one instant, and the operations on it: plain functions, no locks, no clock.

use super::content::Content;
use crate::filer::hidden::{check_name, is_hidden};
use crate::filer::{AclKind, Changes, Error, ErrorKind, MakeAttrs, NO_ACL, Page, Result, Stat};
use crate::semantics::acl::Acl;
use journal_format::event::What;
use journal_format::ids::{Kind, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

const ACCESS_ACL: &[u8] = AclKind::Access.xattr().as_bytes();
const DEFAULT_ACL: &[u8] = AclKind::Default.xattr().as_bytes();

/// Number of an object; never used again.
pub(super) type Ino = u64;

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    nodes: BTreeMap<Ino, Arc<Inode>>,
    /// Names that [`fold`] to one are one.
    folds_names: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub stat: Stat,
    pub content: Content,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A directory's entries, by name and in the order in which they were made.
    names: BTreeMap<Vec<u8>, Entry>,
    order: BTreeMap<u64, Vec<u8>>,
    next_cookie: u64,
    /// A directory's parent.
    parent: Ino,
    /// It was made without a name, and has had none yet.
    pub nameless: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ino: Ino,
    cookie: u64,
}

/// A name without case and with one form of an accent: as much of folding as tests need.
pub(super) fn fold(name: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(name).to_lowercase();
    text.replace("e\u{301}", "\u{e9}").into_bytes()
}

pub(super) fn refuse<T>(kind: ErrorKind, op: &'static str) -> Result<T> {
    Err(Error::new(kind, op, format!("{kind:?}")))
}

impl Inode {
    pub fn new(what: &What, attrs: MakeAttrs, now: Time, parent: Ino) -> Self {
        let (rdev, target) = match what {
            What::Char { major, minor } | What::Block { major, minor } => ((*major, *minor), Vec::new()),
            What::Symlink { target } => ((0, 0), target.clone()),
            What::File | What::Dir | What::Fifo | What::Socket => ((0, 0), Vec::new()),
        };
        let kind = what.kind();
        let stat = Stat {
            kind,
            mode: if kind == Kind::Symlink { 0o777 } else { attrs.mode & 0o7777 },
            uid: attrs.uid,
            gid: attrs.gid,
            nlink: if kind == Kind::Dir { 2 } else { 1 },
            size: target.len() as u64,
            used: 0,
            rdev,
            atime: now,
            mtime: now,
            ctime: now,
        };
        Self {
            stat,
            content: Content::default(),
            target,
            xattrs: BTreeMap::new(),
            names: BTreeMap::new(),
            order: BTreeMap::new(),
            next_cookie: 1,
            parent,
            nameless: false,
        }
    }

    pub fn nameless(mut self) -> Self {
        self.stat.nlink = 0;
        self.nameless = true;
        self
    }

    /// With what `dir` hands on, if it is to have that.
    pub fn inheriting(mut self, dir: &Self, attrs: MakeAttrs) -> Self {
        let handed_on = dir.xattrs.get(DEFAULT_ACL).filter(|_| attrs.inherits && self.stat.kind != Kind::Symlink);
        if let Some(default) = handed_on {
            if self.stat.kind == Kind::Dir {
                self.xattrs.insert(DEFAULT_ACL.to_vec(), default.clone());
            }
            if let Some(acl) = Acl::parse(default).filter(|acl| !acl.is_plain()) {
                self.xattrs.insert(ACCESS_ACL.to_vec(), acl.with_mode(attrs.mode).to_bytes());
            }
        }
        self
    }

    /// A directory's names, and what they lead to.
    pub fn names(&self) -> impl Iterator<Item = (&Vec<u8>, Ino)> {
        self.names.iter().map(|(name, entry)| (name, entry.ino))
    }

    pub fn stat(&self) -> Stat {
        match self.stat.kind {
            Kind::File => Stat { size: self.content.size, used: self.content.used(), ..self.stat },
            _ => self.stat,
        }
    }
}

impl Image {
    pub fn new(folds_names: bool) -> Self {
        Self { nodes: BTreeMap::new(), folds_names }
    }

    pub fn insert(&mut self, ino: Ino, inode: Inode) {
        self.nodes.insert(ino, Arc::new(inode));
    }

    pub fn get(&self, ino: Ino) -> Result<&Inode> {
        match self.nodes.get(&ino) {
            Some(inode) => Ok(inode),
            None => refuse(ErrorKind::Stale, "reach an object"),
        }
    }

    pub fn get_mut(&mut self, ino: Ino) -> Result<&mut Inode> {
        match self.nodes.get_mut(&ino) {
            Some(inode) => Ok(Arc::make_mut(inode)),
            None => refuse(ErrorKind::Stale, "reach an object"),
        }
    }

    /// A regular file.
    pub fn file(&mut self, ino: Ino) -> Result<&mut Inode> {
        match self.get(ino)?.stat.kind {
            Kind::File => self.get_mut(ino),
            Kind::Dir => refuse(ErrorKind::IsDir, "open"),
            _ => refuse(ErrorKind::Invalid, "open"),
        }
    }

    pub fn dir(&self, ino: Ino) -> Result<&Inode> {
        let inode = self.get(ino)?;
        if inode.stat.kind != Kind::Dir {
            return refuse(ErrorKind::NotDir, "use a directory");
        }
        Ok(inode)
    }

    /// Drops what has neither a name nor, by `held`, a holder.
    pub fn drop_nameless(&mut self, held: impl Fn(Ino) -> bool) {
        self.nodes.retain(|ino, inode| inode.stat.nlink > 0 || held(*ino));
    }

    /// No bytes behind the end of any file.
    pub fn trim(&mut self) {
        for inode in self.nodes.values_mut() {
            if !inode.content.is_trim() {
                Arc::make_mut(inode).content.trim();
            }
        }
    }

    pub fn drop_if_nameless(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|inode| inode.stat.nlink == 0) {
            self.nodes.remove(&ino);
        }
    }

    /// Files that have had no name yet.
    pub fn nameless(&self) -> usize {
        self.nodes.values().filter(|inode| inode.nameless).count()
    }

    pub fn counts(&self) -> (u64, u64) {
        (self.nodes.len() as u64, self.nodes.values().map(|inode| inode.content.used()).sum())
    }

    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Ino> {
        check_name(name)?;
        match self.entry(self.dir(dir)?, name) {
            Some((_, entry)) => Ok(entry.ino),
            None => refuse(ErrorKind::NotFound, "look up"),
        }
    }

    /// What has the name, and by which bytes.
    fn entry<'a>(&self, dir: &'a Inode, name: &[u8]) -> Option<(&'a Vec<u8>, &'a Entry)> {
        let exact = dir.names.get_key_value(name);
        if exact.is_some() || !self.folds_names {
            return exact;
        }
        dir.names.iter().find(|(known, _)| fold(known) == fold(name))
    }

    pub fn list(&self, dir: Ino, from: u64, max: usize, hide: bool) -> Result<Page> {
        let dir = self.dir(dir)?;
        let mut page = Page::default();
        for (cookie, name) in dir.order.range(from.saturating_add(1)..) {
            if page.names.len() == max.max(1) {
                return Ok(page);
            }
            page.next = Some(*cookie);
            if !(hide && is_hidden(name)) {
                page.names.push(name.clone());
            }
        }
        page.next = None;
        Ok(page)
    }

    /// Where positions count the names before them.
    pub fn list_by_count(&self, dir: Ino, from: u64, max: usize, hide: bool) -> Result<Page> {
        let all = self.list(dir, 0, usize::MAX, hide)?.names;
        let (len, from) = (all.len(), usize::try_from(from).unwrap_or(usize::MAX));
        let names: Vec<_> = all.into_iter().skip(from).take(max.max(1)).collect();
        let next = from.saturating_add(names.len());
        Ok(Page { names, next: (next < len).then_some(next as u64) })
    }

    fn add_name(&mut self, dir: Ino, name: &[u8], ino: Ino, now: Time) -> Result<()> {
        let inode = self.get_mut(dir)?;
        let cookie = inode.next_cookie;
        inode.next_cookie += 1;
        inode.names.insert(name.to_vec(), Entry { ino, cookie });
        inode.order.insert(cookie, name.to_vec());
        (inode.stat.mtime, inode.stat.ctime) = (now, now);
        if self.get(ino)?.stat.kind == Kind::Dir {
            self.get_mut(ino)?.parent = dir;
            self.get_mut(dir)?.stat.nlink += 1;
        }
        Ok(())
    }

    fn take_name(&mut self, dir: Ino, name: &[u8], now: Time) -> Result<Ino> {
        let Some(name) = self.entry(self.dir(dir)?, name).map(|(known, _)| known.clone()) else {
            return refuse(ErrorKind::NotFound, "take a name");
        };
        let inode = self.get_mut(dir)?;
        let Some(entry) = inode.names.remove(&name) else { return refuse(ErrorKind::NotFound, "take a name") };
        inode.order.remove(&entry.cookie);
        (inode.stat.mtime, inode.stat.ctime) = (now, now);
        if self.get(entry.ino)?.stat.kind == Kind::Dir {
            let dir = self.get_mut(dir)?;
            dir.stat.nlink = dir.stat.nlink.saturating_sub(1);
        }
        Ok(entry.ino)
    }

    /// A name's object loses that name; it stays for those who hold it.
    fn lose(&mut self, ino: Ino, now: Time) -> Result<()> {
        let inode = self.get_mut(ino)?;
        inode.stat.nlink = if inode.stat.kind == Kind::Dir { 0 } else { inode.stat.nlink.saturating_sub(1) };
        inode.stat.ctime = now;
        Ok(())
    }

    /// A directory that takes the new name `name`.
    fn free_name(&self, dir: Ino, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let dir = self.dir(dir)?;
        if dir.stat.nlink == 0 {
            return refuse(ErrorKind::NotFound, "use a removed directory");
        }
        if self.entry(dir, name).is_some() {
            return refuse(ErrorKind::Exists, "take a name");
        }
        Ok(())
    }

    pub fn make(&mut self, dir: Ino, name: &[u8], ino: Ino, inode: Inode) -> Result<()> {
        self.free_name(dir, name)?;
        let now = inode.stat.ctime;
        self.insert(ino, inode);
        self.add_name(dir, name, ino, now)
    }

    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        let inode = self.get(ino)?;
        let (kind, may_have_names) = (inode.stat.kind, inode.stat.nlink > 0 || inode.nameless);
        check_name(name)?;
        if kind == Kind::Dir {
            return refuse(ErrorKind::IsDir, "link");
        }
        if !may_have_names {
            return refuse(ErrorKind::NotFound, "link");
        }
        self.free_name(dir, name)?;
        let inode = self.get_mut(ino)?;
        inode.stat.nlink += 1;
        inode.stat.ctime = now;
        inode.nameless = false;
        self.add_name(dir, name, ino, now)
    }

    pub fn rename(&mut self, from: Ino, name: &[u8], to: Ino, new: &[u8], now: Time) -> Result<()> {
        check_name(new)?;
        let ino = self.lookup(from, name)?;
        if self.dir(to)?.stat.nlink == 0 {
            return refuse(ErrorKind::NotFound, "rename into a removed directory");
        }
        let is_dir = self.get(ino)?.stat.kind == Kind::Dir;
        if is_dir && self.is_above(ino, to)? {
            return refuse(ErrorKind::Invalid, "rename a directory into itself");
        }
        let replaced = self.entry(self.dir(to)?, new).map(|(_, entry)| entry.ino);
        if let Some(other) = replaced {
            if other == ino {
                return Ok(());
            }
            let other = self.get(other)?;
            match (is_dir, other.stat.kind == Kind::Dir) {
                (true, false) => return refuse(ErrorKind::NotDir, "rename"),
                (false, true) => return refuse(ErrorKind::IsDir, "rename"),
                (true, true) if !other.names.is_empty() => return refuse(ErrorKind::NotEmpty, "rename"),
                _ => {}
            }
            let gone = self.take_name(to, new, now)?;
            self.lose(gone, now)?;
        }
        self.take_name(from, name, now)?;
        self.add_name(to, new, ino, now)?;
        self.get_mut(ino)?.stat.ctime = now;
        Ok(())
    }

    /// Whether `dir` is `above` or below it.
    fn is_above(&self, above: Ino, dir: Ino) -> Result<bool> {
        let mut at = dir;
        loop {
            if at == above {
                return Ok(true);
            }
            let parent = self.get(at)?.parent;
            if parent == at {
                return Ok(false);
            }
            at = parent;
        }
    }

    pub fn remove(&mut self, dir: Ino, name: &[u8], want_dir: bool, now: Time) -> Result<Ino> {
        let ino = self.lookup(dir, name)?;
        let inode = self.get(ino)?;
        match (inode.stat.kind == Kind::Dir, want_dir) {
            (true, false) => return refuse(ErrorKind::IsDir, "remove"),
            (false, true) => return refuse(ErrorKind::NotDir, "remove a directory"),
            (true, true) if !inode.names.is_empty() => return refuse(ErrorKind::NotEmpty, "remove a directory"),
            _ => {}
        }
        self.take_name(dir, name, now)?;
        self.lose(ino, now)?;
        Ok(ino)
    }

    /// An ACL sets the mode; one that says no more than a mode is none.
    pub fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], now: Time) -> Result<()> {
        let inode = self.get_mut(ino)?;
        if (name == ACCESS_ACL || name == DEFAULT_ACL) && value == NO_ACL {
            inode.stat.ctime = now;
            inode.xattrs.remove(name);
            return Ok(());
        }
        if name == DEFAULT_ACL && (inode.stat.kind != Kind::Dir || Acl::parse(value).is_none()) {
            return refuse(ErrorKind::Invalid, "set an ACL");
        }
        inode.stat.ctime = now;
        if name == ACCESS_ACL {
            let Some(acl) = Acl::parse(value) else { return refuse(ErrorKind::Invalid, "set an ACL") };
            inode.stat.mode = inode.stat.mode & 0o7000 | acl.mode();
            if acl.is_plain() {
                inode.xattrs.remove(name);
                return Ok(());
            }
        }
        inode.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    pub fn set(&mut self, ino: Ino, changes: &Changes, now: Time) -> Result<()> {
        if let Some(size) = changes.size {
            if i64::try_from(size).is_err() {
                return refuse(ErrorKind::FileTooBig, "truncate");
            }
            let file = self.file(ino)?;
            file.content.resize(size);
            file.stat.mtime = now;
        }
        let Inode { stat, xattrs, .. } = self.get_mut(ino)?;
        stat.uid = changes.uid.unwrap_or(stat.uid);
        stat.gid = changes.gid.unwrap_or(stat.gid);
        if let Some(mode) = changes.mode.filter(|_| stat.kind != Kind::Symlink) {
            stat.mode = mode & 0o7777;
            if let Some(acl) = xattrs.get_mut(ACCESS_ACL) {
                *acl = Acl::parse(acl).map_or_else(|| acl.clone(), |acl| acl.with_mode(mode).to_bytes());
            }
        }
        stat.atime = changes.atime.unwrap_or(stat.atime);
        stat.mtime = changes.mtime.unwrap_or(stat.mtime);
        stat.ctime = now;
        Ok(())
    }
}
