//! The supervisor over filers in memory that hang, fail and come back.
#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

mod carries;
mod gate;
mod traps;

use super::*;
use crate::checkpoint::Checkpoints;
use crate::core::{LIVE_CACHE, LIVE_STORE, LOCATION_CACHE, store_name};
use crate::filer::memory::Fault;
use crate::filer::{Changes, CoreFiler, ErrorKind, MakeAttrs, OwnerMarker};
use crate::index::live::Live;
use crate::index::stores::{Directory, Stores};
use crate::journal::{AppendMode, Journal, Options};
use crate::ledger::Ledger;
use crate::location::Locations;
use crate::service::recovery::note_cut;
use crate::state::{Command, JobAction, State};
use crate::volume::{Call, CreateHow, NodeIds, NodeRef, SetAttrs, Status as NfsStatus, Volume};
use bytes::Bytes;
use gate::{Gated, Rack};
use journal_format::event::{Event, FilerFound, JobState, JunctionModified, OutOfSync, What};
use journal_format::ids::{Lsn, NodeId, Time};
use std::net::{IpAddr, Ipv4Addr};

/// Longer than anything takes on a busy machine; nothing that works waits for it.
const HANG: Duration = Duration::from_secs(120);

struct World {
    core: Core,
    board: Arc<Board>,
    filers: BTreeMap<String, Gated>,
    stop: watch::Sender<bool>,
    supervisor: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

fn url(name: &str) -> String {
    format!("memory://{name}")
}

impl World {
    async fn new(names: &[&str]) -> Self {
        Self::sized(names, 4 << 20, 64 << 20).await
    }

    async fn sized(names: &[&str], segment_size: u64, hard_limit: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().join("journal"),
            segment_size,
            hard_limit,
            append: AppendMode::Buffered,
            any_file_system: true,
            disk: Arc::new(crate::env::RealDisk),
        };
        let journal = Journal::open(options).unwrap();
        let stores: Arc<dyn Stores> = Arc::new(Directory(dir.path().to_owned()));
        let live = Arc::new(Live::new(Arc::new(stores.open(LIVE_STORE, LIVE_CACHE, false).unwrap())));
        let told = live.clone();
        let ledger = Ledger::new(
            journal,
            State::default(),
            Box::new(move |at, event| told.apply(at.lsn, at.time, event).unwrap()),
        );
        let locations = Arc::new(Locations::default());
        let ids = Arc::new(NodeIds::after(NodeId(1000)));
        let volume = Arc::new(Volume::new(ledger.clone(), live.clone(), locations.clone(), ids));
        let filers: BTreeMap<String, Gated> = names.iter().map(|name| (url(name), Gated::new())).collect();
        let rack = Arc::new(Rack(filers.clone()));
        let core = Core { ledger, live, locations, volume, stores, filers: rack };
        let (stop, stopped) = watch::channel(false);
        let board = Arc::new(Board::default());
        let supervisor = Some(tokio::spawn(Supervisor::new(core.clone(), board.clone()).run(stopped)));
        let world = Self { core, board, filers, stop, supervisor, dir };
        for name in names {
            let found = FilerFound { can_chown: true, can_mknod: true, ..FilerFound::default() };
            world
                .command(Command::AddFiler {
                    name: (*name).into(),
                    url: url(name),
                    root: name.as_bytes().into(),
                    found,
                })
                .await;
        }
        world
    }

    fn filer(&self, name: &str) -> &Gated {
        &self.filers[&url(name)]
    }

    async fn command(&self, command: Command) {
        self.core.ledger.command(&command).await.unwrap();
    }

