//! Data and attributes.

use super::*;

#[tokio::test]
async fn what_is_written_is_read_and_its_record_comes_first() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    assert_eq!(w.write(&user(), file, 3, "abc").await, Ok(3));
    assert_eq!(w.read(file).await, b"\0\0\0abc");
    let events = w.events();
    let (lsn, Event::Write(write)) = events.iter().find(|(_, e)| matches!(e, Event::Write(_))).unwrap() else {
        panic!()
    };
    assert_eq!((write.node, write.offset, write.len, write.location), (file.node, 3, 3, PRIMARY));
    let attr = w.volume.getattr(file).await.unwrap();
    assert!(attr.mtime > Time(1) && attr.mtime == attr.ctime, "the record's time, not the filer's");
    assert!(*lsn > Lsn(0));
    w.assert_at_rest().await;
}

#[tokio::test]
async fn writes_side_by_side_all_arrive_and_no_wcc_claims_more_than_it_knows() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..32u64 {
        let volume = w.volume.clone();
        tasks.spawn(async move {
            let data = Bytes::from(vec![u8::try_from(i).unwrap(); 100]);
            volume.write(&user(), file, i * 100, data).await.map(|(_, wcc)| wcc)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let wcc = done.unwrap().unwrap();
        assert!(wcc.after.is_some());
    }
    let data = w.read(file).await;
    assert!((0..32u8).all(|i| data[usize::from(i) * 100..][..100].iter().all(|b| *b == i)));
    assert_eq!(data.len(), 3200);
    let (_, wcc) = w.volume.write(&user(), file, 0, Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(wcc.before.map(|b| b.size), Some(3200), "alone, it knows");
    w.assert_at_rest().await;
}

#[tokio::test]
async fn a_write_of_nothing_has_no_record_and_one_past_the_largest_size_is_refused() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    assert_eq!(w.write(&user(), file, 5, "").await, Ok(0));
    assert_eq!(w.write(&user(), file, FILE_SIZE_MAX, "x").await, Err(Status::FBig));
    assert_eq!(w.write(&user(), file, u64::MAX, "x").await, Err(Status::FBig));
    assert_eq!(w.count(|e| matches!(e, Event::Write(_))), 0);
    assert_eq!(w.volume.getattr(file).await.unwrap().size, 0);
}

/// As on a file system that has ACLs and no `user.*`.
#[tokio::test]
async fn an_acl_decides_also_where_there_are_no_other_extended_attributes() {
    let mut options = MemoryOptions::default();
    options.capabilities.xattrs = false;
    let w = world_of(Memory::new(options)).await;
    let file = w.create(&root(), "f").await;
    let allowed = async || w.write(&user(), file, 0, "x").await;
    // u::rw- u:1000:rw- g::--- m::rw- o::r--
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 6, USER), (4, 0, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    assert_eq!(allowed().await, Err(Status::Access));
    w.filer.set_xattr(&w.object(file).await, b"system.posix_acl_access", &acl).await.unwrap();
    assert_eq!(allowed().await, Ok(1));
}

#[tokio::test]
async fn a_stranger_neither_reads_nor_writes_and_leaves_no_record() {
    let w = world().await;
    let file = w.create(&root(), "f").await;
    let attrs = SetAttrs { mode: Some(0o600), ..SetAttrs::default() };
    w.volume.setattr(&root(), file, attrs, None).await.unwrap();
    let before = w.operations();
    assert_eq!(w.write(&user(), file, 0, "x").await, Err(Status::Access));
    let read = w.volume.read(&user(), file, 0, 10).await;
    assert_eq!(read.unwrap_err().status, Status::Access);
    let chmod = w.volume.setattr(&user(), file, mode(0o666), None).await;
    assert_eq!(chmod.unwrap_err().status, Status::Perm);
    assert_eq!(w.operations(), before);
}

#[tokio::test]
async fn writing_by_another_clears_set_id_bits_on_filer_and_in_the_record() {
    let w = world().await;
    let file = w.create(&root(), "f").await;
    w.volume.setattr(&root(), file, mode(0o6777), None).await.unwrap();
    assert_eq!(w.write(&user(), file, 0, "x").await, Ok(1));
    assert_eq!(w.volume.getattr(file).await.unwrap().mode, 0o777);
    assert_eq!(w.count(|e| matches!(e, Event::Write(write) if write.mode == Some(0o777))), 1);
}

#[tokio::test]
async fn reads_say_where_the_file_ends() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    w.write(&user(), file, 0, "0123456789").await.unwrap();
    let read = async |offset, len| {
        let ok = w.volume.read(&user(), file, offset, len).await.unwrap();
        (ok.data.to_vec(), ok.eof)
    };
    assert_eq!(read(0, 4).await, (b"0123".to_vec(), false));
    assert_eq!(read(6, 4).await, (b"6789".to_vec(), true));
    assert_eq!(read(6, 100).await, (b"6789".to_vec(), true));
    assert_eq!(read(10, 1).await, (vec![], true));
    assert_eq!(read(u64::MAX, 1).await, (vec![], true));
    assert_eq!(read(0, 0).await, (vec![], false));
}

