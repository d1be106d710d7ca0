//! One machine, assembled from its plan in a straight line, and its end.
//!
//! The guest begins as soon as there is what it executes first: KVM's [`KvmVm`] and filled RAM. No
//! kernel and no firmware looks for its disks in its first milliseconds, so the event thread makes
//! all devices while the guest runs already; an access that comes too early waits
//! ([`vcpu::Shared`]). Before that no thread waits for another, and none works for another: to wake
//! one on an idle CPU may take longer than all of the guest's first steps. So the thread that
//! assembles the machine becomes the first vCPU's.

use crate::block::{self, Disk, FileDisk};
use crate::boot::generation;
use crate::chipset::bus::Bus;
use crate::chipset::pci::ConfigPorts;
use crate::chipset::pci::hotplug::HotPlug;
use crate::chipset::power::{
    ACPI_POWER_BASE, ACPI_POWER_LEN, AcpiPower, I8042, PowerSink, PvPanic, ResetControl,
};
use crate::chipset::serial::Serial;
use crate::error::{Error, OrFail, Result};
use crate::mem::layout::{
    COM1_GSI, COM1_PORT, GED_GSI, PCI_CONFIG_LEN, PCI_CONFIG_PORT, PCI_HOTPLUG_LEN,
    PCI_HOTPLUG_PORT, PVPANIC_PORT,
};
use crate::mem::{GuestRam, ram};
use crate::nvme::Drive;
use crate::plan::{
    DeviceConfig, DeviceId, DeviceKind, DiskBus, DiskFormat, DiskPlan, Engine, NetPlan, VmConfig,
    VmPlan,
};
use crate::sys::seccomp::Filter;
use crate::sys::tap::Tap;
use crate::sys::{fault, fds};
use crate::virtio::Notices;
use crate::virtio::blk::{Blk, DiskDevice};
use crate::virtio::command::Ending;
use crate::virtio::device::{DeviceType, Services, ThreadStart};
use crate::virtio::fs::Fs;
use crate::virtio::net::{Net, NetConfig, Port};
use crate::virtio::rng::Rng;
use crate::virtio::transport::Transport;
use crate::virtio::vsock::Vsock;
use crate::vmm::cdrom;
use crate::vmm::component::Component;
use crate::vmm::console::Console;
use crate::vmm::devices::{self, Front, HotSlots, NewDevice, PciBus, Virtio};
use crate::vmm::kvm_vm::{KvmVm, Start};
use crate::vmm::menu::Selection;
use crate::vmm::payload::Payload;
use crate::vmm::pc::Pc;
use crate::vmm::pci::irqfd;
use crate::vmm::report::Report;
use crate::vmm::resume::Resuming;
use crate::vmm::run_state::RunState;
use crate::vmm::sandbox::{Filters, Role};
use crate::vmm::state::{Clock, Generation, Irqchips, Pit, Processors, Software, VirtioDevice};
use crate::vmm::vcpu::{self, VcpuThread};
use crate::vmm::vcpu_barrier::VcpuBarrier;
use kvm_ioctls::Kvm;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How long a hibernated machine's vCPU threads have to begin.
const RESTORE_PATIENCE: Duration = Duration::from_secs(30);

/// A disk with the device in front of it.
pub struct MachineDisk {
    /// What the plan calls it.
    pub id: DeviceId,
    /// Its content.
    pub disk: Arc<FileDisk>,
    /// What the guest sees.
    pub device: Arc<dyn DiskDevice>,
    /// Its slot.
    pub(super) slot: u8,
    /// The guest's driver has it or had it, as far as anybody looked.
    pub(super) taken: AtomicBool,
    /// Keeps others from using the volume.
    pub(super) hold: Option<OwnedFd>,
}

/// A machine without devices, whose guest can begin.
pub struct MachineCore {
    plan: VmPlan,
    payload: Payload,
    ram: GuestRam,
    start: Start,
    kvm_vm: KvmVm,
    shared: Arc<vcpu::Shared>,
    filters: Option<Filters>,
}

