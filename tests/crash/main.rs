//! The real service killed with SIGKILL, again and again, while it moves data and clients work.
#![allow(clippy::disallowed_methods, reason = "tests outside the service time what they see")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod second;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::{Dir, exe, more_ops, setup};
use tain::demo::content::Rng;
use tain::demo::lane::Lane;
use tain::demo::load::Load;
use tain::demo::observer::Switch;
use tain::demo::rig::{Rig, TREE, carried_out_twice};

/// Of them so many, in percent, in mid-copy with steps done.
const IN_MID_COPY_PERCENT: u32 = 66;
/// Kills of one move at most; then it may finish.
const KILLS_PER_MOVE: u32 = 4;
const MOVE_MAX: Duration = Duration::from_secs(300);

/// How far everything was when the service was killed.
struct Cut {
    lsn: u64,
    /// Lines of the step log.
    steps: usize,
}

struct Run {
    rig: Rig,
    rng: Rng,
    kills: u32,
    mid_copy: u32,
    cuts: Vec<Cut>,
    restart_worst: Duration,
}

/// What was answered as durable is there, handles, fileids and times stay, calls in doubt that are repeated run once
/// (the lanes compare every answer with their models); no step that was finished before a kill is carried out after it
/// (I4); both sides are what they must be.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_in_moves_under_load_nothing_is_lost_and_nothing_is_copied_twice() {
    let kills = std::env::var("TAIN_KILLS").map_or(30, |text| text.parse().unwrap());
    let dir = Dir::new();
    let setup = setup(1200, 32, 3);
    let rig = Rig::new(&exe(), dir.path(), &["a", "b"], setup).await.unwrap();
    let mut lanes = rig.lanes().await.unwrap();
    let rng = Rng::new(setup.spec.seed);
    let mut run = Run { rig, rng, kills: 0, mid_copy: 0, cuts: Vec::new(), restart_worst: Duration::ZERO };
    let mut here = ("a", TREE.to_owned());
    let mut moves = 0;
    while run.kills < kills {
        moves += 1;
        let there = (if here.0 == "a" { "b" } else { "a" }, format!("tree-{moves}"));
        let load = Load::start(lanes);
        let job = run.rig.start_move(there.0, &there.1).await.unwrap();
        let switch = tokio::select! {
            switch = run.one_move(job, kills) => switch,
            why = load.failed() => panic!("after {} kills: {why}", run.kills),
        };
        more_ops(&load, 20).await;
        lanes = load.stop().await.unwrap();
        for lane in &mut lanes {
            lane.look_at_all().await.unwrap();
        }
        run.left_behind(here.0, &here.1, &lanes, switch);
        here = there;
    }
    run.rig.service.stop().await.unwrap();
    let found = run.rig.verify(&run.rig.side(here.0, &here.1), &lanes, None).unwrap();
    assert!(found.equal(), "the live side at the end:\n{}", found.report());
    let steps = run.steps_ran_once();
    println!(
        "{} kills in {moves} moves, {} of them in mid-copy with steps done; {steps} bytes carried out twice; \
         slowest restart to first answer {:?}",
        run.kills, run.mid_copy, run.restart_worst
    );
    assert!(
        run.mid_copy * 100 >= kills * IN_MID_COPY_PERCENT,
        "only {} of {} kills were in mid-copy",
        run.mid_copy,
        run.kills
    );
}

impl Run {
    /// One move with its kills, to its end; where it switched.
    async fn one_move(&mut self, job: u32, kills: u32) -> Switch {
        for _ in 0..KILLS_PER_MOVE {
            if self.kills == kills || !self.moment(job).await {
                break;
            }
            self.kill(job).await;
        }
        self.rig.wait_completed(job, MOVE_MAX).await.unwrap();
        self.rig.switch(job).unwrap()
    }

    /// Wait for a random moment of the move: most often when some more steps are done, else after some time. False when
    /// the move is over before.
    async fn moment(&mut self, job: u32) -> bool {
        let by_steps = self.rng.chance(80);
        let (steps, time) = (1 + self.rng.below(150), Duration::from_millis(self.rng.below(1500)));
        let (begun, done) = (Instant::now(), self.rig.observer.seen().done.len() as u64);
        loop {
            let (now, over) = {
                let seen = self.rig.observer.seen();
                (seen.done.len() as u64, seen.switch(job).is_some())
            };
            // Sometimes just behind the switch.
            if over {
                return self.rng.chance(20);
            }
            if (by_steps && now >= done + steps) || (!by_steps && begun.elapsed() >= time) {
                return true;
            }
            assert!(begun.elapsed() < MOVE_MAX, "the move does not get on: {}", self.rig.service.last_words());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn kill(&mut self, job: u32) {
        self.rig.service.kill().await.unwrap();
        self.rig.observer.settle().unwrap();
        self.kills += 1;
        let steps = self.rig.carried_out().unwrap().len();
        let (lsn, mid_copy) = {
            let seen = self.rig.observer.seen();
            let location = seen.ordered_last_location;
            let done = seen.done.keys().any(|(l, ..)| Some(*l) == location);
            (seen.lsn, seen.switch(job).is_none() && done)
        };
        self.mid_copy += u32::from(mid_copy);
        self.cuts.push(Cut { lsn, steps });
        let took = self.rig.service.start().await.unwrap();
        self.restart_worst = self.restart_worst.max(took);
    }

    /// The side that was left equals the tree at the switch; then it goes, to save space.
    fn left_behind(&self, filer: &str, sub: &str, lanes: &[Lane], switch: Switch) {
        let side = self.rig.side(filer, sub);
        let found = self.rig.verify(&side, lanes, Some(switch)).unwrap();
        assert!(found.equal(), "{filer}:/{sub} at its switch:\n{}", found.report());
        std::fs::remove_dir_all(side).unwrap();
    }

    /// Join the log of carried-out steps with the journal's `CopyDone`s. Bytes that were in flight and ran twice.
    fn steps_ran_once(&self) -> u64 {
        let steps = self.rig.carried_out().unwrap();
        assert!(!steps.is_empty(), "the service logged no step");
        let seen = self.rig.observer.seen();
        assert!(seen.done_again.is_empty(), "done twice by the journal: {:?}", seen.done_again);
        for cut in &self.cuts {
            for (step, _) in steps.iter().skip(cut.steps) {
                let done = seen.done.get(step).map_or(u64::MAX, |(lsn, _)| *lsn);
                assert!(done >= cut.lsn, "step {step:?}, done at LSN {done}, ran again after the kill at {}", cut.lsn);
            }
        }
        carried_out_twice(&steps)
    }
}
