//! Everything a run needs, put together: directories, source tree, the service with its filers and junction, clients,
//! the observer; and the comparison of a side with the models. The demo and the black-box tests both stand on it.

use super::lane::{Lane, Limits};
use super::load::{self, Plan};
use super::observer::{Hook, Observer, Step, Switch};
use super::service::Service;
use super::source::{self, Source, Spec};
use super::walker::{Compare, Found, compare};
use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the junction is; deep enough to be walked to.
pub const JUNCTION: &str = "/projects/demo";
/// The subdirectory of a filer's export that the tree lies in.
pub const TREE: &str = "tree";

pub struct Rig {
    pub dir: PathBuf,
    pub service: Service,
    pub source: Source,
    pub observer: Observer,
    /// What the service says that it carried out.
    pub steps: PathBuf,
    pub plan: Plan,
    /// Moves so far.
    pub jobs: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub spec: Spec,
    pub segment_size: u64,
    pub clients: usize,
    pub limits: Limits,
    /// How long one call may take, restarts of the service included.
    pub deadline: Duration,
    /// Keep every event as a line of `events.log`: what happened to a name that is wrong at the end is told from there,
    /// long after the journal's segments have been used again.
    pub log_events: bool,
}

impl Rig {
    /// The first filer holds the tree, the others are empty. The service runs afterwards.
    pub async fn new(exe: &Path, dir: &Path, filers: &[&str], setup: Setup) -> Result<Self> {
        for name in filers.iter().chain(&["service"]) {
            // It may be there already: a disk of its own.
            std::fs::create_dir_all(dir.join(name)).with_context(|| format!("{}/{name}", dir.display()))?;
        }
        let first = filers.first().context("at least one filer")?;
        let root = dir.join(first).join(TREE);
        std::fs::create_dir(&root)?;
        let source = tokio::task::spawn_blocking(move || source::build(&root, setup.spec)).await??;
        let mut service = Service::new(exe, &dir.join("service"), setup.segment_size)?;
        let steps = dir.join("steps.log");
        service.env("TAIN_STEP_LOG", &steps);
        service.start().await?;
        let observer = match setup.log_events {
            true => Observer::start_with(&service.journal(), event_log(&dir.join(EVENTS))?),
            false => Observer::start(&service.journal()),
        };
        for name in filers {
            let url = format!("posix://{}", dir.join(name).display());
            service.tain(&["filer", "add", name, &url]).await?;
        }
        service.tain(&["junction", "add", JUNCTION, &format!("{first}:/{TREE}")]).await?;
        let junction = JUNCTION.split('/').filter(|n| !n.is_empty()).map(|n| Bytes::from(n.to_owned())).collect();
        let plan = Plan {
            server: service.nfs,
            junction,
            clients: setup.clients,
            deadline: setup.deadline,
            limits: setup.limits,
            seed: setup.spec.seed,
        };
        Ok(Self { dir: dir.into(), service, source, observer, steps, plan, jobs: 0 })
    }

    pub async fn lanes(&self) -> Result<Vec<Lane>> {
        Ok(load::lanes(&self.plan, &self.source).await?)
    }

    /// The directory that holds the tree on a filer.
    pub fn side(&self, filer: &str, sub: &str) -> PathBuf {
        self.dir.join(filer).join(sub)
    }

    /// Create a move of the junction; its number.
    pub async fn start_move(&mut self, filer: &str, sub: &str) -> Result<u32> {
        let id = self.service.tain(&["move", "create", JUNCTION, &format!("{filer}:/{sub}")]).await?;
        self.jobs += 1;
        id.trim().parse().map_err(|_| anyhow!("move create printed {id:?}, not a job's number"))
    }

