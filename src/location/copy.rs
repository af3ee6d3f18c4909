//! The source of a copy: the primary as it is when a step is carried out. Newer bytes are harmless: every client write
//! to a partial or present file is replayed after the step, from the journal (design §6).

use super::digest::RangeDigest;
use super::round::Renew;
use super::{Location, index_error};
use crate::filer::{AclKind, Changes, CoreFiler, Error, ErrorKind, MakeAttrs, Object, Result};
use crate::index::live::Live;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use journal_format::event::{Range, RangeDone, What};
use journal_format::ids::{Kind, NodeId};
use std::sync::Arc;

/// Bytes read and written at once.
const PIECE: u64 = 1 << 20;
/// Pieces of one range on their way.
const PIECES_AHEAD: usize = 2;
/// A filer that has so many bytes left is not full.
const ROOM: u64 = 16 << 20;
/// The kernel takes it from a file with every change of its bytes, its size or its owner, root's too.
const CAPABILITY: &[u8] = b"security.capability";

/// What to make, with which attributes, and what to set afterwards.
pub type Described = (What, MakeAttrs, Changes);

pub struct Source {
    pub location: Arc<Location>,
    pub live: Arc<Live>,
}

impl Source {
    /// The node's object; `None` when the node has gone: its REMOVE is in the journal.
    pub async fn object(&self, node: NodeId) -> Result<Option<Object>> {
        match self.location.object(self.live.as_ref(), node).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::NotFound) && self.is_gone(node) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The live index says that the node has ended.
    #[must_use]
    pub fn is_gone(&self, node: NodeId) -> bool {
        matches!(self.live.node(node), Ok(None))
    }

