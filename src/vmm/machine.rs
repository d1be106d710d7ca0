//! One machine, assembled from its plan in a straight line, and its end.
//!
//! The guest begins as soon as there is what it executes first: KVM's [`Board`] and filled RAM. No kernel and no firmware
//! looks for its disks in its first milliseconds, so the event thread makes all devices while the guest runs already; an
//! access that comes too early waits ([`vcpu::Shared`]). Before that no thread waits for another, and none works for
//! another: to wake one on an idle CPU may take longer than all of the guest's first steps. So the thread that assembles
//! the machine becomes the first vCPU's.

use crate::block::{self, Disk};
use crate::boot::Entry;
use crate::chipset::bus::Bus;
use crate::chipset::pci::{ConfigPorts, PciRoot};
use crate::chipset::power::{
    ACPI_POWER_BASE, ACPI_POWER_LEN, AcpiPower, I8042, PowerSink, PvPanic, ResetControl,
};
use crate::chipset::serial::Serial;
use crate::error::{Error, OrFail, Result};
use crate::mem::layout::{
    COM1_GSI, COM1_PORT, GED_GSI, PCI_CONFIG_LEN, PCI_CONFIG_PORT, PVPANIC_PORT,
};
use crate::mem::{GuestRam, ram};
use crate::plan::{DiskPlan, Engine, VmPlan};
use crate::sys::fds;
use crate::virtio::Notices;
use crate::virtio::blk::Blk;
use crate::virtio::device::Handlers;
use crate::virtio::rng::Rng;
use crate::virtio::transport::Transport;
use crate::virtio::worker::{Ending, ThreadStart};
use crate::vmm::board::Board;
use crate::vmm::console::Console;
use crate::vmm::devices::{self, NewDevice, Virtio};
use crate::vmm::gate::Gate;
use crate::vmm::menu::Chosen;
use crate::vmm::payload::Payload;
use crate::vmm::pc::Pc;
use crate::vmm::pci::irqfd;
use crate::vmm::regs;
use crate::vmm::report::Report;
use crate::vmm::sandbox::{Filters, Role};
use crate::vmm::vcpu::{self, Seat, Vcpu};
use kvm_bindings::{KVM_MP_STATE_UNINITIALIZED, kvm_irqchip};
use kvm_ioctls::{Kvm, VmFd};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the end of a machine waits for what its devices have in flight: some dozen MiB at most. If the host's storage takes
/// longer the volumes are left as after a crash, which they are made for.
const REST: Duration = Duration::from_secs(2);

/// A disk with the device in front of it.
struct MachineDisk {
    disk: Arc<dyn Disk>,
    device: Arc<Blk>,
    /// Keeps others from using the volume.
    hold: Option<OwnedFd>,
}

/// A machine without devices, whose guest can begin.
pub struct Bare {
    plan: VmPlan,
    payload: Payload,
    ram: GuestRam,
    entry: Entry,
    board: Board,
    shared: Arc<vcpu::Shared>,
    filters: Option<Filters>,
}

impl Bare {
    /// Assemble the plan's machine, but for its devices.
    ///
    /// # Errors
    /// A descriptor is missing, a payload is not loadable, or KVM or the host refuses something.
    pub fn assemble(kvm: &Kvm, plan: VmPlan) -> Result<Self> {
        let (disks, most) = (plan.disks.len(), devices::slots(plan.transport) - 1);
        if disks > most {
            return Err(Error::failure(format!(
                "the plan has {disks} disks; a machine has room for {most}"
            )));
        }
        let payload = Payload::take(&plan.boot)?;
        let ram = ram::create(plan.memory)?;
        // The entropy device comes after the disks.
        let entry = payload.load(&plan, disks + 1, &ram)?;
        let board = Board::create(kvm, &plan, &payload, &ram, &entry)?;
        let first_io = plan.first_io.map(fds::take_file).transpose()?;
        let shared = Arc::new(vcpu::Shared::new(Arc::new(Gate::new()?), first_io));
        let vcpus = board.vcpus.iter().map(|vcpu| vcpu.lock().as_raw_fd());
        let filters = Filters::new(plan.transport, board.vm.as_raw_fd(), vcpus);
        let filters = plan.sandbox.then_some(filters);
        Ok(Self { plan, payload, ram, entry, board, shared, filters })
    }

    /// The seat of a vCPU; 0 is the boot processor, which every machine has.
    pub fn seat(&self, index: usize) -> Seat {
        let (shared, filters) = (self.shared.clone(), self.filters);
        Seat { vcpu: self.board.vcpus[index].clone(), shared, filters }
    }
}

