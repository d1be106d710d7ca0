//! One machine, assembled from its plan in a straight line, and its end.
//!
//! The order is for speed: on recent hosts a change of memory slots after an interrupt controller or an
//! ioeventfd is registered waits out an RCU grace period, several milliseconds long. So: the VM, the addresses
//! that KVM needs for itself, ALL memory slots; then interrupt controllers, vCPUs, ioeventfds, irqfds. KVM's
//! default routing sends GSI n to I/O APIC pin n, which is what the ACPI tables say.
//!
//! The guest begins as soon as there is what it executes first. No kernel and no firmware looks for its disks in its first
//! milliseconds, so the event thread opens them and makes the virtio devices while the guest runs ([`Machine::add_devices`]);
//! an access that comes too early waits. No thread waits for another before: to wake one on an idle CPU may take longer than
//! all of the guest's first steps. So the thread that assembled the machine becomes the first vCPU's.

use crate::block::{self, Disk};
use crate::boot::Entry;
use crate::chipset::bus::{Bus, Late};
use crate::chipset::pci::ConfigPorts;
use crate::chipset::power::{
    ACPI_POWER_BASE, ACPI_POWER_LEN, AcpiPower, I8042, PowerSink, PvPanic, ResetControl,
};
use crate::chipset::serial::Serial;
use crate::error::{Error, OrFail, Result};
use crate::mem::layout::{
    COM1_GSI, COM1_PORT, GED_GSI, KVM_IDENTITY_MAP, KVM_TSS, PCI_CONFIG_LEN, PCI_CONFIG_PORT,
    PVPANIC_PORT,
};
use crate::mem::{GuestRam, ram};
use crate::plan::{self, DiskPlan, Engine, VmPlan};
use crate::sys::{fds, kvm};
use crate::virtio::Notices;
use crate::virtio::blk::Blk;
use crate::virtio::device::Handlers;
use crate::virtio::rng::Rng;
use crate::virtio::transport::Transport;
use crate::virtio::worker::ThreadStart;
use crate::vmm::console::Console;
use crate::vmm::cpuid::{Model, Supported};
use crate::vmm::devices::{self, NewDevice, Virtio};
use crate::vmm::gate::Gate;
use crate::vmm::menu::Chosen;
use crate::vmm::payload::Payload;
use crate::vmm::pc::Pc;
use crate::vmm::pci::irqfd;
use crate::vmm::regs;
use crate::vmm::report::Report;
use crate::vmm::sandbox::Filters;
use crate::vmm::vcpu::{self, Seat, Vcpu};
use kvm_bindings::{KVM_MP_STATE_UNINITIALIZED, kvm_irqchip};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A disk with the device in front of it.
struct MachineDisk {
    disk: Arc<dyn Disk>,
    device: Arc<Blk>,
    /// Keeps others from using the volume.
    hold: Option<OwnedFd>,
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
    shared: Arc<vcpu::Shared>,
    /// The ports to PCI configuration space, if there is a PCI bus.
    pci: Option<Arc<Late<ConfigPorts>>>,
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
    filters: Option<Arc<Filters>>,
}

impl Machine {
    /// Assemble all of the machine but its virtio devices. Nothing runs the guest yet.
    ///
    /// # Errors
    /// A descriptor is missing, a payload is not loadable, or KVM or the host refuses something.
    pub fn assemble(kvm: &Kvm, plan: VmPlan) -> Result<Self> {
        check(kvm, &plan)?;
        let payload = Payload::take(&plan.boot)?;
        let filters = plan.sandbox.then(|| Arc::new(Filters::new(plan.transport)));
        let Board { vm, ram, irqchips, vcpus, entry } = Board::create(kvm, &plan, &payload)?;
        let vm = Arc::new(vm);
        let gate = Arc::new(Gate::new()?);
        let vcpus = start_vcpus(vcpus, &Supported::new(kvm, &plan.cpuid)?, &entry)?;

        let console = Arc::new(Console::new(fds::take_file(plan.console)?)?);
        let serial = Arc::new(Serial::new(irqfd(&vm, COM1_GSI)?, console.clone()));
        let power = Arc::new(AcpiPower::new(gate.clone(), irqfd(&vm, GED_GSI)?));
        let pci = (plan.transport == plan::Transport::Pci).then(Arc::default);
        let mut pio = port_bus(&serial, &power, &gate, pci.as_ref())?;
        let sink: Arc<dyn PowerSink> = gate.clone();
        let (i8042, pc) = match &payload {
            Payload::Kernel { .. } => (I8042::ready(sink), None),
            Payload::Firmware(_) => {
                (I8042::absent(sink), Some(Pc::create(&plan, &vm, &ram, &mut pio, &gate)?))
            }
        };
        pio.insert(I8042::PORT.into(), 1, Arc::new(i8042))?;
        let first_io = plan.first_io.map(fds::take_file).transpose()?;
        let mmio = Late::default();
        let shared = Arc::new(vcpu::Shared { pio, mmio, gate: gate.clone(), first_io });
        Ok(Self {
            plan,
            payload: Mutex::new(payload),
            ram,
            vm,
            vcpus,
            irqchips,
            pc,
            shared,
            pci,
            disks: Vec::new(),
            transports: Vec::new(),
            power,
            serial,
            console,
            gate,
            filters,
        })
    }

