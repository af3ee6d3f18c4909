//! Who may what, in full: {ro, rw, none} × {listed with root_squash, no_root_squash, all_squash; not listed} ×
//! {privileged port asked for or not} × {port below 1024, or not} × {root, the owner, another, the owner with 16 groups,
//! with 17} × each of the 22 procedures, by handles that were mounted and by handles that leaked. What is due is computed.

use crate::support::raw::{Answer, Raw};
use crate::support::{Served, expect, is_root, name};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tain::demo::client::{Client, Cred};
use tain::demo::nfs::{Call, Fh, How, Kind, MOUNT_PROGRAM, SetAttrs, status};
use tain::demo::xdr::{Decoder, Encoder};

const NOBODY: u32 = 65534;
const AUTH_BADCRED: u32 = 1;
const MNT_ACCES: u32 = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Squash {
    Root,
    None,
    All,
}

/// A client: its address, and what the policy's rule for it says; `None`: no rule is about it.
struct Host {
    addr: &'static str,
    rule: Option<(Squash, bool)>,
}

const HOSTS: [Host; 7] = [
    Host { addr: "127.0.2.1", rule: Some((Squash::Root, true)) },
    Host { addr: "127.0.2.2", rule: Some((Squash::Root, false)) },
    Host { addr: "127.0.2.3", rule: Some((Squash::None, true)) },
    Host { addr: "127.0.2.4", rule: Some((Squash::None, false)) },
    Host { addr: "127.0.2.5", rule: Some((Squash::All, true)) },
    Host { addr: "127.0.2.6", rule: Some((Squash::All, false)) },
    Host { addr: "127.0.2.7", rule: None },
];
/// It prepares, and its handles are what leaks.
const ADMIN: &str = "127.0.2.9";

/// A junction, with its handles.
struct Export {
    access: &'static str,
    owner: u32,
    admin: Client,
    root: Fh,
    dir: Fh,
    file: Fh,
    symlink: Fh,
    list: Fh,
}

/// What a host may there, judged before any file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Refused,
    ReadOnly(Squash),
    Open(Squash),
}

fn gate(access: &str, host: &Host, port: u16) -> Gate {
    match (access, host.rule) {
        (_, None) | ("none", _) => Gate::Refused,
        (_, Some((_, true))) if port >= 1024 => Gate::Refused,
        ("ro", Some((squash, _))) => Gate::ReadOnly(squash),
        (_, Some((squash, _))) => Gate::Open(squash),
    }
}

fn becomes(squash: Squash, uid: u32) -> u32 {
    match squash {
        Squash::All => NOBODY,
        Squash::Root if uid == 0 => NOBODY,
        Squash::Root | Squash::None => uid,
    }
}

/// The status that is due, or that the RPC layer denies the call.
fn due(export: &Export, gate: Gate, cred: &Cred, procedure: u32) -> Result<u32, u32> {
    if cred.gids.len() > 16 {
        return Err(AUTH_BADCRED);
    }
    let modifies = matches!(procedure, 2 | 7..=15);
    let squash = match gate {
        _ if procedure == 0 => return Ok(status::OK),
        Gate::Refused => return Ok(status::ACCES),
        Gate::ReadOnly(_) if modifies => return Ok(status::ROFS),
        Gate::ReadOnly(squash) | Gate::Open(squash) => squash,
    };
    let uid = becomes(squash, cred.uid);
    Ok(match procedure {
        _ if uid == 0 || uid == export.owner => status::OK,
        2 => status::PERM,
        3 | 6..=17 => status::ACCES,
        _ => status::OK,
    })
}

