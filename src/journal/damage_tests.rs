//! Every damage to a journal's files is refused with its place, or cuts nothing that was durable (C10).
#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use super::recover::examine;
use super::sim_tests::{DIR, SEGMENT, append, event, nodes, options, world};
use super::*;
use crate::env::simulated::SimDisk;
use journal_format::ids::{JunctionId, SegmentNo};
use journal_format::segment::{BadSegment, SegmentHeader};
use std::path::Path;

const PAGE: usize = 4096;

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(files::segment_name(SegmentNo(number)))
}

/// A journal that was stopped in order; its disk, the bytes of the segments that were used, the nodes written, and where
/// the last of them ends.
fn image(seed: u64, records: u64) -> (SimDisk, Vec<Vec<u8>>, Vec<u64>, Lsn) {
    let disk = SimDisk::new(seed);
    let (written, end) = world(seed, || async {
        let journal = Journal::open(options(&disk)).unwrap();
        let mut end = Lsn(0);
        for node in 0..records {
            end = append(&journal, node, &vec![(node % 251) as u8; 2900 + node as usize * 37]).await.unwrap().end;
        }
        journal.close().await.unwrap();
        ((0..records).collect(), end)
    });
    disk.kill();
    let used = end.0 / SEGMENT + 1;
    let bytes: Vec<Vec<u8>> = (0..used).map(|number| disk.contents(&path(number)).unwrap()).collect();
    assert!(end.0 > 100 << 10, "{end}");
    (disk, bytes, written, end)
}

