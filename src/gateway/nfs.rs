//! The procedures of NFSv3: arguments in, result out. Handles are open and the caller authorised when these run.

use super::convert::{bare, create_how, fattr, from_time, post, set_attrs, wcc};
use super::status::nfsstat;
use super::{Shared, names, readdir};
use crate::volume::ops::access::CHANGING;
use crate::volume::types::*;
use crate::volume::virtuals::{TREE, junction_at};
use crate::wire::handle::{Fh, Named};
use crate::wire::nfs3::{self as wire, Args, Data, MknodData, Name, Res, Stable};
use crate::wire::xdr::Writer;
use journal_format::event::What;
use nfsserve::nfs::{
    FSF_CANSETTIME, FSF_HOMOGENEOUS, FSF_LINK, FSF_SYMLINK, fsinfo3, nfsstat3, nfstime3, post_op_attr, sattr3, wcc_data,
};
use std::net::SocketAddr;

/// Preferred READDIR size.
const DIR_PREFERRED: u32 = 64 << 10;
/// READ and WRITE do best at multiples of this.
const IO_MULTIPLE: u32 = 4096;

/// One call: who, and the objects that its handles name, in the order of the arguments.
pub(super) struct Session<'a> {
    pub shared: &'a Shared,
    pub call: Call,
    pub peer: SocketAddr,
    pub node: NodeRef,
    /// The second handle of RENAME and LINK; else the first again.
    pub other: NodeRef,
    /// Nothing may be changed by the caller in one of the two.
    pub read_only: bool,
}

impl Shared {
    pub(super) fn handle(&self, node: NodeRef) -> Fh {
        self.sealer.seal(Named { junction: node.junction, node: node.node, generation: 0 })
    }
}

/// The attributes that a failed directory or file operation carries.
fn failed_wcc(refused: Refused<Wcc>) -> (nfsstat3, wcc_data) {
    (nfsstat(refused.status), wcc(&refused.with))
}

fn failed_attr(refused: Refused<Option<Attr>>) -> (nfsstat3, post_op_attr) {
    (nfsstat(refused.status), post(refused.with.as_ref()))
}

/// wcc of what did not change: nothing proves it, so it has no "before".
fn after(attr: post_op_attr) -> wcc_data {
    wcc_data { after: attr, ..wcc_data::default() }
}

