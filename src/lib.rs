pub mod demo;
pub mod filer;
pub mod index;
pub mod journal;
pub mod ledger;
pub mod location;
pub mod state;
pub mod volume;
