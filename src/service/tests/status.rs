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
