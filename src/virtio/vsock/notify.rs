//! What the guest's service manager says of itself: sd_notify(3) on a port of the host's, as
//! systemd's `vmm.notify_socket` credential names it. (systemd.system-credentials(7))

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes of a message.
const MAX_MESSAGE: usize = 4096;
/// Most variables that are remembered.
pub const MAX_VARIABLES: usize = 32;
/// Most bytes of one.
const MAX_VARIABLE: usize = 256;

/// A message on its way.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// What came next of it. False: it is too long.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        let fits = self.0.len() + bytes.len() <= MAX_MESSAGE;
        if fits {
            self.0.extend_from_slice(bytes);
        }
        fits
    }
}

/// What was said, by variable.
#[derive(Debug, Default)]
pub struct Notified(Mutex<BTreeMap<String, String>>);

impl Notified {
    /// All of it.
    pub fn variables(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // It is valid between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a whole message: lines of `VARIABLE=value`. What is none is ignored, and so is what
    /// there is no room for.
    pub fn take(&self, message: &Message) {
        let mut variables = self.variables();
        for line in String::from_utf8_lossy(&message.0).lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let named = !name.is_empty()
                && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_');
            let fits = line.len() <= MAX_VARIABLE && !value.contains(|c: char| c.is_control());
            if !(named && fits) {
                continue;
            }
            // Units come and go; which are there is what counts.
            let (key, value) = match name {
                "X_SYSTEMD_UNIT_INACTIVE" => {
                    variables.remove(&unit_variable(value));
                    continue;
                }
                "X_SYSTEMD_UNIT_ACTIVE" => (unit_variable(value), "1"),
                _ => (name.to_owned(), value),
            };
            if variables.len() < MAX_VARIABLES || variables.contains_key(&key) {
                variables.insert(key, value.to_owned());
            }
        }
    }
}

/// What the state of a unit is remembered by.
fn unit_variable(unit: &str) -> String {
    format!("unit {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(notified: &Notified, text: &str) -> bool {
        let mut message = Message::default();
        let fits = message.add(text.as_bytes());
        notified.take(&message);
        fits
    }

    #[test]
    fn variables_are_remembered_and_units_come_and_go() {
        let notified = Notified::default();
        say(
            &notified,
            "READY=1\nSTATUS=Ready.\nX_SYSTEMD_HOSTNAME=web\nX_SYSTEMD_UNIT_ACTIVE=ssh.service",
        );
        say(&notified, "X_SYSTEMD_HOSTNAME=db\nX_SYSTEMD_UNIT_ACTIVE=multi-user.target\n");
        say(&notified, "X_SYSTEMD_UNIT_INACTIVE=ssh.service");
        let names: Vec<_> = notified.variables().clone().into_iter().collect();
        let expected = [
            ("READY", "1"),
            ("STATUS", "Ready."),
            ("X_SYSTEMD_HOSTNAME", "db"),
            ("unit multi-user.target", "1"),
        ];
        assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_guest_that_says_anything_is_remembered_within_limits() {
        let notified = Notified::default();
        say(&notified, "no variable\n=1\nlower=1\nESCAPE=\u{1b}[2J\n\u{0}=\n");
        say(&notified, &format!("LONG={}", "x".repeat(MAX_VARIABLE)));
        assert!(notified.variables().is_empty());
        for n in 0..1000 {
            say(&notified, &format!("V{n}=1\nX_SYSTEMD_UNIT_ACTIVE=unit{n}"));
        }
        assert!(notified.variables().len() <= MAX_VARIABLES, "{}", notified.variables().len());
        assert!(!say(&notified, &"x".repeat(MAX_MESSAGE + 1)));
    }
}
