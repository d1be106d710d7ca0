//! How often something may be done.

use std::time::{Duration, Instant};

/// A token bucket.
#[derive(Debug)]
pub struct Limit {
    per_second: f64,
    most: f64,
    tokens: f64,
    filled: Instant,
}

impl Limit {
    /// So often a second, and so often at once.
    pub fn new(per_second: u32, most: u32) -> Self {
        let most = f64::from(most);
        Self { per_second: per_second.into(), most, tokens: most, filled: Instant::now() }
    }

    /// Whether it may be done now; counts as done if so.
    pub fn allows(&mut self) -> bool {
        self.allows_at(Instant::now())
    }

    fn allows_at(&mut self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.most);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_what_the_rate_gives() {
        let mut limit = Limit::new(10, 5);
        let begun = limit.filled;
        let flood = |limit: &mut Limit, at: u64| {
            let now = begun + Duration::from_millis(at);
            (0..100).filter(|_| limit.allows_at(now)).count()
        };
        assert_eq!(flood(&mut limit, 0), 5);
        assert_eq!(flood(&mut limit, 100), 1);
        assert_eq!(flood(&mut limit, 60_000), 5);
    }
}
