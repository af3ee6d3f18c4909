//! Events for people and for scripts. Names are bytes: what is not plain UTF-8 is escaped as `\xNN`, and a backslash as
//! `\\`, so that the bytes can be had back. The key of the handles is never shown.

use crate::line::{Line, Style};
use journal_format::event::{
    AccessRule, Adopted, Caller, CopyFailed, Event, FilerFound, Host, ListedEntry, LocationSpec, PartDone, Range,
    RangeDone, Replaced, What,
};
use journal_format::ids::{FilerId, Identity, JobId, JunctionId, Kind, LocationId, Lsn, NodeId, PolicyId, Time};
use serde_json::Value;
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
    let mut line = Line::new(Style::Words);
    write_time(at, &mut line);
    String::from_utf8_lossy(line.bytes()).into_owned()
}

fn write_time(at: Time, to: &mut Line) {
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
    // Sixty-four bits of nanoseconds reach from 1677 to 2262: nothing here is negative.
    let parts =
        [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T'), (hour, 2, b':'), (minute, 2, b':'), (second, 2, b'.')];
    for (part, width, behind) in parts.into_iter().chain([(nanos, 9, b'Z')]) {
        to.digits(part.unsigned_abs(), width);
        to.raw(&[behind]);
    }
}

/// A field of an event.
pub trait Show {
    fn show(&self, to: &mut Line);

    fn is_null(&self) -> bool {
        false
    }
}

macro_rules! number {
    ($($t:ty),*) => { $(impl Show for $t { fn show(&self, to: &mut Line) { to.number(u64::from(*self)); } })* };
}
macro_rules! id {
    ($($t:ty),*) => { $(impl Show for $t { fn show(&self, to: &mut Line) { self.0.show(to); } })* };
}
/// A struct of fields that can be shown.
macro_rules! record {
    ($($t:ty { $($field:ident),* })*) => {
        $(impl Show for $t {
            fn show(&self, to: &mut Line) {
                to.open(b'{');
                $(to.field(stringify!($field), &self.$field);)*
                to.close(b'}');
            }
        })*
    };
}
number!(u16, u32, u64);
id!(FilerId, JobId, JunctionId, LocationId, NodeId, PolicyId, Lsn);
record! {
    FilerFound { can_chown, can_mknod, has_xattrs, has_holes, time_granularity_ns }
    Replaced { node, kind, last }
    Range { node, offset, len, last }
}

impl Show for bool {
    fn show(&self, to: &mut Line) {
        to.raw(if *self { b"true" } else { b"false" });
    }
}
impl Show for str {
    fn show(&self, to: &mut Line) {
        to.string(self);
    }
}
impl Show for String {
    fn show(&self, to: &mut Line) {
        to.string(self);
    }
}
impl<T: Show> Show for Option<T> {
    fn show(&self, to: &mut Line) {
        match self {
            Some(value) => value.show(to),
            None => to.raw(b"null"),
        }
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}
impl Show for AccessRule {
    fn show(&self, to: &mut Line) {
        to.string(&self.to_string());
    }
}
impl Show for Time {
    fn show(&self, to: &mut Line) {
        to.plain(|to| write_time(*self, to));
    }
}
impl Show for Identity {
    fn show(&self, to: &mut Line) {
        Hex(&self.0).show(to);
    }
}
/// Names and other bytes.
impl Show for Vec<u8> {
    fn show(&self, to: &mut Line) {
        match std::str::from_utf8(self) {
            Ok(plain) if !plain.contains(|c: char| c == '\\' || c.is_control()) => to.string(plain),
            _ => to.string(&escape(self)),
        }
    }
}
impl Show for [u8; 8] {
    fn show(&self, to: &mut Line) {
        Hex(self).show(to);
    }
}
impl Show for [u8; 32] {
    fn show(&self, to: &mut Line) {
        Hex(self).show(to);
    }
}
struct Hex<'a>(&'a [u8]);
impl Show for Hex<'_> {
    fn show(&self, to: &mut Line) {
        match self.0 {
            [] => to.string(""),
            bytes => to.plain(|to| to.hex(bytes)),
        }
    }
}
impl Show for Kind {
    fn show(&self, to: &mut Line) {
        to.string(match self {
            Kind::File => "file",
            Kind::Dir => "dir",
            Kind::Symlink => "symlink",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::Char => "char",
            Kind::Block => "block",
        });
    }
}
impl Show for What {
    fn show(&self, to: &mut Line) {
        to.open(b'{');
        to.field("kind", &self.kind());
        match self {
            What::Symlink { target } => to.field("target", target),
            What::Char { major, minor } | What::Block { major, minor } => {
                to.field("major", major);
                to.field("minor", minor);
            }
            What::File | What::Dir | What::Fifo | What::Socket => {}
        }
        to.close(b'}');
    }
}
impl Show for PartDone {
    fn show(&self, to: &mut Line) {
        to.open(b'{');
        match self {
            PartDone::Bytes(bytes) => to.field("bytes", bytes),
            PartDone::Attrs { mode, owner, size, times } => {
                to.field("mode", mode);
                to.field("owner", owner);
                to.field("size", size);
                to.field("times", times);
            }
        }
        to.close(b'}');
    }
}
impl Show for Caller {
    fn show(&self, to: &mut Line) {
        to.open(b'{');
        to.key("addr");
        to.string(&address(self.addr));
        to.field("port", &self.port);
        to.field("xid", &Hex(&self.xid.to_be_bytes()));
        to.field("call_sum", &Hex(&self.call_sum.to_be_bytes()));
        to.field("uid", &self.uid);
        to.field("gid", &self.gid);
        to.close(b'}');
    }
}
impl Show for LocationSpec {
    fn show(&self, to: &mut Line) {
        to.open(b'{');
        to.field("location", &self.location);
        to.field("filer", &self.filer);
        to.field("subdir", &path(&self.subdir));
        to.field("root", &self.root);
        to.close(b'}');
    }
}
record! {
    ListedEntry { name, node, kind }
    Adopted { name, node, kind, identity, mtime, ctime }
    RangeDone { node, offset, len, digest, last, void }
    CopyFailed { node, path, error, fatal }
}
macro_rules! lists {
    ($($t:ty),*) => { $(impl Show for Vec<$t> { fn show(&self, to: &mut Line) { self.as_slice().show(to); } })* };
}
impl<T: Show> Show for [T] {
    fn show(&self, to: &mut Line) {
        to.open(b'[');
        for one in self {
            to.item();
            one.show(to);
        }
        to.close(b']');
    }
}
lists!(AccessRule, ListedEntry, Adopted, Range, RangeDone, CopyFailed);
impl Show for Vec<(NodeId, Identity)> {
    fn show(&self, to: &mut Line) {
        to.open(b'[');
        for (node, identity) in self {
            to.item();
            to.open(b'{');
            to.field("node", node);
            to.field("identity", identity);
            to.close(b'}');
        }
        to.close(b']');
    }
}

