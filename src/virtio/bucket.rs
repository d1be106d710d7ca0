//! A token bucket: how much of something a guest may have, on the average and at once.

use std::time::{Duration, Instant};

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// Tokens come at a steady rate, up to as many as the bucket holds.
///
/// What is kept is when the bucket would be full again. Whoever wants more than the bucket holds
/// takes it when the bucket is full, and the next waits until that is made good: no request is
/// refused for ever.
#[derive(Debug)]
pub struct Bucket {
    /// Tokens a second, at least 1.
    rate: u64,
    /// How long an empty bucket takes to fill, in nanoseconds.
    capacity: u128,
    begin: Instant,
    /// When it is full, in nanoseconds since `begin`.
    full: u128,
}

impl Bucket {
    /// A full bucket of `burst` tokens, to which `rate` are added each second. Either is at least
    /// 1.
    pub fn new(rate: u64, burst: u64) -> Self {
        let rate = rate.max(1);
        let capacity = u128::from(burst.max(1)) * SECOND / u128::from(rate);
        Self { rate, capacity, begin: Instant::now(), full: 0 }
    }

    /// Take `amount` tokens. If there are not so many, none is taken: the time until there are.
    pub fn take(&mut self, amount: u64) -> Option<Duration> {
        self.take_at(amount, self.begin.elapsed().as_nanos())
    }

    /// Take `amount` tokens though there may not be so many: the next waits until that is made
    /// good.
    pub fn charge(&mut self, amount: u64) {
        self.full = self.full.max(self.begin.elapsed().as_nanos()) + self.time(amount);
    }

    /// How long until there is a token; `None`: there is one now.
    pub fn wait(&self) -> Option<Duration> {
        self.wait_at(1, self.begin.elapsed().as_nanos())
    }

    fn take_at(&mut self, amount: u64, now: u128) -> Option<Duration> {
        let wait = self.wait_at(amount, now);
        if wait.is_none() {
            self.full = self.full.max(now) + self.time(amount);
        }
        wait
    }

    fn wait_at(&self, amount: u64, now: u128) -> Option<Duration> {
        let wanted = self.full + self.time(amount).min(self.capacity);
        let wait = wanted.saturating_sub(now + self.capacity);
        (wait > 0).then(|| Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// How long so many tokens take to come, in nanoseconds.
    fn time(&self, amount: u64) -> u128 {
        u128::from(amount) * SECOND / u128::from(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_had_at_once_and_the_rest_at_the_rate() {
        let mut bucket = Bucket::new(10, 3);
        assert_eq!((0..3).map(|_| bucket.take_at(1, 0)).collect::<Vec<_>>(), [None; 3]);
        let wait = bucket.take_at(1, 0).unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(101), "{wait:?}");
        assert!(bucket.take_at(1, SECOND / 20).is_some());
        assert_eq!(bucket.take_at(1, SECOND / 10 + 1), None);
        assert!(bucket.take_at(1, SECOND / 10 + 1).is_some());
        // However long nothing is taken, it holds no more than it can.
        let later = 1000 * SECOND;
        assert_eq!((0..3).map(|_| bucket.take_at(1, later)).collect::<Vec<_>>(), [None; 3]);
        assert!(bucket.take_at(1, later).is_some());
    }

    #[test]
    fn what_is_had_in_ten_seconds_is_the_rate() {
        let cases = [
            (1, 1, 1),
            (100, 10, 1),
            (3333, 100, 1),
            (64 << 20, 1 << 20, 4096),
            (1 << 30, 1 << 20, 65_536),
        ];
        for (rate, burst, size) in cases {
            let (mut bucket, mut now, mut had) = (Bucket::new(rate, burst), 0, 0);
            while now < 10 * SECOND {
                match bucket.take_at(size, now) {
                    None => had += size,
                    Some(wait) => now += wait.as_nanos(),
                }
            }
            let fair = 10 * rate + burst;
            let off = fair.abs_diff(had);
            assert!(off <= size + fair / 1000, "{rate} a second: {had} instead of {fair}");
        }
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_is_made_good() {
        let mut bucket = Bucket::new(1000, 10);
        assert_eq!(bucket.take_at(5000, 0), None);
        assert!(bucket.take_at(1, 4 * SECOND).is_some());
        assert_eq!(bucket.take_at(1, 5 * SECOND), None);
        // Nothing overflows.
        let mut bucket = Bucket::new(1, u64::MAX);
        assert_eq!(bucket.take_at(u64::MAX, 0), None);
        assert!(bucket.take_at(u64::MAX, 0).is_some());
    }
}
