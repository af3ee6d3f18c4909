//! Locks over the wire, and a client that can be called back.

mod numbers;
mod restart;

use super::*;
use crate::gateway::locks::Ends;
use crate::state::hosts::HOSTS_MAX;
use crate::wire::nlm4::{self, Lock, LockArgs, Res, Short, Stat, TestArgs, TestRes, UnlockArgs, procedure as p};
use crate::wire::xdr::Writer;
use crate::wire::{nsm, portmap};
use journal_format::event::Host;
use std::net::IpAddr;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What a client's own programs do when they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Takes,
    Refuses,
    Hangs,
}

/// A client's portmapper, lock manager and status monitor, on one port.
struct Lockd {
    port: u16,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// A call that it got.
#[derive(Clone, Debug)]
struct Heard {
    program: u32,
    args: Reader,
    from: IpAddr,
}

async fn lockd(manner: Manner) -> Lockd {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (hear, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_calls(Client { stream }, port, manner, hear.clone()));
        }
    });
    Lockd { port, heard }
}

async fn answer_calls(mut c: Client, port: u16, manner: Manner, hear: mpsc::UnboundedSender<Heard>) {
    while let Ok(mark) = c.stream.read_u32().await {
        let mut record = vec![0; (mark & 0x7fff_ffff) as usize];
        c.stream.read_exact(&mut record).await.unwrap();
        let (header, args) = rpc::parse_call(record.into()).unwrap();
        let mut w = rpc::accepted(header.xid, Accept::Success);
        if header.program == portmap::PROGRAM {
            w.u32(u32::from(port));
        } else {
            let from = c.stream.peer_addr().unwrap().ip();
            let _ = hear.send(Heard { program: header.program, args: args.clone(), from });
            if manner == Manner::Hangs {
                std::future::pending::<()>().await;
            }
            if header.program == nlm4::PROGRAM {
                let cookie = args.clone().get::<Short>().unwrap();
                let stat = if manner == Manner::Takes { Stat::Granted } else { Stat::Denied };
                w.put(&Res { cookie, stat });
            }
        }
        c.stream.write_all(&w.finish().to_vec()).await.unwrap();
    }
}

impl Lockd {
    async fn hears(&mut self) -> Heard {
        tokio::time::timeout(Duration::from_secs(60), self.heard.recv()).await.expect("called back").unwrap()
    }
}

async fn lock_world(portmapper: u16) -> World {
    let limits = Limits { client_portmapper: portmapper, lock_grace: Duration::from_secs(3), ..Limits::default() };
    world_with(limits, Drc::default()).await
}

fn short(text: &str) -> Short {
    Short(Bytes::copy_from_slice(text.as_bytes()))
}

fn lock(fh: &Fh, caller: &str, svid: u32, offset: u64, len: u64) -> Lock {
    let oh = short(&format!("{svid}@{caller}"));
    Lock { caller: short(caller), fh: fh.clone(), oh, svid, offset, len }
}

impl Client {
    async fn nlm<T: Wire>(&mut self, procedure: u32, args: &impl Wire) -> T {
        let xid = next_xid();
        let credential = Credential::Unix { uid: 1000, gid: 100, gids: vec![] };
        let mut w = rpc::call(&CallHeader { xid, program: nlm4::PROGRAM, version: 4, procedure, credential });
        w.put(args);
        self.send(&w.finish().to_vec()).await;
        self.results(xid).await.get().unwrap()
    }

    /// An exclusive lock; the cookie must come back.
    async fn lock(&mut self, lock: Lock, block: bool) -> Stat {
        self.lock_as(lock, block, false).await
    }

    async fn lock_as(&mut self, lock: Lock, block: bool, reclaim: bool) -> Stat {
        let args = LockArgs { cookie: short("abcd"), block, exclusive: true, lock, reclaim, state: 7 };
        let res: Res = self.nlm(p::LOCK, &args).await;
        assert_eq!(res.cookie, short("abcd"));
        res.stat
    }

    async fn unlock(&mut self, lock: Lock) -> Stat {
        self.nlm::<Res>(p::UNLOCK, &UnlockArgs { cookie: short("u"), lock }).await.stat
    }
}