macro_rules! fields {
    ($to:ident, $event:expr; $($field:ident),*) => {{ $($to.field(stringify!($field), &$event.$field);)* }};
}

fn address(addr: [u8; 16]) -> String {
    Ipv6Addr::from(addr).to_canonical().to_string()
}

fn host(to: &mut Line, of: &Host) {
    to.field("addr", &address(of.addr));
    to.field("name", &of.name);
}

/// The fields of an event, by name, in the order of its struct.
pub fn fields(event: &Event, to: &mut Line) {
    match event {
        Event::Write(e) => fields!(to, e; junction, location, node, offset, len, mode, caller),
        Event::SetAttr(e) => fields!(to, e; junction, location, node, mode, uid, gid, size, atime, mtime, caller),
        Event::Make(e) => fields!(
            to, e; junction, location, dir, name, node, what, mode, uid, gid, size, atime, mtime, verifier, caller
        ),
        Event::Remove(e) => fields!(to, e; junction, location, dir, name, node, kind, last, caller),
        Event::Rename(e) => fields!(
            to, e; junction, location, from_dir, from_name, to_dir, to_name, node, kind, replaced, caller
        ),
        Event::Link(e) => fields!(to, e; junction, location, node, kind, dir, name, caller),
        Event::Adopt(e) => fields!(to, e; junction, location, dir, entries, complete),
        Event::Failed(e) => fields!(to, e; op, status),
        Event::Partial(e) => fields!(to, e; op, done, status),
        Event::Made(e) => fields!(to, e; location, objects),
        Event::FilerAdded(e) => {
            fields!(to, e; filer, name, url);
            to.field("root", &Hex(&e.root));
            to.field("found", &e.found);
        }
        Event::FilerRemoved(e) => fields!(to, e; filer),
        Event::JunctionAdded(e) => {
            to.field("junction", &e.junction);
            to.field("path", &path(&e.path));
            fields!(to, e; location, root, mtime, ctime);
        }
        Event::JunctionRemoved(e) => fields!(to, e; junction),
        Event::JunctionModified(e) => fields!(to, e; junction, access, suspended),
        Event::PolicySet(e) => {
            fields!(to, e; policy, name);
            to.field("rules", &e.rules);
        }
        Event::PolicyRemoved(e) => fields!(to, e; policy),
        Event::HostMonitored(e) => {
            host(to, &e.host);
            to.field("at", &e.at.map(address));
        }
        Event::HostForgotten(e) => host(to, &e.host),
        Event::LocksLost(e) => fields!(to, e; number),
        Event::JunctionSwitched(e) => fields!(to, e; junction, job, from, to, epoch),
        Event::JobCreated(e) => {
            to.field("job", &e.job);
            to.field("kind", &format!("{:?}", e.kind).to_lowercase());
            fields!(to, e; junction, source, destination, stopped, notes);
        }
        Event::JobStateChanged(e) => {
            to.field("job", &e.job);
            to.field("to", &format!("{:?}", e.to).to_lowercase());
            to.field("reason", &e.reason);
        }
        Event::ListBegin(e) => fields!(to, e; job, location, dir),
        Event::Listed(e) => fields!(to, e; job, location, dir, entries, last),
        Event::CopyRange(e) => fields!(to, e; job, location, ranges),
        Event::CopyDone(e) => fields!(to, e; job, location, ranges, files_made, dirs_made, failed),
        Event::Cursor(e) => fields!(to, e; location, lsn),
        Event::OutOfSync(e) => fields!(to, e; location, from),
        Event::InSync(e) => fields!(to, e; location),
        Event::Durable(e) => fields!(to, e; stopped),
        // Its key opens every file handle.
        Event::JournalCreated(_) => to.field("handle_key", "(not shown)"),
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
            let mut line = Line::new(Style::Words);
            fields(&event, &mut line);
            let text = String::from_utf8(line.bytes().to_vec()).unwrap();
            assert!(!text.is_empty());
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
