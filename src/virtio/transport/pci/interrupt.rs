//! A function's interrupts: MSI-X where the driver wants it, and always the ISR status for who
//! polls.

use super::msix::{Delivery, Message, Msix, NO_VECTOR, Vectors};
use crate::virtio::device::Signal;
use crate::virtio::transport::virtio_core::{Interrupt, NeedsReset};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// ISR status: a queue, the device. (4.1.4.5)
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// What a function needs of its machine.
pub trait MsiRouting: Send + Sync {
    /// From now on interrupt `gsi` delivers this message, or nothing.
    ///
    /// # Errors
    /// The host takes no such message.
    fn route(&self, gsi: u32, message: Option<Message>) -> io::Result<()>;
    /// Interrupt `gsi` is its function's no longer.
    fn release(&self, _gsi: u32) {}
    /// Have writes to guest-physical `address` signal `event` without an exit, or no longer.
    ///
    /// # Errors
    /// The host does not; such writes exit then.
    fn doorbell(&self, address: u64, event: &EventFd, on: bool) -> io::Result<()>;
}

/// One of a function's vectors: an eventfd whose every write is interrupt `gsi`.
pub struct MsixVector {
    /// In KVM_IRQFD.
    pub irq: EventFd,
    /// The number under which [`MsiRouting::route`] knows it.
    pub gsi: u32,
}

struct Shared {
    vectors: Vectors,
    /// What the host delivers for each vector.
    routed: Vec<Option<Message>>,
}

/// The interrupts of one function.
pub struct PciInterrupt {
    isr: AtomicU8,
    needs_reset: NeedsReset,
    shared: Mutex<Shared>,
    irqs: Vec<MsixVector>,
    routing: Arc<dyn MsiRouting>,
}

impl PciInterrupt {
    /// One vector each of `irqs`; `queues` queues.
    pub(crate) fn new(
        needs_reset: NeedsReset,
        queues: usize,
        irqs: Vec<MsixVector>,
        routing: Arc<dyn MsiRouting>,
    ) -> Self {
        let vectors = Vectors {
            msix: Msix::new(irqs.len() as u16),
            config: NO_VECTOR,
            queues: vec![NO_VECTOR; queues],
        };
        let shared = Mutex::new(Shared { vectors, routed: vec![None; irqs.len()] });
        Self { isr: AtomicU8::new(0), needs_reset, shared, irqs, routing }
    }

    /// Every field is valid at every moment, whoever panicked.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Look at the vectors.
    pub fn with<T>(&self, look: impl FnOnce(&Vectors) -> T) -> T {
        look(&self.shared().vectors)
    }

    /// Change the vectors, and let out what waited and need not any more.
    pub fn change(&self, change: impl FnOnce(&mut Vectors)) {
        let mut shared = self.shared();
        change(&mut shared.vectors);
        for vector in 0..shared.vectors.msix.vectors() {
            self.settle(&mut shared, vector);
        }
    }

    /// The guest writes the table.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let mut shared = self.shared();
        if let Some(vector) = shared.vectors.msix.write_table(offset, data) {
            self.settle(&mut shared, vector);
        }
    }

    /// A vector that is not masked is routed as its entry says, and what waited for that goes out.
    /// While it is masked the route does not matter: drivers mask, write and unmask, and each
    /// change of routes is a system call.
    fn settle(&self, shared: &mut Shared, vector: u16) {
        let at = usize::from(vector);
        let Some(message) = shared.vectors.msix.live(vector) else { return };
        let (Some(routed), Some(MsixVector { gsi, .. })) =
            (shared.routed.get_mut(at), self.irqs.get(at))
        else {
            return;
        };
        if *routed != message {
            *routed = match self.routing.route(*gsi, message) {
                Ok(()) => message,
                Err(error) => {
                    let name = &self.needs_reset.name;
                    self.needs_reset.notices.tell(&format!(
                        "{name}: the host does not take interrupt {vector} ({message:x?}): {error}"
                    ));
                    None
                }
            };
        }
        if shared.vectors.msix.take_pending(vector) {
            self.send(shared, vector);
        }
    }

    fn send(&self, shared: &Shared, vector: u16) {
        let at = usize::from(vector);
        if let (Some(MsixVector { irq, .. }), Some(Some(_))) =
            (self.irqs.get(at), shared.routed.get(at))
        {
            // It fails only when the counter is full: the interrupt is pending already.
            let _ = irq.write(1);
        }
    }

    /// Interrupt by the vector that `which` chooses. Without MSI-X there is only the ISR status,
    /// for a driver that polls: no function of ours has INTx. (4.1.5.3, 4.1.5.4)
    fn raise(&self, isr: u8, which: impl FnOnce(&Vectors) -> Option<u16>) {
        let mut shared = self.shared();
        if !shared.vectors.msix.enabled() {
            self.isr.fetch_or(isr, Ordering::SeqCst);
            return;
        }
        let vector = which(&shared.vectors).unwrap_or(NO_VECTOR);
        if shared.vectors.msix.raise(vector) == Delivery::Now {
            self.send(&shared, vector);
        }
    }

    /// The guest reads the ISR status, which clears it. (4.1.4.5)
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    /// The ISR status and the vectors, for a snapshot.
    pub fn save(&self) -> (u8, Vectors) {
        (self.isr.load(Ordering::SeqCst), self.shared().vectors.clone())
    }

    /// Take over what was saved; the counts are right.
    pub fn restore(&self, isr: u8, vectors: &Vectors) {
        self.isr.store(isr, Ordering::SeqCst);
        self.change(|to| to.clone_from(vectors));
    }

    /// Every vector that a driver has in use gets its interrupt again, which may have been lost
    /// with the old machine.
    pub fn repeat(&self) {
        let used = self.with(|vectors| {
            let mut used = vectors.queues.clone();
            used.push(vectors.config);
            used
        });
        used.into_iter().for_each(|vector| self.raise(0, |_| Some(vector)));
    }

    /// Gives its vectors back: the function is off its bus.
    pub fn leave(&self) {
        self.irqs.iter().for_each(|vector| self.routing.release(vector.gsi));
    }

    /// Nothing is masked, enabled or routed by the guest's wish any more: the machine's reset. What
    /// the host has been told stays, since it does no harm.
    pub fn power_on(&self) {
        self.shared().vectors.msix.reset();
    }
}

impl Signal for PciInterrupt {
    fn used(&self, queue: u16) {
        self.raise(ISR_QUEUE, |vectors| vectors.queues.get(usize::from(queue)).copied());
    }

    fn config_changed(&self) {
        self.raise(ISR_CONFIG, |vectors| Some(vectors.config));
    }

    fn stop(&self, reason: &str) {
        if self.needs_reset.stop(reason) {
            self.config_changed();
        }
    }

    fn stopped(&self) -> bool {
        self.needs_reset.is_set()
    }
}

impl Interrupt for PciInterrupt {
    /// The driver chooses its vectors anew; the table is the function's and stays. (4.1.5.1.2)
    fn clear(&self) {
        self.isr.store(0, Ordering::SeqCst);
        self.needs_reset.set(false);
        let mut shared = self.shared();
        shared.vectors.config = NO_VECTOR;
        shared.vectors.queues.fill(NO_VECTOR);
    }

    fn set_stopped(&self) {
        self.needs_reset.set(true);
    }
}
