//! What control asks of the running service; a double stands in for it in tests.

use crate::filer::{self, CoreFiler, Probe};
use crate::journal::Appended;
use crate::ledger::CommandError;
use crate::state::{Command, State};
use async_trait::async_trait;
use journal_format::ids::{Identity, JunctionId, LocationId, Lsn, NodeId};
use std::net::SocketAddr;
use std::sync::Arc;

/// The service as control sees it.
#[async_trait]
pub trait Port: Send + Sync + 'static {
    /* The ledger. */

    fn state(&self) -> Arc<State>;
    /// Decide, append, wait until durable.
    async fn command(&self, command: Command) -> std::result::Result<Vec<Appended>, CommandError>;
    fn journal_id(&self) -> [u8; 16];
    /// URLs of the directories that the service keeps its own data in: no client may reach them.
    fn own_dirs(&self) -> Vec<String>;

    /* The registry of filers; each method is the function of that name in `filer::registry`. */

    fn canonical(&self, url: &str) -> filer::Result<String>;
    async fn probe(&self, url: &str) -> filer::Result<Probe>;
    async fn open(
        &self,
        url: &str,
        expected_root: &[u8],
        subdir: &[Vec<u8>],
        expected_dir: Option<&Identity>,
    ) -> filer::Result<Arc<dyn CoreFiler>>;
    async fn create_subdir(&self, url: &str, expected_root: &[u8], subdir: &[Vec<u8>]) -> filer::Result<()>;
    async fn overlaps(
        &self,
        url_a: &str,
        subdir_a: &[Vec<u8>],
        url_b: &str,
        subdir_b: &[Vec<u8>],
    ) -> filer::Result<bool>;

    /* What runs. */

    /// A node id that was never given out. Losing it costs nothing.
    fn allocate_node(&self) -> NodeId;
    fn status(&self) -> ServiceStatus;
    /// Of the replayer that writes to this location, while one runs.
    fn replayer(&self, location: LocationId) -> Option<ReplayerStatus>;
    /// Every operation at the junction has ended, what it did is durable on the primary, and none begins before the
    /// guard is dropped. An error says why that cannot be had now.
    async fn rest(&self, junction: JunctionId) -> std::result::Result<Box<dyn Send>, String>;
    /// Returns once nothing of the service uses the location any more; State says already that nothing should.
    /// Control takes the marker away after it. An error: it is still used, and keeps its marker.
    async fn quiesce(&self, location: LocationId) -> std::result::Result<(), String>;
}

/// The service at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Where NFS is served.
    pub nfs: SocketAddr,
    pub start_lsn: Lsn,
    pub durable_lsn: Lsn,
    pub end_lsn: Lsn,
    /// Bytes that the journal takes, and may take.
    pub journal_bytes: u64,
    pub journal_limit_bytes: u64,
    /// From here on whoever lags lets go of the journal.
    pub journal_soft_limit_bytes: u64,
    /// How the journal's batches are written: "direct", "buffered" or "map".
    pub journal_append: &'static str,
    /// How often a client was told to come again because the journal was full.
    pub journal_refusals: u64,
    /// Who keeps how much of the journal, the most first.
    pub pins: Vec<JournalPin>,
    /// What is wrong now, one sentence each ("junction /a: its primary is down: …").
    pub problems: Vec<String>,
    pub locks: LockStatus,
    /// How long clients' calls took since the start, by procedure; of those that were called.
    pub procedures: Vec<ProcedureTimes>,
}

/// What clients have locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockStatus {
    pub held: usize,
    pub waiting: usize,
    /// Client hosts that are told when the service restarts.
    pub hosts: usize,
    /// After a restart: how long only claims are granted.
    pub grace_s: Option<u64>,
}

/// Times are microseconds; the median and the 99th percentile are exact to a fifth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcedureTimes {
    pub name: &'static str,
    pub calls: u64,
    pub median_us: u64,
    pub p99_us: u64,
    pub longest_us: u64,
}

/// A location's cursor keeps the journal from there on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPin {
    pub location: LocationId,
    pub cursor: Lsn,
    pub bytes: u64,
}

/// How a secondary keeps up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayerStatus {
    /// Journal bytes that it has not carried out.
    pub lag_bytes: u64,
    /// While it is out of sync: files and others, names, and bytes (as far as they can be told) that it lacks.
    pub dirty: Option<(u64, u64, u64)>,
    /// What it waits for, when it does not get on ("the destination is full").
    pub waits_for: Option<String>,
}