impl Session<'_> {
    /// Run the call and put its result.
    pub async fn run(&self, args: Args, w: &mut Writer) {
        match args {
            Args::Null => w,
            Args::GetAttr(_) => w.put(&self.getattr().await),
            Args::SetAttr(a) => w.put(&self.setattr(a).await),
            Args::Lookup(a) => w.put(&self.lookup(a).await),
            Args::Access(a) => w.put(&self.access(a).await),
            Args::Readlink(_) => w.put(&self.readlink().await),
            Args::Read(a) => w.put(&self.read(a).await),
            Args::Write(a) => w.put(&self.write(a).await),
            Args::Create(a) => w.put(&self.create(a).await),
            Args::Mkdir(a) => w.put(&self.make(&a.at.name, &a.attrs, What::Dir).await),
            Args::Symlink(a) => w.put(&self.symlink(a).await),
            Args::Mknod(a) => w.put(&self.mknod(a).await),
            Args::Remove(a) => w.put(&self.remove(a).await),
            Args::Rmdir(a) => w.put(&self.rmdir(a).await),
            Args::Rename(a) => w.put(&self.rename(a).await),
            Args::Link(a) => w.put(&self.link(a).await),
            Args::Readdir(a) => w.put(&readdir::plain(self, &a).await),
            Args::ReaddirPlus(a) => w.put(&readdir::plus(self, &a).await),
            Args::FsStat(_) => w.put(&self.fsstat().await),
            Args::FsInfo(_) => w.put(&self.fsinfo().await),
            Args::PathConf(_) => w.put(&self.pathconf().await),
            Args::Commit(_) => w.put(&self.commit().await),
        };
    }

    /// The attributes that go with a refusal, where they can be had.
    async fn seen(&self, node: NodeRef) -> post_op_attr {
        post(self.shared.backend.getattr(node).await.ok().as_ref())
    }

    async fn both(&self) -> (post_op_attr, post_op_attr) {
        (self.seen(self.node).await, self.seen(self.other).await)
    }

    /// Arguments that no file system would take are refused with the attributes of what they were meant for.
    async fn or_attr<T>(&self, asked: Result<T, Status>) -> Res<T, post_op_attr> {
        match asked {
            Ok(value) => Ok(value),
            Err(status) => Err((nfsstat(status), self.seen(self.node).await)),
        }
    }

    async fn or_wcc<T>(&self, asked: Result<T, Status>) -> Res<T, wcc_data> {
        self.or_attr(asked).await.map_err(|(status, attr)| (status, after(attr)))
    }

    /// A call that changes something, on an export that is read-only.
    pub async fn refuse_read_only(&self, args: &Args, w: &mut Writer) {
        let (node, other) = self.both().await;
        w.put(&nfsstat(Status::RoFs));
        match args {
            Args::Rename(_) => w.put(&(after(node), after(other))),
            Args::Link(_) => w.put(&(node, after(other))),
            _ => w.put(&after(node)),
        };
    }

    async fn getattr(&self) -> wire::GetAttrRes {
        self.shared.backend.getattr(self.node).await.map(|a| fattr(&a)).map_err(bare)
    }

    async fn setattr(&self, a: wire::SetAttrArgs) -> wire::WccRes {
        let wish = set_attrs(&a.attrs).and_then(|set| Ok((set, a.guard.map(from_time).transpose()?)));
        let (set, guard) = self.or_wcc(wish).await?;
        let done = self.shared.backend.setattr(&self.call, self.node, set, guard).await;
        done.map(|w| wcc(&w)).map_err(failed_wcc)
    }

    async fn lookup(&self, a: wire::DirOp) -> wire::LookupRes {
        let name = self.or_attr(names::existing(&a.name)).await?;
        // Out of the tree into a junction, which may be closed to the caller: then nothing is asked of its filer.
        if self.node.junction == TREE {
            let junction = junction_at(&self.shared.backend.state(), self.node.node, name);
            if junction.is_some_and(|junction| !self.shared.may(self.peer, junction)) {
                return self.or_attr(Err(Status::Access)).await;
            }
        }
        let found = self.shared.backend.lookup(&self.call, self.node, name).await.map_err(failed_attr)?;
        // By whatever it was reached; its root's attributes are its own.
        if found.node.junction != self.node.junction && !self.shared.may(self.peer, found.node.junction) {
            return Err((nfsstat(Status::Access), post(found.dir.after.as_ref())));
        }
        Ok(wire::LookupOk {
            object: self.shared.handle(found.node),
            attr: post(Some(&found.attr)),
            dir: post(found.dir.after.as_ref()),
        })
    }

    async fn access(&self, a: wire::AccessArgs) -> wire::AccessRes {
        let (granted, attr) =
            self.shared.backend.access(&self.call, self.node, a.access).await.map_err(bare::<post_op_attr>)?;
        // Else the client would let its programs open for writing what every WRITE refuses.
        let granted = if self.read_only { granted & !CHANGING } else { granted };
        Ok(wire::AccessOk { attr: post(Some(&attr)), access: granted & a.access })
    }

    async fn readlink(&self) -> wire::ReadlinkRes {
        let (target, attr) = self.shared.backend.readlink(&self.call, self.node).await.map_err(failed_attr)?;
        Ok(wire::ReadlinkOk { attr: post(attr.as_ref()), target: Name(target.into()) })
    }

    async fn read(&self, a: wire::ReadArgs) -> wire::ReadRes {
        // No file reaches that far: past its end is past its end, and no sum below can overflow.
        let offset = a.offset.min(FILE_SIZE_MAX);
        let len = a.count.min(READ_MAX);
        let mut read = self.shared.backend.read(&self.call, self.node, offset, len).await.map_err(failed_attr)?;
        read.data.truncate(len as usize);
        let count = u32::try_from(read.data.len()).expect("truncated to a u32");
        Ok(wire::ReadOk { attr: post(read.attr.as_ref()), count, eof: read.eof, data: Data(read.data) })
    }

    async fn write(&self, a: wire::WriteArgs) -> wire::WriteRes {
        let data = a.data.0.slice(..a.data.0.len().min(WRITE_MAX as usize));
        if a.offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_SIZE_MAX) {
            return self.or_wcc(Err(Status::FBig)).await;
        }
        let written = self.shared.backend.write(&self.call, self.node, a.offset, data).await;
        let (count, w) = written.map_err(failed_wcc)?;
        Ok(self.written(count, wcc(&w)))
    }

    pub(super) fn written(&self, count: u32, wcc: wcc_data) -> wire::WriteOk {
        wire::WriteOk { wcc, count, committed: Stable::FileSync, verifier: self.shared.write_verifier }
    }

    #[expect(clippy::result_large_err, reason = "results are as large as replies, and made once a call")]
    fn made(&self, found: Result<Found, Refused<Wcc>>) -> wire::MakeRes {
        let found = found.map_err(failed_wcc)?;
        let object = Some(self.shared.handle(found.node));
        Ok(wire::MakeOk { object, attr: post(Some(&found.attr)), dir: wcc(&found.dir) })
    }

    async fn create(&self, a: wire::CreateArgs) -> wire::MakeRes {
        let asked = names::new(&a.at.name).and_then(|name| Ok((name, create_how(&a.how)?)));
        let (name, how) = self.or_wcc(asked).await?;
        self.made(self.shared.backend.create(&self.call, self.node, name, how).await)
    }

    async fn make(&self, name: &Name, attrs: &sattr3, what: What) -> wire::MakeRes {
        let asked = names::new(name).and_then(|name| Ok((name, set_attrs(attrs)?)));
        let (name, attrs) = self.or_wcc(asked).await?;
        self.made(self.shared.backend.make(&self.call, self.node, name, NewNode { what, attrs }).await)
    }

    async fn symlink(&self, a: wire::SymlinkArgs) -> wire::MakeRes {
        let target = self.or_wcc(names::target(&a.target)).await?.to_vec();
        self.make(&a.at.name, &a.attrs, What::Symlink { target }).await
    }

    async fn mknod(&self, a: wire::MknodArgs) -> wire::MakeRes {
        let (attrs, what) = match a.what {
            MknodData::Block(attrs, d) => (attrs, What::Block { major: d.specdata1, minor: d.specdata2 }),
            MknodData::Char(attrs, d) => (attrs, What::Char { major: d.specdata1, minor: d.specdata2 }),
            MknodData::Socket(attrs) => (attrs, What::Socket),
            MknodData::Fifo(attrs) => (attrs, What::Fifo),
            MknodData::Other(_) => return self.or_wcc(Err(Status::BadType)).await,
        };
        self.make(&a.at.name, &attrs, what).await
    }

    async fn remove(&self, a: wire::DirOp) -> wire::WccRes {
        let name = self.or_wcc(names::removable(&a.name)).await?;
        let done = self.shared.backend.remove(&self.call, self.node, name).await;
        done.map(|w| wcc(&w)).map_err(failed_wcc)
    }

    async fn rmdir(&self, a: wire::DirOp) -> wire::WccRes {
        let name = self.or_wcc(names::removable_dir(&a.name)).await?;
        let done = self.shared.backend.rmdir(&self.call, self.node, name).await;
        done.map(|w| wcc(&w)).map_err(failed_wcc)
    }

    async fn rename(&self, a: wire::RenameArgs) -> wire::RenameRes {
        let asked = names::removable(&a.from.name).and_then(|name| Ok((name, names::removable(&a.to.name)?)));
        let (name, new) = match asked {
            Ok(names) => names,
            Err(status) => {
                let (from, to) = self.both().await;
                return Err((nfsstat(status), (after(from), after(to))));
            }
        };
        let both = |(from, to): (Wcc, Wcc)| (wcc(&from), wcc(&to));
        let done = self.shared.backend.rename(&self.call, self.node, name, self.other, new).await;
        done.map(both).map_err(|r| (nfsstat(r.status), both(r.with)))
    }

    async fn link(&self, a: wire::LinkArgs) -> wire::LinkRes {
        let name = match names::new(&a.at.name) {
            Ok(name) => name,
            Err(status) => {
                let (file, dir) = self.both().await;
                return Err((nfsstat(status), (file, after(dir))));
            }
        };
        let both = |(attr, dir): (Option<Attr>, Wcc)| (post(attr.as_ref()), wcc(&dir));
        let done = self.shared.backend.link(&self.call, self.node, self.other, name).await;
        done.map(both).map_err(|r| (nfsstat(r.status), both(r.with)))
    }

    async fn fsstat(&self) -> wire::FsStatRes {
        let space = self.shared.backend.fsstat(&self.call, self.node).await.map_err(bare::<post_op_attr>)?;
        Ok(wire::FsStatOk {
            attr: post(space.attr.as_ref()),
            total_bytes: space.fs.total_bytes,
            free_bytes: space.fs.free_bytes,
            avail_bytes: space.fs.avail_bytes,
            total_files: space.fs.total_files,
            free_files: space.fs.free_files,
            avail_files: space.fs.avail_files,
            invarsec: 0,
        })
    }

    /// Attributes for an answer that does not depend on them: only an object that is gone is an error.
    async fn attr_if_any(&self) -> Res<post_op_attr, post_op_attr> {
        match self.shared.backend.getattr(self.node).await {
            Ok(attr) => Ok(post(Some(&attr))),
            Err(status @ (Status::Stale | Status::BadHandle)) => Err(bare(status)),
            Err(_) => Ok(post_op_attr::Void),
        }
    }

    async fn fsinfo(&self) -> wire::FsInfoRes {
        Ok(fsinfo3 {
            obj_attributes: self.attr_if_any().await?,
            rtmax: READ_MAX,
            rtpref: READ_MAX,
            rtmult: IO_MULTIPLE,
            wtmax: WRITE_MAX,
            wtpref: WRITE_MAX,
            wtmult: IO_MULTIPLE,
            dtpref: DIR_PREFERRED,
            maxfilesize: FILE_SIZE_MAX,
            time_delta: nfstime3 { seconds: 0, nseconds: 1 },
            properties: FSF_LINK | FSF_SYMLINK | FSF_HOMOGENEOUS | FSF_CANSETTIME,
        })
    }

    async fn pathconf(&self) -> wire::PathConfRes {
        Ok(wire::PathConfOk {
            attr: self.attr_if_any().await?,
            linkmax: LINK_MAX,
            name_max: u32::try_from(NAME_MAX).expect("a constant of 255"),
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        })
    }

    async fn commit(&self) -> wire::CommitRes {
        let done = self.shared.backend.commit(&self.call, self.node).await.map_err(failed_wcc)?;
        Ok((wcc(&done), self.shared.write_verifier))
    }
}

