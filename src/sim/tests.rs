//! A handful of worlds in the ordinary tests; the many are `tests/simulation`.

use super::run;

#[test]
fn a_handful_of_worlds_end_well_and_the_same_seed_gives_the_same_digest() {
    for seed in [3, 6, 10] {
        let outcome = run(seed);
        assert!(outcome.wrong.is_empty(), "seed {seed}: {:#?}", outcome.wrong);
        assert!(outcome.records > 20, "seed {seed} did next to nothing");
        assert_eq!(outcome.digest, run(seed).digest, "seed {seed}: two runs differ");
    }
}
