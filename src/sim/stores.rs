//! What the index lies on: a file in memory per store, with a live and a durable image.
//!
//! A power cut keeps any subset of the 4 KiB pieces that were written since the last sync, and the new length or the
//! old one. Handles of an earlier life are dead: what a dropped database still wants to write is refused, as after
//! `kill -9`.

use super::rng::Rng;
use crate::index::store::{Result, Store};
use crate::index::stores::Stores;
use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const PIECE: usize = 4096;

#[derive(Clone, Debug, Default)]
struct File {
    live: Vec<u8>,
    durable_len: usize,
    /// Durable bytes beneath what is not durable yet.
    beneath: BTreeMap<usize, Vec<u8>>,
}

/// Told that the power has gone.
type Gone = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, File>,
    life: u64,
    /// Changes (writes, lengths, syncs) of this life, and at which one the power goes.
    changes: u64,
    goes: Option<(u64, Gone)>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("life", &self.life).field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// Clones are the same shelf.
#[derive(Clone, Debug, Default)]
pub struct SimStores {
    shelf: Arc<Mutex<Shelf>>,
}

impl SimStores {
    /// The process is no more.
    pub fn kill(&self) {
        self.shelf.lock().die();
    }

    /// Others with the same images.
    #[must_use]
    pub fn fork(&self) -> Self {
        let shelf = self.shelf.lock();
        let shelf = Shelf { files: shelf.files.clone(), life: shelf.life, ..Shelf::default() };
        Self { shelf: Arc::new(Mutex::new(shelf)) }
    }

    /// From here on changes are counted. At that one the power goes, it is not done, and `gone` is told.
    pub fn power_goes_at(&self, change: Option<u64>, gone: impl Fn() + Send + 'static) {
        let mut shelf = self.shelf.lock();
        shelf.changes = 0;
        shelf.goes = change.map(|change| (change, Box::new(gone) as Gone));
    }

    /// Changes since [`SimStores::power_goes_at`].
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shelf.lock().changes
    }

    /// The power goes. Returns the pieces that were lost.
    pub fn cut_power(&self, rng: &mut Rng) -> u64 {
        let mut shelf = self.shelf.lock();
        shelf.die();
        let mut lost = 0;
        for file in shelf.files.values_mut() {
            let chance = rng.below(101);
            if file.live.len() > file.durable_len && rng.percent(50) {
                file.live.truncate(file.durable_len);
            }
            for (piece, old) in std::mem::take(&mut file.beneath) {
                if rng.percent(chance) {
                    continue;
                }
                lost += 1;
                for (at, byte) in file.live.iter_mut().skip(piece * PIECE).take(PIECE).enumerate() {
                    *byte = old.get(at).copied().unwrap_or(0);
                }
            }
            file.durable_len = file.live.len();
        }
        lost
    }
}

impl Shelf {
    fn die(&mut self) {
        self.life += 1;
        self.goes = None;
    }

    /// A change begins; an error when the power goes with it.
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &self.goes {
            Some((at, gone)) if *at <= self.changes => {
                gone();
                Err(io::Error::other("the power went"))
            }
            _ => Ok(()),
        }
    }
}

impl Stores for SimStores {
    fn open(&self, name: &str, cache_bytes: usize, exact: bool) -> Result<Store> {
        let life = self.shelf.lock().life;
        let backend = Backend { shelf: self.shelf.clone(), name: name.to_owned(), life };
        Store::open_on(name, backend, cache_bytes, exact)
    }
}

#[derive(Debug)]
struct Backend {
    shelf: Arc<Mutex<Shelf>>,
    name: String,
    life: u64,
}

impl Backend {
    fn change<T>(&self, f: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        self.with(|_| Ok(()))?;
        self.shelf.lock().change()?;
        self.with(f)
    }

    fn with<T>(&self, f: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut shelf = self.shelf.lock();
        if shelf.life != self.life {
            return Err(io::Error::other("this handle is of an earlier life"));
        }
        f(shelf.files.entry(self.name.clone()).or_default())
    }
}

fn range(offset: u64, len: usize, within: usize) -> io::Result<std::ops::Range<usize>> {
    let from = usize::try_from(offset).map_err(io::Error::other)?;
    match from.checked_add(len) {
        Some(to) if to <= within => Ok(from..to),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.live.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|file| {
            out.copy_from_slice(&file.live[range(offset, out.len(), file.live.len())?]);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| {
            file.live.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|file| {
            file.beneath.clear();
            file.durable_len = file.live.len();
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| {
            let range = range(offset, data.len(), file.live.len())?;
            for piece in range.start / PIECE..range.end.div_ceil(PIECE) {
                if !file.beneath.contains_key(&piece) {
                    let begin = (piece * PIECE).min(file.live.len());
                    let end = (begin + PIECE).min(file.live.len());
                    let old = file.live[begin..end].to_vec();
                    file.beneath.insert(piece, old);
                }
            }
            file.live[range].copy_from_slice(data);
            Ok(())
        })
    }
}
