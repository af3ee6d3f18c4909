//! One life of the service: from its start to its stop, its kill or the power cut.

use super::actor::{Actor, Seen, Shared, WRITE_MAX};
use super::fate::{Fate, WEATHERS, Weather};
use super::rng::Rng;
use super::stores::SimStores;
use crate::checkpoint::Checkpoints;
use crate::core::{Core, LIVE_CACHE, LIVE_STORE};
use crate::env::simulated::SimDisk;
use crate::filer::memory::{Found, Memory, Options as FilerOptions, named};
use crate::filer::registry::{self, Registry};
use crate::gateway::Drc;
use crate::index::live::Live;
use crate::index::stores::Stores;
use crate::journal::{AppendMode, Journal, Options, recycled};
use crate::ledger::Ledger;
use crate::location::Locations;
use crate::service::recovery;
use crate::state::jobs::HasEnded;
use crate::state::{Command, JobAction};
use crate::supervisor::{Board, Supervisor};
use crate::volume::{NodeIds, Volume};
use bytes::Bytes;
use journal_format::event::{Event, JobState};
use journal_format::ids::{FilerId, JunctionId, LocationId, Lsn};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Small, so that lives go over many of them.
const SEGMENT: u64 = 256 << 10;

/// Soft and hard limit of the journal, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub soft: u64,
    pub hard: u64,
}

/// Nobody meets them.
pub const WIDE: Limits = Limits { soft: 32 << 20, hard: 64 << 20 };
/// Whoever lags has to let go of the journal, and clients wait for room.
pub const TIGHT: Limits = Limits { soft: 1 << 20, hard: 3 << 20 };
/// Longest that anything may take in fair weather, in virtual time (C20).
pub const PATIENCE: Duration = Duration::from_secs(900);

/// A file's bytes, each as of the record that made them so.
pub type Versions = Vec<(Lsn, Arc<Vec<u8>>)>;

/// A filer of the world.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub memory: Memory,
    pub fate: Fate,
}

/// Both sides of a switch at its instant.
pub struct Switch {
    pub lsn: Lsn,
    pub from: LocationId,
    pub old: Vec<Found>,
    pub new: Vec<Found>,
}

/// What outlives the service.
#[derive(Clone)]
pub struct Ground {
    /// How the world's filers are made, but for the numbers of their objects.
    pub filers: FilerOptions,
    pub limits: Limits,
    pub disk: SimDisk,
    pub stores: SimStores,
    pub places: Arc<Mutex<Vec<Place>>>,
    pub switches: Arc<Mutex<Vec<Switch>>>,
    /// Which filer a location is on, by what the journal said.
    at: Arc<Mutex<At>>,
    pub shared: Shared,
}

#[derive(Default)]
struct At {
    filers: BTreeMap<FilerId, String>,
    locations: BTreeMap<LocationId, String>,
}

impl Ground {
    #[must_use]
    pub fn new(filers: FilerOptions, disk: SimDisk, shared: Shared) -> Self {
        Self {
            filers,
            limits: WIDE,
            disk,
            stores: SimStores::default(),
            places: Arc::default(),
            switches: Arc::default(),
            at: Arc::default(),
            shared,
        }
    }

    /// A new filer, with a URL.
    pub fn add_place(&self, memory: Memory, rng: Rng) -> Place {
        let mut places = self.places.lock();
        let place = Place { name: format!("m{}", places.len()), memory, fate: Fate::new(rng) };
        place.memory.set_script(Some(place.fate.script()));
        named::put(&place.name, place.memory.clone());
        places.push(place.clone());
        place
    }

    #[must_use]
    pub fn memory_of(&self, location: LocationId) -> Option<Memory> {
        let at = self.at.lock();
        let name = at.locations.get(&location)?;
        self.places.lock().iter().find(|place| place.name == *name).map(|place| place.memory.clone())
    }

    /// Whether its filer may lack modification times: one that it refuses is only asked for again at the next checkpoint,
    /// and a primary may be left before that.
    #[must_use]
    pub fn may_lack_times(&self, location: LocationId) -> bool {
        let at = self.at.lock();
        let Some(name) = at.locations.get(&location) else { return false };
        let refused = |place: &Place| place.fate.fired().contains_key(super::fate::SET_REFUSED);
        self.places.lock().iter().any(|place| place.name == *name && refused(place))
    }

