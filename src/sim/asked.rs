//! A call that changes something: what is asked for, asking it, and whether a record is of it.

use super::rng::Rng;
use crate::volume::{Call, CreateHow, NewNode, NodeRef, SetAttrs, SetTime, Status, Volume};
use bytes::Bytes;
use journal_format::event::{Event, What};
use journal_format::ids::{Kind, Time};
use std::sync::Arc;

/// What came of a call: bytes written, and a handle that was given.
pub type Came = Result<(u32, Option<NodeRef>), Status>;

#[derive(Clone, Debug)]
pub enum Asked {
    Create { dir: NodeRef, name: Vec<u8>, how: CreateHow },
    Make { dir: NodeRef, name: Vec<u8>, new: NewNode },
    Write { at: NodeRef, offset: u64, len: u64 },
    Set { at: NodeRef, wish: SetAttrs },
    Rename { from: NodeRef, name: Vec<u8>, to: NodeRef, new: Vec<u8> },
    Link { at: NodeRef, dir: NodeRef, name: Vec<u8> },
    Remove { dir: NodeRef, name: Vec<u8> },
    Rmdir { dir: NodeRef, name: Vec<u8> },
}

pub fn a_create(rng: &mut Rng, dir: NodeRef, name: Vec<u8>) -> Asked {
    let size = rng.percent(20).then(|| rng.below(20_000));
    let attrs = SetAttrs { mode: Some(0o644), size, ..SetAttrs::default() };
    let how = match rng.below(3) {
        0 => CreateHow::Unchecked(attrs),
        1 => CreateHow::Guarded(attrs),
        _ => CreateHow::Exclusive(rng.draw().to_le_bytes()),
    };
    Asked::Create { dir, name, how }
}

pub fn a_make(rng: &mut Rng, dir: NodeRef, name: Vec<u8>) -> Asked {
    let what = match rng.below(10) {
        0..6 => What::Dir,
        6..9 => What::Symlink { target: format!("../{}", rng.below(1000)).into_bytes() },
        _ => What::Fifo,
    };
    let attrs = SetAttrs { mode: Some(0o755), ..SetAttrs::default() };
    Asked::Make { dir, name, new: NewNode { what, attrs } }
}

/// `size_max`: what a file is cut or drawn out to.
pub fn a_wish(rng: &mut Rng, size_max: u64) -> SetAttrs {
    let mut wish = SetAttrs::default();
    match rng.below(5) {
        0 => wish.mode = Some(if rng.percent(50) { 0o640 } else { 0o755 }),
        1 | 2 => wish.size = Some(rng.below(size_max)),
        3 => wish.mtime = SetTime::Client(Time(i64::try_from(rng.below(1 << 50)).unwrap_or(0))),
        _ => wish.uid = Some(u32::try_from(rng.below(3)).unwrap_or(0)),
    }
    wish
}