/// What the scan says of these bytes: the end, or the place it refuses.
fn verdict(bytes: &[Vec<u8>]) -> std::result::Result<Lsn, Lsn> {
    let mut headers = Vec::new();
    for (number, bytes) in bytes.iter().enumerate() {
        match SegmentHeader::from_bytes(bytes) {
            Ok(header) if header.number.0 == number as u64 => headers.push(header),
            Ok(_) | Err(BadSegment::NotASegment | BadSegment::Checksum) => return Err(Lsn(number as u64 * SEGMENT)),
            Err(error) => panic!("{error}"),
        }
    }
    let look = |index: usize| Ok(&bytes[index]);
    match examine(&headers, None, look) {
        Ok(tail) => Ok(tail.lsn),
        Err(Error::Corrupt { segment, offset, lsn, .. }) => {
            assert_eq!(lsn.0, segment.0 * SEGMENT + offset);
            Err(lsn)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn each_flipped_byte_of_an_image_is_refused_with_its_place_or_cuts_nothing_durable() {
    let (_, bytes, _, end) = image(1, 24);
    let whole = verdict(&bytes).unwrap();
    assert!(whole >= end);
    let half = |odd: usize| {
        let (mut bytes, mut counts) = (bytes.clone(), (0u64, 0u64));
        for number in 0..bytes.len() {
            for at in (odd..bytes[number].len()).step_by(2) {
                let lsn = number as u64 * SEGMENT + at as u64;
                // Far behind the end two bytes in each block stand for all: they are one run of zeros.
                if lsn > end.0 + 4 * PAGE as u64 && at % PAGE > 1 {
                    continue;
                }
                for pattern in [0x01, 0xff] {
                    bytes[number][at] ^= pattern;
                    match verdict(&bytes) {
                        Ok(found) => {
                            assert!(found >= end, "byte {lsn} cut durable records: {found} < {end}");
                            counts.1 += 1;
                        }
                        Err(place) => {
                            assert!(place.0 <= lsn && lsn - place.0 < 8192, "byte {lsn}: refused at {place}");
                            counts.0 += 1;
                        }
                    }
                    bytes[number][at] ^= pattern;
                }
            }
        }
        assert_eq!(verdict(&bytes), Ok(whole));
        counts
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| half(1));
        (half(0), one.join().unwrap())
    });
    let (refused, harmless) = (one.0 + other.0, one.1 + other.1);
    println!("{} flips: {refused} refused with their place, {harmless} behind the durable end", refused + harmless);
    assert!(refused >= 2 * (end.0 - PAGE as u64), "{refused}");
}

/// Open a damaged copy: refused (the text), or all that was written is there and appending goes on.
fn open_damaged(disk: &SimDisk, seed: u64, written: &[u64], damage: impl FnOnce(&SimDisk)) -> Option<String> {
    let disk = disk.fork(seed);
    damage(&disk);
    let opened = world(seed, || async {
        let journal = match Journal::open(options(&disk)) {
            Ok(journal) => journal,
            Err(error) => return Some(error.to_string()),
        };
        assert_eq!(nodes(&journal), written);
        append(&journal, 99, &[99; 5000]).await.unwrap();
        None
    });
    if opened.is_none() {
        disk.cut_power();
        world(seed, || async {
            let journal = Journal::open(options(&disk)).unwrap();
            assert_eq!(nodes(&journal).last(), Some(&99));
        });
    }
    opened
}

#[test]
fn each_truncation_is_refused_by_name() {
    let (disk, bytes, written, _) = image(2, 34);
    let mut count = 0;
    world(2, || async {
        // Every length of one segment, and each block of the others.
        for number in 0..3u64 {
            let step = if number == 1 { 1 } else { PAGE };
            for length in (0..bytes[number as usize].len()).step_by(step) {
                disk.plant(&path(number), &bytes[number as usize][..length]);
                let error = Journal::open(options(&disk)).map(|_| ()).expect_err("a cut segment");
                let (named, number) = (error.to_string(), SegmentNo(number));
                assert!(named.contains(&files::segment_name(number)), "{length} bytes: {named}");
                count += 1;
            }
            disk.plant(&path(number), &bytes[number as usize]);
        }
    });
    println!("{count} truncations refused");
    assert!(count > 65_000);
    assert_eq!(open_damaged(&disk, 3, &written, |_| ()), None, "and whole again it opens");
}

#[test]
fn each_zeroed_sector_and_each_swap_of_two_pages_is_refused_or_cuts_nothing_durable() {
    let (_, bytes, _, end) = image(4, 34);
    let (mut sectors, mut swaps, mut refused) = (0u64, 0u64, 0u64);
    let mut judge = |damaged: &[Vec<u8>], what: &str| match verdict(damaged) {
        Ok(found) => assert!(found >= end, "{what} cut durable records: {found}"),
        Err(_) => refused += 1,
    };
    for number in 0..bytes.len() {
        for sector in (0..bytes[number].len()).step_by(512) {
            let mut damaged = bytes.clone();
            damaged[number][sector..sector + 512].fill(0);
            if damaged[number] == bytes[number] {
                continue;
            }
            judge(&damaged, &format!("sector {sector} of segment {number}"));
            sectors += 1;
        }
    }
    let pages = bytes.len() * (SEGMENT as usize / PAGE);
    let page = |n: usize| (n * PAGE / SEGMENT as usize, n * PAGE % SEGMENT as usize);
    for one in 0..pages {
        for other in one + 1..pages {
            let ((s1, a1), (s2, a2)) = (page(one), page(other));
            if bytes[s1][a1..a1 + PAGE] == bytes[s2][a2..a2 + PAGE] {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[s1][a1..a1 + PAGE].copy_from_slice(&bytes[s2][a2..a2 + PAGE]);
            damaged[s2][a2..a2 + PAGE].copy_from_slice(&bytes[s1][a1..a1 + PAGE]);
            judge(&damaged, &format!("pages {one} and {other}"));
            swaps += 1;
        }
    }
    println!("{sectors} zeroed sectors, {swaps} swapped pages: {refused} refused");
    assert!(sectors > 200 && swaps > 700 && refused > sectors / 2 + swaps / 2);
}

#[test]
fn segments_that_are_missing_doubled_renamed_foreign_or_of_an_earlier_lap_are_refused_by_name() {
    let (disk, bytes, written, _) = image(5, 34);
    let (_, foreign, ..) = image(6, 34);
    let refused = |what: &str, damage: &dyn Fn(&SimDisk)| {
        let error = open_damaged(&disk, 7, &written, damage).unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(error.contains(what), "wanted {what:?}, got {error:?}");
    };
    refused("no usable snapshot", &|disk| disk.uproot(&path(0)));
    refused("segment 1 is missing", &|disk| disk.uproot(&path(1)));
    for (at, holds) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        refused(&format!("holds segment {holds}"), &|disk| disk.plant(&path(at), &bytes[holds as usize]));
    }
    refused("segment 3 is missing", &|disk| {
        disk.uproot(&path(3));
        disk.plant(&path(4), &with_header(&bytes[2], |header| header.number = SegmentNo(4)));
    });
    for number in 0..3 {
        refused("belongs to another journal", &|disk| disk.plant(&path(number), &foreign[number as usize]));
    }
    refused("is not a name that tain gives", &|disk| {
        disk.plant(&Path::new(DIR).join("segment-0000000000000001.bak"), &bytes[1]);
    });
    // An earlier lap of the same file: the header is older, and so are all records (another salt).
    refused("segment 1, offset 4096", &|disk| {
        let older = with_header(&bytes[1], |header| header.salt ^= 1);
        disk.plant(&path(1), &older);
    });
    // A newer version of the format is named.
    refused("format version 9", &|disk| {
        let mut newer = bytes[2].clone();
        newer[8] = 9;
        let crc = crc32fast::hash(&newer[..PAGE - 4]);
        newer[PAGE - 4..PAGE].copy_from_slice(&crc.to_le_bytes());
        disk.plant(&path(2), &newer);
    });
}

fn with_header(bytes: &[u8], change: impl FnOnce(&mut SegmentHeader)) -> Vec<u8> {
    let mut header = SegmentHeader::from_bytes(bytes).unwrap();
    change(&mut header);
    let mut bytes = bytes.to_vec();
    bytes[..PAGE].copy_from_slice(&header.to_bytes());
    bytes
}

#[test]
fn a_sector_that_cannot_be_read_is_named_with_its_place() {
    use crate::env::simulated::Faults;
    let (disk, _, written, _) = image(8, 34);
    for at in [0, 4096, 20_480, 61_440] {
        let error = open_damaged(&disk, 8, &written, |disk| {
            disk.set_faults(Faults { read_fails: vec![(path(1), at..at + 512)], ..Faults::default() });
        });
        let error = error.expect("an unreadable sector was not noticed");
        assert!(error.contains("segment-0000000000000001"), "{error}");
        assert!(at == 0 || error.contains(&format!("offset {at} (LSN {})", SEGMENT + at)), "{error}");
    }
}

/// Read through its mapping it would be a SIGBUS, at each start.
#[test]
fn a_sector_of_a_side_that_cannot_be_read_is_named() {
    use crate::env::simulated::Faults;
    let disk = SimDisk::new(10);
    world(10, || async {
        let journal = Journal::open(options(&disk)).unwrap();
        for node in 0..4 {
            append(&journal, node, &[7; 5000]).await.unwrap();
        }
        journal.set_aside(JunctionId(7), Lsn(4096), journal.durable_lsn(), &|_| true).unwrap();
        journal.close().await.unwrap();
    });
    disk.kill();
    let name = files::side_name(JunctionId(7), Lsn(4096));
    disk.set_faults(Faults { read_fails: vec![(Path::new(DIR).join(&name), 8192..8704)], ..Faults::default() });
    world(10, || async {
        let refused = Journal::open(options(&disk)).map(drop).unwrap_err().to_string();
        assert!(refused.contains(&name), "{refused}");
    });
    assert_eq!(disk.fired().reads_failed, 1);
}

#[test]
fn a_power_cut_while_a_side_goes_leaves_a_side_that_begins_where_it_did() {
    use crate::env::simulated::Faults;
    let mut left = 0;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        world(seed, || async {
            let journal = Journal::open(options(&disk)).unwrap();
            for node in 0..8 {
                append(&journal, node, &vec![(node % 251) as u8; 40_000]).await.unwrap();
            }
            journal.set_aside(JunctionId(7), Lsn(4096), journal.durable_lsn(), &|_| true).unwrap();
            assert!(journal.dir_names().iter().filter(|name| name.starts_with("side-")).count() >= 3);
            disk.set_faults(Faults { power_goes_at: Some(1 + seed % 8), ..Faults::default() });
            let _ = journal.drop_side(JunctionId(7));
        });
        disk.cut_power();
        disk.set_faults(Faults::default());
        world(seed, || async {
            let journal = Journal::open(options(&disk)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            if let Some(start) = journal.side_start(JunctionId(7)) {
                assert_eq!(start, Lsn(4096), "seed {seed}");
                left += 1;
            }
        });
    }
    assert!(left > 20, "{left} had anything left");
}

#[test]
fn an_unreadable_newest_snapshot_falls_back_to_the_one_before() {
    use crate::env::simulated::Faults;
    let disk = SimDisk::new(9);
    let lsns = world(9, || async {
        let journal = Journal::open(options(&disk)).unwrap();
        let mut lsns = Vec::new();
        for node in 0..2 {
            append(&journal, node, b"").await.unwrap();
            journal.write_snapshot(journal.durable_lsn(), &[node as u8]).unwrap();
            lsns.push(journal.durable_lsn());
        }
        lsns
    });
    disk.kill();
    let newest = Path::new(DIR).join(files::snapshot_name(lsns[1]));
    disk.set_faults(Faults { read_fails: vec![(newest, 0..4096)], ..Faults::default() });
    world(9, || async {
        let journal = Journal::open(options(&disk)).unwrap();
        assert_eq!(journal.snapshot().unwrap(), Some((lsns[0], vec![0])));
    });
    assert!(disk.fired().reads_failed >= 2);
}

#[test]
fn a_journal_that_loses_power_in_recovery_again_and_again_comes_back_with_all_that_was_durable() {
    use crate::env::simulated::Faults;
    let (mut nested, mut states) = (0, 0);
    for seed in 1..=40u64 {
        // Power goes in the middle of the appends.
        let disk = SimDisk::new(seed);
        let answered = world(seed, || async {
            let journal = Journal::open(options(&disk)).unwrap();
            disk.set_faults(Faults { power_goes_at: Some(11 + seed), ..Faults::default() });
            let mut answered = 0;
            while append(&journal, answered, &vec![(answered % 251) as u8; 6000]).await.is_ok() {
                // A batch of several: what follows is not waited for.
                let more = vec![((answered + 1) % 251) as u8; 3000];
                let _ = journal.append_with(&event(answered + 1, &more), &more, |_| ()).await;
                answered += 2;
            }
            answered
        });
        disk.cut_power();
        // Then at each change of the recovery, three deep.
        for at in 1..=6 {
            let disk = disk.fork(seed * 100 + at);
            for depth in 0..3 {
                disk.set_faults(Faults { power_goes_at: Some(at + depth), ..Faults::default() });
                let failed = world(seed, || async { Journal::open(options(&disk)).is_err() });
                nested += u64::from(failed);
                disk.cut_power();
            }
            disk.set_faults(Faults::default());
            world(seed, || async {
                let journal =
                    Journal::open(options(&disk)).unwrap_or_else(|error| panic!("seed {seed}, {at}: {error}"));
                let found = nodes(&journal);
                let durable = answered.max(1) - 1;
                assert!(found.len() as u64 >= durable && found.iter().copied().eq(0..found.len() as u64), "{found:?}");
            });
            states += 1;
        }
    }
    println!("{states} states, {nested} recoveries cut short");
    assert!(nested > 300, "{nested}");
}
