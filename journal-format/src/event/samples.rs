//! One event and more of every kind, always the same, for the tests of this crate, of the tools and for golden journals.

use super::*;
use crate::ids::{FilerId, Identity, JobId, JunctionId, Kind, LocationId, Lsn, NodeId, PolicyId, Time};

fn caller() -> Caller {
    let addr = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7];
    Caller { addr, port: 871, xid: 0x1234_5678, call_sum: 0x9abc_def0, uid: 1000, gid: 100 }
}

fn spec(location: u32, subdir: &[&[u8]]) -> LocationSpec {
    LocationSpec {
        location: LocationId(location),
        filer: FilerId(location + 10),
        subdir: subdir.iter().map(|name| name.to_vec()).collect(),
        root: Identity(vec![9; 20]),
    }
}

/// Every sample, with its bulk data.
#[must_use]
pub fn all() -> Vec<(Event, Vec<u8>)> {
    let bulk: Vec<u8> = (0..=99).collect();
    let mut all = vec![(
        Event::Write(Write {
            junction: JunctionId(1),
            location: LocationId(2),
            node: NodeId(3),
            offset: 4096,
            len: 100,
            mode: Some(0o644),
            caller: caller(),
        }),
        bulk,
    )];
    all.extend([nodes(), facts(), steps()].concat().into_iter().map(|event| (event, Vec::new())));
    all
}

fn nodes() -> Vec<Event> {
    let (junction, location, dir, caller) = (JunctionId(1), LocationId(2), NodeId(2), caller());
    let make = |name: &[u8], node: u64, what: What| {
        Event::Make(Make {
            junction,
            location,
            dir,
            name: name.to_vec(),
            node: NodeId(node),
            what,
            mode: 0o755,
            uid: 1000,
            gid: 100,
            size: 0,
            atime: None,
            mtime: Some(Time(1_700_000_000_000_000_000)),
            verifier: Some(*b"verifier"),
            caller,
        })
    };
    vec![
        Event::SetAttr(SetAttr {
            junction,
            location,
            node: NodeId(3),
            mode: None,
            uid: Some(0),
            gid: None,
            size: Some(1 << 40),
            atime: None,
            mtime: Some(Time(-1)),
            caller,
        }),
        make(b"file", 4, What::File),
        make(b"dir", 5, What::Dir),
        make(b"not \xff utf-8 \\ \n", 6, What::Symlink { target: b"../else\xfewhere".to_vec() }),
        make(b"fifo", 7, What::Fifo),
        make(b"socket", 8, What::Socket),
        make(b"char", 9, What::Char { major: 1, minor: 3 }),
        make(b"block", 10, What::Block { major: 8, minor: 0 }),
        Event::Remove(Remove {
            junction,
            location,
            dir,
            name: b"file".to_vec(),
            node: NodeId(4),
            kind: Kind::File,
            last: true,
            caller,
        }),
        Event::Rename(Rename {
            junction,
            location,
            from_dir: dir,
            from_name: b"dir".to_vec(),
            to_dir: NodeId(1),
            to_name: b"other".to_vec(),
            node: NodeId(5),
            kind: Kind::Dir,
            replaced: Some(Replaced { node: NodeId(11), kind: Kind::Dir, last: true }),
            caller,
        }),
        Event::Link(Link {
            junction,
            location,
            node: NodeId(7),
            kind: Kind::Fifo,
            dir,
            name: b"also".to_vec(),
            caller,
        }),
        Event::Adopt(Adopt {
            junction,
            location,
            dir,
            entries: vec![Adopted {
                name: b"old".to_vec(),
                node: NodeId(12),
                kind: Kind::Symlink,
                identity: Identity(vec![1, 2, 3]),
                mtime: Time(4),
                ctime: Time(5),
            }],
            complete: true,
        }),
        Event::Failed(Failed { op: Lsn(8192), status: 28 }),
        Event::Partial(Partial { op: Lsn(8192), done: PartDone::Bytes(512), status: 28 }),
        Event::Partial(Partial {
            op: Lsn(12288),
            done: PartDone::Attrs { mode: true, owner: false, size: true, times: false },
            status: 1,
        }),
        Event::Made(Made { location, objects: vec![(NodeId(4), Identity(vec![7; Identity::MAX]))] }),
    ]
}

