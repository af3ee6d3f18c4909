//! The kernel as oracle: one seeded sequence of operations by several users, carried out by the kernel in a directory on
//! this machine (by a thread that is that user) and over the wire in another; each result and each object must be equal.

use crate::support::{Served, is_root, name};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tain::demo::client::Cred;
use tain::demo::content::Rng;
use tain::demo::nfs::{Attr, Call, Fh, How, Kind, SetAttrs, SetTime, status};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const MODES: [u32; 12] = [0o755, 0o644, 0o600, 0o777, 0o1777, 0o2775, 0o4755, 0o2755, 0o6775, 0o500, 0o000, 0o2664];
const USERS: [(u32, u32, &[u32]); 4] = [(0, 0, &[]), (1000, 100, &[200]), (1001, 200, &[]), (1002, 300, &[100])];

#[derive(Clone, Debug)]
enum Op {
    Create(u32),
    MkDir(u32),
    Symlink(usize),
    Fifo(u32),
    Remove,
    RmDir,
    Rename(String, &'static str),
    Link(String, &'static str),
    Chmod(u32),
    Chown(Option<u32>, Option<u32>),
    Truncate(u64),
    Write(u64, u8, usize),
    Read,
    Times(i64),
    List,
}

/// What came of it: a status, and what was read.
type Came = (u32, Vec<u8>);

#[derive(Clone, Debug)]
struct Step {
    user: usize,
    dir: String,
    name: &'static str,
    op: Op,
}

impl Step {
    fn touches(&self, path: &str) -> bool {
        let is =
            |dir: &str, n: &str| path == dir || path.strip_suffix(n).is_some_and(|at| at.trim_end_matches('/') == dir);
        let other = match &self.op {
            Op::Rename(to, new) | Op::Link(to, new) => is(to, new),
            _ => false,
        };
        is(&self.dir, self.name) || other
    }
}

fn cred(user: usize) -> Cred {
    let (uid, gid, gids) = USERS[user];
    Cred { uid, gid, gids: gids.to_vec() }
}

/// This thread is that user while it works; its user and group are its own, not the process's.
fn as_user<R>(user: usize, go: impl FnOnce() -> R) -> R {
    let ids = |(uid, gid, gids): (u32, u32, &[u32])| {
        let gids: Vec<Gid> = gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (Uid::from_raw(uid), Gid::from_raw(gid), gids)
    };
    let become_one = |(uid, gid, gids): (Uid, Gid, Vec<Gid>), back: bool| {
        let set_uid = || rustix::thread::set_thread_res_uid(None::<Uid>, uid, None::<Uid>).unwrap();
        if back {
            set_uid();
        }
        rustix::thread::set_thread_groups(&gids).unwrap();
        rustix::thread::set_thread_res_gid(None::<Gid>, gid, None::<Gid>).unwrap();
        set_uid();
    };
    become_one(ids(USERS[user]), false);
    let result = go();
    become_one(ids(USERS[0]), true);
    result
}

fn number(errno: Errno) -> u32 {
    match errno {
        Errno::PERM => status::PERM,
        Errno::NOENT => status::NOENT,
        Errno::ACCESS => status::ACCES,
        Errno::EXIST => status::EXIST,
        Errno::NOTDIR => status::NOTDIR,
        Errno::ISDIR => status::ISDIR,
        Errno::INVAL => status::INVAL,
        Errno::NOTEMPTY => status::NOTEMPTY,
        other => panic!("{other}: an error that the sequence should not meet"),
    }
}

fn bytes_of(write: (u8, usize)) -> Vec<u8> {
    vec![write.0; write.1]
}

/// By the kernel. `None`: what it answers is this machine's affair (protected hard links) or NFS's to differ in (the
/// owner's override for data, as NFS has no open), and the step is left out.
fn by_kernel(root: &Path, step: &Step) -> Option<Came> {
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open_dir = |dir: &str| rustix::fs::open(root.join(dir), path | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let dir = open_dir(&step.dir);
    let node = rustix::fs::openat(&dir, step.name, path, Mode::empty());
    let seen = node.as_ref().ok().map(|fd| rustix::fs::fstat(fd).unwrap());
    let kind = seen.map(|s| FileType::from_raw_mode(s.st_mode));
    let uid = USERS[step.user].0;
    let owner = seen.is_some_and(|s| s.st_uid == uid) && uid != 0;
    let proc = |fd: &rustix::fd::OwnedFd| {
        use rustix::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    };
    let raw = Mode::from_raw_mode;
    let result: rustix::io::Result<Vec<u8>> = match &step.op {
        Op::Create(mode) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            as_user(step.user, || rustix::fs::openat(&dir, step.name, flags, raw(*mode))).map(|_| vec![])
        }
        Op::MkDir(mode) => as_user(step.user, || rustix::fs::mkdirat(&dir, step.name, raw(*mode))).map(|()| vec![]),
        Op::Symlink(len) => {
            as_user(step.user, || rustix::fs::symlinkat("t".repeat(*len), &dir, step.name)).map(|()| vec![])
        }
        Op::Fifo(mode) => {
            let make = || rustix::fs::mknodat(&dir, step.name, FileType::Fifo, raw(*mode), 0);
            as_user(step.user, make).map(|()| vec![])
        }
        Op::Remove => as_user(step.user, || rustix::fs::unlinkat(&dir, step.name, AtFlags::empty())).map(|()| vec![]),
        Op::RmDir => as_user(step.user, || rustix::fs::unlinkat(&dir, step.name, AtFlags::REMOVEDIR)).map(|()| vec![]),
        Op::Rename(to, new) => {
            let to = open_dir(to);
            as_user(step.user, || rustix::fs::renameat(&dir, step.name, &to, *new)).map(|()| vec![])
        }
        Op::Link(to, new) => {
            let to = open_dir(to);
            let link = || rustix::fs::linkat(&dir, step.name, &to, *new, AtFlags::empty());
            match as_user(step.user, link) {
                // The wire says first what it is that has no second name.
                Err(Errno::PERM | Errno::EXIST) if kind == Some(FileType::Directory) => Err(Errno::ISDIR),
                Err(Errno::PERM) => return None,
                // It searches the directory of the name, which a handle does not need.
                Err(Errno::ACCESS) if uid != 0 => return None,
                other => other.map(|()| vec![]),
            }
        }
        Op::List => {
            let list = || rustix::fs::open(proc(&dir), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            as_user(step.user, list).map(|fd| {
                let names = rustix::fs::Dir::new(fd).unwrap().map(|e| e.unwrap().file_name().to_bytes().to_vec());
                names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(&b'/')
            })
        }
        op => {
            let Ok(node) = node else { return None };
            if kind == Some(FileType::Symlink) {
                return None;
            }
            let file = kind == Some(FileType::RegularFile);
            let open = |flags| as_user(step.user, || rustix::fs::open(proc(&node), flags, Mode::empty()));
            match op {
                Op::Chmod(mode) => as_user(step.user, || rustix::fs::chmod(proc(&node), raw(*mode))).map(|()| vec![]),
                Op::Chown(uid, gid) => {
                    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                    let flags = AtFlags::EMPTY_PATH;
                    as_user(step.user, || rustix::fs::chownat(&node, "", uid, gid, flags)).map(|()| vec![])
                }
                Op::Times(secs) => {
                    let time = Timespec { tv_sec: *secs, tv_nsec: 7 };
                    let times = Timestamps { last_access: time, last_modification: time };
                    let set = || rustix::fs::utimensat(CWD, proc(&node), &times, AtFlags::empty());
                    as_user(step.user, set).map(|()| vec![])
                }
                _ if !file => return None,
                Op::Truncate(size) => match open(OFlags::WRONLY) {
                    Ok(fd) => as_user(step.user, || rustix::fs::ftruncate(fd, *size)).map(|()| vec![]),
                    Err(_) if owner => return None,
                    Err(e) => Err(e),
                },
                Op::Write(offset, byte, len) => match open(OFlags::WRONLY) {
                    Ok(fd) => {
                        let bytes = bytes_of((*byte, *len));
                        let file = std::fs::File::from(fd);
                        as_user(step.user, || file.write_all_at(&bytes, *offset)).unwrap();
                        Ok(vec![])
                    }
                    Err(_) if owner => return None,
                    Err(e) => Err(e),
                },
                _ => match open(OFlags::RDONLY) {
                    Ok(fd) => {
                        let mut bytes = vec![0; 100_000];
                        let len = std::fs::File::from(fd).read_at(&mut bytes, 0).unwrap();
                        Ok(bytes[..len].to_vec())
                    }
                    // Who executes it reads it, to a server.
                    Err(_) => return None,
                },
            }
        }
    };
    Some(match result {
        Ok(bytes) => (status::OK, bytes),
        Err(errno) => (number(errno), vec![]),
    })
}

struct Wire {
    s: Served,
}

impl Wire {
    async fn find(&self, path: &str) -> Option<(Fh, Attr)> {
        let reply = self.s.client.nfs(&Call::GetAttr { node: self.s.root.clone() }).await.unwrap();
        let (mut at, mut attr) = (self.s.root.clone(), reply.attr?);
        for n in path.split('/').filter(|n| !n.is_empty()) {
            let reply = self.s.client.nfs(&Call::Lookup { dir: at, name: name(n) }).await.unwrap();
            (at, attr) = (reply.fh?, reply.attr?);
        }
        Some((at, attr))
    }

    async fn dir(&self, path: &str) -> Fh {
        self.find(path).await.unwrap_or_else(|| panic!("{path} is not there")).0
    }

    async fn run(&self, step: &Step) -> Came {
        let client = self.s.client.with_cred(cred(step.user));
        let (dir, n) = (self.dir(&step.dir).await, name(step.name));
        let node = self.find(&format!("{}/{}", step.dir, step.name)).await.map(|found| found.0);
        let set = |node: Option<Fh>, attrs| Call::SetAttr { node: node.unwrap(), attrs, guard: None };
        let call = match &step.op {
            Op::Create(mode) => Call::Create { dir, name: n, how: How::Guarded(SetAttrs::mode(*mode)) },
            Op::MkDir(mode) => Call::MkDir { dir, name: n, attrs: SetAttrs::mode(*mode) },
            Op::Symlink(len) => {
                Call::Symlink { dir, name: n, attrs: SetAttrs::default(), target: name(&"t".repeat(*len)) }
            }
            Op::Fifo(mode) => Call::MkNod { dir, name: n, kind: Kind::Fifo, attrs: SetAttrs::mode(*mode), dev: (0, 0) },
            Op::Remove => Call::Remove { dir, name: n },
            Op::RmDir => Call::RmDir { dir, name: n },
            Op::Rename(to, new) => Call::Rename { from: dir, name: n, to: self.dir(to).await, new: name(new) },
            Op::Link(to, new) => match node {
                Some(node) => Call::Link { node, dir: self.dir(to).await, name: name(new) },
                None => return (status::NOENT, vec![]),
            },
            Op::Chmod(mode) => set(node, SetAttrs::mode(*mode)),
            Op::Chown(uid, gid) => set(node, SetAttrs { uid: *uid, gid: *gid, ..SetAttrs::default() }),
            Op::Truncate(size) => set(node, SetAttrs::size(*size)),
            Op::Times(secs) => {
                let time = SetTime::Client(secs * 1_000_000_000 + 7);
                set(node, SetAttrs { atime: time, mtime: time, ..SetAttrs::default() })
            }
            Op::Write(offset, byte, len) => {
                let data = bytes_of((*byte, *len)).into();
                Call::Write { node: node.unwrap(), offset: *offset, stable: 2, data }
            }
            Op::Read => Call::Read { node: node.unwrap(), offset: 0, count: 100_000 },
            Op::List => Call::ReadDir { dir, cookie: 0, verf: [0; 8], count: 1 << 16 },
        };
        let reply = client.nfs(&call).await.unwrap();
        let names: BTreeSet<Vec<u8>> = reply.entries.iter().map(|e| e.name.to_vec()).collect();
        let listed = names.into_iter().collect::<Vec<_>>().join(&b'/');
        (reply.status, if matches!(step.op, Op::List) { listed } else { reply.data.to_vec() })
    }

    /// Everything in the kernel's tree looks so over the wire, and on the disk behind it.
    async fn compare(&self, theirs: &Path, paths: &[String], at: &str) {
        for path in paths {
            let due = std::fs::symlink_metadata(theirs.join(path)).unwrap();
            let behind = std::fs::symlink_metadata(self.s.export().join(path)).unwrap();
            let (_, attr) = self.find(path).await.unwrap_or_else(|| panic!("{at}: {path} is missing"));
            let kind = match due.file_type() {
                t if t.is_dir() => Kind::Dir,
                t if t.is_file() => Kind::File,
                t if t.is_symlink() => Kind::Symlink,
                t if t.is_fifo() => Kind::Fifo,
                other => panic!("{other:?}"),
            };
            let wanted = (kind, due.mode() & 0o7777, due.uid(), due.gid(), due.nlink());
            let got = (attr.kind, attr.mode, attr.uid, attr.gid, u64::from(attr.nlink));
            assert_eq!(got, wanted, "{at}: {path}");
            let disk = (behind.mode(), behind.uid(), behind.gid(), behind.nlink());
            assert_eq!(disk, (due.mode(), due.uid(), due.gid(), due.nlink()), "{at}: {path} on the disk");
            assert!(due.is_dir() || attr.size == due.len(), "{at}: {path}: {} bytes", attr.size);
        }
    }
}

/// Directories, and everything; relative, the root as "".
fn walk(root: &Path, at: &str, dirs: &mut Vec<String>, all: &mut Vec<String>) {
    dirs.push(at.to_owned());
    for entry in std::fs::read_dir(root.join(at)).unwrap() {
        let entry = entry.unwrap();
        let n = entry.file_name().into_string().unwrap();
        let path = if at.is_empty() { n } else { format!("{at}/{n}") };
        all.push(path.clone());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, dirs, all);
        }
    }
}

fn step(rng: &mut Rng, dirs: &[String]) -> Step {
    let mut pick = |n: usize| usize::try_from(rng.below(n as u64)).unwrap();
    let (mode, other_dir, other_name) = (MODES[pick(12)], dirs[pick(dirs.len())].clone(), NAMES[pick(7)]);
    let id = |n: usize, of: fn(usize) -> u32| (n < 4).then(|| of(n));
    let op = match pick(20) {
        0 | 1 => Op::Create(mode),
        // mkdir(2) takes the other bits off before a file system, or an NFS client, sees them.
        2 | 3 => Op::MkDir(mode),
        4 => Op::Symlink([1, 100, 4095][pick(3)]),
        5 => Op::Fifo(mode),
        6 => Op::Remove,
        7 => Op::RmDir,
        8..=10 => Op::Rename(other_dir, other_name),
        11 => Op::Link(other_dir, other_name),
        12 | 13 => Op::Chmod(mode),
        14 => match (id(pick(6), |n| USERS[n].0), id(pick(6), |n| USERS[n].1)) {
            (None, None) => Op::Read,
            (uid, gid) => Op::Chown(uid, gid),
        },
        15 => Op::Truncate([0, 10, 70_000, (4 << 30) + 5][pick(4)]),
        16 => Op::Write([0, 5, 65_536, (4 << 30) + 9][pick(4)], u8::try_from(pick(256)).unwrap(), pick(9000) + 1),
        17 => Op::Read,
        18 => Op::Times(i64::try_from(pick(2_000_000_000)).unwrap()),
        _ => Op::List,
    };
    // Root now and then: it gives things away, and cleans up what nobody else may touch.
    let user = [0, 0, 1, 1, 2, 3][pick(6)];
    Step { user, dir: dirs[pick(dirs.len())].clone(), name: NAMES[pick(7)], op }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_of_operations_by_several_users_comes_to_what_the_kernel_makes_of_it() {
    if !is_root() {
        println!("only root can be several users");
        return;
    }
    let s = Served::new().await;
    let theirs: PathBuf = s.dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    for root in [&theirs, &s.export()] {
        std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let seed = std::env::var("TAIN_TEST_SEED").ok().and_then(|n| n.parse().ok());
    let seed = seed.unwrap_or_else(tain::demo::service::now);
    let steps = std::env::var("TAIN_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    println!("seed {seed} (TAIN_TEST_SEED)");
    let (mut rng, wire) = (Rng::new(seed), Wire { s });
    // A thread of its own, with an umask and ids of its own.
    let (ask, asked) = std::sync::mpsc::channel::<Step>();
    let (answer, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let root = theirs.clone();
    let kernel = std::thread::spawn(move || {
        #[expect(deprecated, reason = "what it warns of, a shared table of descriptors, is not what is unshared")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::FS).unwrap();
        rustix::process::umask(Mode::empty());
        for step in asked {
            answer.send(by_kernel(&root, &step)).unwrap();
        }
    });
    let (mut compared, mut refused) = (0, 0);
    for i in 0..steps {
        let (mut dirs, mut all) = (vec![], vec![]);
        walk(&theirs, "", &mut dirs, &mut all);
        dirs.retain(|dir| dir.matches('/').count() < 3);
        let step = step(&mut rng, &dirs);
        let before = wire.find(&format!("{}/{}", step.dir, step.name)).await;
        ask.send(step.clone()).unwrap();
        let Some(due) = answers.recv().await.unwrap() else { continue };
        let came = wire.run(&step).await;
        let at = format!("seed {seed}, step {i}, {step:?}, before: {before:?}");
        assert_eq!(came, due, "{at}");
        compared += 1;
        refused += i32::from(due.0 != status::OK);
        let (mut dirs, mut all) = (vec![], vec![]);
        walk(&theirs, "", &mut dirs, &mut all);
        if i % 100 != 0 && i + 1 != steps {
            all.retain(|path| step.touches(path));
        }
        wire.compare(&theirs, &all, &at).await;
    }
    drop(ask);
    kernel.join().unwrap();
    println!("{compared} of {steps} compared, {refused} refused by both");
    assert!(compared > steps / 2 && refused > compared / 10);
}
