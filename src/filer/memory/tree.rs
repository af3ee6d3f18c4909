//! The whole filer at one instant, for those who judge it.

use super::Memory;
use super::image::{Image, Ino};
use crate::filer::Stat;
use crate::filer::hidden::{OWNER_XATTR, is_hidden};
use std::collections::{BTreeMap, BTreeSet};

/// One name's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Names from the root down, each behind a slash; the root's is empty.
    pub path: Vec<u8>,
    /// The object: several paths may have one.
    pub number: u64,
    pub stat: Stat,
    pub bytes: Vec<u8>,
    pub target: Vec<u8>,
    /// Offset and length of what is no hole.
    pub data: Vec<(u64, u64)>,
    /// Extended attributes, ACLs among them; not tain's own mark.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Memory {
    /// Everything that has a name and is no secret of tain's, each directory before what is in it.
    #[must_use]
    pub fn tree(&self) -> Vec<Found> {
        let world = self.shared.world.lock();
        walk(&world.live, world.root)
    }

    /// The same of what a power cut would leave at the least.
    #[must_use]
    pub fn durable_tree(&self) -> Vec<Found> {
        let world = self.shared.world.lock();
        walk(&world.durable, world.durable_root)
    }
}

fn walk(image: &Image, root: Ino) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut queue = vec![(Vec::new(), root)];
    while let Some((path, ino)) = queue.pop() {
        let Ok(inode) = image.get(ino) else { continue };
        if seen.insert(ino) {
            for (name, below) in inode.names() {
                if ino == root && is_hidden(name) {
                    continue;
                }
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(name);
                queue.push((path, below));
            }
        }
        let content = &inode.content;
        let mut xattrs = inode.xattrs.clone();
        xattrs.remove(OWNER_XATTR);
        found.push(Found {
            path,
            number: ino,
            stat: inode.stat(),
            bytes: content.read(0, content.size),
            target: inode.target.clone(),
            data: content.data_ranges(0, u64::MAX),
            xattrs,
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}
