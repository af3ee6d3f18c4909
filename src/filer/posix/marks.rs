//! What tain keeps at a location's root: the owner marker and the pen.

use super::attrs::sized;
use super::data::write_fd;
use super::errno::fail;
use super::names::ensure_dir;
use super::node::Node;
use super::tree::{Root, Tree, beneath, create, proc_path};
use crate::filer::hidden::{MARKER_BYTES_MAX, OWNER_FILE, OWNER_FILE_NEW, OWNER_XATTR, PEN};
use crate::filer::{OwnerMarker, Result};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, OFlags, XattrFlags, fsync, renameat, unlinkat};
use rustix::io::{Errno, pread};
use std::sync::Arc;

pub(super) fn owner(tree: &Tree) -> Result<Option<OwnerMarker>> {
    let marker = owner_at(tree, &tree.root())?;
    tree.mark.lock().clone_from(&marker);
    Ok(marker)
}

/// The one of a root that the tree may not have taken for its own yet.
pub(super) fn owner_at(tree: &Tree, root: &Root) -> Result<Option<OwnerMarker>> {
    let path = proc_path(&root.node.path);
    match tree.lent(&[&root.node], || sized(|buf| rustix::fs::getxattr(path.as_str(), OWNER_XATTR, buf))) {
        Ok(text) => return OwnerMarker::from_text(&text).map(Some),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(e) => return Err(fail("read the owner marker")(e)),
    }
    let open = || beneath(&root.node.path, OWNER_FILE, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = match tree.lent(&[&root.node], open) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(fail("read the owner marker"))?,
    };
    let mut text = Vec::with_capacity(MARKER_BYTES_MAX);
    pread(&file, spare_capacity(&mut text), 0).map_err(fail("read the owner marker"))?;
    OwnerMarker::from_text(&text).map(Some)
}

/// Durable when it returns.
pub(super) fn claim(tree: &Tree, marker: &OwnerMarker) -> Result<()> {
    let root = tree.root();
    let text = marker.to_text();
    let path = proc_path(&root.node.path);
    let set = || rustix::fs::setxattr(path.as_str(), OWNER_XATTR, text.as_bytes(), XattrFlags::empty());
    match tree.lent(&[&root.node], set) {
        Ok(()) => unlink(tree, &root.node, OWNER_FILE)?,
        // None here, not for us (a sticky directory of somebody else's), or no room for one.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOSPC) => claim_by_file(tree, &root.node, &text)?,
        Err(e) => return Err(fail("write the owner marker")(e)),
    }
    fsync(&root.dir).map_err(fail("write the owner marker"))?;
    *tree.mark.lock() = Some(marker.clone());
    Ok(())
}

fn claim_by_file(tree: &Tree, root: &Node, text: &str) -> Result<()> {
    unlink(tree, root, OWNER_FILE_NEW)?;
    let failed = fail("write the owner marker");
    let file = tree.lent(&[root], || create(&root.path, OWNER_FILE_NEW)).map_err(&failed)?;
    write_fd(&file, 0, text.as_bytes())?;
    fsync(&file).map_err(&failed)?;
    tree.lent(&[root], || renameat(&root.path, OWNER_FILE_NEW, &root.path, OWNER_FILE)).map_err(&failed)
}

pub(super) fn unclaim(tree: &Tree) -> Result<()> {
    let root = tree.root();
    *tree.mark.lock() = None;
    let path = proc_path(&root.node.path);
    match tree.lent(&[&root.node], || rustix::fs::removexattr(path.as_str(), OWNER_XATTR)) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        // The marker is a file then.
        Err(Errno::PERM | Errno::ACCESS) => {}
        Err(e) => return Err(fail("take the owner marker away")(e)),
    }
    unlink(tree, &root.node, OWNER_FILE)?;
    unlink(tree, &root.node, OWNER_FILE_NEW)?;
    fsync(&root.dir).map_err(fail("take the owner marker away"))
}

fn unlink(tree: &Tree, root: &Node, name: &[u8]) -> Result<()> {
    match tree.lent(&[root], || unlinkat(&root.path, name, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(fail("take the owner marker away")(e)),
    }
}

pub(super) fn pen(tree: &Tree) -> Result<Arc<Node>> {
    ensure_dir(tree, &tree.root().node, PEN, 0o700)
}

pub(super) fn remove_pen(tree: &Tree) -> Result<()> {
    let root = tree.root();
    match tree.lent(&[&root.node], || unlinkat(&root.node.path, PEN, AtFlags::REMOVEDIR)) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(e) => return Err(fail("remove the pen")(e)),
    }
    Ok(())
}
