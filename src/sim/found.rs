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
    (
        156,
        "something came between synchronized and the switch that was not copied: the switch was put off for ever, for \
         nobody copies but a moving job",
    ),
    (
        15,
        "a job paused in fair weather: a rename on the destination met a directory that was not empty (not met again \
         since redo makes new objects in the pen)",
    ),
    (
        8,
        "redo met a directory with an object that it did not know, and recorded an operation that had ended as `Failed` \
         (not met again since redo judges what is proven)",
    ),
    (
        156,
        "a modification time that the destination refused for good was a line in the log: the switch went on without",
    ),
    (
        5,
        "the judge's own: a WRITE that got an I/O error after its effect ends as `Partial` of no bytes, its client is told \
         the error, and its bytes are there: both is right, on both sides the same",
    ),
    (
        477,
        "a file with two names, both removed, that a redo had parked from the one when the power went kept the other: the \
         next redo moved it onto itself",
    ),
    (
        440,
        "a copier that stopped for a primary that did not answer forgot what it had ordered: it called a file failed whose \
         copy was under way, and that was copied again",
    ),
    (
        1740,
        "a SETATTR with an I/O error after its effect was recorded as not done: a redo undid on the primary what the \
         destination had copied",
    ),
    (
        1682,
        "the judge's own: an operation of a client that had gone came to its turn behind the last look at the journal",
    ),
    (882, "as 440: a copier forgot what it had ordered when the replayer went back to its last commit"),
    (879, "a REMOVE said that its directory's handle was stale: another one took the same name away at that moment"),
    (
        94,
        "the judge's own: what a refused WRITE had left showed in a READ between two later WRITEs, the edges of which lay \
         before the READ's window",
    ),
];
