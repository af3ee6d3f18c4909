//! `tain demo`: the run itself, told as it goes.

use super::lane::{Lane, Limits, Slow};
use super::load::Load;
use super::rig::{Rig, Setup, TREE, carried_out_twice, work_dir};
use super::source::Spec;
use super::walker::Found;
use anyhow::{Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// What the command line may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub dir: Option<PathBuf>,
    pub files: Option<u64>,
    pub mib: Option<u64>,
    pub clients: Option<usize>,
}

const FILES: u64 = 5000;
const MIB: u64 = 512;
const CLIENTS: usize = 4;
/// Parts of the tree that clients work in; two for each client keep several calls of it in flight.
const LANES_PER_CLIENT: usize = 2;
const SEGMENT: u64 = 16 << 20;
/// The service is killed when so much of the data is copied.
const KILL_AT_PERCENT: u64 = 25;
const KILL_UNTIL_PERCENT: u64 = 60;
/// The load goes on for so long after the switch.
const AFTER: Duration = Duration::from_secs(2);
/// The whole move may take so long.
const MOVE_MAX: Duration = Duration::from_secs(600);

/// What is printed at the end.
struct Story {
    begun: Instant,
    copied_at_kill: u64,
    restart: Duration,
    moved_in: Duration,
    slow: Arc<Mutex<Slow>>,
    job: u32,
}

