//! The API over a real socket. The port is a double whose ledger is memory; the filers are real directories.

mod bounds;

use super::*;
use crate::config::{self, ApiListen};
use crate::filer::{self, CoreFiler, OwnerMarker, Probe, registry};
use crate::journal::Appended;
use crate::state::{Command, State, apply, decide};
use async_trait::async_trait;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use journal_format::event::JobState;
use journal_format::ids::{Identity, JobId, JunctionId, LocationId, Lsn, NodeId, Time};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

const OURS: [u8; 16] = [1; 16];

/// State in memory; commands are decided and folded at once.
#[derive(Default)]
pub(crate) struct Double {
    state: Mutex<Arc<State>>,
    pub problems: Mutex<Vec<String>>,
    quiesced: Mutex<Vec<LocationId>>,
    /// While somebody holds it no junction comes to rest.
    resting: tokio::sync::Mutex<()>,
    /// Why no junction comes to rest.
    restless: Mutex<Option<String>>,
    /// Why no location falls out of use.
    in_use: Mutex<Option<String>>,
    /// The next junction that is to come to rest does when this says so.
    rests: Mutex<Option<oneshot::Receiver<()>>>,
    /// Directories look different by each way that leads to them, as by two mounts of a remote one.
    blind: Mutex<bool>,
    /// Roots have no more than an inode's number, and one each, as those of exported file systems.
    alike: Mutex<bool>,
    /// Where the service keeps its own data.
    own: Mutex<Vec<String>>,
    /// The next command is refused by the ledger, whatever it is.
    refuse_next: Mutex<bool>,
    /// The journal fails when it has appended the next command: whether it is durable nobody can say.
    break_next: Mutex<bool>,
    /// A filer that does not answer.
    hung: Arc<bounds::Hung>,
}

#[async_trait]
impl Port for Double {
    fn state(&self) -> Arc<State> {
        self.state.lock().clone()
    }
    async fn command(&self, command: Command) -> std::result::Result<Vec<Appended>, CommandError> {
        if std::mem::take(&mut *self.refuse_next.lock()) {
            return Err(CommandError::Refused(refusal("the ledger says no", "ask again")));
        }
        let mut state = self.state.lock();
        let mut appended = Vec::new();
        for event in decide(&state, &command).map_err(CommandError::Refused)? {
            let at = Appended { lsn: state.lsn, end: state.lsn.plus(64), time: Time(1_000_000_000) };
            apply(Arc::make_mut(&mut state), at.lsn, at.end, at.time, &event).unwrap();
            appended.push(at);
        }
        state.check().unwrap();
        if std::mem::take(&mut *self.break_next.lock()) {
            return Err(CommandError::Journal(crate::journal::Error::FailStop("planned".into())));
        }
        Ok(appended)
    }
    fn journal_id(&self) -> [u8; 16] {
        OURS
    }
    fn own_dirs(&self) -> Vec<String> {
        self.own.lock().clone()
    }
    fn canonical(&self, url: &str) -> filer::Result<String> {
        registry::canonical(url)
    }
    async fn probe(&self, url: &str) -> filer::Result<Probe> {
        let (hung, at) = (self.hung.clone(), url.to_owned());
        let wait = move || {
            hung.wait(&at);
            Ok(())
        };
        filer::aside::call(wait).await?;
        let probe = registry::probe(url).await?;
        Ok(if *self.alike.lock() { Probe { root: vec![2], root_is_unique: false, ..probe } } else { probe })
    }
    async fn open(
        &self,
        url: &str,
        root: &[u8],
        subdir: &[Vec<u8>],
        dir: Option<&Identity>,
    ) -> filer::Result<Arc<dyn CoreFiler>> {
        registry::open(url, root, subdir, dir.filter(|_| !*self.blind.lock())).await
    }
    async fn create_subdir(&self, url: &str, root: &[u8], subdir: &[Vec<u8>]) -> filer::Result<()> {
        registry::create_subdir(url, root, subdir).await
    }
    async fn overlaps(&self, a: &str, sub_a: &[Vec<u8>], b: &str, sub_b: &[Vec<u8>]) -> filer::Result<bool> {
        Ok(!*self.blind.lock() && registry::overlaps(a, sub_a, b, sub_b).await?)
    }
    fn allocate_node(&self) -> NodeId {
        NodeId(77)
    }
    fn status(&self) -> ServiceStatus {
        ServiceStatus {
            nfs: ([127, 0, 0, 1], 2049).into(),
            start_lsn: Lsn(0),
            durable_lsn: Lsn(10),
            end_lsn: Lsn(20),
            journal_bytes: 20,
            journal_limit_bytes: 100,
            journal_soft_limit_bytes: 50,
            journal_append: "direct",
            journal_refusals: 0,
            pins: Vec::new(),
            problems: self.problems.lock().clone(),
            locks: LockStatus { held: 3, waiting: 2, hosts: 1, grace_s: Some(9) },
            procedures: vec![ProcedureTimes { name: "READ", calls: 2, median_us: 1, p99_us: 2, longest_us: 3 }],
        }
    }
    fn replayer(&self, _: LocationId) -> Option<ReplayerStatus> {
        Some(ReplayerStatus { lag_bytes: 5, ..ReplayerStatus::default() })
    }
    async fn rest(&self, _: JunctionId) -> std::result::Result<Box<dyn Send>, String> {
        drop(self.resting.lock().await);
        let rests = self.rests.lock().take();
        if let Some(rests) = rests {
            let _ = rests.await;
        }
        match &*self.restless.lock() {
            None => Ok(Box::new(())),
            Some(why) => Err(why.clone()),
        }
    }
    async fn quiesce(&self, location: LocationId) -> std::result::Result<(), String> {
        self.quiesced.lock().push(location);
        self.in_use.lock().clone().map_or(Ok(()), Err)
    }
}

