//! What a start makes of a journal.

use crate::Bug;
use crate::support::{Dir, Served, exe, name};
use bytes::Bytes;
use journal_format::event::{Durable, Event, codec};
use journal_format::ids::Time;
use journal_format::record::{RecordHeader, whole};
use journal_format::scan::{Found, record_at};
use journal_format::segment::{BLOCK, SegmentHeader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tain::demo::nfs::{Call, How, SetAttrs, status};
use tain::demo::service::Service;

async fn file(s: &Served, n: &str) -> Bytes {
    let call = Call::Create { dir: s.root.clone(), name: name(n), how: How::Guarded(SetAttrs::mode(0o644)) };
    s.ok(call).await.fh.unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("segment-"))
        .collect();
    found.sort();
    found
}

/// C10, I8: damage of what is durable is refused.
pub async fn a_flipped_byte_is_refused(bug: Bug) {
    let mut s = Served::planted(bug).await;
    let fh = file(&s, "file").await;
    let text = b"look for this text in the journal".repeat(40);
    s.ok(Call::Write { node: fh, offset: 0, stable: 2, data: Bytes::from(text.clone()) }).await;
    s.service.stop().await.unwrap();
    let find = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(text.len()).position(|part| part == text)?;
        Some((path, at))
    };
    let found = segments(&s.service.journal()).into_iter().find_map(find);
    let (segment, at) = found.expect("the WRITE is in the journal");
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(b"L", at as u64).unwrap();
    match s.service.start().await {
        Ok(_) => panic!("a damaged record was believed"),
        Err(e) => assert!(e.to_string().contains("corrupt"), "refused, but not for its damage: {e}"),
    }
}

/// C10: behind a hole in the last batch nothing counts, and nothing comes back.
pub async fn what_lies_behind_a_hole_is_cut(bug: Bug) {
    let mut s = Served::planted(bug).await;
    file(&s, "file").await;
    let path = segments(&s.service.journal()).into_iter().find(|path| end_of(path).is_some()).unwrap();
    // Idle: the journal has said that all is durable.
    let begun = Instant::now();
    while !is_idle(&path) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the journal does not fall idle");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    s.service.kill().await.unwrap();
    let (header, end) = end_of(&path).unwrap();
    // A batch of two records that was torn: of the first the header is there and the body is not.
    let lsn = header.first_lsn().plus(end);
    let first = a_record(&header, lsn.0, lsn.0);
    let second = a_record(&header, lsn.0 + first.len() as u64, lsn.0);
    let segment = std::fs::File::options().write(true).open(&path).unwrap();
    let mut torn = first.clone();
    torn[48..].fill(0xee);
    segment.write_all_at(&torn, end).unwrap();
    segment.write_all_at(&second, end + first.len() as u64).unwrap();
    s.service.start().await.unwrap();
    s.ok(Call::Lookup { dir: s.root.clone(), name: name("file") }).await;
    s.service.kill().await.unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = usize::try_from(end).unwrap() + first.len();
    assert_ne!(bytes[at..at + second.len()], second[..], "a record behind a hole is still there");
}

fn a_record(header: &SegmentHeader, lsn: u64, durable: u64) -> Vec<u8> {
    let event = Event::Durable(Durable { stopped: false });
    let mut archive = Vec::new();
    codec::encode(&event, &mut archive).unwrap();
    let head = RecordHeader {
        length: 0,
        kind: event.row().kind,
        version: event.row().version,
        lsn: journal_format::ids::Lsn(lsn),
        time: Time(i64::MAX / 2),
        durable: journal_format::ids::Lsn(durable),
        flags: 0,
        archived_len: 0,
        bulk_len: 0,
        crc: 0,
    };
    whole(head, &archive, &[], header.salt).unwrap()
}

/// Whether the segment's last record says that all before it is durable.
fn is_idle(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    let Ok(header) = SegmentHeader::from_bytes(&bytes[..usize::try_from(BLOCK).unwrap()]) else { return false };
    let (mut offset, mut idle) = (BLOCK, false);
    while let Found::Record(record) = record_at(&header, &bytes, offset) {
        if let Ok(Some(event)) = record.event() {
            idle = matches!(event, Event::Durable(_));
        }
        offset = record.end_offset();
    }
    idle
}

/// Where the records end in a segment that is not full.
fn end_of(path: &Path) -> Option<(SegmentHeader, u64)> {
    let bytes = std::fs::read(path).unwrap();
    let header = SegmentHeader::from_bytes(bytes.get(..usize::try_from(BLOCK).unwrap())?).ok()?;
    let mut offset = BLOCK;
    while let Found::Record(record) = record_at(&header, &bytes, offset) {
        offset = record.end_offset();
    }
    (offset > BLOCK && offset < header.size).then_some((header, offset))
}

/// Segments are used again: records of an earlier lap lie behind the end, at the same places.
pub async fn the_end_is_found_in_a_segment_used_before(bug: Bug) {
    let dir = Dir::new();
    for sub in ["service", "filer", "filer/export"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let mut service = Service::new(&exe(), &dir.path().join("service"), 256 << 10).unwrap();
    plant(&mut service, bug);
    service.start().await.unwrap();
    let url = format!("posix://{}", dir.path().join("filer").display());
    service.tain(&["filer", "add", "one", &url]).await.unwrap();
    service.tain(&["junction", "add", "/j", "one:/export"]).await.unwrap();
    let client = crate::support::client(&service, 1);
    let root = client.mount(b"/j").await.unwrap().unwrap();
    let call = Call::Create { dir: root, name: name("file"), how: How::Guarded(SetAttrs::mode(0o644)) };
    let made = client.nfs(&call).await.unwrap();
    assert_eq!(made.status, status::OK);
    let node = made.fh.unwrap();
    // Equal records one by one: those of each lap begin where those of the lap before did.
    let mut count = 0_u64;
    for life in 0..6 {
        for _ in 0..if life == 0 { 360 } else { 43 } {
            count += 1;
            let data = Bytes::from(format!("{count:020}").repeat(1600).into_bytes());
            let write = Call::Write { node: node.clone(), offset: 0, stable: 2, data };
            assert_eq!(client.nfs(&write).await.unwrap().status, status::OK);
        }
        // An orderly stop frees segments; what comes after is written over the first lap.
        if life == 0 {
            service.stop().await.unwrap();
        } else {
            service.kill().await.unwrap();
        }
        service.start().await.unwrap_or_else(|e| panic!("life {life}: {e}"));
        let seen = client.nfs(&Call::Read { node: node.clone(), offset: 0, count: 20 }).await.unwrap();
        assert_eq!(seen.data, format!("{count:020}"), "life {life}: what was written last is not there");
    }
    let used_again = segments(&service.journal()).first().map(|path| path.file_name().unwrap().to_owned()).unwrap();
    assert_ne!(used_again, "segment-0000000000000000", "no segment was used again: the run is too short");
}

pub fn plant(service: &mut Service, bug: Bug) {
    if let Some(bug) = bug {
        service.env("TAIN_PLANTED", bug.to_string().as_ref());
    }
}
