//! From a call's header to its reply: program, version, arguments, who, whether it ran before, run.

use super::access::{Decision, Grant, credentials, decide, know};
use super::drc::{Begin, Class, Key};
use super::limits::Limits;
use super::locks::Ends;
use super::nfs::{Session, refuse};
use super::{Shared, count};
use crate::state::junctions::JUNCTIONS_MAX;
use crate::volume::late::Known;
use crate::volume::outcome::Outcome;
use crate::volume::types::{Call, NodeRef, READ_MAX, READDIR_MAX, Status};
use crate::wire::handle::Fh;
use crate::wire::nfs3::{self, Args};
use crate::wire::rpc::{ACCEPTED_LEN, Accept, CallHeader, accepted};
use crate::wire::xdr::{Frame, Reader, Writer};
use crate::wire::{mount, nlm4, nsm, rpc::Credential};
use std::net::SocketAddr;
use std::sync::Arc;

/// Reply bytes that a call without data may need: attributes and a handle.
const SMALL_REPLY: usize = 4 << 10;
/// A symbolic link's text.
const SYMLINK_BYTES: u32 = 4 << 10;
/// An entry of MOUNT's lists: a path, an address, and what is around them.
const LISTED: usize = mount::PATH_MAX + 64;

/// About the most bytes that the reply to a call can take; what is reserved before it runs.
pub(super) fn reply_max(header: &CallHeader, args: &Reader) -> usize {
    if header.program == mount::PROGRAM {
        return match mount::Args::decode(header.procedure, &mut args.clone()) {
            Some(Ok(mount::Args::Dump)) => Limits::MOUNTS_MAX * LISTED,
            Some(Ok(mount::Args::Export)) => JUNCTIONS_MAX * LISTED,
            _ => SMALL_REPLY,
        };
    }
    let data = match Args::decode(header.procedure, &mut args.clone()) {
        Some(Ok(Args::Read(a))) => a.count.min(READ_MAX),
        Some(Ok(Args::Readdir(a))) => a.count.min(READDIR_MAX),
        Some(Ok(Args::ReaddirPlus(a))) => a.maxcount.min(READDIR_MAX),
        Some(Ok(Args::Readlink(_))) => SYMLINK_BYTES,
        _ => 0,
    };
    data as usize + SMALL_REPLY
}

impl Shared {
    /// The reply to a call.
    pub(super) async fn answer(self: &Arc<Self>, ends: Ends, header: CallHeader, mut args: Reader) -> Frame {
        let peer = ends.peer;
        let only = |accept| accepted(header.xid, accept).finish();
        let sum = checksum(header.procedure, args.rest());
        match (header.program, header.version) {
            (nfs3::PROGRAM, nfs3::VERSION) => match Args::decode(header.procedure, &mut args) {
                None => only(Accept::ProcUnavail),
                Some(Err(_)) => only(Accept::GarbageArgs),
                Some(Ok(args)) => self.nfs(peer, &header, sum, args).await,
            },
            (mount::PROGRAM, mount::VERSION) => match mount::Args::decode(header.procedure, &mut args) {
                None => only(Accept::ProcUnavail),
                Some(Err(_)) => only(Accept::GarbageArgs),
                Some(Ok(args)) => {
                    count(&self.stats.calls);
                    let mut w = accepted(header.xid, Accept::Success);
                    self.mount(peer, args, &mut w).await;
                    w.finish()
                }
            },
            (nlm4::PROGRAM, nlm4::VERSION) => {
                let raw = args.rest().clone();
                match nlm4::Args::decode(header.procedure, &mut args) {
                    None => only(Accept::ProcUnavail),
                    Some(Err(_)) => only(Accept::GarbageArgs),
                    Some(Ok(args)) => self.nlm(ends, &header, &raw, args).await,
                }
            }
            (nsm::PROGRAM, nsm::VERSION) => match nsm::Args::decode(header.procedure, &mut args) {
                None => only(Accept::ProcUnavail),
                Some(Err(_)) => only(Accept::GarbageArgs),
                Some(Ok(args)) => {
                    count(&self.stats.calls);
                    self.nsm(ends, &args);
                    only(Accept::Success)
                }
            },
            (nlm4::PROGRAM, _) => only(Accept::ProgMismatch { low: 4, high: 4 }),
            (nsm::PROGRAM, _) => only(Accept::ProgMismatch { low: 1, high: 1 }),
            (nfs3::PROGRAM | mount::PROGRAM, _) => only(Accept::ProgMismatch { low: 3, high: 3 }),
            _ => only(Accept::ProgUnavail),
        }
    }