impl Asked {
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Make { .. } => "make",
            Self::Write { .. } => "write",
            Self::Set { .. } => "setattr",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::Remove { .. } => "remove",
            Self::Rmdir { .. } => "rmdir",
        }
    }

    /// Success without a record would be a lie. What a CREATE finds there already may be answered without one, a RENAME of
    /// an object over itself (its other names: see `World::judge_nothings`), and a SETATTR that changes nothing: a file
    /// given to its owner, a symlink's mode.
    #[must_use]
    pub fn must_be_recorded(&self) -> bool {
        match self {
            Self::Create { how, .. } => matches!(how, CreateHow::Guarded(_)),
            Self::Set { wish, .. } => wish.size.is_some() || wish.mtime != SetTime::Keep,
            Self::Rename { .. } => false,
            _ => true,
        }
    }

    #[must_use]
    pub const fn is_of_names(&self) -> bool {
        !matches!(self, Self::Write { .. } | Self::Set { .. })
    }

    /// What it is about, of which a client may be told that it is stale.
    #[must_use]
    pub const fn about(&self) -> Option<NodeRef> {
        match self {
            Self::Create { dir, .. } | Self::Make { dir, .. } | Self::Remove { dir, .. } | Self::Rmdir { dir, .. } => {
                Some(*dir)
            }
            Self::Write { at, .. } | Self::Set { at, .. } => Some(*at),
            Self::Rename { .. } | Self::Link { .. } => None,
        }
    }

    /// Of an object that it makes.
    #[must_use]
    pub fn makes_dir(&self) -> bool {
        matches!(self, Self::Make { new, .. } if new.what == What::Dir)
    }

    pub async fn ask(&self, volume: &Arc<Volume>, call: &Call) -> Came {
        let plain = |()| (0, None);
        match self.clone() {
            Self::Create { dir, name, how } => {
                let made = volume.create(call, dir, &name, how).await;
                made.map(|found| (0, Some(found.node))).map_err(|r| r.status)
            }
            Self::Make { dir, name, new } => {
                let made = volume.make(call, dir, &name, new).await;
                made.map(|found| (0, Some(found.node))).map_err(|r| r.status)
            }
            Self::Write { at, offset, len } => {
                let written = volume.write(call, at, offset, block(call.xid, offset, len)).await;
                written.map(|(n, _)| (n, None)).map_err(|r| r.status)
            }
            Self::Set { at, wish } => {
                volume.setattr(call, at, wish, None).await.map(drop).map(plain).map_err(|r| r.status)
            }
            Self::Rename { from, name, to, new } => {
                let done = volume.rename(call, from, &name, to, &new).await;
                done.map(drop).map(plain).map_err(|r| r.status)
            }
            Self::Link { at, dir, name } => {
                volume.link(call, at, dir, &name).await.map(drop).map(plain).map_err(|r| r.status)
            }
            Self::Remove { dir, name } => {
                volume.remove(call, dir, &name).await.map(drop).map(plain).map_err(|r| r.status)
            }
            Self::Rmdir { dir, name } => {
                volume.rmdir(call, dir, &name).await.map(drop).map(plain).map_err(|r| r.status)
            }
        }
    }

    /// Whether the record of the call `xid` says what was asked for.
    #[must_use]
    pub fn is_recorded_by(&self, xid: u32, event: &Event, bulk: &[u8]) -> bool {
        match (self, event) {
            (Self::Create { dir, name, .. }, Event::Make(e)) => {
                (e.dir, &e.name, e.what.kind()) == (dir.node, name, Kind::File)
            }
            // There was a file of that name.
            (Self::Create { how: CreateHow::Unchecked(attrs), .. }, Event::SetAttr(e)) => e.size == attrs.size,
            (Self::Make { dir, name, new }, Event::Make(e)) => (e.dir, &e.name, &e.what) == (dir.node, name, &new.what),
            (Self::Write { at, offset, len }, Event::Write(e)) => {
                let whole = block(xid, *offset, *len);
                (e.node, e.offset) == (at.node, *offset) && whole.starts_with(bulk) && bulk.len() == e.len as usize
            }
            (Self::Set { at, wish }, Event::SetAttr(e)) => {
                let time = if let SetTime::Client(time) = wish.mtime { Some(time) } else { None };
                let same = |wish: Option<u32>, is: Option<u32>| wish.is_none() || wish == is;
                e.node == at.node
                    && same(wish.mode, e.mode)
                    && same(wish.uid, e.uid)
                    && (wish.size.is_none() || wish.size == e.size)
                    && (time.is_none() || time == e.mtime)
            }
            (Self::Rename { from, name, to, new }, Event::Rename(e)) => {
                (e.from_dir, &e.from_name, e.to_dir, &e.to_name) == (from.node, name, to.node, new)
            }
            (Self::Link { at, dir, name }, Event::Link(e)) => (e.node, e.dir, &e.name) == (at.node, dir.node, name),
            (Self::Remove { dir, name }, Event::Remove(e)) => {
                (e.dir, &e.name, e.kind == Kind::Dir) == (dir.node, name, false)
            }
            (Self::Rmdir { dir, name }, Event::Remove(e)) => {
                (e.dir, &e.name, e.kind == Kind::Dir) == (dir.node, name, true)
            }
            _ => false,
        }
    }
}

/// Bytes that say which call wrote them, and where.
fn block(xid: u32, offset: u64, len: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    for at in offset..offset + len {
        let word = (u64::from(xid) << 32) | (at & !7);
        let byte = word.to_le_bytes()[usize::try_from(at & 7).unwrap_or(0)];
        bytes.push(if byte == 0 { 0xa5 } else { byte });
    }
    bytes.into()
}