    /// A junction at `/name` over the filer of that name, with a file of these bytes in it before.
    async fn junction(&self, name: &str, number: u64, content: &[u8]) -> NodeRef {
        let filer = &self.filer(name).filer;
        let root = filer.root().await.unwrap();
        filer.set(&root, Changes { mode: Some(0o777), ..Changes::default() }).await.unwrap();
        let attrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0, inherits: false };
        let file = filer.make(&root, b"file", &What::File, attrs).await.unwrap();
        filer.write(&file, 0, Bytes::copy_from_slice(content)).await.unwrap();
        self.claim(name).await;
        let node = NodeId(number);
        let path = vec![name.as_bytes().to_vec()];
        let (mtime, ctime) = (Time(1), Time(1));
        let add = Command::AddJunction {
            path,
            filer: name.into(),
            subdir: vec![],
            root: root.id,
            node,
            mtime,
            ctime,
            access: None,
        };
        self.command(add).await;
        let state = self.core.ledger.state();
        let junction = state.junction_by_path(&[name.as_bytes().to_vec()]).unwrap().0;
        NodeRef { junction, node }
    }

    async fn claim(&self, name: &str) {
        let location = self.core.ledger.state().next.location;
        let marker = OwnerMarker { journal_id: self.core.ledger.journal.id(), location, epoch: 1 };
        self.filer(name).filer.claim(&marker).await.unwrap();
    }

    async fn start_move(&self, junction: &str, to: &str) -> JobId {
        self.create_move(junction, to, false).await
    }

    async fn create_move(&self, junction: &str, to: &str, stopped: bool) -> JobId {
        let root = self.filer(to).filer.root().await.unwrap().id;
        self.claim(to).await;
        let job = JobId(self.core.ledger.state().next.job);
        let source = vec![junction.as_bytes().to_vec()];
        let create = Command::CreateMove { source, filer: to.into(), subdir: vec![], root, notes: "".into(), stopped };
        self.command(create).await;
        job
    }

    fn job(&self, job: JobId) -> (JobState, String) {
        let state = self.core.ledger.state();
        let job = state.jobs.get(&job).unwrap();
        (job.state, job.reason.clone())
    }

    async fn reaches(&self, job: JobId, wanted: JobState) {
        self.until(|| self.job(job).0 == wanted, || format!("job {job} is {:?}, not {wanted:?}", self.job(job))).await;
    }

    async fn until(&self, mut reached: impl FnMut() -> bool, what: impl Fn() -> String) {
        let begun = Instant::now();
        while !reached() {
            assert!(begun.elapsed() < HANG, "{}", what());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn is_open(&self, junction: NodeRef) {
        let primary = self.core.ledger.state().junctions[&junction.junction].primary;
        self.until(|| self.core.locations.get(primary).is_some(), || format!("{primary} does not come up")).await;
    }

    async fn create(&self, at: NodeRef, name: &str) -> Result<(), NfsStatus> {
        let how = CreateHow::Guarded(SetAttrs { mode: Some(0o644), ..SetAttrs::default() });
        self.core.volume.create(&call(), at, name.as_bytes(), how).await.map(drop).map_err(|r| r.status)
    }

    async fn stop(&mut self) {
        self.stop.send_replace(true);
        let supervisor = self.supervisor.take().unwrap();
        tokio::time::timeout(HANG, supervisor).await.expect("the supervisor stops").unwrap();
    }
}

fn call() -> Call {
    Call { uid: 0, gid: 0, gids: vec![], addr: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 700, xid: 1, sum: 1 }
}

async fn content(filer: &Gated, name: &str) -> Vec<u8> {
    let root = filer.filer.root().await.unwrap();
    let file = filer.filer.lookup(&root, name.as_bytes()).await.unwrap();
    filer.filer.read(&file, 0, 1 << 20).await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_that_hangs_holds_up_its_own_job_and_neither_another_one_nor_the_stop() {
    let mut w = World::new(&["a", "b", "c", "d"]).await;
    w.junction("a", 1, b"of a").await;
    w.junction("c", 2, b"of c").await;
    w.filer("b").hang(true);
    let hung = w.start_move("a", "b").await;
    w.until(|| w.filer("b").waiting() > 0, || "b is not asked".into()).await;
    let healthy = w.start_move("c", "d").await;
    w.reaches(healthy, JobState::Completed).await;
    assert_eq!(content(w.filer("d"), "file").await, b"of c");
    assert!(matches!(w.job(hung).0, JobState::Starting | JobState::Moving), "{:?}", w.job(hung));
    w.stop().await;
    w.filer("b").hang(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_that_hangs_in_mid_copy_does_not_keep_an_abort_from_counting_and_is_shown() {
    let w = World::new(&["a", "b"]).await;
    w.junction("a", 1, b"of a").await;
    // Open, and then no more.
    let b = w.filer("b").clone();
    w.filer("a").filer.set_fault(Some(Box::new(move |op| {
        if op == "read" {
            b.hang(true);
        }
        None
    })));
    let job = w.start_move("a", "b").await;
    w.until(|| w.filer("b").waiting() > 0, || "b is not asked".into()).await;
    w.command(Command::JobAction { job, action: JobAction::Abort }).await;
    assert_eq!(w.job(job).0, JobState::Aborted);
    let destination = w.core.ledger.state().jobs[&job].destination;
    w.filer("b").hang(false);
    w.until(|| w.board.replayer(destination).is_none(), || "the replayer does not end".into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_hangs_keeps_its_own_cursor_and_clients_and_nobody_elses() {
    let mut w = World::new(&["a", "c"]).await;
    let (a, c) = (w.junction("a", 1, b"of a").await, w.junction("c", 2, b"of c").await);
    w.is_open(a).await;
    w.is_open(c).await;
    w.create(a, "before").await.unwrap();
    w.filer("a").hang(true);
    assert_eq!(w.create(a, "while it hangs").await, Err(NfsStatus::Jukebox));
    let (silent, _) = w.core.volume.silent().pop_first().unwrap();
    assert_eq!(silent, w.core.ledger.state().junctions[&a.junction].primary);
    // At once: nobody waits once more for what is known to hang.
    let asked = w.filer("a").waiting();
    for n in 0..100 {
        assert_eq!(w.create(a, &n.to_string()).await, Err(NfsStatus::Jukebox));
    }
    assert!(w.filer("a").waiting() < asked + 50, "{} of 100 calls went to the filer", w.filer("a").waiting() - asked);
    w.create(c, "beside it").await.unwrap();
    let cursor = |w: &World, at: NodeRef| {
        let state = w.core.ledger.state();
        state.locations[&state.junctions[&at.junction].primary].cursor
    };
    let before = (cursor(&w, a), cursor(&w, c));
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(&w.core).await.unwrap();
    assert_eq!(cursor(&w, a), before.0, "what hangs is not durable");
    assert!(cursor(&w, c) > before.1, "the healthy one's cursor goes on");
    w.filer("a").hang(false);
    let begun = Instant::now();
    while w.create(a, "after").await != Ok(()) {
        assert!(begun.elapsed() < HANG, "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(w.core.volume.silent().is_empty());
    w.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_hangs_at_the_start_is_shown_as_down_and_comes_up_when_it_answers() {
    let w = World::new(&["a", "c"]).await;
    w.filer("a").hang(true);
    let (a, c) = (w.junction("a", 1, b"").await, w.junction("c", 2, b"").await);
    w.is_open(c).await;
    w.until(|| w.board.down().len() == 1, || "it is not shown".into()).await;
    assert_eq!(w.create(a, "x").await, Err(NfsStatus::Jukebox));
    w.filer("a").hang(false);
    w.is_open(a).await;
    w.create(a, "x").await.unwrap();
    assert!(w.board.down().is_empty());
}

/// Nobody changes anything, and what is refused is nothing that a checkpoint looks at.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_idle_primary_that_is_gone_is_shown_as_down_and_comes_up_when_it_is_back() {
    let w = World::new(&["a"]).await;
    let a = w.junction("a", 1, b"").await;
    w.is_open(a).await;
    w.filer("a").filer.set_fault(Some(Box::new(|_| Some(Fault::Before(ErrorKind::Down)))));
    w.until(|| w.board.down().len() == 1, || "it is not shown".into()).await;
    assert_eq!(w.create(a, "x").await, Err(NfsStatus::Jukebox));
    w.filer("a").filer.set_fault(None);
    w.is_open(a).await;
    w.create(a, "x").await.unwrap();
    assert!(w.board.down().is_empty());
}

/// Quicker than anybody asks for it, and there is nothing to be synced, which would tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_idle_primary_that_was_mounted_anew_comes_up_by_itself() {
    let w = World::new(&["a"]).await;
    let a = w.junction("a", 1, b"").await;
    w.is_open(a).await;
    w.create(a, "x").await.unwrap();
    w.filer("a").filer.mount_anew();
    let begun = Instant::now();
    while let Err(status) = w.create(a, "y").await {
        assert!(status == NfsStatus::Jukebox && begun.elapsed() < HANG, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_old_side_keeps_neither_owner_marker_nor_pen_nor_another_time() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    w.create(a, "new").await.unwrap();
    let old = &w.filer("a").filer;
    old.pen().await.unwrap(); // a redo left it
    let mtime = w.core.live.node(a.node).unwrap().unwrap().mtime;
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    assert_eq!(w.job(job).1, "");
    w.until(|| w.board.replayer(LocationId(2)).is_none(), || "its destination's replayer still counts".into()).await;
    assert_eq!(old.owner().await.unwrap(), None);
    let root = old.root().await.unwrap();
    assert_eq!(old.stat(&root).await.unwrap().mtime, mtime);
    let before = old.pen().await.unwrap().id;
    old.remove_pen().await.unwrap();
    assert_ne!(old.pen().await.unwrap().id, before, "that one was made by this test");
    assert_eq!(w.filer("b").filer.owner().await.unwrap().unwrap().location, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_side_that_fails_does_not_keep_the_job_from_its_end_and_the_reason_says_what_stays() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    w.filer("a").filer.set_fault(Some(Box::new(|op| (op == "unclaim").then_some(Fault::Before(ErrorKind::Io)))));
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    assert!(w.job(job).1.contains("a:/ keeps tain's owner marker"), "{}", w.job(job).1);
}

/// When it answers again the place may be somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_side_that_hangs_is_left_alone_once_the_job_has_ended() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    let (old, hangs) = (w.filer("a").clone(), w.filer("a").clone());
    old.filer.set_fault(Some(Box::new(move |op| {
        if op == "owner" {
            hangs.hang(true);
        }
        None
    })));
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    assert!(w.job(job).1.contains("a:/ keeps tain's owner marker: no answer"), "{}", w.job(job).1);
    old.filer.set_fault(None);
    let theirs = OwnerMarker { journal_id: [9; 16], location: 1, epoch: 1 };
    old.filer.claim(&theirs).await.unwrap();
    old.hang(false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(old.filer.owner().await.unwrap(), Some(theirs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_side_whose_filer_was_removed_is_named_as_what_keeps_its_marker() {
    let mut w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    w.stop().await;
    let job = w.start_move("a", "b").await;
    for state in [JobState::Starting, JobState::Moving, JobState::Synchronized, JobState::Transitioning] {
        w.command(Command::JobTo { job, state, reason: String::new() }).await;
    }
    w.command(Command::SwitchJunction { job }).await;
    w.command(Command::RemoveFiler { name: "a".into() }).await;
    finish::finish(w.core.clone(), job).await;
    let (state, reason) = w.job(job);
    assert_eq!(state, JobState::Completed);
    assert!(reason.contains("keeps tain's owner marker") && reason.contains("its filer was removed"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_switch_that_a_former_life_began_over_a_destination_that_is_gone_can_be_aborted() {
    let mut w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    w.filer("b").hang(true);
    let job = w.start_move("a", "b").await;
    w.stop().await;
    let before = w.job(job).0;
    for state in [JobState::Moving, JobState::Synchronized, JobState::Transitioning] {
        if before != state {
            w.command(Command::JobTo { job, state, reason: String::new() }).await;
        }
    }
    let (stop, stopped) = watch::channel(false);
    (w.stop, w.supervisor) = (stop, Some(tokio::spawn(Supervisor::new(w.core.clone(), w.board.clone()).run(stopped))));
    w.reaches(job, JobState::Synchronized).await;
    w.command(Command::JobAction { job, action: JobAction::Abort }).await;
    assert_eq!(w.job(job).0, JobState::Aborted);
    w.stop().await;
    w.filer("b").hang(false);
}

/// What is open of a mount that was replaced answers nothing any more; its place does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_that_was_mounted_anew_is_reached_again_without_a_restart() {
    let w = World::new(&["a", "b"]).await;
    w.junction("a", 1, b"of a").await;
    let stale = std::sync::atomic::AtomicBool::new(false);
    let was = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    w.filer("b").filer.set_fault(Some(Box::new(move |op| match op {
        "root" => {
            stale.store(false, order);
            None
        }
        "sync" => {
            stale.fetch_or(!was.swap(true, order), order);
            stale.load(order).then_some(Fault::Before(ErrorKind::Stale))
        }
        _ => None,
    })));
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    assert_eq!(content(w.filer("b"), "file").await, b"of a");
}

/// A source that its administrator made read-only for the migration, or that is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_that_takes_no_times_any_more_is_moved_away_from() {
    for kind in [ErrorKind::ReadOnly, ErrorKind::NoSpace] {
        let w = World::new(&["a", "b"]).await;
        let a = w.junction("a", 1, b"of a").await;
        w.is_open(a).await;
        w.create(a, "new").await.unwrap();
        w.filer("a").filer.set_fault(Some(Box::new(move |op| (op == "set").then_some(Fault::Before(kind)))));
        let job = w.start_move("a", "b").await;
        w.reaches(job, JobState::Completed).await;
        assert_eq!(content(w.filer("b"), "new").await, b"");
    }
}

/// A size that cannot be read was once taken for none: the copy was an empty file, and counted as done.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_whose_size_cannot_be_read_is_reported_and_copied_when_the_job_goes_on() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"all of it").await;
    w.is_open(a).await;
    let copying = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let begun = copying.clone();
    w.filer("b").filer.set_fault(Some(Box::new(move |op| {
        // The file is made on the destination: what is asked of the source from now on is its size.
        if op == "make" {
            begun.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        None
    })));
    w.filer("a").filer.set_fault(Some(Box::new(move |op| {
        (op == "stat" && copying.load(std::sync::atomic::Ordering::SeqCst)).then_some(Fault::Before(ErrorKind::Io))
    })));
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Paused).await;
    let errors = w.core.ledger.state().jobs[&job].errors.clone();
    assert!(format!("{errors:?}").contains("size cannot be read"), "{errors:?}");
    w.filer("a").filer.set_fault(None);
    w.command(Command::JobAction { job, action: JobAction::Start }).await;
    w.reaches(job, JobState::Completed).await;
    assert_eq!(content(w.filer("b"), "file").await, b"all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_junction_that_is_removed_is_closed() {
    let w = World::new(&["a"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    let primary = w.core.ledger.state().junctions[&a.junction].primary;
    w.command(Command::RemoveJunction { junction: a.junction }).await;
    w.until(|| w.core.locations.get(primary).is_none(), || "it stays open".into()).await;
    assert_eq!(w.create(a, "x").await, Err(NfsStatus::Stale));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_hangs_in_mid_copy_is_waited_for_and_nothing_of_it_is_reported_as_bad() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"all of it").await;
    w.is_open(a).await;
    w.filer("a").hang(true);
    let job = w.start_move("a", "b").await;
    w.until(|| !w.core.volume.silent().is_empty(), || "a is not asked".into()).await;
    w.until(|| w.filer("a").waiting() > 1, || "a is not asked again".into()).await;
    w.filer("a").hang(false);
    w.reaches(job, JobState::Completed).await;
    assert!(w.core.ledger.state().jobs[&job].errors.is_empty());
    assert_eq!(content(w.filer("b"), "file").await, b"all of it");
}

/// A thin disk image of 16 TiB: what a move takes is what is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_is_mostly_holes_is_copied_in_as_many_steps_as_its_data_takes() {
    const SIZE: u64 = 1 << 44;
    let w = World::new(&["a", "b"]).await;
    let filer = &w.filer("a").filer;
    let root = filer.root().await.unwrap();
    let attrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0, inherits: false };
    let image = filer.make(&root, b"image", &What::File, attrs).await.unwrap();
    filer.set(&image, Changes { size: Some(SIZE), ..Changes::default() }).await.unwrap();
    for at in [4096, SIZE / 2, SIZE - 4] {
        filer.write(&image, at, Bytes::from_static(b"data")).await.unwrap();
    }
    w.junction("a", 1, b"small").await;
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    let there = &w.filer("b").filer;
    let copy = there.lookup(&there.root().await.unwrap(), b"image").await.unwrap();
    assert_eq!(there.stat(&copy).await.unwrap().size, SIZE);
    assert_eq!(there.data_ranges(&copy, 0, SIZE).await.unwrap(), filer.data_ranges(&image, 0, SIZE).await.unwrap());
    assert_eq!(there.read(&copy, SIZE / 2, 4).await.unwrap(), "data");
    let mut ranges = 0;
    let mut journal = w.core.ledger.journal.reader(w.core.ledger.journal.start_lsn()).unwrap();
    while let Some(record) = journal.next(Lsn(u64::MAX)).unwrap() {
        if let Event::CopyRange(e) = record.event {
            ranges += e.ranges.len();
        }
    }
    assert_eq!(ranges, 2);
}

/// Writing back what a client wrote has failed, and the page is gone: the old bytes are read until a sync says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_copied_of_a_primary_that_lost_a_write_before_its_sync_said_so_is_copied_again() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"old").await;
    w.is_open(a).await;
    let file = w.core.volume.lookup(&call(), a, b"file").await.unwrap().node;
    w.core.volume.write(&call(), file, 0, Bytes::from_static(b"new")).await.unwrap();
    let filer = &w.filer("a").filer;
    let lost = filer.lookup(&filer.root().await.unwrap(), b"file").await.unwrap();
    filer.write(&lost, 0, Bytes::from_static(b"old")).await.unwrap();
    let tell_once = std::sync::atomic::AtomicBool::new(true);
    filer.set_fault(Some(Box::new(move |op| {
        (op == "sync" && tell_once.swap(false, std::sync::atomic::Ordering::SeqCst))
            .then_some(Fault::Before(ErrorKind::Io))
    })));
    let job = w.start_move("a", "b").await;
    let destination = w.core.ledger.state().jobs[&job].destination;
    let went_back = || w.board.replayer(destination).is_some_and(|status| status.went_back > 0);
    w.until(went_back, || "what was read is believed".into()).await;
    Checkpoints::default().take(&w.core).await.unwrap();
    w.reaches(job, JobState::Completed).await;
    assert_eq!(
        (content(w.filer("a"), "file").await, content(w.filer("b"), "file").await),
        (b"new".into(), b"new".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_paused_on_a_full_destination_goes_on_when_it_is_started_with_room_again() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"all of it").await;
    w.is_open(a).await;
    w.filer("b").filer.set_fault(Some(Box::new(|op| (op == "make").then_some(Fault::Before(ErrorKind::NoSpace)))));
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Paused).await;
    assert!(w.job(job).1.contains("the destination"), "{}", w.job(job).1);
    w.filer("b").filer.set_fault(None);
    // Once: what was met before is not held against it.
    w.command(Command::JobAction { job, action: JobAction::Start }).await;
    w.reaches(job, JobState::Completed).await;
    assert_eq!(content(w.filer("b"), "file").await, b"all of it");
}

/// Bulk work brings threads of its own, and blocks the task that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_location_whose_bulk_work_hangs_is_shown_as_down() {
    let (board, id) = (Arc::new(Board::default()), LocationId(1));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let watched = board.clone();
    let work = tokio::spawn(async move {
        let hangs = async move { tokio::task::block_in_place(|| wait.recv().unwrap()) };
        watched.watched(id, "bringing it up", hangs).await;
        watched.is_up(id);
    });
    let shown = async {
        while !board.down().contains_key(&id) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(HANG, shown).await.unwrap();
    go.send(()).unwrap();
    work.await.unwrap();
    assert!(board.down().is_empty());
}

/// The primary has carried out what was cut, and no record of it is left that would bring it over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_that_was_begun_before_a_repair_is_not_gone_on_with_wherever_it_stands() {
    let mut w = World::sized(&["a", "b"], 256 << 10, 16 << 20).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    let job = w.create_move("a", "b", true).await;
    w.stop().await;
    w.command(Command::JobAction { job, action: JobAction::Start }).await;
    let kept = w.dir.path().join("journal").join("repair-1");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("cut"), "4096\n").unwrap();
    note_cut(&w.core.ledger.journal, w.core.stores.as_ref(), &w.core.ledger.state()).unwrap();
    let destination = w.core.ledger.state().jobs[&job].destination;
    let (_stop, stopped) = watch::channel(false);
    let board = Arc::new(Board::default());
    let supervisor = tokio::spawn(Supervisor::new(w.core.clone(), board.clone()).run(stopped));
    w.until(|| board.down().contains_key(&destination), || format!("{:?}", w.job(job))).await;
    assert!(format!("{:?}", board.down()[&destination]).contains("abort the job and create it again"));
    // Out of sync it lets go of the journal, which nobody will ever read for it.
    let ledger = &w.core.ledger;
    let cursor = || ledger.state().locations[&destination].cursor;
    let from = cursor();
    ledger.record(&Event::OutOfSync(OutOfSync { location: destination, from })).await.unwrap();
    let something = Event::JunctionModified(JunctionModified { junction: a.junction, access: None, suspended: false });
    while ledger.journal.durable_lsn().0 < from.0 + (600 << 10) {
        ledger.append(&something).await.unwrap();
    }
    w.until(|| cursor().0 > from.0 + (256 << 10), || format!("{}", cursor())).await;
    supervisor.abort();
}

/// What its store has folded is not in the journal any more; gone on with, what comes there instead would be missing at the
/// switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_that_is_ahead_of_a_journal_that_was_repaired_is_not_gone_on_with() {
    let mut w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    w.is_open(a).await;
    let job = w.create_move("a", "b", true).await;
    w.stop().await;
    let (ledger, stores) = (&w.core.ledger, w.core.stores.as_ref());
    let journal = &ledger.journal;
    let destination = w.core.ledger.state().jobs[&job].destination;
    let open = || stores.open(&store_name(destination), LOCATION_CACHE, true).unwrap();
    let ahead = Lsn(journal.end_lsn().0 + 20_000);
    open().commit(ahead).unwrap();
    let note = || note_cut(journal, stores, &w.core.ledger.state()).unwrap();
    note();
    assert!(open().get(b"c").unwrap().is_none(), "nobody has repaired it");
    let kept = w.dir.path().join("journal").join("repair-1");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("cut"), "4096\n").unwrap();
    note();
    // The journal comes as far again, with something else.
    let something = Event::JunctionModified(JunctionModified { junction: a.junction, access: None, suspended: false });
    while journal.durable_lsn() <= ahead {
        ledger.append(&something).await.unwrap();
    }
    let (_stop, stopped) = watch::channel(false);
    let board = Arc::new(Board::default());
    let supervisor = tokio::spawn(Supervisor::new(w.core.clone(), board.clone()).run(stopped));
    w.command(Command::JobAction { job, action: JobAction::Start }).await;
    w.until(|| board.down().contains_key(&destination), || format!("{:?}", w.job(job))).await;
    assert!(format!("{:?}", board.down()[&destination]).contains("abort the job and create it again"));
    w.command(Command::JobAction { job, action: JobAction::Abort }).await;
    assert_eq!(w.job(job).0, JobState::Aborted);
    supervisor.abort();
}
