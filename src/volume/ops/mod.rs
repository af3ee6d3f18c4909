//! The procedures, a file each. Every mutation has the same shape: permit, locks, look, check, [`Act`], [`run`], answer.
//!
//! [`Act`]: super::act::Act
//! [`run`]: super::run

pub mod access;
pub mod create;
pub mod fsstat;
pub mod getattr;
pub mod link;
pub mod lookup;
pub mod make;
pub mod mount;
pub mod read;
pub mod readdir;
pub mod readlink;
pub mod remove;
pub mod rename;
pub mod setattr;
pub mod write;