impl MachineCore {
    /// Assemble the plan's machine, but for its devices.
    ///
    /// # Errors
    /// A descriptor is missing, a payload is not loadable, or KVM or the host refuses something.
    pub fn assemble(kvm: Kvm, mut plan: VmPlan) -> Result<Self> {
        let transport = plan.config.chipset.transport;
        plan.config.check(devices::slots(&plan.config))?;
        let payload = Payload::take(&plan.config.boot)?;
        let ram = ram::create(plan.config.memory)?;
        let (start, run) = match plan.resume {
            None => (Start::Entry(payload.load(&plan, &ram)?), RunState::Running),
            Some(fd) => {
                fault::vmm_point();
                let resuming = Resuming::read(fds::take_file(fd)?, &mut plan)?;
                resuming.map(&ram)?;
                fault::vmm_point();
                (Start::Saved(resuming), RunState::Paused)
            }
        };
        let kvm_vm = KvmVm::create(kvm, &plan, &payload, &ram, &start)?;
        let first_io = plan.first_io.map(fds::take_file).transpose()?;
        let shared = Arc::new(vcpu::Shared::new(Arc::new(VcpuBarrier::new(run)?), first_io));
        let vcpus = kvm_vm.vcpus.iter().map(|vcpu| vcpu.lock().as_raw_fd());
        let system = (kvm_vm.kvm.as_raw_fd(), kvm_vm.vm.as_raw_fd());
        let filters = Filters::new(transport, system, vcpus);
        let filters = plan.sandbox.then_some(filters);
        Ok(Self { plan, payload, ram, start, kvm_vm, shared, filters })
    }

    /// The thread of a vCPU, to be run; 0 is the boot processor, which every machine has.
    pub fn vcpu_thread(&self, index: usize) -> VcpuThread {
        let (shared, filters) = (self.shared.clone(), self.filters);
        VcpuThread { vcpu: self.kvm_vm.vcpus[index].clone(), shared, filters }
    }
}

/// A machine.
pub struct Machine {
    plan: Arc<VmPlan>,
    /// What it is, if that is not what the plan says any more.
    changed: Option<VmConfig>,
    pub(super) ram: GuestRam,
    /// All that has a state, in the order of [`Component`]'s walks.
    pub(super) parts: Vec<Arc<dyn Component>>,
    processors: Arc<Processors>,
    software: Arc<Software>,
    pub(super) disks: Vec<MachineDisk>,
    interfaces: Vec<(DeviceId, Arc<Net>)>,
    vsock: Option<Arc<Vsock>>,
    shares: Vec<(DeviceId, Arc<Fs>)>,
    /// A queue of each interface's tap.
    taps: Vec<(DeviceId, OwnedFd)>,
    /// With their slots.
    pub(super) transports: Vec<(u8, Arc<dyn Transport>)>,
    /// How devices come and go while the guest runs, if they can.
    pub(super) hot: Option<HotSlots>,
    /// The power button and what belongs to it.
    pub power: Arc<AcpiPower>,
    /// COM1.
    pub serial: Arc<Serial>,
    /// COM1's other end.
    pub console: Arc<Console>,
    /// Where vCPUs stop.
    pub barrier: Arc<VcpuBarrier>,
    pub(super) filters: Option<Filters>,
}

