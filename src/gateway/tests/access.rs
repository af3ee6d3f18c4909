//! Who is let in, and what those who are not may learn.

use super::*;
use crate::gateway::locks::Ends;
use crate::wire::mount::{self, ExportEntry, MountEntry, MountStat, Mounted, Text, get_list};
use crate::wire::nfs3::{CreateHow3, samples};
use crate::wire::rpc::parse_reply;
use nfsserve::nfs::{nfsstat3, post_op_attr};

fn text(path: &str) -> Text {
    Text(path.as_bytes().to_vec().into())
}

/// The reply to a call as if it came from `peer`.
async fn answer(world: &World, peer: &str, program: u32, procedure: u32, args: Bytes) -> Reader {
    let xid = next_xid();
    let header = CallHeader { xid, program, version: 3, procedure, credential: Credential::None };
    let frame = world.shared.answer(Ends { peer: peer.parse().unwrap(), local: None }, header, Reader::new(args)).await;
    match parse_reply(Bytes::from(frame.to_vec()).slice(4..)).unwrap() {
        (got, Reply::Accepted(Accept::Success, results)) if got == xid => results,
        other => panic!("{other:?}"),
    }
}

fn encoded(args: &Args) -> Bytes {
    let mut w = crate::wire::xdr::Writer::default();
    args.put(&mut w);
    Bytes::from(w.finish().to_vec()).slice(4..)
}

const STRANGERS: [&str; 4] = ["10.1.2.3:800", "[2001:db8::1]:800", "[::ffff:10.0.0.1]:5000", "192.168.0.1:1023"];

#[tokio::test]
async fn a_stranger_is_refused_at_every_call_and_nothing_runs() {
    let world = world().await;
    let node = world.double.file(b"file", vec![]);
    let (good, bad) = (world.fh(node), Fh(Bytes::from_static(b"forged")));
    for peer in STRANGERS {
        for args in samples(&world.root(), &good).into_iter().chain(samples(&bad, &bad)) {
            let mut results = answer(&world, peer, nfs3::PROGRAM, args.procedure(), encoded(&args)).await;
            if !matches!(args, Args::Null) {
                let status: nfsstat3 = results.get().unwrap();
                assert!(matches!(status, nfsstat3::NFS3ERR_ACCES), "{peer} {args:?}: {status:?}");
            }
        }
    }
    assert_eq!(world.double.changes.load(Ordering::SeqCst), 0);
    assert_eq!(world.double.reads.load(Ordering::SeqCst), 0);
    assert!(world.shared.drc.is_empty(), "a stranger cannot fill the cache");
}

#[tokio::test]
async fn a_stranger_cannot_mount_and_sees_no_difference_between_absent_and_forbidden() {
    let world = world().await;
    world.client().await.mount(&mount::Args::Mnt(text("/j"))).await;
    for peer in STRANGERS {
        for path in ["/", "/j", "/j/absent", "/absent", "", &"/x".repeat(2000)] {
            let mut w = crate::wire::xdr::Writer::default();
            w.put(&text(path));
            let args = Bytes::from(w.finish().to_vec()).slice(4..);
            let mounted: Mounted = answer(&world, peer, mount::PROGRAM, 1, args).await.get().unwrap();
            assert_eq!(mounted, Mounted::Refused(MountStat::Access), "{peer} {path:.20}");
        }
        let mut exports = answer(&world, peer, mount::PROGRAM, 5, Bytes::new()).await;
        assert!(get_list::<ExportEntry>(&mut exports, 9).unwrap().is_empty());
        let mut dump = answer(&world, peer, mount::PROGRAM, 2, Bytes::new()).await;
        assert!(get_list::<MountEntry>(&mut dump, 9).unwrap().is_empty());
    }
}

#[tokio::test]
async fn every_way_to_write_loopback_is_let_in() {
    let world = world().await;
    let args = Args::GetAttr(world.root());
    for peer in ["127.0.0.1:5", "127.9.9.9:60000", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
        let mut results = answer(&world, peer, nfs3::PROGRAM, 1, encoded(&args)).await;
        assert!(results.get::<nfs3::GetAttrRes>().unwrap().is_ok(), "{peer}");
    }
}

#[tokio::test]
async fn callers_without_credentials_are_nobody() {
    let world = world().await;
    let how = CreateHow3::Exclusive([1; 8]);
    let args = Args::Create(nfs3::CreateArgs { at: world.at(b"mine"), how });
    let mut results = answer(&world, "127.0.0.1:5", nfs3::PROGRAM, args.procedure(), encoded(&args)).await;
    assert!(results.get::<nfs3::MakeRes>().unwrap().is_ok());
    let call = world.double.last_call.lock().clone().unwrap();
    assert_eq!((call.uid, call.gid, call.gids), (65534, 65534, vec![]));
}