    /// Path below the junction, for people.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        match self.live.path(node) {
            Ok(Some(names)) => names.join(&b'/'),
            _ => format!("node {node}").into_bytes(),
        }
    }

    /// What to make for the node, its attributes, and what to set afterwards.
    pub async fn describe(&self, node: NodeId, kind: Kind) -> Result<Option<Described>> {
        self.described(node, kind).await.map_err(unreadable)
    }

    async fn described(&self, node: NodeId, kind: Kind) -> Result<Option<Described>> {
        let Some(object) = self.object(node).await? else { return Ok(None) };
        let filer = &self.location.filer;
        let stat = filer.stat(&object).await?;
        let (major, minor) = stat.rdev;
        let what = match kind {
            Kind::File => What::File,
            Kind::Dir => What::Dir,
            Kind::Symlink => What::Symlink { target: filer.readlink(&object).await? },
            Kind::Fifo => What::Fifo,
            Kind::Socket => What::Socket,
            Kind::Char => What::Char { major, minor },
            Kind::Block => What::Block { major, minor },
        };
        if stat.kind != kind {
            return Err(Error::new(ErrorKind::Stale, "copy", format!("node {node} is of another kind than it was")));
        }
        let attrs = MakeAttrs { mode: stat.mode, uid: stat.uid, gid: stat.gid, inherits: false };
        Ok(Some((what, attrs, Changes { atime: Some(stat.atime), ..Changes::default() })))
    }

    /// Extended attributes and ACLs of the node, by name.
    pub async fn xattrs(&self, node: NodeId, kind: Kind) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let can = self.location.filer.capabilities();
        if kind == Kind::Symlink || !(can.xattrs || can.acls) {
            return Ok(Vec::new());
        }
        let Some(from) = self.object(node).await.map_err(unreadable)? else { return Ok(Vec::new()) };
        self.location.filer.xattrs(&from).await.map_err(unreadable)
    }

    /// The default ACL of a directory that is to be copied.
    pub async fn default_acl(&self, dir: NodeId) -> Result<Option<Bytes>> {
        match self.object(dir).await.map_err(unreadable)? {
            Some(object) if self.location.filer.capabilities().acls => {
                self.location.filer.acl(&object, AclKind::Default).await.map_err(unreadable)
            }
            _ => Ok(None),
        }
    }

    /// Carry a range over, holes as holes. With the last one size and mode are put, too. (Not the access time: the copy has
    /// it since it was made, and the source's has moved since then, by the reading.)
    pub async fn copy_range(&self, range: &Range, to: &dyn CoreFiler, object: &Object) -> Result<RangeDone> {
        let void =
            RangeDone { node: range.node, offset: range.offset, len: 0, digest: [0; 32], last: range.last, void: true };
        let Some(from) = self.object(range.node).await? else { return Ok(void) };
        let filer = &self.location.filer;
        self.location.reads(range.node);
        let size = filer.stat(&from).await?.size;
        let end = range.offset.saturating_add(range.len).min(size);
        let len = end.saturating_sub(range.offset);
        let mut data = Vec::new();
        if len > 0 {
            data = filer.data_ranges(&from, range.offset, len).await?;
            make_holes(to, object, range.offset, end, &data).await?;
        }
        let mut digest = RangeDigest::default();
        let from = &from;
        let pieces = data.into_iter().flat_map(|(offset, len)| pieces(offset, len));
        let pieces = pieces.map(|(offset, len)| carry(filer.as_ref(), from, to, object, offset, len));
        let mut copied = stream::iter(pieces).buffered(PIECES_AHEAD);
        while let Some(piece) = copied.next().await {
            let (offset, data) = piece?;
            crash_point!("COPY_PIECE");
            digest.update(offset, &data);
        }
        self.location.reads(range.node);
        if range.last {
            crash_point!("COPY_BEFORE_SIZE");
            let stat = filer.stat(from).await?;
            let changes = Changes { size: Some(stat.size), mode: Some(stat.mode), ..Changes::default() };
            to.set(object, changes).await?;
            self.put_capability(from, to, object).await?;
        }
        Ok(RangeDone {
            node: range.node,
            offset: range.offset,
            len,
            digest: digest.finish(),
            last: range.last,
            void: false,
        })
    }

    /// Bring what is dirty of a node over: cut first, so that holes stay holes; then bytes; then attributes.
    pub async fn renew(&self, node: NodeId, renew: &Renew, to: &dyn CoreFiler, object: &Object) -> Result<()> {
        let Some(from) = self.object(node).await? else { return Ok(()) };
        if let Some(cut) = renew.cut
            && to.stat(object).await?.size > cut
        {
            to.set(object, Changes { size: Some(cut), ..Changes::default() }).await?;
        }
        // The reading moves it.
        let atime = self.location.filer.stat(&from).await?.atime;
        for (start, end) in &renew.ranges {
            let range = Range { node, offset: *start, len: end - start, last: false };
            self.copy_range(&range, to, object).await?;
        }
        let stat = self.location.filer.stat(&from).await?;
        if renew.attrs {
            let changes = Changes {
                uid: Some(stat.uid),
                gid: Some(stat.gid),
                mode: (stat.kind != Kind::Symlink).then_some(stat.mode),
                size: (stat.kind == Kind::File).then_some(stat.size),
                atime: Some(atime),
                mtime: None,
            };
            to.set(object, changes).await?;
        } else if !renew.ranges.is_empty() && stat.kind == Kind::File {
            // It may end in a hole: a source may show zeros as one.
            to.set(object, Changes { size: Some(stat.size), ..Changes::default() }).await?;
        }
        self.put_capability(&from, to, object).await
    }

    /// What the program in the file may do, which changing it has just taken from the copy: put behind that. Where a client
    /// changed it the source has lost it as well.
    async fn put_capability(&self, from: &Object, to: &dyn CoreFiler, object: &Object) -> Result<()> {
        if object.kind != Kind::File || !self.location.filer.capabilities().xattrs {
            return Ok(());
        }
        let mut xattrs = self.location.filer.xattrs(from).await.map_err(unreadable)?;
        xattrs.retain(|(name, _)| name == CAPABILITY);
        put_xattrs(to, object, &xattrs).await
    }

    /// Modification time that clients see now; `None` when the node has gone.
    pub fn mtime(&self, node: NodeId) -> Result<Option<journal_format::ids::Time>> {
        Ok(self.live.node(node).map_err(index_error)?.map(|rec| rec.mtime))
    }
}

/// Put what [`Source::xattrs`] said. One that has no room, while the filer has, is too large for the object: ext4, say,
/// takes 4 KiB of them. A full filer is waited for.
pub async fn put_xattrs(to: &dyn CoreFiler, object: &Object, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    let Err(error) = put_all(to, object, xattrs).await else { return Ok(()) };
    let of_object = match error.kind {
        ErrorKind::Io => true,
        ErrorKind::NoSpace | ErrorKind::Quota => {
            let left = to.statfs().await?;
            // Some do not count files, and say 0 of 0.
            left.avail_bytes >= ROOM && (left.avail_files > 0 || left.total_files == 0)
        }
        _ => false,
    };
    Err(if of_object { Error { kind: ErrorKind::OfObject, ..error } } else { error })
}

