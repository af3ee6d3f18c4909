//! A rig whose service dies again and again: clients that check every answer, one move after the other, junctions that
//! come and go, operations that the filer refuses.

use crate::plan::{Item, NEVER, When, died};
use crate::support::{self, exe, name};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tain::demo::client::{Client, Cred};
use tain::demo::lane::{Lane, Limits};
use tain::demo::load::Load;
use tain::demo::nfs::Call;
use tain::demo::rig::{Rig, TREE, carried_out_twice};
use tokio::task::{JoinHandle, block_in_place};

/// A point of the recovery that a start does not reach (there was nothing to do for it) is tried so often.
const STARTS: u32 = 30;

/// What clients do between two such starts.
const OPS_BETWEEN: u64 = 60;

/// Of the 64 that the journal may have.
const SEGMENTS_FULL: usize = 30;

/// A directory that was or is the junction's.
#[derive(Clone, Debug)]
struct Side {
    filer: &'static str,
    sub: String,
}

struct Move {
    job: u32,
    to: Side,
}

/// How far everything was when the service died.
struct Cut {
    lsn: u64,
    /// Lines of the step log.
    steps: usize,
}

pub struct Shaken {
    rig: Rig,
    /// Taken at the end.
    load: Option<Load>,
    here: Side,
    /// Under way.
    moving: Option<Move>,
    /// Sides left, and the job that left them.
    left: Vec<(Side, u32)>,
    cuts: Vec<Cut>,
    moves: u32,
    deaths: Vec<String>,
    missed: Vec<String>,
    /// Deaths since the service was up last.
    row: u32,
    nested: u32,
    refused: JoinHandle<()>,
    fixed: Fixed,
}

/// A file that nobody can write while this lives.
struct Fixed(PathBuf);

