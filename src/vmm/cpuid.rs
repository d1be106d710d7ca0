//! What CPUID tells the guest: what KVM supports, with the topology of this machine: one package,
//! one thread a core, APIC ids from 0. (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E)

use crate::error::{OrFail, Result};
use crate::plan::{CpuidLeaf, Processor};
use crate::sys::kvm;
use crate::vmm::cpu_model;
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

/// KVM's signature leaf. (Documentation/virt/kvm/x86/cpuid.rst)
const KVM_SIGNATURE: u32 = 0x4000_0000;
/// Frequencies: eax is the TSC's in kHz, ebx the local APIC timer's. (VMware's leaf, as QEMU gives
/// it)
const TIMING: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds unless told otherwise.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Where features are: leaf, index, and which bits of eax, ebx, ecx and edx are some.
const FEATURES: &[(u32, u32, [u32; 4])] = &[
    // Without OSXSAVE (ecx 27), which follows CR4.
    (1, 0, [0, 0, !(1 << 27), !0]),
    // Without OSPKE (ecx 4), which does too.
    (7, 0, [0, !0, !(1 << 4), !0]),
    (7, 1, [!0, 0, 0, 0]),
    (0xd, 0, [!0, 0, 0, !0]),
    (0xd, 1, [!0, 0, 0, 0]),
    (0x4000_0001, 0, [!0, 0, 0, 0]),
    (0x8000_0001, 0, [0, 0, !0, !0]),
    (0x8000_0008, 0, [0, !0, 0, 0]),
];

/// CPUID of one machine, from which each vCPU's own follows.
pub struct Model {
    entries: Vec<kvm_cpuid_entry2>,
    /// The same with all that the host has.
    host: Vec<kvm_cpuid_entry2>,
    cpus: u32,
    /// Each vCPU's as it was saved, if it was: it stays that through any number of hosts.
    saved: Vec<CpuId>,
}

/// What this host's KVM supports.
pub struct Supported {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
}

impl Supported {
    /// That of the host as the launcher asked for it; if it did not, ask KVM.
    ///
    /// # Errors
    /// KVM does not say.
    pub fn new(kvm: &Kvm, leaves: &[CpuidLeaf]) -> Result<Self> {
        let entry = |&[function, index, flags, eax, ebx, ecx, edx]: &CpuidLeaf| kvm_cpuid_entry2 {
            index,
            flags,
            ..entry(function, [eax, ebx, ecx, edx])
        };
        let asked = if leaves.is_empty() { kvm::supported_cpuid(kvm)? } else { Vec::new() };
        let cpuid = leaves.iter().chain(&asked).map(entry).collect();
        Ok(Self { cpuid, tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer) })
    }
}

impl Model {
    /// What KVM supports, fitted to a machine with this many CPUs, of which its guest sees what
    /// `processor` says.
    pub fn new(
        supported: &Supported,
        cpus: u8,
        tsc_khz: Option<u32>,
        processor: &Processor,
    ) -> Self {
        let mut model = Self::fit(&supported.cpuid, cpus.into(), tsc_khz, supported.tsc_deadline);
        cpu_model::mask(&mut model.entries, processor);
        model
    }

    fn fit(
        supported: &[kvm_cpuid_entry2],
        cpus: u32,
        tsc_khz: Option<u32>,
        deadline: bool,
    ) -> Self {
        let max = |leaf| supported.iter().find(|e| e.function == leaf).map_or(0, |e| e.eax);
        let (basic, intel) = (max(0), vendor(supported) == *b"GenuineIntel");
        let mut entries: Vec<kvm_cpuid_entry2> = supported
            .iter()
            .filter(|e| !matches!(e.function, 0xb | 0x1f | 0x15 | 0x16 | TIMING))
            .copied()
            .collect();
        for leaf in [0xb, 0x1f].into_iter().filter(|&leaf| leaf <= basic) {
            entries.extend((0..3).map(|level| topology_level(leaf, level, cpus)));
        }
        if let Some(khz) = tsc_khz {
            if intel && basic >= 0x15 {
                // TSC = crystal * ebx / eax; the APIC timer's clock is the crystal, which KVM's
                // counts as 1 GHz.
                entries.push(entry(0x15, [APIC_BUS_KHZ, khz, APIC_BUS_KHZ * 1000, 0]));
            }
            entries.push(entry(TIMING, [khz, APIC_BUS_KHZ, 0, 0]));
        }
        for e in &mut entries {
            fit_entry(e, cpus, intel, deadline, tsc_khz.is_some());
        }
        Self { host: entries.clone(), entries, cpus, saved: Vec::new() }
    }

