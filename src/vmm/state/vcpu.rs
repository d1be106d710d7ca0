//! The state of one vCPU.
//!
//! The order of restoring is KVM's: each step may depend on those before it (the local APIC's mode
//! on the system registers, its timer on the APIC, what is pending on all). CPUID comes first of
//! all and before the vCPU has ever run, so that it is set as the VM is made.

use crate::error::{Error, OrFail, Result};
use crate::sys::kvm_state;
use kvm_bindings::{
    Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_sregs2, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

/// IA32_TIME_STAMP_COUNTER: first, for what comes after it may be a moment of it.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE: last, for it arms a timer.
const TSC_DEADLINE: u32 = 0x6e0;

/// What this host's KVM can tell of a vCPU.
pub struct Ways {
    /// The MSRs that make up its state (KVM_GET_MSR_INDEX_LIST), in the order of restoring.
    msrs: Vec<u32>,
    sregs2: bool,
    /// Words of its XSAVE area beyond 4 KiB.
    xsave: Option<usize>,
}

impl Ways {
    /// Asks KVM.
    ///
    /// # Errors
    /// KVM does not say.
    pub fn ask(kvm: &Kvm) -> Result<Self> {
        let list = kvm.get_msr_index_list().or_fail(|| "ask KVM for its list of MSRs")?;
        let mut msrs = list.as_slice().to_vec();
        msrs.sort_by_key(|&msr| match msr {
            TSC => 0,
            TSC_DEADLINE => 2,
            _ => 1,
        });
        Ok(Self { msrs, sregs2: kvm_state::has_sregs2(kvm), xsave: kvm_state::xsave_extra(kvm) })
    }
}

/// System registers, as the saving host's KVM gave them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum SystemRegisters {
    /// KVM_GET_SREGS.
    First(kvm_sregs),
    /// KVM_GET_SREGS2: the same registers, and what PAE paging has in its page-directory pointers,
    /// if it has.
    Second(kvm_sregs, u64, [u64; 4]),
}

/// All of a vCPU that a guest can tell it by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VcpuState {
    /// CPUID as it was set.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// kHz of its time stamp counter, if KVM says.
    pub tsc_khz: Option<u32>,
    mp_state: kvm_mp_state,
    registers: kvm_regs,
    system: SystemRegisters,
    xsave: Vec<u32>,
    xcrs: Option<kvm_xcrs>,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    /// Number and value.
    msrs: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
}

