//! tain: an NFSv3 gateway that moves live data. `docs/design.md` says what must hold; the rooms are:
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::type_complexity,
        clippy::disallowed_methods,
        reason = "small numbers of our own in tests, and clocks to time them with"
    )
)]

// First: its macro stands in every room.
#[macro_use]
pub mod crash;

pub mod bring_up;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod control;
pub mod copier;
pub mod core;
pub mod demo;
pub mod env;
pub mod filer;
#[doc(hidden)]
pub mod fuzz;
pub mod gateway;
pub mod index;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod location;
pub mod locks;
pub mod planted;
pub mod replayer;
pub mod semantics;
pub mod service;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;
pub mod state;
pub mod supervisor;
pub mod switch;
pub mod volume;
pub mod wire;

#[cfg(test)]
mod tidy;
