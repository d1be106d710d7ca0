//! Progress on stderr, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A line that tells how far something is, gone when dropped.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Do something of unknown length. The line is gone when its result is there to be printed.
    pub fn during<T>(doing: &'static str, work: impl FnOnce() -> T) -> T {
        let _progress = Self::new(|| bar(None, "{spinner} {msg} ({elapsed})").with_message(doing));
        work()
    }

    /// `done` of `all` are `what`.
    pub fn count(all: usize, what: &'static str) -> Self {
        let all = u64::try_from(all).unwrap_or(u64::MAX);
        let template = "{spinner} {pos} of {len} {msg} ({elapsed})";
        Self::new(|| bar(Some(all), template).with_message(what))
    }

    fn new(make: impl FnOnce() -> ProgressBar) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = make();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// So many are done.
    pub fn set(&self, done: usize) {
        if let Some(bar) = &self.0 {
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
        }
    }
}

fn bar(all: Option<u64>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(all, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
