//! What scripts rely on: exit statuses, one JSON document with `--json`, a reason and what to do on stderr.

use crate::support::{Served, client, exe};
use std::process::{Output, Stdio};
use tain::demo::nfs::{Call, status};

async fn tain(s: &Served, args: &[&str]) -> Output {
    let command = tokio::process::Command::new(exe())
        .args(args)
        .env("TAIN_API", &s.service.api)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    command.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_obeyed_ends_with_0_and_says_the_same_as_one_json_document() {
    let s = Served::new().await;
    let waits = ["move", "create", "/a/b", "two:/x", "--stopped", "--notes", "later"];
    let commands: [&[&str]; 14] = [
        &["status"],
        &["filer", "list"],
        &["filer", "show", "one"],
        &["filer", "check", "one"],
        &["junction", "list"],
        &["junction", "show", "/a/b"],
        &waits,
        &["job", "list"],
        &["job", "show", "1"],
        &["job", "errors", "1"],
        &["job", "start", "1"],
        &["job", "wait", "1", "--state", "completed", "--timeout", "5m"],
        &["junction", "remove", "/a/b"],
        &["filer", "remove", "one"],
    ];
    for args in commands {
        let out = tain(&s, &[args, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&out.stdout);
        assert!(json.is_ok(), "{args:?}: {}", String::from_utf8_lossy(&out.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_junction_that_is_removed_leaves_its_directory_to_whoever_wants_it() {
    let s = Served::new().await;
    let marked = || {
        let mut names = vec![0; 4096];
        let len = rustix::fs::listxattr(s.export(), &mut names[..]).unwrap_or(0);
        let by_xattr = names[..len].windows(4).any(|w| w == b"tain");
        by_xattr
            || std::fs::read_dir(s.export()).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains("tain"))
    };
    assert!(marked());
    s.service.tain(&["junction", "remove", "/a/b"]).await.unwrap();
    assert!(!marked(), "its owner marker stays");
    s.service.tain(&["junction", "add", "/elsewhere", "one:/export"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_refused_ends_with_1_one_line_of_reason_and_what_to_do_and_a_wrong_one_with_2() {
    let s = Served::new().await;
    for args in [
        &["filer", "show", "nobody"][..],
        &["junction", "remove", "/nothing"],
        &["move", "create", "/a/b", "one:/export/inside"],
        &["job", "start", "9"],
        &["job", "wait", "9", "--timeout", "1s"],
    ] {
        let out = tain(&s, args).await;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        assert_eq!(said.trim().lines().count(), 2, "{args:?}: a reason, and what to do: {said}");
        assert!(out.stdout.is_empty(), "{args:?}");
    }
    for args in [&["filer"][..], &["job", "show", "x"], &["job", "wait", "1", "--state", "nowhere"], &["dance"]] {
        assert_eq!(tain(&s, args).await.status.code(), Some(2), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_said_to_be_not_there() {
    let s = Served::new().await;
    let out = tokio::process::Command::new(exe()).args(["--api", "unix:///nowhere/api.sock", "status"]).output().await;
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/api.sock"), "{said}");
    drop(s);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_which_half_has_come_does_not_keep_the_service_from_stopping_in_order() {
    use tokio::io::AsyncWriteExt;
    let mut s = Served::new().await;
    let socket = s.service.api.strip_prefix("unix://").expect("it listens on a socket of its own");
    let mut half = tokio::net::UnixStream::connect(socket).await.unwrap();
    half.write_all(b"POST /api/v1/filers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let begun = std::time::Instant::now();
    s.service.stop().await.unwrap();
    let log = std::fs::read_to_string(s.service.log()).unwrap();
    assert!(begun.elapsed().as_secs() < 25 && !log.contains("stopping without it"), "{:?}: {log}", begun.elapsed());
    drop(half);
}

/// Whoever may read the journal has all bytes, and the key of all handles; whoever may write it may do anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_junction_in_which_the_service_is_told_to_keep_its_own_data_is_down_until_that_is_elsewhere() {
    let mut s = Served::new().await;
    let (config, archive) = (s.service.config(), s.export().join("archive"));
    let before = std::fs::read_to_string(&config).unwrap();
    let inside = format!("[journal]\narchive = \"{}/../archive\"", archive.display());
    for (text, is_down) in [(before.replace("[journal]", &inside), true), (before, false)] {
        s.service.stop().await.unwrap();
        std::fs::write(&config, text).unwrap();
        s.service.start().await.unwrap();
        let out = tain(&s, &["status"]).await;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(said.contains("keeps its own data"), is_down, "{said}");
        assert_eq!(out.status.code(), Some(i32::from(is_down)), "{said}");
        let reply = client(&s.service, 2).once(&Call::GetAttr { node: s.root.clone() }).await.unwrap();
        assert_eq!(reply.status, if is_down { status::JUKEBOX } else { status::OK });
    }
}
