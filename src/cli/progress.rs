//! Progress on stderr, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A line that tells how far something is, gone when dropped.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Something of unknown length.
    pub fn spinner(doing: &'static str) -> Self {
        Self::new(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.with_message(doing)
        })
    }

    /// `done` of `all` are `what`.
    pub fn count(all: usize, what: &'static str) -> Self {
        Self::new(|| {
            let bar = ProgressBar::with_draw_target(
                Some(u64::try_from(all).unwrap_or(u64::MAX)),
                ProgressDrawTarget::stderr(),
            );
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {pos} of {len} {msg} ({elapsed})")
            {
                bar.set_style(style);
            }
            bar.with_message(what)
        })
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

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
