//! RFC 1813's ERRORS: every status that it lists for a procedure is provoked over the wire ([`rows`]; by a filer that
//! refuses, [`refusing`]), or stands in [`NEVER`] with the reason. What is listed and is neither fails the test.
//!
//! Error replies carry the attributes of what they are about wherever the server can have them.

#[cfg(feature = "privileged-tests")]
mod faulty;
#[cfg(feature = "privileged-tests")]
mod refusing;
mod rows;

use std::collections::BTreeSet;
use tain::demo::nfs::{Attr, Call, Reply, status::*};

pub const NXIO: u32 = 6;
pub const DQUOT: u32 = 69;

/// A procedure and a status that it answers.
pub type Row = (u32, u32);

pub const GETATTR: u32 = 1;
pub const SETATTR: u32 = 2;
pub const LOOKUP: u32 = 3;
pub const ACCESS: u32 = 4;
pub const READLINK: u32 = 5;
pub const READ: u32 = 6;
pub const WRITE: u32 = 7;
pub const CREATE: u32 = 8;
pub const MKDIR: u32 = 9;
pub const SYMLINK: u32 = 10;
pub const MKNOD: u32 = 11;
pub const REMOVE: u32 = 12;
pub const RMDIR: u32 = 13;
pub const RENAME: u32 = 14;
pub const LINK: u32 = 15;
pub const READDIR: u32 = 16;
pub const READDIRPLUS: u32 = 17;
pub const FSSTAT: u32 = 18;
pub const FSINFO: u32 = 19;
pub const PATHCONF: u32 = 20;
pub const COMMIT: u32 = 21;

