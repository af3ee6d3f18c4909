//! A client operation: lock, check, append, carry out, answer. A file per procedure under `ops/`.

pub mod hold;
pub mod locks;
pub mod types;
pub use types::*;

use crate::index::live::Live;
use crate::ledger::Ledger;
use crate::location::Locations;
use std::sync::Arc;

pub struct Volume {
    pub ledger: Ledger,
    pub live: Arc<Live>,
    pub locations: Arc<Locations>,
}
