//! Recovery to a point in time, from outside: the real service under load, a copy of its tree, and the copy advanced to
//! many positions, each compared with what the clients' models were there. Archives are made while the service runs, and
//! read with the journal.
#![cfg(feature = "replay")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics fails, as it should")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tain::demo::lane::{Lane, Limits};
use tain::demo::load::Load;
use tain::demo::observer::Switch;
use tain::demo::rig::{Rig, Setup, TREE};
use tain::demo::source::Spec;
use tain::demo::walker;
use tokio::time::Instant;

/// Positions that are replayed to; `TAIN_REPLAYS=100` for the long count.
fn positions() -> usize {
    std::env::var("TAIN_REPLAYS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}
const LONG: Duration = Duration::from_secs(300);

/// The service lies beside the tool; it is built with it by `cargo test --workspace`.
fn service() -> PathBuf {
    let exe = Path::new(env!("CARGO_BIN_EXE_tain-journal")).with_file_name("tain");
    if !exe.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "tain", "--bin", "tain"]);
        assert!(build.status().unwrap().success(), "the service does not build");
    }
    exe
}

fn tool(args: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tain-journal")).args(args).args(paths).output().unwrap()
}

fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// xorshift: the same choices for the same seed.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

struct Run {
    dir: PathBuf,
    rig: Rig,
    lanes: Vec<Lane>,
    base_lsn: u64,
    end_lsn: u64,
}

impl Run {
    fn journals(&self) -> [PathBuf; 2] {
        [self.rig.service.journal(), self.dir.join("archives")]
    }

    fn args(&self, work: &Path, more: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tain-journal"));
        command.args(["replay", "--json", "--tree"]).arg(work);
        command.args(["--base-lsn", &self.base_lsn.to_string()]).args(more).args(self.journals());
        command
    }

    fn replay(&self, work: &Path, more: &[String]) -> Value {
        done(&self.args(work, more).output().unwrap())
    }

    /// A copy of the base without any past.
    fn fresh(&self, work: &Path) {
        copy(&self.dir.join("base"), work);
        let state = work.with_file_name("work.tain-replay");
        if state.exists() {
            std::fs::remove_dir_all(state).unwrap();
        }
    }

    /// The tree against the models as they were before the LSN.
    fn check(&self, work: &Path, lsn: u64) {
        let at = Switch { job: 0, lsn, time: 0, from: 0, to: 0 };
        let found = self.rig.verify(work, &self.lanes, Some(at)).unwrap();
        assert!(found.equal(), "at LSN {lsn}:\n{}", found.report());
    }
}

