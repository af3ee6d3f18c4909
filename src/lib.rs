pub mod cli;
pub mod config;
pub mod control;
pub mod filer;
pub mod index;
pub mod journal;
pub mod ledger;
pub mod location;
pub mod state;
#[cfg(test)]
mod tidy;
pub mod volume;
