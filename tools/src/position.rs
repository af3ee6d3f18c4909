//! Positions as an operator gives them: an LSN, or a time.

use journal_format::ids::Time;
use std::str::FromStr;

const SECOND: i64 = 1_000_000_000;

/// `123456` is an LSN; `2026-11-28T12:00:00Z`, `2026-11-28T12:00:00.5+01:00` and `@1790000000.25` are times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Lsn(u64),
    Time(Time),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        if let Ok(lsn) = text.parse() {
            return Ok(Position::Lsn(lsn));
        }
        let time = match text.strip_prefix('@') {
            Some(epoch) => epoch_time(epoch),
            None => rfc3339(text),
        };
        time.map(Position::Time).ok_or_else(|| {
            format!("{text:?} is neither an LSN nor a time (2026-11-28T12:00:00Z, or @SECONDS since 1970)")
        })
    }
}

/// Seconds since 1970, with or without a fraction.
fn epoch_time(text: &str) -> Option<Time> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let nanos = fraction_nanos(fraction)?;
    let nanos = if text.starts_with('-') { -nanos } else { nanos };
    seconds.checked_mul(SECOND)?.checked_add(nanos).map(Time)
}

fn fraction_nanos(digits: &str) -> Option<i64> {
    if digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}").parse().ok()
}

fn rfc3339(text: &str) -> Option<Time> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let clock = rest.get(..8)?;
    let (fraction, zone) = match rest.get(8..)?.strip_prefix('.') {
        Some(tail) => tail.split_at(tail.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest.get(8..)?),
    };
    let numbers = |text: &str, by: char| -> Option<[i64; 3]> {
        let parts: Vec<i64> = text.split(by).map(digits).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let long = [1, 3, 5, 7, 8, 10, 12].contains(&month);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = if month == 2 { 28 + i64::from(leap) } else { 30 + i64::from(long) };
    if !(1..=12).contains(&month) || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            sign * (digits(hours)? * 3600 + digits(minutes)? * 60)
        }
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(SECOND)?.checked_add(fraction_nanos(fraction)?).map(Time)
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// In eras of 400 years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A span of time: `30s`, `5m`, `1h`, `1d`.
pub fn span(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a span of time (30s, 5m, 1h, 1d)");
    let unit = text.chars().last().ok_or_else(bad)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let number: i64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(bad)?;
    let span = number.checked_mul(factor).and_then(|seconds| seconds.checked_mul(SECOND));
    span.filter(|span| *span > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show;

    #[test]
    fn lsns_and_times_in_every_spelling() {
        let at = |text: &str| text.parse::<Position>();
        let time = |nanos| Ok(Position::Time(Time(nanos)));
        assert_eq!(at("4096"), Ok(Position::Lsn(4096)));
        assert_eq!(at("@0"), time(0));
        assert_eq!(at("@1700000000.5"), time(1_700_000_000_500_000_000));
        assert_eq!(at("@-1.5"), time(-1_500_000_000));
        assert_eq!(at("2023-11-14T22:13:20Z"), time(1_700_000_000_000_000_000));
        assert_eq!(at("2023-11-14 23:13:20.000000001+01:00"), time(1_700_000_000_000_000_001));
        for bad in
            ["", "@", "x", "2023-02-29T00:00:00Z", "2023-11-14", "2023-11-14T22:13:20", "2023-1é-14T22:13:20Z", "-5"]
        {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_that_is_shown_is_read_back() {
        for nanos in [0, -1, 951_827_696_000_000_005, 1_700_000_000_000_000_000, -8_000_000_000_000_000_000] {
            assert_eq!(show::time(Time(nanos)).parse(), Ok(Position::Time(Time(nanos))));
        }
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(span("90s"), Ok(90 * SECOND));
        assert_eq!(span("2h"), Ok(7200 * SECOND));
        for bad in ["", "5", "0s", "-1m", "1w", "s", "ß"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
