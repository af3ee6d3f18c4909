//! The running service as control sees it.

use super::stuck::Stuck;
use crate::checkpoint;
use crate::control::{JournalPin, LockStatus, Port, ProcedureTimes, ReplayerStatus, ServiceStatus};
use crate::core::{Core, blocking};
use crate::filer::{self, CoreFiler, Probe, registry};
use crate::gateway::timing::{Figures, Timing};
use crate::gateway::{LockFigures, LockView};
use crate::journal::Appended;
use crate::ledger::CommandError;
use crate::state::{Command, Role, State};
use crate::supervisor::Board;
use crate::volume::NodeIds;
use async_trait::async_trait;
use journal_format::event::Event;
use journal_format::ids::{Identity, JunctionId, LocationId, Lsn, NodeId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a junction may take to come to rest.
const REST_MAX: Duration = Duration::from_secs(15);
/// How long a location may take to fall out of use.
const QUIESCE_MAX: Duration = Duration::from_secs(20);
/// An archive that has not answered for so long hangs: a slow one takes a while for the sync of a large segment.
const ARCHIVE_SILENT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

pub struct ServicePort {
    pub core: Core,
    pub board: Arc<Board>,
    pub(super) stuck: Arc<Stuck>,
    pub ids: Arc<NodeIds>,
    pub nfs: SocketAddr,
    pub timing: Arc<Timing>,
    pub locks: LockView,
    /// What could not be registered with rpcbind.
    pub unregistered: Vec<String>,
    pub hard_limit: u64,
    /// URLs of its journal, index and archives.
    pub own_dirs: Vec<String>,
}

fn times(of: Figures) -> ProcedureTimes {
    let Figures { name, calls, median_us, p99_us, longest_us } = of;
    ProcedureTimes { name, calls, median_us, p99_us, longest_us }
}

fn lock_status(of: LockFigures) -> LockStatus {
    let LockFigures { held, waiting, hosts, grace } = of;
    LockStatus { held, waiting, hosts, grace_s: grace.map(|left| left.as_secs() + 1) }
}

#[async_trait]
impl Port for ServicePort {
    fn state(&self) -> Arc<State> {
        self.core.ledger.state()
    }

    async fn command(&self, command: Command) -> Result<Vec<Appended>, CommandError> {
        self.core.ledger.command(&command).await
    }

    fn own_dirs(&self) -> Vec<String> {
        self.own_dirs.clone()
    }

    fn journal_id(&self) -> [u8; 16] {
        self.core.ledger.journal.id()
    }

    fn canonical(&self, url: &str) -> filer::Result<String> {
        registry::canonical(url)
    }

    async fn probe(&self, url: &str) -> filer::Result<Probe> {
        registry::probe(url).await
    }

    async fn open(
        &self,
        url: &str,
        expected_root: &[u8],
        subdir: &[Vec<u8>],
        expected_dir: Option<&Identity>,
    ) -> filer::Result<Arc<dyn CoreFiler>> {
        registry::open(url, expected_root, subdir, expected_dir).await
    }

    async fn create_subdir(&self, url: &str, expected_root: &[u8], subdir: &[Vec<u8>]) -> filer::Result<()> {
        registry::create_subdir(url, expected_root, subdir).await
    }

    async fn overlaps(
        &self,
        url_a: &str,
        subdir_a: &[Vec<u8>],
        url_b: &str,
        subdir_b: &[Vec<u8>],
    ) -> filer::Result<bool> {
        registry::overlaps(url_a, subdir_a, url_b, subdir_b).await
    }

    fn allocate_node(&self) -> NodeId {
        self.ids.allot()
    }

    fn status(&self) -> ServiceStatus {
        let journal = &self.core.ledger.journal;
        let (start_lsn, end_lsn) = (journal.start_lsn(), journal.end_lsn());
        ServiceStatus {
            nfs: self.nfs,
            start_lsn,
            durable_lsn: journal.durable_lsn(),
            end_lsn,
            journal_bytes: end_lsn.0.saturating_sub(start_lsn.0),
            journal_limit_bytes: self.hard_limit,
            journal_soft_limit_bytes: journal.soft_limit(),
            journal_append: journal.append_mode().name(),
            journal_refusals: journal.stats().refusals,
            pins: self.pins(end_lsn),
            problems: self.problems(),
            locks: lock_status(self.locks.figures()),
            procedures: self.timing.figures().into_iter().map(times).collect(),
        }
    }

    fn replayer(&self, location: LocationId) -> Option<ReplayerStatus> {
        let status = self.board.replayer(location)?;
        let lag_bytes = self.core.ledger.journal.durable_lsn().0.saturating_sub(status.durable.0);
        let dirty = status.dirty.map(|dirty| (dirty.nodes, dirty.names, dirty.bytes));
        Some(ReplayerStatus { lag_bytes, dirty, waits_for: status.error.map(|trouble| trouble.text) })
    }

    async fn rest(&self, junction: JunctionId) -> Result<Box<dyn Send>, String> {
        let core = &self.core;
        let hold = core.volume.hold(junction);
        let primary = core.ledger.state().junctions.get(&junction).and_then(|j| core.locations.get(j.primary));
        let rest = async {
            core.volume.drained(junction).await;
            match &primary {
                Some(location) => {
                    checkpoint::primary(core, junction, location).await.map(|_| ()).map_err(|e| e.to_string())
                }
                None => nothing_since_cursor(core, junction).await,
            }
        };
        match tokio::time::timeout(REST_MAX, rest).await {
            Ok(Ok(())) => Ok(Box::new(hold)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("its primary has not taken what clients were told is done within {REST_MAX:?}")),
        }
    }

    async fn quiesce(&self, location: LocationId) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let used = self.board.replayer(location).is_some() || self.core.locations.get(location).is_some();
            if !used {
                return Ok(());
            }
            if begin.elapsed() > QUIESCE_MAX {
                return Err(format!("still in use after {QUIESCE_MAX:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl ServicePort {
    fn pins(&self, end: Lsn) -> Vec<JournalPin> {
        let pins = crate::limits::pins(&self.core.ledger.state(), end);
        pins.into_iter()
            .map(|pin| JournalPin { location: pin.location, cursor: pin.cursor, bytes: pin.bytes })
            .collect()
    }

    /// Who keeps the most of a full journal.
    fn keeper(&self, state: &State) -> String {
        let journal = &self.core.ledger.journal;
        let first = checkpoint::needed(&self.core, state).into_iter().min_by_key(|(_, from)| *from);
        // Segments are archived whole: in the one that the archive is at it keeps nothing that the location does not.
        let segment = |lsn: Lsn| lsn.0 / journal.segment_size();
        let later = |archived: Lsn| first.is_none_or(|(_, from)| segment(archived) < segment(from));
        let archive = journal.archive_status().filter(|archive| later(archive.archived_lsn));
        let (who, from) = match (archive, first) {
            (Some(archive), _) => (format!("the archive in {}", archive.dir.display()), archive.archived_lsn),
            (None, Some((location, from))) => (state.location_name(location), from),
            (None, None) => return String::new(),
        };
        format!("; {who} keeps {} bytes of it", journal.end_lsn().0.saturating_sub(from.0))
    }

    fn problems(&self) -> Vec<String> {
        let state = self.core.ledger.state();
        let mut problems = self.unregistered.clone();
        problems.extend(self.locks.problem());
        for (id, why) in self.board.down() {
            let Some(location) = state.locations.get(&id) else { continue };
            let who = match location.role {
                Role::Primary(junction) => state.junctions.get(&junction).map_or_else(String::new, |j| {
                    format!("junction {}: its primary", crate::state::text::path(&j.path))
                }),
                Role::Destination(job) => format!("job {job}: its destination"),
                Role::Left => continue,
            };
            problems.push(format!("{who} ({}) is down: {why}", state.location_name(id)));
        }
        for (id, job) in &state.jobs {
            if let Some(location) = state.locations.get(&job.destination)
                && location.out_of_sync.is_some()
            {
                problems.push(format!(
                    "job {id}: its destination ({}) is out of sync",
                    state.location_name(job.destination)
                ));
            }
        }
        problems.extend(self.stuck.problems(&state));
        let name = |id: JunctionId| {
            state.junctions.get(&id).map_or_else(|| id.to_string(), |j| crate::state::text::path(&j.path))
        };
        for (id, (count, since)) in self.core.volume.hanging() {
            let (path, since) = (name(id), since.as_secs());
            problems.push(format!("junction {path}: {count} operations hang, for {since} s: its clients wait"));
        }
        for (id, bytes) in self.core.ledger.journal.sides() {
            let (path, full) = (name(id), self.core.ledger.side_is_full(id));
            let more = if full { ", no more than that: its clients are told to come again" } else { "" };
            problems
                .push(format!("junction {path}: its primary hung; {bytes} bytes of its records are set aside{more}"));
        }
        if let Some(why) = self.core.ledger.journal.segment_trouble() {
            problems.push(format!(
                "the journal's next segment cannot be made, and clients will have to wait for it: {why}"
            ));
        }
        if let Some(why) = self.board.checkpoint_failed() {
            problems.push(format!("no checkpoint can be taken, and the journal keeps everything until then: {why}"));
        }
        if let Some(archive) = self.core.ledger.journal.archive_status() {
            let hangs = archive.silent.filter(|silent| *silent >= ARCHIVE_SILENT);
            let hangs = hangs.map(|silent| format!("it has not answered for {} s", silent.as_secs()));
            if let Some(why) = archive.error.or(hangs) {
                let (dir, lsn) = (archive.dir.display(), archive.archived_lsn);
                problems.push(format!("the journal cannot be archived in {dir}, and is kept from LSN {lsn} on: {why}"));
            }
        }
        for (id, silent) in self.core.volume.silent() {
            let name = state.location_name(id);
            problems.push(format!("{name} has not answered for {} s: its clients wait", silent.as_secs()));
        }
        if self.core.ledger.journal.is_full() {
            let by = self.keeper(&state);
            problems
                .push(format!("the journal is full: client changes are told to come again until there is room{by}"));
        }
        problems
    }
}

/// A primary that is down must lack nothing that clients were told is done: no operation since its cursor. What others
/// have filled the journal with may have been recycled since: the junction's own records are in its side then.
async fn nothing_since_cursor(core: &Core, junction: JunctionId) -> Result<(), String> {
    let state = core.ledger.state();
    let Some(primary) = state.junctions.get(&junction).map(|j| j.primary) else { return Ok(()) };
    let cursor = state.locations.get(&primary).map_or(Lsn(0), |l| l.cursor);
    let journal = core.ledger.journal.clone();
    let lacks = blocking(move || {
        let end = journal.durable_lsn();
        let mut reader = journal.reader_of(junction, cursor)?;
        while let Some(record) = reader.next(end)? {
            if changes(&record.event, primary) {
                return Ok(true);
            }
        }
        Ok(false)
    });
    match lacks.await {
        Ok(false) => Ok(()),
        Ok(true) => Err("its primary is down, and lacks operations that clients were told are done".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn changes(event: &Event, primary: LocationId) -> bool {
    match event {
        Event::Write(e) => e.location == primary,
        Event::SetAttr(e) => e.location == primary,
        Event::Make(e) => e.location == primary,
        Event::Remove(e) => e.location == primary,
        Event::Rename(e) => e.location == primary,
        Event::Link(e) => e.location == primary,
        _ => false,
    }
}