/// A served API, and two directories to be filers.
pub(crate) struct Served {
    pub port: Arc<Double>,
    pub dir: TempDir,
    socket: PathBuf,
    token: Option<String>,
    _stop: oneshot::Sender<()>,
}

impl Served {
    pub async fn new() -> Self {
        Self::with_token(None).await
    }

    async fn with_token(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["old/a", "old/b", "new"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let socket = dir.path().join("api.sock");
        let token_file = token.map(|token| {
            let file = dir.path().join("token");
            std::fs::write(&file, format!("{token}\n")).unwrap();
            file
        });
        let listen = ApiListen::Unix(socket.clone());
        let api = Api::bind(&config::Api { listen, token_file }).await.unwrap();
        let port = Arc::new(Double::default());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(api.serve(port.clone(), async {
            let _ = stopped.await;
        }));
        Self { port, dir, socket, token: None, _stop: stop }
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn filer_url(&self, name: &str) -> String {
        format!("posix://{}", self.dir.path().join(name).display())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Status code and document.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(driver);
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", "x");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(hyper::body::Bytes::from(body.to_owned()))).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        driver.abort();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, document) = self.call("GET", &format!("/api/v1{path}"), "").await;
        assert_eq!(status, 200, "{document}");
        document
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", &format!("/api/v1{path}"), &body.to_string()).await
    }

    async fn created(&self, path: &str, body: Value) -> Value {
        let (status, document) = self.post(path, body).await;
        assert_eq!(status, 201, "{document}");
        document
    }

    async fn says(&self, path: &str, body: Value, status: u16, words: &str) {
        let state = self.port.state();
        let (got, document) = self.post(path, body).await;
        let error = document["error"].as_str().unwrap_or_default();
        assert!(error.contains(words), "'{error}' does not say '{words}'");
        assert!(document["remedy"].as_str().is_some_and(|r| !r.is_empty()), "{document}");
        assert_eq!(got, status);
        assert_eq!(state, self.port.state(), "what is refused changes nothing");
    }

    /// Filers old and new, and a junction /data/a on old:/a.
    pub async fn furnish(&self) {
        for name in ["old", "new"] {
            self.created("/filers", json!({"name": name, "url": self.filer_url(name)})).await;
        }
        self.created("/junctions", json!({"path": "/data/a", "location": "old:/a"})).await;
    }

    async fn location(&self, filer: &str, path: &str) -> Arc<dyn CoreFiler> {
        let state = self.port.state();
        let (_, it) = state.filer_by_name(filer).unwrap();
        let subdir = crate::state::junctions::parse_path(path.as_bytes()).unwrap();
        registry::open(&it.url, &it.root, &subdir, None).await.unwrap()
    }

    async fn owner(&self, filer: &str, path: &str) -> Option<u32> {
        self.location(filer, path).await.owner().await.unwrap().map(|marker| marker.location)
    }

    fn job_to(&self, states: &[JobState]) {
        let mut state = self.port.state.lock();
        for to in states {
            let command = Command::JobTo { job: JobId(1), state: *to, reason: "full".into() };
            for event in decide(&state, &command).unwrap() {
                let (lsn, end) = (state.lsn, state.lsn.plus(1));
                apply(Arc::make_mut(&mut state), lsn, end, Time(0), &event).unwrap();
            }
        }
    }
}

fn move_to(destination: &str) -> Value {
    json!({"kind": "move", "source": "/data/a", "destination": destination})
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_replaces_a_stale_one_but_no_file() {
    let s = Served::new().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&s.socket), 0o600);
    let listen = ApiListen::Unix(s.socket.clone());
    let api = config::Api { listen, token_file: None };
    Api::bind(&api).await.unwrap();
    assert_eq!(mode(&s.socket), 0o600);
    std::fs::remove_file(&s.socket).unwrap();
    std::fs::write(&s.socket, "precious").unwrap();
    let error = Api::bind(&api).await.unwrap_err().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read(&s.socket).unwrap(), b"precious");
}