    async fn nfs(&self, peer: SocketAddr, header: &CallHeader, sum: u32, args: Args) -> Frame {
        let mut w = accepted(header.xid, Accept::Success);
        if matches!(args, Args::Null) {
            return w.finish();
        }
        let session = match self.authorise(peer, header, sum, &args) {
            Ok(session) => session,
            Err(status) => {
                refuse(&args, status, &mut w);
                return w.finish();
            }
        };
        if modifies(&args) && session.read_only {
            session.refuse_read_only(&args, &mut w).await;
            return w.finish();
        }
        if !modifies(&args) {
            count(&self.stats.calls);
            session.run(args, &mut w).await;
            return w.finish();
        }
        let class = if matches!(args, Args::Write(_) | Args::SetAttr(_)) { Class::Data } else { Class::Names };
        let key = Key::new(peer.ip(), header.xid, sum);
        match self.drc.begin(key).await {
            Begin::Done(frame) => {
                count(&self.stats.repeated);
                frame
            }
            Begin::Refilled(outcome) if self.is_doubted(outcome).await => {
                self.drc.sent_away(&session.call, key);
                refuse(&args, Status::Jukebox, &mut w);
                w.finish()
            }
            Begin::Refilled(outcome) if self.replay(&session, &args, key, outcome, &mut w).await => {
                count(&self.stats.repeated);
                w.finish()
            }
            Begin::Refilled(_) => {
                count(&self.stats.calls);
                session.run(args, &mut w).await;
                w.finish()
            }
            Begin::Run(running) => {
                self.run_or_tell(&session, args, &mut w).await;
                let frame = w.finish();
                running.of(class).finish(&frame, !asks_to_try_again(&frame));
                frame
            }
        }
    }

    /// Run a call that changes something, unless it was sent away before, under another xid.
    async fn run_or_tell(&self, session: &Session<'_>, args: Args, w: &mut Writer) {
        if self.tell_of_former_life(session, &args, w).await {
            return count(&self.stats.repeated);
        }
        match self.backend.late(&session.call) {
            Err(status) => return refuse(&args, status, w),
            Ok(Some(Known::Running)) => return refuse(&args, Status::Jukebox, w),
            Ok(Some(Known::Done(outcome))) if session.replay(&args, outcome, w).await => {
                return count(&self.stats.repeated);
            }
            Ok(Some(Known::Done(_)) | None) => {}
        }
        count(&self.stats.calls);
        session.run(args, w).await;
    }

    /// It may still turn out to have been refused.
    async fn is_doubted(&self, outcome: Outcome) -> bool {
        outcome.failed.is_none() && self.backend.in_doubt(outcome.junction).await
    }

    /// The answer to a call of a former life that is no more in doubt.
    async fn replay(&self, session: &Session<'_>, args: &Args, key: Key, before: Outcome, w: &mut Writer) -> bool {
        // It may have been decided since it was looked up; and who is told now does not come again.
        let outcome = self.drc.refilled(key).unwrap_or(before);
        self.drc.came_back(&session.call);
        session.replay(args, outcome, w).await
    }

    /// If the client was sent away when it repeated this call of a former life: tell it what came of it, or to come again.
    /// `false`: the call is to run.
    async fn tell_of_former_life(&self, session: &Session<'_>, args: &Args, w: &mut Writer) -> bool {
        let Some(outcome) = self.drc.away(&session.call) else { return false };
        if self.is_doubted(outcome).await {
            self.drc.away_again(&session.call);
            refuse(args, Status::Jukebox, w);
            return true;
        }
        match self.drc.came_back(&session.call) {
            Some(outcome) if outcome.failed.is_some() || session.is_as_left(args, outcome.effect) => {
                session.replay(args, outcome, w).await
            }
            _ => false,
        }
    }

