//! A lane: one sequential stream of calls in a part of the tree that nobody else touches, each answer compared with the
//! model. Several lanes share a client and so keep many calls in flight on one connection.

use super::Error;
use super::client::Client;
use super::content::Rng;
use super::model::{Body, Change, Logged, Nid, ROOT, Stamp, Tree};
use super::nfs::{Attr, Call, Fh, Kind, Nanos, Reply, status};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Calls that took long, kept to find the pause at a switch. Bound: further ones are only counted.
#[derive(Debug, Default)]
pub struct Slow {
    /// Begin (nanoseconds since 1970) and duration.
    pub calls: Vec<(Nanos, Duration)>,
    pub more: u64,
}

impl Slow {
    /// What counts as long.
    pub const FROM: Duration = Duration::from_millis(2);
    const MAX: usize = 200_000;

    fn note(&mut self, at: SystemTime, took: Duration) {
        if took < Self::FROM {
            return;
        }
        if self.calls.len() >= Self::MAX {
            self.more += 1;
            return;
        }
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.calls.push((Nanos::try_from(at).unwrap_or(Nanos::MAX), took));
    }

    /// The longest call that was under way at any time between `from` and `to`.
    pub fn worst(&self, from: Nanos, to: Nanos) -> Option<Duration> {
        let nanos = |d: &Duration| Nanos::try_from(d.as_nanos()).unwrap_or(Nanos::MAX);
        self.calls.iter().filter(|(at, took)| *at <= to && at + nanos(took) >= from).map(|(_, took)| *took).max()
    }
}

/// How much a lane may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes; above it lanes remove more than they make.
    pub nodes: usize,
    /// Largest file a lane writes; bigger ones that were there stay.
    pub file_bytes: u64,
    /// Calls kept for the model of an earlier moment; when they are used up the lane only reads.
    pub log: usize,
    /// Pause between operations: load that leaves the copy some of the machine.
    pub pause: Duration,
    /// The lane changes nothing.
    pub read_only: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 3000, file_bytes: 4 << 20, log: 1_000_000, pause: Duration::from_millis(2), read_only: false }
    }
}

pub struct Lane {
    pub client: Client,
    /// For messages: "client 2 lane 1".
    pub name: String,
    /// Where its root is, names below the junction.
    pub path: Vec<Bytes>,
    pub tree: Tree,
    /// `tree` when the log began.
    pub base: Tree,
    pub log: Vec<Logged>,
    pub limits: Limits,
    pub slow: Arc<Mutex<Slow>>,
    pub rng: Rng,
    /// Operations done.
    pub ops: u64,
    pub bytes_written: u64,
    pub bytes_read: u64,
    pub fsid: Option<u64>,
    /// The operation under way, for messages.
    pub doing: String,
}

pub type Done = Result<(), Error>;

impl Lane {
    pub fn new(client: Client, name: String, path: Vec<Bytes>, tree: Tree, seed: u64, limits: Limits) -> Self {
        Self {
            client,
            name,
            path,
            base: tree.clone(),
            tree,
            log: Vec::new(),
            limits,
            slow: Arc::default(),
            rng: Rng::new(seed),
            ops: 0,
            bytes_written: 0,
            bytes_read: 0,
            fsid: None,
            doing: String::new(),
        }
    }

    /// Find the lane's root below `junction`, walking as a client does.
    pub async fn enter(&mut self, junction: Fh) -> Done {
        let mut dir = junction;
        for name in self.path.clone() {
            let reply = self.client.nfs(&Call::Lookup { dir, name: name.clone() }).await?;
            self.expect(&reply, &[status::OK])?;
            dir = reply.fh.ok_or_else(|| self.mismatch("a handle", "none"))?;
        }
        if let Some(known) = &self.tree.get(ROOT).fh
            && *known != dir
        {
            return Err(self.mismatch("the handle of the lane's root as it was", "another one"));
        }
        self.tree.get_mut(ROOT).fh = Some(dir);
        self.look(ROOT).await
    }

    pub fn mismatch(&self, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
        Error::Mismatch(format!(
            "{}, operation {}: {}: expected {expected}, got {got}",
            self.name, self.ops, self.doing
        ))
    }

    pub fn expect(&self, reply: &Reply, due: &[u32]) -> Done {
        if due.contains(&reply.status) {
            return Ok(());
        }
        Err(self.mismatch(format_args!("status {due:?}"), format_args!("{} (xid {:#x})", reply.status, reply.xid)))
    }

    /// Send a call that changes something, and keep its latency.
    pub async fn mutate(&self, call: &Call) -> Result<Reply, Error> {
        self.sender().send(call).await.map_err(|e| self.context(e))
    }

