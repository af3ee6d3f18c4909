//! The rows that any filer gives.

use super::{Row, attributes};
use crate::support::{Served, expect, name};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tain::demo::client::{Client, Cred};
use tain::demo::nfs::{Call, Fh, How, Kind, SetAttrs, SetTime, status::*};

/// One call of each procedure but NULL, with this handle wherever it takes one.
pub fn all(fh: &Fh) -> Vec<Call> {
    let (node, dir, attrs) = (fh.clone(), fh.clone(), SetAttrs::mode(0o600));
    let n = name("n");
    vec![
        Call::GetAttr { node: node.clone() },
        Call::SetAttr { node: node.clone(), attrs, guard: None },
        Call::Lookup { dir: dir.clone(), name: n.clone() },
        Call::Access { node: node.clone(), mask: 0x3f },
        Call::ReadLink { node: node.clone() },
        Call::Read { node: node.clone(), offset: 0, count: 1 },
        Call::Write { node: node.clone(), offset: 0, stable: 2, data: name("x") },
        Call::Create { dir: dir.clone(), name: n.clone(), how: How::Unchecked(attrs) },
        Call::MkDir { dir: dir.clone(), name: n.clone(), attrs },
        Call::Symlink { dir: dir.clone(), name: n.clone(), attrs, target: n.clone() },
        Call::MkNod { dir: dir.clone(), name: n.clone(), kind: Kind::Fifo, attrs, dev: (0, 0) },
        Call::Remove { dir: dir.clone(), name: n.clone() },
        Call::RmDir { dir: dir.clone(), name: n.clone() },
        Call::Rename { from: dir.clone(), name: n.clone(), to: dir.clone(), new: name("m") },
        Call::Link { node: node.clone(), dir: dir.clone(), name: n },
        Call::ReadDir { dir: dir.clone(), cookie: 0, verf: [0; 8], count: 4096 },
        Call::ReadDirPlus { dir, cookie: 0, verf: [0; 8], dircount: 4096, maxcount: 4096 },
        Call::FsStat { node: node.clone() },
        Call::FsInfo { node: node.clone() },
        Call::PathConf { node: node.clone() },
        Call::Commit { node, offset: 0, count: 0 },
    ]
}

/// The calls that make something in a directory.
fn makers(dir: &Fh, n: &Bytes) -> Vec<Call> {
    let attrs = SetAttrs::mode(0o600);
    vec![
        Call::Create { dir: dir.clone(), name: n.clone(), how: How::Guarded(attrs) },
        Call::MkDir { dir: dir.clone(), name: n.clone(), attrs },
        Call::Symlink { dir: dir.clone(), name: n.clone(), attrs, target: name("x") },
        Call::MkNod { dir: dir.clone(), name: n.clone(), kind: Kind::Fifo, attrs, dev: (0, 0) },
    ]
}

struct World {
    s: Served,
    /// Calls as somebody to whom nothing belongs.
    stranger: Client,
    /// Calls from an address that may only read, and from one that may nothing.
    reader: Client,
    refused: Client,
    /// A directory with something in it, a file, a symlink, a fifo; a directory that is closed to strangers.
    dir: Fh,
    file: Fh,
    symlink: Fh,
    fifo: Fh,
    closed: Fh,
    /// The root of another junction.
    other: Fh,
    proven: BTreeSet<Row>,
}

