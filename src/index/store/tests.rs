#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::collections::BTreeMap;

/// xorshift64*: seeded, so that a failure can be run again.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

const CACHE: usize = 4 << 20;

fn key(dice: &mut Dice) -> Key {
    let prefix = [b"a".as_slice(), b"ab", b"b", b"\xff", b"\xff\xff"][usize::try_from(dice.below(5)).unwrap()];
    [prefix, &dice.below(60).to_be_bytes()[6..]].concat()
}

fn all(store: &Store) -> BTreeMap<Key, Vec<u8>> {
    store.scan(b"", None, usize::MAX).unwrap().into_iter().collect()
}

fn scan_model(
    model: &BTreeMap<Key, Vec<u8>>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Vec<(Key, Vec<u8>)> {
    let wanted = |key: &[u8]| key.starts_with(prefix) && after.is_none_or(|after| key > after);
    model.iter().filter(|(key, _)| wanted(key)).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn compare(store: &Store, model: &BTreeMap<Key, Vec<u8>>, dice: &mut Dice) {
    for _ in 0..8 {
        let probe = key(dice);
        assert_eq!(store.get(&probe).unwrap().as_ref(), model.get(&probe));
        let prefix = [b"".as_slice(), b"a", b"ab", b"b", b"c", b"\xff"][usize::try_from(dice.below(6)).unwrap()];
        let after = (dice.below(2) == 0).then(|| key(dice));
        let limit = usize::try_from(dice.below(40)).unwrap();
        let expected = scan_model(model, prefix, after.as_deref(), limit);
        assert_eq!(store.scan(prefix, after.as_deref(), limit).unwrap(), expected, "{prefix:?} {after:?} {limit}");
    }
    assert_eq!(&all(store), model);
}

#[test]
fn a_store_behaves_as_a_map_through_writes_commits_spills_and_crashes() {
    for seed in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().join("store0");
        let mut dice = Dice(seed);
        let mut store = Store::open(&path, CACHE).unwrap();
        let (mut now, mut committed, mut lsn) = (BTreeMap::new(), BTreeMap::new(), Lsn(0));
        for step in 1..250 {
            match dice.below(20) {
                0 => store.spill().unwrap(),
                1 => {
                    lsn = Lsn(step);
                    store.commit(lsn).unwrap();
                    committed = now.clone();
                }
                // What is in the file now is what a killed process leaves behind.
                2 => {
                    path = dir.path().join(format!("store{step}"));
                    std::fs::copy(store.inner.path.clone(), &path).unwrap();
                    store = Store::open(&path, CACHE).unwrap();
                    now = committed.clone();
                }
                _ => {
                    let changes: Vec<Change> = (0..dice.below(12))
                        .map(|_| {
                            let value = dice.below(3) > 0;
                            (key(&mut dice), value.then(|| dice.below(1 << 30).to_be_bytes().to_vec()))
                        })
                        .collect();
                    for (key, slot) in &changes {
                        match slot {
                            Some(value) => now.insert(key.clone(), value.clone()),
                            None => now.remove(key),
                        };
                    }
                    store.write(changes);
                }
            }
            assert_eq!(store.lsn(), lsn);
            compare(&store, &now, &mut dice);
        }
    }
}

#[test]
fn a_scan_finds_what_stands_behind_thousands_of_fresh_removals() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), CACHE).unwrap();
    let key = |n: u32| n.to_be_bytes().to_vec();
    store.write((0..3000).map(|n| (key(n), Some(vec![1]))).collect());
    store.spill().unwrap();
    store.write((0..2990).map(|n| (key(n), None)).collect());
    let found: Vec<Key> = store.scan(b"", None, 5).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, (2990..2995).map(key).collect::<Vec<_>>());
}

#[test]
fn the_overlay_is_spilled_by_itself_and_stays_below_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), CACHE).unwrap();
    let write = |n: u32| store.write(vec![(n.to_be_bytes().to_vec(), Some(vec![0; 1 << 20]))]);
    write(0);
    // As accounted, the entry's own bytes included: what flushes passes twice the bound by less than this, and what is
    // written meanwhile passes it once by less than this.
    let one = store.overlay_bytes();
    let mut highest = 0;
    for n in 1..56_u32 {
        write(n);
        highest = highest.max(store.overlay_bytes());
    }
    // 56 MiB were written: that they are not in memory is what shows that they were spilled.
    assert!(highest <= 3 * OVERLAY_BYTES_MAX + 2 * one, "{highest}");
    assert_eq!(all(&store).len(), 56);
    assert_eq!(store.lsn(), Lsn(0));
}

