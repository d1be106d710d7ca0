//! Times as EC2 writes them.

use std::time::{Duration, SystemTime};

/// The time as EC2 writes it: RFC 3339, UTC, milliseconds.
pub fn now() -> String {
    rfc3339(since_epoch())
}

/// Time since the epoch by the wall clock.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Time since the epoch as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(since: Duration) -> String {
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: eras of 400 years that begin on 1 March.
    let z = day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let date = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Time since the epoch of a date in UTC, or of a date and a time (RFC 3339, 5.6): `2030-01-31`,
/// `2030-01-31T12:30Z`, `2030-01-31T12:30:00.000Z`, `2030-01-31T12:30:00.123456+02:00`. The seconds
/// may be absent; of a fraction, which may have any length, milliseconds are kept.
pub fn parse(text: &str) -> Option<Duration> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time),
        None => (text, "00:00Z"),
    };
    let (time, ahead) = offset(time)?;
    let number = |text: &str, digits: usize| -> Option<u64> {
        (text.len() == digits && is_digits(text)).then(|| text.parse().ok()).flatten()
    };
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { return None };
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let (time, millis) = match time.split_once('.') {
        Some((time, fraction)) => (time, millis(fraction)?),
        None => (time, 0),
    };
    let (hour, minute, second) = match time.split(':').collect::<Vec<_>>()[..] {
        [hour, minute] => (number(hour, 2)?, number(minute, 2)?, 0),
        [hour, minute, second] => (number(hour, 2)?, number(minute, 2)?, number(second, 2)?),
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || month == 0 || day == 0 {
        return None;
    }
    // Howard Hinnant's days_from_civil, the inverse of the above.
    let y = year - u64::from(month <= 2);
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = (era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy).checked_sub(719_468)?;
    let since =
        Duration::from_millis((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis);
    // What is no date (31 February, 25 o'clock) comes out as another.
    let normal =
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
    if rfc3339(since) != normal {
        return None;
    }
    let distance = Duration::from_secs(ahead.unsigned_abs());
    if ahead < 0 { since.checked_add(distance) } else { since.checked_sub(distance) }
}

/// A time of day without its offset, and how many seconds that is ahead of UTC. (RFC 3339, 5.6
/// `time-offset`)
fn offset(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let at = time.find(['+', '-'])?;
    let (time, offset) = (time.get(..at)?, time.get(at..)?);
    let (sign, clock) = match offset.strip_prefix('-') {
        Some(clock) => (-1, clock),
        None => (1, offset.strip_prefix('+')?),
    };
    let part = |text: &str, most: i64| {
        let fits = text.len() == 2 && is_digits(text);
        fits.then(|| text.parse().ok()).flatten().filter(|number: &i64| *number <= most)
    };
    let (hours, minutes) = clock.split_once(':')?;
    Some((time, sign * (part(hours, 23)? * 3600 + part(minutes, 59)? * 60)))
}

/// The milliseconds of a second's fraction. (RFC 3339, 5.6 `time-secfrac`)
fn millis(fraction: &str) -> Option<u64> {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let value = digits.fold(0, |value, digit| value * 10 + u64::from(digit.wrapping_sub(b'0')));
    (!fraction.is_empty() && is_digits(fraction)).then_some(value)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Milliseconds since the host booted.
pub fn boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000).saturating_add(millis)
}

/// The kernel's id of this boot; empty if it has none.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|t| t.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_704_067_199, "2023-12-31T23:59:59.007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.007Z"),
        ] {
            let time = Duration::from_millis(seconds * 1000 + 7);
            assert_eq!(rfc3339(time), text);
            assert_eq!(parse(text), Some(time));
        }
    }

    #[test]
    fn fractions_have_any_length_and_offsets_are_counted() {
        for (text, same) in [
            ("2030-01-31T12:30:00.5Z", "2030-01-31T12:30:00.500Z"),
            ("2030-01-31T12:30:00.123456789Z", "2030-01-31T12:30:00.123Z"),
            ("2030-01-31T12:30:00.000001+02:00", "2030-01-31T10:30:00.000Z"),
            ("2030-01-31T12:30:00+00:00", "2030-01-31T12:30:00.000Z"),
            ("2030-01-01T00:15-05:45", "2030-01-01T06:00:00.000Z"),
            ("2030-01-01T00:00:00+14:00", "2029-12-31T10:00:00.000Z"),
        ] {
            assert_eq!(parse(text).map(rfc3339).as_deref(), Some(same), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_taken() {
        assert_eq!(parse("2030-01-01"), parse("2030-01-01T00:00:00.000Z"));
        for bad in [
            "",
            "2030",
            "2030-02-30",
            "2030-13-01",
            "2030-1-1",
            "1969-12-31",
            "2030-01-01T24:00Z",
            "2030-01-01T00:00",
            "2030-01-01T00:00:61Z",
            "+030-01-01",
            "99999-01-01",
            "2030-01-01T00:00:00.Z",
            "2030-01-01T00:00:00.1x3Z",
            "2030-01-01T00:00:00+2:00",
            "2030-01-01T00:00:00+24:00",
            "2030-01-01T00:00:00+02:60",
            "2030-01-01T00:00:00+0200",
            "2030-01-01T00:00:00Z+02:00",
            "2030-01-01T00:00:00+02:00Z",
            "1970-01-01T00:00:00+00:01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
