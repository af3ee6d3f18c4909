//! A filer in memory that can be made to hang: calls begun while the gate is closed end when it is opened again.

use crate::filer::memory::Memory;
use crate::filer::registry::Filers;
use crate::filer::{Capabilities, Changes, CoreFiler, FsStat, MakeAttrs, Object, OwnerMarker, Page, Result, Stat};
use async_trait::async_trait;
use bytes::Bytes;
use journal_format::event::What;
use journal_format::ids::Identity;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Gated {
    pub filer: Memory,
    open: Arc<watch::Sender<bool>>,
    /// Calls that stand before the closed gate.
    waiting: Arc<AtomicUsize>,
}

impl Gated {
    pub fn new() -> Self {
        Self { filer: Memory::default(), open: Arc::new(watch::Sender::new(true)), waiting: Arc::default() }
    }

    pub fn hang(&self, hangs: bool) {
        self.open.send_replace(!hangs);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    async fn pass(&self) -> &Memory {
        let mut open = self.open.subscribe();
        if !*open.borrow() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _ = open.wait_for(|open| *open).await;
        }
        &self.filer
    }
}

/// By URL.
pub struct Rack(pub BTreeMap<String, Gated>);

#[async_trait]
impl Filers for Rack {
    async fn open(&self, url: &str, _: &[u8], _: &[Vec<u8>], _: Option<&Identity>) -> Result<Arc<dyn CoreFiler>> {
        let gated = self.0.get(url).unwrap().clone();
        gated.pass().await;
        Ok(Arc::new(gated))
    }
}

#[async_trait]
impl CoreFiler for Gated {
    fn capabilities(&self) -> Capabilities {
        self.filer.capabilities()
    }
    async fn root(&self) -> Result<Object> {
        self.pass().await.root().await
    }
    async fn by_identity(&self, id: &Identity) -> Result<Option<Object>> {
        self.pass().await.by_identity(id).await
    }
    async fn lookup(&self, dir: &Object, name: &[u8]) -> Result<Object> {
        self.pass().await.lookup(dir, name).await
    }
    async fn stat(&self, obj: &Object) -> Result<Stat> {
        self.pass().await.stat(obj).await
    }
    async fn list(&self, dir: &Object, from: u64, max: usize) -> Result<Page> {
        self.pass().await.list(dir, from, max).await
    }
    async fn readlink(&self, obj: &Object) -> Result<Vec<u8>> {
        self.pass().await.readlink(obj).await
    }
    async fn read(&self, obj: &Object, offset: u64, len: u32) -> Result<Bytes> {
        self.pass().await.read(obj, offset, len).await
    }
    async fn data_ranges(&self, obj: &Object, offset: u64, len: u64) -> Result<Vec<(u64, u64)>> {
        self.pass().await.data_ranges(obj, offset, len).await
    }
    async fn write(&self, obj: &Object, offset: u64, data: Bytes) -> Result<()> {
        self.pass().await.write(obj, offset, data).await
    }
    async fn punch(&self, obj: &Object, offset: u64, len: u64) -> Result<()> {
        self.pass().await.punch(obj, offset, len).await
    }
    async fn set(&self, obj: &Object, changes: Changes) -> Result<()> {
        self.pass().await.set(obj, changes).await
    }
    async fn make(&self, dir: &Object, name: &[u8], what: &What, attrs: MakeAttrs) -> Result<Object> {
        self.pass().await.make(dir, name, what, attrs).await
    }
    async fn make_nameless(&self, dir: &Object, attrs: MakeAttrs) -> Result<Object> {
        self.pass().await.make_nameless(dir, attrs).await
    }
    async fn link(&self, obj: &Object, dir: &Object, name: &[u8]) -> Result<()> {
        self.pass().await.link(obj, dir, name).await
    }
    async fn rename(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        self.pass().await.rename(from, name, to, new).await
    }
    async fn rename_free(&self, from: &Object, name: &[u8], to: &Object, new: &[u8]) -> Result<()> {
        self.pass().await.rename_free(from, name, to, new).await
    }
    async fn remove(&self, dir: &Object, name: &[u8]) -> Result<()> {
        self.pass().await.remove(dir, name).await
    }
    async fn rmdir(&self, dir: &Object, name: &[u8]) -> Result<()> {
        self.pass().await.rmdir(dir, name).await
    }
    async fn sync(&self) -> Result<()> {
        self.pass().await.sync().await
    }
    fn was_mounted_anew(&self) -> bool {
        self.filer.was_mounted_anew()
    }
    async fn statfs(&self) -> Result<FsStat> {
        self.pass().await.statfs().await
    }
    async fn xattrs(&self, obj: &Object) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.pass().await.xattrs(obj).await
    }
    async fn set_xattr(&self, obj: &Object, name: &[u8], value: &[u8]) -> Result<()> {
        self.pass().await.set_xattr(obj, name, value).await
    }
    async fn owner(&self) -> Result<Option<OwnerMarker>> {
        self.pass().await.owner().await
    }
    async fn claim(&self, marker: &OwnerMarker) -> Result<()> {
        self.pass().await.claim(marker).await
    }
    async fn unclaim(&self) -> Result<()> {
        self.pass().await.unclaim().await
    }
    async fn pen(&self) -> Result<Object> {
        self.pass().await.pen().await
    }
    async fn remove_pen(&self) -> Result<()> {
        self.pass().await.remove_pen().await
    }
}
