//! Seeds that have found something, and what. `TAIN_SEEDS` runs them before all others. A seed comes to mean another
//! world when the core or the simulation changes, so what it found is said here in words.

/// Seed, what it found; mended.
pub const FOUND: &[(u64, &str)] = &[
    (4, "a switch gave the junction's root the destination's owner and mode"),
    (2, "the same"),
    (24, "redo that recognised a file whose creation was not `Made` yet did not give it the size it was created with"),
    (50, "the same"),
    (22, "the same, among others"),
    (
        1,
        "a power cut kept a file and lost its first size; redo found the file there, and did not give it the size again",
    ),
    (7, "the same"),
];

/// Seed, what it shows; not mended yet. They run and are reported, and do not fail the run.
pub const OPEN: &[(u64, &str)] = &[
    (15, "a job pauses in fair weather: a rename on the destination meets a directory that is not empty"),
    (
        8,
        "redo meets a directory that holds an object it does not know, a rename that was answered fails there (NotEmpty), \
     and an operation that had ended is recorded as `Failed`",
    ),
];