impl World {
    async fn new() -> Self {
        let s = Served::new().await;
        std::fs::create_dir(s.dir.path().join("other/export")).unwrap();
        s.service.tain(&["junction", "add", "/other", "two:/export"]).await.unwrap();
        let other = s.client.mount(b"/other").await.unwrap().unwrap();
        s.ok(Call::GetAttr { node: other.clone() }).await;
        let rules = ["127.0.0.1=rw,no_root_squash,insecure", "127.0.0.2=ro,no_root_squash,insecure", "127.0.0.3=none"];
        s.service.tain(&[&["policy", "add", "rows"][..], &rules].concat()).await.unwrap();
        s.service.tain(&["junction", "modify", "/a/b", "--access", "rows"]).await.unwrap();
        let [dir, file, symlink, fifo] = [
            Call::MkDir { dir: s.root.clone(), name: name("dir"), attrs: SetAttrs::mode(0o755) },
            Call::Create { dir: s.root.clone(), name: name("file"), how: How::Guarded(SetAttrs::mode(0o600)) },
            Call::Symlink {
                dir: s.root.clone(),
                name: name("symlink"),
                attrs: SetAttrs::mode(0o777),
                target: name("x"),
            },
            Call::MkNod {
                dir: s.root.clone(),
                name: name("fifo"),
                kind: Kind::Fifo,
                attrs: SetAttrs::mode(0o666),
                dev: (0, 0),
            },
        ]
        .map(|call| async { s.ok(call).await.fh.unwrap() });
        let (dir, file, symlink, fifo) = (dir.await, file.await, symlink.await, fifo.await);
        let made = Call::Create { dir: dir.clone(), name: name("in"), how: How::Guarded(SetAttrs::mode(0o600)) };
        s.ok(made).await;
        let closed = Call::MkDir { dir: s.root.clone(), name: name("closed"), attrs: SetAttrs::mode(0o700) };
        let closed = s.ok(closed).await.fh.unwrap();
        s.ok(Call::Create { dir: closed.clone(), name: name("in"), how: How::Guarded(SetAttrs::mode(0o600)) }).await;
        let at = |addr: &str, number: u32| {
            let addr: IpAddr = addr.parse().unwrap();
            Client::from(addr, s.service.nfs, Cred::own(), number << 24 | 1, Duration::from_secs(60))
        };
        let (reader, refused) = (at("127.0.0.2", 2), at("127.0.0.3", 3));
        let stranger = s.client.with_cred(Cred { uid: 54_321, gid: 54_321, gids: vec![] });
        Self { s, stranger, reader, refused, dir, file, symlink, fifo, closed, other, proven: BTreeSet::new() }
    }

    /// A call is answered so, with the attributes of what it is about.
    async fn row(&mut self, call: Call, due: u32) {
        self.row_by(&self.s.client.clone(), call, due).await;
    }

    async fn row_by(&mut self, client: &Client, call: Call, due: u32) {
        let reply = expect(client, call.clone(), due).await;
        let there = attributes(&call, &reply);
        assert!(there.iter().all(Option::is_some), "{call:?}: {due} without attributes");
        self.proven.insert((call.number(), due));
    }

    /// The same where the caller may not know, or nobody can.
    async fn bare(&mut self, client: &Client, call: Call, due: u32) {
        let reply = expect(client, call.clone(), due).await;
        assert!(attributes(&call, &reply).iter().all(Option::is_none), "{call:?}: {due} with attributes");
        self.proven.insert((call.number(), due));
    }
}

pub async fn prove() -> BTreeSet<Row> {
    let mut w = World::new().await;
    handles(&mut w).await;
    exports(&mut w).await;
    permissions(&mut w).await;
    names(&mut w).await;
    kinds(&mut w).await;
    data(&mut w).await;
    renames(&mut w).await;
    makes(&mut w).await;
    suspended(&mut w).await;
    w.proven
}

/// Handles that are forged, and handles of what is gone.
async fn handles(w: &mut World) {
    let client = w.s.client.clone();
    let mut forged = w.file.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for call in all(&Bytes::from(forged)) {
        w.bare(&client, call, BADHANDLE).await;
    }
    let gone = Call::MkDir { dir: w.s.root.clone(), name: name("gone"), attrs: SetAttrs::mode(0o700) };
    let gone = w.s.ok(gone).await.fh.unwrap();
    w.s.ok(Call::RmDir { dir: w.s.root.clone(), name: name("gone") }).await;
    for call in all(&gone) {
        w.bare(&client, call, STALE).await;
    }
}

/// An address that may only read, and one that may nothing.
async fn exports(w: &mut World) {
    let (reader, refused, root) = (w.reader.clone(), w.refused.clone(), w.s.root.clone());
    let modifying: Vec<Call> = all(&root).into_iter().filter(|c| matches!(c.number(), 2 | 7..=15)).collect();
    assert_eq!(modifying.len(), 10);
    for call in modifying {
        w.row_by(&reader, call, ROFS).await;
    }
    for call in all(&root) {
        w.bare(&refused, call, ACCES).await;
    }
}

