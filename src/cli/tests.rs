//! The command line against a real socket, with the double of control's tests behind it.

use super::job::{Wait, duration, judge};
use super::*;
use crate::control::tests::Served;
use clap::CommandFactory;
use clap::error::ErrorKind;
use journal_format::event::JobState;
use std::time::Duration;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("tain").chain(line.split_whitespace()))
}

/// Run a line against the API; its stdout.
async fn tain(s: &Served, line: &str) -> Result<String, Failure> {
    let mut cli = parse(line).unwrap();
    cli.global.api = Some(s.url());
    let mut out = Vec::new();
    run(cli, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_of_the_design_that_works_is_understood() {
    for line in [
        "serve",
        "serve --config /x",
        "demo --dir /d --files 10 --mib 2",
        "filer add a posix:///a",
        "filer list",
        "filer show a",
        "filer remove a",
        "filer check a --json",
        "junction add /a f:/a",
        "junction list",
        "junction show /a",
        "junction remove /a",
        "move create /a f:/b --notes why --stopped",
        "job list",
        "job show 1",
        "job start 1",
        "job pause 1",
        "job abort 1",
        "job wait 1 --state synchronized --timeout 60s",
        "job errors 1",
        "status --api unix:///x --json",
        "--json status",
        "check-config --config /x",
    ] {
        parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn what_is_not_understood_is_usage() {
    for line in ["", "fly", "filer add a", "job show x", "job wait 1 --state done", "job wait 1 --timeout soon", "job"]
    {
        let e = parse(line).unwrap_err();
        assert!(e.use_stderr() || e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, "{line}");
    }
    assert!(!parse("--help").unwrap_err().use_stderr());
}

#[test]
fn durations_are_numbers_with_units() {
    assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
    assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
    for text in ["", "s", "1d", "-1s", "99999999999999999999s", "9999999h", "1.5s"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn a_wait_ends_when_the_state_is_reached_was_passed_or_can_no_longer_be() {
    use JobState as S;
    for (now, waited, expected) in [
        (S::Moving, S::Moving, Wait::Reached),
        (S::Completed, S::Synchronized, Wait::Reached),
        (S::Transitioning, S::Starting, Wait::Reached),
        (S::Starting, S::Completed, Wait::NotYet),
        (S::Paused, S::Moving, Wait::NotYet),
        (S::Synchronized, S::Paused, Wait::NotYet),
        (S::Moving, S::Aborted, Wait::NotYet),
        (S::Aborted, S::Completed, Wait::Never),
        (S::Aborted, S::Moving, Wait::Never),
        (S::Completed, S::Aborted, Wait::Never),
        (S::Completed, S::Paused, Wait::Never),
        (S::Completed, S::Stopped, Wait::Never),
    ] {
        assert_eq!(judge(now, waited), expected, "{now:?}, waited for {waited:?}");
    }
}

#[test]
fn bytes_of_a_path_fit_into_one_segment_of_a_url() {
    use std::os::unix::ffi::OsStringExt;
    let path = OsString::from_vec(b"/a b\\\xff".to_vec());
    assert_eq!(segment(&escaped(&path)), "%2Fa%20b%5C%5C%5Cxff");
}

#[tokio::test]
async fn creating_prints_the_new_name_or_number_alone() {
    let s = Served::new().await;
    for name in ["old", "new"] {
        let line = format!("filer add {name} {}", s.filer_url(name));
        assert_eq!(tain(&s, &line).await.unwrap(), format!("{name}\n"));
    }
    assert_eq!(tain(&s, "junction add /data/a old:/a").await.unwrap(), "/data/a\n");
    assert_eq!(tain(&s, "move create /data/a new:/x --stopped").await.unwrap(), "1\n");
    let job: Value = serde_json::from_str(&tain(&s, "job show 1 --json").await.unwrap()).unwrap();
    assert_eq!((&job["id"], &job["state"]), (&Value::from(1), &Value::from("stopped")));
}

#[tokio::test]
async fn lists_and_status_show_what_is_there() {
    let s = Served::new().await;
    s.furnish().await;
    tain(&s, "move create /data/a new:/x --notes why").await.unwrap();
    assert!(tain(&s, "filer list").await.unwrap().contains("junction /data/a"));
    assert!(tain(&s, "filer show old").await.unwrap().contains("posix://"));
    assert_eq!(tain(&s, "filer check old").await.unwrap().lines().next(), Some("ok"));
    let mount =
        "mount -t nfs -o vers=3,proto=tcp,port=2049,mountport=2049,mountproto=tcp,nolock 127.0.0.1:/data/a /mnt";
    assert!(tain(&s, "junction list").await.unwrap().contains(mount));
    assert!(tain(&s, "junction show /data/a").await.unwrap().contains("old:/a"));
    assert!(tain(&s, "job list").await.unwrap().contains("starting"));
    let shown = tain(&s, "job show 1").await.unwrap();
    assert!(shown.contains("copied       0 files") && shown.contains("why"), "{shown}");
    let status = tain(&s, "status").await.unwrap();
    assert!(status.contains("healthy") && status.contains(mount) && status.contains("starting"), "{status}");
    assert_eq!(tain(&s, "job errors 1").await.unwrap(), "");
    assert_eq!(tain(&s, "job errors 1 --json").await.unwrap(), "[]\n");
}

#[tokio::test]
async fn failures_tell_the_reason_and_what_to_do() {
    let s = Served::new().await;
    s.furnish().await;
    let failure = tain(&s, "filer remove old").await.unwrap_err();
    assert_eq!(failure.reason, "filer 'old' is in use by junction /data/a");
    assert!(!failure.remedy.is_empty());
    assert_eq!(tain(&s, "job show 9").await.unwrap_err().reason, "there is no job 9");
    std::fs::remove_dir_all(s.dir.path().join("new")).unwrap();
    assert!(tain(&s, "filer check new").await.unwrap_err().reason.starts_with("filer 'new': "));
    s.port.problems.lock().push("on fire".into());
    assert_eq!(tain(&s, "status").await.unwrap_err().reason, "not healthy: on fire");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_a_failure_that_says_so() {
    let cli = parse("status --api unix:///nonexistent/tain.sock").unwrap();
    let failure = run(cli, &mut Vec::new()).await.unwrap_err();
    assert!(failure.reason.contains("does not answer at unix:///nonexistent/tain.sock"), "{}", failure.reason);
}

/// As when the service is killed while it works, or takes longer than anybody waits.
#[tokio::test]
async fn a_command_that_breaks_off_when_it_was_sent_is_not_said_to_have_failed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let broken = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
            assert!(read.unwrap() > 0);
        }
    });
    let ask = async |line: &str| {
        let cli = parse(&format!("{line} --api unix://{}", socket.display())).unwrap();
        run(cli, &mut Vec::new()).await.unwrap_err().reason
    };
    let told = ask("job abort 1").await;
    assert!(told.contains("whether it did what it was told is not known"), "{told}");
    let asked = ask("job list").await;
    assert!(asked.contains("does not answer at"), "{asked}");
    broken.abort();
}

#[tokio::test]
async fn jobs_are_acted_on_and_waited_for() {
    let s = Served::new().await;
    s.furnish().await;
    tain(&s, "move create /data/a new:/x").await.unwrap();
    assert_eq!(tain(&s, "job wait 1 --state starting --timeout 1s").await.unwrap(), "");
    let late = tain(&s, "job wait 1 --state completed --timeout 150ms").await.unwrap_err();
    assert_eq!(late.reason, "job 1 is starting, not completed after 150ms");
    let (waited, paused) = tokio::join!(tain(&s, "job wait 1 --state paused --timeout 30s"), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        tain(&s, "job pause 1").await
    });
    assert_eq!((waited, paused), (Ok(String::new()), Ok(String::new())));
    tain(&s, "job start 1").await.unwrap();
    assert_eq!(tain(&s, "job wait 1 --state moving --timeout 0s").await, Ok(String::new()));
    tain(&s, "job abort 1").await.unwrap();
    let never = tain(&s, "job wait 1 --timeout 60s").await.unwrap_err();
    assert_eq!(never.reason, "job 1 is aborted: it can no longer be completed");
}

#[tokio::test]
async fn check_config_judges_a_file_without_a_service() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tain.toml");
    std::fs::write(&file, "nfs.listen = \"127.0.0.1:12049\"").unwrap();
    let line = format!("check-config --config {}", file.display());
    let mut out = Vec::new();
    run(parse(&line).unwrap(), &mut out).await.unwrap();
    assert!(String::from_utf8(out).unwrap().contains("nfs.listen = \"127.0.0.1:12049\"\n"));
    std::fs::write(&file, "nfs.lisen = 1").unwrap();
    let failure = run(parse(&line).unwrap(), &mut Vec::new()).await.unwrap_err();
    assert!(failure.reason.contains("unknown key 'nfs.lisen'"), "{}", failure.reason);
}
