use super::*;
use crate::volume::types::{FILE_SIZE_MAX, READ_MAX, WRITE_MAX};
use crate::wire::nfs3::*;
use nfsserve::nfs::{nfsstat3, post_op_attr};

fn status(record: Reader) -> u32 {
    record.clone().u32().unwrap()
}

#[tokio::test]
async fn all_procedures_are_served_in_turn_over_one_connection() {
    let world = world().await;
    let file = world.fh(world.double.file(b"file", b"content".to_vec()));
    let mut client = world.client().await;
    let mut seen = std::collections::BTreeSet::new();
    for args in samples(&world.root(), &file) {
        let xid = next_xid();
        client.send(&nfs_message(xid, &args)).await;
        let results = client.results(xid).await;
        seen.insert(args.procedure());
        let expected = match &args {
            Args::Null => {
                assert!(results.rest().is_empty());
                continue;
            }
            Args::Mknod(MknodArgs { what: MknodData::Other(_), .. }) => nfsstat3::NFS3ERR_BADTYPE as u32,
            _ => 0,
        };
        assert_eq!(status(results), expected, "{args:?}");
    }
    assert_eq!(seen.len(), 22);
    let call = world.double.last_call.lock().clone().unwrap();
    assert_eq!((call.uid, call.gid, call.gids), (1000, 100, vec![4, 5]));
    assert!(call.addr.is_loopback() && call.port != 0);
}

#[tokio::test]
async fn data_written_is_read_back_and_the_largest_fits() {
    let world = world().await;
    let node = world.double.file(b"f", vec![]);
    let file = world.fh(node);
    let mut client = world.client().await;
    let data: Vec<u8> = (0..WRITE_MAX).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let write = WriteArgs {
        file: file.clone(),
        offset: 3,
        count: WRITE_MAX,
        stable: Stable::Unstable,
        data: Data(data.clone().into()),
    };
    let written: WriteRes = client.nfs(&Args::Write(write)).await;
    let written = written.unwrap();
    assert_eq!((written.count, written.committed), (WRITE_MAX, Stable::FileSync));
    assert_eq!(&written.verifier, b"01234567");
    assert_eq!(&world.double.data(node)[3..], &data[..]);
    for (offset, count) in [(3, READ_MAX), (3, u32::MAX), (0, 5), (4, 7), (u64::MAX, 9)] {
        let read: ReadRes = client.nfs(&Args::Read(ReadArgs { file: file.clone(), offset, count })).await;
        let read = read.unwrap();
        let from = usize::try_from(offset.min(3 + u64::from(WRITE_MAX))).unwrap();
        let to = (from + count.min(READ_MAX) as usize).min(data.len() + 3);
        assert_eq!(read.data.0, world.double.data(node)[from..to]);
        assert_eq!(read.count as usize, to - from);
        assert_eq!(read.eof, to == data.len() + 3);
    }
    let committed: CommitRes = client.nfs(&Args::Commit(CommitArgs { file, offset: 0, count: 0 })).await;
    assert_eq!(committed.unwrap().1, written.verifier);
}

#[tokio::test]
async fn a_write_past_the_largest_file_is_too_big() {
    let world = world().await;
    let file = world.fh(world.double.file(b"f", vec![]));
    let mut client = world.client().await;
    for offset in [FILE_SIZE_MAX, u64::MAX, u64::MAX - 2] {
        let data = Data(Bytes::from_static(b"hello"));
        let args = WriteArgs { file: file.clone(), offset, count: 5, stable: Stable::FileSync, data };
        let res: WriteRes = client.nfs(&Args::Write(args)).await;
        assert!(matches!(res, Err((nfsstat3::NFS3ERR_FBIG, _))), "{res:?}");
    }
}

#[tokio::test]
async fn limits_and_constants_are_as_stated() {
    let world = world().await;
    let mut client = world.client().await;
    let info: FsInfoRes = client.nfs(&Args::FsInfo(world.root())).await;
    let info = info.unwrap();
    assert_eq!((info.rtmax, info.wtmax, info.dtpref, info.properties), (1 << 20, 1 << 20, 64 << 10, 0x1b));
    assert_eq!((info.maxfilesize, info.time_delta.nseconds), (FILE_SIZE_MAX, 1));
    assert!(matches!(info.obj_attributes, post_op_attr::attributes(_)));
    let conf: PathConfRes = client.nfs(&Args::PathConf(world.root())).await;
    let conf = conf.unwrap();
    assert_eq!((conf.name_max, conf.no_trunc, conf.chown_restricted), (255, true, true));
    assert_eq!((conf.case_insensitive, conf.case_preserving), (false, true));
}

#[tokio::test]
async fn what_does_not_exist_is_said_as_rpc_says_it() {
    let world = world().await;
    let mut client = world.client().await;
    for (program, version, procedure, expected) in [
        (nfs3::PROGRAM, 3, 22, Accept::ProcUnavail),
        (nfs3::PROGRAM, 4, 0, Accept::ProgMismatch { low: 3, high: 3 }),
        (nfs3::PROGRAM, 2, 1, Accept::ProgMismatch { low: 3, high: 3 }),
        (crate::wire::mount::PROGRAM, 1, 1, Accept::ProgMismatch { low: 3, high: 3 }),
        (crate::wire::mount::PROGRAM, 3, 6, Accept::ProcUnavail),
        (100_000, 2, 3, Accept::ProgUnavail),
        (nfs3::PROGRAM, 3, 1, Accept::GarbageArgs),
        (nfs3::PROGRAM, 3, 0, Accept::Success),
    ] {
        let xid = next_xid();
        let header = CallHeader { xid, program, version, procedure, credential: Credential::None };
        client.send(&rpc::call(&header).finish().to_vec()).await;
        let (got, reply) = client.reply().await;
        assert_eq!(got, xid);
        assert!(matches!(reply, Reply::Accepted(a, _) if a == expected), "{program} {version} {procedure}: {reply:?}");
    }
}

#[tokio::test]
async fn calls_of_one_connection_run_side_by_side_and_are_answered_as_they_end() {
    let world = world().await;
    let mut client = world.client().await;
    let (slow, quick) = (next_xid(), next_xid());
    client.send(&nfs_message(slow, &world.create(b"slow"))).await;
    client.send(&nfs_message(quick, &Args::GetAttr(world.root()))).await;
    client.results(quick).await;
    world.double.gate.add_permits(1);
    client.results(slow).await;
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_accepts_no_more() {
    let world = world().await;
    let mut client = world.client().await;
    let xid = next_xid();
    client.send(&nfs_message(xid, &world.create(b"slow"))).await;
    while world.shared.calls.available_permits() == world.shared.limits.calls_all as usize {
        tokio::task::yield_now().await;
    }
    world.stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!world.served.is_finished(), "a call is in flight");
    assert!(TcpStream::connect(world.addr).await.is_err());
    world.double.gate.add_permits(1);
    client.results(xid).await;
    assert!(client.is_closed().await);
    tokio::time::timeout(Duration::from_secs(5), world.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let limits = Limits { drain_deadline: Duration::from_millis(100), ..Limits::default() };
    let world = world_with(limits, Drc::default()).await;
    let mut client = world.client().await;
    client.send(&nfs_message(next_xid(), &world.create(b"slow"))).await;
    while world.shared.calls.available_permits() == world.shared.limits.calls_all as usize {
        tokio::task::yield_now().await;
    }
    world.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), world.served).await.unwrap().unwrap();
}
