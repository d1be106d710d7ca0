//! The machine's virtio devices behind the transport that its plan names.

use crate::chipset::bus::Bus;
use crate::chipset::pci::{Ecam, Function, PCI_SLOTS, PciMemory, PciRoot};
use crate::error::{OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{
    PCI_ECAM, PCI_ECAM_LEN, PCI_WINDOW, PCI_WINDOW_END, VIRTIO_BASE, VIRTIO_GSIS, VIRTIO_SLOTS,
    VIRTIO_STRIDE,
};
use crate::plan;
use crate::virtio::Notices;
use crate::virtio::device::{Device, Services, ThreadStart};
use crate::virtio::transport::Transport;
use crate::virtio::transport::mmio::MmioTransport;
use crate::virtio::transport::pci::{BAR_LEN, MsiRouting, PciTransport, vectors};
use crate::vmm::pci::{MsiRouter, irqfd};
use kvm_ioctls::{IoEventAddress, VmFd};
use std::sync::Arc;

/// A device with what serves its queues.
pub struct NewDevice {
    /// Where the guest finds it: [`plan::DeviceConfig::slot`].
    pub slot: u8,
    /// What the guest sees.
    pub device: Arc<dyn Device>,
    /// Of all of its queues.
    pub services: Services,
    /// Where it tells what goes wrong.
    pub notices: Notices,
}

/// Devices that a machine has room for.
pub fn slots(transport: plan::TransportKind) -> usize {
    match transport {
        plan::TransportKind::Mmio => VIRTIO_SLOTS,
        plan::TransportKind::Pci => PCI_SLOTS,
    }
}

/// All virtio devices of a machine.
pub struct Virtio {
    /// In the order of the devices.
    pub transports: Vec<Arc<dyn Transport>>,
    /// Where they are in memory.
    pub mmio: Bus,
    /// The bus they are on, which has ports, too.
    pub pci: Option<Arc<PciRoot>>,
}

impl Virtio {
    /// Put the devices, each in its slot, behind the transport. `on_start` is called first in each
    /// worker thread.
    ///
    /// # Errors
    /// A slot is beyond [`slots`] or taken twice, or KVM or the host refuses something.
    pub fn create(
        transport: plan::TransportKind,
        devices: Vec<NewDevice>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<Self> {
        match transport {
            plan::TransportKind::Mmio => Self::mmio(devices, vm, ram, on_start),
            plan::TransportKind::Pci => Self::pci(devices, vm, ram, on_start),
        }
    }

    fn mmio(
        devices: Vec<NewDevice>,
        vm: &VmFd,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<Self> {
        let (mut transports, mut mmio) = (Vec::<Arc<dyn Transport>>::new(), Bus::default());
        for NewDevice { slot, device, services, notices } in devices {
            let doing = || format!("create virtio slot {slot}");
            let base = VIRTIO_BASE + u64::from(slot) * VIRTIO_STRIDE;
            let gsi = VIRTIO_GSIS.get(usize::from(slot)).ok_or("there is none").or_fail(doing)?;
            let irq = irqfd(vm, *gsi)?;
            let transport =
                MmioTransport::new(device, services, ram.clone(), irq, notices, on_start);
            let transport = transport.or_fail(doing)?;
            for event in transport.ioeventfds(base).or_fail(doing)? {
                let address = IoEventAddress::Mmio(event.address);
                vm.register_ioevent(&event.fd, &address, event.datamatch).or_fail(doing)?;
            }
            mmio.insert(base, VIRTIO_STRIDE, transport.clone())?;
            transports.push(transport);
        }
        Ok(Self { transports, mmio, pci: None })
    }

    /// Each function's memory has its place from the beginning, as firmware would give it: a kernel
    /// that is booted directly has none.
    fn pci(
        devices: Vec<NewDevice>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<Self> {
        let router = Arc::new(MsiRouter::new(vm.clone()));
        let routing: Arc<dyn MsiRouting> = router.clone();
        let (mut transports, mut functions) =
            (Vec::<Arc<dyn Transport>>::new(), Vec::<(u8, Arc<dyn Function>)>::new());
        for NewDevice { slot, device, services, notices } in devices {
            let base = PCI_WINDOW as u32 + u32::from(slot) * BAR_LEN;
            let vectors = router.vectors(vectors(&*device))?;
            let ends = (vectors, routing.clone());
            let transport =
                PciTransport::new(device, services, ram.clone(), base, ends, notices, on_start)?;
            transports.push(transport.clone());
            functions.push((slot, transport));
        }
        let (root, mut mmio) = (PciRoot::new(functions)?, Bus::default());
        mmio.insert(PCI_ECAM, PCI_ECAM_LEN, Arc::new(Ecam(root.clone())))?;
        let memory = Arc::new(PciMemory(root.clone()));
        mmio.insert(PCI_WINDOW, PCI_WINDOW_END - PCI_WINDOW, memory)?;
        Ok(Self { transports, mmio, pci: Some(root) })
    }
}
