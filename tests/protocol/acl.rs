//! POSIX ACLs of the filer, compared with what the kernel itself answers for the same objects.

use crate::support::{Served, client, expect, is_root, name};
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use tain::demo::client::Cred;
use tain::demo::nfs::{Call, Fh, How, Kind, SetAttrs, status};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const OWNER: u32 = 1000;
const NAMED: u32 = 1001;
const GROUP: u32 = 2000;
const NAMED_GROUP: u32 = 2001;

/// Owner, named user, owning group, named group, mask, others.
type Entries = (u16, Option<u16>, u16, Option<u16>, Option<u16>, u16);

fn acl((owner, named, group, named_group, mask, other): Entries) -> Vec<u8> {
    let entries = [
        Some((1u16, owner, u32::MAX)),
        named.map(|perm| (2, perm, NAMED)),
        Some((4, group, u32::MAX)),
        named_group.map(|perm| (8, perm, NAMED_GROUP)),
        mask.map(|perm| (16, perm, u32::MAX)),
        Some((32, other, u32::MAX)),
    ];
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries.into_iter().flatten() {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

fn put(path: &Path, which: &str, acl: &[u8]) {
    rustix::fs::setxattr(path, which, acl, rustix::fs::XattrFlags::empty()).unwrap();
}

fn get(path: &Path, which: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    match rustix::fs::getxattr(path, which, &mut bytes[..]) {
        Ok(len) => Some(bytes[..len].to_vec()),
        Err(rustix::io::Errno::NODATA) => None,
        Err(e) => panic!("{}: {e}", path.display()),
    }
}

/// Mode and ACLs.
fn all(path: &Path) -> (u32, Option<Vec<u8>>, Option<Vec<u8>>) {
    let default = if path.is_dir() { get(path, DEFAULT) } else { None };
    (std::fs::metadata(path).unwrap().mode() & 0o7777, get(path, ACCESS), default)
}

fn table() -> Vec<Entries> {
    let mut out = vec![(0, Some(7), 7, Some(7), Some(7), 7)];
    for group in [0, 5, 6] {
        for other in [0, 4] {
            out.push((7, None, group, None, None, other));
            for named in [None, Some(0), Some(4), Some(7)] {
                for named_group in [None, Some(1), Some(6)] {
                    out.extend([0, 4, 7].map(|mask| (6, named, group, named_group, Some(mask), other)));
                }
            }
        }
    }
    out
}

/// What the kernel lets this user do with each name in `dir`, asked by a process that is that user.
fn by_kernel(dir: &Path, cred: &Cred) -> BTreeSet<(String, char)> {
    let script = r#"for f in *; do for p in r w x; do test -$p "$f" && echo "$f $p"; done; done; true"#;
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", cred.uid)).arg(format!("--regid={}", cred.gid));
    if cred.gids.is_empty() {
        command.arg("--clear-groups");
    } else {
        let groups: Vec<String> = cred.gids.iter().map(u32::to_string).collect();
        command.arg(format!("--groups={}", groups.join(",")));
    }
    // Where it works it is put before it becomes that user, who may not go there himself.
    let out = command.args(["sh", "-c", script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8(out.stdout).unwrap();
    let may = said.lines().map(|line| line.split_once(' ').unwrap());
    may.map(|(file, p)| (file.to_owned(), p.chars().next().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acl_lets_each_user_do_what_the_kernel_lets_him() {
    if !is_root() {
        println!("only root can ask the kernel for others");
        return;
    }
    let s = Served::new().await;
    std::fs::set_permissions(s.export(), PermissionsExt::from_mode(0o755)).unwrap();
    let table = table();
    for (i, entries) in table.iter().enumerate() {
        let (file, dir) = (s.export().join(format!("f{i}")), s.export().join(format!("d{i}")));
        std::fs::write(&file, "text").unwrap();
        std::fs::create_dir(&dir).unwrap();
        for path in [file, dir] {
            chown(&path, Some(OWNER), Some(GROUP)).unwrap();
            put(&path, ACCESS, &acl(*entries));
        }
    }
    let names = |i: usize| [format!("f{i}"), format!("d{i}")];
    let mut handles = Vec::new();
    for n in (0..table.len()).flat_map(names) {
        let fh = s.ok(Call::Lookup { dir: s.root.clone(), name: name(&n) }).await.fh.unwrap();
        handles.push((n, fh));
    }
    let users = [
        (0, 0, vec![]),
        (OWNER, GROUP, vec![]),
        (NAMED, 3000, vec![]),
        (NAMED, GROUP, vec![NAMED_GROUP]),
        (1002, GROUP, vec![]),
        (1003, NAMED_GROUP, vec![]),
        (1004, 3000, vec![NAMED_GROUP, GROUP]),
        (1005, 3000, vec![3001]),
    ];
    let mut compared = 0;
    for (uid, gid, gids) in users {
        let cred = Cred { uid, gid, gids };
        let due = by_kernel(&s.export(), &cred);
        let client = s.client.with_cred(cred.clone());
        for (n, fh) in &handles {
            let may = |p| due.contains(&(n.clone(), p));
            let dir = n.starts_with('d');
            // As NFS says it: a directory's names change only for who may write and pass.
            let (r, w, x) = (may('r'), may('w') && (!dir || may('x')), may('x'));
            let masks = if dir { (0x01, 0x1c, 0x02) } else { (0x01, 0x0c, 0x20) };
            let wanted = [(r, masks.0), (w, masks.1), (x, masks.2)].iter().filter(|e| e.0).map(|e| e.1).sum::<u32>();
            let call = Call::Access { node: fh.clone(), mask: 0x3f };
            let granted = expect(&client, call, status::OK).await.access;
            let of = table[n[1..].parse::<usize>().unwrap()];
            assert_eq!(granted, wanted, "{n} {of:?} {cred:?}");
            data(&client, fh, dir, [may('r'), may('w'), x], cred.uid == OWNER).await;
            compared += 3;
        }
    }
    println!("{compared} answers compared");
}

/// The calls that need the permission are decided as ACCESS says; the owner's override for data aside.
async fn data(client: &tain::demo::client::Client, fh: &Fh, dir: bool, [r, w, x]: [bool; 3], owner: bool) {
    let due = |may| if may { status::OK } else { status::ACCES };
    let node = fh.clone();
    if dir {
        let (call, found) =
            (Call::Lookup { dir: node, name: name("none") }, if x { status::NOENT } else { status::ACCES });
        expect(client, call, found).await;
        let call = Call::ReadDir { dir: fh.clone(), cookie: 0, verf: [0; 8], count: 4096 };
        expect(client, call, due(r)).await;
    } else {
        expect(client, Call::Read { node: node.clone(), offset: 0, count: 9 }, due(owner || r || x)).await;
        let call = Call::Write { node, offset: 0, stable: 2, data: name("") };
        expect(client, call, due(owner || w)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_acl_is_handed_on_and_a_chmod_changes_the_mask_as_the_kernel_does_it() {
    let s = Served::new().await;
    let theirs = s.dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    let acls = [(7, Some(7), 5, None, Some(7), 0), (7, Some(6), 7, Some(5), Some(5), 1), (6, None, 4, None, None, 4)];
    let mut compared = 0;
    for (i, entries) in acls.into_iter().enumerate() {
        for dir in [s.export(), theirs.clone()] {
            std::fs::create_dir(dir.join(format!("{i}"))).unwrap();
            put(&dir.join(format!("{i}")), DEFAULT, &acl(entries));
        }
        let (ours, theirs) = (s.export().join(format!("{i}")), theirs.join(format!("{i}")));
        let dir = s.ok(Call::Lookup { dir: s.root.clone(), name: name(&format!("{i}")) }).await.fh.unwrap();
        for mode in [0o777, 0o666, 0o640, 0o600, 0o751] {
            let (d, f, p) = (format!("d{mode:o}"), format!("f{mode:o}"), format!("p{mode:o}"));
            let attrs = SetAttrs::mode(mode);
            let calls = [
                (&d, Call::MkDir { dir: dir.clone(), name: name(&d), attrs }),
                (&f, Call::Create { dir: dir.clone(), name: name(&f), how: How::Guarded(attrs) }),
                (&p, Call::MkNod { dir: dir.clone(), name: name(&p), kind: Kind::Fifo, attrs, dev: (0, 0) }),
            ];
            let raw = rustix::fs::Mode::from_raw_mode(mode);
            rustix::fs::mkdir(theirs.join(&d), raw).unwrap();
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::WRONLY;
            rustix::fs::open(theirs.join(&f), flags, raw).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, theirs.join(&p), rustix::fs::FileType::Fifo, raw, 0).unwrap();
            for (n, call) in calls {
                let made = s.ok(call.clone()).await;
                assert_eq!(all(&ours.join(n)), all(&theirs.join(n)), "{call:?} {entries:?}");
                assert_eq!(made.attr.unwrap().mode, all(&theirs.join(n)).0, "what the client is told");
                let changed = mode ^ 0o025;
                let call = Call::SetAttr { node: made.fh.unwrap(), attrs: SetAttrs::mode(changed), guard: None };
                s.ok(call).await;
                std::fs::set_permissions(theirs.join(n), PermissionsExt::from_mode(changed)).unwrap();
                assert_eq!(all(&ours.join(n)), all(&theirs.join(n)), "chmod {changed:o} of {n} {entries:?}");
                compared += 2;
            }
        }
    }
    assert_eq!(compared, 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_carries_acls_also_of_what_is_made_meanwhile_and_again_after_a_kill() {
    let mut s = Served::new().await;
    let entries = (7, Some(7), 5, Some(1), Some(7), 0);
    for i in 0..40 {
        let dir = s.export().join(format!("d{i}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("old"), "text").unwrap();
        for n in 0..25 {
            std::fs::write(dir.join(format!("{n}")), "more to copy").unwrap();
        }
        put(&dir, DEFAULT, &acl(entries));
        put(&dir.join("old"), ACCESS, &acl((6, Some(4), 0, None, Some(4), 0)));
    }
    let old = all(&s.export().join("d0/old"));
    let job = s.service.tain(&["move", "create", "/a/b", "two:/x"]).await.unwrap();
    let make = async |client: &tain::demo::client::Client, n: usize| {
        let at = Call::Lookup { dir: s.root.clone(), name: name(&format!("d{}", n % 40)) };
        let dir = expect(client, at, status::OK).await.fh.unwrap();
        let attrs = SetAttrs::mode(0o770);
        let call = Call::MkDir { dir: dir.clone(), name: name(&format!("sub{n}")), attrs };
        let sub = expect(client, call, status::OK).await.fh.unwrap();
        let call = Call::Create { dir: sub, name: name("new"), how: How::Guarded(SetAttrs::mode(0o660)) };
        expect(client, call, status::OK).await;
    };
    for n in 0..120 {
        make(&s.client, n).await;
    }
    s.kill_and_start().await;
    s.service.tain(&["job", "wait", &job, "--timeout", "120s"]).await.unwrap();
    // The same by the kernel.
    let theirs = s.dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    put(&theirs, DEFAULT, &acl(entries));
    rustix::fs::mkdir(theirs.join("sub"), rustix::fs::Mode::from_raw_mode(0o770)).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::WRONLY;
    rustix::fs::open(theirs.join("sub/new"), flags, rustix::fs::Mode::from_raw_mode(0o660)).unwrap();
    let moved = s.dir.path().join("other/x");
    for n in 0..120 {
        let sub = moved.join(format!("d{}/sub{n}", n % 40));
        assert_eq!(all(&sub), all(&theirs.join("sub")), "{}", sub.display());
        assert_eq!(all(&sub.join("new")), all(&theirs.join("sub/new")), "{}", sub.display());
    }
    for i in 0..40 {
        assert_eq!(all(&moved.join(format!("d{i}/old"))), old);
        assert_eq!(get(&moved.join(format!("d{i}")), DEFAULT), Some(acl(entries)));
    }
    expect(&client(&s.service, 9), Call::GetAttr { node: s.root.clone() }, status::OK).await;
}