fn facts() -> Vec<Event> {
    vec![
        Event::FilerAdded(FilerAdded {
            filer: FilerId(1),
            name: "old".into(),
            url: "posix:///srv/old".into(),
            root: vec![1; 16],
            found: FilerFound { can_chown: true, has_holes: true, time_granularity_ns: 1, ..FilerFound::default() },
        }),
        Event::FilerRemoved(FilerRemoved { filer: FilerId(1) }),
        Event::JunctionAdded(JunctionAdded {
            junction: JunctionId(1),
            path: vec![b"data".to_vec(), b"proj\xe9ct".to_vec()],
            location: spec(2, &[b"sub"]),
            root: NodeId(2),
            mtime: Time(1),
            ctime: Time(2),
        }),
        Event::JunctionRemoved(JunctionRemoved { junction: JunctionId(1) }),
        Event::PolicySet(PolicySet {
            policy: PolicyId(1),
            name: "lab".into(),
            rules: vec![AccessRule {
                addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0],
                prefix: 104,
                access: Access::ReadOnly,
                squash: Squash::Root,
                anon_uid: 65534,
                anon_gid: 65534,
                privileged_port: true,
            }],
        }),
        Event::JunctionModified(JunctionModified {
            junction: JunctionId(1),
            access: Some(PolicyId(1)),
            suspended: true,
        }),
        Event::PolicyRemoved(PolicyRemoved { policy: PolicyId(1) }),
        Event::HostMonitored(HostMonitored {
            host: Host { addr: caller().addr, name: b"client".to_vec() },
            at: Some([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        }),
        Event::LocksLost(LocksLost { number: 3 }),
        Event::HostForgotten(HostForgotten { host: Host { addr: caller().addr, name: b"client".to_vec() } }),
        Event::JunctionSwitched(JunctionSwitched {
            junction: JunctionId(1),
            job: JobId(1),
            from: LocationId(2),
            to: LocationId(3),
            epoch: 2,
        }),
        Event::JobCreated(JobCreated {
            job: JobId(1),
            kind: JobKind::Move,
            junction: JunctionId(1),
            source: LocationId(2),
            destination: spec(3, &[]),
            stopped: true,
            notes: "to the new one".into(),
        }),
        Event::JobStateChanged(JobStateChanged { job: JobId(1), to: JobState::Paused, reason: "asked".into() }),
        Event::Cursor(Cursor { location: LocationId(3), lsn: Lsn(65536) }),
        Event::Durable(Durable { stopped: false }),
        Event::JournalCreated(JournalCreated { handle_key: [0x5a; 32] }),
        Event::OutOfSync(OutOfSync { location: LocationId(3), from: Lsn(61440) }),
        Event::InSync(InSync { location: LocationId(3) }),
    ]
}

fn steps() -> Vec<Event> {
    let (job, location) = (JobId(1), LocationId(3));
    vec![
        Event::ListBegin(ListBegin { job, location, dir: NodeId(2) }),
        Event::Listed(Listed {
            job,
            location,
            dir: NodeId(2),
            entries: vec![
                ListedEntry { name: b"a".to_vec(), node: NodeId(20), kind: Kind::File },
                ListedEntry { name: b"b\xff".to_vec(), node: NodeId(21), kind: Kind::Dir },
            ],
            last: false,
        }),
        Event::CopyRange(CopyRange {
            job,
            location,
            ranges: vec![Range { node: NodeId(20), offset: 0, len: 1 << 23, last: true }],
        }),
        Event::CopyDone(CopyDone {
            job,
            location,
            ranges: vec![RangeDone {
                node: NodeId(20),
                offset: 0,
                len: 1 << 23,
                digest: [0xab; 32],
                last: true,
                void: false,
            }],
            files_made: 1,
            dirs_made: 1,
            failed: vec![CopyFailed {
                node: NodeId(21),
                path: b"some/where".to_vec(),
                error: "Permission denied".into(),
                fatal: false,
            }],
        }),
    ]
}

/// A whole segment's beginning made of every sample, always the same bytes: the golden journal.
#[must_use]
pub fn segment() -> (crate::segment::SegmentHeader, Vec<u8>) {
    use crate::record::{self, KIND_PADDING, KIND_SEGMENT_END, RecordHeader};
    let created = Time(1_700_000_000_000_000_000);
    let header = crate::segment::SegmentHeader {
        journal_id: *b"0123456789abcdef",
        number: crate::ids::SegmentNo(0),
        size: crate::segment::SEGMENT_SIZE_MIN,
        salt: 0x5eed_5a17,
        created,
    };
    let mut bytes = header.to_bytes();
    let (mut archive, mut time) = (Vec::new(), created.0);
    let mut events = all();
    // As in a true journal, its creation comes first.
    events.sort_by_key(|(event, _)| !matches!(event, Event::JournalCreated(_)));
    let durable = header.first_record();
    for (event, bulk) in events {
        time += 1_000_000;
        let head = RecordHeader {
            length: 0,
            kind: event.row().kind,
            version: event.row().version,
            lsn: header.first_lsn().plus(bytes.len() as u64),
            time: Time(time),
            durable,
            flags: 0,
            archived_len: 0,
            bulk_len: 0,
            crc: 0,
        };
        // The samples are within the bounds; were one not, the golden file would tell.
        if codec::encode(&event, &mut archive).is_ok() {
            bytes.extend(record::whole(head, &archive, &bulk, header.salt).unwrap_or_default());
        }
    }
    for kind in [KIND_PADDING, KIND_SEGMENT_END] {
        let lsn = header.first_lsn().plus(bytes.len() as u64);
        let end = (bytes.len() + record::HEADER_LEN).next_multiple_of(4096);
        let length = u32::try_from(end - bytes.len()).unwrap_or_default();
        bytes.extend_from_slice(&record::filler(kind, length, lsn, Time(time), durable, header.salt));
    }
    (header, bytes)
}

/// A side segment made of every sample, always the same bytes.
#[must_use]
pub fn side() -> Vec<u8> {
    use crate::record::{RecordHeader, whole};
    let mut records = Vec::new();
    let mut lsn = Lsn(4096);
    for (event, bulk) in all() {
        let (row, mut archive) = (event.row(), Vec::new());
        // As above: the golden file would tell.
        if codec::encode(&event, &mut archive).is_err() {
            continue;
        }
        let header = RecordHeader {
            length: 0,
            kind: row.kind,
            version: row.version,
            lsn,
            time: Time(1_700_000_000_000_000_000),
            durable: Lsn(0),
            flags: 0,
            archived_len: 0,
            bulk_len: 0,
            crc: 0,
        };
        let record = whole(header, &archive, &bulk, 0).unwrap_or_default();
        lsn = lsn.plus(record.len() as u64);
        records.extend(record);
    }
    let header = crate::side::SideHeader::of([3; 16], JunctionId(9), Lsn(4096), lsn, &records);
    [header.to_bytes().as_slice(), &records].concat()
}