pub async fn run(options: Options) -> Result<()> {
    let (files, mib) = (options.files.unwrap_or(FILES), options.mib.unwrap_or(MIB));
    let data = (mib << 20) + files * 8192;
    let dir = work_dir(options.dir.as_deref(), data * 3 + (1 << 30))?;
    let exe = std::env::current_exe()?;
    println!("tain demo: working in {} (takes up to {} MiB)", dir.display(), (data * 3 + (1 << 30)) >> 20);
    let clients = options.clients.unwrap_or(CLIENTS).clamp(1, 14);
    let setup = Setup {
        log_events: false,
        spec: Spec {
            files,
            lanes_files: None,
            mib,
            lanes: (clients * LANES_PER_CLIENT) as u64,
            seed: super::service::now(),
        },
        segment_size: SEGMENT,
        clients,
        limits: Limits { pause: Duration::from_millis(4), ..Limits::default() },
        deadline: Duration::from_secs(60),
    };
    let (mut ctrl_c, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Dropped by the select below, the run takes the service with it.
    let result = tokio::select! {
        result = all(&exe, &dir, setup) => result,
        _ = ctrl_c.recv() => Err(anyhow!("interrupted")),
        _ = term.recv() => Err(anyhow!("terminated")),
    };
    match result {
        Ok(()) => {
            std::fs::remove_dir_all(&dir)?;
            Ok(())
        }
        Err(e) if e.to_string() == "interrupted" || e.to_string() == "terminated" => {
            // The service was sent SIGKILL a moment ago; what it still does to the directory ends soon.
            let mut left = Ok(());
            for _ in 0..50 {
                left = std::fs::remove_dir_all(&dir);
                if left.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
            left.map_err(|gone| anyhow!("{e}; {} could not be removed: {gone}", dir.display()))?;
            Err(anyhow!("{e}; everything it made is removed"))
        }
        Err(e) => {
            println!("kept for a look: {}", dir.display());
            Err(e)
        }
    }
}

async fn all(exe: &Path, dir: &Path, setup: Setup) -> Result<()> {
    let begun = Instant::now();
    tell(begun, "building the tree and starting the service (two filers, one junction)");
    let mut rig = Rig::new(exe, dir, &["old", "new"], setup).await?;
    let (files, mib) = (rig.source.files, rig.source.bytes >> 20);
    tell(begun, &format!("{files} files, {mib} MiB; NFS on {}; seed {:#x}", rig.service.nfs, setup.spec.seed));
    let lanes = rig.lanes().await?;
    let load = Load::start(lanes);
    tell(begun, &format!("{} clients write, read, rename, link, list and check every answer", setup.clients));
    let moved = tokio::select! {
        moved = moving(&mut rig, &load, begun) => moved,
        why = load.failed() => Err(anyhow!("a client was answered what its model does not predict: {why}")),
    };
    let story = match moved {
        Ok(story) => story,
        Err(e) => {
            let log = rig.service.log();
            rig.service.end().await;
            return Err(e.context(format!("the service's log is {}", log.display())));
        }
    };
    let ops = load.totals.ops.load(Ordering::Relaxed);
    let mut lanes = load.stop().await?;
    for lane in &mut lanes {
        lane.look_at_all().await?;
    }
    rig.service.stop().await?;
    tell(begun, &format!("{ops} operations of clients, all answered as predicted; service stopped in order"));
    let found = tokio::task::block_in_place(|| verify(&rig, &lanes, &story))?;
    report(&rig, &story, &found)
}

/// From the start of the move until some time after the switch.
async fn moving(rig: &mut Rig, load: &Load, begun: Instant) -> Result<Story> {
    sleep(Duration::from_secs(1)).await;
    let total = rig.source.sizes.max(1);
    let move_begun = Instant::now();
    let job = rig.start_move("new", TREE).await?;
    tell(begun, &format!("job {job}: moving old:/{TREE} to new:/{TREE}"));
    let mut told = Instant::now();
    let copied = loop {
        let done = rig.observer.seen().done_bytes;
        if done * 100 >= total * KILL_AT_PERCENT {
            break done;
        }
        if move_begun.elapsed() > MOVE_MAX {
            bail!("only {} % copied after {MOVE_MAX:?}", done * 100 / total);
        }
        progress(rig, load, begun, &mut told);
        sleep(Duration::from_millis(5)).await;
    };
    rig.service.kill().await?;
    let at = copied * 100 / total;
    tell(begun, &format!("SIGKILL of the service with {at} % copied ({} MiB)", copied >> 20));
    if at > KILL_UNTIL_PERCENT {
        bail!("the kill came too late to be in mid-copy ({at} %): give it more data with --mib");
    }
    let restart = rig.service.start().await?;
    tell(begun, &format!("started again: first answer after {} ms", restart.as_millis()));
    let completed = rig.wait_completed(job, MOVE_MAX);
    tokio::pin!(completed);
    loop {
        tokio::select! {
            done = &mut completed => break done?,
            () = sleep(Duration::from_millis(100)) => progress(rig, load, begun, &mut told),
        }
    }
    let moved_in = move_begun.elapsed();
    tell(begun, &format!("job {job} completed: the junction leads to new:/{TREE}; clients go on"));
    sleep(AFTER).await;
    Ok(Story { begun, copied_at_kill: copied, restart, moved_in, slow: load.slow.clone(), job })
}

/// Both sides against the models.
fn verify(rig: &Rig, lanes: &[Lane], story: &Story) -> Result<Found> {
    let switch = rig.switch(story.job)?;
    tell(story.begun, &format!("verifying: the old side at LSN {} of the switch, the new side at the end", switch.lsn));
    let old = rig.verify(&rig.side("old", TREE), lanes, Some(switch))?;
    let new = rig.verify(&rig.side("new", TREE), lanes, None)?;
    if !old.equal() {
        bail!("the old side is not the tree as it was at the switch:\n{}", old.report());
    }
    if !new.equal() {
        bail!("the new side is not the tree as the clients left it:\n{}", new.report());
    }
    let seen = rig.observer.seen();
    if !seen.done_again.is_empty() {
        bail!("{} finished copy steps ran again, the first of them {:?}", seen.done_again.len(), seen.done_again[0]);
    }
    Ok(new)
}

fn report(rig: &Rig, story: &Story, found: &Found) -> Result<()> {
    let switch = rig.switch(story.job)?;
    let twice = carried_out_twice(&rig.carried_out()?);
    let second = 1_000_000_000;
    let slow = story.slow.lock().unwrap_or_else(PoisonError::into_inner);
    let pause = slow.worst(switch.time - second / 4, switch.time + second / 4);
    let pause = pause.map_or_else(|| format!("under {:?}", Slow::FROM), |p| format!("{} ms", p.as_millis()));
    let seconds = story.moved_in.as_secs_f64();
    let mib = found.bytes >> 20;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = rig.observer.seen().done_bytes as f64 / f64::from(1 << 20) / seconds;
    tell(story.begun, "both sides are what they must be");
    println!();
    println!("  files                       {}", found.files);
    println!("  directories, others         {}, {}", found.dirs, found.others);
    println!("  bytes                       {} ({mib} MiB)", found.bytes);
    println!("  moved at                    {rate:.0} MiB/s ({seconds:.1} s, kill and restart included)");
    println!("  killed with                 {} MiB copied", story.copied_at_kill >> 20);
    println!("  bytes carried out twice     {twice} ({} MiB)", twice >> 20);
    println!("  restart to first answer     {} ms", story.restart.as_millis());
    println!("  worst pause at the switch   {pause}");
    println!("  whole demo                  {:.1} s", story.begun.elapsed().as_secs_f64());
    Ok(())
}

fn progress(rig: &Rig, load: &Load, begun: Instant, told: &mut Instant) {
    if told.elapsed() < Duration::from_secs(1) {
        return;
    }
    *told = Instant::now();
    let done = rig.observer.seen().done_bytes;
    let percent = (done * 100 / rig.source.sizes.max(1)).min(100);
    let ops = load.totals.ops.load(Ordering::Relaxed);
    tell(begun, &format!("  {percent:3} % copied, {} MiB; {ops} operations of clients", done >> 20));
}

fn tell(begun: Instant, what: &str) {
    println!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
}