impl Machine {
    /// Give it its devices and let all of its vCPUs run, on the event thread, which is not confined
    /// yet. The first vCPU runs already, or is about to; that of a hibernated machine waits until
    /// everything is as it was.
    ///
    /// # Errors
    /// A descriptor is missing, a disk can't be opened, or KVM or the host refuses something.
    pub fn complete(core: MachineCore, report: &Arc<Report>) -> Result<Self> {
        for index in 1..core.kvm_vm.vcpus.len() {
            core.vcpu_thread(index).spawn(index)?;
        }
        let MachineCore { plan, payload, ram, start, kvm_vm, shared, filters } = core;
        let KvmVm { vm, vcpus, irqchips, kvm, model, pit } = kvm_vm;
        let (plan, barrier) = (Arc::new(plan), shared.barrier.clone());
        // With as few host CPUs as guest CPUs, whatever this thread does would delay the guest.
        barrier.wait_joined(vcpus.len());
        let times = plan.times.map(fds::take_file).transpose()?;
        let console = Arc::new(Console::new(fds::take_file(plan.console)?, times)?);
        let serial = Arc::new(Serial::new(irqfd(&vm, COM1_GSI)?, console.clone()));
        let power = Arc::new(AcpiPower::new(barrier.clone(), irqfd(&vm, GED_GSI)?));
        let Opened { disks, interfaces, taps, vsock, shares, devices } =
            open_devices(&plan.config, filters, report)?;
        let on_start = thread_start(filters, &devices)?;
        let Virtio { transports, mut mmio, pci } =
            Virtio::create(&plan.config, devices, &vm, &ram, &on_start)?;
        let hot = pci.map(|bus| hot_slots(bus, &plan.config)).transpose()?;
        let (mut pio, config_ports) =
            port_bus(&serial, &power, &barrier, hot.as_ref(), pit.is_some())?;
        let own = (hot.as_ref().map(|hot| hot.bus.root.clone()), payload.variables());
        let pc = |_| Pc::create(&plan, &ram, (&mut pio, &mut mmio), own, &barrier);
        let pc = pit.as_ref().map(pc).transpose()?;
        shared.set_buses(pio, mmio);
        let menus = disks.iter().filter(|disk| plan.config.boot.menu_disk() == Some(&disk.id));
        let menus = menus.map(|disk| (disk.id.clone(), disk.disk.clone())).collect();
        let software = Arc::new(Software::new(plan.clone(), ram.clone(), payload, menus));
        let generation = generation::address(&plan.config);
        let processors = Arc::new(Processors::new(kvm, model, vcpus, software.clone()));
        let mut parts: Vec<Arc<dyn Component>> = vec![
            processors.clone(),
            Arc::new(Irqchips::new(vm.clone(), irqchips)),
            Arc::new(Clock(vm.clone())),
            software.clone(),
            serial.clone(),
            power.clone(),
            Arc::new(Generation::new(ram.clone(), generation, power.clone())),
        ];
        parts.extend(pit.map(|pit| Arc::new(Pit::new(vm, pit)) as Arc<dyn Component>));
        parts.extend(pc.into_iter().flat_map(Pc::into_parts));
        parts.extend(config_ports.map(|ports| ports as Arc<dyn Component>));
        parts.extend(hot.as_ref().map(|hot| hot.ports.clone() as Arc<dyn Component>));
        let slots: Vec<u8> = plan.config.devices.iter().map(|device| device.slot).collect();
        parts.extend(virtio_parts(&plan.config, &transports, &disks));
        let machine = Self {
            plan,
            changed: None,
            ram,
            parts,
            processors,
            software,
            disks,
            interfaces,
            vsock,
            shares,
            taps,
            transports: slots.into_iter().zip(transports).collect(),
            hot,
            power,
            serial,
            console,
            barrier,
            filters,
        };
        if let Start::Saved(resuming) = start {
            machine.go_on(&resuming, report)?;
        }
        Ok(machine)
    }

    /// Bring every part to where it was, and let the guest run on.
    fn go_on(&self, resuming: &Resuming, report: &Report) -> Result<()> {
        if !self.pause(RESTORE_PATIENCE) {
            return Err(Error::failure("a vCPU's thread does not begin"));
        }
        for part in &self.parts {
            fault::vmm_point();
            match resuming.saved().part(part.name()) {
                Ok(state) => part.restore(state)?,
                Err(_) if part.restore_new() => {}
                Err(missing) => return Err(missing),
            }
        }
        // From here on the guest may write to its volumes: its memory file is of the past.
        fault::vmm_point();
        report.resumed()?;
        fault::vmm_point();
        self.resume();
        fault::vmm_point();
        self.barrier.open();
        fault::vmm_point();
        Ok(())
    }