    /// Until the job is completed; an error, with the job's own errors, when it is not after `limit` or cannot be.
    pub async fn wait_completed(&self, job: u32, limit: Duration) -> Result<()> {
        let (begun, job) = (Instant::now(), job.to_string());
        loop {
            let state = self.service.job_state(&job).await?;
            match state.as_str() {
                "completed" => return Ok(()),
                "aborted" | "paused" | "stopped" => {
                    let errors = self.service.tain(&["job", "errors", &job]).await.unwrap_or_default();
                    bail!("job {job} is {state}:\n{errors}");
                }
                _ if begun.elapsed() > limit => bail!("job {job} is still {state} after {limit:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Where the job switched the junction, from the journal. Blocking for a moment: the observer may be a little behind.
    pub fn switch(&self, job: u32) -> Result<Switch> {
        for _ in 0..500 {
            let seen = self.observer.seen();
            if let Some(e) = &seen.broken {
                bail!("reading the journal: {e}");
            }
            if let Some(switch) = seen.switch(job) {
                return Ok(switch);
            }
            drop(seen);
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the journal has no switch of job {job}")
    }

    /// A side against the models: as they are now, or as they were at a switch. Blocking.
    pub fn verify(&self, side: &Path, lanes: &[Lane], at: Option<Switch>) -> Result<Found> {
        let calls = match at {
            Some(_) => {
                // Clients have stopped: what they did is in the journal, and soon read.
                self.observer.settle().map_err(|e| anyhow!("reading the journal: {e}"))?;
                self.observer.seen().calls.clone()
            }
            None => HashMap::new(),
        };
        let mut found = compare(side, &self.source.rest, Compare::default())?;
        let how = Compare { root_mtime: true, ..Compare::default() };
        for (i, (name, _)) in self.source.lanes.iter().enumerate() {
            let lane = lanes.get(i).with_context(|| format!("lane {i} is missing"))?;
            let path = side.join(OsStr::from_bytes(name));
            found.add(match at {
                Some(switch) => {
                    let then = lane.tree_at(|xid| calls.get(&xid).map(|lsn| *lsn < switch.lsn))?;
                    compare(&path, &then, how)?
                }
                None => compare(&path, &lane.tree, how)?,
            });
        }
        Ok(found)
    }

    /// The steps that the service logged as carried out, in order.
    pub fn carried_out(&self) -> Result<Vec<(Step, u64)>> {
        let text = match std::fs::read_to_string(&self.steps) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e.into()),
        };
        // SIGKILL may cut the last line of a life short.
        let whole = text.rfind('\n').map_or("", |at| &text[..=at]);
        whole.lines().filter(|l| !l.is_empty()).map(parse_step).collect()
    }
}

/// Every event as a line, in LSN order.
const EVENTS: &str = "events.log";

fn event_log(path: &Path) -> Result<Hook> {
    let mut log = std::io::BufWriter::new(std::fs::File::create(path)?);
    Ok(Box::new(move |event, _, lsn, _| {
        writeln!(log, "{lsn} {event:?}").and_then(|()| log.flush()).map_err(|e| format!("{EVENTS}: {e}"))
    }))
}

impl Rig {
    /// The events that name `name`, in order; of a rig that logs them.
    pub fn told_of(&self, name: &[u8]) -> Result<String> {
        let (log, wanted) = (std::fs::read_to_string(self.dir.join(EVENTS))?, format!("{name:?}"));
        Ok(log.lines().filter(|line| line.contains(&wanted)).map(|line| format!("{line}\n")).collect())
    }
}

/// `location record node offset len void`.
fn parse_step(line: &str) -> Result<(Step, u64)> {
    let mut numbers = line.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok).with_context(|| format!("step log: {line:?}"));
    let (location, _record, node, offset, len) = (next()?, next()?, next()?, next()?, next()?);
    Ok(((u32::try_from(location)?, node, offset), len))
}

/// Bytes of steps that were carried out more than once.
pub fn carried_out_twice(steps: &[(Step, u64)]) -> u64 {
    let mut seen = std::collections::HashSet::new();
    steps.iter().filter(|(step, _)| !seen.insert(*step)).map(|(_, len)| *len).sum()
}

/// A fresh directory for a run, on a file system that a journal can be on, with room for `bytes`.
pub fn work_dir(below: Option<&Path>, bytes: u64) -> Result<PathBuf> {
    let name = format!("tain-demo-{}", std::process::id());
    let candidates = match below {
        Some(dir) => vec![dir.to_path_buf()],
        None => {
            let exe = std::env::current_exe().ok().and_then(|e| e.parent().map(Path::to_path_buf));
            [Some(std::env::temp_dir()), Some("/var/tmp".into()), exe].into_iter().flatten().collect()
        }
    };
    let mut why = Vec::new();
    for below in candidates {
        match fits(&below, bytes) {
            Ok(below) => {
                let dir = below.join(&name);
                std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
                return Ok(dir);
            }
            Err(e) => why.push(format!("{}: {e}", below.display())),
        }
    }
    bail!("no directory to work in: {}; name one with --dir", why.join("; "))
}

fn fits(dir: &Path, bytes: u64) -> Result<PathBuf> {
    let dir = dir.canonicalize()?;
    let stat = rustix::fs::statfs(&dir)?;
    // tmpfs, ramfs, btrfs, FUSE, NFS: a journal is refused there or its promises do not hold.
    let kind = u64::try_from(stat.f_type).unwrap_or(0);
    if [0x0102_1994, 0x8584_58f6, 0x9123_683e, 0x6573_5546, 0x6969].contains(&kind) {
        bail!("a journal cannot be on this kind of file system ({kind:#x})");
    }
    let free = stat.f_bavail.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or(0));
    if free < bytes {
        bail!("{} MiB free, {} MiB needed", free >> 20, bytes >> 20);
    }
    Ok(dir)
}
