//! What a process has used of the host, by proc(5).

use std::fs;
use std::io;
use std::time::Duration;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads, in the kernel and outside.
    pub processor: Duration,
    /// Bytes of memory, those that it shares with others in equal parts (PSS).
    pub memory: u64,
}

/// Of a process of this user's.
///
/// # Errors
/// It is gone, or another's.
pub fn of(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse(&stat, &rollup, rustix::param::clock_ticks_per_second())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc is not as proc(5) says"))
}

fn parse(stat: &str, rollup: &str, ticks_per_second: u64) -> Option<Usage> {
    // proc_pid_stat(5): the second field is a name in parentheses, which may have more of these in
    // it; utime and stime are the 14th and the 15th, in ticks of the clock.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let pss: u64 = pss.trim().strip_suffix(" kB")?.parse().ok()?;
    let processor = Duration::from_millis(ticks.checked_mul(1000)?.checked_div(ticks_per_second)?);
    Some(Usage { processor, memory: pss.checked_mul(1024)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_used() {
        let own = of(std::process::id()).unwrap();
        assert!(own.memory > 100 << 10, "{own:?}");
        assert!(of(u32::MAX >> 2).is_err());
    }

    #[test]
    fn a_name_is_no_field() {
        let stat = "7 (a) b) 1 2) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 9 9 20 0 1 0 5";
        let rollup = "00-ff ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss:     12 kB\n";
        let expected = Usage { processor: Duration::from_secs(2), memory: 12 << 10 };
        assert_eq!(parse(stat, rollup, 100), Some(expected));
        for bad in ["", "7 (a", "7 (a) S 1"] {
            assert_eq!(parse(bad, rollup, 100), None);
        }
        assert_eq!(parse(stat, "", 100), None);
    }
}