    /// CPUID of the vCPU with this APIC id.
    ///
    /// # Errors
    /// More entries than KVM takes, which cannot come from KVM's own list.
    pub fn vcpu(&self, apic_id: u32) -> Result<CpuId> {
        if let Some(saved) = self.saved.get(apic_id as usize) {
            return Ok(saved.clone());
        }
        let mut entries = self.entries.clone();
        for e in &mut entries {
            match e.function {
                1 => e.ebx = e.ebx & 0x00ff_ffff | apic_id << 24,
                0xb | 0x1f => e.edx = apic_id,
                0x8000_001e => {
                    e.eax = apic_id;
                    // Core id; threads a core less one. One node.
                    (e.ebx, e.ecx) = (apic_id & 0xff, 0);
                }
                _ => {}
            }
        }
        CpuId::from_entries(&entries).map_err(|e| format!("{e:?}")).or_fail(|| "build a CPUID list")
    }

    /// The model of a machine whose vCPUs have these, from a saved one.
    pub fn with_saved(self, saved: Vec<CpuId>) -> Self {
        Self { saved, ..self }
    }

    /// Check that a saved machine's first vCPU, with this CPUID, can go on here: the same CPU
    /// model, and no feature that this host lacks. What a new machine would see of the host does
    /// not matter: this one's guest has seen what it has.
    ///
    /// # Errors
    /// It can't; the line says what is missing.
    pub fn check_saved(&self, saved: &[kvm_cpuid_entry2]) -> std::result::Result<(), String> {
        let find = |entries: &[kvm_cpuid_entry2], function, index| {
            entries.iter().find(|e| e.function == function && e.index == index).copied()
        };
        let model = |entries: &[kvm_cpuid_entry2]| {
            (vendor(entries), find(entries, 1, 0).map_or(0, |e| e.eax))
        };
        let (there, here) = (model(saved), model(&self.host));
        if there != here {
            let name = |(vendor, signature): ([u8; 12], u32)| {
                format!("{} {signature:#x}", String::from_utf8_lossy(&vendor))
            };
            return Err(format!(
                "it was hibernated on another CPU model, {}; this host's is {}",
                name(there),
                name(here)
            ));
        }
        for &(function, index, registers) in FEATURES {
            let Some(saved) = find(saved, function, index) else { continue };
            let here = find(&self.host, function, index);
            let words = |e: kvm_cpuid_entry2| [e.eax, e.ebx, e.ecx, e.edx];
            let here = here.map_or([0; 4], words);
            let pairs = registers.iter().zip(words(saved)).zip(here);
            let missing: Vec<u32> =
                pairs.map(|((mask, saved), here)| saved & !here & mask).collect();
            if missing.iter().any(|bits| *bits != 0) {
                return Err(format!(
                    "it was hibernated with CPU features that this host lacks: \
                     {missing:x?} of CPUID leaf {function:#x}"
                ));
            }
        }
        Ok(())
    }

    /// CPUs of the machine.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }
}

fn vendor(entries: &[kvm_cpuid_entry2]) -> [u8; 12] {
    let Some(e) = entries.iter().find(|e| e.function == 0) else { return [0; 12] };
    let mut text = [0; 12];
    for (chunk, register) in text.chunks_exact_mut(4).zip([e.ebx, e.edx, e.ecx]) {
        chunk.copy_from_slice(&register.to_le_bytes());
    }
    text
}

fn entry(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
}

/// Bits of an APIC id that number the CPUs of the package.
fn apic_id_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

/// Leaf 0xb or 0x1f: thread, core, end.
fn topology_level(function: u32, index: u32, cpus: u32) -> kvm_cpuid_entry2 {
    let (shift, count, kind) = match index {
        0 => (0, 1, 1),
        1 => (apic_id_bits(cpus), cpus, 2),
        _ => (0, 0, 0),
    };
    kvm_cpuid_entry2 {
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        ..entry(function, [shift, count, index | kind << 8, 0])
    }
}

fn set(register: &mut u32, shift: u32, bits: u32, value: u32) {
    let mask = ((1u32 << bits) - 1) << shift;
    *register = *register & !mask | value << shift & mask;
}