#[tokio::test]
async fn locks_exclude_each_other_by_range_and_test_says_who_holds_one() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (mut a, mut b) = (world.client().await, world.client().await);
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 10), false).await, Stat::Granted);
    assert_eq!(b.lock(lock(&fh, "b", 1, 5, 10), false).await, Stat::Denied);
    assert_eq!(a.lock(lock(&fh, "a", 2, 5, 10), false).await, Stat::Denied, "another process of the same host");
    assert_eq!(b.lock(lock(&fh, "b", 1, 10, 0), false).await, Stat::Granted, "to the end");
    let test = |svid, offset| TestArgs { cookie: short("t"), exclusive: false, lock: lock(&fh, "b", svid, offset, 1) };
    let held: TestRes = b.nlm(p::TEST, &test(1, 3)).await;
    let holder = held.stat.unwrap_err();
    assert_eq!((holder.exclusive, holder.svid, holder.oh, holder.offset, holder.len), (true, 1, short("1@a"), 0, 10));
    assert_eq!(
        b.nlm::<TestRes>(p::TEST, &test(1, 99)).await.stat.unwrap(),
        Stat::Granted,
        "its own is in nobody's way"
    );
    // Not what the other holds.
    assert_eq!(b.unlock(lock(&fh, "b", 1, 0, 0)).await, Stat::Granted);
    assert_eq!(b.lock(lock(&fh, "b", 1, 5, 10), false).await, Stat::Denied);
    assert_eq!(a.unlock(lock(&fh, "a", 1, 5, 1)).await, Stat::Granted);
    assert_eq!(b.lock(lock(&fh, "b", 1, 5, 1), false).await, Stat::Granted, "a hole");
    assert_eq!(a.lock(lock(&fh, "a", 1, u64::MAX, 2), false).await, Stat::FBig);
    assert_eq!(a.lock(lock(&Fh(Bytes::from_static(b"forged")), "a", 1, 0, 1), false).await, Stat::StaleFh);
}

#[tokio::test]
async fn who_waits_is_called_back_and_one_who_does_not_want_it_leaves_it_to_the_next() {
    for (manner, due) in [(Manner::Takes, Stat::Denied), (Manner::Refuses, Stat::Granted)] {
        let mut lockd = lockd(manner).await;
        let world = lock_world(lockd.port).await;
        let fh = world.fh(world.double.file(b"file", vec![]));
        let (mut a, mut b) = (world.client().await, world.client().await);
        assert_eq!(a.lock(lock(&fh, "a", 1, 0, 0), false).await, Stat::Granted);
        assert_eq!(b.lock(lock(&fh, "b", 1, 0, 10), true).await, Stat::Blocked);
        assert_eq!(a.unlock(lock(&fh, "a", 1, 0, 0)).await, Stat::Granted);
        let Heard { program, mut args, .. } = lockd.hears().await;
        let granted: TestArgs = args.get().unwrap();
        assert_eq!((program, granted.lock.caller, granted.lock.fh), (nlm4::PROGRAM, short("b"), fh.clone()));
        assert_eq!((granted.exclusive, granted.lock.svid, granted.lock.len), (true, 1, 10));
        let begun = std::time::Instant::now();
        let mut now = a.lock(lock(&fh, "a", 1, 0, 1), false).await;
        // What came back may not have been taken back yet.
        while now != due && begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            now = a.lock(lock(&fh, "a", 1, 0, 1), false).await;
        }
        assert_eq!(now, due, "{manner:?}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_or_cannot_be_called_holds_nobody_up_and_is_granted_when_it_asks_again() {
    for port in [1, lockd(Manner::Hangs).await.port] {
        let world = lock_world(port).await;
        let fh = world.fh(world.double.file(b"file", vec![]));
        let (mut a, mut b) = (world.client().await, world.client().await);
        for svid in 0..50 {
            let at = u64::from(svid);
            assert_eq!(a.lock(lock(&fh, "a", 1, at, 1), false).await, Stat::Granted);
            assert_eq!(b.lock(lock(&fh, "b", svid, at, 1), true).await, Stat::Blocked);
        }
        assert_eq!(a.unlock(lock(&fh, "a", 1, 0, 0)).await, Stat::Granted);
        assert_eq!(a.lock(lock(&fh, "a", 1, 100, 1), false).await, Stat::Granted);
        for svid in 0..50 {
            assert_eq!(a.lock(lock(&fh, "a", 1, u64::from(svid), 1), false).await, Stat::Denied, "it is the other's");
            assert_eq!(b.lock(lock(&fh, "b", svid, u64::from(svid), 1), true).await, Stat::Granted);
        }
    }
}

#[tokio::test]
async fn a_cancelled_wait_is_no_wait() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (mut a, mut b) = (world.client().await, world.client().await);
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 0), false).await, Stat::Granted);
    assert_eq!(b.lock(lock(&fh, "b", 1, 0, 0), true).await, Stat::Blocked);
    let cancel = nlm4::CancelArgs { cookie: short("c"), block: true, exclusive: true, lock: lock(&fh, "b", 1, 0, 0) };
    assert_eq!(b.nlm::<Res>(p::CANCEL, &cancel).await.stat, Stat::Granted);
    assert_eq!(b.nlm::<Res>(p::CANCEL, &cancel).await.stat, Stat::Denied);
    assert_eq!(a.unlock(lock(&fh, "a", 1, 0, 0)).await, Stat::Granted);
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 0), false).await, Stat::Granted);
}

