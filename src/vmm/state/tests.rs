//! Property: what was saved, restored and saved again is the same, for every part with a state.

use super::vcpu::{VcpuState, Ways};
use super::{Irqchips, Pit};
use crate::chipset::bus::BusDevice;
use crate::chipset::fw_cfg::FwCfg;
use crate::chipset::pci::{ConfigPorts, PciRoot};
use crate::chipset::power::{AcpiPower, PowerRequest, PowerSink, ResetControl};
use crate::chipset::rtc::Rtc;
use crate::chipset::serial::{Serial, SerialHost};
use crate::mem::layout::MIN_MEMORY;
use crate::mem::ram;
use crate::sys::fds;
use crate::vmm::component::{Component, decode, encode};
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_regs};
use kvm_ioctls::{Kvm, VmFd};
use proptest::prelude::*;
use std::sync::Arc;

struct Nobody;

impl PowerSink for Nobody {
    fn request(&self, _: PowerRequest) {}
}

impl SerialHost for Nobody {
    fn output(&self, _: u8) {}
    fn input_wanted(&self) {}
}

/// A device of each kind, as after a reset.
fn devices() -> Vec<(Arc<dyn BusDevice>, Arc<dyn Component>)> {
    fn both<T: BusDevice + Component + 'static>(
        device: T,
    ) -> (Arc<dyn BusDevice>, Arc<dyn Component>) {
        let device = Arc::new(device);
        (device.clone(), device)
    }
    let irq = || fds::eventfd().unwrap();
    let ram = ram::create(MIN_MEMORY).unwrap();
    let items = vec![(0, b"QEMU".to_vec()), (5, vec![1, 2, 3, 4, 5])];
    let root = PciRoot::new(Vec::new()).unwrap();
    vec![
        both(Serial::new(irq(), Arc::new(Nobody))),
        both(AcpiPower::new(Arc::new(Nobody), irq())),
        both(Rtc::new(4)),
        both(FwCfg::new(items, ram)),
        both(ConfigPorts::new(root, ResetControl(Arc::new(Nobody)))),
    ]
}

proptest! {
    #[test]
    fn the_chipset_keeps_what_the_guest_left(
        accesses in prop::collection::vec((0u64..12, any::<u32>(), 0usize..3, any::<bool>()), 0..64),
    ) {
        for ((bus, used), (_, fresh)) in devices().into_iter().zip(devices()) {
            for &(offset, value, width, write) in &accesses {
                let bytes = &mut value.to_le_bytes()[..1 << width];
                if write { bus.write(offset, bytes) } else { bus.read(offset, bytes) }
            }
            let saved = used.save().unwrap();
            fresh.restore(&saved).unwrap();
            fresh.resume();
            prop_assert_eq!(&fresh.save().unwrap(), &saved, "{}", used.name());
            used.reset().unwrap();
            fresh.reset().unwrap();
            prop_assert_eq!(fresh.save().unwrap(), used.save().unwrap(), "{}", used.name());
        }
    }

    #[test]
    fn a_damaged_state_is_refused_and_harms_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for (bus, device) in devices() {
            let _ = device.restore(&bytes);
            for offset in 0..12 {
                bus.read(offset, &mut [0]);
                bus.write(offset, &[1]);
            }
        }
    }
}

#[test]
fn a_state_of_another_version_is_refused() {
    let bytes = encode(7, &"x").unwrap();
    let error = decode::<String>("a part", 1, &bytes).unwrap_err().to_string();
    assert!(error.contains("a part has version 7"), "{error}");
    assert_eq!(decode::<String>("a part", 7, &bytes).unwrap(), "x");
    assert!(decode::<String>("a part", 7, &bytes[..2]).is_err(), "cut short");
}

fn vm() -> Option<(Kvm, Arc<VmFd>)> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("skipped: the state of what is KVM's: {error}");
            return None;
        }
    };
    let vm = kvm.create_vm().unwrap();
    vm.set_tss_address(crate::mem::layout::KVM_TSS as usize).unwrap();
    vm.create_irq_chip().unwrap();
    Some((kvm, Arc::new(vm)))
}

#[test]
fn a_vcpu_is_what_another_was() {
    let Some((kvm, vm)) = vm() else { return };
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).unwrap();
    let ways = Ways::ask(&kvm).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_cpuid2(&cpuid).unwrap();
    vcpu.set_regs(&kvm_regs { rax: 0x1234, rip: 0x10_0000, rflags: 2, ..Default::default() })
        .unwrap();
    let save = |vcpu| VcpuState::save(vcpu, &ways, cpuid.as_slice().to_vec()).unwrap();
    let saved = save(&vcpu);
    let Some((_, other)) = self::vm() else { return };
    let other = other.create_vcpu(0).unwrap();
    other.set_cpuid2(&cpuid).unwrap();
    saved.restore(&other, &ways, 0).unwrap();
    assert_eq!(save(&other).still(), saved.still());
}

#[test]
fn interrupt_controllers_and_timer_are_what_others_were() {
    let (Some((_, first)), Some((_, second))) = (vm(), vm()) else { return };
    let make = |vm: &Arc<VmFd>| {
        let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(config).unwrap();
        let pit = vm.get_pit2().unwrap();
        (Irqchips::new(vm.clone(), Vec::new()), Pit::new(vm.clone(), pit))
    };
    let ((chips, pit), (other_chips, other_pit)) = (make(&first), make(&second));
    first.set_irq_line(5, true).unwrap();
    let saved = chips.save().unwrap();
    other_chips.restore(&saved).unwrap();
    assert_eq!(other_chips.save().unwrap(), saved);
    other_pit.restore(&pit.save().unwrap()).unwrap();
    // Its time of loading counts on; its form does not.
    assert_eq!(other_pit.save().unwrap().len(), pit.save().unwrap().len());
}