#[tokio::test]
async fn filers_are_added_listed_checked_and_removed() {
    let s = Served::new().await;
    let added = s.created("/filers", json!({"name": "old", "url": s.filer_url("old")})).await;
    assert_eq!((&added["name"], &added["id"]), (&json!("old"), &json!(1)));
    assert!(added["remarks"].is_array());
    assert_eq!(s.get("/filers").await.as_array().unwrap().len(), 1);
    assert_eq!(s.get("/filers/old").await["url"], json!(s.filer_url("old")));
    let (status, check) = s.post("/filers/old/check", json!({})).await;
    assert_eq!((status, &check["ok"]), (200, &json!(true)));

    std::fs::rename(s.path("old"), s.path("gone")).unwrap();
    let (_, check) = s.post("/filers/old/check", json!({})).await;
    assert_eq!(check["ok"], json!(false), "it is missing");
    std::fs::create_dir(s.path("old")).unwrap();
    let (_, check) = s.post("/filers/old/check", json!({})).await;
    assert_eq!(check["error"], json!("its root is not the one that was added"));

    s.says("/filers", json!({"name": "x", "url": "ftp://x"}), 400, "is not the URL of a filer").await;
    s.says("/filers", json!({"name": "x", "url": s.filer_url("nowhere")}), 409, "cannot be used").await;
    assert_eq!(s.call("DELETE", "/api/v1/filers/old", "").await.0, 200);
    assert_eq!(s.call("DELETE", "/api/v1/filers/old", "").await.0, 404);
}

#[tokio::test]
async fn two_filers_are_one_place_by_what_only_one_root_can_have() {
    let s = Served::new().await;
    s.created("/filers", json!({"name": "old", "url": s.filer_url("old")})).await;
    std::os::unix::fs::symlink(s.path("old"), s.path("link")).unwrap();
    let named = |name: &str, dir: &str| json!({"name": name, "url": s.filer_url(dir)});
    s.says("/filers", named("again", "link"), 409, "is the same place").await;
    s.says("/filers", named("old", "link"), 409, "a filer named 'old' is there already").await;
    // The second NAS that exports the root of a file system.
    *s.port.alike.lock() = true;
    s.created("/filers", named("one", "new")).await;
    s.created("/filers", named("two", "old/b")).await;
    s.says("/filers", named("three", "new"), 409, "filer 'one'").await;
}

