//! A client operation: lock, check, append, carry out, answer. A file per procedure under [`ops`].
//!
//! # What happens on a WRITE
//!
//! ```text
//! gateway      Volume::write(call, node, offset, data)
//! resolve.rs   admit(junction)            JUKEBOX at once while its primary is down
//! hold.rs        enter(junction)          waits while a switch holds the junction; the permit lasts to the operation's end
//! resolve.rs     primary(junction)        again, behind the permit: what it says stays true to the end (I5)
//! locks.rs     Node(node) shared, Bytes(node) offset..end exclusive
//! resolve.rs   see(node)                  index record, object on the primary, its attributes; else ESTALE
//! semantics    may it write? do set-id bits go?
//! run.rs       ── from here on in a task of its own that owns permit, locks, object and data: a client that hangs up, or
//!              a connection that is closed, cannot stop half way what has a record in the journal ──
//!              ledger.begin(Write, data)  durable, and unsettled: no replayer passes it yet
//! act.rs       filer.write, filer.set     done | refused (provably unchanged) | part | not known: wait, judge, try again,
//!                                         or, when the primary falls, leave it to the redo (take_over.rs)
//! run.rs       live.apply, touch          kept mtime and ctime: the record's time
//!              ledger.done | ended(Failed | Partial), which is durable before any error is answered
//! write.rs     attributes for the reply, then the locks are let go
//! ```
//!
//! # Invariants
//!
//! * Nothing is carried out before its record is durable, and nothing is answered before it has ended (I1). A failed
//!   journal answers JUKEBOX, never success (I8), and leaves the operation unsettled.
//! * The live index changes only under the operation's locks and before `ledger.done`, so that a commit of the index
//!   that states the settled LSN holds everything before it.
//! * No node id is shown before the event that gives it is durable: `Adopt` and `Make` are waited for ([`adopt`]).
//! * Names are looked up in the live index; the filer is asked only for names in directories that are not *complete*,
//!   and what it says is journaled before it is believed.
//! * Every name operation holds its parent [`Dir`](locks::Key::Dir) and [`Node`](locks::Key::Node) shared and the name
//!   exclusively, so that whoever takes the directory exclusively ([`Volume::lock_dir`]) sees no operation half done.
//! * wcc `before` is given only where nobody else could have changed the object between it and `after`
//!   ([`Guard::alone`](locks::Guard::alone)): a client takes the pair as proof that it missed nothing.
//!
//! # How it fails
//!
//! A filer that cannot be reached, or that does not answer: before the record is written the client gets JUKEBOX;
//! after it the operation stays unsettled and locked and its task tries on ([`run`]), until the primary is found to have
//! fallen, whose redo takes it over ([`take_over`]); the client gets JUKEBOX after
//! [`run::PATIENCE`], and when it comes again it is answered what came of it ([`late`]). Of such operations a junction has at
//! most [`run::STUCK_MAX`], plus those in flight when that is reached; then its mutations get JUKEBOX before they are
//! appended, and other junctions go on. Calls that change nothing, and what a mutation looks at before its record, wait
//! as long ([`patience`]). Whoever waits for a lock longer than [`LOCK_PATIENCE`] gets JUKEBOX too. An index that fails
//! is logged, and the operation is not ended until it works again.

mod act;
pub mod adopt;
mod broken_off;
pub mod hold;
pub mod late;
pub mod locks;
mod lost;
pub mod ops;
pub mod outcome;
mod patience;
mod resolve;
pub mod run;
mod search;
pub mod status;
mod take_over;
pub mod types;
pub mod virtuals;
pub use types::*;

use crate::index::live::Live;
use crate::ledger::Ledger;
use crate::location::Locations;
use hold::{HoldGuard, Holds};
use journal_format::ids::{JunctionId, NodeId};
use locks::{Guard, Key, Locks, Mode};
use patience::Silent;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a client's operation waits for its locks.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// The same while an operation of its junction hangs, which may have those locks for as long as its filer likes. Who waits
/// has a place on a connection that calls to other junctions need, too.
const LOCK_PATIENCE_HUNG: Duration = Duration::from_millis(200);

/// Gives out node ids; none twice.
pub struct NodeIds {
    next: AtomicU64,
}

impl NodeIds {
    /// `max` is the highest id that the index or the journal has ever held.
    #[must_use]
    pub fn after(max: NodeId) -> Self {
        // Ids below are the virtual tree's and never a file's: `/` is 1.
        Self { next: AtomicU64::new(max.0.max(1).saturating_add(1)) }
    }

    pub fn allot(&self) -> NodeId {
        NodeId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Every junction's tree, as clients see it. Clones are the same volume.
#[derive(Clone)]
pub struct Volume {
    pub ledger: Ledger,
    pub live: Arc<Live>,
    pub locations: Arc<Locations>,
    pub ids: Arc<NodeIds>,
    pub holds: Holds,
    locks: Locks,
    stuck: run::StuckCounts,
    /// Listings and searches that nobody waits for: a large directory takes its time, which is no hang.
    reading: run::StuckCounts,
    under_way: take_over::UnderWay,
    late: late::Late,
    silent: Arc<Silent>,
    searches: search::Searches,
    mounted_in: adopt::MountedIn,
}

impl Volume {
    #[must_use]
    pub fn new(ledger: Ledger, live: Arc<Live>, locations: Arc<Locations>, ids: Arc<NodeIds>) -> Self {
        Self {
            ledger,
            live,
            locations,
            ids,
            holds: Holds::default(),
            locks: Locks::default(),
            stuck: run::StuckCounts::default(),
            reading: run::StuckCounts::of_readings(),
            under_way: take_over::UnderWay::default(),
            late: late::Late::default(),
            silent: Arc::default(),
            searches: search::Searches::default(),
            mounted_in: adopt::MountedIn::default(),
        }
    }

    /// The directory, exclusively: every name operation in it has ended, and none begins before the guard is dropped.
    pub async fn lock_dir(&self, dir: NodeId) -> Guard {
        self.locks.wait(vec![(Key::Dir(dir), Mode::Exclusive)]).await
    }

    /// The node, exclusively: no write or attribute change is under way, and none begins before the guard is dropped.
    pub async fn lock_node(&self, node: NodeId) -> Guard {
        self.locks.wait(vec![(Key::Node(node), Mode::Exclusive)]).await
    }

    /// New mutations of the junction wait from now on; reads go on.
    pub fn hold(&self, junction: JunctionId) -> HoldGuard {
        self.holds.hold(junction)
    }

    /// Until no mutation of the (held) junction is under way.
    pub async fn drained(&self, junction: JunctionId) {
        self.holds.drained(junction).await;
    }

    /// Operations that no client waits for any more.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.stuck.all()
    }

    /// The same for each junction that has any, and since when it has had some.
    #[must_use]
    pub fn hanging(&self) -> BTreeMap<JunctionId, (usize, Duration)> {
        self.stuck.by_junction()
    }

    /// Stable for ever: of the journal's identity and the junction's number.
    #[must_use]
    pub fn fsid(&self, junction: JunctionId) -> u64 {
        fsid_of(&self.ledger.journal.id(), junction)
    }

    async fn acquire(&self, junction: JunctionId, wanted: Vec<(Key, Mode)>) -> Result<Guard, Status> {
        let patience = if self.stuck.any(junction) { LOCK_PATIENCE_HUNG } else { LOCK_PATIENCE };
        self.locks.acquire(wanted, patience).await.map_err(|_| Status::Jukebox)
    }
}

fn fsid_of(journal: &[u8; 16], junction: JunctionId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fsid");
    hasher.update(journal);
    hasher.update(&junction.0.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests;