impl Fixed {
    fn new(path: PathBuf) -> Self {
        std::fs::write(&path, "as it was").unwrap();
        chattr("+i", &path);
        Self(path)
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        let _ = std::process::Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

pub struct Outcome {
    pub deaths: Vec<String>,
    pub missed: Vec<String>,
    pub moves: u32,
    pub bytes_twice: u64,
    /// How often three deaths or more came in a row, without the service being up in between.
    pub nested: u32,
}

impl Shaken {
    pub async fn new(dir: &Path) -> Self {
        let mut setup = support::setup(160, 6, 2);
        setup.segment_size = 2 << 20;
        setup.log_events = true;
        setup.limits = Limits { nodes: 250, file_bytes: 512 << 10, pause: Duration::from_millis(3), ..setup.limits };
        let rig = Rig::new(&exe(), dir, &["a", "b"], setup).await.unwrap();
        std::fs::create_dir(dir.join("a/fixed")).unwrap();
        let fixed = Fixed::new(dir.join("a/fixed/immutable"));
        for i in 0..40 {
            std::fs::create_dir_all(dir.join("a/scratch/sub")).unwrap();
            std::fs::write(dir.join(format!("a/scratch/file-{i}")), "scratch").unwrap();
        }
        rig.service.tain(&["junction", "add", "/fixed", "a:/fixed"]).await.unwrap();
        let client = Client::new(rig.service.nfs, Cred::own(), 0xe000_0001, Duration::from_secs(120));
        let refused = tokio::spawn(refused(client));
        let load = Load::start(rig.lanes().await.unwrap());
        let here = Side { filer: "a", sub: TREE.into() };
        let (left, cuts, deaths, missed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (moves, row, nested) = (0, 0, 0);
        Self {
            rig,
            load: Some(load),
            here,
            moving: None,
            left,
            cuts,
            moves,
            deaths,
            missed,
            row,
            nested,
            refused,
            fixed,
        }
    }

    /// Lives that are too short for a checkpoint fill the journal: now and then one is long enough to free segments.
    async fn breathe(&mut self) {
        let segments = |dir: &Path| {
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with("segment-")).count()
        };
        let journal = self.rig.service.journal();
        if segments(&journal) < SEGMENTS_FULL {
            return;
        }
        // Checkpoints come often in a life that waits for a point that there is not.
        self.rig.service.env("TAIN_CRASH", "NOWHERE:1".as_ref());
        self.cut().await;
        assert!(self.up("a life without death").await);
        let begun = Instant::now();
        while segments(&journal) >= SEGMENTS_FULL / 2 {
            assert!(begun.elapsed() < NEVER * 2, "no segment is freed: {}", self.rig.service.last_words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Have the service die there.
    pub async fn die(&mut self, item: Item) {
        self.breathe().await;
        let what = format!("{}:{}", item.name, item.hit);
        self.rig.service.env("TAIN_CRASH", what.as_ref());
        let tries = if item.when == When::Start { STARTS } else { 1 };
        for _ in 0..tries {
            self.cut().await;
            if self.up(&what).await && !self.dies(&item).await {
                continue;
            }
            if self.deaths.len().is_multiple_of(10) {
                println!("{:>4} deaths, this one at {what}", self.deaths.len());
            }
            self.deaths.push(item.name);
            return;
        }
        eprintln!("{what} was not reached: {}", self.rig.service.last_words());
        self.missed.push(what);
    }

    /// Kill what still runs, and note how far all was.
    async fn cut(&mut self) {
        if self.rig.service.ended().unwrap().is_none() {
            self.rig.service.kill().await.unwrap();
        }
        let rig = &self.rig;
        let (lsn, steps) = block_in_place(|| {
            rig.observer.settle().unwrap();
            (rig.observer.seen().lsn, rig.carried_out().unwrap().len())
        });
        self.cuts.push(Cut { lsn, steps });
        if let Some(why) = self.load.as_ref().and_then(Load::failure) {
            panic!("after {:?}: {why}", self.deaths.last());
        }
    }

    /// Start the service. False: it died on the way up.
    async fn up(&mut self, what: &str) -> bool {
        match self.rig.service.start().await {
            Ok(_) => {
                self.row = 0;
                true
            }
            Err(_) if died(&mut self.rig.service) => {
                self.row += 1;
                self.nested += u32::from(self.row == 3);
                false
            }
            Err(e) => panic!("{what} after {:?}: {e}", self.deaths.last()),
        }
    }

    /// Work until the service dies.
    async fn dies(&mut self, item: &Item) -> bool {
        let load = self.load.as_ref().map(|load| load.totals.clone()).unwrap();
        let ops = || load.ops.load(Ordering::Relaxed);
        let due = ops() + OPS_BETWEEN;
        let begun = Instant::now();
        while begun.elapsed() < NEVER {
            // It is up and did not die: there was nothing to do for that point. The next start has something to do.
            if item.when == When::Start && ops() >= due {
                return false;
            }
            if item.when == When::Stop {
                let stopped = self.rig.service.stop().await;
                return stopped.is_err_and(|e| e.to_string().contains("signal: 9"));
            }
            let done = self.work().await;
            if died(&mut self.rig.service) {
                return true;
            }
            // A command that failed although the service lives was refused.
            if let Err(e) = done
                && let Some(why) = self.alive(&e).await
            {
                panic!("{item:?} after {:?}: {why}", self.deaths.last());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Whether what failed did not fail because the service was about to die: then it still answers.
    async fn alive(&mut self, error: &anyhow::Error) -> Option<String> {
        let begun = Instant::now();
        while !died(&mut self.rig.service) {
            if self.rig.service.tain(&["status"]).await.is_ok() || begun.elapsed() > NEVER {
                return Some(format!("{error:#}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// One round of what an operator and others do.
    async fn work(&mut self) -> anyhow::Result<()> {
        self.take_note().await?;
        if self.moving.is_none() {
            self.moves += 1;
            let filer = if self.here.filer == "a" { "b" } else { "a" };
            let to = Side { filer, sub: format!("tree-{}", self.moves) };
            let place = format!("{}:/{}", to.filer, to.sub);
            // It may die before it says the number: then the list has it.
            self.rig.service.tain(&["move", "create", tain::demo::rig::JUNCTION, &place]).await?;
            self.take_note().await?;
        }
        self.scratch().await
    }

    /// Look at the jobs: which has completed, which is under way.
    async fn take_note(&mut self) -> anyhow::Result<()> {
        let jobs = self.rig.service.json(&["job", "list"]).await?;
        let jobs = jobs.as_array().or_else(|| jobs["jobs"].as_array()).cloned().unwrap_or_default();
        for job in jobs {
            let id = u32::try_from(job["id"].as_u64().unwrap_or_else(|| panic!("a job without id: {job}"))).unwrap();
            let state = job["state"].as_str().unwrap_or_default().to_owned();
            if self.left.iter().any(|(_, left)| *left == id) {
                continue;
            }
            if self.moving.as_ref().is_none_or(|m| m.job != id) {
                // The service died before it told the number.
                let to = job["destination"].as_str().unwrap_or_else(|| panic!("a job to nowhere: {job}")).to_owned();
                let (filer, sub) = to.split_once(":/").unwrap();
                let filer = if filer == "a" { "a" } else { "b" };
                self.moving = Some(Move { job: id, to: Side { filer, sub: sub.into() } });
            }
            match state.as_str() {
                "completed" => {
                    let done = self.moving.take().unwrap();
                    self.left.push((std::mem::replace(&mut self.here, done.to), id));
                }
                "paused" | "stopped" | "aborted" => {
                    let errors = self.rig.service.tain(&["job", "errors", &id.to_string()]).await.unwrap_or_default();
                    panic!("job {id} is {state} after {:?}: {job}\n{errors}", self.deaths.last());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A junction comes, its objects are met, it goes.
    async fn scratch(&mut self) -> anyhow::Result<()> {
        // Left by a death.
        let _ = self.rig.service.tain(&["junction", "remove", "/scratch"]).await;
        self.rig.service.tain(&["junction", "add", "/scratch", "a:/scratch"]).await?;
        let client = Client::new(self.rig.service.nfs, Cred::own(), 0xf000_0001, Duration::from_secs(2));
        // Whatever comes of it: it may be too early, or too late.
        let met = async {
            let root = client.mount(b"/scratch").await.ok()?.ok()?;
            client.nfs(&Call::Lookup { dir: root.clone(), name: name("file-1") }).await.ok()?;
            client.nfs(&Call::ReadDir { dir: root, cookie: 0, verf: [0; 8], count: 8192 }).await.ok()
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), met).await;
        self.rig.service.tain(&["junction", "remove", "/scratch"]).await?;
        Ok(())
    }

    /// Let it run without deaths to the end of the move, and compare everything.
    pub async fn end(mut self) -> Outcome {
        self.rig.service.unset("TAIN_CRASH");
        self.cut().await;
        assert!(self.up("the last start").await);
        let begun = Instant::now();
        self.take_note().await.unwrap();
        while self.moving.is_some() {
            assert!(begun.elapsed() < Duration::from_secs(120), "the last move does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.take_note().await.unwrap();
        }
        assert!(!self.refused.is_finished(), "a write that the filer refuses was answered otherwise");
        self.refused.abort();
        let mut lanes = self.load.take().unwrap().stop().await.unwrap();
        for lane in &mut lanes {
            lane.look_at_all().await.unwrap();
        }
        let _ = self.rig.service.tain(&["junction", "remove", "/scratch"]).await;
        self.rig.service.stop().await.unwrap();
        let log = std::fs::read_to_string(self.rig.service.log()).unwrap();
        let kept: Vec<&str> = log.lines().filter(|line| line.contains("still in use")).collect();
        assert!(kept.is_empty(), "a location was not let go of: {kept:?}; {}", self.rig.dir.display());
        assert_eq!(std::fs::read(&self.fixed.0).unwrap(), b"as it was");
        println!("{} deaths; the tree lies at {:?}", self.deaths.len(), self.here);
        // It takes its time: other rigs go on.
        let bytes_twice = block_in_place(|| self.all_is_as_it_must_be(&lanes));
        let Self { deaths, missed, moves, nested, .. } = self;
        Outcome { deaths, missed, moves, bytes_twice, nested }
    }

    /// The live side, and each side left; bytes that were carried out twice.
    fn all_is_as_it_must_be(&self, lanes: &[Lane]) -> u64 {
        let found = self.rig.verify(&self.rig.side(self.here.filer, &self.here.sub), lanes, None).unwrap();
        assert!(found.equal(), "the live side at the end:\n{}", found.report());
        for (side, job) in &self.left {
            let switch = self.rig.switch(*job).unwrap();
            let found = self.rig.verify(&self.rig.side(side.filer, &side.sub), lanes, Some(switch)).unwrap();
            assert!(
                found.equal(),
                "{side:?} at its switch by job {job} ({switch:?}):\n{}{}",
                found.report(),
                self.what_is_known(&self.rig.side(side.filer, &side.sub), &found.differences)
            );
        }
        self.steps_ran_once()
    }

    /// Of the first names that are wrong: what stands there, and what the journal said of them.
    fn what_is_known(&self, root: &Path, differences: &[String]) -> String {
        let mut out = String::new();
        for difference in differences.iter().take(3) {
            let path = difference.split(": ").next().unwrap_or_default().trim_start_matches('/');
            let found =
                (0..4).map(|lane| root.join(format!("lane-{lane}")).join(path)).find(|p| p.symlink_metadata().is_ok());
            let stat = found.as_ref().map(|p| p.symlink_metadata().unwrap());
            let name = path.rsplit('/').next().unwrap_or_default();
            let told = self.rig.told_of(name.as_bytes()).unwrap();
            out += &format!("{name}: {found:?} {stat:?}\n{told}");
        }
        out
    }

    /// Steps that the journal called done before a death were not carried out after it (I4). Bytes that were in flight
    /// and ran twice.
    fn steps_ran_once(&self) -> u64 {
        let steps = self.rig.carried_out().unwrap();
        let seen = self.rig.observer.seen();
        assert!(seen.done_again.is_empty(), "done twice by the journal: {:?}", seen.done_again);
        for cut in &self.cuts {
            for (step, _) in steps.iter().skip(cut.steps) {
                let done = seen.done.get(step).map_or(u64::MAX, |(lsn, _)| *lsn);
                assert!(done >= cut.lsn, "step {step:?}, done at LSN {done}, ran again after the death at {}", cut.lsn);
            }
        }
        carried_out_twice(&steps)
    }
}

/// Writes that the filer refuses, one after the other; ends when one is answered otherwise.
async fn refused(client: Client) {
    let (mut root, data) = (None, Bytes::from_static(b"never"));
    loop {
        tokio::time::sleep(Duration::from_millis(15)).await;
        if root.is_none() {
            root = client.mount(b"/fixed").await.ok().and_then(Result::ok);
        }
        let Some(dir) = root.clone() else { continue };
        let Ok(found) = client.nfs(&Call::Lookup { dir, name: name("immutable") }).await else { continue };
        let Some(node) = found.fh else { continue };
        match client.nfs(&Call::Write { node, offset: 0, data: data.clone(), stable: 2 }).await {
            Ok(reply) if reply.status == 0 => return,
            _ => {}
        }
    }
}

fn chattr(flag: &str, path: &Path) {
    let done = std::process::Command::new("chattr").arg(flag).arg(path).status().unwrap();
    assert!(done.success(), "chattr {flag} {}: needs root and ext4 or XFS", path.display());
}
