//! Builds the service from its configuration; start, drain, stop.
//!
//! ```text
//! start   journal (lock, tail) ─► recover (State, live index, replies) ─► primaries redone ─► NFS ─► API ─► ready
//! stop    NFS and API drain ─► supervisor ends jobs' tasks ─► checkpoint ─► journal closed in order
//! ```
//!
//! When the journal fails the process ends at once (I8): nothing may be answered any more, and what was durable is
//! found again at the next start. The same when a store of the index fails, which a full state disk does, and when one
//! of the tasks that the service is made of has ended.

mod parts;
pub mod port;
pub mod recovery;
mod stuck;
#[cfg(test)]
mod tests;

use crate::checkpoint::Checkpoints;
use crate::config::{Append, Config};
use crate::control::Api;
use crate::core::{Core, LIVE_CACHE, LIVE_STORE, STORES_OF_LOCATIONS, blocking, store_name};
use crate::env::RealDisk;
use crate::filer::registry::Registry;
use crate::gateway::{Backend, Drc, Gateway, Identity, Limits, rpcbind};
use crate::index::live::Live;
use crate::index::stores::{Directory, Stores};
use crate::journal::{AppendMode, EXIT_FAIL_STOP, Journal, Options, end_by_bus_error};
use crate::ledger::Ledger;
use crate::location::Locations;
use crate::state::{LocationState, Role, State};
use crate::supervisor::{Board, Supervisor};
use crate::volume::{NodeIds, Volume};
use anyhow::{Context, Result};
use parts::Parts;
use port::ServicePort;
use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stuck::Stuck;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the service looks whether its index is well.
const INDEX_LOOK: Duration = Duration::from_millis(250);
/// How long a start waits for primaries before clients are served from those that are up.
const PRIMARIES_WAIT: Duration = Duration::from_secs(30);
/// How long a stop takes at most: draining clients, ending jobs' tasks, the last checkpoint. (systemd waits 90 s.)
const STOP_MAX: Duration = Duration::from_secs(30);

