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
        special_files: false,
        holes: false,
        xattrs: false,
        open_by_identity: false,
        chown: false,
    };
    contract::run(|| ground(Options { capabilities, ..Options::default() })).await;
}

const ATTRS: MakeAttrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0 };

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