    /// The caller's address is judged against each handle's junction. One that no policy lets in cannot tell a handle
    /// that exists from one that does not.
    fn authorise(&self, peer: SocketAddr, header: &CallHeader, sum: u32, args: &Args) -> Result<Session<'_>, Status> {
        let (first, second) = handles(args);
        let (node, grant) = self.open(peer, first)?;
        let (other, other_grant) = match second {
            Some(handle) => self.open(peer, handle)?,
            None => (node, grant),
        };
        let read_only = grant.read_only || other_grant.read_only;
        let call = caller(peer, header, sum, grant, &header.credential);
        Ok(Session { shared: self, call, peer, node, other, read_only })
    }

    pub(super) fn open(&self, peer: SocketAddr, handle: &Fh) -> Result<(NodeRef, Grant), Status> {
        let state = self.backend.state();
        match self.sealer.open(handle) {
            Ok(named) => {
                if let Decision::Granted(grant) = decide(&state, named.junction, peer) {
                    return Ok((NodeRef { junction: named.junction, node: named.node }, grant));
                }
            }
            Err(_) if know(&state, peer) => return Err(Status::BadHandle),
            Err(_) => {}
        }
        count(&self.stats.refused);
        Err(Status::Access)
    }
}

pub(super) fn caller(peer: SocketAddr, header: &CallHeader, sum: u32, grant: Grant, credential: &Credential) -> Call {
    let (uid, gid, gids) = credentials(grant, credential);
    Call { uid, gid, gids, addr: peer.ip().to_canonical(), port: peer.port(), xid: header.xid, sum }
}

/// CRC-32 of procedure number and arguments.
pub(super) fn checksum(procedure: u32, args: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&procedure.to_be_bytes());
    crc.update(args);
    crc.finalize()
}

/// The status is the first word of every result.
fn asks_to_try_again(frame: &Frame) -> bool {
    let status = frame.head.get(4 + ACCEPTED_LEN..).and_then(|rest| rest.first_chunk::<4>());
    status.is_some_and(|status| u32::from_be_bytes(*status) == Status::Jukebox as u32)
}

/// Calls that change something: refused on read-only exports, and run once.
fn modifies(args: &Args) -> bool {
    match args {
        Args::SetAttr(_)
        | Args::Write(_)
        | Args::Create(_)
        | Args::Mkdir(_)
        | Args::Symlink(_)
        | Args::Mknod(_)
        | Args::Remove(_)
        | Args::Rmdir(_)
        | Args::Rename(_)
        | Args::Link(_) => true,
        Args::Null
        | Args::GetAttr(_)
        | Args::Lookup(_)
        | Args::Access(_)
        | Args::Readlink(_)
        | Args::Read(_)
        | Args::Readdir(_)
        | Args::ReaddirPlus(_)
        | Args::FsStat(_)
        | Args::FsInfo(_)
        | Args::PathConf(_)
        | Args::Commit(_) => false,
    }
}

/// The handles of a call.
fn handles(args: &Args) -> (&Fh, Option<&Fh>) {
    static NONE: Fh = Fh(bytes::Bytes::new());
    match args {
        Args::Null => (&NONE, None),
        Args::GetAttr(a) | Args::Readlink(a) | Args::FsStat(a) | Args::FsInfo(a) | Args::PathConf(a) => (a, None),
        Args::Lookup(a) | Args::Remove(a) | Args::Rmdir(a) => (&a.dir, None),
        Args::SetAttr(a) => (&a.object, None),
        Args::Access(a) => (&a.object, None),
        Args::Read(a) => (&a.file, None),
        Args::Write(a) => (&a.file, None),
        Args::Commit(a) => (&a.file, None),
        Args::Create(a) => (&a.at.dir, None),
        Args::Mkdir(a) => (&a.at.dir, None),
        Args::Symlink(a) => (&a.at.dir, None),
        Args::Mknod(a) => (&a.at.dir, None),
        Args::Readdir(a) => (&a.dir, None),
        Args::ReaddirPlus(a) => (&a.dir, None),
        Args::Rename(a) => (&a.from.dir, Some(&a.to.dir)),
        Args::Link(a) => (&a.file, Some(&a.at.dir)),
    }
}

/// The reply to a call whose handler died.
pub(super) fn system_error(xid: u32) -> Writer {
    accepted(xid, Accept::SystemErr)
}
