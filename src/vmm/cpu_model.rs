//! What a guest does not see of what KVM supports: instructions beyond those of its processor's
//! level, with all that belongs to them, and virtualization where it is not asked for.
//!
//! What a kernel alone uses stays, above all what says how the processor's faults are mended.
//! (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E)

use crate::plan::{CpuModel, Processor};
use kvm_bindings::kvm_cpuid_entry2;

/// SVM's own leaf. (AMD APM vol. 3, E.4.9)
const SVM: u32 = 0x8000_000a;
/// XCR0 and the sizes of what it enables.
const XSAVE: u32 = 0xd;
/// Leaves of what no level has: SGX, Processor Trace, Key Locker, AMX, AVX10.
const BEYOND: [u32; 6] = [0x12, 0x14, 0x19, 0x1d, 0x1e, 0x24];
/// Bytes of an XSAVE area with x87's and SSE's states only. (Intel SDM vol. 1, 13.4)
const XSAVE_LEAST: u32 = 576;

/// Leaf, subleaf, register (0 to 3: eax, ebx, ecx, edx), and which of its bits stay under any
/// level's name. What is not here stays as it is.
const KEPT: &[(u32, u32, usize, u32)] = &[
    // VMX, PDCM, PCID, x2APIC, deadline timer, XSAVE, OSXSAVE, hypervisor.
    (1, 0, 2, 1 << 5 | 1 << 15 | 1 << 17 | 1 << 21 | 1 << 24 | 3 << 26 | 1 << 31),
    // FSGSBASE, TSC_ADJUST, what of the FPU is gone, SMEP, ERMS, INVPCID, SMAP.
    (7, 0, 1, 1 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 20),
    // UMIP, five levels of page tables.
    (7, 0, 2, 1 << 2 | 1 << 16),
    // FSRM, and what mends the processor's faults.
    (7, 0, 3, 1 << 4 | 7 << 9 | 1 << 13 | 0x3f << 26),
    // Fast short REP instructions.
    (7, 1, 0, 7 << 10),
    (7, 1, 1, 0),
    (7, 1, 2, 0),
    (7, 1, 3, 0),
    // XSAVEOPT, XSAVEC, XGETBV with ecx = 1, XSAVES; nothing in IA32_XSS.
    (XSAVE, 1, 0, 0xf),
    (XSAVE, 1, 2, 0),
    (XSAVE, 1, 3, 0),
    // CmpLegacy, SVM, ExtApicSpace, AltMovCr8, OSVW, TCE, TopologyExtensions, counters, debugging.
    (0x8000_0001, 0, 2, 0x1e | 1 << 9 | 1 << 17 | 7 << 22 | 1 << 26 | 1 << 28),
    // All but 3DNow!.
    (0x8000_0001, 0, 3, !(3 << 30)),
    // All but CLZERO and RDPRU.
    (0x8000_0008, 0, 1, !(1 | 1 << 4)),
];

/// The states in XCR0 that a level's instructions need: x87, SSE; AVX; and three of AVX-512.
fn xcr0(model: CpuModel) -> u32 {
    match model {
        CpuModel::Host => !0,
        CpuModel::V2 => 3,
        CpuModel::V3 => 7,
        CpuModel::V4 => 0xe7,
    }
}

