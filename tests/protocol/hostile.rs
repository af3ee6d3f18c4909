//! Hostile peers against the real binary: it lives, it does not grow, and others are served meanwhile as on a quiet day.
//! (Each single limit has its test in `src/gateway/tests/hostile.rs`.)

use crate::support::raw::Raw;
use crate::support::{Served, client, expect, name};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tain::demo::client::{Cred, call_bytes, record};
use tain::demo::nfs::{Call, Fh, How, NFS_PROGRAM, SetAttrs, VERSION, status};
use tokio::io::AsyncWriteExt as _;

/// Calls of one measurement, and how often both are measured: an attack that costs others anything costs it each time.
const CALLS: usize = 200;
const ROUNDS: usize = 6;
/// What the service's own memory may grow by: the sum of its budgets for requests and replies, and its caches.
const GROWTH_KIB: u64 = 640 << 10;

fn memory_kib(s: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.service.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The middle one of many GETATTRs, by a client that does nothing else.
async fn latency(s: &Served) -> Duration {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        s.ok(Call::GetAttr { node: s.root.clone() }).await;
        times.push(begun.elapsed());
    }
    times.sort();
    times[CALLS / 2]
}

/// An attack is begun, measured against, and ended, until it was seen not to matter.
async fn unmoved<T>(s: &Served, what: &str, begin: impl AsyncFn() -> T) {
    let before = memory_kib(s);
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let quiet = latency(s).await;
        let attack = begin().await;
        let hostile = latency(s).await;
        let grown = memory_kib(s).saturating_sub(before);
        assert!(grown < GROWTH_KIB, "{what}: grown by {grown} KiB");
        // Who comes now is served, too.
        let new = client(&s.service, 77);
        expect(&new, Call::GetAttr { node: s.root.clone() }, status::OK).await;
        drop(attack);
        seen.push((quiet, hostile));
        if hostile <= quiet * 2 {
            println!("{what}: {quiet:?} when quiet, {hostile:?} meanwhile, grown by {grown} KiB");
            return;
        }
    }
    panic!("{what}: (quiet, meanwhile) {seen:?}");
}