/// SM_NOTIFY by UDP, until it is answered.
async fn notify(world: &World, name: &str, state: u32) {
    let xid = next_xid();
    let header =
        CallHeader { xid, program: nsm::PROGRAM, version: 1, procedure: nsm::NOTIFY, credential: Credential::None };
    let mut w = rpc::call(&header);
    w.put(&nsm::Change { name: short(name), state });
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut reply = [0; 100];
    for _ in 0..100 {
        socket.send_to(&w.clone().finish().to_vec()[4..], world.addr).await.unwrap();
        let received = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut reply)).await;
        if let Ok(len) = received {
            let (got, reply) = rpc::parse_reply(Bytes::copy_from_slice(&reply[..len.unwrap()])).unwrap();
            assert!(got == xid && matches!(reply, Reply::Accepted(Accept::Success, _)));
            return;
        }
    }
    panic!("no answer by UDP");
}

async fn bare() -> (Gateway, TcpListener, watch::Sender<bool>, watch::Receiver<bool>) {
    let gateway = Gateway::new(Arc::new(Double::default()), identity(), Drc::default(), Limits::default());
    let (stop, stopped) = watch::channel(false);
    (gateway, TcpListener::bind("127.0.0.1:0").await.unwrap(), stop, stopped)
}

#[tokio::test]
async fn that_another_has_the_port_for_datagrams_is_told() {
    let (gateway, listener, _stop, stopped) = bare().await;
    let (locks, addr) = (gateway.locks(), listener.local_addr().unwrap());
    assert_eq!(locks.problem(), None);
    let _taken = std::net::UdpSocket::bind(addr).unwrap();
    tokio::spawn(gateway.serve(listener, stopped));
    let begun = tokio::time::Instant::now();
    while locks.problem().is_none_or(|told| !told.contains(&addr.to_string())) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", locks.problem());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn when_what_runs_beside_the_listener_has_ended_so_has_the_gateway() {
    let (gateway, listener, _stop, stopped) = bare().await;
    let mut beside = JoinSet::new();
    beside.spawn(std::future::pending());
    beside.spawn(async { panic!("a defect") });
    let serving = gateway.serve_beside(listener, beside, stopped);
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("nobody would hear of it");
}