/// Run until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<()> {
    let begin = Instant::now();
    raise_descriptor_limit();
    end_by_bus_error().context("the handler of SIGBUS")?;
    let index_dir = config.state.dir.join("index");
    make_dirs(&[&config.journal.dir, &config.state.dir, &index_dir])?;
    let journal = open_journal(&config).await?;
    let drc = Drc::default();
    let directory = Directory(index_dir);
    let stores: Arc<dyn Stores> = Arc::new(Directory(directory.0.clone()));
    let (live, recovered) = {
        let (journal, drc, stores) = (journal.clone(), drc.clone(), stores.clone());
        blocking(move || {
            let live = Arc::new(Live::new(Arc::new(stores.open(LIVE_STORE, LIVE_CACHE, false)?)));
            let recovered = recovery::recover(&journal, &live, &drc)?;
            recovery::note_cut(&journal, stores.as_ref(), &recovered.state)?;
            Ok((live, recovered))
        })
        .await?
    };
    tracing::info!(records = recovered.records, took = ?begin.elapsed(), "the journal was folded to its end");
    let mut handle_key = recovered.state.handle_key;
    if crate::planted::is('l') {
        handle_key[..8].copy_from_slice(&crate::env::wall_nanos().to_le_bytes());
    }
    remove_left(&directory, &recovered.state);
    let ledger = Ledger::new(journal.clone(), recovered.state, told(live.clone(), drc.clone()));
    for (junction, from) in recovered.doubts {
        ledger.doubt(junction, from);
    }
    let locations = Arc::new(Locations::default());
    let ids = Arc::new(NodeIds::after(recovered.highest_node));
    let volume = Arc::new(Volume::new(ledger.clone(), live.clone(), locations.clone(), ids.clone()));
    let own_dirs = own_dirs(&config);
    let filers =
        Registry::apart_from(&own_dirs).await.context("where the service keeps its own data cannot be told")?;
    let core = Core { ledger, live, locations, volume: volume.clone(), stores, filers: Arc::new(filers) };

    // Whoever has been answered may ask for a stop in order.
    let asked = asked_to_stop()?;
    let listener = TcpListener::bind(config.nfs.listen)
        .await
        .with_context(|| format!("NFS cannot listen on {}: choose another [nfs] listen", config.nfs.listen))?;
    let nfs = listener.local_addr()?;
    let api =
        Api::bind(&config.api).await.with_context(|| format!("the API cannot listen on {}", config.api.listen))?;

    let (stop, stopped) = watch::channel(false);
    let board = Arc::new(Board::default());
    let supervisor = tokio::spawn(Supervisor::new(core.clone(), board.clone()).run(stopped.clone()));
    wait_for_primaries(&core, &board).await;
    let told = board.clone();
    let stuck = Arc::new(Stuck::default());
    let watched = tokio::spawn(stuck.clone().run(core.clone(), board.clone(), stopped.clone()));
    let checkpoints = tokio::spawn(Checkpoints::default().run(core.clone(), move |failed| told.checkpoint(failed)));

    let backend: Arc<dyn Backend> = volume;
    let identity = Identity { handle_key, journal_id: journal.id() };
    let limits = Limits {
        lock_grace: config.nfs.grace,
        client_portmapper: config.nfs.client_portmapper,
        ..Limits::for_process()
    };
    let gateway = Gateway::new(backend, identity, drc, limits);
    let (timing, locks) = (gateway.timing(), gateway.locks());
    let gateway = tokio::spawn(gateway.serve(listener, stopped.clone()));
    let registration = match config.nfs.rpcbind {
        true => Some(rpcbind::register(Path::new(rpcbind::SOCKET), nfs).await),
        false => None,
    };
    let port = Arc::new(ServicePort {
        core: core.clone(),
        board: board.clone(),
        stuck,
        ids,
        nfs,
        timing,
        locks,
        unregistered: registration.as_ref().map_or_else(Vec::new, |it| it.problems.clone()),
        hard_limit: config.journal.hard_limit,
        own_dirs,
    });
    let mut until = stopped.clone();
    let serving = api.serve(port, async move {
        let _ = until.wait_for(|stop| *stop).await;
    });
    let api = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the API failed");
        }
    });
    let mut parts = Parts { gateway, api, supervisor, checkpoints, stuck: watched };
    tracing::info!(%nfs, api = %config.api.listen, took = ?begin.elapsed(), "serving");
    // Not run by systemd: there is nobody to notify, which is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let reason = tokio::select! {
        biased; // parts end when the journal has failed
        error = journal.failed() => fail_stop(&error),
        reason = asked => reason,
        why = index_failed(&core, &board) => index_stop(&why),
        what = parts.ended() => part_stop(&what),
    };
    tracing::info!(reason, "stopping: calls in flight end first");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    let ends = async {
        if let Some(registration) = registration {
            registration.unregister().await;
        }
        // What a task that panicked has to say was logged when it did.
        let _ = parts.gateway.await;
        let _ = parts.api.await;
        let _ = parts.supervisor.await;
        crash_point!("STOP_DRAINED");
        parts.checkpoints.abort();
        let _ = parts.checkpoints.await;
        if let Err(error) = Checkpoints::default().take(&core).await {
            tracing::error!(%error, "no last checkpoint: the next start redoes more");
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(STOP_MAX, ends) => if ended.is_err() {
            tracing::warn!("something still waits for a filer: stopping without it, the next start redoes more");
        },
        error = journal.failed() => fail_stop(&error),
        why = index_failed(&core, &board) => index_stop(&why),
    }
    crash_point!("STOP_BEFORE_CLOSE");
    journal.close().await.context("the journal could not be closed in order")?;
    tracing::info!("stopped");
    Ok(())
}

/// Events of commands that say something about nodes go into the live index when they are durable; ends that a start
/// gives to operations in doubt, to the answers that repeated calls get.
fn told(live: Arc<Live>, drc: Drc) -> crate::ledger::Told {
    Box::new(move |at, event| {
        drc.refill(at.lsn, Duration::ZERO, event, None);
        if let Err(error) = live.apply(at.lsn, at.time, event) {
            tracing::error!(%error, "the node index failed: restart the service, it recovers from the journal");
        }
    })
}

