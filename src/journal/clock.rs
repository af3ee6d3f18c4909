//! The time of records. It never goes back: whoever stamps keeps the last stamp and takes the later of the two.

use journal_format::ids::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, by the system's clock.
pub fn now() -> Time {
    let nanos = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    };
    Time(nanos)
}