impl VcpuState {
    /// Reads it off a vCPU that stands still, every access of which is complete.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn save(vcpu: &VcpuFd, ways: &Ways, cpuid: Vec<kvm_cpuid_entry2>) -> Result<Self> {
        // First: KVM lets what waits for the local APIC become pending as it is asked for this.
        let mp_state = vcpu.get_mp_state().or_fail(|| "read a vCPU's run state")?;
        let system = match ways.sregs2 {
            false => SystemRegisters::First(
                vcpu.get_sregs().or_fail(|| "read a vCPU's system registers")?,
            ),
            true => {
                let s = kvm_state::sregs2(vcpu)?;
                SystemRegisters::Second(first(&s), s.flags, s.pdptrs)
            }
        };
        Ok(Self {
            cpuid,
            tsc_khz: vcpu.get_tsc_khz().ok(),
            mp_state,
            registers: vcpu.get_regs().or_fail(|| "read a vCPU's registers")?,
            system,
            xsave: kvm_state::xsave(vcpu, ways.xsave)?,
            // A host without XSAVE has none.
            xcrs: vcpu.get_xcrs().ok(),
            debug: vcpu.get_debug_regs().or_fail(|| "read a vCPU's debug registers")?,
            lapic: vcpu.get_lapic().or_fail(|| "read a vCPU's local APIC")?,
            msrs: read_msrs(vcpu, &ways.msrs)?,
            events: vcpu.get_vcpu_events().or_fail(|| "read a vCPU's events")?,
        })
    }

    /// Makes a vCPU what was saved; `elapsed` nanoseconds have passed since, and have for its time
    /// stamp counter.
    ///
    /// # Errors
    /// KVM refuses, or the counter's frequency can't be had here.
    pub fn restore(&self, vcpu: &VcpuFd, ways: &Ways, elapsed: u64) -> Result<()> {
        self.set_frequency(vcpu)?;
        vcpu.set_mp_state(self.mp_state).or_fail(|| "set a vCPU's run state")?;
        vcpu.set_regs(&self.registers).or_fail(|| "set a vCPU's registers")?;
        match &self.system {
            SystemRegisters::Second(s, flags, pdptrs) if ways.sregs2 => {
                kvm_state::set_sregs2(vcpu, &second(s, *flags, *pdptrs))?;
            }
            SystemRegisters::First(s) | SystemRegisters::Second(s, ..) => {
                vcpu.set_sregs(s).or_fail(|| "set a vCPU's system registers")?;
            }
        }
        kvm_state::set_xsave(vcpu, ways.xsave, &self.xsave)?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs).or_fail(|| "set a vCPU's extended control registers")?;
        }
        vcpu.set_debug_regs(&self.debug).or_fail(|| "set a vCPU's debug registers")?;
        vcpu.set_lapic(&self.lapic).or_fail(|| "set a vCPU's local APIC")?;
        write_msrs(vcpu, &self.advanced(elapsed))?;
        vcpu.set_vcpu_events(&self.events).or_fail(|| "set a vCPU's events")
    }

    /// The time stamp counter's frequency is the guest's idea of time.
    fn set_frequency(&self, vcpu: &VcpuFd) -> Result<()> {
        let here = vcpu.get_tsc_khz().ok();
        let Some(khz) = self.tsc_khz.filter(|khz| here != Some(*khz)) else { return Ok(()) };
        vcpu.set_tsc_khz(khz).map_err(|error| {
            Error::failure(format!(
                "its time stamp counter ran at {khz} kHz, and this host's KVM can't have it do so: {error}"
            ))
        })
    }

    /// The MSRs after so many nanoseconds.
    fn advanced(&self, elapsed: u64) -> Vec<(u32, u64)> {
        let ticks = u128::from(elapsed) * u128::from(self.tsc_khz.unwrap_or(0)) / 1_000_000;
        let later = |&(index, value): &(u32, u64)| match index {
            TSC => (index, value.wrapping_add(ticks as u64)),
            _ => (index, value),
        };
        self.msrs.iter().map(later).collect()
    }

    /// The saved state without what goes on while nothing runs: the time stamp counter.
    #[cfg(test)]
    pub fn still(mut self) -> Self {
        self.msrs.retain(|(index, _)| *index != TSC);
        self
    }
}

fn first(s: &kvm_sregs2) -> kvm_sregs {
    kvm_sregs {
        cs: s.cs,
        ds: s.ds,
        es: s.es,
        fs: s.fs,
        gs: s.gs,
        ss: s.ss,
        tr: s.tr,
        ldt: s.ldt,
        gdt: s.gdt,
        idt: s.idt,
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base: s.apic_base,
        // What is pending is among the events.
        interrupt_bitmap: [0; 4],
    }
}

fn second(s: &kvm_sregs, flags: u64, pdptrs: [u64; 4]) -> kvm_sregs2 {
    kvm_sregs2 {
        cs: s.cs,
        ds: s.ds,
        es: s.es,
        fs: s.fs,
        gs: s.gs,
        ss: s.ss,
        tr: s.tr,
        ldt: s.ldt,
        gdt: s.gdt,
        idt: s.idt,
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base: s.apic_base,
        flags,
        pdptrs,
    }
}

fn list(entries: &[(u32, u64)]) -> Result<Msrs> {
    let entries: Vec<_> = entries
        .iter()
        .map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() })
        .collect();
    Msrs::from_entries(&entries).map_err(|e| Error::failure(format!("a list of MSRs: {e:?}")))
}

