//! A filer's subtree with its identities.

use crate::filer::{self, CoreFiler, Object};
use crate::index::live::Live;
use crate::index::objects::Objects;
use journal_format::ids::{LocationId, NodeId};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Location {
    pub id: LocationId,
    pub filer: Arc<dyn CoreFiler>,
    pub objects: Objects,
}

impl Location {
    /// The node's object: remembered, by identity, or by walking the live names and checking the identity.
    pub async fn object(&self, _live: &Live, _node: NodeId) -> filer::Result<Object> {
        todo!()
    }
    /// Keep an object that was just made or met at hand.
    pub fn remember(&self, _node: NodeId, _object: &Object) {
        todo!()
    }
    pub fn forget(&self, _node: NodeId) {
        todo!()
    }
    /// The node's kept times must be put on the filer before the location's cursor passes. Returns how many wait.
    pub fn touch(&self, _node: NodeId) -> usize {
        todo!()
    }
}

/// The open locations.
#[derive(Default)]
pub struct Locations {
    map: RwLock<BTreeMap<LocationId, Arc<Location>>>,
}

impl Locations {
    /// `None`: unknown or down.
    pub fn get(&self, id: LocationId) -> Option<Arc<Location>> {
        self.map.read().get(&id).cloned()
    }
    pub fn insert(&self, location: Arc<Location>) {
        self.map.write().insert(location.id, location);
    }
    pub fn remove(&self, id: LocationId) {
        self.map.write().remove(&id);
    }
}
