//! Two services where there may be one.

use crate::support::{Served, exe, name};
use std::process::{Command, Stdio};
use tain::demo::nfs::{Call, How, SetAttrs};
use tain::demo::service::Service;

const TIMES: u32 = 50;

/// C16: it ends with the reason, and the one that serves notices nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_journal_is_refused_and_the_first_serves_on() {
    let mut s = Served::new().await;
    let pid = s.service.pid().unwrap();
    let file = |i: u32| name(&format!("file-{i}"));
    for i in 0..TIMES {
        let config = s.service.config();
        let second =
            Command::new(exe()).arg("serve").arg("--config").arg(config).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success(), "it serves: {said}");
        assert!(said.contains(&format!("in use by another process (pid {pid})")), "not for the journal's lock: {said}");
        let how = How::Guarded(SetAttrs::mode(0o644));
        s.ok(Call::Create { dir: s.root.clone(), name: file(i), how }).await;
    }
    s.kill_and_start().await;
    for i in 0..TIMES {
        s.ok(Call::Lookup { dir: s.root.clone(), name: file(i) }).await;
    }
    println!("{TIMES} second processes were refused");
    s.service.stop().await.unwrap();
}

/// C16: a directory that is one service's is no other's, whether that runs or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_same_filer_cannot_use_the_firsts_directories() {
    let mut s = Served::new().await;
    let dir = s.dir.path().join("second");
    std::fs::create_dir(&dir).unwrap();
    let mut second = Service::new(&exe(), &dir, 16 << 20).unwrap();
    second.start().await.unwrap();
    let url = format!("posix://{}", s.dir.path().join("filer").display());
    second.tain(&["filer", "add", "one", &url]).await.unwrap();
    for first_runs in [true, false] {
        let added = second.tain(&["junction", "add", "/a/b", "one:/export"]).await;
        let why = added.expect_err("both use one directory").to_string();
        assert!(why.contains("another tain"), "refused, but not for its owner (the first runs: {first_runs}): {why}");
        if first_runs {
            s.service.stop().await.unwrap();
        }
    }
    second.stop().await.unwrap();
    s.service.start().await.unwrap();
    s.ok(Call::GetAttr { node: s.root.clone() }).await;
    s.service.stop().await.unwrap();
}
