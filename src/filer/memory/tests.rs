//! The contract, and what only this kind does.

use super::*;
use crate::filer::contract::{self, Ground};

fn ground(options: Options) -> Ground {
    let memory = Memory::new(Options {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..options
    });
    let other = memory.clone();
    Ground { filer: Arc::new(memory), replace_root: Box::new(move || other.replace_root()), keep: Box::new(()) }
}

#[tokio::test]
async fn it_passes_the_contract() {
    contract::run(|| ground(Options::default())).await;
}

#[tokio::test]
async fn it_passes_the_contract_without_any_capability() {
    let capabilities = Capabilities {
        hard_links: false,
        nameless: false,
        special_files: false,
        holes: false,
        xattrs: false,
        acls: false,
        open_by_identity: false,
        lasting_positions: false,
        chown: false,
    };
    contract::run(|| ground(Options { capabilities, ..Options::default() })).await;
}

const ATTRS: MakeAttrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0, inherits: false };

#[tokio::test]
async fn a_crash_leaves_what_was_synced_and_nothing_else() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    let kept = f.make(&root, b"kept", &What::File, ATTRS).await.unwrap();
    f.write(&kept, 0, Bytes::from_static(b"old")).await.unwrap();
    let removed = f.make(&root, b"removed", &What::File, ATTRS).await.unwrap();
    f.sync().await.unwrap();
    f.write(&kept, 0, Bytes::from_static(b"new")).await.unwrap();
    f.remove(&root, b"removed").await.unwrap();
    let lost = f.make(&root, b"lost", &What::File, ATTRS).await.unwrap();
    f.crash();
    assert_eq!(f.read(&kept, 0, 9).await.unwrap(), &b"old"[..]);
    assert_eq!(f.lookup(&root, b"removed").await.unwrap().id, removed.id);
    assert_eq!(f.stat(&lost).await.unwrap_err().kind, ErrorKind::Stale);
    assert_eq!(f.list(&root, 0, 10).await.unwrap().names, [b"kept".to_vec(), b"removed".to_vec()]);
    let next = f.make(&root, b"lost", &What::File, ATTRS).await.unwrap();
    assert_ne!(next.id, lost.id, "a number is never used twice");
}

#[tokio::test]
async fn a_file_without_a_name_lasts_when_its_first_name_does() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    let named = f.make_nameless(&root, ATTRS).await.unwrap();
    f.write(&named, 0, Bytes::from_static(b"early")).await.unwrap();
    f.sync().await.unwrap();
    f.link(&named, &root, b"named").await.unwrap();
    f.sync().await.unwrap();
    let lost = f.make_nameless(&root, ATTRS).await.unwrap();
    f.link(&lost, &root, b"lost").await.unwrap();
    let without = f.make_nameless(&root, ATTRS).await.unwrap();
    f.crash();
    assert_eq!(f.read(&named, 0, 9).await.unwrap(), &b"early"[..]);
    assert_eq!(f.stat(&lost).await.unwrap_err().kind, ErrorKind::Stale);
    assert_eq!(f.stat(&without).await.unwrap_err().kind, ErrorKind::Stale);
    let killed = f.make_nameless(&root, ATTRS).await.unwrap();
    f.kill();
    assert_eq!(f.link(&killed, &root, b"late").await.unwrap_err().kind, ErrorKind::Stale);
}

#[tokio::test]
async fn a_fault_refuses_a_call_or_loses_its_answer() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    f.set_fault(Some(Box::new(|op| (op == "make").then_some(Fault::Before(ErrorKind::NoSpace)))));
    assert_eq!(f.make(&root, b"a", &What::File, ATTRS).await.err().map(|e| e.kind), Some(ErrorKind::NoSpace));
    assert_eq!(f.lookup(&root, b"a").await.err().map(|e| e.kind), Some(ErrorKind::NotFound));
    f.set_fault(Some(Box::new(|op| (op == "make").then_some(Fault::After(ErrorKind::Unknown)))));
    assert_eq!(f.make(&root, b"a", &What::File, ATTRS).await.err().map(|e| e.kind), Some(ErrorKind::Unknown));
    f.set_fault(None);
    f.lookup(&root, b"a").await.unwrap();
}

#[tokio::test]
async fn a_full_filer_says_how_much_of_a_write_it_took() {
    let f = Memory::new(Options { space: 8192, ..Options::default() });
    let root = f.root().await.unwrap();
    let a = f.make(&root, b"a", &What::File, ATTRS).await.unwrap();
    let e = f.write(&a, 0, vec![1; 10_000].into()).await.unwrap_err();
    assert_eq!((e.kind, e.done, f.stat(&a).await.unwrap().size), (ErrorKind::NoSpace, 8192, 8192));
}