    /// Let the guest run: the seats of its vCPUs, the first one first.
    pub fn run(&self) -> Vec<Seat> {
        self.gate.open();
        let seat = |vcpu: &Arc<Vcpu>| Seat {
            vcpu: vcpu.clone(),
            shared: self.shared.clone(),
            filters: self.filters.clone(),
        };
        self.vcpus.iter().map(seat).collect()
    }

    /// Open the disks and let the guest reach its virtio devices, from a thread that is not confined yet, once all vCPUs run.
    ///
    /// # Errors
    /// A descriptor is missing, a disk can't be opened, or KVM or the host refuses something.
    pub fn add_devices(&mut self, report: &Arc<Report>) -> Result<()> {
        // With as few host CPUs as guest CPUs, whatever this thread does would delay the guest.
        self.gate.wait_joined(self.vcpus.len());
        let (disks, devices) = devices(open_disks(&self.plan, report)?, report);
        let filters = self.filters.clone();
        let confine = move || filters.as_ref().map_or(Ok(()), |filters| filters.confine_worker());
        for disk in &disks {
            let begin = disk.disk.flush_aside(Box::new(confine.clone()));
            begin.or_fail(|| "start the thread that flushes a disk")?;
        }
        let on_start: ThreadStart = Arc::new(move |_| confine());
        let virtio = Virtio::create(self.plan.transport, devices, &self.vm, &self.ram, &on_start)?;
        (self.disks, self.transports) = (disks, virtio.transports);
        if let (Some(ports), Some(root)) = (&self.pci, virtio.pci) {
            ports.set(ConfigPorts::new(root, ResetControl(self.gate.clone())));
        }
        self.shared.mmio.set(virtio.mmio);
        Ok(())
    }

    /// Confine the calling thread, which serves events from now on.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine_event_thread(&self) -> Result<()> {
        self.filters.as_ref().map_or(Ok(()), |filters| filters.confine_event())
    }

    /// Bring all vCPUs to a halt at the gate.
    pub fn pause(&self) {
        self.gate.close(self.vcpus.len());
    }

    /// Bring the paused machine back to its beginning. The vCPUs run again when the gate opens. With it comes what a boot
    /// menu has chosen now, if one does.
    ///
    /// # Errors
    /// The payload cannot be loaded again, nothing boots by the menu any more, or KVM refuses.
    pub fn reset(&self) -> Result<Option<Chosen>> {
        self.transports.iter().for_each(|transport| transport.reset());
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

    /// vCPUs that the guest has brought up.
    pub fn cpus_online(&self) -> u32 {
        self.pause();
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
        self.transports.iter().for_each(|transport| transport.shutdown());
        for (plan, disk) in self.plan.disks.iter().zip(&self.disks) {
            if let Err(error) = disk.disk.close() {
                report.notice(&format!("cannot close disk {}: {error}", plan.volume_id));
            }
        }
    }
}

fn create_vm(kvm: &Kvm) -> Result<VmFd> {
    let vm = kvm.create_vm().or_fail(|| "create a VM (KVM_CREATE_VM)")?;
    vm.set_tss_address(KVM_TSS as usize).or_fail(|| "set KVM's TSS address")?;
    vm.set_identity_map_address(KVM_IDENTITY_MAP).or_fail(|| "set KVM's identity map address")?;
    Ok(vm)
}

