//! Known traps (docs/testing.md) of primaries and of the journal's end.

use super::*;
use crate::filer::AclKind;
use crate::location::tests::named_user;

const SEGMENT: u64 = 1 << 20;

impl World {
    async fn find(&self, at: NodeRef, name: &str) -> NodeRef {
        self.core.volume.lookup(&call(), at, name.as_bytes()).await.map_err(|r| r.status).unwrap().node
    }

    async fn write(&self, file: NodeRef, bytes: Bytes) -> Result<(), NfsStatus> {
        self.core.volume.write(&call(), file, 0, bytes).await.map(drop).map_err(|r| r.status)
    }

    fn cursor(&self, at: NodeRef) -> Lsn {
        let state = self.core.ledger.state();
        state.locations[&state.junctions[&at.junction].primary].cursor
    }

    /// Until everything of now is durable on the junction's primary.
    async fn settle(&self, at: NodeRef, checkpoints: &mut Checkpoints) {
        let (end, begun) = (self.core.ledger.journal.end_lsn(), Instant::now());
        while self.cursor(at) < end {
            assert!(begun.elapsed() < HANG, "its cursor stays at {}, before {end}", self.cursor(at));
            checkpoints.take(&self.core).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The power cut takes the rename back: only its identity tells that the object under the name is to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_rename_replaced_is_known_until_the_rename_is_durable() {
    let mut w = World::new(&["a"]).await;
    let a = w.junction("a", 1, b"").await;
    w.is_open(a).await;
    let mut checkpoints = Checkpoints::default();
    for (name, text) in [("old", "what is replaced"), ("new", "what replaces it")] {
        w.create(a, name).await.unwrap();
        w.write(w.find(a, name).await, Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    w.settle(a, &mut checkpoints).await;
    w.core.volume.rename(&call(), a, b"new", a, b"old").await.map_err(|r| r.status).unwrap();
    let filer = &w.filer("a").filer;
    filer.set_fault(Some(Box::new(|op| (op == "sync").then_some(Fault::Before(ErrorKind::Io)))));
    filer.crash();
    checkpoints.take(&w.core).await.unwrap();
    filer.set_fault(None);
    w.settle(a, &mut checkpoints).await;
    filer.crash();
    let root = filer.root().await.unwrap();
    let mut names = filer.list(&root, 0, 9).await.unwrap().names;
    names.sort();
    assert_eq!(names, [b"file".to_vec(), b"old".to_vec()]);
    assert_eq!(content(w.filer("a"), "old").await, b"what replaces it");
    w.stop().await;
}

/// What was written since the last sync can be read, and is gone for good: no later sync brings it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_whose_sync_failed_is_written_again_before_its_cursor_moves() {
    let mut w = World::new(&["a"]).await;
    let a = w.junction("a", 1, b"").await;
    w.is_open(a).await;
    let mut checkpoints = Checkpoints::default();
    w.create(a, "f").await.unwrap();
    let file = w.find(a, "f").await;
    w.write(file, Bytes::from_static(b"one")).await.unwrap();
    w.settle(a, &mut checkpoints).await;
    w.write(file, Bytes::from_static(b"two")).await.unwrap();
    let filer = &w.filer("a").filer;
    filer.set_fault(Some(Box::new(|op| (op == "sync").then_some(Fault::Lost(ErrorKind::Io)))));
    checkpoints.take(&w.core).await.unwrap();
    filer.set_fault(None);
    w.settle(a, &mut checkpoints).await;
    filer.crash();
    assert_eq!(content(w.filer("a"), "f").await, b"two");
    w.stop().await;
}

/// An operation is under way, so that the switch cannot drain; then the journal fills up. The operation ends and the
/// switch is made in the reserve, and nobody waits for another: not the drain for room, nor the room for the drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_that_is_full_while_a_switch_drains_lets_the_operation_end_and_the_switch_be_made() {
    let mut w = World::sized(&["a", "b", "c"], SEGMENT, 8 * SEGMENT).await;
    w.core.ledger.journal.set_soft_limit(u64::MAX); // nothing lets go: it is the reserve that is looked at
    let (a, c) = (w.junction("a", 1, b"moves").await, w.junction("c", 2, b"fills").await);
    w.is_open(a).await;
    w.is_open(c).await;
    let (file, filling) = (w.find(a, "file").await, w.find(c, "file").await);
    // All is copied, and the switch is put off: first by the destination, then by an operation that stays under way,
    // since nobody knows what comes of it.
    w.filer("b").filer.set_fault(Some(Box::new(|op| (op == "remove_pen").then_some(Fault::Before(ErrorKind::Io)))));
    let job = w.start_move("a", "b").await;
    let was_put_off = |w: &World| w.job(job).0 == JobState::Synchronized && w.job(job).1.contains("put off");
    w.until(|| was_put_off(&w), || format!("the switch is not put off: {:?}", w.job(job))).await;
    w.filer("a").filer.set_fault(Some(Box::new(|op| (op == "write").then_some(Fault::Before(ErrorKind::Unknown)))));
    assert_eq!(w.write(file, Bytes::from_static(b"MOVES")).await, Err(NfsStatus::Jukebox));
    w.filer("b").filer.set_fault(None);
    let waits = |w: &World| was_put_off(w) && w.job(job).1.contains("hold");
    w.until(|| waits(&w), || format!("the switch does not wait for the operation: {:?}", w.job(job))).await;

    let journal = w.core.ledger.journal.clone();
    let bytes = Bytes::from(vec![7; 64 << 10]);
    let begun = Instant::now();
    while w.write(filling, bytes.clone()).await != Err(NfsStatus::Jukebox) {
        assert!(begun.elapsed() < HANG, "the journal does not fill up: {} bytes", journal.used_bytes());
    }
    assert!(journal.is_full());
    // Now it is refused for good: its `Failed` must have room, and what the switch says.
    w.filer("a").filer.set_fault(Some(Box::new(|op| (op == "write").then_some(Fault::Before(ErrorKind::NoSpace)))));
    w.reaches(job, JobState::Completed).await;
    assert!(journal.is_full(), "the reserve was not what it had");
    assert_eq!(content(w.filer("b"), "file").await, b"moves");
    // And by itself all goes on when there is room.
    journal.set_soft_limit(2 * SEGMENT);
    let mut checkpoints = Checkpoints::default();
    let begun = Instant::now();
    while w.write(filling, bytes.clone()).await.is_err() {
        assert!(begun.elapsed() < HANG, "clients do not go on: {} bytes", journal.used_bytes());
        checkpoints.take(&w.core).await.unwrap();
    }
    w.create(a, "after").await.unwrap();
    w.stop().await;
}

/// They decide who may do what, and with them gone the mode's group bits, which were their mask, would be the group's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_root_has_its_acls_behind_a_switch_and_none_of_the_new_side() {
    let w = World::new(&["a", "b"]).await;
    let a = w.junction("a", 1, b"of a").await;
    let (from, to) = (&w.filer("a").filer, &w.filer("b").filer);
    let (here, there) = (from.root().await.unwrap(), to.root().await.unwrap());
    let (access, default) = (AclKind::Access.xattr().as_bytes(), AclKind::Default.xattr().as_bytes());
    from.set_xattr(&here, access, &named_user(7, 5)).await.unwrap();
    to.set_xattr(&there, default, &named_user(7, 7)).await.unwrap();
    w.is_open(a).await;
    let job = w.start_move("a", "b").await;
    w.reaches(job, JobState::Completed).await;
    assert_eq!(to.xattrs(&there).await.unwrap(), [(access.to_vec(), named_user(7, 5))]);
    assert_eq!(to.stat(&there).await.unwrap().mode, from.stat(&here).await.unwrap().mode);
}