    /// What an event says about where things are; at a switch both sides are looked at.
    pub fn told(&self, lsn: Lsn, event: &Event) {
        let put = |location: LocationId, filer: FilerId| {
            let mut at = self.at.lock();
            if let Some(name) = at.filers.get(&filer).cloned() {
                at.locations.insert(location, name);
            }
        };
        match event {
            Event::FilerAdded(e) => drop(self.at.lock().filers.insert(e.filer, e.name.clone())),
            Event::JunctionAdded(e) => put(e.location.location, e.location.filer),
            Event::JobCreated(e) => put(e.destination.location, e.destination.filer),
            Event::JunctionSwitched(e) => {
                if let (Some(old), Some(new)) = (self.memory_of(e.from), self.memory_of(e.to)) {
                    let mut switches = self.switches.lock();
                    if switches.iter().all(|switch| switch.lsn != lsn) {
                        switches.push(Switch { lsn, from: e.from, old: old.tree(), new: new.tree() });
                    }
                }
            }
            _ => {}
        }
    }

    pub fn weather(&self, weather: Weather) {
        for place in self.places.lock().iter() {
            place.fate.set(weather);
        }
    }

    pub fn redoing(&self, redoing: bool) {
        for place in self.places.lock().iter() {
            place.fate.set_redoing(redoing);
        }
    }
}

/// The running service.
pub struct Life {
    pub ground: Ground,
    pub core: Core,
    ids: Arc<NodeIds>,
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<()>,
    checkpoints: JoinHandle<()>,
    clients: Vec<JoinHandle<()>>,
}

pub const JUNCTION: JunctionId = JunctionId(1);

fn junction_path() -> Vec<Vec<u8>> {
    vec![b"data".to_vec()]
}

impl Life {
    /// As `service::run` does it, without sockets.
    ///
    /// # Errors
    /// A service that does not come up.
    pub fn start(ground: &Ground) -> Result<Self, String> {
        let options = Options {
            dir: "/journal".into(),
            segment_size: SEGMENT,
            hard_limit: ground.limits.hard,
            append: AppendMode::Direct,
            any_file_system: true,
            disk: Arc::new(ground.disk.clone()),
        };
        let journal = Journal::open(options).map_err(|e| format!("the journal does not open: {e}"))?;
        journal.set_soft_limit(ground.limits.soft);
        ground.shared.scribe.lock().check_kept(&journal)?;
        // Whatever is freed was written down before.
        let (scribe, shared) = (ground.shared.scribe.clone(), ground.shared.clone());
        recycled::watch(Some(Box::new(move |journal, before| {
            if before.0 / SEGMENT > journal.start_lsn().0 / SEGMENT {
                shared.count("segments freed");
            }
            if let Err(error) = scribe.lock().read(journal)
                && before > scribe.lock().upto()
            {
                shared.accuse(format!("what is freed before {before} is not written down: {error}"));
            }
        })));
        let stores: Arc<dyn Stores> = Arc::new(ground.stores.clone());
        let store = stores.open(LIVE_STORE, LIVE_CACHE, false).map_err(|e| e.to_string())?;
        let live = Arc::new(Live::new(Arc::new(store)));
        let recovered = recovery::recover(&journal, &live, &Drc::default()).map_err(|e| e.to_string())?;
        let (telling, index) = (ground.clone(), live.clone());
        let told = move |at: &crate::journal::Appended, event: &Event| {
            telling.told(at.lsn, event);
            if let Err(error) = index.apply(at.lsn, at.time, event) {
                // Unless the power has gone with it.
                if !telling.disk.is_off() {
                    telling.shared.accuse(format!("the index failed: {error}"));
                }
            }
        };
        let ledger = Ledger::new(journal, recovered.state, Box::new(told));
        for (junction, from) in recovered.doubts {
            ledger.doubt(junction, from);
        }
        let locations = Arc::new(Locations::default());
        let ids = Arc::new(NodeIds::after(recovered.highest_node));
        let volume = Arc::new(Volume::new(ledger.clone(), live.clone(), locations.clone(), ids.clone()));
        let core = Core { ledger, live, locations, volume, stores, filers: Arc::new(Registry::default()) };
        let (stop, stopped) = watch::channel(false);
        let supervisor = tokio::spawn(Supervisor::new(core.clone(), Arc::new(Board::default())).run(stopped));
        let checkpoints = tokio::spawn(Checkpoints::default().run(core.clone(), |_| ()));
        Ok(Self { ground: ground.clone(), core, ids, stop, supervisor, checkpoints, clients: Vec::new() })
    }

