//! Numbers, sizes and durations as arguments have them.

use crate::error::{Error, Result};
use std::str::FromStr;
use std::time::Duration;

/// `N` or `MIN:MAX` (EC2 MinCount and MaxCount).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
}

impl FromStr for Count {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n >= 1);
        let (min, max) = text.split_once(':').unwrap_or((text, text));
        match (number(min), number(max)) {
            (Some(min), Some(max)) if min <= max => Ok(Self { min, max }),
            _ => Err(Error::usage("it is N or MIN:MAX, of 1 or more instances")),
        }
    }
}

/// Bytes: `512M`, `1.5G`, `64KiB`; a plain number counts MiB.
///
/// # Errors
/// Not such a size, or beyond 2^63.
pub fn parse_memory(text: &str) -> Result<u64> {
    parse_bytes(text, 20, "MiB")
}

/// Bytes: as [`parse_memory`], but a plain number counts GiB, EC2's unit of volumes.
///
/// # Errors
/// Not such a size, or beyond 2^63.
pub fn parse_size(text: &str) -> Result<u64> {
    parse_bytes(text, 30, "GiB")
}

/// The value of a tag Name.
///
/// # Errors
/// It is empty or longer than a tag, or has a control character.
pub fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 255 || text.chars().any(char::is_control) {
        return Err("a name has 1 to 255 characters, none of them a control character".into());
    }
    Ok(text.to_owned())
}

/// Percent of one CPU: `50` or `50%`, 1 to 6400.
///
/// # Errors
/// Not such a number.
pub fn parse_percent(text: &str) -> Result<u32> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|percent| (1..=6400).contains(percent)).ok_or_else(|| {
        Error::usage(format!("'{}' is not a percentage from 1 to 6400", text.escape_debug()))
    })
}

fn parse_bytes(text: &str, plain: u32, unit_of_plain: &str) -> Result<u64> {
    let bad = || {
        Error::usage(format!(
            "'{}' is not a size such as 512M, 1.5G or 64MiB (a plain number counts {unit_of_plain})",
            text.escape_debug()
        ))
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "" => plain,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let bytes = number * (1u64 << shift) as f64;
    if !(0.0..9.2e18).contains(&bytes) || bytes.fract() != 0.0 {
        return Err(bad());
    }
    Ok(bytes as u64)
}

/// A duration in seconds, or with a unit: `30`, `1.5s`, `500ms`, `2m`, `1h`.
///
/// # Errors
/// Not such a duration.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || {
        Error::usage(format!(
            "'{}' is not a duration such as 30, 500ms, 2m or 1h",
            text.escape_debug()
        ))
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!("3".parse::<Count>().unwrap(), Count { min: 3, max: 3 });
        assert_eq!("1:3".parse::<Count>().unwrap(), Count { min: 1, max: 3 });
        for bad in ["", "0", "-1", "x", "3:2", "0:1", "1:", "1:2:3", "99999999999"] {
            assert!(bad.parse::<Count>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512", 512 << 20),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("64KiB", 64 << 10),
            ("4096b", 4096),
        ] {
            assert_eq!(parse_memory(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "M", "-1", "1X", "1e30", "99999999999999T", "0.3b", "1..2G"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!((parse_percent("50").unwrap(), parse_percent("150%").unwrap()), (50, 150));
        for bad in ["", "0", "%", "-1", "6401", "1.5", "50 %"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "s", "-1", "1d", "1e99"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
