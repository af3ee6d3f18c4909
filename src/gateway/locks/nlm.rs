//! The procedures of NLM.

use super::super::access::know;
use super::super::dispatch::{caller, checksum};
use super::super::drc::{Begin, Class, Key};
use super::super::{Shared, count};
use super::hosts::host;
use super::turns::{Turn, Whose};
use super::{Ends, Note};
use crate::locks::{Held, HostId, Outcome, Owner, Range, Request, Share};
use crate::volume::types::{Call, NodeRef, Status};
use crate::volume::virtuals::TREE;
use crate::wire::handle::Fh;
use crate::wire::nlm4::{
    Args, Holder, Lock, LockArgs, Res, ShareArgs, ShareRes, Short, Stat, TestArgs, TestRes, answered_by,
};
use crate::wire::rpc::{Accept, CallHeader, accepted};
use crate::wire::xdr::{Frame, Writer};
use bytes::Bytes;
use std::sync::Arc;

/// READ, MODIFY and EXTEND of ACCESS: who may none of them may not lock either.
const USES: u32 = 0x1 | 0x4 | 0x8;
/// Owner handles that are longer are known by their hash, so that a lock takes little memory whatever its owner is called.
const OWNER_KEPT_MAX: usize = 64;

/// Memory of its own, so that what waits does not keep its record.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn handle(oh: &Short) -> Arc<[u8]> {
    if oh.0.len() <= OWNER_KEPT_MAX { oh.0[..].into() } else { blake3::hash(&oh.0).as_bytes()[..].into() }
}

fn owner(host: HostId, svid: u32, oh: &Short) -> Owner {
    Owner { host, svid, oh: handle(oh) }
}

fn holder(held: &Held) -> Holder {
    Holder {
        exclusive: held.exclusive,
        svid: held.owner.svid,
        oh: Short(Bytes::copy_from_slice(&held.owner.oh)),
        offset: held.range.first,
        len: held.range.length(),
    }
}

fn stat(outcome: &Outcome) -> Stat {
    match outcome {
        Outcome::Granted => Stat::Granted,
        Outcome::Denied(_) => Stat::Denied,
        Outcome::Blocked => Stat::Blocked,
        Outcome::Deadlock(_) => Stat::Deadlock,
        Outcome::NoLocks => Stat::NoLocks,
    }
}

/// One call and who makes it.
struct Caller<'a> {
    shared: &'a Arc<Shared>,
    ends: Ends,
    header: &'a CallHeader,
    sum: u32,
}

impl Shared {
    pub(in super::super) async fn nlm(
        self: &Arc<Self>,
        ends: Ends,
        header: &CallHeader,
        raw: &[u8],
        args: Args,
    ) -> Frame {
        if matches!(args, Args::Null | Args::Answer) {
            return accepted(header.xid, Accept::Success).finish();
        }
        let sum = checksum(header.program ^ header.procedure, raw);
        let caller = Caller { shared: self, ends, header, sum };
        if !know(&self.backend.state(), ends.peer) && !self.has_lock_hosts(ends.peer) {
            // It is refused whatever it asks, and leaves nothing behind: no reply that is kept, and no call to it.
            return match answered_by(header.procedure) {
                Some(_) => accepted(header.xid, Accept::Success).finish(),
                None => caller.answer(args).await,
            };
        }
        if matches!(args, Args::Test(_) | Args::Granted(_)) {
            count(&self.stats.calls);
            return caller.answer(args).await;
        }
        // A call that comes late must not undo what was done since.
        match self.drc.begin(Key::new(ends.peer.ip(), header.xid, sum)).await {
            Begin::Done(frame) => {
                count(&self.stats.repeated);
                frame
            }
            // The journal has no lock calls.
            Begin::Refilled(_) => caller.answer(args).await,
            Begin::Run(running) => {
                count(&self.stats.calls);
                let frame = caller.answer(args).await;
                running.of(Class::Locks).finish(&frame, true);
                frame
            }
        }
    }
}

