//! What a power cut leaves: the fault model of the filer in memory.
//!
//! * Every change goes to the live image at once, and into a log; a sync that succeeds carries the whole log over to the
//!   durable image, in order.
//! * A power cut keeps any subset of the log, change by change: a name that was given may be lost and the one given
//!   later be there; bytes may be there without the size that reaches them (then they are not seen), and the size
//!   without the bytes (then they are zeros); owner, mode and times come alone. What is kept is carried over in order,
//!   and what cannot be any more (its directory was lost, another object has the name) is lost, too. An object that
//!   still has a name in the live image keeps one: its bytes, synced long ago, are nowhere else.
//! * One change is whole: a rename takes one name and gives the other, a page is old or new, never torn. A directory
//!   has one name, a link count is right, an object without a name is gone: the filer's own journal and check see to it.
//! * A sync that fails may lose bytes for good ([`Log::lose_bytes`]): the live image still shows them, a later sync
//!   succeeds, and only a power cut tells. Names, sizes and attributes wait for the next sync: a filer whose metadata
//!   fails stops, it does not go on.
//! * The owner marker is durable at once.

use super::content::PAGE;
use super::image::{Image, Ino, Inode, refuse};
use crate::filer::{Changes, ErrorKind, Result};
use journal_format::ids::{Kind, Time};
use std::sync::Arc;

/// One change, as it can be lost.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Make {
        dir: Ino,
        name: Vec<u8>,
        ino: Ino,
        inode: Box<Inode>,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: Vec<u8>,
        now: Time,
    },
    Rename {
        from: Ino,
        name: Vec<u8>,
        to: Ino,
        new: Vec<u8>,
        moved: Ino,
        replaced: Option<Victim>,
        now: Time,
    },
    Remove {
        dir: Ino,
        name: Vec<u8>,
        is_dir: bool,
        victim: Victim,
        now: Time,
    },
    /// A page as it was then; `None` is a hole.
    Page {
        ino: Ino,
        page: u64,
        bytes: Option<Arc<Vec<u8>>>,
    },
    Size {
        ino: Ino,
        size: u64,
    },
    /// Without the size.
    Set {
        ino: Ino,
        changes: Changes,
        now: Time,
    },
    Xattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        now: Time,
    },
}

/// An object that loses a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    pub ino: Ino,
    /// It has no other.
    pub last: bool,
}

impl Victim {
    pub fn of(live: &Image, ino: Ino) -> Self {
        let last = live.get(ino).is_ok_and(|inode| inode.stat.kind == Kind::Dir || inode.stat.nlink <= 1);
        Self { ino, last }
    }

    /// Only what went away for good is destroyed: bytes that were synced long ago are nowhere else.
    fn may_go(self, from: &Image, dir: Ino, name: &[u8]) -> Result<()> {
        let spared = !self.last && from.get(self.ino)?.stat.nlink <= 1;
        if from.lookup(dir, name)? == self.ino && !spared { Ok(()) } else { refuse(ErrorKind::NotFound, "take a name") }
    }
}

/// Changes that are not durable, oldest first. As long as what was done since the last sync.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    changes: Vec<Change>,
}

impl Log {
    pub fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The pages of `offset..end` as they are in `live` now, its size, and when they were written.
    pub fn push_bytes(&mut self, live: &Image, ino: Ino, offset: u64, end: u64) {
        let Ok(inode) = live.get(ino) else { return };
        for page in offset / PAGE..end.div_ceil(PAGE) {
            self.push(Change::Page { ino, page, bytes: inode.content.page_at(page) });
        }
        self.push(Change::Size { ino, size: inode.content.size });
        let (changes, now) = (Changes { mtime: Some(inode.stat.mtime), ..Changes::default() }, inode.stat.ctime);
        self.push(Change::Set { ino, changes, now });
    }

    /// Carry over what `keep` says, and forget the rest.
    pub fn carry_over(&mut self, to: &mut Image, mut keep: impl FnMut() -> bool) {
        for change in self.changes.drain(..) {
            if keep() {
                apply(to, change);
            }
        }
        to.trim();
        to.drop_nameless(|_| false);
    }

    /// Bytes that `lose` says will never be durable, unless they are written again.
    pub fn lose_bytes(&mut self, mut lose: impl FnMut() -> bool) -> usize {
        let before = self.changes.len();
        self.changes.retain(|change| !matches!(change, Change::Page { .. }) || !lose());
        before - self.changes.len()
    }
}

/// What cannot be done any more is lost with what it stood on.
fn apply(to: &mut Image, change: Change) {
    let _lost = match change {
        Change::Make { dir, name, ino, inode } => to.make(dir, &name, ino, *inode),
        Change::Link { ino, dir, name, now } => to.link(ino, dir, &name, now),
        Change::Rename { from, name, to: dir, new, moved, replaced, now } => {
            rename(to, (from, &name, moved), (dir, &new, replaced), now)
        }
        Change::Remove { dir, name, is_dir, victim, now } => {
            victim.may_go(to, dir, &name).and_then(|()| to.remove(dir, &name, is_dir, now)).map(drop)
        }
        Change::Page { ino, page, bytes } => to.file(ino).map(|file| file.content.put_page(page, bytes)),
        Change::Size { ino, size } => to.file(ino).map(|file| file.content.resize(size)),
        Change::Set { ino, changes, now } => to.set(ino, &changes, now),
        Change::Xattr { ino, name, value, now } => to.set_xattr(ino, &name, &value, now),
    };
}

fn rename(
    image: &mut Image,
    (from, name, moved): (Ino, &[u8], Ino),
    (to, new, replaced): (Ino, &[u8], Option<Victim>),
    now: Time,
) -> Result<()> {
    if image.lookup(from, name)? != moved {
        return refuse(ErrorKind::NotFound, "rename");
    }
    match (image.lookup(to, new), replaced) {
        (Ok(_), Some(victim)) => victim.may_go(image, to, new)?,
        (Ok(_), None) => return refuse(ErrorKind::Exists, "rename"),
        (Err(_), _) => {}
    }
    image.rename(from, name, to, new, now)
}
