//! Property: what was saved, restored and saved again is the same, for every part with a state.

use super::vcpu::{VcpuState, Ways};
use super::{Clock, Generation, Irqchips, Pit, Processors, Software};
use crate::boot::firmware::Firmware;
use crate::chipset::bus::BusDevice;
use crate::chipset::flash::Flash;
use crate::chipset::fw_cfg::FwCfg;
use crate::chipset::pci::{ConfigPorts, PciRoot};
use crate::chipset::power::{AcpiPower, PowerRequest, PowerSink, ResetControl};
use crate::chipset::rtc::Rtc;
use crate::chipset::serial::{Serial, SerialHost};
use crate::mem::layout::{MIN_MEMORY, VM_GENERATION};
use crate::mem::ram;
use crate::plan::FirmwareKind;
use crate::sys::fds;
use crate::vmm::component::{Component, decode, encode};
use crate::vmm::cpuid::{Model, Supported};
use crate::vmm::payload::Payload;
use crate::vmm::vcpu::Vcpu;
use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_UNINITIALIZED, KVM_PIT_SPEAKER_DUMMY, kvm_mp_state, kvm_pit_config,
    kvm_pit_state2, kvm_regs,
};
use kvm_ioctls::{Kvm, VmFd};
use proptest::prelude::*;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
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
    let variables = tempfile::tempfile().unwrap();
    variables.write_all_at(&[0x5a; 4096], 0).unwrap();
    vec![
        both(Flash::open(variables).unwrap()),
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

proptest! {
    #[test]
    fn the_serial_line_keeps_what_waits_in_its_fifo(
        setting in (any::<u8>(), any::<u8>(), any::<u8>()),
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..100), 0usize..20), 1..8),
    ) {
        let serial = || Serial::new(fds::eventfd().unwrap(), Arc::new(Nobody));
        let (used, fresh) = (serial(), serial());
        let (ier, fcr, mcr) = setting;
        // IER, FCR and MCR; then what is typed, and what of it is read.
        for (offset, value) in [(1, ier), (2, fcr), (4, mcr & !0x10)] {
            used.write(offset, &[value]);
        }
        for (typed, read) in pieces {
            used.input(&typed);
            (0..read).for_each(|_| used.read(0, &mut [0]));
        }
        let saved = Component::save(&used).unwrap();
        Component::restore(&fresh, &saved).unwrap();
        prop_assert_eq!(Component::save(&fresh).unwrap(), saved);
        let rest = |serial: &Serial| {
            let mut byte = [0; 2];
            let mut read = || {
                serial.read(5, &mut byte[..1]);
                serial.read(0, &mut byte[1..]);
                byte
            };
            (0..200).map(|_| read()).collect::<Vec<_>>()
        };
        prop_assert_eq!(rest(&fresh), rest(&used));
    }
}

#[test]
fn another_generation_id_is_all_that_changes_as_a_machine_goes_on() {
    let ram = ram::create(MIN_MEMORY).unwrap();
    let power = Arc::new(AcpiPower::new(Arc::new(Nobody), fds::eventfd().unwrap()));
    let generation = Generation::new(ram, VM_GENERATION, power.clone());
    let (saved, before) = (generation.save().unwrap(), Component::save(&*power).unwrap());
    generation.restore(&saved).unwrap();
    assert_eq!(generation.save().unwrap(), saved);
    assert_ne!(Component::save(&*power).unwrap(), before, "the guest is told");
    generation.reset().unwrap();
}

/// The clock goes on by as much as the host's does.
#[test]
fn a_clock_goes_on_where_another_was() {
    let (Some((_, first)), Some((_, second))) = (vm(), vm()) else { return };
    let (first, second) = (Clock(first), Clock(second));
    type State = (u64, u64, bool);
    let save = |clock: &Clock| decode::<State>("clock", 1, &clock.save().unwrap()).unwrap();
    // A machine that has run for an hour.
    let (_, realtime, _) = save(&first);
    let hour = 3_600_000_000_000;
    first.restore(&encode(1, &(hour, realtime, false)).unwrap()).unwrap();
    let saved = first.save().unwrap();
    second.restore(&saved).unwrap();
    let ((then, at, _), (now, later, _)) =
        (decode::<State>("clock", 1, &saved).unwrap(), save(&second));
    assert!(then >= hour && now >= then, "it does not go back: {then} {now}");
    let error = (now - then).abs_diff(later.saturating_sub(at));
    assert!(error < 1_000_000_000, "{error} ns beside the host's clock");
}

