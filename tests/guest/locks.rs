//! Locks of two kernels that mounted without `nolock`: they exclude each other, go over a move's switch, are granted to who
//! waits, are claimed after a kill, and are free when their client has restarted.
//!
//! Nobody can call into a guest: who waits has its lock when its kernel asks again (30 s), and what the service would tell
//! a guest's statd after a restart, the guest tells it itself.

use super::support::{Dir, exe};
use super::{Guest, Service};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Of the whole test: it hangs then.
const LONGEST: Duration = Duration::from_secs(900);
/// Of one step.
pub const STEP: Duration = Duration::from_secs(400);
const SCRIPT: &str = include_str!("locks.sh");
const SOCKET: &str = "/run/rpcbind.sock";

/// This machine's rpcbind: one that runs, or one of our own.
pub struct Rpcbind(Option<std::process::Child>);

impl Rpcbind {
    pub fn start() -> Self {
        if std::os::unix::net::UnixStream::connect(SOCKET).is_ok() {
            return Self(None);
        }
        let child = std::process::Command::new("rpcbind").arg("-f").stdin(Stdio::null()).spawn();
        let child = child.expect("rpcbind is needed (tests/support/realclient/setup --uml --tools)");
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(SOCKET).is_err() {
            assert!(begun.elapsed() < STEP, "rpcbind does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(Some(child))
    }
}

impl Drop for Rpcbind {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A guest that has mounted `/projects` with locks.
pub fn guest(name: &'static str, service: &Service, dir: &Path, limit: Duration, script: &str) -> Guest {
    let share = dir.join(format!("share-{name}"));
    std::fs::create_dir(&share).unwrap();
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/realclient/run");
    let out = std::fs::File::create(share.join("output")).unwrap();
    let child = tokio::process::Command::new(run)
        .args(["--port", &service.nfs.port().to_string(), "--export", "/projects"])
        .args(["--timeout", &limit.as_secs().to_string()])
        .args(["--kind", "uml", "--mem", "768", "--locks", name, "--share"])
        .arg(format!("{}:rw", share.display()))
        .args([
            &format!("me={name}"),
            "GIT_CONFIG_COUNT=1",
            "GIT_CONFIG_KEY_0=safe.directory",
            "GIT_CONFIG_VALUE_0=*",
            "--",
        ])
        .arg(script)
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Guest { child, share, name }
}

impl Guest {
    pub fn say(&self, what: &str) {
        std::fs::write(self.share.join(what), "").unwrap();
    }

    /// Until the guest has said so; how long that took.
    pub async fn says(&mut self, what: &str) -> Duration {
        self.says_within(what, STEP).await
    }

    pub async fn says_within(&mut self, what: &str, limit: Duration) -> Duration {
        let begun = Instant::now();
        while !self.share.join(what).exists() {
            self.must_be_well();
            assert!(begun.elapsed() < limit, "guest {} does not say '{what}':\n{}", self.name, self.output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("guest {}: {what} after {:?}", self.name, begun.elapsed());
        begun.elapsed()
    }
}

async fn locks(service: &Service) -> serde_json::Value {
    service.json(&["status"]).await.unwrap()["locks"].clone()
}

/// What the client's own `sm-notify` says when it has started again.
async fn has_restarted(service: &Service, name: &str) {
    let mut message = Vec::new();
    let len = u32::try_from(name.len()).unwrap();
    for word in [7, 0, 2, 100_024, 1, 6, 0, 0, 0, 0, len] {
        message.extend_from_slice(&u32::to_be_bytes(word));
    }
    message.extend_from_slice(name.as_bytes());
    message.resize(message.len().next_multiple_of(4), 0);
    message.extend_from_slice(&u32::to_be_bytes(99));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut reply = [0; 64];
    for _ in 0..20 {
        socket.send_to(&message, service.nfs).await.unwrap();
        if tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut reply)).await.is_ok() {
            return;
        }
    }
    panic!("the service does not hear that {name} has restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_two_kernels_exclude_each_other_over_a_switch_a_kill_and_a_client_that_died() {
    let mut whole = std::pin::pin!(locks_of_two_kernels());
    tokio::select! {
        () = &mut whole => {}
        () = tokio::time::sleep(LONGEST) => panic!("not ended after {LONGEST:?}"),
    }
}

async fn locks_of_two_kernels() {
    let dir = Dir::new();
    let at = |sub: &str| dir.path().join(sub);
    for sub in ["service", "old", "old/tree", "new"] {
        std::fs::create_dir(at(sub)).unwrap();
    }
    let _rpcbind = Rpcbind::start();
    let mut service = Service::new(&exe(), &at("service"), 64 << 20).unwrap();
    let config = std::fs::read_to_string(service.config()).unwrap();
    let config = config.replace("[nfs]\n", "[nfs]\nrpcbind = true\ngrace = 60\n");
    std::fs::write(service.config(), config).unwrap();
    service.start().await.unwrap();
    for filer in ["old", "new"] {
        let url = format!("posix://{}", at(filer).display());
        service.tain(&["filer", "add", filer, &url]).await.unwrap();
    }
    service.tain(&["junction", "add", "/projects", "old:/tree"]).await.unwrap();
    // Also that all is registered: the status says what is not.
    let status = service.json(&["status"]).await.unwrap();
    assert_eq!(status["problems"].as_array().unwrap().len(), 0, "{}", status["problems"]);
    let exports = std::process::Command::new("showmount").args(["-e", "--no-headers", "127.0.0.1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&exports.stdout).contains("/projects"), "{exports:?}");

    let mut a = guest("a", &service, dir.path(), LONGEST, SCRIPT);
    a.says("held").await;
    a.says("held1").await;
    assert_eq!(locks(&service).await["held"], 2, "of two processes");
    let mut b = guest("b", &service, dir.path(), LONGEST, SCRIPT);
    b.say("go");
    b.says("denied").await;
    let job = service.tain(&["move", "create", "/projects", "new:/tree"]).await.unwrap();
    service.tain(&["job", "wait", job.trim(), "--state", "completed", "--timeout", "3m"]).await.unwrap();
    b.say("switched");
    b.says("still").await;
    let begun = Instant::now();
    while locks(&service).await["waiting"] != 1 {
        b.must_be_well();
        assert!(begun.elapsed() < STEP, "nobody waits:\n{}", b.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    a.say("release");
    b.says("got").await;
    let before = locks(&service).await;

    service.kill().await.unwrap();
    service.start().await.unwrap();
    assert_eq!((&locks(&service).await["held"], &before["hosts"]), (&0.into(), &2.into()));
    b.say("restarted");
    b.says("told").await;
    let begun = Instant::now();
    while locks(&service).await["held"] == 0 {
        b.must_be_well();
        assert!(begun.elapsed() < STEP, "nothing is claimed:\n{}", b.output());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("claimed after {:?}", begun.elapsed());
    while !locks(&service).await["grace_s"].is_null() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for say in ["restarted", "late"] {
        a.say(say);
    }
    a.says("denied").await;

    // The guest ends without a word, as a client whose power fails.
    drop(b);
    has_restarted(&service, "b").await;
    a.say("other-died");
    a.says("again").await;
    for say in ["stop", "release1"] {
        a.say(say);
    }
    a.finish().await;
    service.stop().await.unwrap();
    // What was registered is not any more.
    let exports = std::process::Command::new("showmount").args(["-e", "127.0.0.1"]).output().unwrap();
    assert!(!exports.status.success(), "{exports:?}");
}
