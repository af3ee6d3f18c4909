//! Writes a journal of so many MiB, for benches of the tools: WRITEs of 64 KiB, and four small records beside each; with
//! `small` behind the size, nothing but small ones.

use journal_format::event::{Event, codec, samples};
use journal_format::ids::{Lsn, SegmentNo, Time};
use journal_format::record::{self, KIND_SEGMENT_END, RecordHeader};
use journal_format::segment::{BLOCK, SegmentHeader};
use std::io::Write;

const SIZE: u64 = 64 << 20;
const DATA: u32 = 64 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = std::path::PathBuf::from(args.next().ok_or("a directory")?);
    let mib: u64 = args.next().ok_or("MiB")?.parse()?;
    let small = args.next().as_deref() == Some("small");
    std::fs::create_dir_all(&dir)?;
    let mut archives = Vec::new();
    for (event, _) in samples::all() {
        let event = match event {
            Event::Write(_) if small => continue,
            Event::Write(write) => Event::Write(journal_format::event::Write { len: DATA, ..write }),
            event @ (Event::Make(_) | Event::Rename(_) | Event::SetAttr(_) | Event::Cursor(_)) => event,
            _ => continue,
        };
        let mut archive = Vec::new();
        codec::encode(&event, &mut archive)?;
        archives.push((event.row(), archive));
    }
    // Data that packs as files do: half of it.
    let noise = |at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes()[1];
    let bulk: Vec<u8> = (0..DATA).map(|at| if at % 2 == 0 { noise(at) } else { 7 }).collect();
    for number in 0..(mib << 20) / SIZE {
        let header =
            SegmentHeader { journal_id: [9; 16], number: SegmentNo(number), size: SIZE, salt: 5, created: Time(1) };
        let mut bytes = header.to_bytes();
        'full: loop {
            for (row, archive) in &archives {
                let bulk = if row.name == "Write" { bulk.as_slice() } else { &[] };
                let at = header.first_lsn().plus(bytes.len() as u64);
                let time = Time(1_700_000_000_000_000_000 + i64::try_from(at.0)?);
                let head = head(row, at, time, header.first_record());
                let whole = record::whole(head, archive, bulk, header.salt).ok_or("too long")?;
                if bytes.len() as u64 + whole.len() as u64 + BLOCK > SIZE {
                    break 'full;
                }
                bytes.extend_from_slice(&whole);
            }
        }
        let at = header.first_lsn().plus(bytes.len() as u64);
        let time = Time(1_700_000_000_000_000_000 + i64::try_from(at.0)?);
        bytes.extend(record::filler(KIND_SEGMENT_END, 48, at, time, header.first_record(), header.salt));
        bytes.resize(usize::try_from(SIZE)?, 0);
        std::fs::File::create(dir.join(format!("segment-{number:016x}")))?.write_all(&bytes)?;
    }
    Ok(())
}

fn head(row: &codec::Row, lsn: Lsn, time: Time, durable: Lsn) -> RecordHeader {
    let (kind, version) = (row.kind, row.version);
    RecordHeader { length: 0, kind, version, lsn, time, durable, flags: 0, archived_len: 0, bulk_len: 0, crc: 0 }
}
