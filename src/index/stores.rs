//! Where the index's stores lie: a directory, or what a simulated world keeps them on.

use super::store::{Result, Store};
use std::io;
use std::path::PathBuf;

pub trait Stores: Send + Sync {
    /// Open the store of this name, or create it. `exact`: see [`Store::open_exact`].
    fn open(&self, name: &str, cache_bytes: usize, exact: bool) -> Result<Store>;
}

/// A file each.
pub struct Directory(pub PathBuf);

impl Directory {
    /// Remove the stores of these names but for those that are wanted. Returns how many there were.
    pub fn remove_others(&self, prefix: &str, is_wanted: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".redb"));
            if name.is_some_and(|name| name.starts_with(prefix) && !is_wanted(name)) {
                std::fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Stores for Directory {
    fn open(&self, name: &str, cache_bytes: usize, exact: bool) -> Result<Store> {
        let path = self.0.join(format!("{name}.redb"));
        if exact { Store::open_exact(&path, cache_bytes) } else { Store::open(&path, cache_bytes) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn stores_that_nobody_wants_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Directory(dir.path().to_owned());
        for name in ["live", "location-1", "location-12", "location-2"] {
            drop(stores.open(name, 1 << 20, false).unwrap());
        }
        std::fs::write(dir.path().join("location-1.bak"), "an operator's").unwrap();
        assert_eq!(stores.remove_others("location-", |name| name == "location-12").unwrap(), 2);
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["live.redb", "location-1.bak", "location-12.redb"]);
    }
}
