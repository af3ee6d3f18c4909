//! A gate in front of a filer, for whoever must be sure that nothing of a former attempt comes late.
//!
//! A call that hangs cannot be taken back: its thread waits in the kernel, and when the filer answers, the work it was
//! part of would go on, with data that is old by then. Closed, a fence lets no further call begin; the one that hangs
//! ends when it ends. Whoever closed it waits for the work to end, and opens it again.

use super::{
    Capabilities, Changes, CoreFiler, Error, ErrorKind, FsStat, MakeAttrs, Object, OwnerMarker, Page, Result, Stat,
};
use async_trait::async_trait;
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::Identity;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clones are the same fence.
#[derive(Clone, Default)]
pub struct Fence(Arc<AtomicBool>);

impl Fence {
    pub fn close(&self) {
        self.0.store(true, Ordering::Release);
    }
    pub fn open(&self) {
        self.0.store(false, Ordering::Release);
    }
    fn check(&self, op: &'static str) -> Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Down, op, "an earlier call has not come back; nothing is begun before"));
        }
        Ok(())
    }
}

/// A filer behind a fence.
pub struct Fenced {
    pub inner: Arc<dyn CoreFiler>,
    pub fence: Fence,
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl CoreFiler for Fenced {
            fn capabilities(&self) -> Capabilities {
                self.inner.capabilities()
            }
            $(async fn $name(&self $(, $arg: $type)*) -> Result<$out> {
                self.fence.check(stringify!($name))?;
                self.inner.$name($($arg),*).await
            })*
        }
    };
}

forward! {
    root() -> Object;
    by_identity(id: &Identity) -> Option<Object>;
    lookup(dir: &Object, name: &[u8]) -> Object;
    stat(obj: &Object) -> Stat;
    list(dir: &Object, from: u64, max: usize) -> Page;
    readlink(obj: &Object) -> Vec<u8>;
    read(obj: &Object, offset: u64, len: u32) -> Bytes;
    data_ranges(obj: &Object, offset: u64, len: u64) -> Vec<(u64, u64)>;
    write(obj: &Object, offset: u64, data: Bytes) -> ();
    punch(obj: &Object, offset: u64, len: u64) -> ();
    set(obj: &Object, changes: Changes) -> ();
    make(dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Object;
    link(obj: &Object, dir: &Object, name: &[u8]) -> ();
    rename(from: &Object, name: &[u8], to: &Object, new: &[u8]) -> ();
    remove(dir: &Object, name: &[u8]) -> ();
    rmdir(dir: &Object, name: &[u8]) -> ();
    sync() -> ();
    statfs() -> FsStat;
    xattrs(obj: &Object) -> Vec<(Vec<u8>, Vec<u8>)>;
    set_xattr(obj: &Object, name: &[u8], value: &[u8]) -> ();
    owner() -> Option<OwnerMarker>;
    claim(marker: &OwnerMarker) -> ();
    unclaim() -> ();
    pen() -> Object;
    remove_pen() -> ();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filer::memory::{Memory, Options};

    #[tokio::test]
    async fn a_closed_fence_lets_nothing_begin_and_an_open_one_everything() {
        let fence = Fence::default();
        let filer = Fenced { inner: Arc::new(Memory::new(Options::default())), fence: fence.clone() };
        let root = filer.root().await.unwrap();
        fence.close();
        assert_eq!(filer.sync().await.unwrap_err().kind, ErrorKind::Down);
        assert_eq!(filer.stat(&root).await.unwrap_err().kind, ErrorKind::Down);
        fence.open();
        filer.sync().await.unwrap();
    }
}