/// `mount` without `mountproto` asks for MOUNT by UDP first, and stays with UDP when NULL is answered.
#[tokio::test]
async fn mount_is_served_by_udp_and_lists_and_other_programs_are_not() {
    use crate::wire::mount::{self, Mounted};
    let world = lock_world(1).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ask = async |program, version, procedure, path: Option<&'static [u8]>, patience| {
        let xid = next_xid();
        let mut w = rpc::call(&CallHeader { xid, program, version, procedure, credential: Credential::None });
        if let Some(path) = path {
            w.put(&mount::Text(Bytes::from_static(path)));
        }
        socket.send_to(&w.finish().to_vec()[4..], world.addr).await.unwrap();
        let mut reply = [0; 2000];
        let received = tokio::time::timeout(patience, socket.recv(&mut reply)).await.ok()?;
        let (got, reply) = rpc::parse_reply(Bytes::copy_from_slice(&reply[..received.unwrap()])).unwrap();
        assert_eq!(got, xid);
        match reply {
            Reply::Accepted(Accept::Success, results) => Some(results),
            other => panic!("{other:?}"),
        }
    };
    let (long, short) = (Duration::from_secs(30), Duration::from_millis(300));
    let procedure = |args: mount::Args| args.procedure();
    let path = mount::Text(Bytes::new());
    assert!(ask(mount::PROGRAM, 3, 0, None, long).await.is_some());
    let mnt = procedure(mount::Args::Mnt(path.clone()));
    let mut mounted = ask(mount::PROGRAM, 3, mnt, Some(b"/j"), long).await.unwrap();
    assert!(matches!(mounted.get::<Mounted>().unwrap(), Mounted::Ok(..)));
    let mut refused = ask(mount::PROGRAM, 3, mnt, Some(b"/absent"), long).await.unwrap();
    assert!(matches!(refused.get::<Mounted>().unwrap(), Mounted::Refused(_)));
    assert!(ask(mount::PROGRAM, 3, procedure(mount::Args::Umnt(path)), Some(b"/j"), long).await.is_some());
    for (program, version, procedure) in [
        (mount::PROGRAM, 3, procedure(mount::Args::Export)),
        (mount::PROGRAM, 3, procedure(mount::Args::Dump)),
        (crate::wire::nfs3::PROGRAM, 3, 0),
        (nlm4::PROGRAM, 4, 0),
    ] {
        assert!(ask(program, version, procedure, None, short).await.is_none(), "{program} {procedure}");
    }
}

/// As where a filer hangs below a path that is mounted.
#[tokio::test]
async fn mounts_that_wait_hold_up_no_host_that_tells_of_its_restart() {
    let world = lock_world(1).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let path = crate::wire::mount::Text(Bytes::from_static(b"/slow"));
    let (program, procedure) = (crate::wire::mount::PROGRAM, crate::wire::mount::Args::Mnt(path.clone()).procedure());
    for _ in 0..200 {
        let xid = next_xid();
        let mut w = rpc::call(&CallHeader { xid, program, version: 3, procedure, credential: Credential::None });
        w.put(&path);
        socket.send_to(&w.finish().to_vec()[4..], world.addr).await.unwrap();
    }
    notify(&world, "a", 9).await;
    // Those that were taken are answered in the end; more than that were not kept.
    world.double.gate.add_permits(200);
    let (mut reply, mut answered) = ([0; 200], 0);
    while tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut reply)).await.is_ok() {
        answered += 1;
    }
    assert!((1..=64).contains(&answered), "{answered}");
}

/// What a client asked for that has gone down since is not given to the one that came up.
#[tokio::test]
async fn a_lock_that_was_asked_for_before_a_restart_is_not_granted_behind_it() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (mut a, mut c) = (world.client().await, world.client().await);
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 1), false).await, Stat::Granted);
    let asking = world.double.asking.write().await;
    let calls = world.shared.drc.len();
    let late = tokio::spawn({
        let asked = lock(&fh, "a", 1, 5, 1);
        async move { a.lock(asked, false).await }
    });
    while world.shared.drc.len() == calls {
        tokio::task::yield_now().await;
    }
    // It is under way; and what it does before it waits for the permission takes no time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    notify(&world, "a", 9).await;
    drop(asking);
    assert_eq!(late.await.unwrap(), Stat::Grace);
    assert_eq!(c.lock(lock(&fh, "c", 1, 0, 9), false).await, Stat::Granted, "nothing is held");
}

