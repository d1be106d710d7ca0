//! Whether a machine's vCPUs run, and the one function by which that changes.

use crate::plan::{EndReason, ResetBy};

/// What a machine stops for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Reset and run on.
    Reset(ResetBy),
    /// Over, with one line for a person.
    End(EndReason, String),
}

/// What the vCPUs of a machine do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// They run the guest.
    Running,
    /// They wait, or are on their way to, until the event thread lets them go on.
    Paused,
    /// As [`RunState::Paused`], for this reason, which the event thread is yet to take.
    Stopping(Stop),
}

/// What changes a [`RunState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The event thread needs the vCPUs to stand still.
    Pause,
    /// The event thread lets them go on.
    Resume,
    /// The guest, a vCPU or a control request has a reason to stop the machine.
    Stop(Stop),
    /// The event thread takes the reason, to do what it asks for. A guest's reset stays where it is
    /// unless `resets`: the machine stands still that long.
    Take {
        /// The guest may reset now.
        resets: bool,
    },
}

impl RunState {
    /// The state after `transition`, and the reason that [`Transition::Take`] took.
    ///
    /// The first reason to stop counts: those after it come from a machine that is stopping
    /// already. An end counts more than a reset, for a guest that resets for ever must not drown
    /// the request that ends it.
    pub fn next(self, transition: Transition) -> (Self, Option<Stop>) {
        use RunState::{Paused, Running, Stopping};
        let state = match (self, transition) {
            (Stopping(Stop::Reset(_)), Transition::Stop(end @ Stop::End(..))) => Stopping(end),
            (Stopping(reason), Transition::Take { resets }) if reason.may_be_taken(resets) => {
                return (Paused, Some(reason));
            }
            (stopping @ Stopping(_), _) => stopping,
            (Running | Paused, Transition::Stop(reason)) => Stopping(reason),
            (Running | Paused, Transition::Pause) => Paused,
            (Running | Paused, Transition::Resume) => Running,
            (Running, Transition::Take { .. }) => Running,
            (Paused, Transition::Take { .. }) => Paused,
        };
        (state, None)
    }

    /// The vCPUs may enter the guest.
    pub fn is_running(&self) -> bool {
        *self == Self::Running
    }
}

impl Stop {
    /// Only the guest's own resets are held back.
    fn may_be_taken(&self, resets: bool) -> bool {
        match self {
            Self::Reset(ResetBy::Control) | Self::End(..) => true,
            Self::Reset(_) => resets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RunState::{Paused, Running, Stopping};
    use super::Transition::{Pause, Resume, Take};
    use super::*;

    /// Each state with each transition: 6 by 8.
    #[test]
    fn every_transition_of_every_state_is_as_the_table_says() {
        let guest = Stop::Reset(ResetBy::Acpi);
        let control = Stop::Reset(ResetBy::Control);
        let off = Stop::End(EndReason::GuestPoweroff, "off".to_owned());
        let fault = Stop::End(EndReason::TripleFault, "fault".to_owned());
        let stop = |reason: &Stop| Transition::Stop(reason.clone());
        let stopping = |reason: &Stop| Stopping(reason.clone());
        let (hold, let_go) = (Take { resets: false }, Take { resets: true });
        let transitions =
            [Pause, Resume, stop(&guest), stop(&control), stop(&off), stop(&fault), hold, let_go];
        let (g, c, o, f) = (stopping(&guest), stopping(&control), stopping(&off), stopping(&fault));
        let no = |state: &RunState| (state.clone(), None);
        let took = |reason: &Stop| (Paused, Some(reason.clone()));
        let table = [
            (&Running, [&Paused, &Running, &g, &c, &o, &f, &Running, &Running].map(no)),
            (&Paused, [&Paused, &Running, &g, &c, &o, &f, &Paused, &Paused].map(no)),
            (&g, [no(&g), no(&g), no(&g), no(&g), no(&o), no(&f), no(&g), took(&guest)]),
            (&c, [no(&c), no(&c), no(&c), no(&c), no(&o), no(&f), took(&control), took(&control)]),
            (&o, [no(&o), no(&o), no(&o), no(&o), no(&o), no(&o), took(&off), took(&off)]),
            (&f, [no(&f), no(&f), no(&f), no(&f), no(&f), no(&f), took(&fault), took(&fault)]),
        ];
        for (state, expected) in table {
            for (transition, expected) in transitions.iter().zip(expected) {
                let next = state.clone().next(transition.clone());
                assert_eq!(next, expected, "{state:?} with {transition:?}");
            }
        }
    }
}
