//! Events to archives and back, by the table of kinds.
//!
//! A number is never used again, and an archived struct is frozen once a version of tain with it was released: a change
//! is a new struct under the next version of its kind, and a conversion.

use super::{
    Adopt, CopyDone, CopyRange, Cursor, Durable, Event, Failed, FilerAdded, FilerRemoved, Host, HostForgotten,
    HostMonitored, HostMonitored1, InSync, JobCreated, JobStateChanged, JournalCreated, JunctionAdded,
    JunctionModified, JunctionRemoved, JunctionSwitched, Link, ListBegin, Listed, LocksLost, Made, Make, OutOfSync,
    Partial, PolicyRemoved, PolicySet, Remove, Rename, SetAttr, Write,
};
use crate::ids::Identity;
use rkyv::rancor;
use rkyv::util::AlignedVec;

/// Why an event cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A kind this version does not know.
    #[error(
        "record kind {kind} (version {version}) is unknown to tain {}: the journal was written by a newer one, and needs one that knows this kind",
        env!("CARGO_PKG_VERSION")
    )]
    UnknownKind {
        /// The kind's number.
        kind: u16,
        /// The struct's version.
        version: u16,
    },
    /// A known kind in a version this one does not know.
    #[error(
        "{name} record of version {version}: tain {} reads it up to version {known}; the journal was written by a newer one",
        env!("CARGO_PKG_VERSION")
    )]
    NewerVersion {
        /// The kind's name.
        name: &'static str,
        /// The version met.
        version: u16,
        /// The newest version known.
        known: u16,
    },
    /// Flags this version does not know.
    #[error("record of kind {kind} has flags {flags:#x}, unknown to tain {}: a newer one wrote it", env!("CARGO_PKG_VERSION"))]
    UnknownFlags {
        /// The flags.
        flags: u32,
        /// The kind's number.
        kind: u16,
    },
    /// The archive is not what its kind says.
    #[error("the archive of a {name} record is not valid")]
    Archive {
        /// The kind's name.
        name: &'static str,
    },
    /// A bound of the format is exceeded.
    #[error("a {name} record has {what}")]
    Bound {
        /// The kind's name.
        name: &'static str,
        /// Which bound.
        what: &'static str,
    },
}

/// A row of the table of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The number in the record's header.
    pub kind: u16,
    /// The newest version, which is what is written.
    pub version: u16,
    /// The event's name.
    pub name: &'static str,
}

/// `kind, newest version => name`, and behind it `/ version => name` of each older one that is still read.
macro_rules! table {
    ($($kind:literal, $version:literal => $name:ident $(/ $old:literal => $older:ident)*,)*) => {
        /// Every kind of record that carries an event.
        pub const KINDS: &[Row] = &[$(Row { kind: $kind, version: $version, name: stringify!($name) },)*];

        impl Event {
            /// Its row in the table of kinds.
            #[must_use]
            pub const fn row(&self) -> Row {
                match self {
                    $(Event::$name(_) => Row { kind: $kind, version: $version, name: stringify!($name) },)*
                }
            }
        }

        fn archive(event: &Event, out: Vec<u8>) -> Result<Vec<u8>, rancor::Error> {
            match event {
                $(Event::$name(event) => rkyv::api::high::to_bytes_in(event, out),)*
            }
        }

        fn unarchive(kind: u16, version: u16, bytes: &[u8]) -> Result<Event, Error> {
            match (kind, version) {
                $(($kind, $version) => rkyv::from_bytes::<$name, rancor::Error>(bytes)
                    .map(Event::$name)
                    .map_err(|_| Error::Archive { name: stringify!($name) }),
                $(($kind, $old) => rkyv::from_bytes::<$older, rancor::Error>(bytes)
                    .map(|event| Event::$name(event.into()))
                    .map_err(|_| Error::Archive { name: stringify!($older) }),)*)*
                _ => Err(unknown(kind, version)),
            }
        }
    };
}