#[tokio::test]
async fn mounting_gives_handles_that_work_and_lists_say_so() {
    let world = world().await;
    world.double.file(b"sub", vec![]);
    let mut client = world.client().await;
    for path in ["/", "/j", "/j/sub"] {
        let mounted: Mounted = client.mount(&mount::Args::Mnt(text(path))).await.get().unwrap();
        let Mounted::Ok(fh, flavours) = mounted else { panic!("{path}: {mounted:?}") };
        assert_eq!(flavours, [1]);
        let attr: nfs3::GetAttrRes = client.nfs(&Args::GetAttr(fh)).await;
        assert!(attr.is_ok());
    }
    for (path, stat) in [("/absent", MountStat::NoEnt), (&*"/x".repeat(600), MountStat::NameTooLong)] {
        let mounted: Mounted = client.mount(&mount::Args::Mnt(text(path))).await.get().unwrap();
        assert_eq!(mounted, Mounted::Refused(stat));
    }
    let exports: Vec<ExportEntry> = get_list(&mut client.mount(&mount::Args::Export).await, 9).unwrap();
    assert_eq!(exports.iter().map(|e| e.path.clone()).collect::<Vec<_>>(), [text("/"), text("/j")]);
    let dump = |mut r: Reader| -> Vec<Text> {
        get_list::<MountEntry>(&mut r, 999).unwrap().into_iter().map(|e| e.path).collect()
    };
    assert_eq!(dump(client.mount(&mount::Args::Dump).await), [text("/"), text("/j"), text("/j/sub")]);
    client.mount(&mount::Args::Umnt(text("/j"))).await;
    assert_eq!(dump(client.mount(&mount::Args::Dump).await), [text("/"), text("/j/sub")]);
    client.mount(&mount::Args::UmntAll).await;
    assert!(dump(client.mount(&mount::Args::Dump).await).is_empty());
    for i in 0..400 {
        world.double.file(format!("d{i}").as_bytes(), vec![]);
        client.mount(&mount::Args::Mnt(text(&format!("/j/d{i}")))).await;
    }
    assert_eq!(dump(client.mount(&mount::Args::Dump).await).len(), Limits::MOUNTS_MAX);
}

#[tokio::test]
async fn a_mount_waits_for_a_primary_that_is_coming_up() {
    let world = world().await;
    let mut client = world.client().await;
    let comes = async {
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        world.double.gate.add_permits(1);
    };
    let mnt = mount::Args::Mnt(text("/late"));
    let (mut mounted, ()) = tokio::join!(client.mount(&mnt), comes);
    assert!(matches!(mounted.get().unwrap(), Mounted::Ok(..)));
}

/// One client cannot have all the places of those who wait.
#[tokio::test]
async fn of_the_mounts_that_wait_there_are_few() {
    let world = world().await;
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(world.client().await);
    }
    let mnt = mount::Args::Mnt(text("/late"));
    let begun = tokio::time::Instant::now();
    let mut first = None;
    let mounting = futures_util::future::join_all(clients.iter_mut().map(|client| client.mount(&mnt)));
    let comes = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        world.double.gate.add_permits(99);
    };
    let (mounted, ()) = tokio::join!(mounting, comes);
    let mut refused = 0;
    for mut mounted in mounted {
        match mounted.get().unwrap() {
            Mounted::Ok(..) => drop(first.get_or_insert(begun.elapsed())),
            Mounted::Refused(stat) => {
                assert_eq!(stat, MountStat::ServerFault);
                refused += 1;
            }
        }
    }
    assert!(refused == 1 && first.is_some(), "{refused} refused");
}