#[tokio::test]
async fn a_junction_is_claimed_shown_with_its_mount_command_and_released() {
    let s = Served::new().await;
    s.furnish().await;
    let it = s.get("/junctions/%2Fdata%2Fa").await;
    assert_eq!((&it["path"], &it["location"], &it["job"]), (&json!("/data/a"), &json!("old:/a"), &Value::Null));
    assert!(it["mount"].as_str().unwrap().ends_with("nolock 127.0.0.1:/data/a /mnt"));
    assert_eq!(s.get("/junctions/1").await, it);
    assert_eq!(s.owner("old", "/a").await, Some(1));
    assert_eq!(s.port.state().junctions.values().next().unwrap().root, NodeId(77));

    assert_eq!(s.call("DELETE", "/api/v1/junctions/%2Fdata%2Fa", "").await.0, 200);
    assert_eq!(s.owner("old", "/a").await, None);
    assert_eq!(*s.port.quiesced.lock(), [LocationId(1)]);
    assert_eq!(s.call("GET", "/api/v1/junctions/%2Fdata%2Fa", "").await.0, 404);
}

/// They wait for one another: what is at its path when its turn comes may be another junction.
#[tokio::test]
async fn a_command_about_a_junction_is_not_obeyed_by_the_one_that_comes_after_it() {
    let s = Served::new().await;
    s.furnish().await;
    let rests = s.port.resting.lock().await;
    let in_turn = |n: u64| tokio::time::sleep(std::time::Duration::from_millis(100 * n));
    let (first, added, second, ()) = tokio::join!(
        s.call("DELETE", "/api/v1/junctions/1", ""),
        async {
            in_turn(1).await;
            s.post("/junctions", json!({"path": "/data/a", "location": "old:/b"})).await
        },
        async {
            in_turn(2).await;
            s.call("DELETE", "/api/v1/junctions/%2Fdata%2Fa", "").await
        },
        async {
            in_turn(4).await;
            drop(rests);
        }
    );
    assert_eq!((first.0, added.0, second.0), (200, 201, 409), "{added:?} {second:?}");
    assert!(second.1["error"].as_str().unwrap().contains("junction 1 is gone"), "{second:?}");
    assert_eq!(s.get("/junctions/2").await["path"], json!("/data/a"));
}

#[tokio::test]
async fn a_junction_whose_place_cannot_be_used_is_refused() {
    let s = Served::new().await;
    s.furnish().await;
    let add = |path: &str, at: &str| json!({"path": path, "location": at});
    s.says("/junctions", add("/b", "old:/nope"), 409, "old:/nope is not a directory there").await;
    std::fs::write(s.path("old/file"), "").unwrap();
    s.says("/junctions", add("/b", "old:/file"), 409, "old:/file").await;
    s.says("/junctions", add("/b", "none:/"), 409, "no filer named 'none'").await;
    s.says("/junctions", add("/b", "old"), 400, "'old' is not a location").await;
    s.says("/junctions", add("b", "old:/b"), 400, "'b' is not an absolute path").await;
    s.says("/junctions", add("/b\\x", "old:/b"), 400, "is not escaped well").await;
    s.says("/junctions", add("/data", "old:/b"), 409, "/data contains junction /data/a").await;
    let marker = OwnerMarker { journal_id: [9; 16], location: 1, epoch: 1 };
    s.location("old", "/b").await.claim(&marker).await.unwrap();
    s.says("/junctions", add("/b", "old:/b"), 409, "belongs to another tain, with journal 0909").await;
    assert_eq!(s.owner("old", "/b").await, Some(1), "theirs stays");
}

