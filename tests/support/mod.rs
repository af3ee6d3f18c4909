//! What the black-box tests share: the real binary, directories of their own, a served junction and a client.
//! Tests speak NFS by the demo's client, which shares no code with the service.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod raw;

use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tain::demo::client::{Client, Cred};
use tain::demo::lane::Limits;
use tain::demo::load::Load;
use tain::demo::nfs::{Call, Fh, Reply, status};
use tain::demo::rig::Setup;
use tain::demo::service::Service;
use tain::demo::source::Spec;
use tempfile::TempDir;

/// The binary under test: the one that was built with the tests, or another build of it (`TAIN_BIN`, an absolute path).
pub fn exe() -> PathBuf {
    std::env::var_os("TAIN_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tain")), PathBuf::from)
}

tokio::task_local! {
    /// Set where a failure is what is wanted: nothing of it is kept for a look.
    pub static DUE: ();
}

/// Whether what a test worked on is to be kept: it is failing, and should not.
pub fn is_failing() -> bool {
    std::thread::panicking() && DUE.try_with(|()| ()).is_err()
}

/// A directory that goes away with the test; kept, and named, when the test fails.
pub struct Dir {
    dir: Option<TempDir>,
}

impl Dir {
    pub fn new() -> Self {
        // Not the system's temporary directory: that may be a tmpfs, on which a journal is refused.
        let dir = tempfile::Builder::new().prefix("t").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { dir: Some(dir) }
    }

    pub fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if is_failing()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}

/// Until the load has done so many operations more, or has failed: then whoever stops it says why.
pub async fn more_ops(load: &Load, count: u64) {
    let ops = || load.totals.ops.load(std::sync::atomic::Ordering::Relaxed);
    let (begun, due) = (Instant::now(), ops() + count);
    while ops() < due && load.failure().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the load hangs: {} of {due} operations", ops());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A modest tree, a modest load.
pub fn setup(files: u64, mib: u64, clients: usize) -> Setup {
    let seed = std::env::var("TAIN_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(tain::demo::service::now);
    println!("seed {seed} (TAIN_TEST_SEED={seed} repeats the clients' choices)");
    Setup {
        spec: Spec { files, lanes_files: None, mib, lanes: clients as u64 * 2, seed },
        segment_size: 16 << 20,
        clients,
        limits: Limits { pause: Duration::from_millis(4), ..Limits::default() },
        deadline: Duration::from_secs(90),
        log_events: false,
    }
}

/// A service with one filer, one junction `/a/b`, and a client that has mounted it.
pub struct Served {
    pub dir: Dir,
    pub service: Service,
    pub client: Client,
    /// The junction's root.
    pub root: Fh,
}

impl Served {
    pub async fn new() -> Self {
        Self::planted(None).await
    }

    /// With a bug of `src/planted.rs`, in a build that has them.
    pub async fn planted(bug: Option<char>) -> Self {
        let dir = Dir::new();
        for sub in ["service", "filer", "filer/export", "other"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let mut service = Service::new(&exe(), &dir.path().join("service"), 16 << 20).unwrap();
        if let Some(bug) = bug {
            service.env("TAIN_PLANTED", bug.to_string().as_ref());
        }
        service.start().await.unwrap();
        for (name, sub) in [("one", "filer"), ("two", "other")] {
            let url = format!("posix://{}", dir.path().join(sub).display());
            service.tain(&["filer", "add", name, &url]).await.unwrap();
        }
        service.tain(&["junction", "add", "/a/b", "one:/export"]).await.unwrap();
        let client = client(&service, 1);
        let root = client.mount(b"/a/b").await.unwrap().unwrap();
        // Until the service has taken up the new junction it says JUKEBOX; the client waits.
        client.nfs(&Call::GetAttr { node: root.clone() }).await.unwrap();
        Self { dir, service, client, root }
    }

    /// The directory behind the junction.
    pub fn export(&self) -> PathBuf {
        self.dir.path().join("filer/export")
    }

    /// A call that must succeed.
    pub async fn ok(&self, call: Call) -> Reply {
        self.status(call, status::OK).await
    }

    /// A call that must be answered so.
    pub async fn status(&self, call: Call, due: u32) -> Reply {
        expect(&self.client, call, due).await
    }

    pub async fn kill_and_start(&mut self) {
        self.service.kill().await.unwrap();
        self.service.start().await.unwrap();
    }
}

pub fn client(service: &Service, number: u32) -> Client {
    Client::new(service.nfs, Cred::own(), number << 24 | 1, Duration::from_secs(60))
}

pub async fn expect(client: &Client, call: Call, due: u32) -> Reply {
    let reply = client.nfs(&call).await.unwrap_or_else(|e| panic!("{call:?}: {e}"));
    assert_eq!(reply.status, due, "{call:?}");
    reply
}

pub fn name(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// This process may do everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