fn fit_entry(e: &mut kvm_cpuid_entry2, cpus: u32, intel: bool, deadline: bool, timing: bool) {
    let many = u32::from(cpus > 1);
    // "Maximum number of addressable ids", less one.
    let ids = (1 << apic_id_bits(cpus)) - 1;
    match e.function {
        1 => {
            set(&mut e.ebx, 16, 8, ids + 1);
            set(&mut e.ecx, 21, 1, 1); // x2APIC
            set(&mut e.ecx, 24, 1, deadline.into());
            set(&mut e.ecx, 31, 1, 1); // hypervisor
            set(&mut e.edx, 28, 1, many); // HTT: the count in ebx is valid
        }
        // Deterministic cache parameters: only the last level is shared.
        4 if e.eax & 0x1f != 0 => {
            let level = e.eax >> 5 & 7;
            set(&mut e.eax, 14, 12, if level >= 3 { ids } else { 0 });
            set(&mut e.eax, 26, 6, ids);
        }
        0x8000_001d if e.eax & 0x1f != 0 => {
            let level = e.eax >> 5 & 7;
            set(&mut e.eax, 14, 12, if level >= 3 { cpus - 1 } else { 0 });
        }
        // No performance counters: a clone may continue on another host.
        0xa => (e.eax, e.ebx, e.ecx, e.edx) = (0, 0, 0, 0),
        0x8000_0001 if !intel => set(&mut e.ecx, 1, 1, many), // CmpLegacy
        0x8000_0008 if !intel => {
            set(&mut e.ecx, 0, 8, cpus - 1);
            set(&mut e.ecx, 12, 4, apic_id_bits(cpus));
        }
        KVM_SIGNATURE if timing => e.eax = e.eax.max(TIMING),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported(vendor: &[u8; 12], basic: u32) -> Vec<kvm_cpuid_entry2> {
        let word = |n: usize| u32::from_le_bytes(vendor[n..n + 4].try_into().unwrap());
        vec![
            entry(0, [basic, word(0), word(8), word(4)]),
            entry(1, [0, 0x0700_0800, 0, 0]),
            kvm_cpuid_entry2 { index: 0, ..entry(4, [1 << 5 | 1 | 0xfff << 14, 0, 0, 0]) },
            kvm_cpuid_entry2 { index: 3, ..entry(4, [3 << 5 | 3, 0, 0, 0]) },
            entry(0xb, [0xdead, 0, 0, 0]),
            entry(KVM_SIGNATURE, [0x4000_0001, 0, 0, 0]),
            entry(0x8000_0008, [0x3030, 0, 0, 0]),
            entry(0x8000_001e, [0, 0, 0, 0]),
        ]
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
        cpuid.as_slice().iter().find(|e| e.function == function && e.index == index).copied()
    }

    #[test]
    fn every_vcpu_finds_itself_in_one_package() {
        for cpus in [1u32, 2, 3, 64] {
            let model = Model::fit(&supported(b"GenuineIntel", 0x1f), cpus, None, true);
            for id in 0..cpus {
                let cpuid = model.vcpu(id).unwrap();
                assert_eq!(find(&cpuid, 1, 0).unwrap().ebx >> 24, id);
                for leaf in [0xb, 0x1f] {
                    let core = find(&cpuid, leaf, 1).unwrap();
                    assert_eq!((core.ebx, core.ecx, core.edx), (cpus, 0x201, id));
                    assert_eq!(id >> core.eax, 0, "all in package 0");
                    assert_eq!(find(&cpuid, leaf, 0).unwrap().eax, 0);
                }
            }
        }
    }

    #[test]
    fn only_the_last_cache_is_shared() {
        let cpuid = Model::fit(&supported(b"GenuineIntel", 0x16), 4, None, true).vcpu(0).unwrap();
        let sharing = |index| find(&cpuid, 4, index).unwrap().eax >> 14 & 0xfff;
        assert_eq!((sharing(0), sharing(3)), (0, 3));
        assert_eq!(find(&cpuid, 0x1f, 0), None, "a leaf beyond the highest basic one");
    }

    #[test]
    fn the_tsc_frequency_is_exact() {
        let intel = Model::fit(&supported(b"GenuineIntel", 0x16), 1, Some(2_799_998), true);
        let leaf = find(&intel.vcpu(0).unwrap(), 0x15, 0).unwrap();
        let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax);
        assert_eq!(hz, 2_799_998_000);
        let amd = Model::fit(&supported(b"AuthenticAMD", 0x10), 1, Some(3_000_000), true);
        let cpuid = amd.vcpu(0).unwrap();
        assert_eq!(find(&cpuid, 0x15, 0), None);
        assert_eq!(find(&cpuid, TIMING, 0).unwrap().eax, 3_000_000);
        assert_eq!(find(&cpuid, KVM_SIGNATURE, 0).unwrap().eax, TIMING);
    }

    #[test]
    fn amd_leaves_count_the_cores() {
        let model = Model::fit(&supported(b"AuthenticAMD", 0x10), 6, None, false);
        let cpuid = model.vcpu(5).unwrap();
        assert_eq!(find(&cpuid, 0x8000_0008, 0).unwrap().ecx, 5 | 3 << 12);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).unwrap().eax, 5);
        let features = find(&cpuid, 1, 0).unwrap();
        assert_eq!((features.ecx >> 21 & 1, features.ecx >> 24 & 1, features.ecx >> 31), (1, 0, 1));
    }
}