#[tokio::test]
async fn a_place_that_takes_names_for_one_is_refused() {
    use crate::filer::memory::{Memory, Options, named};
    let s = Served::new().await;
    s.furnish().await;
    for (name, folds_names, first) in [("exact", false, 1), ("folds", true, 1001)] {
        named::put(name, Memory::new(Options { folds_names, first, ..Options::default() }));
        s.created("/filers", json!({"name": name, "url": format!("memory:///{name}")})).await;
    }
    let words = "folds:/ takes names for one that differ in case";
    s.says("/junctions", json!({"path": "/b", "location": "folds:/"}), 409, words).await;
    s.says("/jobs", move_to("folds:/"), 409, words).await;
    assert_eq!(s.owner("folds", "/").await, None);
    s.created("/junctions", json!({"path": "/b", "location": "exact:/"})).await;
    for name in ["exact", "folds"] {
        let filer = s.location(name, "/").await;
        let pen = filer.pen().await.unwrap();
        assert!(filer.list(&pen, 0, 9).await.unwrap().names.is_empty(), "nothing of the trial is left");
    }
    named::clear();
}

#[tokio::test]
async fn a_marker_of_our_own_that_nobody_uses_is_replaced() {
    let s = Served::new().await;
    s.furnish().await;
    let marker = OwnerMarker { journal_id: OURS, location: 50, epoch: 1 };
    s.location("old", "/b").await.claim(&marker).await.unwrap();
    s.created("/junctions", json!({"path": "/b", "location": "old:/b"})).await;
    assert_eq!(s.owner("old", "/b").await, Some(2));
}

#[tokio::test]
async fn a_marker_whose_number_another_place_was_given_since_is_replaced() {
    let s = Served::new().await;
    s.furnish().await;
    assert_eq!(s.owner("old", "/a").await, Some(1));
    // A crash came between the marker and its command; the next command was given the number.
    let marker = OwnerMarker { journal_id: OURS, location: 1, epoch: 1 };
    s.location("old", "/b").await.claim(&marker).await.unwrap();
    s.created("/junctions", json!({"path": "/b", "location": "old:/b"})).await;
    assert_eq!(s.owner("old", "/b").await, Some(2));
    assert_eq!(s.owner("old", "/a").await, Some(1));
}

#[tokio::test]
async fn one_directory_with_two_identities_is_found_out_by_its_marker() {
    let s = Served::new().await;
    s.furnish().await;
    s.created("/filers", json!({"name": "again", "url": s.filer_url("old/a")})).await;
    *s.port.blind.lock() = true;
    let other = Identity(b"by the other mount".to_vec());
    Arc::make_mut(&mut s.port.state.lock()).locations.get_mut(&LocationId(1)).unwrap().root = other;
    let mtime = || std::fs::metadata(s.path("old/a")).unwrap().modified().unwrap();
    let before = mtime();
    let add = json!({"path": "/b", "location": "again:/"});
    s.says("/junctions", add.clone(), 409, "again:/ is old:/a, the location of junction").await;
    assert_eq!((s.owner("old", "/a").await, mtime()), (Some(1), before));
    let pen = s.path("old/a").join(std::str::from_utf8(filer::hidden::PEN).unwrap());
    assert_eq!(std::fs::read_dir(&pen).unwrap().count(), 0, "nothing of the trial is left");
    // Its copy has the marker, too, and is another directory; but that is not believed unseen.
    s.location("old", "/b").await.claim(&s.location("old", "/a").await.owner().await.unwrap().unwrap()).await.unwrap();
    let add = json!({"path": "/b", "location": "old:/b"});
    std::fs::rename(s.path("old/a"), s.path("aside")).unwrap();
    s.says("/junctions", add.clone(), 409, "whether it is the same directory cannot be told").await;
    std::fs::rename(s.path("aside"), s.path("old/a")).unwrap();
    s.created("/junctions", add).await;
    assert_eq!((s.owner("old", "/a").await, s.owner("old", "/b").await), (Some(1), Some(2)));
}

#[tokio::test]
async fn places_that_overlap_by_different_urls_are_refused() {
    let s = Served::new().await;
    s.furnish().await;
    s.created("/filers", json!({"name": "inner", "url": s.filer_url("old/a")})).await;
    s.says("/junctions", json!({"path": "/b", "location": "inner:/"}), 409, "inner:/").await;
    s.says("/jobs", move_to("inner:/x"), 409, "inner:/x overlaps old:/a").await;
    assert!(!s.path("old/a/x").exists(), "the directory that was made for it is gone again");
    s.created("/filers", json!({"name": "outer", "url": s.filer_url("")})).await;
    s.says("/jobs", move_to("outer:/old/a/y"), 409, "outer:/old/a/y overlaps old:/a").await;
    s.created("/jobs", move_to("outer:/new/y")).await;
}

