//! Outages in which one name had many objects, and tries that fail when what they made has its names.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

impl World {
    /// What has been done since is in the dirty set, and the destination answers again.
    async fn back_from_an_outage(&self) {
        let from = self.ledger.state().locations[&TO].cursor;
        self.ledger.record(&Event::OutOfSync(OutOfSync { location: TO, from })).await.unwrap();
        self.handle.press();
        self.absorbed().await;
        self.fence.hang(false);
        self.until("in sync again", |w| !w.is_out_of_sync()).await;
        self.assert_equal().await;
    }
}

/// A program that saves its state every few seconds, while nobody can say what of it the destination has.
#[tokio::test]
async fn of_very_many_files_that_had_one_name_in_an_outage_the_last_one_has_it() {
    let mut w = World::new().await;
    w.fence.hang(true);
    for n in 0..10 {
        let file = w.make(ROOT, "tmp", What::File).await;
        w.write(file, 0, n, 100).await;
        w.rename(file, Kind::File, (ROOT, "tmp"), (ROOT, "status")).await;
    }
    w.back_from_an_outage().await;
}

/// A log that is rotated in an outage, and links that change places: a try to work it off fails when all have their names.
#[tokio::test]
async fn what_a_try_made_that_failed_is_known_to_the_next_one() {
    let to = Memory::default();
    let mut w = World::onto(to.clone()).await;
    w.fence.hang(true);
    for (name, rotated) in [("log", "log.1"), ("link", "link.1")] {
        for n in 1..3 {
            let what = if name == "log" { What::File } else { What::Symlink { target: vec![n; 3] } };
            let kind = what.kind();
            let node = w.make(ROOT, name, what).await;
            if kind == Kind::File {
                w.write(node, 0, n, 100).await;
            }
            if n == 1 {
                w.rename(node, kind, (ROOT, name), (ROOT, rotated)).await;
            }
        }
    }
    let fails = AtomicUsize::new(2);
    to.set_fault(Some(Box::new(move |op| {
        let fails = op == "sync" && fails.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        fails.then_some(Fault::Before(ErrorKind::NoSpace))
    })));
    w.back_from_an_outage().await;
    assert_eq!(w.projection.pending().unwrap().incomplete, 0);
}