    pub async fn ask(&self, call: &Call) -> Result<Reply, Error> {
        self.client.nfs(call).await.map_err(|e| self.context(e))
    }

    fn context(&self, e: Error) -> Error {
        Error::Mismatch(format!("{}, operation {}: {}: {e}", self.name, self.ops, self.doing))
    }

    /// The model takes the change; the log keeps it.
    pub fn record(&mut self, reply: &Reply, change: Change, mtimes: Vec<(Nid, Nanos)>) {
        self.tree.apply(&change);
        let xids = reply.earlier.iter().copied().chain([reply.xid]).collect();
        self.log.push(Logged { xids, change, mtimes });
    }

    /// The log has room for another call.
    pub fn may_change(&self) -> bool {
        !self.limits.read_only && self.log.len() < self.limits.log
    }

    /// Attributes in a reply against the model.
    pub fn see(&mut self, nid: Nid, what: &str, attr: Option<&Attr>) -> Done {
        let Some(attr) = attr else { return Ok(()) };
        if *self.fsid.get_or_insert(attr.fsid) != attr.fsid {
            return Err(self.mismatch(format_args!("fsid {:?}", self.fsid), attr.fsid));
        }
        if let Err(e) = self.tree.get_mut(nid).see(attr) {
            let path = self.tree.path(nid).escape_ascii().to_string();
            return Err(self.mismatch(format_args!("{what} {path:?} (node {nid}) as it was left"), e));
        }
        Ok(())
    }

    /// A directory's attributes after a change in it; its new mtime for the log.
    pub fn see_dir(&mut self, dir: Nid, reply: &Option<Attr>) -> Result<Vec<(Nid, Nanos)>, Error> {
        self.see(dir, "directory", reply.as_ref())?;
        Ok(self.mtime(dir))
    }

    /// The mtime of `nid` when it is known.
    pub fn mtime(&self, nid: Nid) -> Vec<(Nid, Nanos)> {
        match self.tree.get(nid).mtime {
            Stamp::Exactly(t) => vec![(nid, t)],
            Stamp::Unknown | Stamp::AtLeast(_) => Vec::new(),
        }
    }

    /// The mtimes that became known after the last entry was logged.
    pub fn log_mtimes(&mut self, mtimes: Vec<(Nid, Nanos)>) {
        if let Some(last) = self.log.last_mut() {
            last.mtimes.extend(mtimes);
        }
    }

    /// GETATTR against the model.
    pub async fn look(&mut self, nid: Nid) -> Done {
        let node = self.handle(nid).await?;
        let reply = self.ask(&Call::GetAttr { node }).await?;
        self.expect(&reply, &[status::OK])?;
        self.see(nid, "GETATTR of", reply.attr.as_ref())
    }

    /// The handle of a node; looked up, name by name, when it is not known yet.
    pub async fn handle(&mut self, nid: Nid) -> Result<Fh, Error> {
        let mut chain = Vec::new();
        let mut at = nid;
        while self.tree.get(at).fh.is_none() {
            let Some((dir, name)) = self.tree.get(at).names.first().cloned() else { break };
            chain.push((at, dir, name));
            at = dir;
        }
        while let Some((node, dir, name)) = chain.pop() {
            self.lookup(dir, &name, node).await?;
        }
        self.tree.get(nid).fh.clone().ok_or_else(|| self.mismatch("a handle to be known", "none"))
    }

    /// LOOKUP of a name whose directory's handle is known.
    pub async fn lookup(&mut self, dir: Nid, name: &Bytes, node: Nid) -> Done {
        let Some(fh) = self.tree.get(dir).fh.clone() else {
            return Err(self.mismatch("a directory's handle to be known", "none"));
        };
        let reply = self.ask(&Call::Lookup { dir: fh, name: name.clone() }).await?;
        self.expect(&reply, &[status::OK])?;
        self.learn_handle(node, reply.fh.clone())?;
        self.see(node, "LOOKUP of", reply.attr.as_ref())?;
        self.see(dir, "LOOKUP in", reply.wcc.after.as_ref())
    }

    pub fn learn_handle(&mut self, nid: Nid, fh: Option<Fh>) -> Done {
        let Some(fh) = fh else { return Ok(()) };
        match &self.tree.get(nid).fh {
            Some(known) if *known != fh => {
                let path = self.tree.path(nid).escape_ascii().to_string();
                Err(self.mismatch(format_args!("the handle of {path:?} as it was"), "another one"))
            }
            _ => {
                self.tree.get_mut(nid).fh = Some(fh);
                Ok(())
            }
        }
    }

