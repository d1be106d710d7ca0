//! What PCI functions need of KVM: routes for their message signalled interrupts, and doorbells.

use crate::error::{OrFail, Result};
use crate::mem::layout::MSI_GSI;
use crate::sys::fds;
use crate::virtio::transport::pci::{Message, MsiRouting, MsixVector};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1 as Target, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
    kvm_irq_routing_msi__bindgen_ty_1 as DeviceId,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Pins of an 8259.
const PIC_PINS: u32 = 8;

/// The one set of routes of a VM. It begins as KVM makes it, and KVM is told of it when the guest
/// uses a message: not at the machine's start, which it would only delay.
pub struct MsiRouter {
    vm: Arc<VmFd>,
    /// What interrupt [`MSI_GSI`] + n delivers.
    messages: Mutex<Vec<Option<Message>>>,
    /// Interrupts of functions that have gone.
    free: Mutex<Vec<u32>>,
}

impl MsiRouter {
    /// The router of a VM with KVM's interrupt controllers.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, messages: Mutex::default(), free: Mutex::default() }
    }

    /// So many interrupts more, which deliver nothing yet.
    ///
    /// # Errors
    /// Too many open files, or KVM refuses.
    pub fn vectors(&self, count: usize) -> Result<Vec<MsixVector>> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let vector = |_| {
            let gsi = free.pop().unwrap_or_else(|| {
                messages.push(None);
                MSI_GSI + messages.len() as u32 - 1
            });
            Ok(MsixVector { irq: irqfd(&self.vm, gsi)?, gsi })
        };
        (0..count).map(vector).collect()
    }
}

/// An eventfd whose every write is an edge on interrupt `gsi`.
///
/// # Errors
/// Too many open files, or KVM refuses.
pub fn irqfd(vm: &VmFd, gsi: u32) -> Result<EventFd> {
    let event = fds::eventfd().or_fail(|| "create an eventfd")?;
    vm.register_irqfd(&event, gsi).or_fail(|| format!("connect interrupt {gsi}"))?;
    Ok(event)
}

impl MsiRouting for MsiRouter {
    fn route(&self, gsi: u32, message: Option<Message>) -> io::Result<()> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let index = gsi.checked_sub(MSI_GSI).and_then(|n| usize::try_from(n).ok());
        let slot = index.and_then(|n| messages.get_mut(n)).ok_or(io::ErrorKind::InvalidInput)?;
        let old = std::mem::replace(slot, message);
        let entries = entries(&messages);
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.vm.set_gsi_routing(&routing).map_err(|error| {
            // KVM keeps the routes that it had.
            if let Some(slot) = index.and_then(|n| messages.get_mut(n)) {
                *slot = old;
            }
            error.into()
        })
    }

    fn release(&self, gsi: u32) {
        // A message that stays harms nobody: nothing raises it.
        let _ = self.route(gsi, None);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(gsi);
    }

    fn doorbell(&self, address: u64, event: &EventFd, on: bool) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        // Whatever is written, in whatever width: KVM need not look at the instruction for that.
        let done = if on {
            self.vm.register_ioevent(event, &address, NoDatamatch)
        } else {
            self.vm.unregister_ioevent(event, &address, NoDatamatch)
        };
        Ok(done?)
    }
}

/// KVM's own routes (interrupt n is pin n of the I/O APIC, and of the two 8259s up to 15), and the
/// messages.
fn entries(messages: &[Option<Message>]) -> Vec<kvm_irq_routing_entry> {
    let pin = |gsi, irqchip, pin| kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: Target { irqchip: kvm_irq_routing_irqchip { irqchip, pin } },
        ..Default::default()
    };
    let mut entries: Vec<_> = (0..MSI_GSI).map(|gsi| pin(gsi, KVM_IRQCHIP_IOAPIC, gsi)).collect();
    entries.extend((0..PIC_PINS).map(|n| pin(n, KVM_IRQCHIP_PIC_MASTER, n)));
    entries.extend((0..PIC_PINS).map(|n| pin(PIC_PINS + n, KVM_IRQCHIP_PIC_SLAVE, n)));
    for (gsi, message) in (MSI_GSI..).zip(messages) {
        let Some(Message { address, data }) = *message else { continue };
        let msi = kvm_irq_routing_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            __bindgen_anon_1: DeviceId { devid: 0 },
        };
        let (type_, u) = (KVM_IRQ_ROUTING_MSI, Target { msi });
        entries.push(kvm_irq_routing_entry { gsi, type_, u, ..Default::default() });
    }
    entries
}