/// Those of `indices` that can be read: KVM lists some that this CPU has not.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<(u32, u64)>> {
    let (mut found, mut rest) = (Vec::with_capacity(indices.len()), indices);
    while !rest.is_empty() {
        let mut msrs = list(&rest.iter().map(|&index| (index, 0)).collect::<Vec<_>>())?;
        let read = vcpu.get_msrs(&mut msrs).or_fail(|| "read a vCPU's MSRs")?;
        found.extend(msrs.as_slice()[..read].iter().map(|entry| (entry.index, entry.data)));
        // KVM stops at the first that it can't read.
        rest = rest.get(read + 1..).unwrap_or_default();
    }
    Ok(found)
}

/// One that is not here needs no setting if it was zero.
fn write_msrs(vcpu: &VcpuFd, msrs: &[(u32, u64)]) -> Result<()> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let written = vcpu.set_msrs(&list(rest)?).or_fail(|| "set a vCPU's MSRs")?;
        match rest.get(written) {
            Some((index, value)) if *value != 0 => {
                return Err(Error::failure(format!("KVM refuses MSR {index:#x} = {value:#x}")));
            }
            _ => rest = rest.get(written + 1..).unwrap_or_default(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::vm;
    use super::*;

    /// A vCPU's state, its vCPU, and what this host's KVM can tell.
    fn saved(use_it: impl FnOnce(VcpuState, &VcpuFd, Ways)) {
        let Some((kvm, vm)) = vm() else { return };
        let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).unwrap();
        let (ways, vcpu) = (Ways::ask(&kvm).unwrap(), vm.create_vcpu(0).unwrap());
        vcpu.set_cpuid2(&cpuid).unwrap();
        let state = VcpuState::save(&vcpu, &ways, cpuid.as_slice().to_vec()).unwrap();
        use_it(state, &vcpu, ways);
    }

    fn refused(outcome: Result<()>, why: &str) {
        let said = outcome.unwrap_err().to_string();
        assert!(said.contains(why) && !said.contains('\n'), "{said}");
    }

    #[test]
    fn an_msr_that_this_host_lacks_is_refused_unless_it_says_nothing() {
        /// None of any CPU's or hypervisor's.
        const NONE: u32 = 0x4b56_4dff;
        let ignored = std::fs::read_to_string("/sys/module/kvm/parameters/ignore_msrs");
        if ignored.is_ok_and(|on| on.starts_with('Y')) {
            println!("skipped: this host's KVM ignores MSRs that it does not know");
            return;
        }
        saved(|mut state, vcpu, ways| {
            state.msrs.push((NONE, 0));
            state.restore(vcpu, &ways, 0).unwrap();
            state.msrs.push((NONE, 7));
            refused(state.restore(vcpu, &ways, 0), "KVM refuses MSR 0x4b564dff = 0x7");
        });
    }

    #[test]
    fn a_host_without_sregs2_has_the_same_registers() {
        saved(|state, vcpu, ways| {
            let older = Ways { sregs2: false, ..ways };
            state.restore(vcpu, &older, 0).unwrap();
            let again = VcpuState::save(vcpu, &older, state.cpuid.clone()).unwrap();
            let registers = |state: &VcpuState| match &state.system {
                SystemRegisters::First(s) | SystemRegisters::Second(s, ..) => *s,
            };
            assert!(matches!(again.system, SystemRegisters::First(_)));
            let pending = kvm_sregs { interrupt_bitmap: [0; 4], ..registers(&again) };
            assert_eq!(pending, registers(&state));
        });
    }

    #[test]
    fn a_host_whose_floating_point_registers_have_another_size_is_refused() {
        saved(|mut state, vcpu, ways| {
            state.xsave.push(0);
            refused(state.restore(vcpu, &ways, 0), "bytes of them are saved, and here they take");
            state.xsave.truncate(1024);
            let older = Ways { xsave: None, ..ways };
            state.restore(vcpu, &older, 0).unwrap();
            state.xsave.clear();
            refused(state.restore(vcpu, &older, 0), "0 bytes of them are saved");
        });
    }

    #[test]
    fn a_host_without_extended_control_registers_keeps_its_own() {
        saved(|mut state, vcpu, ways| {
            let before = state.xcrs.take();
            state.restore(vcpu, &ways, 0).unwrap();
            assert_eq!(vcpu.get_xcrs().ok(), before);
        });
    }
}