    /// A random node that `wanted` likes.
    pub fn pick(&mut self, wanted: impl Fn(&Tree, Nid) -> bool) -> Option<Nid> {
        for _ in 0..12 {
            let from = Nid::try_from(self.rng.below(u64::from(self.tree.nid_end()))).unwrap_or(0);
            if let Some((nid, node)) = self.tree.nodes.range(from..).next()
                && !node.elsewhere
                && wanted(&self.tree, *nid)
            {
                return Some(*nid);
            }
        }
        None
    }

    pub fn pick_dir(&mut self) -> Nid {
        self.pick(|t, n| t.is_dir(n)).unwrap_or(ROOT)
    }

    pub fn pick_file(&mut self) -> Option<Nid> {
        self.pick(|t, n| t.get(n).kind() == Kind::File)
    }

    /// A node that is not the root, and one of its names.
    pub fn pick_name(&mut self, wanted: impl Fn(&Tree, Nid) -> bool) -> Option<(Nid, Nid, Bytes)> {
        let nid = self.pick(|t, n| n != ROOT && wanted(t, n))?;
        let at = self.rng.index(self.tree.get(nid).names.len());
        let (dir, name) = self.tree.get(nid).names.get(at)?.clone();
        Some((nid, dir, name))
    }

    /// A name that is not in `dir`: mostly short, sometimes of 255 odd bytes.
    pub fn fresh_name(&mut self, dir: Nid) -> Bytes {
        loop {
            let n = self.rng.u64();
            let name =
                if n.is_multiple_of(40) { odd_name(n, 255) } else { format!("n{:x}", n % 0xff_ffff).into_bytes() };
            if self.tree.child(dir, &name).is_none() {
                return Bytes::from(name);
            }
        }
    }

    /// Everything in the tree, seen once more: pins all times.
    pub async fn look_at_all(&mut self) -> Done {
        self.doing = "last look".into();
        let all: Vec<Nid> = self.tree.nodes.keys().copied().collect();
        for nid in all {
            self.look(nid).await?;
        }
        Ok(())
    }

    /// The model as it was when only the calls were done that `before` says yes to (by xid; `None`: no event names it).
    /// Calls of a lane follow each other, but for the parts of one long write. An error when a call left no event that
    /// must have.
    pub fn tree_at(&self, before: impl Fn(u32) -> Option<bool>) -> Result<Tree, Error> {
        let mut tree = self.base.clone();
        let mut last_before = None;
        let known: Vec<Option<bool>> = self.log.iter().map(|l| l.xids.iter().find_map(|xid| before(*xid))).collect();
        // Where there was nothing to do there is nothing to judge either: by the neighbours.
        let first_after = known.iter().position(|k| *k == Some(false)).unwrap_or(known.len());
        for (i, logged) in self.log.iter().enumerate() {
            if known[i].is_none() && logged.change.leaves_event() {
                return Err(Error::Mismatch(format!(
                    "{}: no event is of {:x?}: {:?}",
                    self.name, logged.xids, logged.change
                )));
            }
            if known[i].unwrap_or(i < first_after) {
                tree.replay(logged);
                last_before = Some(logged);
            }
        }
        // A long write cut in two by the moment: its parts' replies may tell times of each other.
        if let (Some(Logged { change: Change::Write { node: a, .. }, .. }), Some(after)) =
            (last_before, self.log.get(first_after))
            && matches!(after.change, Change::Write { node, .. } if node == *a)
            && let Some(node) = tree.nodes.get_mut(a)
        {
            node.mtime = Stamp::Unknown;
        }
        Ok(tree)
    }

    pub fn size_of(&self, nid: Nid) -> u64 {
        match &self.tree.get(nid).body {
            Body::File { size, .. } => *size,
            Body::Dir { .. } | Body::Symlink { .. } | Body::Other(_) => 0,
        }
    }
}

/// A name of `len` bytes, none of them `/` or NUL, most of them no UTF-8.
pub fn odd_name(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len)
        .map(|_| match u8::try_from(rng.below(255) + 1).unwrap_or(1) {
            b'/' => b'\\',
            b => b,
        })
        .collect()
}

/// What a part of a long write takes along to be sent on its own.
pub struct Sender {
    client: Client,
    slow: Arc<Mutex<Slow>>,
}

impl Lane {
    pub fn sender(&self) -> Sender {
        Sender { client: self.client.clone(), slow: self.slow.clone() }
    }
}

impl Sender {
    pub async fn send(&self, call: &Call) -> Result<Reply, Error> {
        let (begun, at) = (Instant::now(), SystemTime::now());
        let reply = self.client.nfs(call).await?;
        self.slow.lock().unwrap_or_else(std::sync::PoisonError::into_inner).note(at, begun.elapsed());
        Ok(reply)
    }
}