/// Whoever could write there could do anything.
#[tokio::test]
async fn where_the_service_keeps_its_own_data_no_client_is_let() {
    let s = Served::new().await;
    s.furnish().await;
    std::fs::create_dir_all(s.path("srv/tain/journal")).unwrap();
    std::fs::create_dir_all(s.path("srv/beside")).unwrap();
    s.port.own.lock().push(registry::url_of(&s.path("srv/tain/journal")));
    s.created("/filers", json!({"name": "srv", "url": s.filer_url("srv")})).await;
    for place in ["srv:/", "srv:/tain", "srv:/tain/journal", "srv:/tain/journal/new"] {
        s.says("/junctions", json!({"path": "/s", "location": place}), 409, "").await;
    }
    s.says("/junctions", json!({"path": "/s", "location": "srv:/tain"}), 409, "keeps its own data").await;
    s.says("/jobs", move_to("srv:/tain/journal/new"), 409, "keeps its own data").await;
    s.created("/junctions", json!({"path": "/s", "location": "srv:/beside"})).await;
}

#[tokio::test]
async fn a_move_creates_its_destination_and_claims_it() {
    let s = Served::new().await;
    s.furnish().await;
    let job = s.created("/jobs", move_to("new:/deep/er")).await;
    assert_eq!((&job["id"], &job["state"]), (&json!(1), &json!("starting")));
    assert_eq!((&job["source"], &job["destination"]), (&json!("old:/a"), &json!("new:/deep/er")));
    assert_eq!(job["lag_bytes"], json!(5));
    assert_eq!(s.owner("new", "/deep/er").await, Some(2));
    assert_eq!(s.get("/junctions/1").await["job"], json!(1));
    let state = s.port.state();
    let dir = s.location("new", "/deep/er").await.root().await.unwrap();
    assert_eq!(state.locations[&LocationId(2)].root, dir.id);
    s.says("/jobs", move_to("new:/other"), 409, "is the source of job 1 already").await;
    assert!(!s.path("new/other").exists(), "refused before anything was made");
}

#[tokio::test]
async fn a_destination_that_is_not_empty_is_refused_with_an_example() {
    let s = Served::new().await;
    s.furnish().await;
    std::fs::create_dir_all(s.path("new/full/x")).unwrap();
    s.says("/jobs", move_to("new:/full"), 409, "new:/full is not empty: 1 entry, e.g. 'x'").await;
    std::fs::remove_dir(s.path("new/full/x")).unwrap();
    for n in 0..3 {
        std::fs::write(s.path(&format!("new/full/y{n}")), "").unwrap();
    }
    s.says("/jobs", move_to("new:/full"), 409, "new:/full is not empty: 3 entries, e.g. 'y").await;
    assert_eq!(s.owner("new", "/full").await, None);
    for n in 0..3 {
        std::fs::remove_file(s.path(&format!("new/full/y{n}"))).unwrap();
    }
    s.created("/jobs", move_to("new:/full")).await;
}

#[tokio::test]
async fn what_was_made_for_a_destination_goes_again_when_the_ledger_refuses() {
    let s = Served::new().await;
    s.furnish().await;
    std::fs::create_dir(s.path("new/there")).unwrap();
    *s.port.refuse_next.lock() = true;
    s.says("/jobs", move_to("new:/there/x/y/z"), 409, "the ledger says no").await;
    assert_eq!(std::fs::read_dir(s.path("new/there")).unwrap().count(), 0, "x, y and z are gone");
    *s.port.refuse_next.lock() = true;
    s.says("/jobs", move_to("new:/there"), 409, "the ledger says no").await;
    assert!(s.path("new/there").exists(), "what was there stays");
    assert_eq!(s.owner("new", "/there").await, None);
}

