//! The machine's virtio devices behind the transport that its plan names.

use crate::chipset::bus::Bus;
use crate::chipset::pc;
use crate::chipset::pci::hotplug::HotPlug;
use crate::chipset::pci::{Ecam, Function, PciMemory, PciRoot};
use crate::error::{Error, OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{
    PCI_ECAM_LEN, PCI_WINDOW, VIRTIO_BASE, VIRTIO_GSIS, VIRTIO_SLOTS, VIRTIO_STRIDE,
};
use crate::nvme::{self, Controller, Drive};
use crate::plan;
use crate::sys::process::not_started;
use crate::virtio::Notices;
use crate::virtio::device::{Device, DeviceType, Services, ThreadStart};
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
    pub front: Front,
    /// Where it tells what goes wrong.
    pub notices: Notices,
}

/// What a guest sees of a device.
pub enum Front {
    /// A virtio device, with what serves all of its queues.
    Virtio(Arc<dyn Device>, Services),
    /// An NVMe controller.
    Nvme(Drive),
}

impl NewDevice {
    /// Its type.
    pub fn kind(&self) -> &'static DeviceType {
        match &self.front {
            Front::Virtio(device, _) => device.kind(),
            Front::Nvme(_) => &nvme::TYPE,
        }
    }
}

/// A function of a PCI bus: to the guest, and to the machine.
pub struct MadeFunction {
    /// To the guest.
    pub function: Arc<dyn Function>,
    /// To the machine.
    pub transport: Arc<dyn Transport>,
}

/// What a machine needs for disks to come and go while its guest runs.
pub struct HotSlots {
    /// Where functions come to.
    pub bus: PciBus,
    /// How the guest is told, and lets go.
    pub ports: Arc<HotPlug>,
}

impl HotSlots {
    /// Whether this slot takes devices.
    pub fn is_hot(&self, slot: u8) -> bool {
        self.ports.hot() >> slot & 1 != 0
    }
}

/// Devices that a machine has room for.
pub fn slots(config: &plan::VmConfig) -> usize {
    match config.chipset.transport {
        plan::TransportKind::Mmio => VIRTIO_SLOTS,
        plan::TransportKind::Pci => config.boot.pci_slots().into(),
    }
}

/// All virtio devices of a machine.
pub struct Virtio {
    /// In the order of the devices.
    pub transports: Vec<Arc<dyn Transport>>,
    /// Where they are in memory.
    pub mmio: Bus,
    /// The bus they are on, which has ports, too.
    pub pci: Option<PciBus>,
}

/// A PCI bus, and what its functions need of KVM.
pub struct PciBus {
    /// The bus.
    pub root: Arc<PciRoot>,
    router: Arc<MsiRouter>,
}

impl PciBus {
    /// Make a device a function. Its memory has its place from the beginning, as firmware would
    /// give it: a kernel that is booted directly has none. That place is in every machine's window.
    ///
    /// # Errors
    /// KVM or the host refuses something.
    pub fn make(
        &self,
        device: NewDevice,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<MadeFunction> {
        let NewDevice { slot, front, notices } = device;
        let base = PCI_WINDOW as u32 + u32::from(slot) * BAR_LEN;
        let routing = self.router.clone() as Arc<dyn MsiRouting>;
        let ram = ram.clone();
        match front {
            Front::Virtio(device, services) => {
                let ends = (self.router.vectors(vectors(&*device))?, routing);
                let made = PciTransport::new(device, services, ram, base, ends, notices, on_start)?;
                Ok(MadeFunction { function: made.clone(), transport: made })
            }
            Front::Nvme(drive) => {
                let ends = (self.router.vectors(nvme::vectors(&drive))?, routing);
                let made = Controller::new(drive, ram, base, ends, notices, on_start)?;
                Ok(MadeFunction { function: made.clone(), transport: made })
            }
        }
    }
}

impl Virtio {
    /// Put the devices, each in its slot, behind the transport. `on_start` is called first in each
    /// worker thread.
    ///
    /// # Errors
    /// A slot is beyond [`slots`] or taken twice, or KVM or the host refuses something.
    pub fn create(
        config: &plan::VmConfig,
        devices: Vec<NewDevice>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<Self> {
        match config.chipset.transport {
            plan::TransportKind::Mmio => Self::mmio(devices, vm, ram, on_start),
            plan::TransportKind::Pci => {
                let root = match config.boot.is_uefi() {
                    true => pc::bus(config.memory),
                    false => PciRoot::new([])?,
                };
                Self::pci(root, devices, vm, ram, on_start)
            }
        }
    }

    fn mmio(
        devices: Vec<NewDevice>,
        vm: &VmFd,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<Self> {
        let (mut transports, mut mmio) = (Vec::<Arc<dyn Transport>>::new(), Bus::default());
        for NewDevice { slot, front, notices } in devices {
            let Front::Virtio(device, services) = front else {
                return Err(Error::failure("an NVMe controller needs a PCI bus"));
            };
            let doing = || format!("create virtio slot {slot}");
            let base = VIRTIO_BASE + u64::from(slot) * VIRTIO_STRIDE;
            let gsi = VIRTIO_GSIS.get(usize::from(slot)).ok_or("there is none").or_fail(doing)?;
            let irq = irqfd(vm, *gsi)?;
            let transport =
                MmioTransport::new(device, services, ram.clone(), irq, notices, on_start);
            let transport = transport.map_err(|cause| not_started(doing(), cause))?;
            for event in transport.ioeventfds(base).or_fail(doing)? {
                let address = IoEventAddress::Mmio(event.address);
                vm.register_ioevent(&event.fd, &address, event.datamatch).or_fail(doing)?;
            }
            mmio.insert(base, VIRTIO_STRIDE, transport.clone())?;
            transports.push(transport);
        }
        Ok(Self { transports, mmio, pci: None })
    }

    fn pci(
        root: Arc<PciRoot>,
        devices: Vec<NewDevice>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        on_start: &ThreadStart,
    ) -> Result<Self> {
        let router = Arc::new(MsiRouter::new(vm.clone()));
        let bus = PciBus { root: root.clone(), router };
        let (mut transports, mut mmio) = (Vec::<Arc<dyn Transport>>::new(), Bus::default());
        for device in devices {
            let slot = device.slot;
            let made = bus.make(device, ram, on_start)?;
            transports.push(made.transport);
            root.plug(slot, made.function)?;
        }
        let map = root.map();
        mmio.insert(map.ecam, PCI_ECAM_LEN, Arc::new(Ecam(root.clone())))?;
        mmio.insert(map.window, map.window_end - map.window, Arc::new(PciMemory(root)))?;
        Ok(Self { transports, mmio, pci: Some(bus) })
    }
}
