//! RPC version 2: headers of calls and replies, and credentials (RFC 5531 §9, §14, appendix A).

use super::xdr::{Malformed, Reader, Writer};
use bytes::Bytes;

pub const RPC_VERSION: u32 = 2;
/// Longest credential or verifier body, in bytes.
pub const AUTH_BODY_MAX: usize = 400;
/// Longest machine name in an AUTH_UNIX credential.
pub const MACHINE_NAME_MAX: usize = 255;
/// Most supplementary groups in an AUTH_UNIX credential.
pub const GIDS_MAX: u32 = 16;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const AUTH_NONE: u32 = 0;
const AUTH_UNIX: u32 = 1;

/// Bytes of an accepted reply's header, behind the record mark.
pub const ACCEPTED_LEN: usize = 24;

/// Who the caller says they are. AUTH_UNIX proves nothing: which hosts are believed is the access policy's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    None,
    Unix { uid: u32, gid: u32, gids: Vec<u32> },
}

/// The header of a call that may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallHeader {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub credential: Credential,
}

/// accept_stat, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    Success,
    ProgUnavail,
    ProgMismatch { low: u32, high: u32 },
    ProcUnavail,
    GarbageArgs,
    SystemErr,
}

/// Why a call is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    RpcMismatch,
    Auth(AuthStat),
}

/// The auth_stat values we answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AuthStat {
    BadCred = 1,
    BadVerf = 3,
    TooWeak = 5,
}

/// A call that gets no further than its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not even a header: nothing to answer, close.
    Close(&'static str),
    Denied(u32, Denial),
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Refusal::Close("an RPC header that ends too soon")
    }
}

/// Reads a call's header; what is left in the reader are its arguments.
pub fn parse_call(record: Bytes) -> Result<(CallHeader, Reader), Refusal> {
    let mut r = Reader::new(record);
    let xid = r.u32()?;
    if r.u32()? != CALL {
        return Err(Refusal::Close("an RPC message that is not a call"));
    }
    if r.u32()? != RPC_VERSION {
        return Err(Refusal::Denied(xid, Denial::RpcMismatch));
    }
    let (program, version, procedure) = (r.u32()?, r.u32()?, r.u32()?);
    let denied = |stat| Refusal::Denied(xid, Denial::Auth(stat));
    let flavour = r.u32()?;
    let body = r.opaque(AUTH_BODY_MAX).map_err(|_| denied(AuthStat::BadCred))?;
    let credential = match flavour {
        AUTH_NONE => Credential::None,
        AUTH_UNIX => parse_unix(body).map_err(|_| denied(AuthStat::BadCred))?,
        _ => return Err(denied(AuthStat::TooWeak)),
    };
    let _verifier_flavour = r.u32()?;
    r.opaque(AUTH_BODY_MAX).map_err(|_| denied(AuthStat::BadVerf))?;
    Ok((CallHeader { xid, program, version, procedure, credential }, r))
}

