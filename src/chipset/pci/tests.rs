//! The bus as a guest looks around on it.

use super::hotplug::HotPlug;
use super::*;
use crate::chipset::power::{PowerRequest, PowerSink};
use crate::mem::layout::{PCI_WINDOW, PCI_WINDOW_END};
use std::sync::Mutex;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A function with a page of memory that reads as the low byte of the offset.
struct Probe {
    space: Mutex<ConfigSpace>,
    window: Window,
    written: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Probe {
    fn new(device: u16) -> Arc<Self> {
        let identity =
            Identity { vendor: 0x1af4, device, subsystem: (0, 0), class: 0xff_0000, revision: 1 };
        let mut space = ConfigSpace::new(&identity);
        space.set_bar0(PCI_WINDOW as u32, 0x1000);
        Arc::new(Self {
            space: Mutex::new(space),
            window: Window::new(0x1000),
            written: Mutex::default(),
        })
    }
}

impl Function for Probe {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.space.lock().unwrap().read(offset, data);
    }
    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut space = self.space.lock().unwrap();
        space.write(offset, data);
        self.window.follow(&space);
    }
    fn window(&self) -> &Window {
        &self.window
    }
    fn read_memory(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write_memory(&self, offset: u64, data: &[u8]) {
        self.written.lock().unwrap().push((offset, data.to_vec()));
    }
}

#[derive(Default)]
struct Sink(Mutex<usize>);

impl PowerSink for Sink {
    fn request(&self, _request: PowerRequest) {
        *self.0.lock().unwrap() += 1;
    }
}

struct Rig {
    ports: ConfigPorts,
    ecam: Ecam,
    memory: PciMemory,
    probes: [Arc<Probe>; 2],
    sink: Arc<Sink>,
}

fn rig() -> Rig {
    let (probes, sink) = ([Probe::new(0x1042), Probe::new(0x1044)], Arc::new(Sink::default()));
    let root = PciRoot::new((0..).zip(&probes).map(|(n, p)| (n, p.clone() as Arc<dyn Function>)));
    let root = root.unwrap();
    let ports = ConfigPorts::new(root.clone(), ResetControl(sink.clone()));
    Rig { ports, ecam: Ecam(root.clone()), memory: PciMemory(root), probes, sink }
}

