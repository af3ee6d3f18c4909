//! Where the index's stores lie: a directory, or what a simulated world keeps them on.

use super::store::{Result, Store};
use std::path::PathBuf;

pub trait Stores: Send + Sync {
    /// Open the store of this name, or create it. `exact`: see [`Store::open_exact`].
    fn open(&self, name: &str, cache_bytes: usize, exact: bool) -> Result<Store>;
}

/// A file each.
pub struct Directory(pub PathBuf);

impl Stores for Directory {
    fn open(&self, name: &str, cache_bytes: usize, exact: bool) -> Result<Store> {
        let path = self.0.join(format!("{name}.redb"));
        if exact { Store::open_exact(&path, cache_bytes) } else { Store::open(&path, cache_bytes) }
    }
}
