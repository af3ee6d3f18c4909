//! The service without memory: its address space is limited to what it has already, while clients write. It ends, or it
//! refuses; started anew without the limit it has everything that was answered (C1), and under the handles that were
//! given out (I6): what a killed service carried out stays on the filer, so of a record that was lost they alone tell.

use crate::support::{Served, client, name};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::time::{Duration, Instant};
use tain::demo::client::Client;
use tain::demo::content::fill;
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

const RUNS: u64 = 10;
const WRITERS: u64 = 24;
/// Of one writer in a run, so that disks do not fill up.
const FILES_MAX: u64 = 12;
const LEN: usize = 256 << 10;
/// A run that the service outlives ends then.
const LASTS: Duration = Duration::from_secs(2);

fn text(n: u64) -> Bytes {
    let mut bytes = vec![0; LEN];
    fill(n, 0, &mut bytes);
    bytes.into()
}

fn file(n: u64) -> Bytes {
    name(&format!("file-{n}"))
}

/// Says which files were made, with their handles, and then which were written, by what this client was told.
async fn write_files(client: Client, root: Fh, first: u64, say: UnboundedSender<(u64, Fh, bool)>) {
    for n in first..first + FILES_MAX {
        let how = How::Guarded(SetAttrs::mode(0o640));
        let create = Call::Create { dir: root.clone(), name: file(n), how };
        let made = timeout(Duration::from_secs(1), client.once(&create)).await;
        let node = made.ok().and_then(Result::ok).filter(|made| made.status == status::OK).and_then(|made| made.fh);
        let Some(node) = node else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = say.send((n, node.clone(), false));
        let write = Call::Write { node: node.clone(), offset: 0, stable: 2, data: text(n) };
        let told = timeout(Duration::from_secs(1), client.once(&write)).await;
        if told.is_ok_and(|told| told.is_ok_and(|reply| reply.ok() && reply.count as usize == LEN)) {
            let _ = say.send((n, node, true));
        }
    }
}

/// No more than it has, and a little.
fn starve(pid: u32, more: u64) {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split_whitespace().next().unwrap().parse().unwrap();
    let most = Some(pages * 4096 + more);
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    prlimit(Some(pid), Resource::As, Rlimit { current: most, maximum: most }).unwrap();
}

/// With a bug of `src/planted.rs`, or without.
pub async fn starved(bug: Option<char>) {
    let mut s = Served::planted(bug).await;
    let (mut died, mut outlived, mut answered) = (0, 0, 0);
    for run in 0..RUNS {
        let pid = s.service.pid().unwrap();
        let (say, mut said) = unbounded_channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let client = client(&s.service, 10 + u32::try_from(w).unwrap());
                tokio::spawn(write_files(client, s.root.clone(), run * 10_000 + w * 100, say.clone()))
            })
            .collect();
        // However busy the machine: something was answered, and more is under way.
        let (begun, due) = (Instant::now(), 8 + 8 * usize::try_from(run % 4).unwrap());
        while said.len() < due {
            assert!(begun.elapsed() < Duration::from_secs(60), "run {run}: only {} WRITEs were answered", said.len());
            sleep(Duration::from_millis(1)).await;
        }
        starve(pid, (run % 3) << 20);
        let begun = Instant::now();
        while s.service.ended().unwrap().is_none() && begun.elapsed() < LASTS {
            sleep(Duration::from_millis(10)).await;
        }
        match s.service.ended().unwrap() {
            Some(status) => {
                assert!(!status.success(), "run {run}: it ended as if all were well");
                died += 1;
            }
            None => {
                s.service.kill().await.unwrap();
                outlived += 1;
            }
        }
        for writer in &writers {
            writer.abort();
        }
        s.service.start().await.unwrap();
        let told: Vec<(u64, Fh, bool)> = std::iter::from_fn(|| said.try_recv().ok()).collect();
        for (n, node, written) in &told {
            let found = s.client.nfs(&Call::Lookup { dir: s.root.clone(), name: file(*n) }).await.unwrap();
            assert_eq!(found.status, status::OK, "run {run}: file {n} was answered, and is lost");
            assert!(found.fh.as_ref() == Some(node), "run {run}: file {n} has another handle than was answered");
            if !written {
                continue;
            }
            let read = Call::Read { node: node.clone(), offset: 0, count: u32::try_from(LEN).unwrap() };
            let read = s.client.nfs(&read).await.unwrap();
            assert!(read.data == text(*n), "run {run}: the WRITE to file {n} was answered, and is lost");
        }
        answered += told.iter().filter(|(_, _, written)| *written).count();
    }
    s.service.stop().await.unwrap();
    println!("{RUNS} runs: {died} ended for want of memory, {outlived} went on; {answered} WRITEs answered");
    assert!(died >= 3, "only {died} of {RUNS} runs wanted for memory");
    assert!(answered > 50, "only {answered} answers were there to be lost");
}
