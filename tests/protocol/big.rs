//! Large directories: 100,000 entries, or as many as `TAIN_ENTRIES` says (a million was run).

use crate::support::{Served, name};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tain::demo::nfs::{Call, Entry, Fh, How, Reply, SetAttrs, status};

/// Bytes of a page that is asked for: some 200 entries.
const PAGE: u32 = 8 << 10;
/// For what hangs.
const LONG: Duration = Duration::from_secs(1800);
/// Growth of the service's own memory that is borne: the caches of index and filer have their sizes, whatever the
/// directory has.
const GROWTH_KIB: u64 = 128 << 10;

fn entries() -> usize {
    std::env::var("TAIN_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// The service's own memory.
fn memory_kib(s: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.service.pid().unwrap())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    field("RssAnon:") + field("RssShmem:")
}

async fn page(s: &Served, dir: &Fh, cookie: u64, plus: bool) -> (Reply, Duration) {
    let (dir, verf, begun) = (dir.clone(), [0; 8], Instant::now());
    let call = if plus {
        Call::ReadDirPlus { dir, cookie, verf, dircount: PAGE, maxcount: 4 * PAGE }
    } else {
        Call::ReadDir { dir, cookie, verf, count: PAGE }
    };
    (s.ok(call).await, begun.elapsed())
}

/// The middle one: a busy machine makes some pages slow, not most.
fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

/// A listing of the whole, during which names come and go.
struct Walk {
    seen: BTreeMap<Bytes, u64>,
    /// Where each page began, and how long it took.
    pages: Vec<(u64, Duration)>,
    gone: BTreeSet<Bytes>,
    new: BTreeSet<Bytes>,
}

fn original(i: usize) -> Bytes {
    name(&format!("an entry of some length {i:07}"))
}

/// After each page one that it told goes, one that may come yet goes, one is renamed, one comes.
async fn walk(s: &Served, dir: &Fh, count: usize) -> Walk {
    let (mut cookie, mut unseen) = (0, (0..count).map(original).collect::<BTreeSet<_>>());
    let mut walk = Walk { seen: BTreeMap::new(), pages: vec![], gone: BTreeSet::new(), new: BTreeSet::new() };
    loop {
        let (reply, took) = page(s, dir, cookie, false).await;
        walk.pages.push((cookie, took));
        for Entry { name, cookie: at, .. } in &reply.entries {
            assert!(*at > cookie, "cookies grow");
            cookie = *at;
            unseen.remove(name);
            assert!(walk.seen.insert(name.clone(), *at).is_none(), "{name:?} came twice");
            assert!(!walk.gone.contains(name), "{name:?} was gone");
        }
        if reply.eof {
            return walk;
        }
        assert!(!reply.entries.is_empty(), "a page without entries that is not the end");
        let n = walk.pages.len();
        if n > 200 || unseen.len() < 100 {
            continue;
        }
        s.ok(Call::Remove { dir: dir.clone(), name: reply.entries.last().unwrap().name.clone() }).await;
        let late = unseen.iter().nth_back(n % 50).unwrap().clone();
        s.ok(Call::Remove { dir: dir.clone(), name: late.clone() }).await;
        unseen.remove(&late);
        walk.gone.insert(late);
        let (from, to) = (unseen.iter().nth(n % 50).unwrap().clone(), name(&format!("renamed {n}")));
        s.ok(Call::Rename { from: dir.clone(), name: from.clone(), to: dir.clone(), new: to.clone() }).await;
        unseen.remove(&from);
        walk.gone.insert(from);
        let come = name(&format!("new {n}"));
        let how = How::Guarded(SetAttrs::mode(0o600));
        s.ok(Call::Create { dir: dir.clone(), name: come.clone(), how }).await;
        walk.new.extend([to, come]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_is_listed_whole_while_names_come_and_go_and_its_last_page_is_as_quick_as_its_first() {
    let s = Served::new().await;
    let count = entries();
    std::fs::create_dir(s.export().join("large")).unwrap();
    for i in 0..count {
        let n = String::from_utf8(original(i).to_vec()).unwrap();
        std::fs::File::create(s.export().join("large").join(n)).unwrap();
    }
    let dir = s.ok(Call::Lookup { dir: s.root.clone(), name: name("large") }).await.fh.unwrap();
    let before = memory_kib(&s);
    // The first listing gives every name its number; the client waits, as on any hard mount.
    let begun = Instant::now();
    let first = Call::ReadDir { dir: dir.clone(), cookie: 0, verf: [0; 8], count: PAGE };
    while s.client.once(&first).await.unwrap().status == status::JUKEBOX {
        assert!(begun.elapsed() < LONG, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (met, grown) = (begun.elapsed(), memory_kib(&s).saturating_sub(before));
    let walk = walk(&s, &dir, count).await;
    assert!(walk.gone.len() >= 100 && walk.new.len() >= 100);
    let due: BTreeSet<Bytes> = (0..count).map(original).chain([name("."), name("..")]).chain(walk.new).collect();
    let missing: Vec<_> = due.iter().filter(|n| !walk.seen.contains_key(*n) && !walk.gone.contains(*n)).collect();
    assert!(missing.is_empty(), "{} are missing, {:?} first", missing.len(), missing.first());
    assert!(walk.seen.keys().all(|n| due.contains(n)));

    let times: Vec<Duration> = walk.pages.iter().map(|p| p.1).collect();
    let quarter = times.len() / 4;
    let (first, last) = (median(&times[..quarter]), median(&times[times.len() - quarter..]));
    let (mut early, mut late) = (vec![], vec![]);
    for (at, times) in [(0, &mut early), (walk.pages.len() - 22, &mut late)] {
        for (cookie, _) in &walk.pages[at..at + 21] {
            let (reply, took) = page(&s, &dir, *cookie, true).await;
            times.push(took);
            assert!(
                !reply.entries.is_empty() && reply.entries.iter().all(|e| walk.seen.get(&e.name) == Some(&e.cookie))
            );
            assert!(reply.entries.iter().filter(|e| e.name != name("..")).all(|e| e.attr.is_some() && e.fh.is_some()));
        }
    }
    let (early, late) = (median(&early), median(&late));
    println!(
        "{count} entries, met in {met:?} (+ {} MiB), {} pages; READDIR {first:?} then {last:?}, READDIRPLUS {early:?} \
         then {late:?}",
        grown >> 10,
        times.len()
    );
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    assert!(last < first * 4, "READDIR {first:?} became {last:?}");
    assert!(late < early * 4, "READDIRPLUS {early:?} became {late:?}");
}
