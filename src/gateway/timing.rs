//! How long calls take, by procedure of each program that is served; and a line in the log for those that take very long.
//!
//! A call's time begins when it is run and ends when its reply is made: waiting for a slot, and for the client to take
//! the reply, are not in it. A lock that is waited for is not either: its call is answered at once. **Bounds**: a fixed table; of slow calls one line a second, which counts the others.

use super::outgoing::Procedure;
use crate::wire::{mount, nfs3, nlm4, nsm};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What counts as slow.
pub const SLOW_FROM: Duration = Duration::from_secs(1);
/// Between two lines of the log.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// Buckets to a doubling: a bucket's bounds are 19 % apart.
const STEPS: u32 = 4;
/// Doublings of a microsecond: the last bucket takes all from 67 seconds on.
const DOUBLINGS: u32 = 26;
const BUCKETS: usize = (STEPS * DOUBLINGS) as usize + 1;

/// A program's procedures, by number; those without a name are none of its.
struct Program {
    number: u32,
    version: u32,
    procedures: &'static [&'static str],
}

/// All that is served.
static PROGRAMS: [Program; 4] = [
    Program {
        number: nfs3::PROGRAM,
        version: nfs3::VERSION,
        procedures: &[
            "NULL",
            "GETATTR",
            "SETATTR",
            "LOOKUP",
            "ACCESS",
            "READLINK",
            "READ",
            "WRITE",
            "CREATE",
            "MKDIR",
            "SYMLINK",
            "MKNOD",
            "REMOVE",
            "RMDIR",
            "RENAME",
            "LINK",
            "READDIR",
            "READDIRPLUS",
            "FSSTAT",
            "FSINFO",
            "PATHCONF",
            "COMMIT",
        ],
    },
    Program {
        number: mount::PROGRAM,
        version: mount::VERSION,
        procedures: &["MOUNT NULL", "MOUNT MNT", "MOUNT DUMP", "MOUNT UMNT", "MOUNT UMNTALL", "MOUNT EXPORT"],
    },
    Program {
        number: nlm4::PROGRAM,
        version: nlm4::VERSION,
        procedures: &[
            "NLM NULL",
            "NLM TEST",
            "NLM LOCK",
            "NLM CANCEL",
            "NLM UNLOCK",
            "NLM GRANTED",
            "NLM TEST_MSG",
            "NLM LOCK_MSG",
            "NLM CANCEL_MSG",
            "NLM UNLOCK_MSG",
            "NLM GRANTED_MSG",
            "NLM TEST_RES",
            "NLM LOCK_RES",
            "NLM CANCEL_RES",
            "NLM UNLOCK_RES",
            "NLM GRANTED_RES",
            "",
            "",
            "",
            "",
            "NLM SHARE",
            "NLM UNSHARE",
            "NLM NM_LOCK",
            "NLM FREE_ALL",
        ],
    },
    Program {
        number: nsm::PROGRAM,
        version: nsm::VERSION,
        procedures: &["NSM NULL", "", "", "", "", "", "NSM NOTIFY"],
    },
];

/// Times of one procedure's calls.
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// Microseconds.
    longest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), longest: AtomicU64::new(0) }
    }
}

/// The bucket of a time: `STEPS` to each doubling, all alike in it.
fn bucket(us: u64) -> usize {
    let doubling = us.max(1).ilog2();
    if doubling >= DOUBLINGS {
        return BUCKETS - 1;
    }
    let base = 1_u64 << doubling;
    let step = (us.max(1) - base) * u64::from(STEPS) / base;
    (doubling * STEPS) as usize + usize::try_from(step).unwrap_or(0)
}

/// Where a bucket ends, microseconds.
fn end_of(bucket: usize) -> u64 {
    let (doubling, step) = (bucket / STEPS as usize, (bucket % STEPS as usize) as u64 + 1);
    let base = 1_u64 << doubling;
    base + (base * step).div_ceil(u64::from(STEPS))
}

/// What is told of a procedure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub name: &'static str,
    pub calls: u64,
    /// Half of the calls took no longer, microseconds; a bucket's end, as the next one.
    pub median_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    pub longest_us: u64,
}

impl Histogram {
    fn observe(&self, us: u64) {
        if let Some(bucket) = self.buckets.get(bucket(us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.longest.fetch_max(us, Ordering::Relaxed);
    }

    fn figures(&self, name: &'static str) -> Figures {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let (calls, longest_us) = (counts.iter().sum::<u64>(), self.longest.load(Ordering::Relaxed));
        let below = |percent: u64| {
            let due = (calls * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= due
            });
            found.map_or(longest_us, |bucket| end_of(bucket).min(longest_us))
        };
        Figures { name, calls, median_us: below(50), p99_us: below(99), longest_us }
    }
}

/// Of all procedures.
pub struct Timing {
    /// As in [`PROGRAMS`].
    programs: [Box<[Histogram]>; PROGRAMS.len()],
    slow: Mutex<SlowLog>,
}

impl Default for Timing {
    fn default() -> Self {
        let of = |program: &Program| program.procedures.iter().map(|_| Histogram::default()).collect();
        Self { programs: PROGRAMS.each_ref().map(of), slow: Mutex::default() }
    }
}

#[derive(Default)]
struct SlowLog {
    said: Option<Instant>,
    unsaid: u64,
}

impl Timing {
    /// A call has been answered. What is not served is not counted.
    pub(super) fn observe(&self, peer: SocketAddr, of: Procedure, took: Duration) {
        let mut programs = PROGRAMS.iter().zip(&self.programs);
        let served = |program: &Program| (program.number, program.version) == (of.program, of.version);
        let Some((program, histograms)) = programs.find(|(program, _)| served(program)) else { return };
        let at = usize::try_from(of.number).unwrap_or(usize::MAX);
        let (Some(name), Some(histogram)) = (program.procedures.get(at), histograms.get(at)) else { return };
        if name.is_empty() {
            return;
        }
        histogram.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if took >= SLOW_FROM
            && let Some(unsaid) = self.slow.lock().may_say()
        {
            tracing::warn!(%peer, ?took, unsaid, "a slow {name}");
        }
    }

