//! Moves under load.

use crate::Bug;
use crate::journals::plant;
use crate::support::{self, Dir, exe, more_ops};
use std::time::Duration;
use tain::demo::lane::Limits;
use tain::demo::load::Load;
use tain::demo::rig::{Rig, Setup, TREE};
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(120);

pub fn small() -> Setup {
    let setup = support::setup(200, 10, 2);
    let limits = Limits { nodes: 400, file_bytes: 1 << 20, pause: Duration::from_millis(2), ..setup.limits };
    Setup { segment_size: 2 << 20, limits, deadline: Duration::from_secs(30), ..setup }
}

async fn rig(dir: &Dir, bug: Bug) -> Rig {
    let mut rig = Rig::new(&exe(), dir.path(), &["a", "b"], small()).await.unwrap();
    rig.service.kill().await.unwrap();
    plant(&mut rig.service, bug);
    rig.service.start().await.unwrap();
    rig
}

/// I4, C7: a death between `CopyDone` and the commit of the store.
pub async fn done_steps_are_not_carried_out_again(bug: Bug) {
    let dir = Dir::new();
    let mut rig = rig(&dir, bug).await;
    rig.service.kill().await.unwrap();
    rig.service.env("TAIN_CRASH", "BATCH_BEFORE_COMMIT:2".as_ref());
    rig.service.start().await.unwrap();
    // It may die before it says the number.
    let _ = rig.start_move("b", "there").await;
    while rig.service.ended().unwrap().is_none() {
        sleep(Duration::from_millis(5)).await;
    }
    rig.observer.settle().unwrap();
    let (lsn, before) = (rig.observer.seen().lsn, rig.carried_out().unwrap().len());
    rig.service.unset("TAIN_CRASH");
    rig.service.start().await.unwrap();
    rig.wait_completed(1, LONG).await.unwrap();
    rig.service.stop().await.unwrap();
    rig.observer.settle().unwrap();
    let seen = rig.observer.seen();
    let done_before = seen.done.values().filter(|(at, _)| *at < lsn).count();
    assert!(done_before > 0, "no step was done before the death: there is nothing to see");
    for (step, _) in rig.carried_out().unwrap().iter().skip(before) {
        let done = seen.done.get(step).map_or(u64::MAX, |(at, _)| *at);
        assert!(done >= lsn, "step {step:?}, done at LSN {done}, ran again after the death at {lsn}");
    }
}

/// I5, C13.
pub async fn a_switch_outlives_a_kill(bug: Bug) {
    let dir = Dir::new();
    let mut rig = rig(&dir, bug).await;
    let load = Load::start(rig.lanes().await.unwrap());
    let job = rig.start_move("b", "there").await.unwrap();
    rig.wait_completed(job, LONG).await.unwrap();
    more_ops(&load, 40).await;
    rig.service.kill().await.unwrap();
    rig.service.start().await.unwrap();
    finish(rig, load, "b", "there").await;
}

/// C9: the same bytes, once, whatever was carried out before.
pub async fn redo_writes_what_was_written(bug: Bug) {
    let dir = Dir::new();
    let mut rig = rig(&dir, bug).await;
    let load = Load::start(rig.lanes().await.unwrap());
    for _ in 0..4 {
        more_ops(&load, 60).await;
        rig.service.kill().await.unwrap();
        rig.service.start().await.unwrap();
    }
    finish(rig, load, "a", TREE).await;
}

/// C14.
pub async fn a_switch_loses_nothing_under_load(bug: Bug) {
    let dir = Dir::new();
    let mut rig = rig(&dir, bug).await;
    let load = Load::start(rig.lanes().await.unwrap());
    let mut sub = String::new();
    for (i, filer) in ["b", "a", "b"].into_iter().enumerate() {
        sub = format!("there-{i}");
        let job = rig.start_move(filer, &sub).await.unwrap();
        rig.wait_completed(job, LONG).await.unwrap();
        assert!(load.failure().is_none(), "{}", load.failure().unwrap());
    }
    finish(rig, load, "b", &sub).await;
}

/// Every answer was as the models predict, and the tree is what they say.
pub async fn finish(mut rig: Rig, load: Load, filer: &str, sub: &str) {
    more_ops(&load, 40).await;
    let mut lanes = load.stop().await.unwrap();
    for lane in &mut lanes {
        lane.look_at_all().await.unwrap();
    }
    rig.service.stop().await.unwrap();
    let found = rig.verify(&rig.side(filer, sub), &lanes, None).unwrap();
    assert!(found.equal(), "{filer}:/{sub}:\n{}", found.report());
}
