//! What the gateway asks of the volume, as a trait, so that it can be tested without one.

use crate::state::State;
use crate::volume::late::Known;
use crate::volume::types::*;
use async_trait::async_trait;
use bytes::Bytes;
use journal_format::event::Event;
use journal_format::ids::{JunctionId, NodeId, Time};
use std::sync::Arc;

/// Semantics behind the gateway. Every method may be called concurrently, and is never cancelled once it began: a call
/// goes on when its client is gone.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// A directory by its client path (MNT). Of a junction that the caller may not use nothing is looked at.
    async fn mount(&self, path: &[u8], may: MayUse<'_>) -> Answer<NodeRef>;
    async fn getattr(&self, node: NodeRef) -> Answer<Attr>;
    async fn setattr(
        &self,
        call: &Call,
        node: NodeRef,
        set: SetAttrs,
        guard: Option<Time>,
    ) -> Result<Wcc, Refused<Wcc>>;
    async fn lookup(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Found, Refused<Option<Attr>>>;
    async fn access(&self, call: &Call, node: NodeRef, mask: u32) -> Answer<(u32, Attr)>;
    async fn readlink(&self, call: &Call, node: NodeRef) -> Result<(Vec<u8>, Option<Attr>), Refused<Option<Attr>>>;
    async fn read(&self, call: &Call, node: NodeRef, offset: u64, len: u32) -> Result<ReadOk, Refused<Option<Attr>>>;
    /// Bytes written, always FILE_SYNC.
    async fn write(&self, call: &Call, node: NodeRef, offset: u64, data: Bytes) -> Result<(u32, Wcc), Refused<Wcc>>;
    async fn create(&self, call: &Call, dir: NodeRef, name: &[u8], how: CreateHow) -> Result<Found, Refused<Wcc>>;
    /// MKDIR, SYMLINK, MKNOD.
    async fn make(&self, call: &Call, dir: NodeRef, name: &[u8], new: NewNode) -> Result<Found, Refused<Wcc>>;
    async fn remove(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>>;
    async fn rmdir(&self, call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>>;
    async fn rename(
        &self,
        call: &Call,
        from: NodeRef,
        name: &[u8],
        to: NodeRef,
        new: &[u8],
    ) -> Result<(Wcc, Wcc), Refused<(Wcc, Wcc)>>;
    async fn link(
        &self,
        call: &Call,
        node: NodeRef,
        dir: NodeRef,
        name: &[u8],
    ) -> Result<(Option<Attr>, Wcc), Refused<(Option<Attr>, Wcc)>>;
    /// Entries behind `cookie`, no more than there is room for if each has attributes. What leads into a junction that
    /// the caller may not use is a name and nothing more, and nothing of it is looked at.
    async fn readdir(
        &self,
        call: &Call,
        dir: NodeRef,
        cookie: u64,
        verifier: u64,
        room: Room,
        may: MayUse<'_>,
    ) -> Result<Listing, Refused<Option<Attr>>>;
    async fn fsstat(&self, call: &Call, node: NodeRef) -> Answer<Space>;
    async fn attr_opt(&self, node: NodeRef) -> Option<Attr>;
    /// Whether what the journal says of the junction's last operations may still turn out to have been refused.
    async fn in_doubt(&self, junction: JunctionId) -> bool;
    async fn commit(&self, call: &Call, node: NodeRef) -> Result<Wcc, Refused<Wcc>>;
    /// Whether this very call was sent away before (JUKEBOX), and what came of it.
    fn late(&self, call: &Call) -> Answer<Option<Known>>;
    /// The node that the index knows under this name.
    fn leads_to(&self, dir: NodeRef, name: &[u8]) -> Answer<Option<NodeId>>;
    /// Junctions and policies as they are now. To be let go of soon: State is copied when it changes under a reader.
    fn state(&self) -> Arc<State>;
    /// Append what State must know of hosts that hold locks; durable when this returns.
    async fn record(&self, event: Event) -> Answer<()>;
    /// Every junction with its client path.
    async fn exports(&self) -> Vec<(JunctionId, Vec<u8>)>;
}

// The volume behind the gateway.

macro_rules! forward {
    ($($name:ident($($arg:ident: $t:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Backend for crate::volume::Volume {
            $(async fn $name(&self, $($arg: $t),*) -> $out {
                crate::volume::Volume::$name(self, $($arg),*).await
            })*
            async fn record(&self, event: Event) -> Answer<()> {
                crate::volume::Volume::append_fact(self, &event).await
            }
            fn late(&self, call: &Call) -> Answer<Option<Known>> {
                crate::volume::Volume::late(self, call)
            }
            fn leads_to(&self, dir: NodeRef, name: &[u8]) -> Answer<Option<NodeId>> {
                crate::volume::Volume::leads_to(self, dir, name)
            }
            fn state(&self) -> Arc<State> {
                crate::volume::Volume::state(self)
            }
            async fn exports(&self) -> Vec<(JunctionId, Vec<u8>)> {
                crate::volume::Volume::exports(self)
            }
        }
    };
}

forward! {
    mount(path: &[u8], may: MayUse<'_>) -> Answer<NodeRef>;
    getattr(node: NodeRef) -> Answer<Attr>;
    setattr(call: &Call, node: NodeRef, set: SetAttrs, guard: Option<Time>) -> Result<Wcc, Refused<Wcc>>;
    lookup(call: &Call, dir: NodeRef, name: &[u8]) -> Result<Found, Refused<Option<Attr>>>;
    access(call: &Call, node: NodeRef, mask: u32) -> Answer<(u32, Attr)>;
    readlink(call: &Call, node: NodeRef) -> Result<(Vec<u8>, Option<Attr>), Refused<Option<Attr>>>;
    read(call: &Call, node: NodeRef, offset: u64, len: u32) -> Result<ReadOk, Refused<Option<Attr>>>;
    write(call: &Call, node: NodeRef, offset: u64, data: Bytes) -> Result<(u32, Wcc), Refused<Wcc>>;
    create(call: &Call, dir: NodeRef, name: &[u8], how: CreateHow) -> Result<Found, Refused<Wcc>>;
    make(call: &Call, dir: NodeRef, name: &[u8], new: NewNode) -> Result<Found, Refused<Wcc>>;
    remove(call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>>;
    rmdir(call: &Call, dir: NodeRef, name: &[u8]) -> Result<Wcc, Refused<Wcc>>;
    rename(call: &Call, from: NodeRef, name: &[u8], to: NodeRef, new: &[u8]) -> Result<(Wcc, Wcc), Refused<(Wcc, Wcc)>>;
    link(call: &Call, node: NodeRef, dir: NodeRef, name: &[u8])
        -> Result<(Option<Attr>, Wcc), Refused<(Option<Attr>, Wcc)>>;
    readdir(call: &Call, dir: NodeRef, cookie: u64, verifier: u64, room: Room, may: MayUse<'_>)
        -> Result<Listing, Refused<Option<Attr>>>;
    fsstat(call: &Call, node: NodeRef) -> Answer<Space>;
    attr_opt(node: NodeRef) -> Option<Attr>;
    in_doubt(junction: JunctionId) -> bool;
    commit(call: &Call, node: NodeRef) -> Result<Wcc, Refused<Wcc>>;
}
