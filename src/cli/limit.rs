//! `--limit`: what a guest may have of its devices.

use crate::plan::{DiskLimits, NetLimits, Rate};

/// What a guest may have of each of its disks, and of each of its network interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of a disk.
    pub disk: DiskLimits,
    /// Of a network interface.
    pub net: NetLimits,
}

/// Reads `disk.iops=RATE[:BURST],net.bandwidth=RATE[:BURST]` and so on, each at most once. A rate
/// is a number, for bandwidth with K, M, G or T for powers of 1024; without a burst it is what a
/// second brings.
///
/// # Errors
/// Another name, twice the same, or not a positive number: one line.
pub fn parse(text: &str) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for limit in text.split(',') {
        let (name, value) = limit.split_once('=').ok_or_else(|| {
            format!("'{limit}' is no limit: give NAME=RATE, as in disk.iops=1000")
        })?;
        let (place, unit) = match name {
            "disk.iops" => (&mut limits.disk.iops, false),
            "disk.bandwidth" => (&mut limits.disk.bandwidth, true),
            "net.pps" => (&mut limits.net.pps, false),
            "net.bandwidth" => (&mut limits.net.bandwidth, true),
            _ => {
                return Err(format!(
                    "there is no limit '{name}': give disk.iops, disk.bandwidth, net.pps or net.bandwidth"
                ));
            }
        };
        if place.is_some() {
            return Err(format!("{name} is given twice"));
        }
        let (rate, burst) = value.split_once(':').unwrap_or((value, value));
        *place =
            Some(Rate { per_second: number(name, rate, unit)?, burst: number(name, burst, unit)? });
    }
    Ok(limits)
}

fn number(name: &str, text: &str, unit: bool) -> Result<u64, String> {
    let wrong = || {
        let unit = if unit { ", with K, M, G or T if you like" } else { "" };
        format!("{name}: '{text}' is not a whole number from 1 on{unit}")
    };
    let shift = ["K", "M", "G", "T"].iter().position(|suffix| unit && text.ends_with(suffix));
    let digits = if shift.is_some() { &text[..text.len() - 1] } else { text };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let factor = shift.map_or(1, |n| 1u64 << (10 * (n + 1)));
    let value = digits.parse::<u64>().ok().and_then(|value| value.checked_mul(factor));
    value.filter(|value| *value > 0).ok_or_else(wrong)
}

/// As a person reads them, and [`parse`] too.
pub fn text(limits: &Limits) -> String {
    let Limits { disk, net } = limits;
    let named = [
        ("disk.iops", disk.iops),
        ("disk.bandwidth", disk.bandwidth),
        ("net.pps", net.pps),
        ("net.bandwidth", net.bandwidth),
    ];
    let one = |(name, rate): (&str, Option<Rate>)| {
        rate.map(|Rate { per_second, burst }| format!("{name}={per_second}:{burst}"))
    };
    named.into_iter().filter_map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        for (given, iops, bandwidth, reported) in [
            ("disk.iops=1000", rate(1000, 1000), None, "disk.iops=1000:1000"),
            (
                "disk.bandwidth=1M:2G",
                None,
                rate(1 << 20, 2 << 30),
                "disk.bandwidth=1048576:2147483648",
            ),
            (
                "disk.bandwidth=5,disk.iops=1:7",
                rate(1, 7),
                rate(5, 5),
                "disk.iops=1:7,disk.bandwidth=5:5",
            ),
        ] {
            let limits = parse(given).unwrap();
            assert_eq!(limits.disk, DiskLimits { iops, bandwidth });
            assert!(limits.net.are_none());
            assert_eq!(text(&limits), reported);
            assert_eq!(parse(reported).unwrap(), limits);
        }
    }

    #[test]
    fn an_interface_has_limits_of_its_own() {
        let limits = parse("net.bandwidth=1M,net.pps=10:20,disk.iops=7").unwrap();
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        let net = NetLimits { pps: rate(10, 20), bandwidth: rate(1 << 20, 1 << 20) };
        assert_eq!((limits.net, limits.disk.iops), (net, rate(7, 7)));
        assert_eq!(text(&limits), "disk.iops=7:7,net.pps=10:20,net.bandwidth=1048576:1048576");
    }

    #[test]
    fn what_is_no_limit_is_refused_in_one_line() {
        for (given, why) in [
            ("", "is no limit"),
            ("disk.iops", "is no limit"),
            ("disk.iops=1,", "is no limit"),
            ("disk.iops=0", "whole number from 1"),
            ("disk.iops=1K", "whole number from 1"),
            ("disk.iops=-1", "whole number from 1"),
            ("disk.iops=+1", "whole number from 1"),
            ("disk.iops=1:", "whole number from 1"),
            ("disk.bandwidth=M", "with K, M, G or T"),
            ("disk.bandwidth=20000000T", "whole number from 1"),
            ("disk.iops=1,disk.iops=2", "given twice"),
            ("disks.iops=1", "there is no limit"),
            ("Disk.iops=1", "there is no limit"),
            ("net.iops=1", "there is no limit 'net.iops'"),
            ("net.pps=1K", "whole number from 1"),
        ] {
            let reported = parse(given).unwrap_err();
            assert!(reported.contains(why) && !reported.contains('\n'), "{given}: {reported}");
        }
    }
}