/// Somebody to whom nothing belongs.
async fn permissions(w: &mut World) {
    let (stranger, closed, file) = (w.stranger.clone(), w.closed.clone(), w.file.clone());
    let (root, dir) = (w.s.root.clone(), w.dir.clone());
    for call in all(&closed).into_iter().filter(|c| matches!(c.number(), 3 | 8..=14 | 16 | 17)) {
        w.row_by(&stranger, call, ACCES).await;
    }
    w.row_by(&stranger, Call::Link { node: file.clone(), dir: closed, name: name("l") }, ACCES).await;
    // Those that may be searched, and not written.
    for call in makers(&dir, &name("new")) {
        w.row_by(&stranger, call, ACCES).await;
    }
    let (from, to) = (dir.clone(), dir.clone());
    for call in [
        Call::Remove { dir: dir.clone(), name: name("in") },
        Call::RmDir { dir: root, name: name("dir") },
        Call::Rename { from, name: name("in"), to, new: name("new") },
        Call::Link { node: file.clone(), dir, name: name("l") },
        Call::Read { node: file.clone(), offset: 0, count: 1 },
        Call::Write { node: file.clone(), offset: 0, stable: 2, data: name("x") },
        Call::SetAttr { node: file.clone(), attrs: SetAttrs::size(0), guard: None },
    ] {
        w.row_by(&stranger, call, ACCES).await;
    }
    w.row_by(&stranger, Call::SetAttr { node: file.clone(), attrs: SetAttrs::mode(0o777), guard: None }, PERM).await;
    w.row(Call::SetAttr { node: file, attrs: SetAttrs::mode(0o600), guard: Some(1) }, NOT_SYNC).await;
}

/// Names that are missing, taken, too long, or none.
async fn names(w: &mut World) {
    let (root, dir, file) = (w.s.root.clone(), w.dir.clone(), w.file.clone());
    let long = Bytes::from(vec![b'n'; 256]);
    let mut too_long = makers(&root, &long);
    too_long.extend([
        Call::Lookup { dir: root.clone(), name: long.clone() },
        Call::Remove { dir: root.clone(), name: long.clone() },
        Call::RmDir { dir: root.clone(), name: long.clone() },
        Call::Rename { from: root.clone(), name: long.clone(), to: dir.clone(), new: name("new") },
        Call::Rename { from: root.clone(), name: name("file"), to: dir.clone(), new: long.clone() },
        Call::Link { node: file.clone(), dir: root.clone(), name: long },
    ]);
    for call in too_long {
        w.row(call, NAMETOOLONG).await;
    }
    let text = Bytes::from(vec![b't'; 4096]);
    w.row(Call::Symlink { dir: root.clone(), name: name("s"), attrs: SetAttrs::default(), target: text }, NAMETOOLONG)
        .await;
    let none = name("none");
    for call in [
        Call::Lookup { dir: root.clone(), name: none.clone() },
        Call::Remove { dir: root.clone(), name: none.clone() },
        Call::RmDir { dir: root.clone(), name: none.clone() },
        Call::Rename { from: root.clone(), name: none, to: dir.clone(), new: name("new") },
    ] {
        w.row(call, NOENT).await;
    }
    let mut taken = makers(&root, &name("file"));
    taken.push(Call::Link { node: file.clone(), dir: root.clone(), name: name("dir") });
    taken.push(Call::RmDir { dir: dir.clone(), name: name("..") });
    for call in taken {
        w.row(call, EXIST).await;
    }
    for call in [
        Call::RmDir { dir: dir.clone(), name: name(".") },
        Call::Rename { from: root.clone(), name: name("."), to: dir.clone(), new: name("new") },
        Call::Link { node: file.clone(), dir: root.clone(), name: name("a/b") },
        Call::Remove { dir: root.clone(), name: name("") },
    ] {
        w.row(call, INVAL).await;
    }
    w.row(Call::RmDir { dir: root, name: name("dir") }, NOTEMPTY).await;
}

