//! Moves, from outside: under load, several in a row, and the ones that are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests outside the service time what they see")]

mod commands;
#[cfg(feature = "privileged-tests")]
mod frozen;
#[cfg(feature = "privileged-tests")]
mod hung;
#[cfg(feature = "privileged-tests")]
mod state_disk;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};
use support::{Dir, Served, exe, name, setup};
use tain::demo::load::Load;
use tain::demo::nfs::{Call, How, SetAttrs, status};
use tain::demo::rig::{Rig, TREE};

const LONG: Duration = Duration::from_secs(300);

/// There, back into an empty directory, there again: after each switch the side left behind is the tree as it was at
/// the switch, and at the end the last side is the tree as the clients left it.
#[tokio::test(flavor = "multi_thread")]
async fn three_moves_in_a_row_under_load_leave_each_side_as_it_was_at_its_switch() {
    let dir = Dir::new();
    let mut rig = Rig::new(&exe(), dir.path(), &["old", "new"], setup(600, 24, 3)).await.unwrap();
    let load = Load::start(rig.lanes().await.unwrap());
    let sides = [("old", TREE), ("new", TREE), ("old", "back"), ("new", "again")];
    let mut switches = Vec::new();
    for (filer, sub) in &sides[1..] {
        let job = rig.start_move(filer, sub).await.unwrap();
        tokio::select! {
            done = rig.wait_completed(job, LONG) => done.unwrap(),
            why = load.failed() => panic!("{why}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        switches.push(rig.switch(job).unwrap());
    }
    let mut lanes = load.stop().await.unwrap();
    for lane in &mut lanes {
        lane.look_at_all().await.unwrap();
    }
    rig.service.stop().await.unwrap();
    for ((filer, sub), switch) in sides.iter().zip(&switches) {
        let found = rig.verify(&rig.side(filer, sub), &lanes, Some(*switch)).unwrap();
        assert!(found.equal(), "{filer}:/{sub} at its switch:\n{}", found.report());
    }
    let (filer, sub) = sides[3];
    let found = rig.verify(&rig.side(filer, sub), &lanes, None).unwrap();
    assert!(found.equal(), "{filer}:/{sub} at the end:\n{}", found.report());
    assert!(switches.windows(2).all(|w| w[0].to == w[1].from && w[0].lsn < w[1].lsn));
    assert!(rig.observer.seen().done_again.is_empty(), "a finished step was done again (I4)");
}

/// What a command that is refused says, and that it changed nothing.
async fn refused(s: &Served, args: &[&str], says: &str) {
    let before = s.service.json(&["status"]).await.unwrap();
    let error = s.service.tain(args).await.expect_err(&args.join(" ")).to_string();
    assert!(error.contains(says), "{args:?} was refused, but not with {says:?}: {error}");
    let after = s.service.json(&["status"]).await.unwrap();
    for part in ["filers", "junctions", "jobs"] {
        assert_eq!(before.get(part), after.get(part), "{args:?} changed {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_obeyed_are_refused_with_the_reason_and_change_nothing() {
    let s = Served::new().await;
    std::fs::create_dir_all(s.dir.path().join("other/full/sub")).unwrap();
    std::fs::create_dir(s.export().join("inside")).unwrap();
    let nowhere = format!("posix://{}/nowhere", s.dir.path().display());
    refused(&s, &["filer", "add", "one", &format!("posix://{}", s.dir.path().display())], "one").await;
    refused(&s, &["filer", "add", "three", &nowhere], "nowhere").await;
    refused(&s, &["filer", "remove", "one"], "one").await;
    refused(&s, &["filer", "remove", "nobody"], "nobody").await;
    refused(&s, &["junction", "add", "/c", "nobody:/x"], "nobody").await;
    refused(&s, &["junction", "add", "/c", "two:/missing"], "missing").await;
    refused(&s, &["junction", "add", "/a/b", "two:/full"], "/a/b").await;
    refused(&s, &["junction", "add", "/a/b/c", "two:/full"], "/a/b").await;
    refused(&s, &["junction", "add", "/c", "one:/export"], "").await;
    refused(&s, &["junction", "add", "/c", "one:/export/inside"], "").await;
    refused(&s, &["junction", "remove", "/nothing"], "/nothing").await;
    refused(&s, &["move", "create", "/nothing", "two:/x"], "/nothing").await;
    refused(&s, &["move", "create", "/a/b", "nobody:/x"], "nobody").await;
    refused(&s, &["move", "create", "/a/b", "one:/export"], "").await;
    refused(&s, &["move", "create", "/a/b", "one:/export/inside"], "").await;
    refused(&s, &["move", "create", "/a/b", "two:/full"], "empty").await;
    refused(&s, &["job", "abort", "77"], "77").await;
    refused(&s, &["job", "show", "77"], "77").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_move_of_a_junction_waits_for_nobody_it_is_refused() {
    let s = Served::new().await;
    let job = s.service.tain(&["move", "create", "/a/b", "two:/x", "--stopped"]).await.unwrap();
    refused(&s, &["move", "create", "/a/b", "two:/y"], "move").await;
    refused(&s, &["junction", "remove", "/a/b"], "").await;
    s.service.tain(&["job", "start", &job]).await.unwrap();
    s.service.tain(&["job", "wait", &job, "--timeout", "60s"]).await.unwrap();
    refused(&s, &["job", "start", &job], "completed").await;
    refused(&s, &["job", "abort", &job], "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_is_put_off_again_and_again_is_a_problem_of_the_status() {
    let s = Served::new().await;
    let job = s.service.tain(&["move", "create", "/a/b", "two:/x", "--stopped"]).await.unwrap();
    // What a service that has died can leave in a pen.
    let left = s.dir.path().join("other/x/.tain-pen/trial-1");
    std::fs::create_dir_all(&left).unwrap();
    s.service.tain(&["job", "start", &job]).await.unwrap();
    let (begin, mut told) = (Instant::now(), String::new());
    while told.is_empty() && begin.elapsed() < Duration::from_secs(90) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        told = s.service.tain(&["status"]).await.map_or_else(|error| error.to_string(), |_| String::new());
    }
    assert!(told.contains("the switch was put off") && told.contains("pen"), "{told:?}");
    assert!(begin.elapsed() > Duration::from_secs(25), "one that the next try mends is none");
    std::fs::remove_dir(left).unwrap();
    s.service.tain(&["job", "wait", &job, "--timeout", "60s"]).await.unwrap();
    s.service.tain(&["status"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_move_leaves_the_junction_where_it_was() {
    let s = Served::new().await;
    let create =
        |n: &str| Call::Create { dir: s.root.clone(), name: name(n), how: How::Guarded(SetAttrs::mode(0o600)) };
    let fh = s.ok(create("kept")).await.fh.unwrap();
    let job = s.service.tain(&["move", "create", "/a/b", "two:/x", "--stopped"]).await.unwrap();
    s.service.tain(&["job", "abort", &job]).await.unwrap();
    s.service.tain(&["job", "wait", &job, "--state", "aborted", "--timeout", "10s"]).await.unwrap();
    s.ok(Call::GetAttr { node: fh }).await;
    s.ok(create("later")).await;
    assert!(s.export().join("later").exists());
    assert!(!Path::new(&s.dir.path().join("other/x/later")).exists());
    s.status(create("later"), status::EXIST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_moves_too_and_its_handle_stays() {
    let s = Served::new().await;
    let job = s.service.tain(&["move", "create", "/a/b", "two:/x"]).await.unwrap();
    s.service.tain(&["job", "wait", &job, "--timeout", "60s"]).await.unwrap();
    let call = Call::MkDir { dir: s.root.clone(), name: name("new"), attrs: SetAttrs::mode(0o755) };
    s.ok(call).await;
    assert!(s.dir.path().join("other/x/new").is_dir());
    assert!(!s.export().join("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_same_directories_is_refused() {
    let s = Served::new().await;
    let out = tokio::process::Command::new(exe())
        .args(["serve".as_ref(), "--config".as_ref(), s.service.config().as_os_str()])
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(Duration::from_secs(30), out).await.expect("it ends").unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    s.ok(Call::GetAttr { node: s.root.clone() }).await;
}