#[tokio::test]
async fn a_host_that_has_restarted_holds_nothing_any_more_and_others_of_its_address_do() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (mut a, mut c) = (world.client().await, world.client().await);
    assert_eq!(a.lock(lock(&fh, "a.example.org", 1, 0, 1), false).await, Stat::Granted);
    assert_eq!(a.lock(lock(&fh, "b", 1, 1, 1), false).await, Stat::Granted);
    let hosts = |world: &World| world.double.state.lock().hosts.len();
    assert_eq!(hosts(&world), 2, "both are in the journal");
    notify(&world, "a", 9).await;
    assert_eq!(c.lock(lock(&fh, "c", 1, 1, 1), false).await, Stat::Denied);
    assert_eq!(c.lock(lock(&fh, "c", 1, 0, 1), false).await, Stat::Granted);
    // A late copy of what it said does not take away what it has locked since.
    let under = |state, offset| LockArgs { state, ..args(lock(&fh, "a.example.org", 1, offset, 1)) };
    assert_eq!(a.nlm::<Res>(p::LOCK, &under(9, 5)).await.stat, Stat::Granted);
    notify(&world, "a", 9).await;
    assert_eq!(c.lock(lock(&fh, "c", 1, 5, 1), false).await, Stat::Denied);
    // One that says nothing, and comes with a greater number, has restarted, too.
    assert_eq!(a.nlm::<Res>(p::LOCK, &under(11, 6)).await.stat, Stat::Granted);
    assert_eq!(c.lock(lock(&fh, "c", 1, 5, 1), false).await, Stat::Granted);
    assert_eq!(c.lock(lock(&fh, "c", 1, 6, 1), false).await, Stat::Denied);
}

#[tokio::test]
async fn calls_of_all_that_is_served_are_counted() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let mut a = world.client().await;
    let mounted = a.mount(&crate::wire::mount::Args::Mnt(crate::wire::mount::Text(Bytes::from_static(b"/")))).await;
    assert!(!mounted.rest().is_empty());
    for at in 0..3 {
        assert_eq!(a.lock(lock(&fh, "a", 1, at, 1), false).await, Stat::Granted);
    }
    assert_eq!(a.unlock(lock(&fh, "a", 1, 0, 0)).await, Stat::Granted);
    let counted = || world.shared.timing.figures().into_iter().map(|of| (of.name, of.calls)).collect::<Vec<_>>();
    assert_eq!(counted(), [("MOUNT MNT", 1), ("NLM LOCK", 3), ("NLM UNLOCK", 1)]);
    notify(&world, "a", 9).await;
    // As often as it was sent until it was answered.
    assert!(matches!(counted()[..], [_, _, _, ("NSM NOTIFY", 1..)]), "{:?}", counted());
}

/// A procedure's result as if it was called from `peer`.
async fn from<T: Wire>(world: &World, peer: &str, procedure: u32, args: &impl Wire) -> T {
    between(world, Ends { peer: peer.parse().unwrap(), local: None }, procedure, args).await
}

async fn between<T: Wire>(world: &World, ends: Ends, procedure: u32, args: &impl Wire) -> T {
    let mut w = Writer::default();
    w.put(args);
    let args = Reader::new(Bytes::from(w.finish().to_vec()).slice(4..));
    let (xid, credential) = (next_xid(), Credential::None);
    let header = CallHeader { xid, program: nlm4::PROGRAM, version: 4, procedure, credential };
    let frame = world.shared.answer(ends, header, args).await;
    match rpc::parse_reply(Bytes::from(frame.to_vec()).slice(4..)).unwrap() {
        (_, Reply::Accepted(Accept::Success, mut results)) => results.get().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_address_that_no_policy_lets_in_gets_no_lock_frees_none_and_costs_nothing() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let mut a = world.client().await;
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 0), false).await, Stat::Granted);
    let own = lock(&fh, "a", 1, 0, 0);
    let args = |lock| LockArgs { cookie: short("c"), block: true, exclusive: true, lock, reclaim: false, state: 0 };
    for fh in [fh.clone(), Fh(Bytes::from_static(b"forged"))] {
        let result: Res = from(&world, "10.0.0.1:700", p::LOCK, &args(lock(&fh, "a", 1, 0, 0))).await;
        assert_eq!(result.stat, Stat::Failed);
    }
    let (): () = from(&world, "10.0.0.1:700", 7, &args(own.clone())).await;
    let unlock = UnlockArgs { cookie: short("u"), lock: own.clone() };
    assert_eq!(from::<Res>(&world, "10.0.0.1:700", p::UNLOCK, &unlock).await.stat, Stat::Failed);
    let free = nlm4::Notify { name: short("a"), state: 99 };
    let (): () = from(&world, "10.0.0.1:700", p::FREE_ALL, &free).await;
    assert_eq!(world.shared.drc.len(), 1, "a stranger cannot fill the cache: the lock alone is in it");
    // Nor can one that is let in free what another address holds under the same name.
    assert_eq!(from::<Res>(&world, "127.0.0.2:700", p::UNLOCK, &unlock).await.stat, Stat::Granted);
    let (): () = from(&world, "127.0.0.2:700", p::FREE_ALL, &free).await;
    let other = from::<Res>(&world, "127.0.0.2:700", p::LOCK, &args(own)).await;
    assert_eq!(other.stat, Stat::Blocked);
    assert_eq!(world.double.state.lock().hosts.len(), 2);
}

