//! Keys and values of the live index. Numbers in keys are big-endian, so that they sort; in values little-endian.
//!
//! ```text
//!  N node                -> version, kind, flags, junction u32, mtime i64, ctime i64, mtime_by u64, [verifier; 8 bytes]
//!  E directory name      -> version, kind, node u64, cookie u64, [put_by u64]
//!  C directory cookie    -> version, kind, node u64, [put_by u64,] name
//!  R node directory name -> (empty)
//!  S junction            -> (empty)                     the junction's side is to be folded first
//!  J                     -> 16 bytes                    the journal that it is made from
//!  M                     -> version, node u64           highest node id ever seen
//!  B LSN                 -> ahead u64                   of a cut: `order.rs`
//! ```
//!
//! In E and C `put_by` is there, and the version is 2, where it is not the cookie.
//!
//! E, C and R say the same three times: for each E there is exactly one C (by its cookie) and one R (by its node), and
//! no others. A secondary's store holds further tables, under other first bytes.

use super::{Entry, NodeRec};
use crate::index::store::Key;
use journal_format::ids::{JunctionId, Kind, Lsn, NodeId, Time};

const VERSION: u8 = 1;
/// Of an entry that has kept its cookie when a name was put over it.
const KEPT: u8 = 2;

const COMPLETE: u8 = 1;
const ROOT: u8 = 2;
const VERIFIER: u8 = 4;

pub const MAX_KEY: &[u8] = b"M";
pub const NODES: u8 = b'N';
pub const LISTED: u8 = b'C';

/// A node's record as it is stored: what callers see, and what only the fold needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub rec: NodeRec,
    /// The event that set `mtime`, by its place in the order ([`super::Live::order`]).
    pub mtime_by: Lsn,
    /// A junction's root: it has no name, and paths begin there.
    pub root: bool,
}

pub fn node_key(node: NodeId) -> Key {
    key(NODES, node, &[])
}

pub fn entry_key(dir: NodeId, name: &[u8]) -> Key {
    key(b'E', dir, name)
}

pub fn cookie_key(dir: NodeId, cookie: u64) -> Key {
    key(LISTED, dir, &cookie.to_be_bytes())
}

pub fn cookie_prefix(dir: NodeId) -> Key {
    key(LISTED, dir, &[])
}

pub fn name_key(node: NodeId, dir: NodeId, name: &[u8]) -> Key {
    [&key(b'R', node, &dir.0.to_be_bytes()), name].concat()
}

pub fn name_prefix(node: NodeId) -> Key {
    key(b'R', node, &[])
}