/// Refuse what no machine can have.
fn check(kvm: &Kvm, plan: &VmPlan) -> Result<()> {
    let (cpus, most) = (plan.cpus, kvm.get_max_vcpus());
    if cpus == 0 || usize::from(cpus) > most {
        return Err(Error::failure(format!(
            "{cpus} CPUs are not possible: give 1 to {most}, which is what this host's KVM can do"
        )));
    }
    let (disks, most) = (plan.disks.len(), devices::slots(plan.transport) - 1);
    if disks > most {
        return Err(Error::failure(format!(
            "the plan has {disks} disks; a machine has room for {most}"
        )));
    }
    Ok(())
}

/// The VM and what it consists of before it has devices.
struct Board {
    vm: VmFd,
    ram: GuestRam,
    /// The interrupt controllers as KVM made them.
    irqchips: Vec<kvm_irqchip>,
    vcpus: Vec<VcpuFd>,
    entry: Entry,
}

impl Board {
    fn create(kvm: &Kvm, plan: &VmPlan, payload: &Payload) -> Result<Self> {
        let vm = create_vm(kvm)?;
        let ram = ram::create(plan.memory)?;
        let entry = payload.load(plan, plan.disks.len() + 1, &ram)?;
        kvm::set_memory(&vm, payload.memory(&ram))?;
        vm.create_irq_chip().or_fail(|| "create the interrupt controllers")?;
        let vcpus = (0..plan.cpus).map(|index| vm.create_vcpu(index.into()));
        let vcpus = vcpus.collect::<Result<_, _>>().or_fail(|| "create a vCPU")?;
        let irqchips = payload.irqchips().iter().map(|&chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip).or_fail(|| "read an interrupt controller")?;
            Ok(chip)
        });
        let irqchips = irqchips.collect::<Result<_>>()?;
        Ok(Self { vm, ram, irqchips, vcpus, entry })
    }
}

/// Set new vCPUs up for the machine's start.
fn start_vcpus(fds: Vec<VcpuFd>, cpuid: &Supported, entry: &Entry) -> Result<Vec<Arc<Vcpu>>> {
    let tsc_khz = fds.first().and_then(|fd| fd.get_tsc_khz().ok());
    let model = Model::new(cpuid, fds.len() as u8, tsc_khz);
    for (index, fd) in (0..).zip(&fds) {
        fd.set_cpuid2(&model.vcpu(index)?).or_fail(|| "set a vCPU's CPUID")?;
        regs::start(fd, index, (index == 0).then_some(entry))?;
    }
    Ok(fds.into_iter().map(|fd| Arc::new(Vcpu::new(fd))).collect())
}

fn port_bus(
    serial: &Arc<Serial>,
    power: &Arc<AcpiPower>,
    gate: &Arc<Gate>,
    pci: Option<&Arc<Late<ConfigPorts>>>,
) -> Result<Bus> {
    let sink: Arc<dyn PowerSink> = gate.clone();
    let mut bus = Bus::default();
    bus.insert(COM1_PORT.into(), 8, serial.clone())?;
    bus.insert(ACPI_POWER_BASE.into(), ACPI_POWER_LEN.into(), power.clone())?;
    match pci {
        None => {
            bus.insert(ResetControl::PORT.into(), 1, Arc::new(ResetControl(sink.clone())))?;
        }
        // The reset register lies in their midst.
        Some(ports) => {
            bus.insert(PCI_CONFIG_PORT.into(), PCI_CONFIG_LEN.into(), ports.clone())?;
        }
    }
    bus.insert(PVPANIC_PORT.into(), 1, Arc::new(PvPanic(sink)))?;
    Ok(bus)
}

fn open_disk(plan: &DiskPlan) -> Result<Arc<dyn Disk>> {
    let mut layers = Vec::with_capacity(plan.layers.len());
    for layer in &plan.layers {
        layers.push((fds::take_file(layer.fd)?, layer.format));
    }
    block::open(layers, plan.read_only).or_fail(|| format!("open disk {}", plan.volume_id))
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
fn open_disks(plan: &VmPlan, report: &Arc<Report>) -> Result<Vec<OpenDisk>> {
    let open = |plan: &DiskPlan| {
        let (disk, notices) = (open_disk(plan)?, notices(report));
        let blk = Blk::create(&plan.volume_id, &disk, plan.engine, plan.queues, notices.clone());
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

/// The engines in use, in the order of the disks.
pub fn engines(machine: &Machine) -> Vec<Engine> {
    machine.disks().map(|disk| disk.status().engine).collect()
}
