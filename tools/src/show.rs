//! Events for people and for scripts. Names are bytes: what is not plain UTF-8 is escaped as `\xNN`, and a backslash as
//! `\\`, so that the bytes can be had back. The key of the handles is never shown.

use journal_format::event::{
    Adopted, Caller, CopyFailed, Event, FilerFound, ListedEntry, LocationSpec, PartDone, Range, RangeDone, Replaced,
    What,
};
use journal_format::ids::{FilerId, Identity, JobId, JunctionId, Kind, LocationId, Lsn, NodeId, Time};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::net::Ipv6Addr;

/// Reversible: see the head of this module.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_hex(&mut out, byte)),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_hex(&mut out, *byte));
    }
    out
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Names from a root down, as a path.
pub fn path(names: &[Vec<u8>]) -> String {
    names.iter().fold(String::new(), |path, name| path + "/" + &escape(name))
}

/// RFC 3339, UTC, to the nanosecond.
pub fn time(at: Time) -> String {
    let (days, nanos) = (at.0.div_euclid(86_400_000_000_000), at.0.rem_euclid(86_400_000_000_000));
    // Days since 0000-03-01, in eras of 400 years.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (secs, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// A field of an event as JSON.
trait Show {
    fn show(&self) -> Value;
}

macro_rules! plain {
    ($($t:ty),*) => { $(impl Show for $t { fn show(&self) -> Value { json!(self) } })* };
}
macro_rules! number {
    ($($t:ty),*) => { $(impl Show for $t { fn show(&self) -> Value { json!(self.0) } })* };
}
/// A struct of fields that can be shown.
macro_rules! record {
    ($($t:ty { $($field:ident),* })*) => {
        $(impl Show for $t {
            fn show(&self) -> Value {
                let mut map = Map::new();
                $(map.insert(stringify!($field).into(), self.$field.show());)*
                Value::Object(map)
            }
        })*
    };
}
plain!(bool, u16, u32, u64, String);
number!(FilerId, JobId, JunctionId, LocationId, NodeId, Lsn);
record! {
    FilerFound { can_chown, can_mknod, has_xattrs, has_holes, time_granularity_ns }
    Replaced { node, kind, last }
    Range { node, offset, len, last }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, Show::show)
    }
}
impl Show for Time {
    fn show(&self) -> Value {
        json!(time(*self))
    }
}
impl Show for Identity {
    fn show(&self) -> Value {
        json!(hex(&self.0))
    }
}
/// Names and other bytes.
impl Show for Vec<u8> {
    fn show(&self) -> Value {
        json!(escape(self))
    }
}
impl Show for [u8; 8] {
    fn show(&self) -> Value {
        json!(hex(self))
    }
}
impl Show for [u8; 32] {
    fn show(&self) -> Value {
        json!(hex(self))
    }
}
impl Show for Kind {
    fn show(&self) -> Value {
        json!(format!("{self:?}").to_lowercase())
    }
}
impl Show for What {
    fn show(&self) -> Value {
        match self {
            What::Symlink { target } => json!({ "kind": "symlink", "target": target.show() }),
            What::Char { major, minor } | What::Block { major, minor } => {
                json!({ "kind": self.kind().show(), "major": major, "minor": minor })
            }
            What::File | What::Dir | What::Fifo | What::Socket => json!({ "kind": self.kind().show() }),
        }
    }
}
impl Show for PartDone {
    fn show(&self) -> Value {
        match self {
            PartDone::Bytes(bytes) => json!({ "bytes": bytes }),
            PartDone::Attrs { mode, owner, size, times } => {
                json!({ "mode": mode, "owner": owner, "size": size, "times": times })
            }
        }
    }
}
impl Show for Caller {
    fn show(&self) -> Value {
        let addr = Ipv6Addr::from(self.addr).to_canonical();
        let (xid, call_sum) = (format!("{:08x}", self.xid), format!("{:08x}", self.call_sum));
        json!({ "addr": addr.to_string(), "port": self.port, "xid": xid, "call_sum": call_sum, "uid": self.uid, "gid": self.gid })
    }
}
impl Show for LocationSpec {
    fn show(&self) -> Value {
        let (location, filer, root) = (self.location.show(), self.filer.show(), self.root.show());
        json!({ "location": location, "filer": filer, "subdir": path(&self.subdir), "root": root })
    }
}
record! {
    ListedEntry { name, node, kind }
    Adopted { name, node, kind, identity, mtime, ctime }
    RangeDone { node, offset, len, digest, last, void }
    CopyFailed { node, path, error, fatal }
}
macro_rules! lists {
    ($($t:ty),*) => {
        $(impl Show for Vec<$t> { fn show(&self) -> Value { Value::Array(self.iter().map(Show::show).collect()) } })*
    };
}
lists!(ListedEntry, Adopted, Range, RangeDone, CopyFailed);
impl Show for Vec<(NodeId, Identity)> {
    fn show(&self) -> Value {
        self.iter().map(|(node, identity)| json!({ "node": node.show(), "identity": identity.show() })).collect()
    }
}