fn key(table: u8, node: NodeId, rest: &[u8]) -> Key {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(table);
    key.extend_from_slice(&node.0.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// Directory and name of an R key.
pub fn parse_name_key(key: &[u8]) -> Option<(NodeId, Vec<u8>)> {
    let (dir, name) = key.get(9..)?.split_first_chunk()?;
    Some((NodeId(u64::from_be_bytes(*dir)), name.to_vec()))
}

pub fn encode_node(node: &Stored) -> Vec<u8> {
    let rec = &node.rec;
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let flags = flag(rec.complete, COMPLETE) | flag(node.root, ROOT) | flag(rec.verifier.is_some(), VERIFIER);
    let mut out = Vec::with_capacity(39);
    out.extend_from_slice(&[VERSION, rec.kind as u8, flags]);
    out.extend_from_slice(&rec.junction.0.to_le_bytes());
    out.extend_from_slice(&rec.mtime.0.to_le_bytes());
    out.extend_from_slice(&rec.ctime.0.to_le_bytes());
    out.extend_from_slice(&node.mtime_by.0.to_le_bytes());
    out.extend_from_slice(rec.verifier.as_ref().map_or(&[], |verifier| verifier.as_slice()));
    out
}

pub fn decode_node(value: &[u8]) -> Option<Stored> {
    let mut fields = Fields(value);
    fields.version()?;
    let kind = fields.kind()?;
    let [flags] = fields.take()?;
    if flags & !(COMPLETE | ROOT | VERIFIER) != 0 {
        return None;
    }
    let junction = JunctionId(u32::from_le_bytes(fields.take()?));
    let mtime = Time(i64::from_le_bytes(fields.take()?));
    let ctime = Time(i64::from_le_bytes(fields.take()?));
    let mtime_by = Lsn(fields.number()?);
    let verifier = if flags & VERIFIER != 0 { Some(fields.take()?) } else { None };
    fields.end()?;
    let rec = NodeRec { junction, kind, mtime, ctime, verifier, complete: flags & COMPLETE != 0 };
    Some(Stored { rec, mtime_by, root: flags & ROOT != 0 })
}

pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(26);
    out.extend_from_slice(&[version_of(entry), entry.kind as u8]);
    out.extend_from_slice(&entry.node.0.to_le_bytes());
    out.extend_from_slice(&entry.cookie.to_le_bytes());
    encode_put_by(entry, &mut out);
    out
}

fn version_of(entry: &Entry) -> u8 {
    if entry.put_by == entry.cookie { VERSION } else { KEPT }
}

fn encode_put_by(entry: &Entry, out: &mut Vec<u8>) {
    if version_of(entry) == KEPT {
        out.extend_from_slice(&entry.put_by.to_le_bytes());
    }
}

pub fn decode_entry(name: &[u8], value: &[u8]) -> Option<Entry> {
    let mut fields = Fields(value);
    let kept = fields.kept()?;
    let kind = fields.kind()?;
    let node = NodeId(fields.number()?);
    let cookie = fields.number()?;
    let put_by = if kept { fields.number()? } else { cookie };
    fields.end()?;
    Some(Entry { name: name.to_vec(), node, kind, cookie, put_by })
}

/// Value of an entry's C key.
pub fn encode_listed(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(18 + entry.name.len());
    out.extend_from_slice(&[version_of(entry), entry.kind as u8]);
    out.extend_from_slice(&entry.node.0.to_le_bytes());
    encode_put_by(entry, &mut out);
    out.extend_from_slice(&entry.name);
    out
}

pub fn decode_listed(key: &[u8], value: &[u8]) -> Option<Entry> {
    let cookie = u64::from_be_bytes(key.get(9..)?.try_into().ok()?);
    let mut fields = Fields(value);
    let kept = fields.kept()?;
    let kind = fields.kind()?;
    let node = NodeId(fields.number()?);
    let put_by = if kept { fields.number()? } else { cookie };
    Some(Entry { name: fields.0.to_vec(), node, kind, cookie, put_by })
}

/// The event that a row of [`NODES`] or [`LISTED`] is of.
pub fn order_of(key: &[u8], value: &[u8]) -> Option<Lsn> {
    match *key.first()? {
        NODES => decode_node(value).map(|stored| stored.mtime_by),
        LISTED => decode_listed(key, value).map(|entry| Lsn(entry.put_by)),
        _ => None,
    }
}

pub fn encode_max(node: NodeId) -> Vec<u8> {
    [&[VERSION], node.0.to_le_bytes().as_slice()].concat()
}

pub fn decode_max(value: &[u8]) -> Option<NodeId> {
    let mut fields = Fields(value);
    fields.version()?;
    let node = NodeId(fields.number()?);
    fields.end()?;
    Some(node)
}

/// What is left of a value; `None` from any step is an undecodable value.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn version(&mut self) -> Option<()> {
        (self.take()? == [VERSION]).then_some(())
    }

    /// An entry's version: whether `put_by` is there.
    fn kept(&mut self) -> Option<bool> {
        match self.take()? {
            [VERSION] => Some(false),
            [KEPT] => Some(true),
            _ => None,
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        let [kind] = self.take()?;
        const KINDS: [Kind; 7] =
            [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::Char, Kind::Block];
        KINDS.into_iter().find(|known| *known as u8 == kind)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
