//! A secondary whose store was lost: what the journal says of it.

use super::*;
use crate::location::projection::Held;

/// Somebody deletes a file of the state directory while the service is down.
#[tokio::test]
async fn a_secondary_whose_store_was_lost_goes_on_by_what_the_journal_says() {
    let mut w = World::new().await;
    let dir = w.make(ROOT, "dir", What::Dir).await;
    let (file, gone) = (w.make(dir, "f", What::File).await, w.make(ROOT, "gone", What::File).await);
    w.write(file, 0, 1, 9000).await;
    w.write(gone, 0, 1, 9000).await;
    w.rename(file, Kind::File, (dir, "f"), (ROOT, "g")).await;
    w.remove(ROOT, "gone", gone).await;
    w.assert_equal().await;
    let cursor = w.handle.status.borrow().committed;
    w.task.abort();
    assert!((&mut w.task).await.unwrap_err().is_cancelled());

    let (filer, fence) = (w.dest.filer.clone(), w.fence.clone());
    let lost = objects(filer.as_ref(), Store::open_exact(&w.dir.path().join("again"), 1 << 20).unwrap()).await;
    let mut dest = Location::new(TO, ROOT, filer, lost);
    dest.fence = fence;
    w.dest = Arc::new(dest);
    let again = projection(&w.dest);
    let journal = &w.ledger.journal;
    assert!(!rebuild(&again, journal, JobId(1), ROOT, cursor, true).unwrap(), "what was dirty cannot be told");
    assert!(rebuild(&again, journal, JobId(1), ROOT, cursor, false).unwrap());
    assert_eq!(again.store.lsn(), cursor);
    let from = Source { location: w.source.clone(), live: w.live.clone() };
    let replayer = Replayer::new(w.ledger.clone(), w.dest.clone(), again, from, JobId(1), cursor);
    w.handle = replayer.handle();
    w.task = tokio::spawn(replayer.run());
    w.write(file, 100, 2, 9000).await;
    w.rename(dir, Kind::Dir, (ROOT, "dir"), (ROOT, "elsewhere")).await;
    let new = w.make(dir, "new", What::File).await;
    w.write(new, 0, 3, 100).await;
    w.assert_equal().await;
}

/// That it failed is recorded a moment later than it happened: what was made below it in between was not carried out.
#[tokio::test]
async fn what_lies_in_a_directory_that_failed_is_tried_again_when_the_store_was_lost() {
    let mut w = World::new().await;
    let failed = w.make(ROOT, "failed", What::Dir).await;
    let below = w.make(failed, "below", What::Dir).await;
    let (deep, beside) = (w.make(below, "f", What::File).await, w.make(ROOT, "g", What::File).await);
    w.assert_equal().await;
    w.task.abort();
    let said = CopyFailed { node: failed, path: b"failed".to_vec(), error: "its time".into(), fatal: false };
    let (job, location, ranges) = (JobId(1), TO, Vec::new());
    let event = CopyDone { job, location, ranges, files_made: 0, dirs_made: 0, failed: vec![said] };
    w.ledger.record(&Event::CopyDone(event)).await.unwrap();
    let filer = w.dest.filer.clone();
    let lost = objects(filer.as_ref(), Store::open_exact(&w.dir.path().join("again"), 1 << 20).unwrap()).await;
    let again = projection(&Arc::new(Location::new(TO, ROOT, filer, lost)));
    let journal = &w.ledger.journal;
    assert!(rebuild(&again, journal, JobId(1), ROOT, journal.durable_lsn(), false).unwrap());
    for node in [failed, below, deep] {
        assert_eq!(again.held(node).unwrap().map(|(_, held)| held), Some(Held::Incomplete), "{node}");
    }
    assert_eq!(again.held(beside).unwrap().map(|(_, held)| held), Some(Held::Present));
}
