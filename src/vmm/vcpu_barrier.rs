//! Where vCPU threads stop and go on together, and where what they end on is written down.

use crate::chipset::power::{PowerRequest, PowerSink};
use crate::error::{OrFail, Result};
use crate::plan::EndReason;
use crate::sys::fds;
use crate::sys::kvm::Kick;
use crate::vmm::run_state::{RunState, Stop, Transition};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

struct State {
    run: RunState,
    /// Threads that wait at the barrier.
    waiting: usize,
    kicks: Vec<Kick>,
    /// What the threads that wait are to do meanwhile, once each, with its number.
    work: Option<(u64, Work)>,
    /// Numbers given to work.
    works: u64,
    /// Threads that are at it.
    helping: usize,
}

/// What several threads do, each until nothing is left of it.
pub type Work = Arc<dyn Fn() + Send + Sync>;

/// The barrier that every vCPU thread passes before it enters the guest.
pub struct VcpuBarrier {
    state: Mutex<State>,
    changed: Condvar,
    /// The run state is not [`RunState::Running`]: what threads look at between exits.
    closed: AtomicBool,
    /// Wakes the event thread when there is a [`Stop`].
    pub stopped: EventFd,
}

impl VcpuBarrier {
    /// The barrier of a machine that begins in this state.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new(run: RunState) -> Result<Self> {
        Ok(Self {
            closed: AtomicBool::new(!run.is_running()),
            state: Mutex::new(State {
                run,
                waiting: 0,
                kicks: Vec::new(),
                work: None,
                works: 0,
                helping: 0,
            }),
            changed: Condvar::new(),
            stopped: fds::eventfd().or_fail(|| "create an eventfd")?,
        })
    }

    /// Every field is valid at every moment, whoever panicked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Change the run state, which is this function's alone to change.
    fn change(&self, state: &mut State, transition: Transition) -> Option<Stop> {
        let run = std::mem::replace(&mut state.run, RunState::Paused);
        let (run, taken) = run.next(transition);
        self.closed.store(!run.is_running(), Ordering::Release);
        state.run = run;
        self.changed.notify_all();
        taken
    }

    /// The calling thread runs a vCPU: [`VcpuBarrier::close`] will kick it and wait for it.
    pub fn join(&self) {
        self.state().kicks.push(Kick::this_thread());
        self.changed.notify_all();
    }

    /// Wait until so many vCPU threads have joined, or the machine stops.
    pub fn wait_joined(&self, threads: usize) {
        let mut state = self.state();
        while state.kicks.len() < threads && !matches!(state.run, RunState::Stopping(_)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// True if the calling thread has to wait at the barrier before it runs the guest any further.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Wait until the barrier opens, and help with what there is to do meanwhile.
    pub fn wait(&self) {
        let (mut state, mut done) = (self.state(), 0);
        state.waiting += 1;
        self.changed.notify_all();
        while self.is_closed() {
            let work = state.work.as_ref().filter(|(number, _)| *number != done);
            if let Some((number, work)) = work.cloned() {
                done = number;
                state.helping += 1;
                drop(state);
                work();
                state = self.state();
                state.helping -= 1;
                self.changed.notify_all();
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }

    /// Have the threads that wait at the barrier, which is closed, do `work`: there are no others
    /// for it, since a confined process begins none.
    pub fn assign(&self, work: Work) {
        let mut state = self.state();
        state.works += 1;
        state.work = Some((state.works, work));
        self.changed.notify_all();
    }

    /// Assign nothing any more, and wait until nobody is at it.
    pub fn unassign(&self) {
        let mut state = self.state();
        state.work = None;
        while state.helping > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Write down why the machine stops, and stop it.
    pub fn stop(&self, stop: Stop) {
        self.change(&mut self.state(), Transition::Stop(stop));
        // It fails only when the counter is full, and then the thread is woken already.
        let _ = self.stopped.write(1);
    }

    /// Why the machine stops, once. See [`Transition::Take`].
    pub fn take_stop(&self, resets: bool) -> Option<Stop> {
        // Non-blocking; nothing to read is as good.
        let _ = self.stopped.read();
        self.change(&mut self.state(), Transition::Take { resets })
    }

    /// There is a reason to stop, which the event thread is yet to take.
    pub fn is_stopping(&self) -> bool {
        matches!(self.state().run, RunState::Stopping(_))
    }

    /// Bring all of `threads` vCPU threads to the barrier. True when none runs the guest, false if
    /// that takes longer than `patience`.
    pub fn close(&self, threads: usize, patience: Duration) -> bool {
        let (mut state, begin) = (self.state(), Instant::now());
        self.change(&mut state, Transition::Pause);
        while state.waiting < threads {
            if begin.elapsed() >= patience {
                return false;
            }
            // A thread that has not yet joined comes to the barrier by itself.
            state.kicks.iter().for_each(|kick| kick.kick());
            let turn = Duration::from_millis(20);
            let waited = self.changed.wait_timeout(state, turn);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Let them go on. A reason to stop that came meanwhile keeps the machine where it is.
    pub fn open(&self) {
        self.change(&mut self.state(), Transition::Resume);
    }
}

impl PowerSink for VcpuBarrier {
    fn request(&self, request: PowerRequest) {
        let end = |reason, message: &str| Stop::End(reason, message.to_owned());
        self.stop(match request {
            PowerRequest::Off => end(EndReason::GuestPoweroff, "the guest switched itself off"),
            PowerRequest::Reset(by) => Stop::Reset(by),
            PowerRequest::Panic => {
                end(EndReason::GuestPanic, "the guest's kernel panicked (pvpanic)")
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ResetBy;

    #[test]
    fn one_reason_counts_and_is_told_once() {
        let barrier = VcpuBarrier::new(RunState::Running).unwrap();
        barrier.request(PowerRequest::Off);
        barrier.request(PowerRequest::Reset(ResetBy::I8042));
        assert!(barrier.is_closed());
        assert!(matches!(barrier.take_stop(true), Some(Stop::End(EndReason::GuestPoweroff, _))));
        assert_eq!(barrier.take_stop(true), None);
        barrier.request(PowerRequest::Reset(ResetBy::I8042));
        barrier.request(PowerRequest::Off);
        assert!(
            matches!(barrier.take_stop(true), Some(Stop::End(..))),
            "an end counts more than a reset"
        );
    }

    #[test]
    fn a_reset_may_have_to_wait_and_an_end_may_not() {
        let barrier = VcpuBarrier::new(RunState::Running).unwrap();
        barrier.request(PowerRequest::Reset(ResetBy::Acpi));
        assert_eq!(barrier.take_stop(false), None);
        barrier.open();
        assert!(barrier.is_closed(), "the guest does not run on meanwhile");
        barrier.stop(Stop::End(EndReason::Terminated, String::new()));
        assert!(matches!(barrier.take_stop(false), Some(Stop::End(..))));
        barrier.stop(Stop::Reset(ResetBy::Control));
        assert!(barrier.take_stop(false).is_some(), "a user's reset does not wait");
    }

    #[test]
    fn who_opens_the_gate_does_not_overlook_a_reason_to_stop() {
        let barrier = VcpuBarrier::new(RunState::Running).unwrap();
        assert!(barrier.close(0, Duration::ZERO));
        barrier.request(PowerRequest::Off);
        barrier.open();
        assert!(barrier.is_closed());
        barrier.take_stop(true);
        barrier.open();
        assert!(!barrier.is_closed());
    }

    #[test]
    fn threads_stop_and_go_on_together() {
        let barrier = VcpuBarrier::new(RunState::Running).unwrap();
        crate::sys::kvm::install_kick_handler().unwrap();
        let (done, turns) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.join();
                    while !done.load(Ordering::SeqCst) {
                        if barrier.is_closed() {
                            barrier.wait();
                        }
                        turns.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                });
            }
            for _ in 0..50 {
                assert!(barrier.close(3, Duration::from_secs(60)));
                let before = turns.load(Ordering::SeqCst);
                std::thread::yield_now();
                assert_eq!(turns.load(Ordering::SeqCst), before, "nobody moves");
                barrier.open();
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(turns.load(Ordering::SeqCst) > 0);
    }
}