#[tokio::test]
async fn one_address_has_so_many_names_and_no_more_and_idle_hosts_are_forgotten() {
    let limits = Limits { client_portmapper: 1, lock_host_idle: Duration::ZERO, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let mut a = world.client().await;
    assert_eq!(a.lock(lock(&fh, "holds", 1, 1000, 1), false).await, Stat::Granted);
    for n in 1..256 {
        let name = format!("host{n}");
        let stat = a.lock(lock(&fh, &name, 1, 0, 1), false).await;
        assert_ne!(stat, Stat::NoLocks, "{n}");
        a.unlock(lock(&fh, &name, 1, 0, 1)).await;
    }
    // A sweep may have come between.
    let mut more = 256u32;
    while a.lock(lock(&fh, &format!("host{more}"), 1, u64::from(more), 1), false).await == Stat::Granted {
        more += 1;
        assert!(more < 1000, "no bound");
    }
    let begun = std::time::Instant::now();
    let hosts = || world.double.state.lock().hosts.len();
    assert!(hosts() <= HOSTS_MAX);
    for n in 256..more {
        a.unlock(lock(&fh, &format!("host{n}"), 1, 0, 0)).await;
    }
    while hosts() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} hosts", hosts());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(a.lock(lock(&fh, "other", 1, 1000, 1), false).await, Stat::Denied, "one that holds a lock stays");
}

#[tokio::test]
async fn what_was_held_in_a_junction_that_is_removed_is_free() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (mut a, mut b) = (world.client().await, world.client().await);
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 1), false).await, Stat::Granted);
    assert_eq!(b.lock(lock(&fh, "b", 1, 0, 1), true).await, Stat::Blocked);
    let view = crate::gateway::LockView(world.shared.clone());
    assert_eq!((view.figures().held, view.figures().waiting, view.figures().hosts), (1, 1, 2));
    Arc::make_mut(&mut world.double.state.lock()).junctions.clear();
    let begun = std::time::Instant::now();
    while view.figures().held + view.figures().waiting > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", view.figures());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn answers_to_msg_calls_come_as_calls() {
    let mut lockd = lockd(Manner::Takes).await;
    let world = lock_world(lockd.port).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let mut a = world.client().await;
    let lock = lock(&fh, "a", 1, 0, 0);
    let args = LockArgs { cookie: short("m"), block: false, exclusive: true, lock, reclaim: false, state: 0 };
    let (): () = a.nlm(7, &args).await;
    let Heard { program, args: mut answer, .. } = lockd.hears().await;
    let res: Res = answer.get().unwrap();
    assert_eq!((program, res.cookie, res.stat), (nlm4::PROGRAM, short("m"), Stat::Granted));
}

/// What comes of a call within a moment: `None`, it waits.
async fn soon<F: Future + Unpin>(call: &mut F) -> Option<F::Output> {
    tokio::time::timeout(Duration::from_millis(200), call).await.ok()
}

fn args(lock: Lock) -> LockArgs {
    LockArgs { cookie: short("c"), block: false, exclusive: true, lock, reclaim: false, state: 0 }
}

const LOCAL: &str = "127.0.0.1:700";