pub(super) fn vm() -> Option<(Kvm, Arc<VmFd>)> {
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
    let Some((_, other)) = self::vm() else { return };
    let other = other.create_vcpu(0).unwrap();
    other.set_cpuid2(&cpuid).unwrap();
    let save = |vcpu| VcpuState::save(vcpu, &ways, cpuid.as_slice().to_vec()).unwrap();
    let mut next = 0x9e37_79b9_7f4a_7c15u64;
    // Registers of all kinds, each time others.
    for _ in 0..50 {
        let mut any = || {
            next ^= next << 13;
            next ^= next >> 7;
            next ^= next << 17;
            next
        };
        let rip = any() & 0xffff_ffff;
        vcpu.set_regs(&kvm_regs {
            rax: any(),
            rbx: any(),
            r15: any(),
            rip,
            rflags: 2 | any() & 0x8d5,
            ..Default::default()
        })
        .unwrap();
        let mut fpu = vcpu.get_fpu().unwrap();
        fpu.xmm.iter_mut().flatten().for_each(|byte| *byte = any() as u8);
        vcpu.set_fpu(&fpu).unwrap();
        let mut debug = vcpu.get_debug_regs().unwrap();
        debug.db.iter_mut().for_each(|register| *register = any() >> 20);
        vcpu.set_debug_regs(&debug).unwrap();
        let mut system = vcpu.get_sregs().unwrap();
        (system.cr2, system.fs.base, system.gdt.base) = (any() >> 20, any() >> 20, any() >> 20);
        vcpu.set_sregs(&system).unwrap();
        let saved = save(&vcpu);
        saved.restore(&other, &ways, 0).unwrap();
        assert_eq!(save(&other).still(), saved.still());
    }
}

/// What a machine executes first: firmware, or nothing that has to be found again.
fn software(firmware: Option<File>) -> Arc<Software> {
    let payload = match firmware {
        Some(image) => {
            let firmware = Firmware::map(FirmwareKind::Bios, image).unwrap();
            Payload::Firmware { firmware, variables: None }
        }
        None => Payload::Kernel { kernel: None, initrd: None, cmdline: String::new(), menu: None },
    };
    let plan = Arc::new(crate::boot::tests::plan(MIN_MEMORY));
    Arc::new(Software::new(plan, ram::create(MIN_MEMORY).unwrap(), payload, Vec::new()))
}

/// The vCPUs of a machine, each in this run state, with registers that `next` chooses.
fn processors(states: &[u32], next: &mut impl FnMut() -> u64) -> Option<Processors> {
    let (kvm, vm) = vm()?;
    let model = Model::new(
        &Supported::new(&kvm, &[]).unwrap(),
        states.len() as u8,
        None,
        &Default::default(),
    );
    let vcpu = |(index, &mp_state): (u32, &u32)| {
        let fd = vm.create_vcpu(index.into()).unwrap();
        fd.set_cpuid2(&model.vcpu(index).unwrap()).unwrap();
        fd.set_mp_state(kvm_mp_state { mp_state }).unwrap();
        let (rax, r15, rip) = (next(), next(), next() >> 32);
        fd.set_regs(&kvm_regs { rax, r15, rip, rflags: 2, ..Default::default() }).unwrap();
        Arc::new(Vcpu::new(fd))
    };
    let vcpus = (0..).zip(states).map(vcpu).collect();
    Some(Processors::new(kvm, model, vcpus, software(None)))
}

