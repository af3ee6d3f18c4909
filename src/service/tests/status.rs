//! What an operator is told, and may do, of a journal that somebody keeps.

use super::super::port::ServicePort;
use super::*;
use crate::control::Port;
use crate::gateway::{self, Gateway};

fn port(w: &World) -> ServicePort {
    let identity = gateway::Identity { handle_key: [1; 32], journal_id: [2; 16] };
    let gateway = Gateway::new(w.core.volume.clone(), identity, Drc::default(), gateway::Limits::default());
    ServicePort {
        core: w.core.clone(),
        board: Arc::default(),
        stuck: Arc::default(),
        ids: Arc::new(NodeIds::after(NodeId(1000))),
        nfs: ([127, 0, 0, 1], 2049).into(),
        timing: gateway.timing(),
        locks: gateway.locks(),
        unregistered: Vec::new(),
        hard_limit: 12 * SEGMENT,
        own_dirs: Vec::new(),
    }
}

/// Its cursor lies where the journal was recycled long ago, and nothing will ever move it.
#[tokio::test]
async fn a_junction_whose_filer_is_gone_for_good_can_be_removed_while_it_lacks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let (port, core, gone, mut checkpoints) = (port(&w), w.core.clone(), JunctionId(HUNG), Checkpoints::default());
    core.locations.remove(LocationId(HUNG));
    w.go_on(&mut checkpoints).await;
    let is_recycled = |lsn| core.ledger.journal.start_lsn() > lsn;
    assert!(is_recycled(core.ledger.state().locations[&LocationId(HUNG)].cursor));
    drop(port.rest(gone).await.unwrap());
    let (op, event) = w.make(HUNG, "only in the journal").await;
    let made = op.at.lsn;
    w.done(op, &event);
    w.go_on(&mut checkpoints).await;
    assert!(is_recycled(made));
    let why = port.rest(gone).await.err().unwrap();
    assert!(why.contains("lacks operations"), "{why}");
}

/// A pipe that nobody reads: who opens it to write waits, as on a mount whose server is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_hangs_is_told_at_once_and_named_when_it_has_filled_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = World::begin(dir.path(), &[Memory::default(), Memory::default()]).await;
    let (port, journal, mut checkpoints) = (port(&w), w.core.ledger.journal.clone(), Checkpoints::default());
    let archives = dir.path().join("archives");
    std::fs::create_dir(&archives).unwrap();
    journal.archive_to(&archives).unwrap();
    let pipe = archives.join(format!("{}.tmp", journal_format::archive::file_name(SegmentNo(0))));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let (op, event) = w.make(WELL, "well").await;
    let Event::Make(Make { node, .. }) = event else { panic!() };
    w.done(op, &event);
    while journal.end_lsn().0 < 2 * SEGMENT {
        w.write(WELL, node).await;
    }
    let (said, silent) = (archives.display().to_string(), "has not answered for");
    let is_told = |words: &str| port.status().problems.iter().any(|it| it.contains(&said) && it.contains(words));
    until("it is told", || is_told(silent)).await;
    assert!(!journal.is_full());
    while journal.used_bytes() < 10 * SEGMENT {
        w.write(WELL, node).await;
        checkpoints.take(&w.core).await.unwrap();
    }
    while !journal.is_full() {
        let _ = tokio::time::timeout(Duration::from_millis(200), w.write(WELL, node)).await;
    }
    assert!(is_told("the journal is full"), "{:?}", port.status().problems);
    // The server is back.
    let reader = std::fs::File::open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    drop(reader);
    until("it goes on", || journal.archive_status().unwrap().archived_lsn.0 > 8 * SEGMENT).await;
    until("it is over", || !is_told("")).await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