/// Until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn no_lock_is_granted_before_its_host_is_durable() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let flushing = world.double.flushing.write().await;
    let (first, second) = (args(lock(&fh, "a", 1, 0, 1)), args(lock(&fh, "a", 2, 1, 1)));
    let mut first = Box::pin(from::<Res>(&world, LOCAL, p::LOCK, &first));
    assert!(soon(&mut first).await.is_none());
    assert_eq!(world.double.state.lock().hosts.len(), 1, "it is in State, and not durable");
    let mut second = Box::pin(from::<Res>(&world, LOCAL, p::LOCK, &second));
    assert!(soon(&mut second).await.is_none());
    drop(flushing);
    assert_eq!((first.await.stat, second.await.stat), (Stat::Granted, Stat::Granted));
}

#[tokio::test]
async fn a_host_that_locks_while_it_is_being_forgotten_is_known_again() {
    let limits = Limits { client_portmapper: 1, lock_host_idle: Duration::ZERO, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    for name in ["a", "b"] {
        let one = args(lock(&fh, name, 1, 0, 1));
        assert_eq!(from::<Res>(&world, LOCAL, p::LOCK, &one).await.stat, Stat::Granted);
        let unlock = UnlockArgs { cookie: short("u"), lock: one.lock };
        assert_eq!(from::<Res>(&world, LOCAL, p::UNLOCK, &unlock).await.stat, Stat::Granted);
    }
    let flushing = world.double.flushing.write().await;
    let mut forgetting = Box::pin(world.shared.forget_idle_hosts());
    // The sweep may have the turn by itself.
    assert!(soon(&mut forgetting).await.is_none());
    let held = args(lock(&fh, "b", 1, 0, 1));
    let mut locked = Box::pin(from::<Res>(&world, LOCAL, p::LOCK, &held));
    let early = soon(&mut locked).await;
    drop(flushing);
    forgetting.await;
    let stat = match early {
        Some(early) => early.stat,
        None => locked.await.stat,
    };
    let hosts = world.double.state.lock().hosts.clone();
    assert_eq!(stat, Stat::Granted);
    assert!(hosts.keys().any(|host| host.name == b"b"), "it holds a lock: {hosts:?}");
}

#[tokio::test]
async fn an_unlock_does_not_overtake_a_lock_of_its_owner_that_is_under_way() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let asking = world.double.asking.write().await;
    let (own, other) = (args(lock(&fh, "a", 1, 0, 1)), args(lock(&fh, "a", 2, 5, 1)));
    let unlock = |args: &LockArgs| UnlockArgs { cookie: short("u"), lock: args.lock.clone() };
    let mut locked = Box::pin(from::<Res>(&world, LOCAL, p::LOCK, &own));
    assert!(soon(&mut locked).await.is_none());
    let (own, other) = (unlock(&own), unlock(&other));
    let mut unlocked = Box::pin(from::<Res>(&world, LOCAL, p::UNLOCK, &own));
    assert!(soon(&mut unlocked).await.is_none());
    assert_eq!(from::<Res>(&world, LOCAL, p::UNLOCK, &other).await.stat, Stat::Granted, "another owner");
    drop(asking);
    assert_eq!((locked.await.stat, unlocked.await.stat), (Stat::Granted, Stat::Granted));
    assert_eq!(crate::gateway::LockView(world.shared.clone()).figures().held, 0);
}

#[tokio::test]
async fn who_is_not_let_in_any_more_may_give_up_and_loses_what_it_does_not_give_up() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let far = "10.0.0.1:700";
    *world.double.state.lock() = Arc::new(crate::gateway::access::tests::state(&["10.0.0.0/8=rw", "127.0.0.1=rw"]));
    let held = || crate::gateway::LockView(world.shared.clone()).figures().held;
    for at in [0, 2] {
        let stat = from::<Res>(&world, far, p::LOCK, &args(lock(&fh, "a", 1, at, 1))).await.stat;
        assert_eq!(stat, Stat::Granted);
    }
    let kept = args(lock(&fh, "kept", 1, 4, 1));
    assert_eq!(from::<Res>(&world, LOCAL, p::LOCK, &kept).await.stat, Stat::Granted);
    {
        let mut state = world.double.state.lock();
        let closed = crate::gateway::access::tests::state(&["127.0.0.1=rw"]);
        Arc::make_mut(&mut state).policies.clone_from(&closed.policies);
    }
    let more = args(lock(&fh, "a", 1, 9, 1));
    assert_eq!(from::<Res>(&world, far, p::LOCK, &more).await.stat, Stat::Failed);
    let unlock = |fh: &Fh| UnlockArgs { cookie: short("u"), lock: lock(fh, "a", 1, 0, 1) };
    let forged = Fh(Bytes::from_static(b"forged"));
    assert_ne!(from::<Res>(&world, far, p::UNLOCK, &unlock(&forged)).await.stat, Stat::Granted);
    // A sweep may have freed them before.
    assert_eq!(from::<Res>(&world, far, p::UNLOCK, &unlock(&fh)).await.stat, Stat::Granted);
    assert!(held() <= 2, "{}", held());
    until("the rest is not freed", || held() == 1).await;
}