#[test]
fn all_vcpus_of_a_machine_are_what_those_of_another_were() {
    const RUNS: [u32; 4] = [
        KVM_MP_STATE_RUNNABLE,
        KVM_MP_STATE_HALTED,
        KVM_MP_STATE_UNINITIALIZED,
        KVM_MP_STATE_INIT_RECEIVED,
    ];
    let states = |part: &Processors| {
        let saved = part.save().unwrap();
        let (_, vcpus): (u64, Vec<VcpuState>) = decode(part.name(), 1, &saved).unwrap();
        (saved, vcpus.into_iter().map(VcpuState::still).collect::<Vec<_>>())
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed
    };
    for turn in 0..RUNS.len() {
        // Each in another state than its neighbour, and each time in another.
        let runs: Vec<u32> = (0..RUNS.len()).map(|n| RUNS[(n + turn) % RUNS.len()]).collect();
        let Some(first) = processors(&runs, &mut next) else { return };
        let Some(second) = processors(&[KVM_MP_STATE_RUNNABLE; RUNS.len()], &mut next) else {
            return;
        };
        let (saved, before) = states(&first);
        second.restore(&saved).unwrap();
        let (_, after) = states(&second);
        assert_eq!(after, before, "{runs:?}");
        assert_eq!(second.online(), 3, "one waits to be brought up");
        let Some(fewer) = processors(&RUNS[..2], &mut next) else { return };
        let said = fewer.restore(&saved).unwrap_err().to_string();
        assert!(said.contains("4 vCPUs are saved; the machine has 2"), "{said}");
    }
}

#[test]
fn the_software_must_be_what_it_was_where_it_is_not_in_ram() {
    let image = || {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0x5a; 128 << 10]).unwrap();
        file
    };
    for (used, fresh) in [(None, None), (Some(image()), Some(image()))] {
        let (used, fresh) = (software(used), software(fresh));
        let saved = used.save().unwrap();
        fresh.restore(&saved).unwrap();
        assert_eq!(fresh.save().unwrap(), saved);
    }
    let saved = software(Some(image())).save().unwrap();
    let other = image();
    other.write_all_at(&[0xa5], 100 << 10).unwrap();
    for other in [Some(other), None] {
        let said = software(other).restore(&saved).unwrap_err().to_string();
        assert!(said.contains("another firmware than this host has"), "{said}");
    }
}

/// A host whose KVM can't scale its counter refuses one of another frequency, in one line.
#[test]
fn a_counter_of_another_frequency_is_had_or_refused() {
    let Some((kvm, vm)) = vm() else { return };
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).unwrap();
    let (ways, vcpu) = (Ways::ask(&kvm).unwrap(), vm.create_vcpu(0).unwrap());
    vcpu.set_cpuid2(&cpuid).unwrap();
    let mut saved = VcpuState::save(&vcpu, &ways, cpuid.as_slice().to_vec()).unwrap();
    let Some(khz) = saved.tsc_khz else { return };
    saved.tsc_khz = Some(khz / 2);
    match saved.restore(&vcpu, &ways, 0) {
        Ok(()) => assert_eq!(vcpu.get_tsc_khz().unwrap(), khz / 2),
        Err(error) => {
            let said = error.to_string();
            assert!(
                said.contains(&format!("ran at {} kHz", khz / 2)) && !said.contains('\n'),
                "{said}"
            );
        }
    }
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
    let mut state = first.get_pit2().unwrap();
    (state.channels[0].count, state.channels[0].mode, state.channels[2].count) = (1193, 2, 4660);
    first.set_pit2(&state).unwrap();
    first.set_irq_line(5, true).unwrap();
    let saved = chips.save().unwrap();
    other_chips.restore(&saved).unwrap();
    assert_eq!(other_chips.save().unwrap(), saved);
    other_pit.restore(&pit.save().unwrap()).unwrap();
    // The time at which a channel was loaded is this host's.
    let still = |pit: &Pit| {
        let mut state: kvm_pit_state2 = decode(pit.name(), 1, &pit.save().unwrap()).unwrap();
        state.channels.iter_mut().for_each(|channel| channel.count_load_time = 0);
        state
    };
    assert_eq!(still(&other_pit), still(&pit));
}