    /// Confine the calling thread, which serves events from now on.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn confine_event_thread(&self) -> Result<()> {
        self.filters.map_or(Ok(()), |filters| filters.confine(Role::Event))
    }

    /// Bring all vCPUs to a halt at the barrier. False if one does not come in time: it waits for a
    /// device that waits for the host's storage. The barrier is closed to it nonetheless.
    pub fn pause(&self, patience: Duration) -> bool {
        self.barrier.close(self.processors.vcpus.len(), patience)
    }

    /// Let all parts of the paused machine go on; the vCPUs do when the barrier opens.
    pub fn resume(&self) {
        self.parts.iter().for_each(|part| part.resume());
    }

    /// The states of all parts of the paused machine, which stand still from then on until
    /// [`Self::resume`].
    ///
    /// # Errors
    /// One does not come to rest, or can't be saved.
    pub fn save(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.parts.iter().rev().try_for_each(|part| part.pause())?;
        let save = |part: &Arc<dyn Component>| Ok((part.name().to_owned(), part.save()?));
        self.parts.iter().rev().map(save).collect()
    }

    /// Bring the paused machine back to its beginning. The vCPUs run again when the barrier opens.
    /// With it comes what a boot menu has chosen now, if one does.
    ///
    /// # Errors
    /// The payload cannot be loaded again, nothing boots by the menu any more, or KVM refuses.
    pub fn reset(&self) -> Result<Option<Selection>> {
        self.parts.iter().rev().try_for_each(|part| part.reset())?;
        Ok(self.software.take_selection())
    }

    /// vCPUs that the guest of a paused machine has brought up.
    pub fn cpus_online_paused(&self) -> u32 {
        self.processors.online()
    }

    /// vCPUs that the guest has brought up; 0 if they can't be asked in time.
    pub fn cpus_online(&self) -> u32 {
        let stand = self.pause(Duration::from_secs(1));
        let online = if stand { self.processors.online() } else { 0 };
        self.barrier.open();
        online
    }

    /// What it is.
    pub fn config(&self) -> &VmConfig {
        self.changed.as_ref().unwrap_or(&self.plan.config)
    }

    /// What it is, to be changed.
    pub(super) fn config_mut(&mut self) -> &mut VmConfig {
        self.changed.get_or_insert_with(|| self.plan.config.clone())
    }

    /// Its RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Its disks, in the plan's order.
    pub fn disks(&self) -> impl Iterator<Item = &MachineDisk> {
        self.disks.iter()
    }

    /// A queue of an interface's tap.
    pub fn tap(&self, interface: &DeviceId) -> Option<BorrowedFd<'_>> {
        self.taps.iter().find(|(id, _)| id == interface).map(|(_, tap)| tap.as_fd())
    }

    /// Its network interfaces, in the plan's order.
    pub fn interfaces(&self) -> impl Iterator<Item = &(DeviceId, Arc<Net>)> {
        self.interfaces.iter()
    }

    /// Shared directories whose servers are gone, and why.
    pub fn lost_shares(&self) -> BTreeMap<DeviceId, String> {
        self.shares.iter().filter_map(|(id, share)| Some((id.clone(), share.lost()?))).collect()
    }

    /// What the guest's service manager has said of itself.
    pub fn notified(&self) -> BTreeMap<String, String> {
        self.vsock.as_ref().map(|vsock| vsock.notified()).unwrap_or_default()
    }

    /// The content of the disk with this name.
    pub fn disk(&self, id: &DeviceId) -> Option<&FileDisk> {
        self.disks.iter().find(|disk| disk.id == *id).map(|disk| &*disk.disk)
    }

    /// Let others use the volumes. Nothing is written to them any more.
    pub fn release(&mut self) {
        self.disks.iter_mut().for_each(|disk| drop(disk.hold.take()));
    }

    /// Finish what devices have begun, end their threads and make every disk durable. The vCPUs are
    /// paused. What does not work, or not within `patience`, goes to `report`; there is no later.
    /// True if all did.
    pub fn close(&self, report: &Report, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        // All at once; their ends are waited for one by one.
        let transports = self.transports.iter();
        transports.flat_map(|(_, transport)| transport.endings()).for_each(Ending::order);
        let halt = |part: &Arc<dyn Component>| {
            let halted = part.halt(deadline);
            halted.inspect_err(|error| report.notice(&error.to_string())).is_ok()
        };
        self.parts.iter().rev().map(halt).fold(true, |all, halted| all & halted)
    }
}

fn virtio_parts<'a>(
    config: &'a VmConfig,
    transports: &'a [Arc<dyn Transport>],
    disks: &'a [MachineDisk],
) -> impl Iterator<Item = Arc<dyn Component>> + 'a {
    config.devices.iter().zip(transports).map(|(device, transport)| {
        let disk = disks.iter().find(|disk| disk.slot == device.slot);
        let disk = disk.map(|disk| disk.disk.clone());
        Arc::new(VirtioDevice::new(&device.id, transport.clone(), disk)) as Arc<dyn Component>
    })
}

fn hot_slots(bus: PciBus, config: &VmConfig) -> Result<HotSlots> {
    let wake = fds::eventfd().or_fail(|| "create an eventfd")?;
    let ports = Arc::new(HotPlug::new(bus.root.clone(), config.hot_slots(), wake));
    Ok(HotSlots { bus, ports })
}