macro_rules! fields {
    ($event:expr; $($field:ident),*) => { vec![$((stringify!($field), $event.$field.show())),*] };
}

/// The fields of an event, by name, in the order of its struct.
pub fn fields(event: &Event) -> Vec<(&'static str, Value)> {
    match event {
        Event::Write(e) => fields!(e; junction, location, node, offset, len, mode, caller),
        Event::SetAttr(e) => fields!(e; junction, location, node, mode, uid, gid, size, atime, mtime, caller),
        Event::Make(e) => fields!(
            e; junction, location, dir, name, node, what, mode, uid, gid, size, atime, mtime, verifier, caller
        ),
        Event::Remove(e) => fields!(e; junction, location, dir, name, node, kind, last, caller),
        Event::Rename(e) => fields!(
            e; junction, location, from_dir, from_name, to_dir, to_name, node, kind, replaced, caller
        ),
        Event::Link(e) => fields!(e; junction, location, node, kind, dir, name, caller),
        Event::Adopt(e) => fields!(e; junction, location, dir, entries, complete),
        Event::Failed(e) => fields!(e; op, status),
        Event::Partial(e) => fields!(e; op, done, status),
        Event::Made(e) => fields!(e; location, objects),
        Event::FilerAdded(e) => {
            vec![
                ("filer", e.filer.show()),
                ("name", e.name.show()),
                ("url", e.url.show()),
                ("root", json!(hex(&e.root))),
                ("found", e.found.show()),
            ]
        }
        Event::FilerRemoved(e) => fields!(e; filer),
        Event::JunctionAdded(e) => {
            let mut shown = fields!(e; junction);
            shown.push(("path", json!(path(&e.path))));
            shown.extend(fields!(e; location, root, mtime, ctime));
            shown
        }
        Event::JunctionRemoved(e) => fields!(e; junction),
        Event::JunctionSwitched(e) => fields!(e; junction, job, from, to, epoch),
        Event::JobCreated(e) => {
            let mut shown = fields!(e; job);
            shown.push(("kind", json!(format!("{:?}", e.kind).to_lowercase())));
            shown.extend(fields!(e; junction, source, destination, stopped, notes));
            shown
        }
        Event::JobStateChanged(e) => {
            let to = json!(format!("{:?}", e.to).to_lowercase());
            vec![("job", e.job.show()), ("to", to), ("reason", e.reason.show())]
        }
        Event::ListBegin(e) => fields!(e; job, location, dir),
        Event::Listed(e) => fields!(e; job, location, dir, entries, last),
        Event::CopyRange(e) => fields!(e; job, location, ranges),
        Event::CopyDone(e) => fields!(e; job, location, ranges, files_made, dirs_made, failed),
        Event::Cursor(e) => fields!(e; location, lsn),
        Event::OutOfSync(e) => fields!(e; location, from),
        Event::InSync(e) => fields!(e; location),
        Event::Durable(e) => fields!(e; stopped),
        // Its key opens every file handle.
        Event::JournalCreated(_) => vec![("handle_key", json!("(not shown)"))],
    }
}

/// A value in a line of text: strings bare where that can be read back, the rest as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(s) if !s.is_empty() && !s.contains([' ', '"', '=']) => s.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal_format::event::samples;

    /// What `escape` promises: the bytes can be had back.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            (rest, _) = match (byte, tail.first()) {
                (b'\\', Some(b'x')) => {
                    let digits = std::str::from_utf8(&tail[1..3]).unwrap();
                    out.push(u8::from_str_radix(digits, 16).unwrap());
                    (&tail[3..], ())
                }
                (b'\\', Some(b'\\')) => {
                    out.push(b'\\');
                    (&tail[1..], ())
                }
                _ => {
                    out.push(byte);
                    (tail, ())
                }
            };
        }
        out
    }

    #[test]
    fn any_name_comes_back_from_its_escape() {
        let all: Vec<u8> = (0..=255).collect();
        for name in [&all[..], "größe \\x41 \u{85}".as_bytes(), b"\xf0\x9f\x92", b"\\", b""] {
            assert_eq!(unescape(&escape(name)), name);
        }
    }

    #[test]
    fn every_kind_of_event_is_shown_and_the_key_never_is() {
        for (event, _) in samples::all() {
            let shown = fields(&event);
            assert!(!shown.is_empty());
            let text = format!("{shown:?}");
            assert!(!text.contains("5a5a") && !text.contains("ZZ") && !text.contains("90, 90"), "{text}");
        }
    }

    #[test]
    fn times_are_written_as_in_the_calendar() {
        assert_eq!(time(Time(0)), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(Time(-1)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(time(Time(951_827_696_000_000_005)), "2000-02-29T12:34:56.000000005Z");
        assert_eq!(time(Time(1_700_000_000_000_000_000)), "2023-11-14T22:13:20.000000000Z");
    }
}
