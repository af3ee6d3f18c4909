//! What one who asks may take from others, and may leave behind.

use super::*;
use crate::control::asked::OF_ONE_MAX;
use crate::control::commands::Commands;
use crate::control::seats::SEATS;
use crate::filer::hidden::PEN;
use parking_lot::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longer than anything takes on a busy machine; nothing that works waits for it.
const LONG: Duration = Duration::from_secs(20);

const SHORT: Duration = Duration::from_millis(5);

/// Whoever looks at the filer of this URL waits.
#[derive(Default)]
pub struct Hung {
    url: Mutex<Option<String>>,
    goes_on: Condvar,
    looks: AtomicUsize,
}

impl Hung {
    pub fn wait(&self, url: &str) {
        let mut hung = self.url.lock();
        if hung.as_deref() == Some(url) {
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
        while hung.as_deref() == Some(url) {
            self.goes_on.wait(&mut hung);
        }
    }
}

/// While it lives; a runtime waits for its threads.
struct Hangs(Arc<Hung>);

impl Hangs {
    fn new(hung: &Arc<Hung>, url: String) -> Self {
        *hung.url.lock() = Some(url);
        Self(hung.clone())
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        *self.0.url.lock() = None;
        self.0.goes_on.notify_all();
    }
}

/// As a monitor does that asks once a minute, for days.
#[tokio::test]
async fn looks_at_a_filer_that_hangs_keep_few_threads_whoever_gives_up_and_others_are_not_held_up() {
    let s = Served::new().await;
    s.furnish().await;
    let hangs = Hangs::new(&s.port.hung, s.filer_url("old"));
    let commands = Commands::new(s.port.clone());
    let state = s.port.state();
    let [old, new] = ["old", "new"].map(|name| state.filer_by_name(name).unwrap().1);
    for _ in 0..OF_ONE_MAX {
        let look = timeout(Duration::from_millis(50), commands.check_filer(old)).await;
        assert!(look.is_err(), "it hangs");
    }
    for _ in 0..2 {
        let why = timeout(LONG, commands.check_filer(old)).await.expect("nothing is begun").unwrap_err();
        assert!(why.contains("earlier calls of it have not come back"), "{why}");
    }
    assert!(s.port.hung.looks.load(Ordering::SeqCst) <= OF_ONE_MAX);
    timeout(LONG, commands.check_filer(new)).await.expect("it is well").unwrap();
    drop(hangs);
    // The calls that hung come back one by one.
    let again = async { while commands.check_filer(old).await.is_err() {} };
    timeout(LONG, again).await.expect("it answers again");
}

impl Served {
    /// A connection on which this much of a request has come.
    async fn begun(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

/// All that comes, until the other side closes.
async fn rest_of(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = timeout(LONG, stream.read_to_end(&mut text)).await.expect("it is closed");
    String::from_utf8(text).unwrap()
}

/// What lies ahead passes at once, while nothing on the way is waited for.
async fn pass(time: Duration) {
    // What was sent is read.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let mut s = Served::with_token(Some("correct horse battery")).await;
    s.token = Some("correct horse battery".into());
    let mut strangers = Vec::new();
    for _ in 0..2 * SEATS {
        strangers.push(s.begun("GET /api/v1/status HTTP/1.1\r\nhost: x\r\nx-slow").await);
        // In turn with them, as whoever serves is on this thread.
        tokio::task::yield_now().await;
    }
    let asked = timeout(LONG, s.call("GET", "/api/v1/status", "")).await.expect("an operator is let in");
    assert_eq!(asked.0, 200);
    assert_eq!(rest_of(strangers.remove(0)).await, "", "the one that waited longest had to go");
}

/// Others are let in as soon as one of them has its answer.
#[tokio::test]
async fn a_request_that_is_answered_keeps_its_connection_however_many_come_and_however_long_it_takes() {
    let s = Arc::new(Served::new().await);
    s.furnish().await;
    let (tell, rests) = oneshot::channel();
    *s.port.rests.lock() = Some(rests);
    let (it, body) = (s.clone(), json!({"suspended": true}).to_string());
    let asked = tokio::spawn(async move { it.call("PATCH", "/api/v1/junctions/%2Fdata%2Fa", &body).await });
    let begun = async {
        while s.port.rests.lock().is_some() {
            tokio::time::sleep(SHORT).await
        }
    };
    timeout(LONG, begun).await.expect("it is being answered");
    let mut others = Vec::new();
    for _ in 0..2 * SEATS {
        others.push(s.begun("GET /healthz HTTP/1.1\r\n").await);
        tokio::task::yield_now().await;
    }
    pass(Duration::from_secs(3600)).await;
    tell.send(()).expect("it is still being answered");
    assert_eq!(timeout(LONG, asked).await.expect("it gets its answer").unwrap().0, 200);
}

#[tokio::test]
async fn a_head_or_a_body_that_does_not_come_is_not_waited_for() {
    let s = Served::new().await;
    let head = s.begun("GET /healthz HTTP/1.1\r\nx-slow").await;
    let body = s.begun("POST /api/v1/filers HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{").await;
    pass(Duration::from_secs(60)).await;
    let (head, body) = (rest_of(head).await, rest_of(body).await);
    assert!(!head.contains("healthy"), "{head}");
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("has not come"), "{body}");
}

/// Whoever creates asks filers, and one that hangs takes its time.
#[tokio::test]
async fn jobs_are_paused_and_aborted_while_a_command_waits_for_a_filer() {
    let s = Served::new().await;
    s.furnish().await;
    s.created("/jobs", move_to("new:/a")).await;
    let hangs = Hangs::new(&s.port.hung, s.filer_url("new/a"));
    let body = json!({"name": "again", "url": s.filer_url("new/a")});
    let s = Arc::new(s);
    let it = s.clone();
    let adding = tokio::spawn(async move { it.post("/filers", body).await });
    let begun = async {
        while s.port.hung.looks.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(SHORT).await
        }
    };
    timeout(LONG, begun).await.expect("it is asked");
    let paused = timeout(LONG, s.post("/jobs/1/pause", json!({}))).await.expect("it is not waited for");
    assert_eq!((paused.0, &paused.1["state"]), (200, &json!("paused")));
    assert!(!adding.is_finished());
    drop(hangs);
    timeout(LONG, adding).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn requests_that_say_nothing_are_bad_and_long_ones_are_cut_off() {
    let s = Served::new().await;
    s.says("/filers", json!({"name": "x"}), 400, "missing field `url`").await;
    s.says("/filers", json!({"name": "x", "url": "u", "more": 1}), 400, "unknown field `more`").await;
    s.says("/jobs", json!({"kind": "copy", "source": "/a", "destination": "b:/"}), 400, "no kind of job").await;
    s.says("/nothing", json!({}), 404, "nothing at this path").await;
    let (status, document) = s.call("PUT", "/api/v1/filers", "").await;
    assert_eq!(status, 405);
    assert!(document["error"].is_string());
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    assert_eq!(s.call("POST", "/api/v1/filers", &long).await.0, 413, "I11");
}

#[tokio::test]
async fn a_service_that_died_in_a_trial_keeps_nobody_from_the_place_and_what_a_job_left_does() {
    let s = Served::new().await;
    s.furnish().await;
    for (name, at) in [("trial-0123456789abcdef", "/b"), ("n17", "/c"), ("trial-0123456789abcdef/full", "/d")] {
        std::fs::create_dir_all(s.path(&format!("old{at}/{}/{name}", String::from_utf8_lossy(PEN)))).unwrap();
    }
    s.created("/junctions", json!({"path": "/b", "location": "old:/b"})).await;
    for (path, at) in [("/c", "old:/c"), ("/d", "old:/d")] {
        let words = "with what an earlier move left there";
        s.says("/junctions", json!({"path": path, "location": at}), 409, words).await;
    }
}
