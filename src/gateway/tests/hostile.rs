//! The inputs that broke others (numbers are those of the survey): each is harmless, and everyone else is served.

use super::*;
use crate::gateway::access::know;
use crate::gateway::connection;
use crate::gateway::seats::{Admission, Seat};
use crate::wire::nfs3::{ReadArgs, ReadRes, samples};
use crate::wire::record::{FRAGMENTS_MAX, LAST, RECORD_MAX};
use crate::wire::rpc::{AuthStat, Denial};
use nfsserve::nfs::nfsstat3;

/// Other tests of this process run beside these: what they need is not growth.
const NOISE: usize = 256 << 20;

fn mark(len: usize, last: bool) -> [u8; 4] {
    (u32::try_from(len).unwrap() | if last { LAST } else { 0 }).to_be_bytes()
}

fn record(body: &[u8]) -> Vec<u8> {
    [&mark(body.len(), true)[..], body].concat()
}

#[tokio::test]
async fn n01_a_promise_of_2_gib_closes_the_connection() {
    let world = world().await;
    let before = resident();
    for mark in [u32::MAX, 0x7fff_ffff, LAST | (u32::try_from(RECORD_MAX).unwrap() + 1)] {
        let mut client = world.client().await;
        client.send(&mark.to_be_bytes()).await;
        assert!(client.is_closed().await, "{mark:x}");
    }
    assert!(resident() < before + NOISE);
    world.serves().await;
}

