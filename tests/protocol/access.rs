//! Who may what: policies on the wire, asked for by clients with different addresses of this machine.

use crate::support::{Served, expect, is_root, name};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;
use tain::demo::client::{Client, Cred};
use tain::demo::nfs::{Call, How, MOUNT_PROGRAM, SetAttrs, status};
use tain::demo::xdr::Decoder;

/// MOUNT's way to say that the caller may not.
const MNT_ACCES: u32 = 13;

fn from(s: &Served, addr: &str, number: u32) -> Client {
    let addr: IpAddr = addr.parse().unwrap();
    Client::from(addr, s.service.nfs, Cred::own(), number << 24 | 1, Duration::from_secs(60))
}

async fn exports(client: &Client) -> Vec<bytes::Bytes> {
    let (_, body) = client.rpc(MOUNT_PROGRAM, 5, &[]).await.unwrap();
    let (mut d, mut paths) = (Decoder::new(body), Vec::new());
    while d.bool().unwrap() {
        paths.push(d.opaque().unwrap());
        while d.bool().unwrap() {
            d.opaque().unwrap();
        }
    }
    paths
}

fn create(dir: &tain::demo::nfs::Fh, text: &str) -> Call {
    Call::Create { dir: dir.clone(), name: name(text), how: How::Guarded(SetAttrs::mode(0o666)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_may_what_the_policy_says_of_its_address_and_a_change_counts_at_once() {
    let s = Served::new().await;
    std::fs::create_dir(s.dir.path().join("other/open")).unwrap();
    let rules = ["127.0.0.2=none", "127.0.0.3=ro,insecure", "127.0.0.4=rw,all_squash,anonuid=7,anongid=8,insecure"];
    let rules = rules.map(str::to_owned).into_iter().chain(["127.0.0.5=rw,secure".into()]);
    let add: Vec<String> = ["policy", "add", "lab"].map(str::to_owned).into_iter().chain(rules).collect();
    s.service.tain(&add.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    // The tree leads to this one for everybody.
    s.service.tain(&["junction", "add", "/open", "two:/open"]).await.unwrap();
    s.service.tain(&["junction", "modify", "/a/b", "--access", "lab"]).await.unwrap();
    std::fs::write(s.export().join("file"), "as it was").unwrap();
    let own = s.client.nfs(&Call::GetAttr { node: s.root.clone() }).await.unwrap();
    assert_eq!(own.status, status::ACCES, "the one that has mounted it already is judged, too");

    for (addr, number) in [("127.0.0.2", 2), ("127.0.0.5", 5), ("127.0.0.9", 9)] {
        let refused = from(&s, addr, number);
        assert_eq!(refused.mount(b"/a/b").await.unwrap(), Err(MNT_ACCES), "{addr}");
        assert_eq!(exports(&refused).await, [name("/"), name("/open")], "{addr}");
        for call in [
            Call::GetAttr { node: s.root.clone() },
            Call::Lookup { dir: s.root.clone(), name: name("file") },
            create(&s.root, "new"),
        ] {
            expect(&refused, call, status::ACCES).await;
        }
        let top = refused.mount(b"/").await.unwrap().unwrap();
        let a = expect(&refused, Call::Lookup { dir: top, name: name("a") }, status::OK).await.fh.unwrap();
        let b = expect(&refused, Call::Lookup { dir: a.clone(), name: name("b") }, status::ACCES).await;
        assert!(b.fh.is_none() && b.attr.is_none(), "what is behind the name is not told");
        let (cookie, verf) = (0, [0; 8]);
        let plus = Call::ReadDirPlus { dir: a, cookie, verf, dircount: 8192, maxcount: 8192 };
        let list = expect(&refused, plus, status::OK).await;
        let b = list.entries.iter().find(|e| e.name == name("b")).unwrap();
        assert!(b.fh.is_none() && b.attr.is_none(), "nor in a listing");
    }

    let reader = from(&s, "127.0.0.3", 3);
    let root = reader.mount(b"/a/b").await.unwrap().unwrap();
    assert_eq!(exports(&reader).await, [name("/"), name("/a/b"), name("/open")]);
    expect(&reader, Call::Lookup { dir: root.clone(), name: name("file") }, status::OK).await;
    expect(&reader, create(&root, "new"), status::ROFS).await;

    let writer = from(&s, "127.0.0.4", 4);
    std::fs::set_permissions(s.export(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let root = writer.mount(b"/a/b").await.unwrap().unwrap();
    if is_root() {
        expect(&writer, create(&root, "new"), status::OK).await;
        let made = std::fs::metadata(s.export().join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (7, 8), "whoever it says it is");
    }

    s.service.tain(&["policy", "modify", "lab", "127.0.0.1=rw,no_root_squash,insecure"]).await.unwrap();
    expect(&reader, Call::GetAttr { node: root.clone() }, status::ACCES).await;
    expect(&writer, Call::GetAttr { node: root }, status::ACCES).await;
    s.ok(Call::GetAttr { node: s.root.clone() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_outlive_a_crash_and_one_that_is_in_use_stays() {
    let mut s = Served::new().await;
    s.service.tain(&["policy", "add", "lab", "127.0.0.1=ro,insecure"]).await.unwrap();
    s.service.tain(&["junction", "modify", "/a/b", "--access", "lab"]).await.unwrap();
    s.kill_and_start().await;
    s.status(create(&s.root, "new"), status::ROFS).await;
    let refused = s.service.tain(&["policy", "remove", "lab"]).await.unwrap_err().to_string();
    assert!(refused.contains("policy 'lab' is that of junction /a/b"), "{refused}");
    s.service.tain(&["junction", "modify", "/a/b", "--access", "local"]).await.unwrap();
    s.service.tain(&["policy", "remove", "lab"]).await.unwrap();
    s.ok(create(&s.root, "new")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_suspended_junction_wait_and_go_on_and_others_do_not_notice() {
    let mut s = Served::new().await;
    std::fs::create_dir(s.dir.path().join("other/open")).unwrap();
    s.service.tain(&["junction", "add", "/open", "two:/open"]).await.unwrap();
    let open = s.client.mount(b"/open").await.unwrap().unwrap();
    s.service.tain(&["junction", "suspend", "/a/b"]).await.unwrap();
    for call in [Call::GetAttr { node: s.root.clone() }, create(&s.root, "new")] {
        assert_eq!(s.client.once(&call).await.unwrap().status, status::JUKEBOX, "{call:?}");
    }
    s.ok(create(&open, "new")).await;
    // A crash does not let them in.
    s.kill_and_start().await;
    assert_eq!(s.client.once(&create(&s.root, "new")).await.unwrap().status, status::JUKEBOX);
    assert!(!s.export().join("new").exists());
    let shown = s.service.json(&["junction", "show", "/a/b"]).await.unwrap();
    assert_eq!(shown["state"], "suspended");
    let (client, call) = (s.client.clone(), create(&s.root, "new"));
    let waiting = tokio::spawn(async move { client.nfs(&call).await });
    s.service.tain(&["junction", "resume", "/a/b"]).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, status::OK);
    assert!(s.export().join("new").exists());
}