/// With an ACL comes a mode.
pub async fn put_all(to: &dyn CoreFiler, object: &Object, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    for (name, value) in xattrs {
        let can = to.capabilities();
        if !(if is_acl(name) { can.acls } else { can.xattrs }) {
            let what = if is_acl(name) { "ACLs" } else { "extended attributes" };
            return Err(Error::new(ErrorKind::NotSupported, "copy", format!("the destination has no {what}")));
        }
        let put = to.set_xattr(object, name, value).await;
        put.map_err(|error| {
            let detail = format!("{}, {} bytes: {}", String::from_utf8_lossy(name), value.len(), error.detail);
            Error { detail, ..error }
        })?;
    }
    Ok(())
}

/// What cannot be read of one object of the source is that object's trouble, as it is with its bytes: the others go on.
pub fn unreadable(error: Error) -> Error {
    if error.kind != ErrorKind::Io {
        return error;
    }
    Error { kind: ErrorKind::OfObject, detail: format!("of the source: {}", error.detail), ..error }
}

pub fn is_acl(xattr: &[u8]) -> bool {
    [AclKind::Access, AclKind::Default].iter().any(|which| which.xattr().as_bytes() == xattr)
}

/// Where the source has a hole now, a former try may have left bytes: they go. Nothing is asked about what lies behind
/// the object's end, so a first copy pays for one look at its size.
async fn make_holes(to: &dyn CoreFiler, object: &Object, from: u64, end: u64, data: &[(u64, u64)]) -> Result<()> {
    let end = end.min(to.stat(object).await?.size);
    let mut at = from;
    for (start, len) in data.iter().copied().chain([(end, 0)]) {
        let hole = start.min(end).saturating_sub(at);
        if hole > 0 && !to.data_ranges(object, at, hole).await?.is_empty() {
            to.punch(object, at, hole).await?;
        }
        at = at.max(start.saturating_add(len));
    }
    Ok(())
}

/// A file that was sparse when the step was ordered may be full of data by now: they are not put together beforehand.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u32)> {
    (0..len.div_ceil(PIECE)).map(move |n| {
        let len = PIECE.min(len - n * PIECE);
        (offset + n * PIECE, u32::try_from(len).unwrap_or(u32::MAX))
    })
}