#[tokio::test]
async fn a_datagram_frees_nothing_unless_it_names_a_greater_number() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let mut a = world.client().await;
    // It comes with number 7.
    assert_eq!(a.lock(lock(&fh, "a", 1, 0, 1), false).await, Stat::Granted);
    let held = || crate::gateway::LockView(world.shared.clone()).figures().held;
    for state in [0, 7, 5] {
        notify(&world, "a", state).await;
        assert_eq!(held(), 1, "{state}");
    }
    notify(&world, "a", 9).await;
    assert_eq!(held(), 0);
}

#[tokio::test]
async fn an_offer_is_taken_back_or_sent_and_one_that_did_not_go_out_is_not_sent() {
    let limits = Limits { client_portmapper: 1, lock_offer: Duration::ZERO, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    let (a, b) = (args(lock(&fh, "a", 1, 0, 1)), LockArgs { block: true, ..args(lock(&fh, "b", 1, 0, 1)) });
    let view = crate::gateway::LockView(world.shared.clone());
    for (sent, failed, left) in [(false, false, 0), (true, false, 1), (true, true, 0)] {
        assert_eq!(from::<Res>(&world, LOCAL, p::LOCK, &a).await.stat, Stat::Granted);
        assert_eq!(from::<Res>(&world, LOCAL, p::LOCK, &b).await.stat, Stat::Blocked);
        let unlock = |args: &LockArgs| UnlockArgs { cookie: short("u"), lock: args.lock.clone() };
        assert_eq!(from::<Res>(&world, LOCAL, p::UNLOCK, &unlock(&a)).await.stat, Stat::Granted);
        let offer = *world.shared.locks.offers.lock().keys().next_back().unwrap();
        if sent {
            assert_eq!(world.shared.sending(offer), Some(false));
            assert_eq!(world.shared.sending(offer), Some(true));
        }
        if failed {
            world.shared.not_sent(offer);
        }
        let grants = world.shared.take_back_unsent();
        assert!(grants.is_empty());
        assert_eq!(view.figures().held, left, "sent {sent}, failed {failed}");
        assert_eq!(world.shared.sending(offer).is_some(), left == 1, "what is taken back does not go out");
        assert_eq!(from::<Res>(&world, LOCAL, p::UNLOCK, &unlock(&b)).await.stat, Stat::Granted);
    }
}

/// A program that locks and unlocks without end is no reason to tell another that what it removed was not there.
#[tokio::test]
async fn lock_calls_push_no_call_on_names_out_of_the_cache() {
    let world = lock_world(1).await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    world.double.file(b"gone", vec![]);
    let (mut a, remove, xid) = (world.client().await, Args::Remove(world.at(b"gone")), next_xid());
    let removed: nfs3::WccRes = a.nfs_as(xid, &remove).await;
    assert!(removed.is_ok());
    for _ in 0..crate::gateway::drc::CLIENT_MAX / 2 + 10 {
        assert_eq!(a.lock(lock(&fh, "a", 1, 0, 1), false).await, Stat::Granted);
        assert_eq!(a.unlock(lock(&fh, "a", 1, 0, 1)).await, Stat::Granted);
    }
    let again: nfs3::WccRes = a.nfs_as(xid, &remove).await;
    assert!(again.is_ok(), "{again:?}");
}
