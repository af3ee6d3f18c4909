//! C17: a non-idempotent call that is repeated runs once and gets the same reply.

use super::*;
use crate::gateway::drc::mapped;
use crate::volume::late::Known;
use crate::volume::outcome::{Effect, Outcome};
use crate::wire::nfs3::*;
use journal_format::event::{Caller, Event, Failed, Make, Remove, What};
use journal_format::ids::{JunctionId, Kind, LocationId, Lsn, NodeId};
use nfsserve::nfs::{nfsstat3, post_op_attr};

fn changes(world: &World) -> u64 {
    world.double.changes.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_repeat_on_the_same_and_on_a_new_connection_gets_the_same_bytes_and_does_not_run() {
    let world = world().await;
    let file = world.fh(world.double.file(b"file", vec![]));
    for args in samples(&world.root(), &file) {
        let xid = next_xid();
        let message = nfs_message(xid, &args);
        let mut client = world.client().await;
        client.send(&message).await;
        let first = client.record().await.unwrap();
        let ran = changes(&world);
        client.send(&message).await;
        assert_eq!(client.record().await.unwrap(), first, "{args:?}");
        let mut other = world.client().await;
        other.send(&message).await;
        assert_eq!(other.record().await.unwrap(), first, "{args:?}");
        assert_eq!(changes(&world), ran, "{args:?}");
    }
    assert!(world.stats.repeated.load(Ordering::Relaxed) >= 30);
}

#[tokio::test]
async fn an_xid_used_for_another_call_is_another_call() {
    let world = world().await;
    let mut client = world.client().await;
    let xid = next_xid();
    let a: MakeRes = client.nfs_as(xid, &world.create(b"a")).await;
    let b: MakeRes = client.nfs_as(xid, &world.create(b"b")).await;
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(changes(&world), 2);
    let again: MakeRes = client.nfs(&world.create(b"a")).await;
    assert!(matches!(again, Err((nfsstat3::NFS3ERR_EXIST, _))), "another xid is another call");
}

#[tokio::test]
async fn a_repeat_while_the_first_still_runs_waits_for_its_reply() {
    let world = world().await;
    let message = nfs_message(next_xid(), &world.create(b"slow"));
    let (mut first, mut second) = (world.client().await, world.client().await);
    first.send(&message).await;
    while world.shared.drc.is_empty() {
        tokio::task::yield_now().await;
    }
    second.send(&message).await;
    second.send(&message).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(changes(&world), 0);
    world.double.gate.add_permits(5);
    let reply = first.record().await.unwrap();
    assert_eq!(second.record().await.unwrap(), reply);
    assert_eq!(second.record().await.unwrap(), reply);
    assert_eq!(changes(&world), 1);
}

#[tokio::test]
async fn a_call_whose_client_went_away_runs_to_its_end_and_is_answered_when_it_comes_again() {
    let world = world().await;
    let message = nfs_message(next_xid(), &world.create(b"slow"));
    let mut gone = world.client().await;
    gone.send(&message).await;
    while world.shared.drc.is_empty() {
        tokio::task::yield_now().await;
    }
    gone.stream.set_zero_linger().unwrap();
    drop(gone);
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.double.gate.add_permits(5);
    let mut back = world.client().await;
    back.send(&message).await;
    let mut results = match back.reply().await {
        (_, Reply::Accepted(Accept::Success, results)) => results,
        other => panic!("{other:?}"),
    };
    assert!(results.get::<MakeRes>().unwrap().is_ok());
    assert_eq!(changes(&world), 1);
}

#[tokio::test]
async fn a_call_told_to_come_again_runs_again() {
    let world = world().await;
    let mut client = world.client().await;
    let xid = next_xid();
    for ran in 1..=3 {
        let res: MakeRes = client.nfs_as(xid, &world.create(b"jukebox")).await;
        assert!(matches!(res, Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
        assert_eq!(changes(&world), ran);
    }
}

/// A kernel that got JUKEBOX comes again under a new xid: the duplicate-request cache does not know it.
#[tokio::test]
async fn a_call_that_was_sent_away_is_answered_what_came_of_it_and_does_not_run_again() {
    let world = world().await;
    let mut client = world.client().await;
    let made: MakeRes = client.nfs(&world.create(b"a")).await;
    let node = made.unwrap().object.unwrap();
    let named = world.shared.sealer.open(&node).unwrap();
    *world.double.late.lock() = Some(Known::Running);
    let res: MakeRes = client.nfs(&world.create(b"a")).await;
    assert!(matches!(res, Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
    let effect = Effect::Made { dir: NodeId(2), node: named.node };
    *world.double.late.lock() = Some(Known::Done(Outcome { junction: JunctionId(1), effect, failed: None }));
    let (xid, create) = (next_xid(), world.create(b"a"));
    for _ in 0..2 {
        let res: MakeRes = client.nfs_as(xid, &create).await;
        assert_eq!(res.unwrap().object, Some(node.clone()));
        *world.double.late.lock() = None;
    }
    assert_eq!(changes(&world), 1, "what was told is kept for repeats, too");
}

/// What the journal would say of `message`.
fn caller(xid: u32, args: &Args) -> Caller {
    let mut w = crate::wire::xdr::Writer::default();
    args.put(&mut w);
    let bytes = w.finish().to_vec();
    let sum = crc32fast::hash(&[&args.procedure().to_be_bytes()[..], &bytes[4..]].concat());
    Caller { addr: mapped([127, 0, 0, 1].into()), port: 999, xid, call_sum: sum, uid: 0, gid: 0 }
}

/// What the journal says of this CREATE.
fn make(xid: u32, args: &Args, name: &[u8], node: NodeId) -> Event {
    Event::Make(Make {
        junction: JunctionId(1),
        location: LocationId(1),
        dir: ROOT.node,
        name: name.to_vec(),
        node,
        what: What::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 0,
        atime: None,
        mtime: None,
        verifier: None,
        caller: caller(xid, args),
    })
}

#[tokio::test]
async fn a_call_repeated_across_a_crash_gets_its_first_answer_and_does_not_run() {
    let world = world().await;
    let made = world.double.file(b"made", b"abc".to_vec());
    let (junction, location) = (JunctionId(1), LocationId(1));
    let remove = |xid, args: &Args, name: &[u8]| {
        Event::Remove(Remove {
            junction,
            location,
            dir: ROOT.node,
            name: name.to_vec(),
            node: NodeId(77),
            kind: Kind::File,
            last: true,
            caller: caller(xid, args),
        })
    };
    let create = world.create(b"made");
    let make = make(500, &create, b"made", made.node);
    let (gone, kept) = (Args::Remove(world.at(b"gone")), Args::Remove(world.at(b"kept")));
    let drc = &world.shared.drc;
    drc.refill(Lsn(1), Duration::ZERO, &make, None);
    drc.refill(Lsn(2), Duration::ZERO, &remove(501, &gone, b"gone"), None);
    drc.refill(Lsn(3), Duration::ZERO, &remove(502, &kept, b"kept"), None);
    drc.refill(Lsn(4), Duration::ZERO, &Event::Failed(Failed { op: Lsn(3), status: 13 }), None);
    let mut client = world.client().await;
    for _ in 0..2 {
        let res: MakeRes = client.nfs_as(500, &create).await;
        let ok = res.unwrap();
        assert_eq!(ok.object, Some(world.fh(made)));
        assert!(matches!(ok.attr, post_op_attr::attributes(a) if a.size == 3 && a.fileid == made.node.0));
        let res: WccRes = client.nfs_as(501, &gone).await;
        assert!(res.is_ok());
        let res: WccRes = client.nfs_as(502, &kept).await;
        assert!(matches!(res, Err((nfsstat3::NFS3ERR_ACCES, _))));
    }
    assert_eq!(changes(&world), 0);
    let other: WccRes = client.nfs_as(503, &gone).await;
    assert!(matches!(other, Err((nfsstat3::NFS3ERR_NOENT, _))), "another xid runs");
    assert_eq!(changes(&world), 1);
}

/// After a crash, with a primary that has not been redone yet: the kernel is sent away, and comes under new xids.
#[tokio::test]
async fn a_call_of_a_former_life_that_is_in_doubt_is_told_what_came_of_it_under_whatever_xid_it_comes_again() {
    let world = world().await;
    let made = world.double.file(b"made", b"abc".to_vec());
    let make = |xid, name: &[u8], node| make(xid, &world.create(name), name, node);
    let drc = &world.shared.drc;
    drc.refill(Lsn(1), Duration::ZERO, &make(600, b"made", made.node), None);
    drc.refill(Lsn(2), Duration::ZERO, &make(601, b"refused", NodeId(78)), None);
    drc.refill(Lsn(3), Duration::ZERO, &make(602, b"gone", NodeId(79)), None);
    world.double.doubt.store(true, Ordering::SeqCst);
    let mut client = world.client().await;
    let names: [&[u8]; 3] = [b"made", b"refused", b"gone"];
    for (xid, name) in (600..).zip(names) {
        for xid in [xid, xid + 100, xid + 200] {
            let res: MakeRes = client.nfs_as(xid, &world.create(name)).await;
            assert!(matches!(res, Err((nfsstat3::NFS3ERR_JUKEBOX, _))), "{xid}");
        }
    }
    assert_eq!(changes(&world), 0, "a call that is in doubt must not run");
    drc.refill(Lsn(4), Duration::ZERO, &Event::Failed(Failed { op: Lsn(2), status: 28 }), None);
    world.double.doubt.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        let res: MakeRes = client.nfs_as(900, &world.create(b"made")).await;
        assert_eq!(res.unwrap().object, Some(world.fh(made)), "what was told is kept for repeats, too");
    }
    let res: MakeRes = client.nfs_as(901, &world.create(b"refused")).await;
    assert!(matches!(res, Err((nfsstat3::NFS3ERR_NOSPC, _))));
    assert_eq!(changes(&world), 0);
    let res: MakeRes = client.nfs_as(902, &world.create(b"gone")).await;
    assert!(res.is_ok_and(|made| made.object.is_some()) && changes(&world) == 1, "what is gone since is made anew");
    let res: MakeRes = client.nfs_as(903, &world.create(b"made")).await;
    assert!(matches!(res, Err((nfsstat3::NFS3ERR_EXIST, _))), "it is told once");
}
