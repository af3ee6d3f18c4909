//! A gate in front of a filer, for whoever must be sure that nothing of a former attempt comes late, and who must get
//! on while the filer cannot be reached at all.
//!
//! A call that hangs cannot be taken back: its thread waits in the kernel, and when the filer answers, the work it was
//! part of would go on, with data that is old by then. Closed, a fence lets no further call begin; the one that hangs
//! ends when it ends. Whoever closed it waits for the work to end, and opens it again.
//!
//! A filer behind a fence may be reached later than it is asked for ([`Fenced::later`]): until its root was found every
//! call says that it is down.

use super::{
    AclKind, Capabilities, Changes, CoreFiler, Error, ErrorKind, FsStat, MakeAttrs, Object, OwnerMarker, Page, Result,
    Stat,
};
use async_trait::async_trait;
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::Identity;
use parking_lot::RwLock;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    #[cfg(test)]
    hung: AtomicBool,
    #[cfg(test)]
    goes_on: tokio::sync::Notify,
}

/// Clones are the same fence.
#[derive(Clone, Default)]
pub struct Fence(Arc<Gate>);

impl Fence {
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }
    pub fn open(&self) {
        self.0.closed.store(false, Ordering::Release);
    }
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
    fn check(&self, op: &'static str) -> Result<()> {
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Down, op, "an earlier call has not come back; nothing is begun before"));
        }
        Ok(())
    }

    #[cfg(not(test))]
    fn may_pass_at_once(&self) -> bool {
        !self.is_closed()
    }

    #[cfg(test)]
    fn may_pass_at_once(&self) -> bool {
        !self.is_closed() && !self.0.hung.load(Ordering::Acquire)
    }

    /// For tests: calls that are let through hang behind the fence, until told otherwise.
    #[cfg(test)]
    pub fn hang(&self, hung: bool) {
        self.0.hung.store(hung, Ordering::Release);
        self.0.goes_on.notify_waiters();
    }

    #[cfg(test)]
    async fn while_hung(&self) {
        loop {
            let goes_on = self.0.goes_on.notified();
            tokio::pin!(goes_on);
            goes_on.as_mut().enable();
            if !self.0.hung.load(Ordering::Acquire) {
                return;
            }
            goes_on.await;
        }
    }
}

/// A filer on its way.
pub type Reached = Pin<Box<dyn Future<Output = Result<Arc<dyn CoreFiler>>> + Send>>;
/// How a filer is reached.
pub type Reach = Box<dyn Fn() -> Reached + Send + Sync>;

/// A filer behind a fence.
pub struct Fenced {
    pub fence: Fence,
    inner: RwLock<Option<Arc<dyn CoreFiler>>>,
    reach: Option<Reach>,
}

impl Fenced {
    #[must_use]
    pub fn new(inner: Arc<dyn CoreFiler>) -> Self {
        Self { fence: Fence::default(), inner: RwLock::new(Some(inner)), reach: None }
    }

    /// Reached when its root is asked for.
    #[must_use]
    pub fn later(reach: Reach) -> Self {
        Self { fence: Fence::default(), inner: RwLock::new(None), reach: Some(reach) }
    }

    async fn pass(&self, op: &'static str) -> Result<Arc<dyn CoreFiler>> {
        self.fence.check(op)?;
        #[cfg(test)]
        self.fence.while_hung().await;
        let reached = self.inner.read().clone();
        match (reached, &self.reach) {
            (Some(inner), _) => Ok(inner),
            (None, Some(reach)) if op == "root" => {
                let inner = reach().await?;
                *self.inner.write() = Some(inner.clone());
                Ok(inner)
            }
            (None, _) => Err(Error::new(ErrorKind::Down, op, "the filer has not been reached yet")),
        }
    }
}

impl Fenced {
    fn pass_at_once(&self) -> Option<Arc<dyn CoreFiler>> {
        self.fence.may_pass_at_once().then(|| self.inner.read().clone())?
    }
}