/// Told of an end that is none, a kernel takes what lies behind it for zeros.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_that_a_read_of_a_growing_file_tells_is_that_of_its_attributes() {
    let w = Arc::new(world().await);
    let file = w.create(&user(), "log").await;
    let (writer, ends) = (w.clone(), 3000);
    let appends = tokio::spawn(async move {
        for n in 0..ends {
            writer.write(&user(), file, n * 10, "0123456789").await.unwrap();
        }
    });
    let mut at = 0;
    while at < ends * 10 {
        let read = w.volume.read(&user(), file, at, 65_536).await.unwrap();
        let end = at + read.data.len() as u64;
        let size = read.attr.unwrap().size;
        assert_eq!(read.eof, end >= size, "{end} of {size}");
        at = end;
    }
    appends.await.unwrap();
}

#[tokio::test]
async fn a_guarded_setattr_notices_what_the_client_has_not_seen() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let seen = w.volume.getattr(file).await.unwrap().ctime;
    w.write(&user(), file, 0, "x").await.unwrap();
    let size = SetAttrs { size: Some(0), ..SetAttrs::default() };
    assert_eq!(w.volume.setattr(&user(), file, size, Some(seen)).await.unwrap_err().status, Status::NotSync);
    let seen = w.volume.getattr(file).await.unwrap().ctime;
    let wcc = w.volume.setattr(&user(), file, size, Some(seen)).await.unwrap();
    assert_eq!((wcc.before.unwrap().size, wcc.after.unwrap().size), (1, 0));
}

#[tokio::test]
async fn times_can_be_set_to_any_and_are_kept_in_the_index_and_on_the_filer() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let old = Time(1_000_000_007);
    let times = SetAttrs { mtime: SetTime::Client(old), atime: SetTime::Client(old), ..SetAttrs::default() };
    w.volume.setattr(&user(), file, times, None).await.unwrap();
    let attr = w.volume.getattr(file).await.unwrap();
    assert_eq!((attr.mtime, attr.atime), (old, old));
    assert!(attr.ctime > old);
    let stat = w.filer.stat(&w.object(file).await).await.unwrap();
    assert_eq!(stat.mtime, old);
}

#[tokio::test]
async fn a_setattr_of_nothing_is_no_event() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    let before = w.operations();
    assert!(w.volume.setattr(&user(), file, SetAttrs::default(), None).await.is_ok());
    assert_eq!(w.operations(), before);
}

#[tokio::test]
async fn a_filer_that_cannot_give_files_away_makes_them_the_services_and_refuses_chown() {
    let capabilities = crate::filer::Capabilities { chown: false, ..MemoryOptions::default().capabilities };
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let filer = Memory::new(MemoryOptions { capabilities, uid: own.0, gid: own.1, ..MemoryOptions::default() });
    let w = world_of(filer).await;
    let stranger = Call { uid: own.0 + 5, gid: own.1 + 5, ..root() };
    let file = w.create(&stranger, "f").await;
    let attr = w.volume.getattr(file).await.unwrap();
    assert_eq!((attr.uid, attr.gid), own);
    let chown = SetAttrs { uid: Some(77), ..SetAttrs::default() };
    assert_eq!(w.volume.setattr(&root(), file, chown, None).await.unwrap_err().status, Status::Perm);
}

#[tokio::test]
async fn commit_has_nothing_to_do_and_knows_the_file() {
    let w = world().await;
    let file = w.create(&user(), "f").await;
    assert!(w.volume.commit(&user(), file).await.is_ok_and(|wcc| wcc.after.is_some()));
    let gone = NodeRef { junction: J, node: NodeId(9999) };
    assert_eq!(w.volume.commit(&user(), gone).await.unwrap_err().status, Status::Stale);
}