/// What is done to the wrong kind of thing.
async fn kinds(w: &mut World) {
    let (root, dir, file) = (w.s.root.clone(), w.dir.clone(), w.file.clone());
    let (symlink, fifo) = (w.symlink.clone(), w.fifo.clone());
    for call in all(&file).into_iter().filter(|c| matches!(c.number(), 3 | 8..=14 | 15..=17)) {
        w.row(call, NOTDIR).await;
    }
    w.row(Call::RmDir { dir: root.clone(), name: name("file") }, NOTDIR).await;
    w.row(Call::Remove { dir: root.clone(), name: name("dir") }, ISDIR).await;
    w.row(Call::ReadLink { node: file.clone() }, INVAL).await;
    for (node, due) in [(symlink, INVAL), (fifo, INVAL), (dir.clone(), ISDIR)] {
        w.row(Call::Read { node: node.clone(), offset: 0, count: 1 }, due).await;
        w.row(Call::Write { node: node.clone(), offset: 0, stable: 2, data: name("x") }, due).await;
        w.row(Call::SetAttr { node, attrs: SetAttrs::size(0), guard: None }, due).await;
    }
    w.row(Call::Link { node: dir, dir: root, name: name("second") }, ISDIR).await;
}

/// Sizes, times and room.
async fn data(w: &mut World) {
    let (root, file) = (w.s.root.clone(), w.file.clone());
    w.row(Call::Write { node: file.clone(), offset: i64::MAX as u64, stable: 2, data: name("x") }, FBIG).await;
    w.row(Call::SetAttr { node: file.clone(), attrs: SetAttrs::size(u64::MAX), guard: None }, FBIG).await;
    for call in [
        Call::ReadDir { dir: root.clone(), cookie: 0, verf: [0; 8], count: 112 },
        Call::ReadDirPlus { dir: root, cookie: 0, verf: [0; 8], dircount: 4096, maxcount: 250 },
    ] {
        w.row(call, TOOSMALL).await;
    }
}

/// What RENAME and LINK refuse of their own.
async fn renames(w: &mut World) {
    let (root, dir, file, other) = (w.s.root.clone(), w.dir.clone(), w.file.clone(), w.other.clone());
    let mv = |n: &str, to: &Fh, new: &str| Call::Rename {
        from: root.clone(),
        name: name(n),
        to: to.clone(),
        new: name(new),
    };
    w.row(mv("file", &other, "file"), XDEV).await;
    w.row(Call::Link { node: file, dir: other, name: name("l") }, XDEV).await;
    w.row(mv("file", &root, "dir"), ISDIR).await;
    w.row(mv("dir", &root, "file"), NOTDIR).await;
    w.row(mv("closed", &root, "dir"), NOTEMPTY).await;
    w.row(mv("dir", &dir, "below"), INVAL).await;
    // Somebody put it there behind the service, which knows the directory: what nobody has met is not replaced.
    std::fs::write(w.s.export().join("dir/behind"), "theirs").unwrap();
    w.row(mv("file", &dir, "behind"), EXIST).await;
    assert_eq!(std::fs::read(w.s.export().join("dir/behind")).unwrap(), b"theirs");
}

async fn makes(w: &mut World) {
    let (dir, attrs) = (w.s.root.clone(), SetAttrs::mode(0o600));
    for kind in [Kind::File, Kind::Dir, Kind::Symlink] {
        let call = Call::MkNod { dir: dir.clone(), name: name("bad"), kind, attrs, dev: (0, 0) };
        w.row(call, BADTYPE).await;
    }
    let call = Call::MkNod { dir: dir.clone(), name: name("dev"), kind: Kind::Char, attrs, dev: (1, 3) };
    w.row_by(&w.stranger.clone(), call, ACCES).await;
    let far = SetAttrs { mtime: SetTime::Client(0), ..attrs };
    w.s.ok(Call::MkDir { dir, name: name("old"), attrs: far }).await;
    // The tree above the junctions is nobody's to change.
    let top = w.s.client.mount(b"/a").await.unwrap().unwrap();
    for call in all(&top).into_iter().filter(|c| matches!(c.number(), 2 | 7..=15)) {
        w.row(call, ROFS).await;
    }
    let mode = std::fs::metadata(w.s.export().join("closed")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "none of all this changed anything");
}

/// Any procedure may ask the client to come again; FSINFO and PATHCONF need nothing that could be away.
async fn suspended(w: &mut World) {
    w.s.service.tain(&["junction", "suspend", "/a/b"]).await.unwrap();
    for call in all(&w.s.root).into_iter().filter(|c| !matches!(c.number(), 19 | 20)) {
        let reply = w.s.client.once(&call).await.unwrap();
        assert_eq!(reply.status, JUKEBOX, "{call:?}");
    }
}