/// Takes out of `entries` what a guest with this processor does not see.
pub fn mask(entries: &mut Vec<kvm_cpuid_entry2>, processor: &Processor) {
    if !processor.nested {
        entries.retain(|e| e.function != SVM);
        for e in entries.iter_mut() {
            match e.function {
                1 => e.ecx &= !(1 << 5),
                0x8000_0001 => e.ecx &= !(1 << 2),
                _ => {}
            }
        }
    }
    if processor.model == CpuModel::Host {
        return;
    }
    let states = xcr0(processor.model);
    entries.retain(|e| {
        let state = e.function == XSAVE && e.index >= 2;
        !BEYOND.contains(&e.function) && (!state || e.index < 32 && states >> e.index & 1 != 0)
    });
    let of_state = |e: &&kvm_cpuid_entry2| e.function == XSAVE && e.index >= 2;
    let ends = entries.iter().filter(of_state).map(|e| e.ebx.saturating_add(e.eax));
    let size = ends.max().unwrap_or(0).max(XSAVE_LEAST);
    for e in entries.iter_mut() {
        let registers = [&mut e.eax, &mut e.ebx, &mut e.ecx, &mut e.edx];
        for (number, register) in registers.into_iter().enumerate() {
            let of = (e.function, e.index, number);
            let kept =
                KEPT.iter().find(|(leaf, index, register, _)| of == (*leaf, *index, *register));
            let Some((.., kept)) = kept else { continue };
            let of_level = match e.index {
                0 => processor.model.bits(e.function, number),
                _ => 0,
            };
            *register &= kept | of_level;
        }
        if (e.function, e.index) == (XSAVE, 0) {
            // KVM keeps ebx, the size for what XCR0 has at the time.
            (e.eax, e.ebx, e.ecx, e.edx) = (e.eax & states, size, size, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    /// A host that has everything, with the sizes and offsets that processors have.
    fn host() -> Vec<kvm_cpuid_entry2> {
        let all = |function, index| entry(function, index, [!0; 4]);
        let mut entries = vec![all(1, 0), all(7, 0), all(7, 1), all(XSAVE, 0), all(XSAVE, 1)];
        let states = [(2, 256, 576), (5, 64, 1088), (6, 512, 1152), (7, 1024, 1664), (9, 8, 2688)];
        entries.extend(states.map(|(n, size, at)| entry(XSAVE, n, [size, at, 0, 0])));
        entries.extend(BEYOND.map(|function| all(function, 0)));
        entries.extend([all(0x8000_0001, 0), all(0x8000_0008, 0), all(SVM, 0)]);
        entries
    }

    fn masked(model: CpuModel, nested: bool) -> impl Fn(u32, u32) -> Option<[u32; 4]> {
        let mut entries = host();
        mask(&mut entries, &Processor { model, nested });
        move |function, index| {
            let found = entries.iter().find(|e| (e.function, e.index) == (function, index));
            found.map(|e| [e.eax, e.ebx, e.ecx, e.edx])
        }
    }

    #[test]
    fn virtualization_is_there_when_it_is_asked_for() {
        for model in [CpuModel::Host, CpuModel::V3] {
            let (with, without) = (masked(model, true), masked(model, false));
            assert_eq!(
                (with(1, 0).unwrap()[2] >> 5 & 1, without(1, 0).unwrap()[2] >> 5 & 1),
                (1, 0)
            );
            let svm = |look: &dyn Fn(u32, u32) -> Option<[u32; 4]>| {
                (look(0x8000_0001, 0).unwrap()[2] >> 2 & 1, look(SVM, 0).is_some())
            };
            assert_eq!((svm(&with), svm(&without)), ((1, true), (0, false)));
        }
        let whole = masked(CpuModel::Host, true);
        assert!(
            host()
                .iter()
                .all(|e| { whole(e.function, e.index) == Some([e.eax, e.ebx, e.ecx, e.edx]) })
        );
    }

    #[test]
    fn a_level_has_its_instructions_and_the_states_that_they_need() {
        for (model, states, size) in
            [(CpuModel::V2, 3, 576), (CpuModel::V3, 7, 832), (CpuModel::V4, 0xe7, 2688)]
        {
            let look = masked(model, false);
            assert_eq!(look(XSAVE, 0), Some([states, size, size, 0]), "{model:?}");
            assert_eq!(look(XSAVE, 1), Some([0xf, !0, 0, 0]));
            let there = (2..32).filter(|n| look(XSAVE, *n).is_some());
            assert_eq!(there.fold(3, |bits, n| bits | 1 << n), states);
            assert!(BEYOND.iter().all(|leaf| look(*leaf, 0).is_none()));
            let bit = |leaf, register: usize, bit: u32| look(leaf, 0).unwrap()[register] >> bit & 1;
            // AES, AVX, AVX2, AVX512F, SHA, PKU, AMX.
            let vectors = (bit(1, 2, 28), bit(7, 1, 5), bit(7, 1, 16));
            let level = |least| u32::from(model >= least);
            assert_eq!(vectors, (level(CpuModel::V3), level(CpuModel::V3), level(CpuModel::V4)));
            assert_eq!((bit(1, 2, 25), bit(7, 1, 29), bit(7, 2, 3), bit(7, 3, 24)), (0, 0, 0, 0));
            // A kernel's own: x2APIC, the deadline timer, SMAP, IBRS.
            assert_eq!((bit(1, 2, 21), bit(1, 2, 24), bit(7, 1, 20), bit(7, 3, 26)), (1, 1, 1, 1));
            assert_eq!(look(7, 1), Some([7 << 10, 0, 0, 0]));
        }
    }
}