fn port_bus(
    serial: &Arc<Serial>,
    power: &Arc<AcpiPower>,
    barrier: &Arc<VcpuBarrier>,
    hot: Option<&HotSlots>,
    firmware: bool,
) -> Result<(Bus, Option<Arc<ConfigPorts>>)> {
    let sink: Arc<dyn PowerSink> = barrier.clone();
    let mut bus = Bus::default();
    let i8042 = if firmware { I8042::absent(sink.clone()) } else { I8042::ready(sink.clone()) };
    bus.insert(I8042::PORT.into(), 1, Arc::new(i8042))?;
    bus.insert(COM1_PORT.into(), 8, serial.clone())?;
    bus.insert(ACPI_POWER_BASE.into(), ACPI_POWER_LEN.into(), power.clone())?;
    let reset = ResetControl(sink.clone());
    let mut config_ports = None;
    match hot {
        None => bus.insert(ResetControl::PORT.into(), 1, Arc::new(reset))?,
        Some(HotSlots { bus: pci, ports: hot_plug }) => {
            let ports = Arc::new(ConfigPorts::new(pci.root.clone(), reset));
            let ports = config_ports.insert(ports).clone();
            bus.insert(PCI_CONFIG_PORT.into(), PCI_CONFIG_LEN.into(), ports)?;
            bus.insert(PCI_HOTPLUG_PORT.into(), PCI_HOTPLUG_LEN.into(), hot_plug.clone())?;
        }
    }
    bus.insert(PVPANIC_PORT.into(), 1, Arc::new(PvPanic(sink)))?;
    Ok((bus, config_ports))
}

/// Its tables may be anybody's, so that the thread which reads them is confined.
fn open_disk(plan: &DiskPlan, filter: Option<Arc<Filter>>) -> Result<Arc<FileDisk>> {
    let mut layers = Vec::with_capacity(plan.layers.len());
    for layer in &plan.layers {
        layers.push((fds::take_file(layer.fd)?, layer.format));
    }
    open_layers(plan, layers, filter)
}

/// As [`open_disk`], of these files.
pub(super) fn open_layers(
    plan: &DiskPlan,
    layers: Vec<(File, DiskFormat)>,
    filter: Option<Arc<Filter>>,
) -> Result<Arc<FileDisk>> {
    let begin = Box::new(move || filter.map_or(Ok(()), |filter| filter.apply()));
    block::open_aside(layers, plan.read_only, begin)
        .or_fail(|| format!("open disk {}", plan.volume_id))
}

pub(super) fn notices(report: &Arc<Report>) -> Notices {
    let report = report.clone();
    Notices::new(Arc::new(move |message: &str| report.notice(message)))
}

/// The devices of a configuration.
#[derive(Default)]
struct Opened {
    disks: Vec<MachineDisk>,
    interfaces: Vec<(DeviceId, Arc<Net>)>,
    vsock: Option<Arc<Vsock>>,
    shares: Vec<(DeviceId, Arc<Fs>)>,
    taps: Vec<(DeviceId, OwnedFd)>,
    /// All of them, in the configuration's order.
    devices: Vec<NewDevice>,
}