/// RFC 1813 §3.3, the ERRORS of each procedure; for NULL there are none.
#[rustfmt::skip]
pub const LISTED: [(u32, &[u32]); 21] = [
    (GETATTR, &[IO, STALE, BADHANDLE, SERVERFAULT]),
    (SETATTR, &[PERM, IO, ACCES, INVAL, NOSPC, ROFS, DQUOT, NOT_SYNC, STALE, BADHANDLE, SERVERFAULT]),
    (LOOKUP, &[IO, NOENT, ACCES, NOTDIR, NAMETOOLONG, STALE, BADHANDLE, SERVERFAULT]),
    (ACCESS, &[IO, STALE, BADHANDLE, SERVERFAULT]),
    (READLINK, &[IO, INVAL, ACCES, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (READ, &[IO, NXIO, ACCES, INVAL, STALE, BADHANDLE, SERVERFAULT]),
    (WRITE, &[IO, ACCES, FBIG, DQUOT, NOSPC, ROFS, INVAL, STALE, BADHANDLE, SERVERFAULT]),
    (CREATE, &[IO, ACCES, EXIST, NOTDIR, NOSPC, ROFS, NAMETOOLONG, DQUOT, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (MKDIR, &[IO, ACCES, EXIST, NOTDIR, NOSPC, ROFS, NAMETOOLONG, DQUOT, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (SYMLINK, &[IO, ACCES, EXIST, NOTDIR, NOSPC, ROFS, NAMETOOLONG, DQUOT, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (MKNOD, &[IO, ACCES, EXIST, NOTDIR, NOSPC, ROFS, NAMETOOLONG, DQUOT, STALE, BADHANDLE, NOTSUPP, SERVERFAULT, BADTYPE]),
    (REMOVE, &[NOENT, IO, ACCES, NOTDIR, NAMETOOLONG, ROFS, STALE, BADHANDLE, SERVERFAULT]),
    (RMDIR, &[NOENT, IO, ACCES, INVAL, EXIST, NOTDIR, NAMETOOLONG, ROFS, NOTEMPTY, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (RENAME, &[NOENT, IO, ACCES, EXIST, XDEV, NOTDIR, ISDIR, INVAL, NOSPC, ROFS, MLINK, NAMETOOLONG, NOTEMPTY, DQUOT, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (LINK, &[IO, ACCES, EXIST, XDEV, NOTDIR, INVAL, NOSPC, ROFS, MLINK, NAMETOOLONG, DQUOT, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (READDIR, &[IO, ACCES, NOTDIR, BAD_COOKIE, TOOSMALL, STALE, BADHANDLE, SERVERFAULT]),
    (READDIRPLUS, &[IO, ACCES, NOTDIR, BAD_COOKIE, TOOSMALL, STALE, BADHANDLE, NOTSUPP, SERVERFAULT]),
    (FSSTAT, &[IO, STALE, BADHANDLE, SERVERFAULT]),
    (FSINFO, &[STALE, BADHANDLE, SERVERFAULT]),
    (PATHCONF, &[STALE, BADHANDLE, SERVERFAULT]),
    (COMMIT, &[IO, STALE, BADHANDLE, SERVERFAULT]),
];

/// Statuses that are the filer's to give, and what it says to the service for them ([`refusing`] provokes each).
#[rustfmt::skip]
pub const BY_FILER: [(u32, i32, &[u32]); 5] = [
    (IO, libc_errno::EIO, &[GETATTR, SETATTR, LOOKUP, ACCESS, READLINK, READ, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME, LINK, READDIR, READDIRPLUS, FSSTAT, COMMIT]),
    (NOSPC, libc_errno::ENOSPC, &[SETATTR, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, RENAME, LINK]),
    (DQUOT, libc_errno::EDQUOT, &[SETATTR, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, RENAME, LINK]),
    (NOTSUPP, libc_errno::EOPNOTSUPP, &[READLINK, CREATE, MKDIR, SYMLINK, MKNOD, RMDIR, RENAME, LINK, READDIRPLUS]),
    (MLINK, libc_errno::EMLINK, &[RENAME, LINK]),
];

/// Linux's numbers.
mod libc_errno {
    pub const EIO: i32 = 5;
    pub const ENOSPC: i32 = 28;
    pub const EMLINK: i32 = 31;
    pub const EOPNOTSUPP: i32 = 95;
    pub const EDQUOT: i32 = 122;
}

const ALL: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21];

/// What this server does not say, and why.
pub const NEVER: [(u32, &[u32], &str); 3] = [
    (SERVERFAULT, ALL, "a node index that fails is the only cause, and that ends the service (jobs: state_disk)"),
    (NXIO, &[READ], "devices are the client's own; READ of one is INVAL, as of anything that is no file"),
    (BAD_COOKIE, &[READDIR, READDIRPLUS], "cookies are the entries' own serials, and stay good for ever"),
];

pub fn rows_of(of: impl IntoIterator<Item = (u32, &'static [u32])>) -> BTreeSet<Row> {
    of.into_iter().flat_map(|(status, procedures)| procedures.iter().map(move |p| (*p, status))).collect()
}

/// What rows must be proven by a filer that refuses.
pub fn by_filer() -> BTreeSet<Row> {
    rows_of(BY_FILER.map(|(status, _, procedures)| (status, procedures)))
}

fn listed() -> BTreeSet<Row> {
    LISTED.iter().flat_map(|(p, statuses)| statuses.iter().map(move |s| (*p, *s))).collect()
}

fn never() -> BTreeSet<Row> {
    rows_of(NEVER.map(|(status, procedures, _)| (status, procedures)))
}

/// The attributes that an error reply carries, if the procedure's has any; `None` for those that are missing.
pub fn attributes(call: &Call, reply: &Reply) -> Vec<Option<Attr>> {
    match call.number() {
        GETATTR => vec![],
        RENAME => vec![reply.wcc.after, reply.wcc2.after],
        LINK => vec![reply.attr, reply.wcc.after],
        ACCESS | READLINK | READ | FSSTAT | FSINFO | PATHCONF => vec![reply.attr],
        _ => vec![reply.wcc.after],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_status_that_rfc_1813_lists_for_a_procedure_is_answered_on_the_wire_or_never_for_a_reason() {
    let proven = rows::prove().await;
    let (listed, never, by_filer) = (listed(), never(), by_filer());
    for (what, of) in [("never", &never), ("by the filer", &by_filer)] {
        assert!(of.is_subset(&listed), "{what}, and not listed: {:?}", of.difference(&listed));
        assert!(of.is_disjoint(&proven), "{what}, and here: {:?}", of.intersection(&proven));
    }
    assert!(never.is_disjoint(&by_filer));
    let open: Vec<_> =
        listed.iter().filter(|r| ![&proven, &never, &by_filer].iter().any(|of| of.contains(r))).collect();
    assert!(open.is_empty(), "(procedure, status) that nothing provokes: {open:?}");
    println!(
        "{} listed: {} here, {} by a filer that refuses, {} never",
        listed.len(),
        listed.intersection(&proven).count(),
        by_filer.len(),
        never.len()
    );
}
