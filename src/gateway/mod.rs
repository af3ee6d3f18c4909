//! The gateway: sockets, credentials, access, duplicate requests. What a call *means* is the volume's, behind
//! [`Backend`]; what its bytes mean is [`crate::wire`]'s.
//!
//! ```text
//!  accept ─► seat ─► connection ──────────────────────────────────────┐
//!  server.rs         inbox.rs  record ─► header ─► slot, budgets      │
//!                        │ one task per call                          │ replies.rs: in the order they end
//!                    dispatch.rs ─► authorise (access.rs) ─► DRC ─► nfs.rs / mount.rs / locks ─► Backend
//! ```
//!
//! Invariants
//! * **Nothing outside the export (I10).** A handle must carry our MAC; the caller's address is judged against its
//!   junction's policy at MOUNT *and* at every call, before anything else is done; an address that no policy lets in
//!   learns nothing, not even whether a handle or path exists. Names are checked before the volume sees them.
//! * **Bounded (I11).** Every bound is a field of [`Limits`], and says what happens at it. A reply has its place
//!   reserved before its call runs, so a client that does not read its replies stops being read from, and is closed
//!   when it takes nothing for [`Limits::write_deadline`].
//! * **At most once.** A non-idempotent call that is repeated (same address, xid and checksum) runs once and gets the
//!   same reply: on the same connection, on a new one, while the first still runs, and across a crash ([`Drc::refill`]).
//! * **A call that began is never cancelled**: it goes on when its connection dies, and its reply goes to the DRC.
//!
//! How it fails: what cannot be framed closes its connection, and only that; arguments that make no sense get
//! GARBAGE_ARGS; a handler's panic is answered SYSTEM_ERR, closes that connection and is logged; accept errors are
//! logged and tried again, shedding the connection that has been quiet longest when descriptors run out. [`Gateway::serve`]
//! ends only when told to stop, or by a defect.

pub mod access;
pub mod backend;
mod connection;
mod convert;
mod dispatch;
pub mod drc;
mod inbox;
pub mod limits;
mod locks;
mod mount;
mod names;
mod nfs;
mod outgoing;
mod readdir;
mod refilled;
mod replies;
pub mod rpcbind;
mod seats;
mod server;
mod shares;
pub mod status;
pub mod timing;
mod udp;

pub use backend::Backend;
pub use drc::Drc;
pub use limits::Limits;
pub use locks::{LockFigures, LockView};

use crate::volume::types::{READ_MAX, WRITE_MAX};
use crate::wire::handle::Sealer;
use crate::wire::record::DATA_MAX;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;

const _: () = assert!(READ_MAX as usize == DATA_MAX && WRITE_MAX as usize == DATA_MAX);

/// What makes handles and verifiers this journal's.
#[derive(Clone)]
pub struct Identity {
    /// Key of the handles' MAC ([`journal_format::event::JournalCreated`]).
    pub handle_key: [u8; 32],
    pub journal_id: [u8; 16],
}

/// Counters, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections turned away at the bound, all others being busy.
    pub turned_away: AtomicU64,
    /// Connections closed to make room: quiet ones, or those of strangers.
    pub evicted: AtomicU64,
    /// Connections closed for what they sent, or for being slow.
    pub broken: AtomicU64,
    /// Calls whose handler ran.
    pub calls: AtomicU64,
    /// Repeated calls answered without running.
    pub repeated: AtomicU64,
    /// Calls refused for the caller's address.
    pub refused: AtomicU64,
    /// Handlers that panicked.
    pub panics: AtomicU64,
}

/// What every connection and call shares.
pub(crate) struct Shared {
    backend: Arc<dyn Backend>,
    sealer: Sealer,
    write_verifier: [u8; 8],
    drc: Drc,
    mounts: mount::Mounts,
    locks: locks::Locks,
    seats: seats::Seats,
    shares: shares::Shares,
    limits: Limits,
    stats: Arc<Stats>,
    timing: Arc<timing::Timing>,
    /// Calls running, over all connections.
    calls: Arc<Semaphore>,
    /// Bytes of large requests in memory.
    request_bytes: Arc<Semaphore>,
    /// The same for addresses that no policy lets in, so that they cannot starve the others.
    stranger_bytes: Arc<Semaphore>,
    /// Bytes of large replies, reserved before their calls run.
    reply_bytes: Arc<Semaphore>,
}

/// NFS, MOUNT and locks on one port.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    /// `drc` may have been refilled from the journal.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, identity: Identity, drc: Drc, limits: Limits) -> Self {
        let write_verifier = *identity.journal_id.first_chunk().expect("16 bytes have a first 8");
        let shared = Shared {
            backend,
            sealer: Sealer::new(identity.handle_key),
            write_verifier,
            drc,
            mounts: mount::Mounts::default(),
            locks: locks::Locks::default(),
            seats: seats::Seats::default(),
            shares: shares::Shares::default(),
            stats: Arc::default(),
            timing: Arc::default(),
            calls: Arc::new(Semaphore::new(limits.calls_all as usize)),
            request_bytes: Arc::new(Semaphore::new(limits.request_bytes_all as usize)),
            stranger_bytes: Arc::new(Semaphore::new(limits.stranger_bytes_all as usize)),
            reply_bytes: Arc::new(Semaphore::new(limits.reply_bytes_all as usize)),
            limits,
        };
        Self { shared: Arc::new(shared) }
    }

    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    #[must_use]
    pub fn locks(&self) -> LockView {
        LockView(self.shared.clone())
    }

    #[must_use]
    pub fn timing(&self) -> Arc<timing::Timing> {
        self.shared.timing.clone()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod double;
#[cfg(test)]
mod tests;