fn parse_unix(body: Bytes) -> Result<Credential, Malformed> {
    let mut r = Reader::new(body);
    let _stamp = r.u32()?;
    r.opaque(MACHINE_NAME_MAX)?;
    let (uid, gid, count) = (r.u32()?, r.u32()?, r.u32()?);
    if count > GIDS_MAX || r.rest().len() != count as usize * 4 {
        return Err(Malformed);
    }
    let gids = (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?;
    Ok(Credential::Unix { uid, gid, gids })
}

/// An accepted reply's header; for [`Accept::Success`] the results follow.
#[must_use]
pub fn accepted(xid: u32, accept: Accept) -> Writer {
    let mut w = Writer::default();
    for word in [xid, REPLY, 0, AUTH_NONE, 0] {
        w.u32(word);
    }
    let words: &[u32] = match accept {
        Accept::Success => &[0],
        Accept::ProgUnavail => &[1],
        Accept::ProgMismatch { low, high } => &[2, low, high],
        Accept::ProcUnavail => &[3],
        Accept::GarbageArgs => &[4],
        Accept::SystemErr => &[5],
    };
    words.iter().for_each(|word| w.u32(*word));
    w
}

/// A denied reply.
#[must_use]
pub fn denied(xid: u32, denial: Denial) -> Writer {
    let mut w = Writer::default();
    let words: &[u32] = match denial {
        Denial::RpcMismatch => &[xid, REPLY, 1, 0, RPC_VERSION, RPC_VERSION],
        Denial::Auth(stat) => &[xid, REPLY, 1, 1, stat as u32],
    };
    words.iter().for_each(|word| w.u32(*word));
    w
}

/// A call's header as a client sends it; the arguments follow.
#[must_use]
pub fn call(header: &CallHeader) -> Writer {
    let mut w = Writer::default();
    for word in [header.xid, CALL, RPC_VERSION, header.program, header.version, header.procedure] {
        w.u32(word);
    }
    match &header.credential {
        Credential::None => w.put(&(AUTH_NONE, 0u32)),
        Credential::Unix { uid, gid, gids } => {
            w.u32(AUTH_UNIX);
            w.len(20 + 4 * gids.len());
            for word in [0, 0, *uid, *gid] {
                w.u32(word);
            }
            w.len(gids.len());
            gids.iter().for_each(|gid| w.u32(*gid));
            &mut w
        }
    };
    w.put(&(AUTH_NONE, 0u32));
    w
}

/// A reply as a client reads it.
#[derive(Clone, Debug)]
pub enum Reply {
    Accepted(Accept, Reader),
    Denied(Denial),
}

/// Reads a reply's xid and header.
pub fn parse_reply(record: Bytes) -> Result<(u32, Reply), Malformed> {
    let mut r = Reader::new(record);
    let xid = r.u32()?;
    if r.u32()? != REPLY {
        return Err(Malformed);
    }
    if r.u32()? != 0 {
        let denial = match (r.u32()?, r.u32()?) {
            (0, _) => Denial::RpcMismatch,
            (1, 1) => Denial::Auth(AuthStat::BadCred),
            (1, 3) => Denial::Auth(AuthStat::BadVerf),
            (1, 5) => Denial::Auth(AuthStat::TooWeak),
            _ => return Err(Malformed),
        };
        return Ok((xid, Reply::Denied(denial)));
    }
    let _verifier_flavour = r.u32()?;
    r.opaque(AUTH_BODY_MAX)?;
    let accept = match r.u32()? {
        0 => Accept::Success,
        1 => Accept::ProgUnavail,
        2 => Accept::ProgMismatch { low: r.u32()?, high: r.u32()? },
        3 => Accept::ProcUnavail,
        4 => Accept::GarbageArgs,
        5 => Accept::SystemErr,
        _ => return Err(Malformed),
    };
    Ok((xid, Reply::Accepted(accept, r)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(credential: Credential) -> CallHeader {
        CallHeader { xid: 0xdead_beef, program: 100_003, version: 3, procedure: 1, credential }
    }

    fn record(w: Writer) -> Vec<u8> {
        w.finish().to_vec()[4..].to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<CallHeader, Refusal> {
        parse_call(Bytes::copy_from_slice(bytes)).map(|(h, _)| h)
    }

    #[test]
    fn headers_of_calls_come_back_as_they_were() {
        for credential in [
            Credential::None,
            Credential::Unix { uid: 0, gid: 5, gids: vec![] },
            Credential::Unix { uid: 1000, gid: 1000, gids: (0..16).collect() },
        ] {
            let h = header(credential);
            assert_eq!(parse(&record(call(&h))), Ok(h));
        }
    }

    #[test]
    fn replies_come_back_as_they_were() {
        for accept in [
            Accept::Success,
            Accept::ProgUnavail,
            Accept::ProgMismatch { low: 3, high: 4 },
            Accept::ProcUnavail,
            Accept::GarbageArgs,
            Accept::SystemErr,
        ] {
            let (xid, reply) = parse_reply(record(accepted(9, accept)).into()).unwrap();
            assert_eq!(xid, 9);
            assert!(matches!(reply, Reply::Accepted(a, _) if a == accept), "{accept:?}");
        }
        for denial in [Denial::RpcMismatch, Denial::Auth(AuthStat::TooWeak), Denial::Auth(AuthStat::BadCred)] {
            let (_, reply) = parse_reply(record(denied(9, denial)).into()).unwrap();
            assert!(matches!(reply, Reply::Denied(d) if d == denial), "{denial:?}");
        }
        assert_eq!(record(accepted(9, Accept::Success)).len(), ACCEPTED_LEN);
    }

    #[test]
    fn a_header_cut_anywhere_is_closed_or_denied_never_served() {
        let whole = record(call(&header(Credential::Unix { uid: 1, gid: 2, gids: vec![3, 4] })));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn too_many_groups_long_names_long_bodies_and_lying_lengths_are_bad_credentials() {
        let bad = Err(Refusal::Denied(0xdead_beef, Denial::Auth(AuthStat::BadCred)));
        assert_eq!(parse(&record(call(&header(Credential::Unix { uid: 1, gid: 2, gids: vec![0; 17] })))), bad);
        let good = record(call(&header(Credential::Unix { uid: 1, gid: 2, gids: vec![3] })));
        // flavour at 24, body length at 28, stamp at 32, name length at 36, uid 40, gid 44, count of groups at 48.
        for (at, value) in [(28, 401), (28, u32::MAX), (36, 256), (36, u32::MAX), (48, 0x3fff_ffff), (48, 0), (48, 2)] {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
            assert_eq!(parse(&bytes), bad, "{value} at {at}");
        }
    }

    #[test]
    fn other_flavours_are_too_weak_and_other_versions_mismatch() {
        let good = record(call(&header(Credential::None)));
        for flavour in [2u32, 3, 6, 300_000] {
            let mut bytes = good.clone();
            bytes[24..28].copy_from_slice(&flavour.to_be_bytes());
            assert_eq!(parse(&bytes), Err(Refusal::Denied(0xdead_beef, Denial::Auth(AuthStat::TooWeak))));
        }
        let mut bytes = good.clone();
        bytes[11] = 3;
        assert_eq!(parse(&bytes), Err(Refusal::Denied(0xdead_beef, Denial::RpcMismatch)));
        let mut bytes = good;
        bytes[7] = 1;
        assert!(matches!(parse(&bytes), Err(Refusal::Close(_))), "a reply is not a call");
    }
}