/// What a filer can do that has not been reached: nothing is asked of it before its root is.
const NOTHING: Capabilities = Capabilities {
    hard_links: false,
    nameless: false,
    special_files: false,
    holes: false,
    xattrs: false,
    acls: false,
    open_by_identity: false,
    lasting_positions: false,
    chown: false,
};

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl CoreFiler for Fenced {
            fn capabilities(&self) -> Capabilities {
                self.inner.read().as_ref().map_or(NOTHING, |inner| inner.capabilities())
            }
            fn lookup_at_once(&self, dir: &Object, name: &[u8]) -> Option<Object> {
                self.pass_at_once()?.lookup_at_once(dir, name)
            }
            fn stat_at_once(&self, obj: &Object) -> Option<Stat> {
                self.pass_at_once()?.stat_at_once(obj)
            }
            fn stat_named_at_once(&self, dir: &Object, name: &[u8], id: &Identity) -> Option<Stat> {
                self.pass_at_once()?.stat_named_at_once(dir, name, id)
            }
            fn was_mounted_anew(&self) -> bool {
                self.inner.read().as_ref().is_some_and(|inner| inner.was_mounted_anew())
            }
            fn nameless_max(&self) -> usize {
                self.inner.read().as_ref().map_or(0, |inner| inner.nameless_max())
            }
            fn answers_at_once(&self) -> bool {
                self.pass_at_once().is_some_and(|inner| inner.answers_at_once())
            }
            $(async fn $name(&self $(, $arg: $type)*) -> Result<$out> {
                self.pass(stringify!($name)).await?.$name($($arg),*).await
            })*
        }
    };
}
forward! {
    root() -> Object;
    by_identity(id: &Identity) -> Option<Object>;
    lookup(dir: &Object, name: &[u8]) -> Object;
    folds_names(dir: &Object) -> bool;
    stat(obj: &Object) -> Stat;
    list(dir: &Object, from: u64, max: usize) -> Page;
    readlink(obj: &Object) -> Vec<u8>;
    read(obj: &Object, offset: u64, len: u32) -> Bytes;
    data_ranges(obj: &Object, offset: u64, len: u64) -> Vec<(u64, u64)>;
    write(obj: &Object, offset: u64, data: Bytes) -> ();
    punch(obj: &Object, offset: u64, len: u64) -> ();
    set(obj: &Object, changes: Changes) -> ();
    make(dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Object;
    make_nameless(dir: &Object, attrs: MakeAttrs) -> Object;
    link(obj: &Object, dir: &Object, name: &[u8]) -> ();
    rename(from: &Object, name: &[u8], to: &Object, new: &[u8]) -> ();
    rename_free(from: &Object, name: &[u8], to: &Object, new: &[u8]) -> ();
    remove(dir: &Object, name: &[u8]) -> ();
    rmdir(dir: &Object, name: &[u8]) -> ();
    sync() -> ();
    statfs() -> FsStat;
    acl(obj: &Object, which: AclKind) -> Option<Bytes>;
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
        let filer = Fenced::new(Arc::new(Memory::new(Options::default())));
        let fence = filer.fence.clone();
        let root = filer.root().await.unwrap();
        fence.close();
        assert_eq!(filer.sync().await.unwrap_err().kind, ErrorKind::Down);
        assert_eq!(filer.stat(&root).await.unwrap_err().kind, ErrorKind::Down);
        fence.open();
        filer.sync().await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_answered_at_once_through_a_closed_fence() {
        let temp = tempfile::tempdir().unwrap();
        let url = format!("posix://{}", temp.path().display());
        let probe = crate::filer::registry::probe(&url).await.unwrap();
        let inner = crate::filer::registry::open(&url, &probe.root, &[], None).await.unwrap();
        let filer = Fenced::new(inner.clone());
        let root = filer.root().await.unwrap();
        assert_eq!(filer.answers_at_once(), inner.answers_at_once());
        assert_eq!(filer.stat_at_once(&root), inner.stat_at_once(&root));
        filer.fence.close();
        assert!(!filer.answers_at_once() && filer.stat_at_once(&root).is_none());
        assert!(filer.lookup_at_once(&root, b"name").is_none());
    }

    #[tokio::test]
    async fn a_filer_that_is_reached_later_is_down_until_its_root_was_found() {
        let memory = Memory::new(Options::default());
        let there = Arc::new(AtomicBool::new(false));
        let (of, is_there) = (memory.clone(), there.clone());
        let reach: Reach = Box::new(move || {
            let reached: Result<Arc<dyn CoreFiler>> = match is_there.load(Ordering::Acquire) {
                true => Ok(Arc::new(of.clone())),
                false => Err(Error::new(ErrorKind::Down, "reach", "not there")),
            };
            Box::pin(std::future::ready(reached))
        });
        let filer = Fenced::later(reach);
        assert_eq!(filer.root().await.err().map(|e| e.kind), Some(ErrorKind::Down));
        there.store(true, Ordering::Release);
        assert_eq!(filer.sync().await.unwrap_err().kind, ErrorKind::Down, "its root comes first");
        let root = filer.root().await.unwrap();
        filer.stat(&root).await.unwrap();
        assert_eq!(filer.capabilities(), memory.capabilities());
    }
}