    /// A filer of the world becomes one of the service's.
    async fn add_filer(&self, place: &Place) -> Result<(), String> {
        let url = format!("memory:///{}", place.name);
        let probe = registry::probe(&url).await.map_err(|e| e.to_string())?;
        let command = Command::AddFiler { name: place.name.clone(), url, root: probe.root, found: probe.found };
        self.core.ledger.command(&command).await.map(drop).map_err(|e| e.to_string())
    }

    /// The first filer, and the junction that leads to it.
    ///
    /// # Errors
    /// A command that is refused.
    pub async fn set_up(&self, place: &Place) -> Result<(), String> {
        // Known already, where an earlier life's disk failed it in here.
        if !self.core.ledger.state().filers.values().any(|filer| filer.name == place.name) {
            self.add_filer(place).await?;
        }
        let root = place.memory.tree().first().cloned().ok_or("there is no root")?;
        let command = Command::AddJunction {
            path: junction_path(),
            filer: place.name.clone(),
            subdir: Vec::new(),
            root: journal_format::ids::Identity(root.number.to_le_bytes().to_vec()),
            node: self.ids.allot(),
            mtime: root.stat.mtime,
            ctime: root.stat.ctime,
            access: None,
        };
        self.core.ledger.command(&command).await.map(drop).map_err(|e| e.to_string())
    }

