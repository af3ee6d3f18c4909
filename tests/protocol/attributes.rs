//! GETATTR, SETATTR, ACCESS, FSSTAT, FSINFO, PATHCONF, NULL, and who may do what.

use crate::support::{Served, expect, is_root, name};
use std::os::unix::fs::MetadataExt as _;
use tain::demo::client::Cred;
use tain::demo::nfs::{Attr, Call, Fh, How, SetAttrs, SetTime, status};

async fn file(s: &Served, mode: u32) -> (Fh, Attr) {
    let how = How::Guarded(SetAttrs::mode(mode));
    let reply = s.ok(Call::Create { dir: s.root.clone(), name: name("f"), how }).await;
    (reply.fh.unwrap(), reply.attr.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn null_fsstat_fsinfo_and_pathconf_answer() {
    let s = Served::new().await;
    s.ok(Call::Null).await;
    let node = s.root.clone();
    let stat = s.ok(Call::FsStat { node: node.clone() }).await.fsstat;
    assert!(stat.bytes[0] > 0 && stat.bytes[1] <= stat.bytes[0] && stat.bytes[2] <= stat.bytes[1]);
    let info = s.ok(Call::FsInfo { node: node.clone() }).await.fsinfo;
    assert!(info.rtmax >= 65536 && info.wtmax >= 65536 && info.dtpref > 0 && info.maxfilesize > 1 << 40);
    // FSF_LINK, SYMLINK, HOMOGENEOUS, CANSETTIME
    assert_eq!(info.properties, 0x1b);
    let conf = s.ok(Call::PathConf { node }).await.pathconf;
    assert!(conf.name_max == 255 && conf.no_trunc && !conf.case_insensitive && conf.case_preserving);
    assert!(conf.linkmax > 1 && conf.chown_restricted);
}

#[tokio::test(flavor = "multi_thread")]
async fn setattr_sets_what_it_is_asked_and_the_guard_holds() {
    let s = Served::new().await;
    let (f, attr) = file(&s, 0o644).await;
    let call = |attrs, guard| Call::SetAttr { node: f.clone(), attrs, guard };
    s.status(call(SetAttrs::mode(0o600), Some(attr.ctime - 1)), status::NOT_SYNC).await;
    assert_eq!(s.ok(Call::GetAttr { node: f.clone() }).await.attr.unwrap().mode, 0o644);
    s.ok(call(SetAttrs::mode(0o600), Some(attr.ctime))).await;
    let times = SetAttrs {
        atime: SetTime::Client(1_000_000_000_123_456_000),
        mtime: SetTime::Client(1_100_000_000_654_321_000),
        ..SetAttrs::default()
    };
    s.ok(call(times, None)).await;
    let got = s.ok(Call::GetAttr { node: f.clone() }).await.attr.unwrap();
    assert_eq!((got.mode, got.mtime), (0o600, 1_100_000_000_654_321_000));
    assert!(got.ctime > attr.ctime);
    s.ok(call(SetAttrs { mtime: SetTime::Server, ..SetAttrs::default() }, None)).await;
    assert!(s.ok(Call::GetAttr { node: f.clone() }).await.attr.unwrap().mtime > got.mtime);
    let owner = SetAttrs { uid: Some(4242), gid: Some(4343), ..SetAttrs::default() };
    if is_root() {
        s.ok(call(owner, None)).await;
        let meta = std::fs::metadata(s.export().join("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4242, 4343));
    } else {
        s.status(call(owner, None), status::PERM).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_times_do_not_go_back_and_change_only_when_something_did() {
    let s = Served::new().await;
    let (f, first) = file(&s, 0o644).await;
    for _ in 0..3 {
        let now = s.ok(Call::GetAttr { node: f.clone() }).await.attr.unwrap();
        assert_eq!((now.mtime, now.ctime, now.fileid), (first.mtime, first.ctime, first.fileid));
        s.ok(Call::Read { node: f.clone(), offset: 0, count: 10 }).await;
    }
    let data = bytes::Bytes::from_static(b"x");
    let wcc = s.ok(Call::Write { node: f.clone(), offset: 0, stable: 2, data }).await.wcc;
    let after = wcc.after.unwrap();
    assert!(after.mtime > first.mtime && after.ctime > first.ctime);
    let before = wcc.before.expect("wcc says what was before");
    assert_eq!((before.mtime, before.ctime, before.size), (first.mtime, first.ctime, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_bits_decide_what_a_stranger_may_do() {
    let s = Served::new().await;
    let (f, _) = file(&s, 0o640).await;
    let stranger = s.client.with_cred(Cred { uid: 54_321, gid: 54_321, gids: vec![] });
    let access = |node: &Fh| Call::Access { node: node.clone(), mask: 0x3f };
    let (read, modify) = (0x01, 0x04 | 0x08);
    assert_eq!(expect(&s.client, access(&f), status::OK).await.access & (read | modify), read | modify);
    assert_eq!(expect(&stranger, access(&f), status::OK).await.access & (read | modify), 0);
    expect(&stranger, Call::Read { node: f.clone(), offset: 0, count: 1 }, status::ACCES).await;
    let data = bytes::Bytes::from_static(b"x");
    expect(&stranger, Call::Write { node: f.clone(), offset: 0, stable: 2, data }, status::ACCES).await;
    let attrs = SetAttrs::mode(0o777);
    expect(&stranger, Call::SetAttr { node: f.clone(), attrs, guard: None }, status::PERM).await;
    s.ok(Call::SetAttr { node: s.root.clone(), attrs: SetAttrs::mode(0o755), guard: None }).await;
    let how = How::Guarded(attrs);
    expect(&stranger, Call::Create { dir: s.root.clone(), name: name("mine"), how }, status::ACCES).await;
    expect(&stranger, Call::Remove { dir: s.root.clone(), name: name("f") }, status::ACCES).await;
    assert!(s.export().join("f").exists());
}
