//! The service under test: its own process, started from an executable, seen through its command line and its port.

use super::client::{Client, Cred};
use super::nfs::Call;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long a start may take before it counts as failed.
const START_MAX: Duration = Duration::from_secs(180);

pub struct Service {
    exe: PathBuf,
    /// Everything of it: config, journal, state, log.
    pub dir: PathBuf,
    pub nfs: SocketAddr,
    pub api: String,
    env: Vec<(OsString, OsString)>,
    child: Option<Child>,
}

/// What went wrong with the service or with a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error("tain {args} failed: {stderr}")]
    Command { args: String, stderr: String },
    #[error("the service {0}")]
    Service(String),
}

impl Service {
    /// Write the config; nothing is started. `dir` must exist.
    pub fn new(exe: &Path, dir: &Path, segment_size: u64) -> Result<Self, Error> {
        let io = |e| Error::Io(format!("{}", dir.display()), e);
        let nfs = free_port().map_err(io)?;
        let api = format!("unix://{}", socket(dir).display());
        let (soft, hard) = (segment_size * 32, segment_size * 64);
        let d = dir.display();
        let config = format!(
            "[journal]\ndir = \"{d}/journal\"\nsegment_size = {segment_size}\nsoft_limit = {soft}\nhard_limit = {hard}\n\n\
             [state]\ndir = \"{d}/state\"\n\n[nfs]\nlisten = \"{nfs}\"\n\n[api]\nlisten = \"{api}\"\n"
        );
        // Synced: a service whose disk lost it would start with the defaults, in the system's own directories.
        let mut file = std::fs::File::create(dir.join("tain.toml")).map_err(io)?;
        file.write_all(config.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(Self { exe: exe.into(), dir: dir.into(), nfs, api, env: Vec::new(), child: None })
    }

    /// For the next start.
    pub fn env(&mut self, key: &str, value: &Path) {
        self.env.push((key.into(), value.into()));
    }

    /// No more for the next start.
    pub fn unset(&mut self, key: &str) {
        self.env.retain(|(k, _)| k != key);
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("tain.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("service.log")
    }

    /// Start it; back when it answers NFS, with the time that took.
    pub async fn start(&mut self) -> Result<Duration, Error> {
        let log = self.log();
        let io = |e| Error::Io(format!("{}", log.display()), e);
        let out = std::fs::File::options().create(true).append(true).open(self.log()).map_err(io)?;
        let begun = Instant::now();
        let child = Command::new(&self.exe)
            .args(["serve".into(), "--config".into(), self.config().into_os_string()])
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(io)?)
            .stderr(out)
            // Ctrl-C is for us: we end it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        self.child = Some(child);
        let probe = Client::new(self.nfs, Cred::own(), 0xffff_0000, START_MAX);
        loop {
            if timeout(Duration::from_millis(500), probe.once(&Call::Null)).await.is_ok_and(|r| r.is_ok()) {
                return Ok(begun.elapsed());
            }
            if let Some(status) = self.ended()? {
                return Err(Error::Service(format!("ended at its start ({status}): {}", self.last_words())));
            }
            if begun.elapsed() > START_MAX {
                return Err(Error::Service(format!("does not answer after {START_MAX:?}: {}", self.last_words())));
            }
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        match &mut self.child {
            Some(child) => child.try_wait().map_err(|e| Error::Io("waiting for the service".into(), e)),
            None => Ok(None),
        }
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<(), Error> {
        if let Some(status) = self.ended()? {
            return Err(Error::Service(format!("had ended by itself ({status}): {}", self.last_words())));
        }
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(|e| Error::Io("SIGKILL".into(), e))?;
        }
        Ok(())
    }

    /// SIGTERM, and wait: it must exit with 0.
    pub async fn stop(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let io = |e| Error::Io("SIGTERM".into(), e);
        if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|e| io(e.into()))?;
        }
        match timeout(Duration::from_secs(180), child.wait()).await {
            Ok(status) => {
                let status = status.map_err(io)?;
                if status.success() { Ok(()) } else { Err(Error::Service(format!("stopped with {status}"))) }
            }
            Err(_) => {
                self.child = Some(child);
                Err(Error::Service("does not stop on SIGTERM".into()))
            }
        }
    }

    /// `tain …` against it: what it printed.
    pub async fn tain(&self, args: &[&str]) -> Result<String, Error> {
        let out = Command::new(&self.exe)
            .args(args)
            .env("TAIN_API", &self.api)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| Error::Io("starting tain".into(), e))?;
        if !out.status.success() {
            let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(Error::Command { args: args.join(" "), stderr });
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    /// The same with `--json`, parsed.
    pub async fn json(&self, args: &[&str]) -> Result<serde_json::Value, Error> {
        let text = self.tain(&[args, &["--json"]].concat()).await?;
        let bad = |e: serde_json::Error| Error::Command { args: args.join(" "), stderr: format!("no JSON: {e}") };
        serde_json::from_str(&text).map_err(bad)
    }

    /// A job's state, by name.
    pub async fn job_state(&self, job: &str) -> Result<String, Error> {
        let it = self.json(&["job", "show", job]).await?;
        Ok(it.get("state").and_then(|s| s.as_str()).unwrap_or("unknown").to_owned())
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(2000)..];
        let text = String::from_utf8_lossy(tail).into_owned();
        let lines: Vec<&str> = text.lines().rev().take(6).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Whatever happens to the rest: it is gone afterwards.
    pub async fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
        sleep(Duration::ZERO).await;
    }
}

/// Beside the rest; elsewhere when the path would be too long for a socket (107 bytes).
fn socket(dir: &Path) -> PathBuf {
    let here = dir.join("api.sock");
    if here.as_os_str().len() < 100 {
        return here;
    }
    std::env::temp_dir().join(format!("tain-{:x}.sock", super::content::mix(now())))
}

/// A port below the range that connections come from, so that nobody takes it between two starts.
fn free_port() -> std::io::Result<SocketAddr> {
    let mut rng = super::content::Rng::new(u64::from(std::process::id()) ^ now());
    let mut last = std::io::Error::other("no free port");
    for _ in 0..200 {
        let port = 20_000 + u16::try_from(rng.below(12_000)).unwrap_or(0);
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        match std::net::TcpListener::bind(addr) {
            Ok(_) => return Ok(addr),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Something that differs from run to run.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() ^ u64::from(since.subsec_nanos()).rotate_left(32)
}