impl Caller<'_> {
    /// Run the call; its answer is the reply, or a call of its own behind an empty one.
    async fn answer(&self, args: Args) -> Frame {
        let mut reply = accepted(self.header.xid, Accept::Success);
        match answered_by(self.header.procedure) {
            None => self.run(args, &mut reply).await,
            Some(procedure) => {
                let mut w = Writer::default();
                self.run(args, &mut w).await;
                let answer = Bytes::from(w.finish().to_vec()).slice(4..);
                self.shared.answer_by_call(self.ends, procedure, answer);
            }
        }
        reply.finish()
    }

    async fn run(&self, args: Args, w: &mut Writer) {
        let result = |cookie: Short, stat: Stat| Res { cookie, stat };
        match args {
            Args::Null | Args::Answer => w,
            Args::Test(a) => {
                let stat = self.test(&a).await;
                w.put(&TestRes { cookie: a.cookie, stat })
            }
            Args::Lock(a) => {
                let stat = self.lock(&a, true).await.unwrap_or_else(|stat| stat);
                w.put(&result(a.cookie, stat))
            }
            Args::NmLock(a) => {
                let stat = self.lock(&a, false).await.unwrap_or_else(|stat| stat);
                w.put(&result(a.cookie, stat))
            }
            Args::Cancel(a) => {
                let stat = self.cancel(&a.lock, a.exclusive).await.unwrap_or_else(|stat| stat);
                w.put(&result(a.cookie, stat))
            }
            Args::Unlock(a) => {
                let stat = self.unlock(&a.lock).await.unwrap_or_else(|stat| stat);
                w.put(&result(a.cookie, stat))
            }
            // We ask for no locks.
            Args::Granted(a) => w.put(&result(a.cookie, Stat::Denied)),
            Args::Share(a) => {
                let stat = self.share(&a).await.unwrap_or_else(|stat| stat);
                w.put(&ShareRes { cookie: a.cookie, stat, sequence: 0 })
            }
            Args::Unshare(a) => {
                let stat = self.unshare(&a).await.unwrap_or_else(|stat| stat);
                w.put(&ShareRes { cookie: a.cookie, stat, sequence: 0 })
            }
            Args::FreeAll(a) => {
                self.shared.nsm(
                    self.ends,
                    &crate::wire::nsm::Args::Notify(crate::wire::nsm::Change { name: a.name, state: a.state }),
                );
                w
            }
        };
    }

    /// What the handle names, for whom the junction is open to.
    fn open(&self, fh: &Fh) -> Result<(NodeRef, Call), Stat> {
        let (node, grant) = self.shared.open(self.ends.peer, fh).map_err(|status| match status {
            Status::BadHandle | Status::Stale => Stat::StaleFh,
            _ => Stat::Failed,
        })?;
        // The tree above the junctions has nothing to lock, and its nodes have numbers of their own.
        if node.junction == TREE {
            return Err(Stat::Failed);
        }
        Ok((node, caller(self.ends.peer, self.header, self.sum, grant, &self.header.credential)))
    }

    /// The caller may use the file, which is there.
    async fn may(&self, call: &Call, node: NodeRef, reclaim: bool) -> Result<(), Stat> {
        match self.shared.backend.access(call, node, USES).await {
            Ok((granted, attr)) if granted != 0 || attr.uid == call.uid => Ok(()),
            Ok(_) => Err(Stat::Failed),
            Err(Status::Stale | Status::BadHandle | Status::NoEnt) => Err(Stat::StaleFh),
            // It held the lock: that the filer does not answer now is no reason to lose it.
            Err(_) if reclaim => Ok(()),
            // What Linux asks again after, as after JUKEBOX.
            Err(Status::Jukebox) => Err(Stat::Grace),
            Err(_) => Err(Stat::Failed),
        }
    }

    fn in_time(&self, reclaim: bool) -> Result<(), Stat> {
        if self.shared.locks.grace().is_some() == reclaim { Ok(()) } else { Err(Stat::Grace) }
    }

    async fn test(&self, a: &TestArgs) -> Result<Stat, Holder> {
        let ready = async {
            let (node, call) = self.open(&a.lock.fh)?;
            let range = Range::new(a.lock.offset, a.lock.len).ok_or(Stat::FBig)?;
            self.in_time(false)?;
            self.may(&call, node, false).await?;
            Ok((node, range))
        };
        match ready.await {
            Err(stat) => Ok(stat),
            Ok((node, range)) => {
                // One who has never locked is nobody's owner: no host has this number.
                let nobody = HostId { number: 0, addr: [0; 16] };
                let host = self.shared.known_host(self.ends.peer, &a.lock.caller).unwrap_or(nobody);
                let owner = owner(host, a.lock.svid, &a.lock.oh);
                let held = self.shared.locks.table.lock().test(node.node, &owner, range, a.exclusive);
                held.map_or(Ok(Stat::Granted), |held| Err(holder(&held)))
            }
        }
    }

    /// Wait for the caller's earlier calls for this owner and file.
    async fn turn(&self, caller: &Short, svid: u32, oh: &Short, node: NodeRef) -> Turn<'_> {
        let whose = Whose { host: host(self.ends.peer, caller), svid, oh: handle(oh), node: node.node };
        self.shared.locks.turns.take(whose).await
    }

    async fn lock(&self, a: &LockArgs, monitored: bool) -> Result<Stat, Stat> {
        let lives = self.shared.lives(self.ends.peer, &a.lock.caller, a.state);
        let (node, call) = self.open(&a.lock.fh)?;
        let _turn = self.turn(&a.lock.caller, a.lock.svid, &a.lock.oh, node).await;
        let range = Range::new(a.lock.offset, a.lock.len).ok_or(Stat::FBig)?;
        self.in_time(a.reclaim)?;
        self.may(&call, node, a.reclaim).await?;
        let host = self.shared.lock_host(self.ends, &a.lock.caller, a.state, monitored).await?;
        let owner = owner(host, a.lock.svid, &a.lock.oh);
        let (exclusive, wait) = (a.exclusive, (a.block && !a.reclaim).then(|| self.note(a)));
        let request = Request { junction: node.junction, node: node.node, owner, range, exclusive, wait };
        let (outcome, grants) = {
            let mut table = self.shared.locks.table.lock();
            self.shared.still(host, (self.ends.peer, &a.lock.caller), lives, a.state)?;
            table.lock(request)
        };
        self.shared.offer(grants);
        Ok(stat(&outcome))
    }

    fn note(&self, a: &LockArgs) -> Note {
        let Lock { caller, fh, oh, svid, offset, len } = &a.lock;
        let short = |it: &Short| Short(own(&it.0));
        let lock =
            Lock { caller: short(caller), fh: Fh(own(&fh.0)), oh: short(oh), svid: *svid, offset: *offset, len: *len };
        Note { ends: self.ends, args: TestArgs { cookie: short(&a.cookie), exclusive: a.exclusive, lock } }
    }

    /// What the handle names, of one who gives something up. Whether a policy lets it in still is not asked.
    fn named(&self, fh: &Fh) -> Result<NodeRef, Stat> {
        match self.shared.sealer.open(fh) {
            Ok(named) if named.junction != TREE => Ok(NodeRef { junction: named.junction, node: named.node }),
            _ => self.open(fh).map(|(node, _)| node),
        }
    }

    /// Who gives something up; `None`: it holds nothing, and is told so if a policy lets it in.
    fn holder_of(&self, fh: &Fh, caller: &Short) -> Result<Option<HostId>, Stat> {
        match self.shared.known_host(self.ends.peer, caller) {
            Some(host) => Ok(Some(host)),
            None => self.open(fh).map(|_| None),
        }
    }

    async fn cancel(&self, lock: &Lock, exclusive: bool) -> Result<Stat, Stat> {
        let (node, range) = (self.named(&lock.fh)?, Range::new(lock.offset, lock.len).ok_or(Stat::FBig)?);
        let _turn = self.turn(&lock.caller, lock.svid, &lock.oh, node).await;
        let Some(host) = self.holder_of(&lock.fh, &lock.caller)? else { return Ok(Stat::Denied) };
        let lock = Held { owner: owner(host, lock.svid, &lock.oh), range, exclusive };
        let (there, grants) = self.shared.locks.table.lock().cancel(node.node, &lock);
        self.shared.offer(grants);
        Ok(if there { Stat::Granted } else { Stat::Denied })
    }

    /// Also of a file that is gone, and of a junction that is suspended: giving up is never refused.
    async fn unlock(&self, lock: &Lock) -> Result<Stat, Stat> {
        let (node, range) = (self.named(&lock.fh)?, Range::new(lock.offset, lock.len).ok_or(Stat::FBig)?);
        let _turn = self.turn(&lock.caller, lock.svid, &lock.oh, node).await;
        let Some(host) = self.holder_of(&lock.fh, &lock.caller)? else { return Ok(Stat::Granted) };
        let owner = owner(host, lock.svid, &lock.oh);
        let freed = self.shared.locks.table.lock().unlock(node.node, &owner, range);
        self.shared.offer(freed.ok_or(Stat::NoLocks)?);
        Ok(Stat::Granted)
    }

    async fn share(&self, a: &ShareArgs) -> Result<Stat, Stat> {
        let lives = self.shared.lives(self.ends.peer, &a.share.caller, 0);
        let (node, call) = self.open(&a.share.fh)?;
        let _turn = self.turn(&a.share.caller, 0, &a.share.oh, node).await;
        self.in_time(a.reclaim)?;
        self.may(&call, node, a.reclaim).await?;
        let host = self.shared.lock_host(self.ends, &a.share.caller, 0, true).await?;
        let owner = owner(host, 0, &a.share.oh);
        let share = Share { owner, mode: a.share.mode, access: a.share.access };
        let mut table = self.shared.locks.table.lock();
        self.shared.still(host, (self.ends.peer, &a.share.caller), lives, 0)?;
        Ok(stat(&table.share(node.junction, node.node, share)))
    }

    async fn unshare(&self, a: &ShareArgs) -> Result<Stat, Stat> {
        let node = self.named(&a.share.fh)?;
        let _turn = self.turn(&a.share.caller, 0, &a.share.oh, node).await;
        if let Some(host) = self.holder_of(&a.share.fh, &a.share.caller)? {
            self.shared.locks.table.lock().unshare(node.node, &owner(host, 0, &a.share.oh));
        }
        Ok(Stat::Granted)
    }
}
