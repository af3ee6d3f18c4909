//! Known traps (docs/testing.md) of the copier: clients that change what is being listed, just before its locks are had.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::replayer::tests::{JUNCTION, LONG, ROOT, World};
use journal_format::event::What;
use journal_format::ids::Kind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which lock of the directory is asked for: that of its `ListBegin`, then that of its page.
const PAGE: usize = 1;

#[derive(Clone, Copy)]
enum Deed {
    Remove,
    Lengthen,
    RenameOver,
}

/// A client that was in the directory when the copier asked for its lock; it ends, and then the copier has it.
struct Client {
    world: Arc<tokio::sync::Mutex<World>>,
    deed: Deed,
    file: NodeId,
    asked: AtomicUsize,
}

#[async_trait]
impl Directories for Client {
    async fn complete(&self, _junction: JunctionId, _dir: NodeId) -> Result<(), String> {
        Ok(())
    }

    async fn lock(&self, _dir: NodeId) -> Box<dyn Send> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == PAGE {
            let mut world = self.world.lock().await;
            match self.deed {
                Deed::Remove => world.remove(ROOT, "file", self.file).await,
                Deed::Lengthen => world.write(self.file, 5000, 2, 5000).await,
                Deed::RenameOver => {
                    let other = world.live.entry(ROOT, b"other").unwrap().unwrap().node;
                    world.rename(other, Kind::File, (ROOT, "other"), (ROOT, "file")).await;
                    let entry = world.live.entry(ROOT, b"file").unwrap().unwrap();
                    assert!(entry.cookie < entry.put_by, "it has its place in the listing that goes on");
                }
            }
        }
        Box::new(())
    }
}

/// The root of a secondary that has nothing is copied, and a client does this to a file in it.
async fn copy_while(deed: Deed) {
    let mut world = World::unlisted().await;
    let file = world.make(ROOT, "file", What::File).await;
    let other = world.make(ROOT, "other", What::File).await;
    for (fill, file) in [(1, file), (3, other)] {
        world.write(file, 0, fill, 5000).await;
    }
    let source = Arc::new(Source { location: world.source.clone(), live: world.live.clone() });
    let (ledger, live, projection) = (world.ledger.clone(), world.live.clone(), world.projection.clone());
    let (replayer, mut status) = (world.handle.clone(), world.handle.status.clone());
    let world = Arc::new(tokio::sync::Mutex::new(world));
    let directories = Arc::new(Client { world: world.clone(), deed, file, asked: AtomicUsize::new(0) });
    assert_eq!(projection.junction, JUNCTION);
    let copier = Copier { ledger, live, source, projection, directories: directories.clone(), replayer, job: JobId(1) };
    let running = tokio::spawn(copier.run());
    let all_there = |s: &Status| s.pending == Default::default() && directories.asked.load(Ordering::SeqCst) > PAGE;
    drop(tokio::time::timeout(LONG, status.wait_for(all_there)).await.expect("it is copied").unwrap());
    world.lock().await.assert_equal().await;
    running.abort();
}

#[tokio::test]
async fn a_name_that_was_removed_when_its_page_was_due_is_not_on_the_page() {
    copy_while(Deed::Remove).await;
}

/// It is absent when it grows, so the write is not replayed: only a size that is read later covers it.
#[tokio::test]
async fn a_file_that_grew_when_its_page_was_due_is_copied_to_its_end() {
    copy_while(Deed::Lengthen).await;
}

/// Its cookie is older than the listing, what it leads to is not: that is replayed, as a new name is.
#[tokio::test]
async fn a_name_that_was_renamed_over_when_its_page_was_due_is_copied_with_its_new_bytes() {
    copy_while(Deed::RenameOver).await;
}
