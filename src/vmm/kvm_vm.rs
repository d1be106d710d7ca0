//! What of a machine is KVM's: the VM, its memory slots, its interrupt controllers and vCPUs.
//!
//! The order is for speed: on recent hosts a change of memory slots after an interrupt controller
//! or an ioeventfd is registered waits out an RCU grace period, several milliseconds long. So: the
//! VM, the addresses that KVM needs for itself, ALL memory slots; then interrupt controllers and
//! vCPUs, and what devices register after them. KVM's default routing sends GSI n to I/O APIC pin
//! n, which is what the ACPI tables say.

use crate::boot::Entry;
use crate::error::{Error, OrFail, Result};
use crate::mem::GuestRam;
use crate::mem::layout::{KVM_IDENTITY_MAP, KVM_TSS};
use crate::plan::{Processor, VmPlan};
use crate::sys::kvm;
use crate::vmm::cpuid::{Model, Supported};
use crate::vmm::payload::Payload;
use crate::vmm::regs;
use crate::vmm::resume::Resuming;
use crate::vmm::vcpu::Vcpu;
use kvm_bindings::{CpuId, KVM_PIT_SPEAKER_DUMMY, kvm_irqchip, kvm_pit_config, kvm_pit_state2};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::sync::Arc;

/// A VM with all that is KVM's, without devices.
pub struct KvmVm {
    /// The VM.
    pub vm: Arc<VmFd>,
    /// The vCPUs, the boot processor first.
    pub vcpus: Vec<Arc<Vcpu>>,
    /// The interrupt controllers as KVM made them.
    pub irqchips: Vec<kvm_irqchip>,
    /// KVM itself, for what may be asked of it later.
    pub kvm: Kvm,
    /// The vCPUs' CPUID.
    pub model: Model,
    /// A PC's interval timer, with port 0x61, as KVM made it: accesses to it are no exits.
    pub pit: Option<kvm_pit_state2>,
}

impl KvmVm {
    /// The VM of the plan's machine, with this RAM and what the payload has beside it, as `start`
    /// says.
    ///
    /// # Errors
    /// More CPUs than KVM has, or KVM refuses something.
    pub fn create(
        kvm: Kvm,
        plan: &VmPlan,
        payload: &Payload,
        ram: &GuestRam,
        start: &Start,
    ) -> Result<Self> {
        let (cpus, most) = (plan.config.cpus, kvm.get_max_vcpus());
        if cpus == 0 || usize::from(cpus) > most {
            return Err(Error::failure(format!(
                "{cpus} CPUs are not possible: give 1 to {most}, which is what this host's KVM can do"
            )));
        }
        let vm = create_vm(&kvm)?;
        kvm::set_memory(&vm, payload.memory(ram))?;
        vm.create_irq_chip().or_fail(|| "create the interrupt controllers")?;
        let pit =
            matches!(payload, Payload::Firmware { .. }).then(|| create_pit(&vm)).transpose()?;
        let vcpus = (0..cpus).map(|index| vm.create_vcpu(index.into()));
        let vcpus = vcpus.collect::<Result<Vec<_>, _>>().or_fail(|| "create a vCPU")?;
        let irqchips = payload.irqchips().iter().map(|&chip_id| {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip).or_fail(|| "read an interrupt controller")?;
            Ok(chip)
        });
        let irqchips = irqchips.collect::<Result<_>>()?;
        let supported = Supported::new(&kvm, &plan.cpuid)?;
        let model = set_up(&vcpus, &supported, &plan.config.processor, start)?;
        let vcpus = vcpus.into_iter().map(|fd| Arc::new(Vcpu::new(fd))).collect();
        Ok(Self { vm: Arc::new(vm), vcpus, irqchips, kvm, model, pit })
    }
}

fn create_vm(kvm: &Kvm) -> Result<VmFd> {
    let vm = kvm.create_vm().or_fail(|| "create a VM (KVM_CREATE_VM)")?;
    vm.set_tss_address(KVM_TSS as usize).or_fail(|| "set KVM's TSS address")?;
    vm.set_identity_map_address(KVM_IDENTITY_MAP).or_fail(|| "set KVM's identity map address")?;
    Ok(vm)
}

fn create_pit(vm: &VmFd) -> Result<kvm_pit_state2> {
    let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(config).or_fail(|| "create the interval timer (KVM_CREATE_PIT2)")?;
    vm.get_pit2().or_fail(|| "read the interval timer")
}

/// How the vCPUs begin.
pub enum Start {
    /// The boot processor does here, the others wait for it.
    Entry(Entry),
    /// As they were; what more there is to them is restored later.
    Saved(Resuming),
}

/// Bring new vCPUs into the state of the machine's start; the CPUID that they have.
fn set_up(
    vcpus: &[VcpuFd],
    cpuid: &Supported,
    processor: &Processor,
    start: &Start,
) -> Result<Model> {
    let tsc_khz = vcpus.first().and_then(|fd| fd.get_tsc_khz().ok());
    let model = Model::new(cpuid, vcpus.len() as u8, tsc_khz, processor);
    let set = |fd: &VcpuFd, cpuid: &CpuId| fd.set_cpuid2(cpuid).or_fail(|| "set a vCPU's CPUID");
    match start {
        Start::Entry(entry) => {
            for (index, fd) in (0..).zip(vcpus) {
                set(fd, &model.vcpu(index)?)?;
                regs::start(fd, index, (index == 0).then_some(entry))?;
            }
            Ok(model)
        }
        Start::Saved(resuming) => {
            let saved = resuming.cpuid(&model)?;
            vcpus.iter().zip(&saved).try_for_each(|(fd, cpuid)| set(fd, cpuid))?;
            Ok(model.with_saved(saved))
        }
    }
}
