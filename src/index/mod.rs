//! The node index: what costs disk, not memory.
//!
//! * [`store`]: an ordered byte map with an overlay in memory and `redb` below, that knows the LSN it stands at.
//! * [`live`]: names and kept attributes of every node, as clients see them now. A pure function of events
//!   ([`live::fold`]), applied by the volume when an operation is done and by recovery; it may be *ahead* of the LSN
//!   its commit states, because every key it writes depends on the event alone: folding a suffix again gives the same.
//! * [`objects`]: per location, node <-> the filer's identity. Same rule.

pub mod live;
pub mod objects;
pub mod store;