/// A machine.
pub struct Machine {
    plan: VmPlan,
    payload: Mutex<Payload>,
    ram: GuestRam,
    vm: Arc<VmFd>,
    vcpus: Vec<Arc<Vcpu>>,
    /// The interrupt controllers as KVM made them.
    irqchips: Vec<kvm_irqchip>,
    pc: Option<Pc>,
    disks: Vec<MachineDisk>,
    transports: Vec<Arc<dyn Transport>>,
    /// The power button and what belongs to it.
    pub power: Arc<AcpiPower>,
    /// COM1.
    pub serial: Arc<Serial>,
    /// COM1's other end.
    pub console: Arc<Console>,
    /// Where vCPUs stop.
    pub gate: Arc<Gate>,
    filters: Option<Filters>,
}

impl Machine {
    /// Give it its devices and let all of its vCPUs run, on the event thread, which is not confined yet. The first vCPU
    /// runs already, or is about to.
    ///
    /// # Errors
    /// A descriptor is missing, a disk can't be opened, or KVM or the host refuses something.
    pub fn complete(bare: Bare, report: &Arc<Report>) -> Result<Self> {
        for index in 1..bare.board.vcpus.len() {
            bare.seat(index).spawn(index)?;
        }
        let Bare { plan, payload, ram, entry, board, shared, filters } = bare;
        let Board { vm, vcpus, irqchips, pit } = board;
        let gate = shared.gate.clone();
        // With as few host CPUs as guest CPUs, whatever this thread does would delay the guest.
        gate.wait_joined(vcpus.len());
        let console = Arc::new(Console::new(fds::take_file(plan.console)?)?);
        let serial = Arc::new(Serial::new(irqfd(&vm, COM1_GSI)?, console.clone()));
        let power = Arc::new(AcpiPower::new(gate.clone(), irqfd(&vm, GED_GSI)?));
        let (disks, devices) = devices(open_disks(&plan, filters, report)?, report);
        let on_start: ThreadStart = Arc::new(move |kind| confine(filters, Role::worker(kind)));
        let Virtio { transports, mmio, pci } =
            Virtio::create(plan.transport, devices, &vm, &ram, &on_start)?;
        let mut pio = port_bus(&serial, &power, &gate, pci)?;
        let sink: Arc<dyn PowerSink> = gate.clone();
        let i8042 = match entry {
            Entry::Kernel(_) => I8042::ready(sink),
            Entry::Reset => I8042::absent(sink),
        };
        pio.insert(I8042::PORT.into(), 1, Arc::new(i8042))?;
        let pc = pit.map(|pit| Pc::create(&plan, pit, &ram, &mut pio, &gate)).transpose()?;
        shared.set_buses(pio, mmio);
        Ok(Self {
            plan,
            payload: Mutex::new(payload),
            ram,
            vm,
            vcpus,
            irqchips,
            pc,
            disks,
            transports,
            power,
            serial,
            console,
            gate,
            filters,
        })
    }

    /// Confine the calling thread, which serves events from now on.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine_event_thread(&self) -> Result<()> {
        confine(self.filters, Role::Event)
    }

    /// Bring all vCPUs to a halt at the gate. False if one does not come in time: it waits for a device that waits for the
    /// host's storage. The gate is closed to it nonetheless.
    pub fn pause(&self, patience: Duration) -> bool {
        self.gate.close(self.vcpus.len(), patience)
    }

    /// Bring the paused machine back to its beginning. The vCPUs run again when the gate opens. With it comes what a boot
    /// menu has chosen now, if one does.
    ///
    /// # Errors
    /// The payload cannot be loaded again, nothing boots by the menu any more, or KVM refuses.
    pub fn reset(&self) -> Result<Option<Chosen>> {
        let mut rest = true;
        for transport in &self.transports {
            rest &= transport.reset();
        }
        if !rest {
            let why = "a disk does not come to rest: the host's storage does not answer";
            return Err(Error::failure(why));
        }
        let mut payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = payload.choose(self.media().next())?;
        self.power.reset();
        ram::clear(&self.ram)?;
        let entry = payload.load(&self.plan, self.transports.len(), &self.ram)?;
        for chip in &self.irqchips {
            self.vm.set_irqchip(chip).or_fail(|| "reset an interrupt controller")?;
        }
        self.pc.as_ref().map_or(Ok(()), |pc| pc.reset(&self.vm))?;
        for (index, vcpu) in (0..).zip(&self.vcpus) {
            regs::reset(&vcpu.lock(), index, (index == 0).then_some(&entry))?;
        }
        self.serial.reset();
        Ok(chosen)
    }

    /// vCPUs that the guest has brought up; 0 if they can't be asked in time.
    pub fn cpus_online(&self) -> u32 {
        if !self.pause(Duration::from_secs(1)) {
            self.gate.open();
            return 0;
        }
        let up = |vcpu: &&Arc<Vcpu>| {
            vcpu.lock().get_mp_state().is_ok_and(|s| s.mp_state != KVM_MP_STATE_UNINITIALIZED)
        };
        let online = self.vcpus.iter().filter(up).count() as u32;
        self.gate.open();
        online
    }

    /// What the block devices are of, in order.
    pub fn media(&self) -> impl Iterator<Item = &dyn Disk> {
        self.disks.iter().map(|disk| &*disk.disk)
    }

    /// The block devices, in order.
    pub fn disks(&self) -> impl Iterator<Item = &Blk> {
        self.disks.iter().map(|disk| &*disk.device)
    }

    /// Let others use the volumes. Nothing is written to them any more.
    pub fn release(&mut self) {
        self.disks.iter_mut().for_each(|disk| drop(disk.hold.take()));
    }

    /// Finish what devices have begun, end their threads and make every disk durable. The vCPUs are paused.
    /// What does not work goes to `report`; there is no later.
    pub fn close(&self, report: &Report) {
        let deadline = Instant::now() + REST;
        self.transports.iter().flat_map(|transport| transport.endings()).for_each(Ending::order);
        // Disks come first among the devices.
        let rest: Vec<_> = self.transports.iter().map(|t| t.shutdown(deadline)).collect();
        for ((plan, disk), rests) in self.plan.disks.iter().zip(&self.disks).zip(rest) {
            let closed = if rests { disk.disk.close() } else { Err(ErrorKind::TimedOut.into()) };
            if let Err(error) = closed {
                report.notice(&format!("cannot close disk {}: {error}", plan.volume_id));
            }
        }
    }
}

