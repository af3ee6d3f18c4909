//! Power cuts while clients work and data moves; journal, state and both filers are on the disk.

use crate::count;
use crate::disk::{Disk, Fs};
use crate::support::{self, Dir, exe};
use std::time::{Duration, Instant};
use tain::demo::content::Rng;
use tain::demo::lane::Limits;
use tain::demo::load::Load;
use tain::demo::observer::Observer;
use tain::demo::rig::{JUNCTION, Rig, TREE};
use tokio::time::sleep;

/// Chances that an unflushed piece of 4 KiB is there after a cut, in percent.
const KEPT: [u64; 6] = [0, 0, 10, 50, 90, 100];

struct Run {
    disk: Disk,
    rng: Rng,
    cuts: u64,
    /// Cuts that had something to lose, and all those pieces.
    with_loss: u64,
    pieces: u64,
    moves: u32,
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_on_ext4_lose_nothing_that_was_answered() {
    power_cuts(Fs::Ext4, 384 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_on_xfs_lose_nothing_that_was_answered() {
    power_cuts(Fs::Xfs, 448 << 20).await;
}

async fn power_cuts(fs: Fs, size: u64) {
    let dir = Dir::new();
    let cuts = count("TAIN_CUTS", 50);
    let disk = Disk::new(fs, size, dir.path());
    let mut setup = support::setup(160, 8, 2);
    setup.segment_size = 2 << 20;
    setup.limits = Limits { nodes: 500, file_bytes: 1 << 20, pause: Duration::from_millis(3), ..setup.limits };
    let rng = Rng::new(setup.spec.seed);
    let mut run = Run { disk, rng, cuts: 0, with_loss: 0, pieces: 0, moves: 0, slowest: Duration::ZERO };
    // Dropped before the disk: the service must be gone when that is unmounted.
    let mut rig = Rig::new(&exe(), dir.path(), &["a", "b"], setup).await.unwrap();
    // It would keep files open on a disk that is about to go.
    rig.observer = Observer::start(&dir.path().join("nowhere"));
    let mut here = ("a", TREE.to_owned());
    let load = Load::start(rig.lanes().await.unwrap());
    while run.cuts < cuts {
        here = run.one_move(&mut rig, &load, here, cuts).await;
    }
    let mut lanes = load.stop().await.unwrap();
    for lane in &mut lanes {
        lane.look_at_all().await.unwrap();
    }
    rig.service.stop().await.unwrap();
    let found = rig.verify(&rig.side(here.0, &here.1), &lanes, None).unwrap();
    assert!(found.equal(), "the live side at the end:\n{}", found.report());
    println!(
        "{fs:?}: {} power cuts in {} moves, {} of them with {} unflushed pieces in all; slowest restart {:?}",
        run.cuts, run.moves, run.with_loss, run.pieces, run.slowest
    );
    assert!(run.with_loss * 2 >= run.cuts, "only {} of {} cuts had something to lose", run.with_loss, run.cuts);
}

impl Run {
    /// One move with cuts in it; where the tree is then.
    async fn one_move(
        &mut self,
        rig: &mut Rig,
        load: &Load,
        here: (&'static str, String),
        cuts: u64,
    ) -> (&'static str, String) {
        self.moves += 1;
        let there = (if here.0 == "a" { "b" } else { "a" }, format!("tree-{}", self.moves));
        let place = format!("{}:/{}", there.0, there.1);
        let job = rig.service.tain(&["move", "create", JUNCTION, &place]).await.unwrap();
        let job = job.trim().to_owned();
        let begun = Instant::now();
        let mut left = 6;
        loop {
            assert!(begun.elapsed() < Duration::from_secs(300), "the move does not end: {}", rig.service.last_words());
            if let Some(why) = load.failure() {
                let status = rig.service.tain(&["status"]).await.unwrap_or_else(|e| e.to_string());
                panic!("after {} cuts: {why}\n{}\n{status}", self.cuts, rig.service.last_words());
            }
            match rig.service.job_state(&job).await.unwrap().as_str() {
                "completed" => break,
                state @ ("paused" | "stopped" | "aborted") => {
                    let errors = rig.service.tain(&["job", "errors", &job]).await.unwrap_or_default();
                    panic!("job {job} is {state} after {} cuts:\n{errors}", self.cuts);
                }
                _ => {}
            }
            sleep(Duration::from_millis(self.rng.below(250))).await;
            if left > 0 && self.cuts < cuts {
                left -= 1;
                self.cut(rig).await;
            }
        }
        // The side left behind goes, to save space.
        std::fs::remove_dir_all(rig.side(here.0, &here.1)).unwrap();
        there
    }

    async fn cut(&mut self, rig: &mut Rig) {
        // Rather when there is something to lose: the disk is flushed most of the time.
        let begun = Instant::now();
        while self.disk.unflushed() == 0 && begun.elapsed() < Duration::from_millis(200) {
            sleep(Duration::from_millis(1)).await;
        }
        let unflushed = self.disk.unflushed();
        self.disk.hold();
        // Whoever answers now without the disk's word is found out.
        sleep(Duration::from_millis(self.rng.below(60))).await;
        let pid = rig.service.pid().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
        self.disk.die();
        rig.service.end().await;
        let kept = KEPT[self.rng.index(KEPT.len())];
        let (disk, rng) = (&mut self.disk, &mut self.rng);
        tokio::task::block_in_place(|| disk.restore(kept, rng));
        self.cuts += 1;
        self.with_loss += u64::from(unflushed > 0);
        self.pieces += unflushed as u64;
        let took = rig.service.start().await.unwrap_or_else(|e| panic!("after cut {}: {e}", self.cuts));
        self.slowest = self.slowest.max(took);
    }
}
