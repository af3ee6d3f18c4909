//! Planted bugs: each is a mistake that the suite must catch, or it would not catch it when somebody makes it.
//!
//! A build with feature `planted-bugs` has them all, and `TAIN_PLANTED=x` plants one; in any other build [`is`] is false,
//! and the compiler takes away what stands behind it. `tests/planted` runs, for each, the part of the suite that must
//! fail, and the same part without the bug, which must pass.
//!
//! | bug | what goes wrong                                                  | where                  |
//! | --- | ---------------------------------------------------------------- | ---------------------- |
//! | a   | a batch is written and not made durable                          | journal/writer.rs      |
//! | b   | an operation goes on before its record is durable                | ledger; journal/target.rs (slow) |
//! | c   | a failed write of the journal is tried again                     | journal/writer.rs      |
//! | d   | a record's checksum is not looked at                             | journal-format scan    |
//! | e   | records behind a hole are taken                                  | journal/recover.rs     |
//! | f   | a record of an earlier lap looks like one of this lap            | journal/segments.rs, journal-format scan |
//! | g   | `CopyDone` before the destination's sync                         | replayer/batch.rs      |
//! | h   | `CopyDone` behind the last commit is forgotten at a restart      | replayer/prescan.rs    |
//! | i   | the switch changes State and is not in the journal               | ledger                 |
//! | j   | what is redone is written a second time, behind itself           | location/carry_out.rs  |
//! | k   | no replies are kept                                              | gateway/drc.rs         |
//! | l   | the key of handles holds the time of the start                   | service                |
//! | m   | an error is answered before its `Failed` is durable              | ledger                 |
//! | n   | the switch does not wait for the destination (§4.3 has here the reverse without guard; there is none yet) | switch |
//! | o   | permission is looked at when the operation has been done | volume/ops/remove.rs |

pub use journal_format::planted::is;