table! {
    16, 1 => Write,
    17, 1 => SetAttr,
    18, 1 => Make,
    19, 1 => Remove,
    20, 1 => Rename,
    21, 1 => Link,
    22, 1 => Adopt,
    23, 1 => Failed,
    24, 1 => Partial,
    25, 1 => Made,
    48, 1 => FilerAdded,
    49, 1 => FilerRemoved,
    64, 1 => JunctionAdded,
    65, 1 => JunctionRemoved,
    66, 1 => JunctionSwitched,
    67, 1 => JunctionModified,
    72, 1 => PolicySet,
    73, 1 => PolicyRemoved,
    76, 2 => HostMonitored / 1 => HostMonitored1,
    77, 1 => HostForgotten,
    78, 1 => LocksLost,
    80, 1 => JobCreated,
    81, 1 => JobStateChanged,
    96, 1 => ListBegin,
    97, 1 => Listed,
    98, 1 => CopyRange,
    99, 1 => CopyDone,
    112, 1 => Cursor,
    113, 1 => Durable,
    114, 1 => JournalCreated,
    115, 1 => OutOfSync,
    116, 1 => InSync,
}

/// Whether records of this kind say how an operation ended: [`Event::Failed`], [`Event::Partial`].
#[must_use]
pub fn is_end(kind: u16) -> bool {
    KINDS.iter().any(|row| row.kind == kind && matches!(row.name, "Failed" | "Partial"))
}

fn unknown(kind: u16, version: u16) -> Error {
    match KINDS.iter().find(|row| row.kind == kind) {
        Some(row) => Error::NewerVersion { name: row.name, version, known: row.version },
        None => Error::UnknownKind { kind, version },
    }
}

/// Put the event's archive into `out`, in place of what is there.
///
/// # Errors
/// When the event exceeds a bound of the format: what could not be read back is never written.
pub fn encode(event: &Event, out: &mut Vec<u8>) -> Result<(), Error> {
    check_bounds(event)?;
    let mut buffer = std::mem::take(out);
    buffer.clear();
    *out = archive(event, buffer).map_err(|_| Error::Archive { name: event.row().name })?;
    Ok(())
}

/// The event in an archive. Any bytes give an answer, never a panic.
///
/// # Errors
/// When the kind is unknown, or the archive is not valid.
pub fn decode(kind: u16, version: u16, bytes: &[u8]) -> Result<Event, Error> {
    // In a journal archives are aligned; elsewhere they may not be, and checked access refuses that.
    if bytes.as_ptr().align_offset(16) == 0 {
        return unarchive(kind, version, bytes);
    }
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    unarchive(kind, version, &aligned)
}

/// Check an event that was read, with the length of its bulk data, against the format's bounds.
///
/// # Errors
/// Names the bound.
pub fn check(event: &Event, bulk_len: usize) -> Result<(), Error> {
    let named = if let Event::Write(write) = event { u64::from(write.len) } else { 0 };
    if bulk_len as u64 != named {
        return Err(Error::Bound { name: event.row().name, what: "bulk data of another length than it states" });
    }
    check_bounds(event)
}

