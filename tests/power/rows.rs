//! A disk that fails: writes or flushes that end in EIO or ENOSPC, once or from some moment on, under the service's own
//! directories or under a filer. The service ends (what fails is its own) or has its clients wait, or told; then the disk
//! is as a power cut leaves it, and works again: what was answered is there, and what was refused is not (C1, C11).

use crate::count;
use crate::disk::{Disk, Faults, Fs};
use crate::support::{Dir, client, exe, name};
use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};
use tain::demo::client::Client;
use tain::demo::content::{Rng, fill};
use tain::demo::nfs::{Call, Fh, How, SetAttrs, status};
use tain::demo::service::Service;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

const WRITERS: u64 = 4;
/// How many of the calls that are begun after the first error end before the row does.
const CALLS_AFTER: u64 = 12;
const LONG: Duration = Duration::from_secs(120);
const LEN: usize = 6000;

#[derive(Clone, Copy, Debug)]
enum Kind {
    WriteOnce,
    WriteFromThenOn,
    FlushOnce,
    FlushFromThenOn,
    FullOnce,
    FullFromThenOn,
    /// The file system is filled up by somebody else.
    Filled,
}

const KINDS: [Kind; 7] = [
    Kind::WriteOnce,
    Kind::WriteFromThenOn,
    Kind::FlushOnce,
    Kind::FlushFromThenOn,
    Kind::FullOnce,
    Kind::FullFromThenOn,
    Kind::Filled,
];

impl Kind {
    fn faults(self, after: u64) -> Faults {
        let none = Faults::default();
        match self {
            Self::WriteOnce => Faults { write: Some((after, 1)), ..none },
            Self::WriteFromThenOn => Faults { write: Some((after, u64::MAX)), ..none },
            Self::FlushOnce => Faults { flush: Some((after, 1)), ..none },
            Self::FlushFromThenOn => Faults { flush: Some((after, u64::MAX)), ..none },
            Self::FullOnce => Faults { write: Some((after, 1)), full: true, ..none },
            Self::FullFromThenOn => Faults { write: Some((after, u64::MAX)), full: true, ..none },
            Self::Filled => none,
        }
    }
}

fn fill_up(mnt: &Path) {
    let script = "room=$(df --output=avail -B1 \"$1\" | tail -1)
        fallocate -l $((room - 65536)) \"$1/filler-1\"
        dd if=/dev/zero of=\"$1/filler-2\" bs=4k 2>/dev/null
        sync -f \"$1\"; true";
    let done = std::process::Command::new("sh").args(["-euc", script, "fill"]).arg(mnt).output().unwrap();
    // Others may have been quicker to take what was left.
    assert!(mnt.join("filler-1").exists(), "{done:?}");
}

/// What clients were told.
pub enum Said {
    Made(u64),
    Written(u64),
    Refused(u64),
    Nothing,
}

#[derive(Default)]
pub struct Told {
    pub made: Vec<u64>,
    pub written: Vec<u64>,
    refused: Vec<u64>,
    calls: u64,
}

impl Told {
    pub fn take(&mut self, said: Said) {
        self.calls += 1;
        match said {
            Said::Made(n) => self.made.push(n),
            Said::Written(n) => self.written.push(n),
            Said::Refused(n) => self.refused.push(n),
            Said::Nothing => {}
        }
    }
}

