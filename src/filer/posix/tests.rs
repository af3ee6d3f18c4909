//! The contract over a temporary directory, and what only this kind does.

use crate::filer::contract::{self, Ground};
use crate::filer::{registry, *};
use std::path::Path;

fn url(path: &Path) -> String {
    format!("posix://{}", path.display())
}

async fn location(path: &Path) -> Arc<dyn CoreFiler> {
    let probe = registry::probe(&url(path)).await.unwrap();
    registry::open(&url(path), &probe.root, &[], None).await.unwrap()
}

/// A new location that is a subdirectory of its export, in a directory of its own.
fn ground() -> Ground {
    let temp = tempfile::tempdir().unwrap();
    let export = temp.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let subdir = [b"a".to_vec(), b"b".to_vec()];
    let filer = std::thread::scope(|scope| {
        let open = async {
            let probe = registry::probe(&url(&export)).await.unwrap();
            registry::create_subdir(&url(&export), &probe.root, &subdir).await.unwrap();
            registry::open(&url(&export), &probe.root, &subdir, None).await.unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        scope.spawn(move || runtime.block_on(open)).join().unwrap()
    });
    let at = export.join("a/b");
    let replace_root = Box::new(move || {
        std::fs::rename(&at, at.with_extension("old")).unwrap();
        std::fs::create_dir(&at).unwrap();
    });
    Ground { filer, replace_root, keep: Box::new(temp) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_passes_the_contract() {
    contract::run(ground).await;
}