async fn carry(
    from: &dyn CoreFiler,
    source: &Object,
    to: &dyn CoreFiler,
    object: &Object,
    offset: u64,
    len: u32,
) -> Result<(u64, Bytes)> {
    let data = from.read(source, offset, len).await?;
    to.write(object, offset, data.clone()).await?;
    Ok((offset, data))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::filer::memory::{Fault, Memory};
    use crate::index::objects::Objects;
    use crate::index::store::Store;
    use journal_format::ids::LocationId;

    const NODE: NodeId = NodeId(7);
    const ATTRS: MakeAttrs = MakeAttrs { mode: 0o644, uid: 0, gid: 0, inherits: false };

    /// A file on one filer, of which the other has a copy without bytes.
    struct Pair {
        from: Memory,
        to: Memory,
        file: Object,
        copy: Object,
        source: Source,
        _dir: tempfile::TempDir,
    }

    impl Pair {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (Memory::default(), Memory::default());
            let file = from.make(&from.root().await.unwrap(), b"f", &What::File, ATTRS).await.unwrap();
            let copy = to.make(&to.root().await.unwrap(), b"f", &What::File, ATTRS).await.unwrap();
            let source = source_of(dir.path(), Arc::new(from.clone()), &file);
            Self { from, to, file, copy, source, _dir: dir }
        }
    }

    fn source_of(dir: &std::path::Path, filer: Arc<dyn CoreFiler>, file: &Object) -> Source {
        let store = |name: &str| Arc::new(Store::open(&dir.join(name), 1 << 20).unwrap());
        let objects = Objects::new(store("objects"));
        objects.store.write(objects.put(NODE, &file.id).unwrap());
        let location = Location::new(LocationId(1), NodeId(1), filer, objects);
        Source { location: Arc::new(location), live: Arc::new(Live::new(store("live"))) }
    }

    #[tokio::test]
    async fn a_step_that_is_tried_again_leaves_no_stale_bytes_where_the_source_has_holes_now() {
        let Pair { from, to, file, copy, source, _dir } = Pair::new().await;
        let range = Range { node: NODE, offset: 0, len: 98_304, last: true };

        from.write(&file, 0, Bytes::from(vec![1; 98_304])).await.unwrap();
        source.copy_range(&range, &to, &copy).await.unwrap();
        let grow = |size| Changes { size: Some(size), ..Changes::default() };
        from.set(&file, grow(0)).await.unwrap();
        from.set(&file, grow(98_304)).await.unwrap();
        from.write(&file, 40_960, Bytes::from(vec![2; 4096])).await.unwrap();
        for kind in [ErrorKind::Stale, ErrorKind::ReadOnly, ErrorKind::Quota, ErrorKind::Io, ErrorKind::Access] {
            to.set_fault(Some(Box::new(move |op| (op == "punch").then_some(Fault::Before(kind)))));
            let said = source.copy_range(&range, &to, &copy).await;
            assert_eq!(said.err().map(|e| e.kind), Some(kind), "a step that punched no hole is not done");
        }
        to.set_fault(None);
        let done = source.copy_range(&range, &to, &copy).await.unwrap();

        let (here, there) = (from.read(&file, 0, 98_304).await.unwrap(), to.read(&copy, 0, 98_304).await.unwrap());
        assert!(here == there, "stale bytes");
        assert_eq!(to.data_ranges(&copy, 0, 98_304).await.unwrap(), [(40_960, 4096)], "and sparse as the source");
        assert_eq!(done.len, 98_304);
    }

    /// A source may show zeros as a hole: nothing is written for them.
    #[tokio::test]
    async fn a_dirty_range_that_ends_in_a_hole_is_as_long_as_on_the_source() {
        let Pair { from, to, file, copy, source, _dir } = Pair::new().await;
        for filer in [(&from, &file), (&to, &copy)] {
            filer.0.write(filer.1, 0, Bytes::from(vec![1; 4096])).await.unwrap();
        }
        from.set(&file, Changes { size: Some(1 << 20), ..Changes::default() }).await.unwrap();
        let renew = Renew { cut: None, ranges: vec![(4096, 1 << 20)], attrs: false };
        source.renew(NODE, &renew, &to, &copy).await.unwrap();
        assert_eq!(to.stat(&copy).await.unwrap().size, 1 << 20);
        assert_eq!(to.data_ranges(&copy, 0, 1 << 20).await.unwrap(), [(0, 4096)]);
    }

    /// As root alone: nobody else may give a program capabilities.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_program_may_do_is_put_behind_its_bytes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut filers = Vec::new();
        for side in ["from", "to"] {
            let path = dir.path().join(side);
            std::fs::create_dir(&path).unwrap();
            let url = format!("posix://{}", path.display());
            let root = crate::filer::registry::probe(&url).await.unwrap().root;
            filers.push(crate::filer::registry::open(&url, &root, &[], None).await.unwrap());
        }
        let [from, to]: [Arc<dyn CoreFiler>; 2] = filers.try_into().ok().unwrap();
        let file = from.make(&from.root().await.unwrap(), b"f", &What::File, ATTRS).await.unwrap();
        let copy = to.make(&to.root().await.unwrap(), b"f", &What::File, ATTRS).await.unwrap();
        from.write(&file, 0, Bytes::from(vec![1; 98_304])).await.unwrap();
        // It may bind ports below 1024: revision 2, effective.
        let mut capability = vec![1, 0, 0, 2, 0, 4, 0, 0];
        capability.resize(20, 0);
        from.set_xattr(&file, CAPABILITY, &capability).await.unwrap();
        let source = source_of(dir.path(), from, &file);

        let wanted = [(CAPABILITY.to_vec(), capability)];
        put_xattrs(to.as_ref(), &copy, &source.xattrs(NODE, Kind::File).await.unwrap()).await.unwrap();
        let range = Range { node: NODE, offset: 0, len: 98_304, last: true };
        source.copy_range(&range, to.as_ref(), &copy).await.unwrap();
        assert_eq!(to.xattrs(&copy).await.unwrap(), wanted);
        let renew = Renew { cut: Some(10), ranges: vec![(10, 98_304)], attrs: true };
        source.renew(NODE, &renew, to.as_ref(), &copy).await.unwrap();
        assert_eq!(to.xattrs(&copy).await.unwrap(), wanted);
    }
}