/// A failure before the call could run, with the attributes that its result must have left out.
pub(super) fn refuse(args: &Args, status: Status, w: &mut Writer) {
    refuse_with(args, nfsstat(status), w);
}

pub(super) fn refuse_with(args: &Args, status: nfsstat3, w: &mut Writer) {
    let (none, attr, wcc) = ((), post_op_attr::default(), wcc_data::default());
    match args {
        Args::Null => w,
        Args::GetAttr(_) => w.put(&status).put(&none),
        Args::SetAttr(_)
        | Args::Write(_)
        | Args::Create(_)
        | Args::Mkdir(_)
        | Args::Symlink(_)
        | Args::Mknod(_)
        | Args::Remove(_)
        | Args::Rmdir(_)
        | Args::Commit(_) => w.put(&status).put(&wcc),
        Args::Rename(_) => w.put(&status).put(&(wcc, wcc)),
        Args::Link(_) => w.put(&status).put(&(attr, wcc)),
        Args::Lookup(_)
        | Args::Access(_)
        | Args::Readlink(_)
        | Args::Read(_)
        | Args::Readdir(_)
        | Args::ReaddirPlus(_)
        | Args::FsStat(_)
        | Args::FsInfo(_)
        | Args::PathConf(_) => w.put(&status).put(&attr),
    };
}
