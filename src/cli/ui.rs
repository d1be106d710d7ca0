//! The terminal, or whatever stands in for it: how results are printed, who hears of what happens
//! meanwhile, and the signals that end a command.

use super::output::{Format, Output, escaped};
use super::parameters::as_options;
use crate::context::{Audience, Cancel, Context, Extension, Meter};
use crate::error::{Error, OrFail, Result, one_line};
use crate::http::Serve;
use crate::service::Service;
use crate::sys::process;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Verbs that make no store where there is none.
const READING: [&str; 15] = [
    "asg ls",
    "asg show",
    "ls",
    "show",
    "logs",
    "wait",
    "df",
    "events",
    "usage",
    "snapshot ls",
    "snapshot show",
    "volume ls",
    "volume show",
    "kernel ls",
    "ramdisk ls",
];

/// What a command works with beside its arguments.
pub struct Ui {
    /// How results are printed.
    pub output: Output,
    /// What the command's work is done for.
    pub context: Context,
    /// What serves EC2's API, in a program that has it.
    pub serve: Option<Serve>,
    signals: Signals,
}

impl Ui {
    /// Of a command called `verb`, e.g. `image deregister`.
    pub fn new(
        output: Output,
        verb: String,
        extension: Option<Extension>,
        serve: Option<Serve>,
    ) -> Self {
        let signals = Signals::default();
        let reads = READING.contains(&verb.as_str());
        let context = Context::new(process::user(), Arc::new(Terminal))
            .by_verb(verb)
            .stopped_by(Cancel::by(signals.asked.clone()))
            .with_extension(extension);
        let context = if reads { context.reading() } else { context };
        Self { output, context, serve, signals }
    }

    /// The actions on the user's store.
    ///
    /// # Errors
    /// As [`Service::open`]'s.
    pub fn service(&self) -> Result<Service> {
        Service::open(&self.context)
    }

    /// Runs something long that ^C undoes. `None` if it was.
    ///
    /// # Errors
    /// As `work`'s.
    pub fn cancellable<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.signals.watch()?;
        match work() {
            Err(error) if self.context.cancelled() => {
                self.report(&error);
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Tells what went wrong, in the form in which results are printed.
    pub fn report(&self, error: &Error) {
        report(self.output.format, error);
    }

    /// The exit code of a command that was cancelled: 128 and the signal's number, as shells have
    /// it.
    pub fn cancelled(&self) -> ExitCode {
        let signal = u8::try_from(self.signals.number.load(Ordering::Relaxed)).unwrap_or(0);
        ExitCode::from(128 + if signal == 0 { 2 } else { signal })
    }
}

/// What signals have asked for.
#[derive(Default)]
struct Signals {
    asked: Arc<AtomicBool>,
    /// The number of the signal that asked; 0 for none.
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on SIGINT, SIGTERM and SIGHUP are requests to cancel; a second one ends the process
    /// at once.
    ///
    /// # Errors
    /// The handlers can't be installed.
    fn watch(&self) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        use signal_hook::flag::{register, register_conditional_shutdown, register_usize};
        let doing = || "install a signal handler";
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Registered first, so that the first signal passes it and sets the flag.
            register_conditional_shutdown(signal, 128 + signal, self.asked.clone())
                .or_fail(doing)?;
            let number = signal.unsigned_abs() as usize;
            register_usize(signal, self.number.clone(), number).or_fail(doing)?;
            register(signal, self.asked.clone()).or_fail(doing)?;
        }
        Ok(())
    }
}

/// One line on stderr. Stderr may be closed; there is nobody left to tell then.
pub fn say(line: impl fmt::Display) {
    let line = one_line(&as_options(&line.to_string()));
    let _ = writeln!(std::io::stderr(), "spore: {line}");
}

/// What went wrong: a line for people, or where the result would be JSON (or YAML) an object that
/// has EC2's names, on a line of its own.
pub fn report(format: Format, error: &Error) {
    if !matches!(format, Format::Json | Format::Yaml) {
        return say(error);
    }
    let object = json!({
        "Error": { "Code": error.ec2_code().as_str(), "Message": error.message() },
        "Spore": { "ExitCode": error.exit_code(), "Remedy": error.advice() },
    });
    let _ = writeln!(std::io::stderr(), "{}", escaped(&object.to_string()));
}

/// Standard error. Progress is shown where that is a terminal.
struct Terminal;

impl Audience for Terminal {
    fn warn(&self, line: &str) {
        say(format_args!("warning: {line}"));
    }

    fn note(&self, line: &str) {
        say(format_args!("note: {line}"));
    }

    fn meter(&self, size: Option<u64>) -> Box<dyn Meter> {
        if !std::io::stderr().is_terminal() {
            return Box::new(Bar(ProgressBar::hidden()));
        }
        let template = match size {
            Some(_) => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {bytes_per_sec}",
        };
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Box::new(Bar(bar))
    }
}

/// A bar (or a counter, where the end is not known) that goes away when dropped.
struct Bar(ProgressBar);

impl Meter for Bar {
    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