#[derive(Debug, Default)]
struct Sums {
    rows: u64,
    fired: u64,
    stopped: u64,
    served_on: u64,
    answered: usize,
    refused: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_disk_that_fails_under_the_service_loses_nothing_that_was_answered() {
    rows(Fs::Ext4, "service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xfs_disk_that_fails_under_the_service_loses_nothing_that_was_answered() {
    rows(Fs::Xfs, "service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_disk_that_fails_under_a_filer_loses_nothing_that_was_answered() {
    rows(Fs::Ext4, "filer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xfs_disk_that_fails_under_a_filer_loses_nothing_that_was_answered() {
    rows(Fs::Xfs, "filer").await;
}

async fn rows(fs: Fs, under: &str) {
    let dir = Dir::new();
    let seed = std::env::var("TAIN_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(tain::demo::service::now);
    println!("seed {seed} (TAIN_TEST_SEED={seed} repeats when the disk fails)");
    let mut rng = Rng::new(seed);
    std::fs::create_dir(dir.path().join(under)).unwrap();
    let mut disk = Disk::new(fs, 320 << 20, &dir.path().join(under));
    let (mut service, client, root) = served(dir.path()).await;
    let mut sums = Sums::default();
    for round in 0..count("TAIN_ROWS", 2) {
        for kind in KINDS {
            let what = format!("{fs:?} under the {under}, {kind:?}, round {round}, seed {seed}");
            row(&mut disk, &mut service, (&client, &root), kind, &mut rng, (&mut sums, &what)).await;
            clear(&client, &root, &dir.path().join("filer/export")).await;
        }
    }
    service.stop().await.unwrap();
    println!("{fs:?} under the {under}: {sums:?}");
    assert!(sums.fired * 10 >= sums.rows * 8, "only {} of {} rows had an error", sums.fired, sums.rows);
    assert!(sums.answered > 100, "only {} answers were there to be lost", sums.answered);
}

/// A service with one filer and one junction. It takes checkpoints often: they are what syncs a filer.
pub async fn served(dir: &Path) -> (Service, Client, Fh) {
    for sub in ["service", "filer", "filer/export"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let mut service = Service::new(&exe(), &dir.join("service"), 1 << 20).unwrap();
    service.env("TAIN_CRASH", "NOWHERE:1".as_ref());
    service.start().await.unwrap();
    let url = format!("posix://{}", dir.join("filer").display());
    service.tain(&["filer", "add", "one", &url]).await.unwrap();
    service.tain(&["junction", "add", "/j", "one:/export"]).await.unwrap();
    let client = client(&service, 1);
    let root = client.mount(b"/j").await.unwrap().unwrap();
    client.nfs(&Call::GetAttr { node: root.clone() }).await.unwrap();
    (service, client, root)
}

async fn row(
    disk: &mut Disk,
    service: &mut Service,
    (client, root): (&Client, &Fh),
    kind: Kind,
    rng: &mut Rng,
    (sums, what): (&mut Sums, &str),
) {
    let first = sums.rows * 1_000_000;
    let (say, mut said) = unbounded_channel();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(writer_of(client.clone(), root.clone(), first + writer, say.clone())))
        .collect();
    disk.set_faults(kind.faults(rng.below(60)));
    if matches!(kind, Kind::Filled) {
        tokio::task::block_in_place(|| fill_up(&disk.mnt));
    }
    let fired = || u64::from(matches!(kind, Kind::Filled)) + disk.fired();
    let mut told = Told::default();
    let ended = until_it_has_failed(fired, service, &mut told, &mut said).await;
    for writer in &writers {
        writer.abort();
    }
    sums.rows += 1;
    sums.fired += u64::from(fired() > 0);
    match ended {
        Some(status) if status.code() == Some(70) => sums.stopped += 1,
        Some(status) => panic!("{what}: the service ended with {status}: {}", service.last_words()),
        None => {
            sums.served_on += 1;
            service.kill().await.unwrap();
        }
    }
    let kept = [0, 50, 100][rng.index(3)];
    tokio::task::block_in_place(|| disk.restore(kept, rng));
    for filler in ["filler-1", "filler-2"] {
        let _ = std::fs::remove_file(disk.mnt.join(filler));
    }
    service.start().await.unwrap_or_else(|e| panic!("{what}: {e}"));
    while let Ok(more) = said.try_recv() {
        told.take(more);
    }
    check(client, root, &told, what).await;
    sums.answered += told.made.len() + told.written.len();
    sums.refused += told.refused.len();
}

/// The next row needs the room: of a disk that is full of what was made before, nothing is asked any more.
async fn clear(client: &Client, root: &Fh, export: &Path) {
    let there: Vec<_> = std::fs::read_dir(export).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // The pen is the service's own.
    for name in there.into_iter().filter(|name| name != ".tain-pen") {
        let name = Bytes::copy_from_slice(name.as_encoded_bytes());
        let reply = client.nfs(&Call::Remove { dir: root.clone(), name: name.clone() }).await.unwrap();
        assert_eq!(reply.status, status::OK, "{name:?}");
    }
}

/// Until the service has ended, or some calls were made after the disk's first error. A filer's errors come when it
/// is synced, which checkpoints do.
async fn until_it_has_failed(
    fired: impl Fn() -> u64,
    service: &mut Service,
    told: &mut Told,
    said: &mut UnboundedReceiver<Said>,
) -> Option<std::process::ExitStatus> {
    let begun = Instant::now();
    let mut calls_at_error = None;
    loop {
        if let Some(status) = service.ended().unwrap() {
            return Some(status);
        }
        while let Ok(more) = said.try_recv() {
            told.take(more);
        }
        if fired() > 0 {
            let at = *calls_at_error.get_or_insert(told.calls);
            if told.calls >= at + CALLS_AFTER {
                return None;
            }
        }
        assert!(begun.elapsed() < LONG, "{} errors, {} calls: {}", fired(), told.calls, service.last_words());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Makes and writes files, one after the other; says what came of each call.
pub async fn writer_of(client: Client, root: Fh, first: u64, say: UnboundedSender<Said>) {
    for n in (first..).step_by(usize::try_from(WRITERS).unwrap()) {
        let how = How::Guarded(SetAttrs::mode(0o640));
        let create = Call::Create { dir: root.clone(), name: file(n), how };
        // Whoever does not answer in time has said nothing.
        let made = timeout(Duration::from_secs(1), client.once(&create)).await;
        let Ok(Ok(reply)) = made else {
            let _ = say.send(Said::Nothing);
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        match reply.status {
            status::OK => {}
            status::JUKEBOX => {
                let _ = say.send(Said::Nothing);
                sleep(Duration::from_millis(20)).await;
                continue;
            }
            _ => {
                let _ = say.send(Said::Refused(n));
                continue;
            }
        }
        let _ = say.send(Said::Made(n));
        let Some(node) = reply.fh else { continue };
        let write = Call::Write { node, offset: 0, stable: 2, data: text(n) };
        let written = timeout(Duration::from_secs(1), client.once(&write)).await;
        let whole = written.is_ok_and(|w| w.is_ok_and(|w| w.ok() && w.count as usize == LEN));
        let _ = say.send(if whole { Said::Written(n) } else { Said::Nothing });
    }
}

pub async fn check(client: &Client, root: &Fh, told: &Told, what: &str) {
    for n in &told.made {
        let found = client.nfs(&Call::Lookup { dir: root.clone(), name: file(*n) }).await.unwrap();
        assert_eq!(found.status, status::OK, "{what}: file {n} was answered, and is lost");
        assert_eq!(found.attr.map(|attr| attr.mode), Some(0o640), "{what}: file {n}");
        if told.written.contains(n) {
            let call = Call::Read { node: found.fh.unwrap(), offset: 0, count: u32::try_from(LEN).unwrap() };
            let read = client.nfs(&call).await.unwrap();
            assert!(read.data == text(*n), "{what}: the WRITE to file {n} was answered, and is lost");
        }
    }
    for n in &told.refused {
        let found = client.nfs(&Call::Lookup { dir: root.clone(), name: file(*n) }).await.unwrap();
        assert_eq!(found.status, status::NOENT, "{what}: the CREATE of file {n} was refused, and is there");
    }
}

fn file(n: u64) -> Bytes {
    name(&format!("file-{n}"))
}

fn text(n: u64) -> Bytes {
    let mut bytes = vec![0; LEN];
    fill(n, 0, &mut bytes);
    bytes.into()
}
