//! What the fuzz targets do with their bytes: plain functions, which ordinary tests also run, over what the targets begin
//! with and over what was found and kept (`fuzz/seeds`), so that they cannot rot unseen. The fuzzer itself is the crate in
//! `fuzz/`, outside the workspace.
//!
//! A body panics when something that must hold does not; whatever bytes it gets it ends soon, and takes little memory.

mod fold;
mod format;
mod text;
mod wire;

use journal_format::event::{Event, codec, samples};

/// A fuzz target.
pub struct Target {
    pub name: &'static str,
    pub body: fn(&[u8]),
    /// What it begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: &[Target] = &[
    Target { name: "record", body: format::record, seeds: format::record_seeds },
    Target { name: "segment", body: format::segment, seeds: format::segment_seeds },
    Target { name: "snapshot", body: format::snapshot, seeds: format::snapshot_seeds },
    Target { name: "codec", body: format::codec, seeds: format::codec_seeds },
    Target { name: "archive", body: format::archive, seeds: format::archive_seeds },
    Target { name: "fold", body: fold::state, seeds: script_seeds },
    Target { name: "index", body: fold::index, seeds: script_seeds },
    Target { name: "rpc", body: wire::rpc, seeds: wire::rpc_seeds },
    Target { name: "nfs", body: wire::nfs, seeds: wire::nfs_seeds },
    Target { name: "mount", body: wire::mount, seeds: wire::mount_seeds },
    Target { name: "locks", body: wire::locks, seeds: wire::locks_seeds },
    Target { name: "handle", body: wire::handle, seeds: wire::handle_seeds },
    Target { name: "config", body: text::config, seeds: text::config_seeds },
    Target { name: "api", body: text::api, seeds: text::api_seeds },
];

/// Longest event in a script, and most of them.
const SCRIPT_EVENT_MAX: usize = 4096;
const SCRIPT_EVENTS: usize = 64;

/// Events from bytes: for each the place in the table of kinds, the length of its archive, the archive. What is no event
/// is passed over.
fn script(bytes: &[u8]) -> Vec<Event> {
    let (mut events, mut rest) = (Vec::new(), bytes);
    while let Some(([kind, low, high], tail)) = rest.split_first_chunk::<3>()
        && events.len() < SCRIPT_EVENTS
    {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(SCRIPT_EVENT_MAX).min(tail.len());
        let (archive, tail) = tail.split_at(len);
        rest = tail;
        let row = codec::KINDS[usize::from(*kind) % codec::KINDS.len()];
        if let Ok(event) = codec::decode(row.kind, row.version, archive) {
            events.push(event);
        }
    }
    events
}

fn script_of(events: &[Event]) -> Vec<u8> {
    let (mut out, mut archive) = (Vec::new(), Vec::new());
    for event in events {
        let place = codec::KINDS.iter().position(|row| *row == event.row());
        let (Some(place), Ok(())) = (place.and_then(|p| u8::try_from(p).ok()), codec::encode(event, &mut archive))
        else {
            continue;
        };
        let Ok(len) = u16::try_from(archive.len()) else { continue };
        out.push(place);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&archive);
    }
    out
}

/// Each event alone, and all in the order in which a journal has them.
fn script_seeds() -> Vec<Vec<u8>> {
    let all: Vec<Event> = samples::all().into_iter().map(|(event, _)| event).collect();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|event| script_of(std::slice::from_ref(event))).collect();
    let order = |event: &Event| match event {
        Event::JournalCreated(_) => 0,
        Event::JunctionAdded(_) => 2,
        Event::Adopt(_) => 3,
        Event::Make(_) => 4,
        Event::JobCreated(_) => 5,
        Event::FilerAdded(_) | Event::PolicySet(_) => 1,
        Event::FilerRemoved(_) | Event::JunctionRemoved(_) => 9,
        Event::PolicyRemoved(_) | Event::HostForgotten(_) => 10,
        _ => 6,
    };
    let mut ordered = all;
    ordered.sort_by_key(order);
    seeds.push(script_of(&ordered));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_target_takes_what_it_begins_with_and_each_cut_of_it() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            for seed in seeds {
                (target.body)(&seed);
                for cut in (0..seed.len()).step_by(seed.len() / 16 + 1) {
                    (target.body)(&seed[..cut]);
                }
            }
            (target.body)(&[]);
        }
    }

    #[test]
    fn every_target_takes_every_saved_input() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let mut seen = 0;
        for target in std::fs::read_dir(&dir).unwrap() {
            let target = target.unwrap();
            let name = target.file_name().into_string().unwrap();
            let Some(body) = TARGETS.iter().find(|target| target.name == name).map(|target| target.body) else {
                panic!("fuzz/seeds/{name}: there is no such target");
            };
            for input in std::fs::read_dir(target.path()).unwrap() {
                let path = input.unwrap().path();
                println!("{}", path.display());
                body(&std::fs::read(path).unwrap());
                seen += 1;
            }
        }
        assert!(seen > 0, "the saved inputs were not found");
    }

    #[test]
    fn a_script_gives_back_its_events() {
        let events: Vec<Event> = samples::all().into_iter().map(|(event, _)| event).take(SCRIPT_EVENTS).collect();
        assert_eq!(script(&script_of(&events)), events);
    }
}