fn from(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 3, host)), 0)
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    usize::try_from(limit.maximum.unwrap_or(1 << 20)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_that_ask_nothing_or_half_a_record_do_not_hold_others_up() {
    let s = Served::new().await;
    let count = (descriptors() - 500).min(10_000);
    let opened = AtomicU64::new(0);
    unmoved(&s, "connections that ask nothing", async || {
        let mut held = Vec::with_capacity(count);
        for i in 0..count {
            let host = u8::try_from(i % 20 + 1).unwrap();
            // One may be turned away while all seats are busy closing.
            if let Ok(mut raw) = Raw::connect(from(host), s.service.nfs).await {
                if i % 2 == 0 {
                    let _ = raw.stream.write_all(&[0x80, 0]).await;
                }
                held.push(raw);
                opened.fetch_add(1, Ordering::Relaxed);
            }
        }
        held
    })
    .await;
    println!("{} connections", opened.load(Ordering::Relaxed));
    assert!(opened.load(Ordering::Relaxed) * 10 >= count as u64 * 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_never_read_cost_no_more_than_their_budget() {
    let s = Served::new().await;
    std::fs::write(s.export().join("large"), vec![7; 1 << 20]).unwrap();
    let node = s.ok(Call::Lookup { dir: s.root.clone(), name: name("large") }).await.fh.unwrap();
    let call = Call::Read { node, offset: 0, count: 1 << 20 };
    let hosts = AtomicU64::new(0);
    unmoved(&s, "readers that never read", async || {
        let mut held = Vec::new();
        let host = u8::try_from(hosts.fetch_add(1, Ordering::Relaxed) + 1).unwrap();
        for i in 0..40u32 {
            let raw = Raw::connect(from(host), s.service.nfs).await.unwrap();
            for j in 0..64u32 {
                let body = call_bytes(i * 64 + j, &Cred::own(), NFS_PROGRAM, VERSION, 6, &call.encode());
                // What the service does not take waits here, and in the kernel.
                let _ = raw.stream.try_write(&record(&body));
            }
            held.push(raw);
        }
        // Until it has taken what it takes of them.
        let (mut last, mut still) = (memory_kib(&s), 0);
        while still < 5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = memory_kib(&s);
            still = if now.abs_diff(last) < 1 << 10 { still + 1 } else { 0 };
            last = now;
        }
        held
    })
    .await;
}

/// A task that attacks until it is dropped.
struct Attack {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

fn attack<F: Future<Output = ()> + Send + 'static>(go: impl Fn(u64) -> F + Send + 'static) -> Attack {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut i = 0;
        while !stopped.load(Ordering::Relaxed) {
            go(i).await;
            i += 1;
            // Two cores are shared with those who are measured.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    Attack { stop, task }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_at_once_are_harmless_by_the_ten_thousands() {
    let s = Served::new().await;
    let server = s.service.nfs;
    let resets = std::env::var("TAIN_RESETS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000u64);
    let done = Arc::new(AtomicU64::new(0));
    let reset = move |done: Arc<AtomicU64>| async move {
        if let Ok(raw) = Raw::connect(from(9), server).await {
            raw.stream.set_zero_linger().unwrap();
            drop(raw);
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let counted = done.clone();
    unmoved(&s, "connections reset at once", async || {
        let done = counted.clone();
        attack(move |_| reset(done.clone()))
    })
    .await;
    while done.load(Ordering::Relaxed) < resets {
        reset(done.clone()).await;
    }
    s.ok(Call::GetAttr { node: s.root.clone() }).await;
    println!("{} resets", done.load(Ordering::Relaxed));
}

/// What others died of: marks and lengths that lie, fragments without end, groups by the billion, noise.
fn inputs(fh: &Fh) -> Vec<Bytes> {
    let good = call_bytes(7, &Cred { uid: 0, gid: 0, gids: vec![1] }, NFS_PROGRAM, VERSION, 1, &{
        Call::GetAttr { node: fh.clone() }.encode()
    });
    let mut out: Vec<Vec<u8>> = vec![
        vec![0xff; 4],
        vec![0x7f, 0xff, 0xff, 0xff],
        [0u8; 4].repeat(200_000),
        [&[0, 7, 0, 0][..], &vec![0; 7 << 16]].concat().repeat(8),
        record(&good).repeat(300),
    ];
    // Each word of a good call made to lie.
    for at in (0..good.len() - 4).step_by(4) {
        for word in [u32::MAX, u32::MAX - 15, (1 << 30) - 1] {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&word.to_be_bytes());
            out.push(record(&bad).to_vec());
        }
    }
    for cut in (0..good.len()).step_by(3) {
        out.push(record(&good[..cut]).to_vec());
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let mut noise = Vec::new();
        for _ in 0..64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise.extend(seed.to_be_bytes());
        }
        out.push(record(&noise).to_vec());
    }
    out.into_iter().map(Bytes::from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_lie_close_their_own_connection_at_most() {
    let s = Served::new().await;
    let (server, all) = (s.service.nfs, Arc::new(inputs(&s.root)));
    let sent = Arc::new(AtomicU64::new(0));
    let throw = move |all: Arc<Vec<Bytes>>, i: u64, sent: Arc<AtomicU64>| async move {
        let bytes = &all[usize::try_from(i).unwrap() % all.len()];
        if let Ok(mut raw) = Raw::connect(from(10), server).await {
            // It may be closed before all is written.
            let _ = tokio::time::timeout(Duration::from_secs(5), raw.stream.write_all(bytes)).await;
            sent.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (thrown, of) = (sent.clone(), all.clone());
    unmoved(&s, "bytes that lie", async || {
        let (all, sent) = (of.clone(), thrown.clone());
        attack(move |i| throw(all.clone(), i, sent.clone()))
    })
    .await;
    for i in 0..all.len() as u64 {
        throw(all.clone(), i, sent.clone()).await;
    }
    s.ok(Call::GetAttr { node: s.root.clone() }).await;
    println!("{} of {} inputs sent", sent.load(Ordering::Relaxed), all.len());
    assert!(sent.load(Ordering::Relaxed) >= all.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_service_lives_and_serves_on_when_it_has_some() {
    let s = Served::new().await;
    let pid = Pid::from_raw(i32::try_from(s.service.pid().unwrap()).unwrap());
    let dir = format!("/proc/{}/fd", s.service.pid().unwrap());
    let used = || std::fs::read_dir(&dir).unwrap().count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let old = prlimit(pid, Resource::Nofile, Rlimit { current: Some(used() + 8), maximum }).unwrap();
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(Raw::connect(from(11), s.service.nfs).await.unwrap());
    }
    // Whoever is there already goes on: what it holds open is enough for it.
    for _ in 0..20 {
        s.ok(Call::GetAttr { node: s.root.clone() }).await;
    }
    prlimit(pid, Resource::Nofile, Rlimit { current: old.current, maximum }).unwrap();
    let new = client(&s.service, 78);
    expect(&new, Call::GetAttr { node: s.root.clone() }, status::OK).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_with_any_bit_changed_or_of_any_other_length_is_bad() {
    let s = Served::new().await;
    let mut forged: Vec<Vec<u8>> = (0..s.root.len() * 8)
        .map(|bit| {
            let mut bytes = s.root.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
        .collect();
    forged.extend(
        (0..=64).filter(|len| *len != s.root.len()).map(|len| s.root.iter().copied().cycle().take(len).collect()),
    );
    for bytes in forged {
        s.status(Call::GetAttr { node: Bytes::from(bytes) }, status::BADHANDLE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_swapped_for_a_symlink_leads_nobody_out_of_the_export() {
    let s = Served::new().await;
    let outside = s.dir.path().join("outside");
    // One that is known as a directory before it is swapped, and one that is first seen as either.
    for dir in [&outside, &s.export().join("known"), &s.export().join("new")] {
        std::fs::create_dir(dir).unwrap();
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::write(dir.join("f"), if *dir == outside { "secret" } else { "inside" }).unwrap();
    }
    let pairs = ["known", "new"].map(|d| (s.export().join(d), s.export().join(format!("{d}.link"))));
    for (_, link) in &pairs {
        std::os::unix::fs::symlink(&outside, link).unwrap();
    }
    s.client.nfs(&Call::Lookup { dir: s.root.clone(), name: name("known") }).await.unwrap().fh.unwrap();
    // Somebody on the filer swaps the two of each pair as fast as he can.
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let swapping = std::thread::spawn(move || {
        let (cwd, mut swaps) = (rustix::fs::CWD, 0u64);
        while !stopped.load(Ordering::Relaxed) {
            for (a, b) in &pairs {
                rustix::fs::renameat_with(cwd, a, cwd, b, rustix::fs::RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
        }
        swaps
    });
    let mut reads = 0;
    for i in 0..150 {
        for d in ["known", "new"] {
            let mounted = s.client.mount(format!("/a/b/{d}").as_bytes()).await.unwrap().ok();
            let found = s.client.nfs(&Call::Lookup { dir: s.root.clone(), name: name(d) }).await.unwrap().fh;
            for dir in [mounted, found].into_iter().flatten() {
                reads += through_a_swapped(&s, dir, name(&format!("new{i}"))).await;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapping.join().unwrap();
    println!("{swaps} swaps, {reads} reads");
    assert!(swaps > 1000 && reads > 10);
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["f"], "nothing was made outside, and nothing taken");
    assert_eq!(std::fs::read(outside.join("f")).unwrap(), b"secret");
}

/// Makes `new` in `dir`, reads and writes it and `f`, and removes it again, as far as there is a way; how often it could
/// read.
async fn through_a_swapped(s: &Served, dir: Bytes, new: Bytes) -> u64 {
    let how = How::Unchecked(SetAttrs::mode(0o666));
    let made = s.client.nfs(&Call::Create { dir: dir.clone(), name: new.clone(), how }).await.unwrap();
    let f = s.client.nfs(&Call::Lookup { dir: dir.clone(), name: name("f") }).await.unwrap();
    let mut reads = 0;
    for node in [made.fh, f.fh].into_iter().flatten() {
        let read = s.client.nfs(&Call::Read { node: node.clone(), offset: 0, count: 99 }).await.unwrap();
        assert_ne!(read.data, "secret");
        reads += 1;
        let data = name("inside");
        s.client.nfs(&Call::Write { node, offset: 0, stable: 2, data }).await.unwrap();
    }
    s.client.nfs(&Call::Remove { dir, name: new }).await.unwrap();
    reads
}