/// Open the configuration's devices, in its order; disks with their engines.
fn open_devices(
    config: &VmConfig,
    filters: Option<Filters>,
    report: &Arc<Report>,
) -> Result<Opened> {
    let mut opened = Opened::default();
    let commit = filters.map(|filters| filters.compile(Role::Commit)).transpose()?.map(Arc::new);
    for DeviceConfig { id, slot, kind } in &config.devices {
        let notices = notices(report);
        let front = match kind {
            DeviceKind::Disk(plan) => {
                let disk = open_disk(plan, commit.clone())?;
                let (bus, content) = (config.chipset.disk_bus, disk.clone());
                let (device, front) = start_disk(id, plan, bus, content, notices.clone())?;
                let hold = plan.hold.map(fds::take).transpose()?;
                // The guest finds it as it begins.
                let (id, slot, taken) = (id.clone(), *slot, AtomicBool::new(true));
                opened.disks.push(MachineDisk { id, disk, device, slot, taken, hold });
                front
            }
            DeviceKind::Entropy => {
                let (device, services) = Rng::create();
                Front::Virtio(device, services)
            }
            DeviceKind::Net(plan) => {
                let (device, services, tap) = start_interface(id, plan, notices.clone())?;
                opened.interfaces.push((id.clone(), device.clone()));
                opened.taps.push((id.clone(), tap));
                Front::Virtio(device, services)
            }
            DeviceKind::Vsock(plan) => {
                let (device, services) =
                    Vsock::create(fds::take(plan.stream)?, fds::take(plan.seqpacket)?)?;
                opened.vsock = Some(device.clone());
                Front::Virtio(device, services)
            }
            DeviceKind::Share(plan) => {
                let server = fds::take(plan.server)?;
                let (device, services) = Fs::create(&plan.tag, server, notices.clone());
                opened.shares.push((id.clone(), device.clone()));
                Front::Virtio(device, services)
            }
            DeviceKind::Cdrom(plan) => {
                let disk = cdrom::open(id, plan, commit.clone())?;
                let (device, services) = cdrom::start(id, plan, &disk, notices.clone())?;
                let (id, slot, taken) = (id.clone(), *slot, AtomicBool::new(true));
                let front = Front::Virtio(device.clone(), services);
                opened.disks.push(MachineDisk { id, disk, device, slot, taken, hold: None });
                front
            }
        };
        opened.devices.push(NewDevice { slot: *slot, front, notices });
    }
    Ok(opened)
}

/// The device in front of an open disk: to the machine, and to the guest.
pub(super) fn start_disk(
    id: &DeviceId,
    plan: &DiskPlan,
    bus: DiskBus,
    disk: Arc<dyn Disk>,
    notices: Notices,
) -> Result<(Arc<dyn DiskDevice>, Front)> {
    let doing = || format!("start disk {}", plan.volume_id);
    let DiskPlan { volume_id, engine, queues, limits, .. } = plan;
    match bus {
        DiskBus::Virtio => {
            let made = Blk::create(volume_id, &disk, *engine, *queues, *limits, notices);
            let (device, services) = made.or_fail(doing)?;
            Ok((device.clone(), Front::Virtio(device, services)))
        }
        DiskBus::Nvme => {
            let limits = (*limits, notices);
            let made = Drive::create(volume_id, id.as_str(), &disk, *engine, *queues, limits);
            let drive = made.or_fail(doing)?;
            Ok((drive.namespace.clone(), Front::Nvme(drive)))
        }
    }
}

/// The device in front of a tap.
fn start_interface(
    id: &DeviceId,
    plan: &NetPlan,
    notices: Notices,
) -> Result<(Arc<Net>, Services, OwnedFd)> {
    let taps = plan.taps.iter().map(|fd| fds::take(*fd)).collect::<Result<Vec<OwnedFd>>>()?;
    let first = taps.first().ok_or_else(|| Error::failure(format!("{id} has no tap")))?;
    let first = first.try_clone().or_fail(|| format!("keep the tap of {id}"))?;
    let taps = taps.into_iter().map(|tap| Box::new(Tap::from_fd(tap)) as Box<dyn Port>).collect();
    let NetPlan { mac, mtu, limits, .. } = *plan;
    let config = NetConfig { name: id.as_str(), mac, mtu, limits };
    let (device, services) = Net::create(taps, &config, notices)?;
    Ok((device, services, first))
}

/// What the threads of these devices do first.
pub(super) fn thread_start(filters: Option<Filters>, devices: &[NewDevice]) -> Result<ThreadStart> {
    let Some(filters) = filters else { return Ok(Arc::new(|_| Ok(()))) };
    let mut compiled: Vec<(&DeviceType, Filter)> = Vec::new();
    for kind in devices.iter().map(NewDevice::kind) {
        if compiled.iter().all(|(other, _)| *other != kind) {
            compiled.push((kind, filters.compile(Role::Worker(kind))?));
        }
    }
    Ok(Arc::new(move |kind| {
        let filter = compiled.iter().find(|(other, _)| *other == kind);
        let none = || Error::failure("there is no seccomp filter for this kind of device");
        filter.ok_or_else(none)?.1.apply()
    }))
}

/// The engines in use.
pub fn engines(machine: &Machine) -> BTreeMap<DeviceId, Engine> {
    machine.disks().map(|disk| (disk.id.clone(), disk.device.status().engine)).collect()
}