async fn export(s: &Served, access: &'static str, number: u32) -> Export {
    let dir = s.dir.path().join("other").join(access);
    for sub in ["", "d", "d/list"] {
        std::fs::create_dir(dir.join(sub)).unwrap();
    }
    std::fs::write(dir.join("d/f"), "text").unwrap();
    std::os::unix::fs::symlink("x", dir.join("d/l")).unwrap();
    let owner = if is_root() { 1000 } else { rustix::process::geteuid().as_raw() };
    for (sub, mode) in [("", 0o755), ("d", 0o700), ("d/list", 0o700), ("d/f", 0o600)] {
        std::fs::set_permissions(dir.join(sub), std::fs::Permissions::from_mode(mode)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(dir.join(sub), Some(owner), Some(owner)).unwrap();
        }
    }
    let mut rules = vec![format!("{ADMIN}=rw,no_root_squash,insecure")];
    for host in &HOSTS {
        let Some((squash, secure)) = host.rule else { continue };
        let squash = match squash {
            Squash::Root => "root_squash",
            Squash::None => "no_root_squash",
            Squash::All => "all_squash",
        };
        rules.push(format!("{}={access},{squash},{}", host.addr, if secure { "secure" } else { "insecure" }));
    }
    let add: Vec<&str> = ["policy", "add", access].into_iter().chain(rules.iter().map(String::as_str)).collect();
    s.service.tain(&add).await.unwrap();
    let (path, place) = (format!("/{access}"), format!("two:/{access}"));
    s.service.tain(&["junction", "add", &path, &place, "--access", access]).await.unwrap();
    let (from, cred): (IpAddr, _) = (ADMIN.parse().unwrap(), Cred { uid: 0, gid: 0, gids: vec![] });
    let admin = Client::from(from, s.service.nfs, cred, number << 24 | 1, Duration::from_secs(60));
    let root = admin.mount(path.as_bytes()).await.unwrap().unwrap();
    let at = async |dir: &Fh, n: &str| {
        let call = Call::Lookup { dir: dir.clone(), name: name(n) };
        expect(&admin, call, status::OK).await.fh.unwrap()
    };
    let dir = at(&root, "d").await;
    let (file, symlink, list) = (at(&dir, "f").await, at(&dir, "l").await, at(&dir, "list").await);
    Export { access, owner, root, dir, file, symlink, list, admin }
}

impl Export {
    /// A call that would succeed with all rights; what it takes is there, if it may get so far.
    async fn call(&self, procedure: u32, n: &str, prepare: bool) -> Call {
        let (dir, file, list) = (self.dir.clone(), self.file.clone(), self.list.clone());
        let (n, attrs) = (name(n), SetAttrs::mode(0o600));
        if prepare && (12..=14).contains(&procedure) {
            let (dir, name) = (dir.clone(), n.clone());
            let make = match procedure {
                13 => Call::MkDir { dir, name, attrs },
                _ => Call::Create { dir, name, how: How::Guarded(attrs) },
            };
            expect(&self.admin, make, status::OK).await;
        }
        match procedure {
            0 => Call::Null,
            1 => Call::GetAttr { node: file },
            2 => Call::SetAttr { node: file, attrs, guard: None },
            3 => Call::Lookup { dir, name: name("f") },
            4 => Call::Access { node: file, mask: 0x3f },
            5 => Call::ReadLink { node: self.symlink.clone() },
            6 => Call::Read { node: file, offset: 0, count: 4 },
            7 => Call::Write { node: file, offset: 0, stable: 2, data: name("text") },
            8 => Call::Create { dir, name: n, how: How::Guarded(attrs) },
            9 => Call::MkDir { dir, name: n, attrs },
            10 => Call::Symlink { dir, name: n, attrs, target: name("x") },
            11 => Call::MkNod { dir, name: n, kind: Kind::Fifo, attrs, dev: (0, 0) },
            12 => Call::Remove { dir, name: n },
            13 => Call::RmDir { dir, name: n },
            14 => Call::Rename { from: dir.clone(), name: n, to: dir, new: name("renamed") },
            15 => Call::Link { node: file, dir, name: n },
            16 => Call::ReadDir { dir: list, cookie: 0, verf: [0; 8], count: 4096 },
            17 => Call::ReadDirPlus { dir: list, cookie: 0, verf: [0; 8], dircount: 4096, maxcount: 4096 },
            18 => Call::FsStat { node: file },
            19 => Call::FsInfo { node: file },
            20 => Call::PathConf { node: file },
            _ => Call::Commit { node: file, offset: 0, count: 0 },
        }
    }
}

