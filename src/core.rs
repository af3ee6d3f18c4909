//! What the long-running tasks share: the ledger, the index, the locations that are open.

use crate::filer::fence::{Fenced, Reached};
use crate::filer::registry::{Filers, check_marker};
use crate::index::live::Live;
use crate::index::objects::Objects;
use crate::index::stores::Stores;
use crate::ledger::Ledger;
use crate::location::{Location, Locations};
use crate::state::{LocationState, Role, State};
use crate::volume::Volume;
use crate::{filer, index, journal, location, state};
use journal_format::ids::{LocationId, NodeId};
use std::sync::Arc;

/// Cache of the live index and of one location's store, bytes.
pub const LIVE_CACHE: usize = 16 << 20;
pub const LOCATION_CACHE: usize = 8 << 20;

/// Clones are the same core.
#[derive(Clone)]
pub struct Core {
    pub ledger: Ledger,
    pub live: Arc<Live>,
    /// Primaries that clients are served from.
    pub locations: Arc<Locations>,
    pub volume: Arc<Volume>,
    /// Where the index's stores are.
    pub stores: Arc<dyn Stores>,
    /// How locations are reached.
    pub filers: Arc<dyn Filers>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Index(#[from] index::store::Error),
    #[error("{0}")]
    Filer(#[from] filer::Error),
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The journal has ended, and the process is about to stop.
    #[must_use]
    pub fn is_the_end(&self) -> bool {
        matches!(self, Self::Journal(error) if error.is_the_end())
    }
}

impl From<location::redo::Error> for Error {
    fn from(error: location::redo::Error) -> Self {
        match error {
            location::redo::Error::Journal(e) => Self::Journal(e),
            location::redo::Error::Filer(e) => Self::Filer(e),
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Name of the live index's store.
pub const LIVE_STORE: &str = "live";

/// What the names of locations' stores begin with.
pub const STORES_OF_LOCATIONS: &str = "location-";

/// Name of a location's store.
#[must_use]
pub fn store_name(id: LocationId) -> String {
    format!("{STORES_OF_LOCATIONS}{}", id.0)
}

/// Reach a location: its filer answers, its root is the one that was added, its store is open.
pub async fn open_location(core: &Core, state: &State, id: LocationId) -> Result<Arc<Location>> {
    let (at, filer) = place(state, id)?;
    let reached = core.filers.open(&filer.url, &filer.root, &at.subdir, Some(&at.root)).await?;
    check_marker(core.ledger.journal.id(), id, (&filer.url, &filer.root), reached.as_ref()).await?;
    let (root, objects) = open_objects(core, state, id).await?;
    Ok(Arc::new(match at.role {
        Role::Destination(_) => Location::fenced(id, root, Arc::new(Fenced::new(reached)), objects),
        Role::Primary(_) | Role::Left => {
            Location::new(id, root, reached, objects).counted_by(core.locations.untimed(id))
        }
    }))
}

/// A destination whose filer does not answer: its store is open, the filer is reached when it can be.
pub async fn open_later(core: &Core, state: &State, id: LocationId) -> Result<Arc<Location>> {
    let (at, filer) = place(state, id)?;
    let (filers, filer, at) = (core.filers.clone(), filer.clone(), at.clone());
    let journal_id = core.ledger.journal.id();
    let reach = move || -> Reached {
        let (filers, filer, at) = (filers.clone(), filer.clone(), at.clone());
        Box::pin(async move {
            let reached = filers.open(&filer.url, &filer.root, &at.subdir, Some(&at.root)).await?;
            check_marker(journal_id, id, (&filer.url, &filer.root), reached.as_ref()).await?;
            Ok(reached)
        })
    };
    let (root, objects) = open_objects(core, state, id).await?;
    Ok(Arc::new(Location::fenced(id, root, Arc::new(Fenced::later(Box::new(reach))), objects)))
}

async fn open_objects(core: &Core, state: &State, id: LocationId) -> Result<(NodeId, Objects)> {
    let (at, _) = place(state, id)?;
    let root = root_node(state, at).ok_or_else(|| Error::Other(format!("location {id} has no role")))?;
    let exact = matches!(at.role, Role::Destination(_));
    let stores = core.stores.clone();
    let store = blocking(move || Ok(stores.open(&store_name(id), LOCATION_CACHE, exact)?)).await?;
    let objects = Objects::new(Arc::new(store));
    objects.store.write(objects.put(root, &at.root)?);
    Ok((root, objects))
}

fn place(state: &State, id: LocationId) -> Result<(&LocationState, &state::Filer)> {
    let Some(at) = state.locations.get(&id) else { return Err(Error::Other(format!("location {id} is not known"))) };
    let Some(filer) = state.filers.get(&at.filer) else {
        return Err(Error::Other(format!("location {id} is on a filer that is not known")));
    };
    Ok((at, filer))
}

/// The node of a location's root directory: its junction's, which is the same on all of a junction's locations.
fn root_node(state: &State, at: &LocationState) -> Option<NodeId> {
    let junction = match at.role {
        Role::Primary(junction) => junction,
        Role::Destination(job) => state.jobs.get(&job)?.junction,
        Role::Left => return None,
    };
    Some(state.junctions.get(&junction)?.root)
}

/// Run what touches a disk aside from the tasks that serve.
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    crate::env::aside(f).await.unwrap_or_else(|stopping| Err(Error::Other(stopping.to_string())))
}