/// The next start may find the command: then the place is in use, and must be known by its marker.
#[tokio::test]
async fn what_a_journal_that_fails_may_have_appended_keeps_its_marker_and_its_directory() {
    let s = Served::new().await;
    s.furnish().await;
    *s.port.break_next.lock() = true;
    assert_eq!(s.post("/junctions", json!({"path": "/b", "location": "old:/b"})).await.0, 500);
    assert_eq!(s.owner("old", "/b").await, Some(2));
    *s.port.break_next.lock() = true;
    assert_eq!(s.post("/jobs", move_to("new:/made")).await.0, 500);
    assert_eq!(s.owner("new", "/made").await, Some(3));
}

#[tokio::test]
async fn a_destination_that_cannot_be_written_is_refused() {
    // Permission bits do not stop root, nor whoever owns the directory (its mode is lent): /proc refuses everyone.
    let s = Served::new().await;
    s.furnish().await;
    let (status, document) = s.post("/filers", json!({"name": "proc", "url": "posix:///proc"})).await;
    if status == 201 {
        s.says("/jobs", move_to("proc:/new"), 409, "cannot be created").await;
    } else {
        assert!(document["error"].as_str().is_some_and(|e| e.contains("/proc")), "{document}");
    }
    if !rustix::process::geteuid().is_root() {
        s.created("/filers", json!({"name": "system", "url": "posix:///usr"})).await;
        s.says("/jobs", move_to("system:/tain-cannot-make-this"), 409, "cannot be created").await;
    }
}

#[tokio::test]
async fn jobs_are_told_what_to_do_and_an_aborted_one_releases_its_destination() {
    let s = Served::new().await;
    s.furnish().await;
    let body = json!({"kind": "move", "source": "/data/a", "destination": "new:/a", "notes": "n", "stopped": true});
    let job = s.created("/jobs", body).await;
    assert_eq!((&job["state"], &job["notes"]), (&json!("stopped"), &json!("n")));
    s.says("/jobs/1/pause", json!({}), 409, "job 1 is stopped: it cannot be told to pause").await;
    s.says("/jobs/2/start", json!({}), 404, "there is no job 2").await;
    s.says("/jobs/x/start", json!({}), 400, "'x' is not a job's number").await;
    s.says("/jobs/1/dance", json!({}), 404, "no action 'dance'").await;
    let (status, job) = s.post("/jobs/1/start", json!({})).await;
    assert_eq!((status, &job["state"]), (200, &json!("starting")));
    s.location("new", "/a").await.pen().await.unwrap();
    let (_, job) = s.post("/jobs/1/abort", json!({})).await;
    assert_eq!(job["state"], json!("aborted"));
    assert_eq!(s.owner("new", "/a").await, None);
    assert_eq!(std::fs::read_dir(s.path("new/a")).unwrap().count(), 0, "neither marker nor pen");
    assert_eq!(s.get("/jobs").await.as_array().unwrap().len(), 1);
    assert_eq!(s.get("/jobs/1/errors").await, json!([]));
}

/// Nobody takes it away later.
#[tokio::test]
async fn a_marker_that_stays_is_told_to_whoever_aborts_a_job_or_removes_a_junction() {
    let s = Served::new().await;
    s.furnish().await;
    s.created("/jobs", move_to("new:/a")).await;
    *s.port.in_use.lock() = Some("still in use".into());
    let (status, job) = s.post("/jobs/1/abort", json!({})).await;
    assert_eq!((status, &job["state"]), (200, &json!("aborted")));
    let remark = job["remarks"][0].as_str().unwrap();
    assert!(remark.starts_with("new:/a keeps tain's owner marker") && remark.ends_with("still in use"), "{remark}");
    assert_eq!(s.owner("new", "/a").await, Some(2));
    *s.port.in_use.lock() = None;
    std::fs::rename(s.path("old/a"), s.path("gone")).unwrap();
    let (status, removed) = s.call("DELETE", "/api/v1/junctions/%2Fdata%2Fa", "").await;
    assert_eq!(status, 200);
    let remark = removed["remarks"][0].as_str().unwrap();
    assert!(remark.starts_with("old:/a keeps tain's owner marker"), "{remark}");
}

