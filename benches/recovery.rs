//! How long a crashed service takes until it serves clients again: `cargo bench --bench recovery`.
//!
//! A service is set up and stopped in order; then its journal gets a tail, as of operations that were durable when the
//! machine lost power before any of them reached the filer (the most there can be to do); then the real binary starts,
//! and the time is taken until a client has an answer from the junction. With `again`, everything of the service is put
//! back as it was before that start, and it starts once more: the filer then has it all, as after `kill -9`. (Not where
//! what was made is moved on: a service that was killed would have journaled each `Made` before that.)
//!
//! `TAIN_BENCH_DIR` chooses the disk (default: `target/`; where very many files were removed a moment ago ext4 takes long
//! to find a free inode, so let it be a fresh file system); `TAIN_BENCH_ONLY` one case out of `data`, `names`, `files`;
//! `TAIN_BENCH_FILES` the larger number of files of the last (default 1,000,000, which takes minutes).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a bench that fails stops, and times things; its numbers are small"
)]

use journal_format::event::{Event, Make, Remove, Rename, SetAttr, What, Write};
use journal_format::ids::{JunctionId, Kind, LocationId, Lsn, NodeId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tain::demo::client::{Client, Cred};
use tain::demo::nfs::{Call, status};
use tain::demo::service::Service;
use tain::env::RealDisk;
use tain::journal::{AppendMode, Journal, Options};

const SEGMENT: u64 = 64 << 20;
const WRITE: usize = 64 << 10;
/// Appends that wait for one flush.
const AT_ONCE: usize = 1000;
const FILE_DATA: u64 = 16 << 20;
const PER_DIR: u64 = 1000;
/// Making a large tree takes minutes on a busy machine.
const HANG: Duration = Duration::from_secs(3600);

/// A service with one junction, stopped in order.
struct Bench {
    dir: tempfile::TempDir,
    service: Service,
    junction: JunctionId,
    location: LocationId,
    root: NodeId,
    next_node: u64,
}

impl Bench {
    async fn new() -> Bench {
        let at = std::env::var_os("TAIN_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let dir = tempfile::tempdir_in(std::fs::canonicalize(at).unwrap()).unwrap();
        for sub in ["service", "filer"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let exe = Path::new(env!("CARGO_BIN_EXE_tain"));
        let mut service = Service::new(exe, &dir.path().join("service"), SEGMENT).unwrap();
        service.start().await.unwrap();
        let url = format!("posix://{}", dir.path().join("filer").display());
        service.tain(&["filer", "add", "one", &url]).await.unwrap();
        service.tain(&["junction", "add", "/a", "one:/"]).await.unwrap();
        answered(&service).await;
        service.stop().await.unwrap();
        let mut bench =
            Bench { dir, service, junction: JunctionId(0), location: LocationId(0), root: NodeId(0), next_node: 0 };
        let journal = bench.journal();
        let mut reader = journal.reader(Lsn(0)).unwrap();
        while let Some(record) = reader.next(Lsn(u64::MAX)).unwrap() {
            if let Event::JunctionAdded(added) = record.event {
                (bench.junction, bench.location, bench.root) = (added.junction, added.location.location, added.root);
                bench.next_node = added.root.0 + 1;
            }
        }
        bench
    }

    fn journal(&self) -> Journal {
        let (dir, hard_limit, disk) = (self.service.journal(), SEGMENT * 64, Arc::new(RealDisk));
        let append = AppendMode::Best;
        Journal::open(Options { dir, segment_size: SEGMENT, hard_limit, append, any_file_system: true, disk }).unwrap()
    }

    fn node(&mut self) -> NodeId {
        self.next_node += 1;
        NodeId(self.next_node - 1)
    }

    fn make(&mut self, dir: NodeId, name: String, what: What) -> (NodeId, Event) {
        let node = self.node();
        let make = Make {
            junction: self.junction,
            location: self.location,
            dir,
            name: name.into(),
            node,
            mode: if what == What::Dir { 0o755 } else { 0o644 },
            what,
            uid: 0,
            gid: 0,
            size: 0,
            atime: None,
            mtime: None,
            verifier: None,
            caller: Default::default(),
        };
        (node, Event::Make(make))
    }

    fn write(&self, node: NodeId, offset: u64) -> Event {
        let (junction, location, len) = (self.junction, self.location, WRITE as u32);
        Event::Write(Write { junction, location, node, offset, len, mode: None, caller: Default::default() })
    }

    /// Files that are made, with so much data in WRITEs.
    fn data(&mut self, bytes: u64, tail: &mut Tail) {
        let bulk: Arc<[u8]> = (0..WRITE).map(|at| (at * 7 % 251) as u8).collect();
        for file in 0..bytes / FILE_DATA {
            let (node, made) = self.make(self.root, format!("data-{file}-{}", self.next_node), What::File);
            tail.push((made, None));
            tail.extend(
                (0..FILE_DATA / WRITE as u64).map(|n| (self.write(node, n * WRITE as u64), Some(bulk.clone()))),
            );
        }
    }

    /// So many operations on names: each file is made, renamed, given a mode, and every other one removed.
    fn names(&mut self, operations: u64, tail: &mut Tail) {
        let (junction, location) = (self.junction, self.location);
        let (mut dir, mut in_dir) = (self.root, PER_DIR);
        let begun = tail.len() as u64;
        while (tail.len() as u64) < begun + operations {
            if in_dir == PER_DIR {
                let (node, made) = self.make(self.root, format!("dir-{}", self.next_node), What::Dir);
                tail.push((made, None));
                (dir, in_dir) = (node, 0);
            }
            in_dir += 1;
            let name = format!("file-{in_dir}");
            let new = format!("renamed-{in_dir}");
            let (node, made) = self.make(dir, name.clone(), What::File);
            tail.push((made, None));
            tail.push((
                Event::Rename(Rename {
                    junction,
                    location,
                    from_dir: dir,
                    from_name: name.into(),
                    to_dir: dir,
                    to_name: new.clone().into(),
                    node,
                    kind: Kind::File,
                    replaced: None,
                    caller: Default::default(),
                }),
                None,
            ));
            if in_dir.is_multiple_of(2) {
                let (name, kind, caller) = (new.into(), Kind::File, Default::default());
                let remove = Remove { junction, location, dir, name, node, kind, last: true, caller };
                tail.push((Event::Remove(remove), None));
            } else {
                let (mode, uid, gid, size, atime, mtime) = (Some(0o600), None, None, None, None, None);
                let caller = Default::default();
                let set = SetAttr { junction, location, node, mode, uid, gid, size, atime, mtime, caller };
                tail.push((Event::SetAttr(set), None));
            }
        }
    }

    /// So many files, in directories of a thousand.
    fn files(&mut self, files: u64, tail: &mut Tail) {
        let mut dir = self.root;
        for file in 0..files {
            if file.is_multiple_of(PER_DIR) {
                let (node, made) = self.make(self.root, format!("tree-{}", self.next_node), What::Dir);
                tail.push((made, None));
                dir = node;
            }
            tail.push(self.make(dir, format!("file-{file}"), What::File).1.into_tail());
        }
    }

    /// The tail goes into the journal, durable, and the journal is left as a crash leaves it. Its bytes.
    async fn crash_with(&self, tail: Tail) -> u64 {
        let journal = self.journal();
        let before = journal.end_lsn().0;
        for part in tail.chunks(AT_ONCE) {
            for (event, bulk) in part {
                journal.append_with(event, bulk.as_deref().unwrap_or_default(), |_| ()).await.unwrap();
            }
            journal.wait_durable(journal.end_lsn()).await.unwrap();
        }
        journal.end_lsn().0 - before
    }

    /// Until a client has an answer from the junction.
    async fn start(&mut self) -> Took {
        let begun = Instant::now();
        self.service.start().await.unwrap();
        answered(&self.service).await;
        let wall = begun.elapsed();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.service.pid().unwrap())).unwrap();
        // Behind the name in brackets: user and system time are the 12th and 13th, in ticks.
        let ticks: u64 =
            stat[stat.rfind(')').unwrap() + 2..].split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Took { wall, cpu: Duration::from_millis(ticks * 1000 / 100) }
    }

    fn keep(&self) -> PathBuf {
        let kept = self.dir.path().join("kept");
        for sub in ["journal", "state"] {
            copy(&self.service.dir.join(sub), &kept.join(sub));
        }
        kept
    }

    fn put_back(&self, kept: &Path) {
        for sub in ["journal", "state"] {
            std::fs::remove_dir_all(self.service.dir.join(sub)).unwrap();
            copy(&kept.join(sub), &self.service.dir.join(sub));
        }
        rustix::fs::sync();
    }
}

/// From the start to the first answer.
struct Took {
    wall: Duration,
    /// Processor time of the service in it.
    cpu: Duration,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6.2} s ({:.2} s of processor)", self.wall.as_secs_f64(), self.cpu.as_secs_f64())
    }
}

