//! The time of records. It never goes back: whoever stamps keeps the last stamp and takes the later of the two.

use journal_format::ids::Time;

/// Nanoseconds since 1970, by the system's clock.
pub fn now() -> Time {
    Time(crate::env::wall_nanos())
}