#[tokio::test]
async fn n02_fragments_without_end_close_the_connection() {
    let world = world().await;
    let mut client = world.client().await;
    for _ in 0..=FRAGMENTS_MAX {
        client.send(&mark(0, false)).await;
    }
    assert!(client.is_closed().await);
    let mut client = world.client().await;
    let piece = [&mark(500_000, false)[..], &vec![0; 500_000]].concat();
    for _ in 0..100 {
        if client.stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    assert!(client.is_closed().await);
    assert_eq!(world.stats.broken.load(Ordering::Relaxed), 2);
    world.serves().await;
}

#[tokio::test]
async fn n02_a_call_in_many_fragments_is_served() {
    let world = world().await;
    let mut client = world.client().await;
    let xid = next_xid();
    let body = nfs_message(xid, &Args::GetAttr(world.root()))[4..].to_vec();
    let pieces: Vec<&[u8]> = body.chunks(5).collect();
    for (i, piece) in pieces.iter().enumerate() {
        client.send(&mark(piece.len(), i + 1 == pieces.len())).await;
        client.send(piece).await;
    }
    client.results(xid).await;
}

#[tokio::test]
async fn n03_n04_lengths_that_lie_are_denied_or_garbage() {
    let world = world().await;
    let before = resident();
    let mut client = world.client().await;
    let good = nfs_message(7, &Args::GetAttr(world.root()))[4..].to_vec();
    let handle_at = good.len() - 36 - 4;
    // 28: credential body; 36: machine name; 48: count of groups; then the handle's length.
    for (at, lengths) in [
        (28, vec![401, u32::MAX, u32::MAX - 3]),
        (36, vec![256, u32::MAX]),
        (48, vec![17, (1 << 30) - 1, u32::MAX]),
        (handle_at, vec![65, u32::MAX - 15, u32::MAX]),
    ] {
        for len in lengths {
            let mut body = good.clone();
            body[at..at + 4].copy_from_slice(&len.to_be_bytes());
            client.send(&record(&body)).await;
            match client.reply().await {
                (7, Reply::Denied(Denial::Auth(AuthStat::BadCred))) if at != handle_at => {}
                (7, Reply::Accepted(Accept::GarbageArgs, _)) if at == handle_at => {}
                other => panic!("{other:?} for {len} at {at}"),
            }
        }
    }
    assert!(resident() < before + NOISE);
    world.serves().await;
}

#[tokio::test]
async fn n05_connections_reset_at_once_are_harmless() {
    let world = world().await;
    for _ in 0..2000 {
        let stream = TcpStream::connect(world.addr).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    world.serves().await;
    assert!(!world.served.is_finished());
}

#[tokio::test]
async fn n06_n07_more_connections_than_seats_close_the_quiet_ones() {
    let limits = Limits { connections_max: 40, connections_per_client: 30, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let mut busy = world.client().await;
    let xid = next_xid();
    busy.send(&nfs_message(xid, &world.create(b"slow"))).await;
    while world.shared.calls.available_permits() == world.shared.limits.calls_all as usize {
        tokio::task::yield_now().await;
    }
    let mut idle = Vec::new();
    for _ in 0..300 {
        let mut client = world.client().await;
        client.send(&[0x80, 0]).await;
        idle.push(client);
    }
    world.serves().await;
    assert!(world.shared.seats.len() <= 30);
    assert!(world.stats.evicted.load(Ordering::Relaxed) >= 270);
    assert!(idle[0].is_closed().await);
    world.double.gate.add_permits(1);
    busy.results(xid).await;
}

/// In a process of its own, whose descriptors may run out.
#[tokio::test]
async fn n06_running_out_of_descriptors_sheds_quiet_connections_and_serves_on() {
    const ALONE: &str = "TAIN_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(ALONE).is_none() {
        let name = "gateway::tests::hostile::n06_running_out_of_descriptors_sheds_quiet_connections_and_serves_on";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let world = world().await;
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut idle = Vec::new();
    // Both ends are ours: go on until a connect finds no descriptor, and give the accepts time to find none.
    while let Ok(stream) = TcpStream::connect(world.addr).await {
        idle.push(stream);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(idle.len() < 64);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!world.served.is_finished());
    assert!(world.shared.seats.len() < idle.len(), "some were shed, or wait");
    idle.truncate(idle.len() - 2);
    world.serves().await;
}

#[tokio::test]
async fn n07_a_record_that_does_not_come_and_a_connection_that_asks_nothing_are_closed() {
    let quick = Duration::from_millis(100);
    let limits = Limits { idle_deadline: quick, ..Limits::default() };
    let idle_world = world_with(limits, Drc::default()).await;
    let mut idle = idle_world.client().await;
    // Whatever else is quick here, the deadline of a record is not.
    assert!(idle.is_closed().await);
    let limits = Limits { record_deadline: quick, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let mut slow = world.client().await;
    slow.send(&[0x80, 0]).await;
    assert!(slow.is_closed().await, "long before it counts as idle");
    let mut dripping = world.client().await;
    let mut sent = 0;
    while sent < 100 && dripping.stream.write_all(&[0x80]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        sent += 1;
    }
    assert!(sent < 100, "a byte now and then does not keep it open");
    world.serves().await;
}

#[tokio::test]
async fn n07_a_connection_that_waits_for_an_answer_is_not_idle() {
    let limits = Limits { idle_deadline: Duration::from_millis(50), ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let mut client = world.client().await;
    let xid = next_xid();
    client.send(&nfs_message(xid, &world.create(b"slow"))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.double.gate.add_permits(1);
    client.results(xid).await;
}

#[tokio::test]
async fn n08_a_client_that_does_not_read_is_read_no_more_then_closed() {
    let limits = Limits { write_deadline: Duration::from_millis(300), ..Limits::default() };
    let world = world_with(limits.clone(), Drc::default()).await;
    let file = world.fh(world.double.file(b"big", vec![1; 1 << 20]));
    let mut client = world.client().await;
    let read = nfs_message(9, &Args::Read(ReadArgs { file: file.clone(), offset: 0, count: 1 << 20 }));
    let before = resident();
    let many: Vec<u8> = read.repeat(600);
    let (mut rx, mut tx) = client.stream.split();
    let sending = tokio::time::timeout(Duration::from_secs(1), tx.write_all(&many)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ran = world.double.reads.load(Ordering::SeqCst);
    assert!(ran < 60, "{ran} of 600 ran (the send: {sending:?})");
    assert!(resident() < before + NOISE);
    world.serves().await;
    // Closed when it took nothing for the deadline: what the kernel holds is all there is to read.
    let mut taken = 0;
    let mut buf = vec![0; 1 << 20];
    while let Ok(n) = rx.read(&mut buf).await
        && n > 0
    {
        taken += n;
    }
    assert!(taken < 60 << 20, "{taken}");
}

#[tokio::test]
async fn n08_a_client_that_never_reads_loses_its_connection() {
    let limits =
        Limits { write_deadline: Duration::from_millis(200), reply_bytes_per_connection: 1 << 20, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let file = world.fh(world.double.file(b"big", vec![1; 64 << 10]));
    let mut client = world.client().await;
    let read = nfs_message(9, &Args::Read(ReadArgs { file, offset: 0, count: 32 << 10 }));
    let started = std::time::Instant::now();
    while client.stream.write_all(&read).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(60), "never closed");
    }
    while !world.shared.reply_bytes.available_permits().eq(&(world.shared.limits.reply_bytes_all as usize)) {
        tokio::task::yield_now().await;
    }
    world.serves().await;
}

#[tokio::test]
async fn n09_a_panic_is_answered_and_closes_only_its_connection() {
    let world = world().await;
    let mut other = world.client().await;
    let mut client = world.client().await;
    let xid = next_xid();
    client.send(&nfs_message(xid, &world.create(b"panic"))).await;
    let (got, reply) = client.reply().await;
    assert!(got == xid && matches!(reply, Reply::Accepted(Accept::SystemErr, _)), "{reply:?}");
    assert!(client.is_closed().await);
    let res: nfs3::MakeRes = other.nfs(&world.create(b"fine")).await;
    assert!(res.is_ok());
    let mut again = world.client().await;
    again.send(&nfs_message(xid, &world.create(b"panic"))).await;
    let (_, reply) = again.reply().await;
    assert!(matches!(reply, Reply::Accepted(Accept::SystemErr, _)), "not in progress for ever");
    assert_eq!(world.stats.panics.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn n11_many_calls_do_not_get_slower() {
    let world = world().await;
    let mut client = world.client().await;
    let mut rounds = Vec::new();
    for round in 0..6u32 {
        let started = std::time::Instant::now();
        for i in 0..1000 {
            let name = format!("f{round}-{i}");
            let made: nfs3::MakeRes = client.nfs(&world.create(name.as_bytes())).await;
            assert!(made.is_ok());
            let gone: nfs3::WccRes = client.nfs(&Args::Remove(world.at(name.as_bytes()))).await;
            assert!(gone.is_ok());
        }
        rounds.push(started.elapsed());
    }
    let best_early = rounds[..3].iter().min().unwrap();
    let best_late = rounds[3..].iter().min().unwrap();
    assert!(*best_late < *best_early * 4, "{rounds:?}");
}

#[tokio::test]
async fn n12_n13_forged_handles_are_bad_and_real_ones_outlive_a_restart() {
    let first = world().await;
    let fh = first.root();
    let second = world().await;
    let mut client = second.client().await;
    let attr: nfs3::GetAttrRes = client.nfs(&Args::GetAttr(fh.clone())).await;
    assert!(attr.is_ok(), "the same key opens it");
    let forged = (0..fh.0.len() * 8).map(|bit| {
        let mut bytes = fh.0.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    for bytes in forged.chain((0..=64).filter(|len| *len != fh.0.len()).map(|len| vec![0; len])) {
        let attr: nfs3::GetAttrRes = client.nfs(&Args::GetAttr(Fh(bytes.into()))).await;
        assert!(matches!(attr, Err((nfsstat3::NFS3ERR_BADHANDLE, ()))));
    }
    for args in samples(&Fh(Bytes::from_static(b"x")), &Fh(Bytes::from_static(b"y"))) {
        let xid = next_xid();
        client.send(&nfs_message(xid, &args)).await;
        let mut results = client.results(xid).await;
        if !matches!(args, Args::Null) {
            assert!(matches!(results.get().unwrap(), nfsstat3::NFS3ERR_BADHANDLE), "{args:?}");
        }
    }
    assert_eq!(second.double.changes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn n15_names_that_lead_elsewhere_never_reach_the_volume() {
    let world = world().await;
    let file = world.fh(world.double.file(b"file", vec![]));
    let mut client = world.client().await;
    let long = [b'x'; 256];
    for name in [&b""[..], b"../x", b"/abs", b"a/b", b"a\0b", &long, b".", b".."] {
        let name = Name(Bytes::copy_from_slice(name));
        for args in samples(&world.root(), &file) {
            let args = match args {
                Args::Create(mut a) => {
                    a.at.name = name.clone();
                    Args::Create(a)
                }
                Args::Mkdir(mut a) => {
                    a.at.name = name.clone();
                    Args::Mkdir(a)
                }
                Args::Symlink(mut a) => {
                    a.at.name = name.clone();
                    Args::Symlink(a)
                }
                Args::Remove(mut a) => {
                    a.name = name.clone();
                    Args::Remove(a)
                }
                Args::Rmdir(mut a) => {
                    a.name = name.clone();
                    Args::Rmdir(a)
                }
                Args::Link(mut a) => {
                    a.at.name = name.clone();
                    Args::Link(a)
                }
                Args::Rename(mut a) => {
                    a.to.name = name.clone();
                    Args::Rename(a)
                }
                _ => continue,
            };
            let xid = next_xid();
            client.send(&nfs_message(xid, &args)).await;
            let status: nfsstat3 = client.results(xid).await.get().unwrap();
            assert!(!matches!(status, nfsstat3::NFS3_OK), "{args:?}");
        }
    }
    assert_eq!(world.double.changes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_call_cut_at_every_byte_is_answered_or_closed() {
    let world = world().await;
    let file = world.fh(world.double.file(b"file", b"x".to_vec()));
    let mut client = world.client().await;
    let mut answered = 0;
    for args in samples(&world.root(), &file) {
        let body = nfs_message(7, &args)[4..].to_vec();
        for cut in 0..body.len() {
            client.send(&record(&body[..cut])).await;
            match client.record().await {
                Some(reply) => {
                    let (xid, reply) = rpc::parse_reply(reply).unwrap();
                    let refused =
                        matches!(reply, Reply::Denied(Denial::Auth(_)) | Reply::Accepted(Accept::GarbageArgs, _));
                    assert!(xid == 7 && refused, "{args:?} cut at {cut}: {reply:?}");
                    answered += 1;
                }
                None => client = world.client().await,
            }
        }
    }
    assert!(answered > 1500, "{answered}");
    assert_eq!(world.double.changes.load(Ordering::SeqCst), 0);
    world.serves().await;
}

#[tokio::test]
async fn noise_is_answered_or_closed() {
    let world = world().await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..40 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend_from_slice(&seed.to_le_bytes());
        }
        // Half of it framed as a record, so that it gets past the first door.
        let bytes = if seed.is_multiple_of(2) { record(&bytes) } else { bytes };
        let mut client = world.client().await;
        let _ = client.stream.write_all(&bytes).await;
        let _ = client.stream.shutdown().await;
        let _ = client.record().await;
    }
    world.serves().await;
}

#[tokio::test]
async fn other_credentials_are_too_weak() {
    let world = world().await;
    let mut client = world.client().await;
    for flavour in [2u32, 3, 6] {
        let mut body = nfs_message(7, &Args::Null)[4..].to_vec();
        body[24..28].copy_from_slice(&flavour.to_be_bytes());
        client.send(&record(&body)).await;
        let (_, reply) = client.reply().await;
        assert!(matches!(reply, Reply::Denied(Denial::Auth(AuthStat::TooWeak))));
    }
    let mut body = nfs_message(7, &Args::Null)[4..].to_vec();
    body[11] = 3;
    client.send(&record(&body)).await;
    assert!(matches!(client.reply().await.1, Reply::Denied(Denial::RpcMismatch)));
}

#[tokio::test]
async fn at_the_bound_of_calls_a_connection_waits_and_others_are_served() {
    let limits = Limits { calls_per_connection: 4, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let mut client = world.client().await;
    for i in 0..20 {
        client.send(&nfs_message(next_xid(), &world.create(format!("slow{i}").as_bytes()))).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let running = world.shared.limits.calls_all as usize - world.shared.calls.available_permits();
    assert_eq!(running, 4);
    world.serves().await;
    world.double.gate.add_permits(20);
    for _ in 0..20 {
        client.reply().await;
    }
}

#[tokio::test]
async fn large_records_wait_for_their_budget_and_are_all_served() {
    let limits = Limits { request_bytes_all: 1 << 20, reply_bytes_all: 1 << 20, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let node = world.double.file(b"f", vec![0; 1 << 20]);
    let file = world.fh(node);
    let mut tasks = Vec::new();
    for i in 0..8u64 {
        let mut client = world.client().await;
        let data = nfs3::Data(vec![u8::try_from(i).unwrap(); 300_000].into());
        let write = nfs3::WriteArgs {
            file: file.clone(),
            offset: i * 300_000,
            count: 300_000,
            stable: nfs3::Stable::FileSync,
            data,
        };
        let read = ReadArgs { file: file.clone(), offset: 0, count: 1 << 20 };
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                let res: nfs3::WriteRes = client.nfs(&Args::Write(write.clone())).await;
                assert!(res.is_ok());
                let res: ReadRes = client.nfs(&Args::Read(read.clone())).await;
                assert_eq!(res.unwrap().count, 1 << 20);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.shared.request_bytes.available_permits(), 1 << 20, "all is given back");
    assert_eq!(world.shared.reply_bytes.available_permits(), 1 << 20, "all is given back");
}

/// Loopback is known to every policy: the strangers are in the seats alone.
#[tokio::test]
async fn strangers_that_keep_their_seats_busy_keep_no_client_out() {
    let limits = Limits { connections_max: 8, ..Limits::default() };
    let world = world_with(limits.clone(), Drc::default()).await;
    for n in 0..100 {
        match world.shared.seats.admit([10, 0, 0, n].into(), false, &limits) {
            Admission::Seated(seat) | Admission::SeatedAfterEviction(seat) => {
                seat.slots.try_acquire().unwrap().forget();
            }
            Admission::TurnedAway => {}
        }
    }
    let mut busy = Vec::new();
    for i in 0..8 {
        let mut client = world.client().await;
        let xid = next_xid();
        client.send(&nfs_message(xid, &world.create(format!("slow{i}").as_bytes()))).await;
        busy.push((client, xid));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.double.gate.add_permits(8);
    for (mut client, xid) in busy {
        client.results(xid).await;
    }
    assert_eq!(world.stats.turned_away.load(Ordering::Relaxed), 0);
}

/// A client whose address is `from`, and who takes little at a time.
async fn client_from(world: &World, from: [u8; 4]) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.bind((from, 0).into()).unwrap();
    Client { stream: socket.connect(world.addr).await.unwrap() }
}

/// What a client asks, who is served soon or not at all.
async fn soon<T: Wire>(client: &mut Client, args: &Args) -> T {
    tokio::time::timeout(Duration::from_secs(5), client.nfs(args)).await.expect("served within 5 s")
}

#[tokio::test]
async fn readers_that_never_read_keep_no_other_address_from_reading() {
    let limits = Limits { reply_bytes_all: 16 << 20, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let file = world.fh(world.double.file(b"big", vec![1; 1 << 20]));
    let read = |count| Args::Read(ReadArgs { file: file.clone(), offset: 0, count });
    let mut greedy = Vec::new();
    for _ in 0..6 {
        let mut client = client_from(&world, [127, 0, 0, 1]).await;
        client.send(&nfs_message(9, &read(1 << 20)).repeat(16)).await;
        greedy.push(client);
    }
    // Until no further reply has room in their share, and the kernel takes no more.
    let mut left = 0;
    while left != world.shared.reply_bytes.available_permits() || left > 13 << 20 {
        left = world.shared.reply_bytes.available_permits();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut other = client_from(&world, [127, 0, 0, 2]).await;
    for _ in 0..20 {
        let res: ReadRes = soon(&mut other, &read(64 << 10)).await;
        assert_eq!(res.unwrap().count, 64 << 10);
    }
    assert_eq!(world.shared.shares.len(), 2);
    drop((greedy, other));
    while world.shared.shares.len() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.shared.reply_bytes.available_permits(), 16 << 20, "all is given back");
}

#[tokio::test]
async fn writers_that_send_half_keep_no_other_address_from_writing() {
    let limits = Limits { request_bytes_all: 8 << 20, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let file = world.fh(world.double.file(b"f", vec![]));
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let mut client = client_from(&world, [127, 0, 0, 1]).await;
        client.send(&mark(1 << 20, true)).await;
        client.send(&[0; 1000]).await;
        greedy.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = client_from(&world, [127, 0, 0, 2]).await;
    let data = nfs3::Data(vec![7; 64 << 10].into());
    let write = nfs3::WriteArgs { file, offset: 0, count: 64 << 10, stable: nfs3::Stable::FileSync, data };
    let res: nfs3::WriteRes = soon(&mut other, &Args::Write(write)).await;
    assert!(res.is_ok());
}

/// As calls do that all wait for the lock of one file.
#[tokio::test]
async fn calls_that_wait_keep_no_other_address_from_being_served() {
    let limits = Limits { calls_all: 16, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let mut greedy = Vec::new();
    for i in 0..10 {
        let mut client = client_from(&world, [127, 0, 0, 1]).await;
        for j in 0..5 {
            client.send(&nfs_message(next_xid(), &world.create(format!("slow{i}-{j}").as_bytes()))).await;
        }
        greedy.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = client_from(&world, [127, 0, 0, 2]).await;
    for _ in 0..20 {
        let res: nfs3::GetAttrRes = soon(&mut other, &Args::GetAttr(world.root())).await;
        assert!(res.is_ok());
    }
    assert_eq!(world.shared.calls.available_permits(), 12, "a quarter of all");
    world.double.gate.add_permits(50);
    for client in &mut greedy {
        for _ in 0..5 {
            client.reply().await;
        }
    }
    assert_eq!(world.shared.calls.available_permits(), 16, "all are given back");
}

/// A client that connects from an address that this machine does not have.
async fn client_as(world: &World, peer: &str) -> (Client, Arc<Seat>) {
    let peer: SocketAddr = peer.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let connecting = socket.connect(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(connecting, listener.accept());
    let shared = world.shared.clone();
    let known = know(&shared.backend.state(), peer);
    let (Admission::Seated(seat) | Admission::SeatedAfterEviction(seat)) =
        shared.seats.admit(peer.ip(), known, &shared.limits)
    else {
        panic!("turned away");
    };
    tokio::spawn(connection::serve(shared, accepted.unwrap().0, peer, seat.clone(), world.stop.subscribe()));
    (Client { stream: stream.unwrap() }, seat)
}

fn let_in(world: &World, rules: &[&str]) {
    *world.double.state.lock() = Arc::new(super::super::access::tests::state(rules));
}

#[tokio::test]
async fn one_that_a_policy_lets_in_while_it_is_connected_is_a_client_in_every_bound() {
    let limits = Limits { reply_bytes_per_connection: 2 << 20, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let file = world.fh(world.double.file(b"big", vec![1; 1 << 20]));
    let_in(&world, &["10.0.0.0/8=none"]);
    let get = Args::GetAttr(world.root());
    let (mut reader, seat) = client_as(&world, "10.0.0.1:700").await;
    let (mut writer, _) = client_as(&world, "10.0.0.1:701").await;
    let refused: nfs3::GetAttrRes = reader.nfs(&get).await;
    assert!(matches!(refused, Err((nfsstat3::NFS3ERR_ACCES, ()))) && !seat.known());

    let_in(&world, &["10.0.0.0/8=rw"]);
    let read = nfs_message(9, &Args::Read(ReadArgs { file, offset: 0, count: 1 << 20 }));
    reader.send(&read.repeat(40)).await;
    writer.send(&mark(1 << 20, true)).await;
    let held = || world.shared.limits.request_bytes_all as usize - world.shared.request_bytes.available_permits();
    let begun = std::time::Instant::now();
    while held() < 1 << 20 || world.double.reads.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} bytes of requests held", held());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ran = world.double.reads.load(Ordering::SeqCst);
    assert!(ran < 20, "{ran} of 40 ran, and none of their replies was read");
    assert!(seat.known());
    let strangers = world.shared.limits.stranger_bytes_all as usize;
    assert_eq!(world.shared.stranger_bytes.available_permits(), strangers);
}

/// As where a policy asks for a privileged port, and a program of the client's machine has none.
#[tokio::test]
async fn a_strangers_programs_on_a_clients_machine_do_not_keep_the_client_from_writing() {
    let limits = Limits { request_bytes_all: 8 << 20, stranger_bytes_all: 4 << 20, ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let file = world.fh(world.double.file(b"f", vec![]));
    let_in(&world, &["10.0.0.0/8=rw"]);
    let mut strangers = Vec::new();
    for port in 5000..5020 {
        let (mut stranger, _) = client_as(&world, &format!("10.0.0.1:{port}")).await;
        stranger.send(&mark(1 << 20, true)).await;
        strangers.push(stranger);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut client, _) = client_as(&world, "10.0.0.1:700").await;
    let data = nfs3::Data(vec![7; 64 << 10].into());
    let write = nfs3::WriteArgs { file, offset: 0, count: 64 << 10, stable: nfs3::Stable::FileSync, data };
    let res: nfs3::WriteRes = soon(&mut client, &Args::Write(write)).await;
    assert!(res.is_ok());
    assert!(
        world.shared.stranger_bytes.available_permits() >= 3 << 20,
        "one address has a part of the strangers' bytes"
    );
}