type Tail = Vec<(Event, Option<Arc<[u8]>>)>;

trait IntoTail {
    fn into_tail(self) -> (Event, Option<Arc<[u8]>>);
}

impl IntoTail for Event {
    fn into_tail(self) -> (Event, Option<Arc<[u8]>>) {
        (self, None)
    }
}

async fn answered(service: &Service) {
    let client = Client::new(service.nfs, Cred::own(), 1 << 24, HANG);
    let root = client.mount(b"/a").await.unwrap().unwrap();
    let reply = client.nfs(&Call::GetAttr { node: root }).await.unwrap();
    assert_eq!(reply.status, status::OK);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// One tail, from a crash to the first answer; with `again` as after `kill -9`, too.
async fn measure(name: &str, bench: &mut Bench, tail: Tail, again: bool) {
    let operations = tail.len();
    let bytes = bench.crash_with(tail).await;
    let kept = again.then(|| bench.keep());
    rustix::fs::sync();
    let lost = bench.start().await;
    bench.service.stop().await.unwrap();
    let mut line =
        format!("{name:<34} {operations:>8} operations {:>6} MiB | nothing carried out: {lost}", bytes >> 20,);
    if let Some(kept) = kept {
        bench.put_back(&kept);
        let killed = bench.start().await;
        bench.service.stop().await.unwrap();
        std::fs::remove_dir_all(kept).unwrap();
        line += &format!(", everything: {killed}");
    }
    println!("{line}");
    if let Ok(log) = std::fs::read_to_string(bench.service.log())
        && std::env::var_os("TAIN_BENCH_LOG").is_some()
    {
        println!("{log}");
    }
}

fn main() {
    let only = std::env::var("TAIN_BENCH_ONLY").ok();
    let wanted = |case: &str| only.as_ref().is_none_or(|only| only == case);
    let many: u64 = std::env::var("TAIN_BENCH_FILES").map_or(1_000_000, |n| n.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if wanted("data") {
            for _ in 0..3 {
                let (mut bench, mut tail) = (Bench::new().await, Tail::new());
                bench.data(1 << 30, &mut tail);
                measure("1 GiB of 64 KiB WRITEs", &mut bench, tail, true).await;
            }
        }
        if wanted("names") {
            let (mut bench, mut tail) = (Bench::new().await, Tail::new());
            bench.names(1_000_000, &mut tail);
            measure("a million operations on names", &mut bench, tail, false).await;
        }
        if wanted("files") {
            for files in [10_000, many] {
                let (mut bench, mut tail) = (Bench::new().await, Tail::new());
                bench.files(files, &mut tail);
                bench.crash_with(tail).await;
                bench.start().await;
                bench.service.stop().await.unwrap();
                for _ in 0..3 {
                    let mut tail = Tail::new();
                    bench.data(64 << 20, &mut tail);
                    bench.names(10_000, &mut tail);
                    measure(&format!("a tree of {files} files"), &mut bench, tail, false).await;
                }
            }
        }
    });
}