fn check_bounds(event: &Event) -> Result<(), Error> {
    let bound = |holds: bool, what: &'static str| match holds {
        true => Ok(()),
        false => Err(Error::Bound { name: event.row().name, what }),
    };
    let identity = |id: &Identity| bound(id.0.len() <= Identity::MAX, "an identity that is too long");
    match event {
        Event::Adopt(e) => {
            bound(e.entries.len() <= Adopt::ENTRIES_MAX, "too many entries")?;
            e.entries.iter().try_for_each(|entry| identity(&entry.identity))
        }
        Event::Listed(e) => bound(e.entries.len() <= Listed::ENTRIES_MAX, "too many entries"),
        Event::CopyRange(e) => bound(e.ranges.len() <= CopyRange::RANGES_MAX, "too many ranges"),
        Event::CopyDone(e) => bound(e.failed.len() <= CopyDone::FAILED_MAX, "too many failures"),
        Event::Made(e) => e.objects.iter().try_for_each(|(_, id)| identity(id)),
        Event::JunctionAdded(e) => identity(&e.location.root),
        Event::JobCreated(e) => identity(&e.destination.root),
        Event::HostMonitored(HostMonitored { host, .. }) | Event::HostForgotten(HostForgotten { host }) => {
            bound(host.name.len() <= Host::NAME_MAX, "a host's name that is too long")
        }
        Event::PolicySet(e) => bound(e.rules.len() <= PolicySet::RULES_MAX, "too many rules"),
        Event::Write(_)
        | Event::SetAttr(_)
        | Event::Make(_)
        | Event::Remove(_)
        | Event::Rename(_)
        | Event::Link(_)
        | Event::Failed(_)
        | Event::Partial(_)
        | Event::FilerAdded(_)
        | Event::FilerRemoved(_)
        | Event::JunctionRemoved(_)
        | Event::JunctionModified(_)
        | Event::PolicyRemoved(_)
        | Event::LocksLost(_)
        | Event::JunctionSwitched(_)
        | Event::JobStateChanged(_)
        | Event::ListBegin(_)
        | Event::Cursor(_)
        | Event::OutOfSync(_)
        | Event::InSync(_)
        | Event::Durable(_)
        | Event::JournalCreated(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples;
    use crate::ids::{JobId, LocationId};

    /// What version 1 wrote of the host 192.0.2.7 that calls itself "client".
    const HOST_MONITORED_1: &[u8] = b"client\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x07\xe8\xff\xff\xff\x06\0\0\0";

    #[test]
    fn kind_numbers_and_names_are_used_once_and_not_by_fillers() {
        for (i, row) in KINDS.iter().enumerate() {
            assert!(row.kind > crate::record::KIND_SEGMENT_END);
            for other in &KINDS[i + 1..] {
                assert_ne!(row.kind, other.kind);
                assert_ne!(row.name, other.name);
            }
        }
    }

    #[test]
    fn every_kind_comes_back_as_it_was_at_any_alignment() {
        let mut seen = std::collections::BTreeSet::new();
        let mut archive = Vec::new();
        for (event, bulk) in samples::all() {
            encode(&event, &mut archive).unwrap();
            for shift in 0..16 {
                let shifted: Vec<u8> = std::iter::repeat_n(0, shift).chain(archive.iter().copied()).collect();
                let back = decode(event.row().kind, event.row().version, &shifted[shift..]).unwrap();
                assert_eq!(back, event);
                check(&back, bulk.len()).unwrap();
            }
            seen.insert(event.row().kind);
        }
        assert_eq!(seen.len(), KINDS.len(), "a kind has no sample");
    }

    #[test]
    fn damaged_and_cut_archives_never_panic() {
        let mut archive = Vec::new();
        for (event, _) in samples::all() {
            encode(&event, &mut archive).unwrap();
            for at in 0..archive.len() {
                for pattern in [0x01, 0x80, 0xff] {
                    let mut damaged = archive.clone();
                    damaged[at] ^= pattern;
                    let _ = decode(event.row().kind, event.row().version, &damaged);
                }
                let _ = decode(event.row().kind, event.row().version, &archive[..at]);
            }
        }
    }

    #[test]
    fn unknown_kinds_and_newer_versions_say_so() {
        assert_eq!(decode(999, 1, &[]), Err(Error::UnknownKind { kind: 999, version: 1 }));
        assert_eq!(decode(16, 2, &[]), Err(Error::NewerVersion { name: "Write", version: 2, known: 1 }));
    }

    #[test]
    fn a_monitored_host_of_version_1_is_one_that_asked_nobody_knows_where() {
        let archive = HOST_MONITORED_1;
        let host = Host { addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7], name: b"client".to_vec() };
        let event = Event::HostMonitored(HostMonitored { host, at: None });
        assert_eq!(decode(76, 1, archive), Ok(event));
        assert_eq!(decode(76, 1, &archive[1..]), Err(Error::Archive { name: "HostMonitored1" }));
        assert!(matches!(decode(76, 3, archive), Err(Error::NewerVersion { known: 2, .. })));
    }

    #[test]
    fn what_exceeds_a_bound_is_not_written() {
        let range = crate::event::Range { node: crate::ids::NodeId(1), offset: 0, len: 1, last: false };
        let ranges = vec![range; CopyRange::RANGES_MAX + 1];
        let event = Event::CopyRange(CopyRange { job: JobId(1), location: LocationId(1), ranges });
        assert!(matches!(encode(&event, &mut Vec::new()), Err(Error::Bound { .. })));
    }
}