    /// Of every procedure that was called.
    #[must_use]
    pub fn figures(&self) -> Vec<Figures> {
        let all = PROGRAMS.iter().zip(&self.programs).flat_map(|(program, histograms)| {
            program.procedures.iter().zip(histograms).map(|(name, histogram)| histogram.figures(name))
        });
        all.filter(|figures| figures.calls > 0).collect()
    }
}

impl SlowLog {
    /// How many were not said since the last line, if it is time for one.
    fn may_say(&mut self) -> Option<u64> {
        if self.said.is_some_and(|said| said.elapsed() < SLOW_PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        "127.0.0.1:700".parse().unwrap()
    }

    fn nfs(number: u32) -> Procedure {
        Procedure { program: nfs3::PROGRAM, version: nfs3::VERSION, number }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for us in (0..10_000).chain([1 << 20, (1 << 26) - 1]) {
            let at = bucket(us);
            assert!(us < end_of(at) || us < 2, "{us} in {at}, which ends at {}", end_of(at));
            assert!(at == 0 || us >= end_of(at - 1) || us < 8, "{us} in {at}, behind {}", end_of(at - 1));
        }
        assert_eq!(bucket(1 << 26), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn figures_are_within_a_bucket_of_the_truth() {
        let timing = Timing::default();
        for us in 1..=1000 {
            timing.observe(peer(), nfs(7), Duration::from_micros(us));
        }
        let [write] = &timing.figures()[..] else { panic!("{:?}", timing.figures()) };
        assert_eq!((write.name, write.calls, write.longest_us), ("WRITE", 1000, 1000));
        assert!((500..=640).contains(&write.median_us), "{write:?}");
        assert!((990..=1000).contains(&write.p99_us), "{write:?}");
    }

    #[test]
    fn each_procedure_that_is_served_is_counted_under_a_name_of_its_own_and_nothing_else_is() {
        let timing = Timing::default();
        for program in [nfs3::PROGRAM, mount::PROGRAM, nlm4::PROGRAM, nsm::PROGRAM, 100_000] {
            for version in 0..6 {
                for number in (0..30).chain([u32::MAX]) {
                    timing.observe(peer(), Procedure { program, version, number }, Duration::from_micros(1));
                }
            }
        }
        let nothing = || crate::wire::xdr::Reader::new(bytes::Bytes::new());
        let served = |there: &dyn Fn(u32) -> bool| (0..30).filter(|number| there(*number)).count();
        let served = served(&|number| nfs3::Args::decode(number, &mut nothing()).is_some())
            + served(&|number| mount::Args::decode(number, &mut nothing()).is_some())
            + served(&|number| nlm4::Args::decode(number, &mut nothing()).is_some())
            + served(&|number| nsm::Args::decode(number, &mut nothing()).is_some());
        let figures = timing.figures();
        assert!(figures.iter().all(|figures| figures.calls == 1), "{figures:?}");
        let names: std::collections::BTreeSet<_> = figures.iter().map(|figures| figures.name).collect();
        assert_eq!((figures.len(), names.len()), (served, served), "{names:?}");
    }

    #[test]
    fn a_slow_call_for_a_lock_is_told() {
        let timing = Timing::default();
        let lock = Procedure { program: nlm4::PROGRAM, version: nlm4::VERSION, number: nlm4::procedure::LOCK };
        timing.observe(peer(), lock, SLOW_FROM / 2);
        assert!(timing.slow.lock().said.is_none());
        timing.observe(peer(), lock, SLOW_FROM);
        assert!(timing.slow.lock().said.is_some());
        assert_eq!((timing.figures()[0].name, timing.figures()[0].longest_us), ("NLM LOCK", 1_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn of_slow_calls_one_a_second_is_told_and_the_others_are_counted() {
        let mut log = SlowLog::default();
        assert_eq!(log.may_say(), Some(0));
        assert_eq!((log.may_say(), log.may_say()), (None, None));
        tokio::time::advance(SLOW_PAUSE).await;
        assert_eq!(log.may_say(), Some(2));
        tokio::time::advance(SLOW_PAUSE).await;
        assert_eq!(log.may_say(), Some(0));
    }
}