fn port_bus(
    serial: &Arc<Serial>,
    power: &Arc<AcpiPower>,
    gate: &Arc<Gate>,
    pci: Option<Arc<PciRoot>>,
) -> Result<Bus> {
    let sink: Arc<dyn PowerSink> = gate.clone();
    let mut bus = Bus::default();
    bus.insert(COM1_PORT.into(), 8, serial.clone())?;
    bus.insert(ACPI_POWER_BASE.into(), ACPI_POWER_LEN.into(), power.clone())?;
    let reset = ResetControl(sink.clone());
    match pci {
        None => bus.insert(ResetControl::PORT.into(), 1, Arc::new(reset))?,
        Some(root) => {
            let ports = Arc::new(ConfigPorts::new(root, reset));
            bus.insert(PCI_CONFIG_PORT.into(), PCI_CONFIG_LEN.into(), ports)?;
        }
    }
    bus.insert(PVPANIC_PORT.into(), 1, Arc::new(PvPanic(sink)))?;
    Ok(bus)
}

/// Its tables may be anybody's, so that the thread which reads them is confined.
fn open_disk(plan: &DiskPlan, filters: Option<Filters>) -> Result<Arc<dyn Disk>> {
    let mut layers = Vec::with_capacity(plan.layers.len());
    for layer in &plan.layers {
        layers.push((fds::take_file(layer.fd)?, layer.format));
    }
    let begin = Box::new(move || confine(filters, Role::Commit));
    block::open_aside(layers, plan.read_only, begin)
        .or_fail(|| format!("open disk {}", plan.volume_id))
}

/// A disk that is open, and what the guest's device for it needs.
struct OpenDisk {
    disk: MachineDisk,
    handlers: Handlers,
    notices: Notices,
}

fn notices(report: &Arc<Report>) -> Notices {
    let report = report.clone();
    Notices::new(Arc::new(move |message: &str| report.notice(message)))
}

/// Open the plan's disks, with their engines.
fn open_disks(
    plan: &VmPlan,
    filters: Option<Filters>,
    report: &Arc<Report>,
) -> Result<Vec<OpenDisk>> {
    let open = |plan: &DiskPlan| {
        let (disk, notices) = (open_disk(plan, filters)?, notices(report));
        let blk = Blk::create(
            &plan.volume_id,
            &disk,
            plan.engine,
            plan.queues,
            plan.limits,
            notices.clone(),
        );
        let (device, handlers) = blk.or_fail(|| format!("start disk {}", plan.volume_id))?;
        let hold = plan.hold.map(fds::take).transpose()?;
        Ok(OpenDisk { disk: MachineDisk { disk, device, hold }, handlers, notices })
    };
    plan.disks.iter().map(open).collect()
}

/// The machine's devices: disks in the plan's order, then entropy.
fn devices(disks: Vec<OpenDisk>, report: &Arc<Report>) -> (Vec<MachineDisk>, Vec<NewDevice>) {
    let (mut machine_disks, mut devices) = (Vec::with_capacity(disks.len()), Vec::new());
    for OpenDisk { disk, handlers, notices } in disks {
        devices.push(NewDevice { device: disk.device.clone(), handlers, notices });
        machine_disks.push(disk);
    }
    let (device, handlers) = Rng::create();
    devices.push(NewDevice { device, handlers, notices: notices(report) });
    (machine_disks, devices)
}

/// What a thread with this role does first.
fn confine(filters: Option<Filters>, role: Role) -> Result<()> {
    filters.map_or(Ok(()), |filters| filters.confine(role))
}

/// The engines in use, in the order of the disks.
pub fn engines(machine: &Machine) -> Vec<Engine> {
    machine.disks().map(|disk| disk.status().engine).collect()
}
