//! Filers in memory that have a URL (`memory:///name`), each on the thread that named it: a simulated world is one
//! thread, and so are a test's filers its own.

use super::Memory;
use crate::filer::{CoreFiler, Error, ErrorKind, Probe, Result};
use journal_format::event::FilerFound;
use journal_format::ids::Identity;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

thread_local! {
    static NAMED: RefCell<BTreeMap<Vec<u8>, Memory>> = const { RefCell::new(BTreeMap::new()) };
}

/// From here on `memory:///name` is this filer.
pub fn put(name: &str, memory: Memory) {
    NAMED.with_borrow_mut(|named| named.insert(format!("/{name}").into_bytes(), memory));
}

/// No URL leads anywhere any more.
pub fn clear() {
    NAMED.with_borrow_mut(BTreeMap::clear);
}

fn find(path: &[u8]) -> Result<Memory> {
    NAMED
        .with_borrow(|named| named.get(path).cloned())
        .ok_or_else(|| Error::new(ErrorKind::Down, "reach a filer in memory", "it is not there"))
}

pub async fn probe(path: &[u8]) -> Result<Probe> {
    let memory = find(path)?;
    let root = memory.root().await?;
    let can = memory.capabilities();
    let found = FilerFound {
        can_chown: can.chown,
        can_mknod: can.special_files,
        has_xattrs: can.xattrs,
        has_holes: can.holes,
        time_granularity_ns: 1,
    };
    Ok(Probe { root: root.id.0, root_is_unique: true, found, remarks: Vec::new() })
}

/// All of a filer is the only location on it.
pub async fn open(
    path: &[u8],
    expected_root: &[u8],
    subdir: &[Vec<u8>],
    expected_dir: Option<&Identity>,
) -> Result<Arc<dyn CoreFiler>> {
    let memory = find(path)?;
    let root = memory.root().await?;
    if root.id.0 != expected_root || expected_dir.is_some_and(|dir| *dir != root.id) {
        return Err(Error::new(ErrorKind::Down, "open a filer in memory", "its root is another one"));
    }
    if !subdir.is_empty() {
        return Err(Error::new(ErrorKind::NotSupported, "open a filer in memory", "all of it is one location"));
    }
    Ok(Arc::new(memory))
}
