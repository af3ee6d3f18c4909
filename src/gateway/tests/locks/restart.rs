//! What hosts are told after a restart, from where, and what they may do then.

use super::*;
use crate::gateway::drc::mapped;
use crate::state::hosts::{KNOWN_AT_MAX, KnownAt};

fn at(addr: &str) -> [u8; 16] {
    mapped(addr.parse().unwrap())
}

/// A host of this machine.
fn host(name: &str) -> Host {
    Host { addr: at("127.0.0.1"), name: name.into() }
}

#[tokio::test]
async fn after_a_restart_hosts_are_told_and_for_a_while_only_claims_are_granted() {
    let mut lockd = lockd(Manner::Takes).await;
    let double = Arc::new(Double::default());
    let limits = Limits { client_portmapper: lockd.port, lock_grace: Duration::from_secs(3), ..Limits::default() };
    Arc::make_mut(&mut double.state.lock()).hosts.insert(host("a"), KnownAt::new());
    let world = world_of(double, limits, Drc::default()).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (mut a, mut b) = (world.client().await, world.client().await);
    assert_eq!(b.lock(lock(&fh, "b", 1, 0, 0), false).await, Stat::Grace);
    assert_eq!(a.lock_as(lock(&fh, "a", 1, 0, 0), false, true).await, Stat::Granted);
    assert_eq!(b.lock_as(lock(&fh, "b", 1, 0, 0), false, true).await, Stat::Denied, "claimed by another");
    let Heard { program, mut args, .. } = lockd.hears().await;
    let change: nsm::Change = args.get().unwrap();
    assert_eq!((program, change.state), (nsm::PROGRAM, 3));
    assert_eq!(world.double.state.lock().locks_number, 3);
    let begun = std::time::Instant::now();
    while b.lock(lock(&fh, "b", 1, 0, 0), false).await == Stat::Grace {
        assert!(begun.elapsed() < Duration::from_secs(60), "the grace does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(b.lock(lock(&fh, "b", 1, 0, 0), false).await, Stat::Denied);
    assert_eq!(b.lock_as(lock(&fh, "b", 1, 0, 0), false, true).await, Stat::Grace, "too late for claims");
}

#[tokio::test]
async fn a_host_is_told_from_each_address_at_which_it_asked_and_from_any_where_that_is_not_ours_any_more() {
    // 192.0.2.0/24 is nobody's.
    let cases: [(&[&str], &[&str]); 3] = [
        (&["127.0.0.3", "127.0.0.7"], &["127.0.0.3", "127.0.0.7"]),
        (&["127.0.0.5", "192.0.2.1"], &["127.0.0.1", "127.0.0.5"]),
        (&[], &["127.0.0.1"]),
    ];
    for (asked, due) in cases {
        let mut lockd = lockd(Manner::Takes).await;
        let double = Arc::new(Double::default());
        let limits = Limits { client_portmapper: lockd.port, lock_grace: Duration::from_secs(3), ..Limits::default() };
        let asked: KnownAt = asked.iter().map(|addr| at(addr)).collect();
        Arc::make_mut(&mut double.state.lock()).hosts.insert(host("a"), asked.clone());
        let _world = world_of(double, limits, Drc::default()).await;
        let mut from = Vec::new();
        for _ in due {
            let heard = lockd.hears().await;
            assert_eq!(heard.program, nsm::PROGRAM);
            from.push(heard.from.to_string());
        }
        from.sort();
        assert_eq!(from, due, "{asked:?}");
    }
}

#[tokio::test]
async fn where_a_host_asks_for_locks_is_durable_before_it_has_one() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let ask = async |local: &str, offset| {
        let ends = Ends { peer: LOCAL.parse().unwrap(), local: Some(local.parse().unwrap()) };
        between::<Res>(&world, ends, p::LOCK, &args(lock(&fh, "a", 1, offset, 1))).await.stat
    };
    let known = || world.double.state.lock().hosts[&host("a")].clone();
    assert_eq!(ask("10.0.0.1:2049", 0).await, Stat::Granted);
    assert_eq!(ask("[::ffff:10.0.0.1]:2049", 1).await, Stat::Granted, "the same");
    assert_eq!(known(), KnownAt::from([at("10.0.0.1")]));
    let flushing = world.double.flushing.write().await;
    assert_eq!(ask("10.0.0.1:2049", 2).await, Stat::Granted, "nothing new, nothing to wait for");
    let mut elsewhere = Box::pin(ask("10.0.0.2:2049", 3));
    assert!(soon(&mut elsewhere).await.is_none());
    drop(flushing);
    assert_eq!(elsewhere.await, Stat::Granted);
    assert_eq!(known(), KnownAt::from([at("10.0.0.1"), at("10.0.0.2")]));
    for last in 3..40u8 {
        assert_eq!(ask(&format!("10.0.0.{last}:2049"), u64::from(last) + 1).await, Stat::Granted);
    }
    assert_eq!(known().len(), KNOWN_AT_MAX);
}