/// Nothing of it is asked for, which could take long, or tell.
#[tokio::test]
async fn a_junction_that_is_closed_is_forbidden_whatever_its_filer_says() {
    use super::super::access::tests;
    use crate::state::Child;
    use crate::volume::types::NodeRef;
    use crate::volume::virtuals;
    let world = world().await;
    for (rule, closed) in [("0.0.0.0/0=none", true), ("0.0.0.0/0=rw", false)] {
        let mut state = tests::state(&[rule]);
        state.tree.get_mut(&virtuals::ROOT).unwrap().children.insert(b"data".to_vec(), Child::Junction(tests::J));
        *world.double.state.lock() = Arc::new(state);
        let dir = world.fh(NodeRef { junction: virtuals::TREE, node: virtuals::ROOT });
        let lookup = Args::Lookup(nfs3::DirOp { dir, name: nfs3::Name(Bytes::from_static(b"data")) });
        let status = status_of(&world, "127.0.0.1:700", &lookup).await;
        // The volume of these tests has none of this name.
        let asked = matches!(status, nfsstat3::NFS3ERR_NOENT);
        assert!(if closed { matches!(status, nfsstat3::NFS3ERR_ACCES) } else { asked }, "{rule}: {status:?}");
    }
}

#[tokio::test]
async fn a_listing_shows_of_a_junction_that_is_closed_to_the_caller_its_name_alone() {
    let world = world().await;
    world.double.junction(b"data");
    set_rules(&world, &["10.0.0.0/8=rw"]);
    let tree =
        crate::volume::types::NodeRef { junction: crate::volume::virtuals::TREE, node: crate::volume::virtuals::ROOT };
    let args = nfs3::ReaddirPlusArgs { dir: world.fh(tree), cookie: 0, verifier: 0, dircount: 4096, maxcount: 4096 };
    let list = Args::ReaddirPlus(args);
    // Loopback may see the tree, and this junction it may not use.
    for (peer, open) in [("127.0.0.1:700", false), ("10.0.0.2:700", true)] {
        let mut page = answer(&world, peer, nfs3::PROGRAM, list.procedure(), encoded(&list)).await;
        let page = page.get::<nfs3::ReaddirPlusRes>().unwrap().unwrap();
        let data = page.entries.iter().find(|entry| &entry.name.0[..] == b"data").unwrap();
        assert_eq!((data.handle.is_some(), matches!(data.attr, post_op_attr::attributes(_))), (open, open), "{peer}");
    }
}

fn set_rules(world: &World, rules: &[&str]) {
    *world.double.state.lock() = Arc::new(super::super::access::tests::state(rules));
}

async fn status_of(world: &World, peer: &str, args: &Args) -> nfsstat3 {
    answer(world, peer, nfs3::PROGRAM, args.procedure(), encoded(args)).await.get().unwrap()
}

#[tokio::test]
async fn a_policy_is_asked_at_every_call_and_its_change_counts_at_once() {
    let world = world().await;
    let (get, make) = (Args::GetAttr(world.root()), world.create(b"new"));
    let (inside, outside, high) = ("10.0.0.1:700", "11.0.0.1:700", "10.0.0.1:5000");
    set_rules(&world, &["10.0.0.0/8=ro"]);
    assert!(matches!(status_of(&world, inside, &get).await, nfsstat3::NFS3_OK));
    assert!(matches!(status_of(&world, inside, &make).await, nfsstat3::NFS3ERR_ROFS));
    assert!(matches!(status_of(&world, outside, &get).await, nfsstat3::NFS3ERR_ACCES));
    assert!(matches!(status_of(&world, high, &get).await, nfsstat3::NFS3ERR_ACCES), "not from a privileged port");
    set_rules(&world, &["10.0.0.0/8=rw,all_squash,anonuid=77,anongid=78,insecure"]);
    assert!(matches!(status_of(&world, high, &make).await, nfsstat3::NFS3_OK));
    let call = world.double.last_call.lock().clone().unwrap();
    assert_eq!((call.uid, call.gid, call.gids), (77, 78, vec![]));
    // The handle is as good as it was; the address is not.
    set_rules(&world, &["10.0.0.1=none", "10.0.0.0/8=rw"]);
    assert!(matches!(status_of(&world, inside, &get).await, nfsstat3::NFS3ERR_ACCES));
    assert!(matches!(status_of(&world, "10.0.0.2:700", &get).await, nfsstat3::NFS3_OK));
}

#[tokio::test]
async fn exports_show_what_the_caller_may_mount_and_nothing_else() {
    let world = world().await;
    set_rules(&world, &["10.0.0.0/8=ro"]);
    for (peer, seen) in [("10.0.0.1:700", vec![text("/"), text("/j")]), ("127.0.0.1:700", vec![text("/")])] {
        let mut exports = answer(&world, peer, mount::PROGRAM, 5, Bytes::new()).await;
        let exports = get_list::<ExportEntry>(&mut exports, 9).unwrap();
        assert_eq!(exports.into_iter().map(|e| e.path).collect::<Vec<_>>(), seen, "{peer}");
    }
}