async fn open_journal(config: &Config) -> Result<Journal> {
    let append = match config.journal.append {
        Some(Append::Buffered) => AppendMode::Buffered,
        Some(Append::Map) => AppendMode::Map,
        Some(Append::Direct) => AppendMode::Direct,
        None => AppendMode::Best,
    };
    let options = Options {
        dir: config.journal.dir.clone(),
        segment_size: config.journal.segment_size,
        hard_limit: config.journal.hard_limit,
        append,
        any_file_system: config.journal.any_file_system,
        disk: Arc::new(RealDisk),
    };
    let archive = config.journal.archive.clone();
    let opened = blocking(move || {
        let journal = Journal::open(options)?;
        // Before anything is recycled.
        archive.map_or(Ok(()), |dir| journal.archive_to(&dir))?;
        Ok(journal)
    });
    let journal = opened.await.context("the journal cannot be opened")?;
    journal.set_soft_limit(config.journal.soft_limit);
    Ok(journal)
}

/// The supervisor brings primaries up; clients come when each is, or is known to be down.
async fn wait_for_primaries(core: &Core, board: &Board) {
    let begin = Instant::now();
    loop {
        let state = core.ledger.state();
        let down = board.down();
        let waiting =
            state.junctions.values().any(|j| core.locations.get(j.primary).is_none() && !down.contains_key(&j.primary));
        if !waiting {
            return;
        }
        if begin.elapsed() > PRIMARIES_WAIT {
            tracing::warn!("serving now, although a primary is still being brought up: its clients wait");
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// From the call on the signals are noted; before, they end the process.
fn asked_to_stop() -> Result<impl Future<Output = &'static str>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

fn fail_stop(error: &crate::journal::Error) -> ! {
    tracing::error!(%error, "the journal failed: nothing can be answered any more, the service ends (start it again: it recovers)");
    std::process::exit(EXIT_FAIL_STOP);
}

/// Returns, with the reason, once a store of the index is dead: it has lost what was written since its last commit, so
/// nothing may be answered by it any more. (A full state disk is the likely cause.)
async fn index_failed(core: &Core, board: &Board) -> String {
    loop {
        let primaries = core.locations.open();
        let dead = primaries.iter().find_map(|l| l.objects.store.failed()).or_else(|| core.live.store.failed());
        if let Some(why) = dead.map(ToOwned::to_owned).or_else(|| board.index_failed()) {
            return why;
        }
        tokio::time::sleep(INDEX_LOOK).await;
    }
}

fn index_stop(why: &str) -> ! {
    tracing::error!(
        error = why,
        "the node index failed: the service ends, for nothing can be answered without it; \
        look whether its disk ([state] dir) is full or broken; started again, it recovers from the journal"
    );
    std::process::exit(EXIT_FAIL_STOP);
}

fn part_stop(what: &str) -> ! {
    tracing::error!(
        ended = what,
        "a part of the service has ended, which is a defect of tain's: the service ends, for what that part does would \
         not be done any more (start it again: it recovers)"
    );
    std::process::exit(EXIT_FAIL_STOP);
}

/// URLs of what no client may reach: who may write the journal may do anything.
fn own_dirs(config: &Config) -> Vec<String> {
    let dirs = [Some(&config.journal.dir), Some(&config.state.dir), config.journal.archive.as_ref()];
    // A URL has no `..`; a configuration may.
    let real = |dir: &std::path::PathBuf| std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
    dirs.into_iter().flatten().map(|dir| crate::filer::registry::url_of(&real(dir))).collect()
}

fn make_dirs(dirs: &[&Path]) -> Result<()> {
    for dir in dirs {
        // What is in them names clients' files, and has their bytes.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
            format!(
                "{}: cannot be created (run as root, or name directories of your own in the configuration)",
                dir.display()
            )
        })?;
    }
    Ok(())
}

/// What a switch, an abort or a removed junction left behind is never opened again: its store only takes room.
fn remove_left(stores: &Directory, state: &State) {
    let used = |location: &&LocationState| !matches!(location.role, Role::Left);
    let wanted: BTreeSet<String> =
        state.locations.iter().filter(|(_, location)| used(location)).map(|(id, _)| store_name(*id)).collect();
    match stores.remove_others(STORES_OF_LOCATIONS, |name| wanted.contains(name)) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "the stores of locations that were left are removed"),
        Err(error) => {
            tracing::warn!(%error, dir = %stores.0.display(), "the stores of locations that were left cannot be removed")
        }
    }
}

/// Connections and objects each take a descriptor: use what the system allows this user.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}
