//! The real service killed at every crash point (src/crash.rs), at its first, second and a later hit, while it moves
//! data, clients work and commands come; also in the recovery from the death before, several deep. After each death it is
//! started again; the clients compare every answer with their models, and at the end every side with what it must be.
//!
//! `list.txt` says when a point is reached. A point that is not reached fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "time outside of any simulation")]

#[path = "../support/mod.rs"]
mod support;

mod plan;
mod shaken;

use plan::{Item, Plan, When};
use shaken::Shaken;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Dir, exe};
use tain::demo::service::Service;
use tokio::task::JoinSet;

/// Rigs side by side: about as many as there are processors; each waits much of the time.
const RIGS: usize = 3;

/// Rows of three deaths or more in which the service did not come up in between: by chance it is some more.
const NESTED_MIN: u32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_crash_point_nothing_is_lost_and_nothing_is_done_twice() {
    let plan = Arc::new(Mutex::new(Plan::read(&[When::Run, When::Start, When::Stop])));
    let due = plan.lock().unwrap().len();
    let begun = Instant::now();
    let mut rigs = JoinSet::new();
    for _ in 0..RIGS {
        // Rigs begin one after the other: they build trees.
        let dir = Dir::new();
        let rig = Shaken::new(dir.path()).await;
        rigs.spawn(one_rig(dir, rig, plan.clone()));
    }
    let mut deaths: BTreeMap<String, u32> = BTreeMap::new();
    let (mut moves, mut missed, mut bytes_twice, mut nested) = (0, Vec::new(), 0, 0);
    while let Some(ended) = rigs.join_next().await {
        // The first that fails ends the others.
        let result = ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        moves += result.moves;
        missed.extend(result.missed);
        bytes_twice += result.bytes_twice;
        nested += result.nested;
        for name in result.deaths {
            *deaths.entry(name).or_default() += 1;
        }
    }
    let total: u32 = deaths.values().sum();
    for (name, count) in &deaths {
        println!("{count:4}  {name}");
    }
    println!(
        "{total} deaths of {due} at {} points, {nested} times three or more in a row before the service was up, \
         {moves} moves, {bytes_twice} bytes carried out twice, {:?}",
        deaths.len(),
        begun.elapsed()
    );
    assert!(missed.is_empty(), "never reached: {missed:?}");
    assert_eq!(total as usize, due, "deaths");
    let is_all = std::env::var_os("TAIN_CRASH_ONLY").is_none();
    assert!(!is_all || nested >= NESTED_MIN, "only {nested} times was a recovery from a death in recovery killed, too");
}

/// Deaths one after the other, until the plan is used up; then everything is looked at.
async fn one_rig(_dir: Dir, mut rig: Shaken, plan: Arc<Mutex<Plan>>) -> shaken::Outcome {
    loop {
        let item = plan.lock().unwrap().next();
        let Some(item) = item else { break };
        rig.die(item).await;
    }
    rig.end().await
}

/// A new journal whose making is cut short, at each step, is made at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_its_journal_is_made_the_service_starts_all_the_same() {
    let mut plan = Plan::read(&[When::New]);
    let mut deaths = 0;
    while let Some(Item { name, hit, .. }) = plan.next() {
        let dir = Dir::new();
        let mut service = Service::new(&exe(), dir.path(), 2 << 20).unwrap();
        service.env("TAIN_CRASH", format!("{name}:{hit}").as_ref());
        let up = service.start().await;
        let begun = Instant::now();
        while !plan::died(&mut service) {
            assert!(begun.elapsed() < plan::NEVER, "{name}:{hit} is not reached ({up:?})");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        service.unset("TAIN_CRASH");
        service.start().await.unwrap_or_else(|e| panic!("after a death at {name}:{hit}: {e}"));
        service.tain(&["filer", "add", "one", &format!("posix://{}", dir.path().display())]).await.unwrap();
        service.kill().await.unwrap();
        service.start().await.unwrap();
        assert_eq!(service.json(&["status"]).await.unwrap()["filers"].as_array().unwrap().len(), 1);
        service.stop().await.unwrap();
        deaths += 1;
    }
    println!("{deaths} deaths while a journal is made");
}
