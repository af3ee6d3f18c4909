//! The node index: what costs disk, not memory.
//!
//! * [`store`]: an ordered byte map with an overlay in memory and `redb` below, that knows the LSN it stands at.
//! * [`live`]: names and kept attributes of every node, as clients see them now. A function of the events
//!   ([`live::fold`]), applied by the volume when an operation is done and by recovery.
//! * [`objects`]: per location, node <-> the filer's identity.
//!
//! ```text
//!  event done ──► live::fold ──► changes ──► Store::write ──► overlay ──commit(lsn), spill──► redb
//! ```
//!
//! Invariants:
//!
//! * **A projection, never a source** (I7). Everything here follows from the journal; a store that is lost or dead is
//!   brought back by folding from the LSN its last commit states.
//! * **Ahead or exact.** The live store and a primary's objects may be *ahead* of the LSN they state: folding the suffix
//!   again comes to the same bytes (`live/fold.rs` says why, its tests try it). A secondary's store is *exact*: it holds
//!   the location's projection as of its LSN, and a batch that fails is rolled back.
//! * **Bounded** (I11). Overlay, cache and the depth of paths have bounds, stated where they are; a scan returns no more
//!   than it was asked for.
//! * **Node ids grow for ever** (I6): the highest one is kept apart from the nodes, whose removal must not free it.
//!
//! How it fails: a database error kills the store ([`store::Error::Db`], from then on for every call); bytes of an
//! unknown shape are [`store::Error::Corrupt`] for that call. Neither is ever taken for "not there".

pub mod live;
pub mod objects;
pub mod store;
pub mod stores;