/// MNT and EXPORT: who may not enter cannot tell what is there.
async fn mounts(raw: &mut Raw, export: &Export, gate: Gate, cred: &Cred) {
    let path = format!("/{}", export.access);
    for (path, absent) in [(path.clone(), false), (format!("{path}/absent"), true)] {
        let mut e = Encoder::new();
        e.opaque(path.as_bytes());
        let Answer::Results(body) = raw.call(MOUNT_PROGRAM, 1, cred, &e.finish()).await else { panic!("{path}") };
        let mut d = Decoder::new(body);
        let status = d.u32().unwrap();
        match gate {
            Gate::Open(_) | Gate::ReadOnly(_) if !absent => {
                assert_eq!((status, d.opaque().unwrap()), (0, export.root.clone()), "{path}: the handle that leaked");
            }
            // Nobody here may all there is.
            _ => assert_eq!(status, MNT_ACCES, "{path}, {gate:?}"),
        }
    }
    let Answer::Results(body) = raw.call(MOUNT_PROGRAM, 5, cred, &[]).await else { panic!("EXPORT") };
    let (mut d, mut shown) = (Decoder::new(body), false);
    while d.bool().unwrap() {
        shown |= d.opaque().unwrap() == path;
        assert!(!d.bool().unwrap(), "no groups are told");
    }
    assert_eq!(shown, gate != Gate::Refused, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_export_address_port_and_caller_may_of_each_procedure_what_is_due() {
    let s = Served::new().await;
    let mut exports = Vec::new();
    for (access, number) in [("ro", 2), ("rw", 3), ("none", 4)] {
        exports.push(export(&s, access, number).await);
    }
    let owner = exports[0].owner;
    let cred = |uid, groups: u32| Cred { uid, gid: uid, gids: (5000..5000 + groups).collect() };
    let creds = [cred(0, 0), cred(owner, 0), cred(2000, 0), cred(owner, 16), cred(owner, 17)];
    // Only root may call from a privileged port.
    let ports: &[u16] = if is_root() { &[700, 40_700] } else { &[40_700] };
    let mut cells = 0;
    for (host, port) in HOSTS.iter().flat_map(|host| ports.iter().map(move |port| (host, *port))) {
        let from = SocketAddr::new(host.addr.parse().unwrap(), port);
        let mut raw = Raw::connect(from, s.service.nfs).await.unwrap();
        for export in &exports {
            let gate = gate(export.access, host, port);
            mounts(&mut raw, export, gate, &creds[0]).await;
            for cred in &creds {
                for procedure in 0..22 {
                    let due = due(export, gate, cred, procedure);
                    let call = export.call(procedure, &format!("n{cells}"), due == Ok(status::OK)).await;
                    let came = raw.nfs(cred, &call).await;
                    let at = || format!("{} {} port {port} {cred:?} {call:?}", export.access, host.addr);
                    match (came, due) {
                        (Ok(reply), Ok(due)) => {
                            assert_eq!(reply.status, due, "{}", at());
                            let may = matches!(gate, Gate::Open(q) | Gate::ReadOnly(q)
                                if [0, export.owner].contains(&becomes(q, cred.uid)));
                            let changes = if matches!(gate, Gate::Open(_)) { 0x0c } else { 0 };
                            let granted = if may { 0x01 | changes } else { 0 };
                            assert!(procedure != 4 || reply.access == granted, "{}: {:#x}", at(), reply.access);
                        }
                        (Err(came), Err(due)) => assert_eq!(came, Answer::Denied(due), "{}", at()),
                        (came, due) => panic!("{}: {came:?} instead of {due:?}", at()),
                    }
                    cells += 1;
                }
            }
        }
    }
    println!("{cells} cells");
    assert_eq!(cells, HOSTS.len() * ports.len() * 3 * 5 * 22);
}