/// A base, then load with a move in it, then the end; archives are made all the while.
async fn run(dir: &Path, seed: u64) -> Run {
    let setup = Setup {
        spec: Spec { files: 200, lanes_files: None, mib: 6, lanes: 4, seed },
        segment_size: 8 << 20,
        clients: 2,
        limits: Limits { pause: Duration::from_millis(4), ..Limits::default() },
        deadline: Duration::from_secs(90),
        log_events: false,
    };
    let mut rig = Rig::new(&service(), dir, &["old", "new"], setup).await.unwrap();
    let journal = rig.service.journal();
    let info = done(&tool(&["info", "--json"], &[&journal]));
    copy(&rig.side("old", TREE), &dir.join("base"));
    let base_lsn = info["end_lsn"].as_u64().unwrap();
    let load = Load::start(rig.lanes().await.unwrap());
    let begun = Instant::now();
    let mut job = None;
    // Some thousand events on each side of the switch.
    loop {
        let archived = tool(&["archive", "--json"], &[&journal, &dir.join("archives")]);
        assert!(archived.status.success(), "{}", String::from_utf8_lossy(&archived.stderr));
        let events = rig.observer.seen().events;
        if job.is_none() && events > 1500 {
            job = Some(rig.start_move("new", TREE).await.unwrap());
            rig.wait_completed(job.unwrap(), LONG).await.unwrap();
        }
        if job.is_some() && events > 4000 {
            break;
        }
        assert!(load.failure().is_none(), "{:?}", load.failure());
        assert!(begun.elapsed() < LONG, "too few events: {events}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lanes = load.stop().await.unwrap();
    rig.service.stop().await.unwrap();
    let archived = done(&tool(&["archive", "--json"], &[&journal, &dir.join("archives")]));
    println!("archived: {archived}");
    let journals = [journal, dir.join("archives")];
    let info = done(&tool(&["info", "--json"], &[&journals[0], &journals[1]]));
    let end_lsn = info["stated_durable_lsn"].as_u64().unwrap();
    Run { dir: dir.to_owned(), rig, lanes, base_lsn, end_lsn }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_replayed_to_many_positions_is_the_models_tree_at_each_and_again_from_any_suffix() {
    let seed = std::env::var("TAIN_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(tain::demo::service::now) | 1;
    println!("seed {seed} (TAIN_TEST_SEED={seed} repeats the choices)");
    // Not the system's temporary directory: that may be a tmpfs, on which a journal is refused.
    let dir = tempfile::Builder::new().prefix("t").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run = run(dir.path(), seed).await;
    let mut choices = Choices(seed);
    let span = run.end_lsn - run.base_lsn;
    let work = dir.path().join("work");
    let (mut compared, mut again, mut killed) = (0, 0, 0);
    // Fresh copies, each advanced in ten steps: a step from the base, then on from where the last one ended.
    let positions = positions();
    for _ in 0..positions / 10 {
        run.fresh(&work);
        let mut targets: Vec<u64> = (0..10).map(|_| run.base_lsn + choices.below(span)).collect();
        targets.sort_unstable();
        for (step, target) in targets.iter().enumerate() {
            let to = vec!["--to".to_owned(), target.to_string()];
            if step == 4 {
                killed += u64::from(kill_in_the_middle(&run, &work, &to));
            }
            let reached = run.replay(&work, &to)["to_lsn"].as_u64().unwrap();
            assert!(reached <= *target && reached >= run.base_lsn, "{reached} for {target}");
            run.check(&work, reached);
            compared += 1;
            println!("LSN {reached}: equal");
            if step % 5 == 3 {
                let digest = walker::digest(&work).unwrap();
                let from = run.base_lsn + choices.below(reached - run.base_lsn);
                let boundary = boundary(&run, from).min(reached);
                let more = [to.clone(), vec!["--again-from".to_owned(), boundary.to_string()]].concat();
                run.replay(&work, &more);
                assert_eq!(walker::digest(&work).unwrap(), digest, "again from LSN {boundary} to {reached}");
                run.check(&work, reached);
                again += 1;
            }
        }
    }
    println!("{compared} positions compared, {again} suffixes replayed again, {killed} replays killed in the middle");
    assert_eq!((compared, again), (positions / 10 * 10, positions / 10 * 2));

    // Backwards it does not go; what does not fit is refused.
    let back = run.args(&work, &["--to".into(), run.base_lsn.to_string()]).output().unwrap();
    assert!(String::from_utf8_lossy(&back.stderr).contains("only goes forward"));
    run.fresh(&work);
    let gone = std::fs::read_dir(&work).unwrap().map(|e| e.unwrap().path()).find(|path| path.is_dir()).unwrap();
    std::fs::remove_dir_all(&gone).unwrap();
    let refused = run.args(&work, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("does not fit"), "{why}");
    let itself = run.args(&run.rig.side("old", TREE), &["--state".into(), work.display().to_string() + ".x"]).output();
    assert!(String::from_utf8_lossy(&itself.unwrap().stderr).contains("wants a copy"));
}

/// A record's begin at or behind the LSN.
fn boundary(run: &Run, from: u64) -> u64 {
    let [journal, archives] = run.journals();
    let lines = Command::new(env!("CARGO_BIN_EXE_tain-journal"))
        .args(["dump", "--json", "--from", &from.to_string(), "--to", &(from + (1 << 20)).to_string()])
        .args([journal, archives])
        .output()
        .unwrap();
    let first = String::from_utf8(lines.stdout).unwrap();
    let first: Option<Value> = first.lines().next().map(|line| serde_json::from_str(line).unwrap());
    first.and_then(|line| line["lsn"].as_u64()).unwrap_or(run.base_lsn)
}

/// Begin a replay and kill it when it has begun to change the tree; whether it was killed before its end.
fn kill_in_the_middle(run: &Run, work: &Path, to: &[String]) -> bool {
    let meta = work.with_file_name("work.tain-replay").join("replay.json");
    let before = std::fs::read(&meta).unwrap();
    let mut child = run.args(work, to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while std::fs::read(&meta).unwrap_or_default() == before {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}