#[tokio::test]
async fn the_same_calls_give_the_same_filer() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let f = Memory::default();
        let root = f.root().await.unwrap();
        for n in 0..20u32 {
            let name = (n % 7).to_string().into_bytes();
            let made = f.make(&root, &name, &What::File, ATTRS).await;
            if made.is_err() {
                f.remove(&root, &name).await.unwrap();
            }
        }
        let page = f.list(&root, 0, 100).await.unwrap();
        let mut stats = Vec::new();
        for name in &page.names {
            let object = f.lookup(&root, name).await.unwrap();
            stats.push((object.id.clone(), f.stat(&object).await.unwrap()));
        }
        seen.push((page.names, stats));
    }
    assert_eq!(seen[0], seen[1]);
}

/// Keeps those changes whose number, counted from 0, is in `kept`.
fn keeping(kept: &[usize]) -> impl FnMut() -> bool {
    let mut number = 0;
    move || {
        number += 1;
        kept.contains(&(number - 1))
    }
}

#[tokio::test]
async fn a_power_cut_keeps_any_subset_of_what_was_not_synced() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    let a = f.make(&root, b"a", &What::File, ATTRS).await.unwrap();
    f.write(&a, 0, vec![1; 4096].into()).await.unwrap();
    f.sync().await.unwrap();
    f.write(&a, 4096, vec![2; 4096].into()).await.unwrap(); // 0: the page, 1: the size, 2: the time
    f.make(&root, b"lost", &What::File, ATTRS).await.unwrap(); // 3
    f.make(&root, b"kept", &What::File, ATTRS).await.unwrap(); // 4
    assert_eq!(f.power_cut(keeping(&[1, 4])), 5);
    let root = f.root().await.unwrap();
    assert_eq!(f.list(&root, 0, 9).await.unwrap().names, [b"a".to_vec(), b"kept".to_vec()]);
    let a = f.lookup(&root, b"a").await.unwrap();
    assert_eq!(f.read(&a, 4095, 9000).await.unwrap(), [&[1][..], &[0; 4096]].concat(), "the size without the bytes");
    f.write(&a, 8192, vec![3; 100].into()).await.unwrap();
    f.power_cut(keeping(&[0]));
    f.set(&a, Changes { size: Some(9000), ..Changes::default() }).await.unwrap();
    assert_eq!(f.read(&a, 8192, 100).await.unwrap(), [0; 100][..], "bytes that no size reached do not come back");
}

#[tokio::test]
async fn a_power_cut_destroys_nothing_that_still_has_a_name() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    let a = f.make(&root, b"a", &What::File, ATTRS).await.unwrap();
    f.write(&a, 0, Bytes::from_static(b"bytes")).await.unwrap();
    f.make(&root, b"c", &What::File, ATTRS).await.unwrap();
    f.sync().await.unwrap();
    f.link(&a, &root, b"b").await.unwrap();
    f.rename(&root, b"c", &root, b"a").await.unwrap();
    f.power_cut(keeping(&[1]));
    let root = f.root().await.unwrap();
    let a = f.lookup(&root, b"a").await.unwrap();
    assert_eq!(f.read(&a, 0, 9).await.unwrap(), &b"bytes"[..], "the rename came after the link, without it it is lost");
}

#[tokio::test]
async fn bytes_that_a_failed_sync_lost_are_seen_until_the_power_goes() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    let a = f.make(&root, b"a", &What::File, ATTRS).await.unwrap();
    f.write(&a, 0, Bytes::from_static(b"lost")).await.unwrap();
    f.set_fault(Some(Box::new(|op| (op == "sync").then_some(Fault::Lost(ErrorKind::Io)))));
    assert_eq!(f.sync().await.unwrap_err().kind, ErrorKind::Io);
    f.set_fault(None);
    f.sync().await.unwrap();
    assert_eq!(f.read(&a, 0, 9).await.unwrap(), &b"lost"[..]);
    f.crash();
    let a = f.lookup(&f.root().await.unwrap(), b"a").await.unwrap();
    assert_eq!(f.read(&a, 0, 9).await.unwrap(), &[0; 4][..]);
}

#[tokio::test]
async fn after_a_sync_both_images_are_the_same_whatever_was_done() {
    let f = Memory::default();
    let root = f.root().await.unwrap();
    let mut random = 7u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..60 {
        for _ in 0..20 {
            let (name, other) = (next(5).to_string().into_bytes(), next(5).to_string().into_bytes());
            let (at, len) = (next(20_000), next(9000));
            let object = f.lookup(&root, &name).await;
            let _refused = match (next(7), object) {
                (0, _) => f.make(&root, &name, &What::File, ATTRS).await.map(drop),
                (1, _) => f.remove(&root, &name).await,
                (2, _) => f.rename(&root, &name, &root, &other).await,
                (3, Ok(object)) => f.link(&object, &root, &other).await,
                (4, Ok(object)) => f.set(&object, Changes { size: Some(at), ..Changes::default() }).await,
                (5, Ok(object)) => f.punch(&object, at, len).await,
                (_, Ok(object)) => {
                    f.write(&object, at, vec![u8::try_from(next(255)).unwrap() + 1; len as usize].into()).await
                }
                _ => Ok(()),
            };
        }
        f.sync().await.unwrap();
        assert_eq!(f.tree(), f.durable_tree());
    }
}