    /// Whether a junction is there: the first life may have been cut short.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.core.ledger.state().junctions.contains_key(&JUNCTION)
    }

    /// Until clients reach the primary.
    ///
    /// # Errors
    /// It takes too long, although the weather changes.
    pub async fn primary_is_up(&self) -> Result<(), String> {
        let up = async {
            loop {
                let state = self.core.ledger.state();
                if let Some(junction) = state.junctions.get(&JUNCTION)
                    && self.core.locations.get(junction.primary).is_some()
                {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.map_err(|_| "C20: the primary does not come up".to_owned())
    }

    pub fn start_clients(&mut self, count: u64, rng: &mut Rng) {
        let state = self.core.ledger.state();
        let Some(junction) = state.junctions.get(&JUNCTION) else { return };
        let root = crate::volume::NodeRef { junction: JUNCTION, node: junction.root };
        {
            let mut pool = self.ground.shared.pool.lock();
            if pool.dirs.is_empty() {
                pool.dirs.push(root);
            }
        }
        for nth in 0..count {
            // Where the journal is to become full they are in a hurry.
            let tight = self.ground.limits == TIGHT;
            let actor = Actor {
                write_max: if tight { 4 * WRITE_MAX } else { WRITE_MAX },
                addr: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(nth).unwrap_or(0))),
                core: self.core.clone(),
                junction: JUNCTION,
                shared: self.ground.shared.clone(),
                think_ms_max: if tight { 1 } else { [1, 10, 100][rng.index(3)] },
                rng: rng.fork(),
                again: Rng::new(nth),
            };
            self.clients.push(tokio::spawn(actor.run()));
        }
    }

    /// Clients go away in the middle of whatever they do.
    pub async fn stop_clients(&mut self) {
        for client in self.clients.drain(..) {
            client.abort();
            let _cancelled = client.await;
        }
    }

    /// Commands, for ever.
    pub async fn operate(&self, mut rng: Rng) {
        loop {
            sleep(Duration::from_millis(rng.between(20, 2500))).await;
            self.command(&mut rng).await;
        }
    }

    async fn command(&self, rng: &mut Rng) {
        let state = self.core.ledger.state();
        let running = state.jobs.iter().rev().find(|(_, job)| !job.state.has_ended()).map(|(id, job)| (*id, job.state));
        let action = match running {
            None if rng.percent(70) => return self.begin_move(rng.fork()).await,
            Some((job, JobState::Paused)) => Some((job, JobAction::Start)),
            Some((job, JobState::Moving)) if rng.percent(15) => Some((job, JobAction::Pause)),
            Some((job, JobState::Moving | JobState::Synchronized)) if rng.percent(5) => Some((job, JobAction::Abort)),
            _ => None,
        };
        if let Some((job, action)) = action {
            self.ground.shared.note(&format!("{job} {action:?}"));
            // Refused: the job was faster.
            let _raced = self.core.ledger.command(&Command::JobAction { job, action }).await;
        }
    }

    async fn begin_move(&self, rng: Rng) {
        let first = 1 + ((self.ground.places.lock().len() as u64) << 32);
        let memory = Memory::new(FilerOptions { first, ..self.ground.filers });
        let place = self.ground.add_place(memory, rng);
        place.fate.set_redoing(false);
        let begun = self.move_to(&place).await;
        self.ground.shared.note(&format!("move to {}: {begun:?}", place.name));
    }

    /// A place becomes a filer, and the junction is to move there.
    ///
    /// # Errors
    /// A command that is refused.
    pub async fn move_to(&self, place: &Place) -> Result<(), String> {
        let root = place.memory.tree().first().map(|root| root.number).ok_or("there is no root")?;
        self.add_filer(place).await?;
        let command = Command::CreateMove {
            source: junction_path(),
            filer: place.name.clone(),
            subdir: Vec::new(),
            root: journal_format::ids::Identity(root.to_le_bytes().to_vec()),
            notes: String::new(),
            stopped: false,
        };
        self.core.ledger.command(&command).await.map(drop).map_err(|e| e.to_string())
    }

    /// The weather of each filer changes now and then.
    pub async fn weather(&self, mut rng: Rng) {
        loop {
            sleep(Duration::from_millis(rng.between(50, 4000))).await;
            let places = self.ground.places.lock().clone();
            if let Some(place) = rng.pick(&places).cloned() {
                let weather = if rng.percent(45) { Weather::Fair } else { WEATHERS[rng.index(WEATHERS.len())] };
                self.ground.shared.note(&format!("{} {weather:?}", place.name));
                place.fate.set(weather);
            }
        }
    }

    /// In fair weather every job ends, after an operator's start if it paused.
    ///
    /// # Errors
    /// One that hangs, or pauses again and again.
    pub async fn jobs_end(&self) -> Result<(), String> {
        let mut starts = 0;
        let ended = async {
            loop {
                let state = self.core.ledger.state();
                let Some((id, job)) = state.jobs.iter().find(|(_, job)| !job.state.has_ended()) else { return Ok(()) };
                if job.state == JobState::Paused {
                    starts += 1;
                    if starts > 8 {
                        let errors: Vec<_> = job.errors.values().map(|e| &e.error).collect();
                        return Err(format!("C20: job {id} pauses in fair weather: {} {errors:?}", job.reason));
                    }
                    let start = Command::JobAction { job: *id, action: JobAction::Start };
                    let _raced = self.core.ledger.command(&start).await;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, ended).await {
            Ok(result) => result,
            Err(_) => {
                let state = self.core.ledger.state();
                let job = state.jobs.iter().find(|(_, job)| !job.state.has_ended());
                Err(format!("C20: a job does not end: {:?}", job.map(|(id, job)| (id, job.state, &job.reason))))
            }
        }
    }

    /// Until every operation has ended.
    ///
    /// # Errors
    /// One that does not.
    pub async fn settled(&self) -> Result<(), String> {
        let rest = async {
            while self.core.ledger.unsettled() > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, rest).await.map_err(|_| "C20: an operation does not end".to_owned())
    }

    /// What the journal's limits did in this life.
    pub fn count_limits(&self) {
        let journal = &self.core.ledger.journal;
        let shared = &self.ground.shared;
        *shared.counts.lock().entry("told that the journal is full").or_default() += journal.stats().refusals;
        if !journal.sides().is_empty() {
            shared.count("set aside");
        }
        if self.core.ledger.state().jobs.values().any(|job| job.state == JobState::Transitioning) {
            shared.count("cut short in a switch");
        }
    }

    /// End in order.
    ///
    /// # Errors
    /// A part that does not end.
    pub async fn stop(self) -> Result<(), String> {
        self.stop.send_replace(true);
        let ends = async {
            let _ended = self.supervisor.await;
            self.checkpoints.abort();
            let _cancelled = self.checkpoints.await;
            Checkpoints::default().take(&self.core).await.map_err(|e| e.to_string())?;
            self.core.ledger.journal.close().await.map_err(|e| e.to_string())
        };
        tokio::time::timeout(PATIENCE, ends).await.map_err(|_| "C20: the service does not stop".to_owned())?
    }

    /// Whether a READ could have shown what it did: every 512 bytes as of some position in its window. WRITEs that do
    /// not overlap and are under way together take effect in any order, each whole or not at all: a block that they share
    /// is looked at piece by piece. So is one that a WRITE was refused in, of which nobody knows what it did.
    #[must_use]
    pub fn judge_read(seen: &Seen, versions: &[(Lsn, Arc<Vec<u8>>)], unknown: &[Unknown]) -> Option<String> {
        let last_before = versions.iter().rposition(|(lsn, _)| *lsn < seen.window.0);
        let from_version = last_before.unwrap_or(0);
        let could: Vec<&[u8]> = versions[from_version..]
            .iter()
            .filter(|(lsn, _)| *lsn <= seen.window.1)
            .map(|(_, bytes)| &bytes[..])
            .collect();
        if could.is_empty() {
            return None;
        }
        let (offset, whole) = (usize::try_from(seen.offset).ok()?, usize::try_from(seen.len).ok()?);
        let may_end = |unknown: &Unknown| {
            let (end, read) = (unknown.at + unknown.bytes.len(), offset + seen.data.len());
            unknown.lsn <= seen.window.1 && (end == read || (end > read && seen.data.len() == whole))
        };
        let ends_there = could.iter().any(|bytes| part(bytes, offset, whole).len() == seen.data.len());
        if !ends_there && !unknown.iter().any(may_end) {
            return Some(format!("C1: a READ of {} at {offset} gave {} bytes", seen.at.node, seen.data.len()));
        }
        for (number, block) in seen.data.chunks(512).enumerate() {
            let at = offset + number * 512;
            if could.iter().any(|bytes| is_as_of(bytes, at, block)) {
                continue;
            }
            let mut from = at;
            let unknown = || unknown.iter().filter(|unknown| unknown.lsn <= seen.window.1);
            // What a refused WRITE left shows between what was written over it, however long ago.
            let first = unknown().map(|unknown| unknown.lsn).min().unwrap_or(seen.window.0);
            let since = versions.iter().rposition(|(lsn, _)| *lsn < first).map_or(0, |before| before.min(from_version));
            let over = versions[since..].iter().filter(|(lsn, _)| *lsn <= seen.window.1).map(|(_, bytes)| &bytes[..]);
            let edges = edges(&over.collect::<Vec<_>>(), unknown());
            for to in edges.range(at + 1..at + block.len()).copied().chain([at + block.len()]) {
                let piece = &block[from - at..to - at];
                let known = could.iter().any(|bytes| is_as_of(bytes, from, piece));
                if !known && !unknown().any(|unknown| unknown.shows(from, piece)) {
                    return Some(format!("C1, C21: a READ of {} shows at {from} what was never there", seen.at.node));
                }
                from = to;
            }
        }
        None
    }
}

fn part(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    &bytes[at.min(bytes.len())..(at + len).min(bytes.len())]
}

/// Behind the end of what was there anything may be.
fn is_as_of(bytes: &[u8], at: usize, block: &[u8]) -> bool {
    let there = part(bytes, at, block.len());
    there == block || (there.len() < block.len() && block.starts_with(there))
}

/// What a WRITE may have left that was refused, and not for sure without effect.
pub struct Unknown {
    pub lsn: Lsn,
    pub at: usize,
    pub bytes: Bytes,
}

impl Unknown {
    fn shows(&self, at: usize, piece: &[u8]) -> bool {
        let here = at.checked_sub(self.at).and_then(|from| self.bytes.get(from..from + piece.len()));
        here == Some(piece)
    }
}

/// Where what made one version of the next begins and ends, and what may be there besides.
fn edges<'a>(versions: &[&[u8]], unknown: impl Iterator<Item = &'a Unknown>) -> BTreeSet<usize> {
    let mut edges: BTreeSet<usize> =
        unknown.flat_map(|unknown| [unknown.at, unknown.at + unknown.bytes.len()]).collect();
    for pair in versions.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let differs = |at: &usize| a.get(*at) != b.get(*at);
        let all = a.len().max(b.len());
        if let (Some(first), Some(last)) = ((0..all).find(differs), (0..all).rev().find(differs)) {
            edges.extend([first, last + 1, a.len(), b.len()]);
        }
    }
    edges
}
