//! The simulated disk loses what it says and nothing else, and a world is where its thread is.

use super::disk::{Disk, Lock, Open};
use super::simulated::{Faults, Nth, SimDisk};
use super::{World, aside, enter, is_simulated, random, wall_nanos};
use std::path::Path;
use std::rc::Rc;

const FILE: &str = "/j/file";

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.make_dir(Path::new("/j")).unwrap();
    let file = disk.open(Path::new(FILE), Open::Create).unwrap();
    file.write_at(&[1; 64 << 10], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/j")).unwrap();
    disk
}

#[test]
fn a_power_cut_loses_any_subset_of_what_was_not_flushed_and_nothing_else() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..64 {
        let disk = disk(seed);
        let file = disk.open(Path::new(FILE), Open::Write).unwrap();
        file.write_at(&[2; 16 << 10], 0).unwrap();
        file.sync_data().unwrap();
        file.write_at(&[3; 16 << 10], 32 << 10).unwrap();
        disk.cut_power();
        assert!(file.write_at(b"x", 0).is_err(), "handles of before are dead");
        let bytes = disk.contents(Path::new(FILE)).unwrap();
        assert!(bytes[..16 << 10].iter().all(|b| *b == 2), "what was flushed stays");
        assert!(bytes[16 << 10..32 << 10].iter().chain(&bytes[48 << 10..]).all(|b| *b == 1));
        for piece in bytes[32 << 10..48 << 10].chunks(4096) {
            match (piece.iter().all(|b| *b == 1), piece.iter().all(|b| *b == 3)) {
                (true, _) => lost += 1,
                (_, true) => kept += 1,
                _ => torn += 1,
            }
            assert!(piece.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0] && (*b == 1 || *b == 3))));
        }
    }
    assert!(lost > 20 && kept > 20 && torn > 5, "{lost} lost, {kept} kept, {torn} torn");
}

/// Clients' bytes lie in them.
#[test]
fn what_the_service_makes_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, disk) = (tempfile::tempdir().unwrap(), super::RealDisk);
    let made = dir.path().join("a/b");
    disk.make_dir(&made).unwrap();
    disk.open(&made.join("segment"), Open::Create).unwrap();
    drop(disk.lock(&made.join("lock")).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!([made.parent().unwrap(), &made].map(mode), [0o700; 2]);
    assert_eq!([made.join("segment"), made.join("lock")].map(|path| mode(&path)), [0o600; 2]);
}

#[test]
fn a_failed_flush_is_followed_by_one_that_succeeds_over_lost_bytes() {
    let disk = disk(7);
    disk.set_faults(Faults { flush_fails: Some(Nth::Once(1)), ..Faults::default() });
    let file = disk.open(Path::new(FILE), Open::Write).unwrap();
    file.write_at(&[2; 4096], 0).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.contents(Path::new(FILE)).unwrap()[0], 2, "it is shown as if it were there");
    disk.cut_power();
    assert_eq!(disk.contents(Path::new(FILE)).unwrap()[0], 1);
    assert_eq!(disk.fired().flushes_failed, 1);
}

#[test]
fn names_are_durable_with_their_directory_only() {
    let mut lost = 0;
    for seed in 0..32 {
        let disk = disk(seed);
        disk.rename(Path::new(FILE), Path::new("/j/other")).unwrap();
        let synced = seed % 2 == 0;
        if synced {
            disk.sync_dir(Path::new("/j")).unwrap();
        }
        disk.cut_power();
        let names = disk.list(Path::new("/j")).unwrap();
        assert_eq!(names.len(), 1, "one or the other: {names:?}");
        assert!(!synced || names == ["other"]);
        lost += u64::from(names == ["file"]);
    }
    assert!(lost > 0 && lost < 16, "{lost}");
}

#[test]
fn the_power_goes_at_the_change_that_was_asked_for_and_not_again_after() {
    let disk = disk(1);
    disk.set_faults(Faults { power_goes_at: Some(2), ..Faults::default() });
    let file = disk.open(Path::new(FILE), Open::Write).unwrap();
    file.write_at(&[2; 4096], 0).unwrap();
    assert!(file.sync_data().is_err() && disk.is_off());
    assert!(disk.list(Path::new("/j")).is_err());
    disk.cut_power();
    let file = disk.open(Path::new(FILE), Open::Write).unwrap();
    for _ in 0..3 {
        file.write_at(&[2; 4096], 0).unwrap();
        file.sync_data().unwrap();
    }
}

#[test]
fn a_lock_is_held_by_one_and_dies_with_its_process() {
    let disk = disk(1);
    let held = disk.lock(Path::new("/j/lock")).unwrap();
    assert!(matches!(disk.lock(Path::new("/j/lock")).unwrap(), Lock::Other { .. }));
    disk.kill();
    let again = disk.lock(Path::new("/j/lock")).unwrap();
    drop(held);
    assert!(matches!(disk.lock(Path::new("/j/lock")).unwrap(), Lock::Other { .. }), "an old lock's end frees nothing");
    drop(again);
    assert!(matches!(disk.lock(Path::new("/j/lock")).unwrap(), Lock::Held(_)));
}

struct Still;

impl World for Still {
    fn wall_nanos(&self) -> i64 {
        17
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(5);
    }
}

#[test]
fn in_a_world_time_and_chance_are_its_own_and_work_stays_on_its_thread() {
    assert!(!is_simulated() && wall_nanos() > 1 << 60);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    {
        let _entered = enter(Rc::new(Still));
        assert_eq!((wall_nanos(), random().unwrap()), (17, [5; 4]));
        let here = std::thread::current().id();
        assert_eq!(runtime.block_on(aside(|| std::thread::current().id())).unwrap(), here);
    }
    assert!(!is_simulated());
    assert_ne!(runtime.block_on(aside(|| std::thread::current().id())).unwrap(), std::thread::current().id());
}