#[test]
fn writers_go_on_while_a_commit_runs_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), CACHE).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3_u32 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..400_u32 {
                    let key = [thread.to_be_bytes(), n.to_be_bytes()].concat();
                    store.write(vec![(key.clone(), Some(vec![7]))]);
                    assert_eq!(store.get(&key).unwrap(), Some(vec![7]));
                    assert_eq!(store.scan(&key, None, 1).unwrap().len(), 1);
                }
            });
        }
        for n in 1..20 {
            store.commit(Lsn(n)).unwrap();
        }
    });
    assert_eq!(all(&store).len(), 1200);
}

#[test]
fn rollback_drops_what_was_written_since_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = Store::open_exact(&path, CACHE).unwrap();
    store.write(vec![(b"a".to_vec(), Some(vec![1])), (b"b".to_vec(), Some(vec![1]))]);
    store.commit(Lsn(5)).unwrap();
    store.write(vec![(b"a".to_vec(), None), (b"b".to_vec(), Some(vec![2])), (b"c".to_vec(), Some(vec![3]))]);
    assert!(store.spill().is_err(), "an exact store would be ahead of its LSN");
    store.rollback().unwrap();
    let kept = BTreeMap::from([(b"a".to_vec(), vec![1]), (b"b".to_vec(), vec![1])]);
    assert_eq!((all(&store), store.overlay_bytes()), (kept.clone(), 0));
    store.write(vec![(b"d".to_vec(), Some(vec![4]))]);
    drop(store);
    let store = Store::open_exact(&path, CACHE).unwrap();
    assert_eq!((all(&store), store.lsn()), (kept, Lsn(5)), "an orderly close is no commit");
}

#[test]
fn an_exact_store_is_not_spilled_by_writes_past_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_exact(&dir.path().join("s"), CACHE).unwrap();
    for n in 0..36_u8 {
        store.write(vec![(vec![n], Some(vec![0; 1 << 20]))]);
    }
    assert!(store.overlay_bytes() > 2 * OVERLAY_BYTES_MAX);
    store.rollback().unwrap();
    assert!(all(&store).is_empty());
}

#[test]
fn what_was_spilled_cannot_be_rolled_back_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), CACHE).unwrap();
    store.write(vec![(b"a".to_vec(), Some(vec![1]))]);
    store.spill().unwrap();
    assert!(store.rollback().is_err());
    store.commit(Lsn(9)).unwrap();
    store.write(vec![(b"a".to_vec(), Some(vec![2]))]);
    store.rollback().unwrap();
    assert_eq!(store.get(b"a").unwrap(), Some(vec![1]));
}

const CHILD: &str = "TAIN_TEST_STORE_CHILD";

/// Half of the test below: the process that dies. Does nothing when run as a test.
#[test]
fn child_that_aborts_with_changes_spilled_and_waiting() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&path), CACHE).unwrap();
    store.write((0..500_u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![1]))).collect());
    store.commit(Lsn(77)).unwrap();
    store.write((0..900_u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![2; 3000]))).collect());
    store.spill().unwrap();
    store.write(vec![(vec![9], Some(vec![9]))]);
    std::process::abort();
}

#[test]
fn after_a_kill_the_store_is_as_the_last_commit_left_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "index::store::tests::child_that_aborts_with_changes_spilled_and_waiting"])
        .env(CHILD, &path)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!child.success());
    let store = Store::open(&path, CACHE).unwrap();
    let expected = (0..500_u32).map(|n| (n.to_be_bytes().to_vec(), vec![1])).collect();
    assert_eq!((store.lsn(), all(&store)), (Lsn(77), expected));
}

#[test]
fn a_file_that_is_no_store_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("garbage");
    std::fs::write(&path, vec![0x5a; 100_000]).unwrap();
    assert!(Store::open(&path, CACHE).is_err());

    let path = dir.path().join("newer");
    drop(Store::open(&path, CACHE).unwrap());
    let db = Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(META_FORMAT, FORMAT + 1).unwrap();
    txn.commit().unwrap();
    drop(db);
    assert!(matches!(Store::open(&path, CACHE), Err(Error::Corrupt { .. })));
}

#[test]
fn a_dead_store_answers_every_call_with_the_error_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), CACHE).unwrap();
    store.inner.dead.set("no space".into()).unwrap();
    store.write(vec![(b"a".to_vec(), Some(vec![1]))]);
    assert_eq!(store.overlay_bytes(), 0);
    assert!(store.get(b"a").is_err() && store.scan(b"", None, 1).is_err() && store.rollback().is_err());
    assert!(store.commit(Lsn(1)).unwrap_err().to_string().contains("no space"));
    assert!(store.update(|| Ok(vec![])).is_err());
}
