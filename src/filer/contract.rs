//! One suite that every kind of filer passes; cases that need a capability are left out where it is missing.
//!
//! [`run`] is handed a way to make a fresh, empty location; each case gets one of its own. A case that fails panics,
//! saying which it was. [`Ground`] lets a kind reach behind the filer's back where a case needs it.

mod data;
mod names;
mod place;

use super::{AclKind, Changes, CoreFiler, ErrorKind, MakeAttrs, Object, OwnerMarker, Result};
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::{Identity, Kind, Time};
use std::sync::Arc;

/// A fresh location, and what the case may do to it that no filer does.
pub struct Ground {
    pub filer: Arc<dyn CoreFiler>,
    /// Puts another directory in the place of the location's.
    pub replace_root: Box<dyn Fn() + Send + Sync>,
    /// Keeps what the location stands on until the case is over.
    pub keep: Box<dyn std::any::Any + Send>,
}

/// Runs every case. `make` is called once a case.
pub async fn run(make: impl Fn() -> Ground) {
    names::run(&make).await;
    data::run(&make).await;
    place::run(&make).await;
}

/// Runs the named cases, printing each name first, so that a panic below it is its failure.
macro_rules! cases {
    ($make:expr; $($case:ident),+ $(,)?) => {
        $(
            println!("contract: {}", stringify!($case));
            let ground = $make();
            $case(&ground).await;
        )+
    };
}
use cases;

/// Attributes that the service's own user may give.
fn attrs(mode: u32) -> MakeAttrs {
    MakeAttrs {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        inherits: false,
    }
}

async fn root(ground: &Ground) -> Object {
    ground.filer.root().await.expect("the location's root")
}

async fn file(ground: &Ground, dir: &Object, name: &[u8]) -> Object {
    ground.filer.make(dir, name, &What::File, attrs(0o644)).await.expect("make a file")
}

async fn dir(ground: &Ground, parent: &Object, name: &[u8]) -> Object {
    ground.filer.make(parent, name, &What::Dir, attrs(0o755)).await.expect("make a directory")
}

async fn symlink(ground: &Ground, parent: &Object, name: &[u8], target: &[u8]) -> Object {
    let what = What::Symlink { target: target.to_vec() };
    ground.filer.make(parent, name, &what, attrs(0o777)).await.expect("make a symlink")
}

/// The kind of error, where there must be one.
fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(e) => e.kind,
    }
}

/// All names, by pages of `max`.
async fn names(ground: &Ground, dir: &Object, max: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let page = ground.filer.list(dir, from, max).await.expect("list");
        all.extend(page.names);
        match page.next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

async fn sorted(ground: &Ground, dir: &Object, max: usize) -> Vec<Vec<u8>> {
    let mut all = names(ground, dir, max).await;
    all.sort();
    all
}

async fn id_of(ground: &Ground, dir: &Object, name: &[u8]) -> journal_format::ids::Identity {
    ground.filer.lookup(dir, name).await.expect("look up").id
}

const ALL_WHATS: [(What, Kind); 5] = [
    (What::File, Kind::File),
    (What::Dir, Kind::Dir),
    (What::Fifo, Kind::Fifo),
    (What::Socket, Kind::Socket),
    (What::Symlink { target: Vec::new() }, Kind::Symlink),
];