#[tokio::test]
async fn a_stopped_job_starts_only_while_its_destination_is_still_empty() {
    let s = Served::new().await;
    s.furnish().await;
    let body = json!({"kind": "move", "source": "/data/a", "destination": "new:/a", "stopped": true});
    s.created("/jobs", body).await;
    std::fs::write(s.path("new/a/theirs"), "").unwrap();
    s.says("/jobs/1/start", json!({}), 409, "new:/a is not empty: 1 entry, e.g. 'theirs'").await;
    std::fs::rename(s.path("new/a"), s.path("new/b")).unwrap();
    s.says("/jobs/1/start", json!({}), 409, "new:/a cannot be used").await;
    assert_eq!(s.get("/jobs").await[0]["state"], json!("stopped"));
    std::fs::rename(s.path("new/b"), s.path("new/a")).unwrap();
    std::fs::remove_file(s.path("new/a/theirs")).unwrap();
    let (status, job) = s.post("/jobs/1/start", json!({})).await;
    assert_eq!((status, &job["state"]), (200, &json!("starting")));
    // What a job has copied is there when it goes on.
    std::fs::write(s.path("new/a/copied"), "").unwrap();
    s.job_to(&[JobState::Moving, JobState::Paused]);
    let (status, job) = s.post("/jobs/1/start", json!({})).await;
    assert_eq!((status, &job["state"]), (200, &json!("moving")));
}

#[tokio::test]
async fn status_is_healthy_until_something_is_wrong() {
    let s = Served::new().await;
    s.furnish().await;
    let status = s.get("/status").await;
    assert_eq!((&status["healthy"], &status["journal"]["durable_lsn"]), (&json!(true), &json!(10)));
    assert_eq!(status["junctions"][0]["path"], json!("/data/a"));
    let read = json!({"name": "READ", "calls": 2, "median_us": 1, "p99_us": 2, "longest_us": 3});
    assert_eq!(status["procedures"], json!([read]));
    assert_eq!(status["locks"], json!({"held": 3, "waiting": 2, "hosts": 1, "grace_s": 9}));
    assert_eq!(s.call("GET", "/healthz", "").await, (200, json!({"healthy": true})));

    s.created("/jobs", move_to("new:/a")).await;
    s.job_to(&[JobState::Moving, JobState::Paused]);
    let status = s.get("/status").await;
    assert_eq!(status["problems"], json!(["job 1 has paused: full"]));
    *s.port.problems.lock() = vec!["on fire".into()];
    assert_eq!(s.get("/status").await["problems"], json!(["on fire", "job 1 has paused: full"]));
    assert_eq!(s.call("GET", "/healthz", "").await, (503, json!({"healthy": false})));
}

#[tokio::test]
async fn an_api_with_a_token_answers_only_who_bears_it() {
    let mut s = Served::with_token(Some("correct horse battery")).await;
    assert_eq!(s.call("GET", "/api/v1/status", "").await.0, 401);
    s.token = Some("correct horse batterx".into());
    assert_eq!(s.call("GET", "/api/v1/status", "").await.0, 401);
    s.token = Some("correct horse battery".into());
    assert_eq!(s.call("GET", "/api/v1/status", "").await.0, 200);
    let short = s.path("short");
    std::fs::write(&short, "abc").unwrap();
    let api = config::Api { listen: ApiListen::Unix(s.path("b.sock")), token_file: Some(short) };
    assert!(Api::bind(&api).await.unwrap_err().to_string().contains("is not a token"));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_a_command_half_way() {
    let s = Served::new().await;
    s.furnish().await;
    let hold = s.port.state.lock();
    // The command waits for State, the client goes.
    let body = move_to("new:/a").to_string();
    let mut stream = std::os::unix::net::UnixStream::connect(&s.socket).unwrap();
    let request = format!("POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    drop(hold);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    drop(stream);
    for _ in 0..500 {
        if !s.port.state().jobs.is_empty() {
            assert_eq!(s.owner("new", "/a").await, Some(2));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the job was not created");
}