fn read(device: &dyn BusDevice, offset: u64) -> u32 {
    let mut data = [0; 4];
    device.read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn ports_and_memory_show_the_same_functions() {
    let rig = rig();
    for (device, id) in [(0, 0x0008_1b36), (1, 0x1042_1af4), (2, 0x1044_1af4), (3, u32::MAX)] {
        rig.ports.write(0, &(1u32 << 31 | device << 11).to_le_bytes());
        assert_eq!(read(&rig.ports, 4), id);
        assert_eq!(read(&rig.ecam, u64::from(device) << 15), id);
    }
    rig.ports.write(0, &(1u32 << 31 | 1 << 11).to_le_bytes());
    let mut half = [0; 2];
    rig.ports.read(6, &mut half);
    assert_eq!(u16::from_le_bytes(half), 0x1042, "by lanes");
    assert_eq!(read(&rig.ecam, 1 << 15 | 0x100), 0, "no extended capabilities");
}

#[test]
fn where_nothing_is_all_ones() {
    let rig = rig();
    // Another bus, another function, not enabled.
    for address in [1u32 << 31 | 1 << 16, 1 << 31 | 1 << 8, 1 << 11] {
        rig.ports.write(0, &address.to_le_bytes());
        assert_eq!(read(&rig.ports, 4), u32::MAX, "{address:#x}");
    }
    assert_eq!(read(&rig.ecam, 1 << 12), u32::MAX);
    assert_eq!(read(&rig.ecam, 1 << 15 | 2), u32::MAX, "across a double word");
    let mut wide = [0; 8];
    rig.ecam.read(0, &mut wide);
    assert_eq!(wide, [0xff; 8]);
    assert_eq!(read(&rig.memory, 0), u32::MAX, "memory is off");
    for offset in 0..8 {
        for size in [1, 2, 4, 8] {
            let mut data = vec![0; size];
            rig.ports.read(offset, &mut data);
            rig.ports.write(offset, &data);
        }
    }
}

#[test]
fn the_reset_register_lies_in_the_midst_of_the_address() {
    let rig = rig();
    let address = 1u32 << 31 | 0x0612;
    rig.ports.write(0, &address.to_le_bytes());
    assert_eq!((read(&rig.ports, 0), *rig.sink.0.lock().unwrap()), (address, 0));
    rig.ports.write(1, &[6]);
    assert_eq!((read(&rig.ports, 0), *rig.sink.0.lock().unwrap()), (address, 1));
}

#[test]
fn memory_is_where_the_guest_puts_it_and_only_in_the_window() {
    let rig = rig();
    let put = |base: u64| rig.ecam.write(2 << 15 | 0x10, &(base as u32).to_le_bytes());
    rig.ecam.write(2 << 15 | 4, &[2, 0]);
    assert_eq!(read(&rig.memory, 0x12), 0x1212_1212);
    put(PCI_WINDOW + 0x5000);
    assert_eq!(read(&rig.memory, 0x12), u32::MAX);
    rig.memory.write(0x5010, &[1]);
    assert_eq!(*rig.probes[1].written.lock().unwrap(), [(0x10, vec![1])]);
    assert_eq!(read(&rig.memory, 0x5ffe), u32::MAX, "across the end");
    for base in [0, PCI_WINDOW - 0x1000, PCI_WINDOW_END, 0xffff_f000] {
        put(base);
        assert_eq!(rig.probes[1].window.base(), None, "{base:#x}");
    }
    put(PCI_WINDOW_END - 0x1000);
    assert!(rig.probes[1].window.base().is_some());
    rig.ecam.write(2 << 15 | 4, &[0, 0]);
    assert_eq!(rig.probes[1].window.base(), None);
}

#[test]
fn a_bus_has_31_functions_beside_its_bridge() {
    let function = |slot| (slot, Probe::new(0x1044) as Arc<dyn Function>);
    let functions = |n| (0..n as u8).map(function);
    assert!(PciRoot::new(functions(31)).is_ok());
    assert!(PciRoot::new(functions(32)).is_err());
    assert!(PciRoot::new([function(3), function(3)]).is_err());
}

#[test]
fn functions_come_and_go_and_only_those_that_are_asked() {
    let root = PciRoot::new([(0, Probe::new(0x1042) as Arc<dyn Function>)]).unwrap();
    let wake = EventFd::new(EFD_NONBLOCK).unwrap();
    let hot = HotPlug::new(root.clone(), 0b110, wake);
    let ecam = Ecam(root.clone());
    let id = |device: u64| read(&ecam, device << 15) >> 16;
    let eject = |devices: u32| hot.write(hotplug::EJECT, &devices.to_le_bytes());
    root.plug(1, Probe::new(0x1044)).unwrap();
    hot.plugged(1);
    assert_eq!(id(2), 0x1044);
    assert_eq!([read(&hot, hotplug::CAME), read(&hot, hotplug::CAME)], [1 << 2, 0]);
    // A guest that lets go of everything loses nothing of it.
    eject(u32::MAX);
    assert_eq!((id(1), id(2), hot.released()), (0x1042, 0x1044, 0));
    hot.ask(1);
    assert_eq!(hot.leaving(1), Some(false));
    assert_eq!([read(&hot, hotplug::ASKED), read(&hot, hotplug::ASKED)], [1 << 2, 0]);
    assert_eq!((hot.leaving(1), hot.leaving(0)), (Some(true), None));
    let asked = hot.save();
    eject(u32::MAX);
    assert_eq!((id(1), id(2), hot.released()), (0x1042, 0xffff, 1 << 1));
    assert_eq!(hot.wake().read().unwrap(), 1);
    assert!(root.unplug(1).is_some() && root.unplug(1).is_none());
    hot.unplugged(1);
    assert_eq!((hot.leaving(1), hot.released()), (None, 0));
    root.plug(1, Probe::new(0x1045)).unwrap();
    assert_eq!(id(2), 0x1045);
    hot.restore(asked);
    assert_eq!((hot.leaving(1), hot.hot()), (Some(true), 0b110));
    hot.reset();
    assert_eq!(hot.leaving(1), None);
}

#[test]
fn accesses_to_hot_plug_of_any_size_and_place_do_no_harm() {
    let root = PciRoot::new([]).unwrap();
    let hot = HotPlug::new(root, u32::MAX, EventFd::new(EFD_NONBLOCK).unwrap());
    (0..32).for_each(|slot| hot.ask(slot));
    for offset in (0..16).chain([u64::MAX]) {
        for size in [0, 1, 2, 4, 8] {
            let mut data = vec![0xff; size];
            hot.write(offset, &data);
            hot.read(offset, &mut data);
        }
    }
    hot.ask(200);
    assert_eq!(hot.leaving(200), None);
}

#[test]
fn a_slot_without_a_function_is_empty() {
    let function = |slot, id| (slot, Probe::new(id) as Arc<dyn Function>);
    let ecam = Ecam(PciRoot::new([function(2, 0x1044), function(0, 0x1042)]).unwrap());
    let id = |device: u64| read(&ecam, device << 15) >> 16;
    assert_eq!([1, 2, 3, 4].map(id), [0x1042, 0xffff, 0x1044, 0xffff]);
    ecam.write(2 << 15 | 4, &[2, 0]);
}
