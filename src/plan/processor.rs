//! What a guest sees of the host's processor.

use serde::{Deserialize, Serialize};

/// An entry of KVM's list: function, index, flags, eax, ebx, ecx, edx. (struct kvm_cpuid_entry2)
pub type CpuidLeaf = [u32; 7];

/// The processor of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// Which instructions the guest finds.
    pub model: CpuModel,
    /// The guest may run virtual machines of its own.
    pub nested: bool,
}

/// Which instructions a guest's programs find: all that the host has, or those of a level of the
/// x86-64 psABI, which are the same on every host. (System V ABI for AMD64, 3.1.1, table 3.1)
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum CpuModel {
    /// All that KVM supports on this host.
    #[default]
    #[serde(rename = "host")]
    Host,
    /// Up to SSE4.2 and POPCNT.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// Up to AVX2 and FMA as well.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// Five parts of AVX-512 as well.
    #[serde(rename = "x86-64-v4")]
    V4,
}

/// A feature that a level has: where CPUID tells of it.
struct Feature {
    level: CpuModel,
    name: &'static str,
    leaf: u32,
    /// 0 to 3: eax, ebx, ecx, edx.
    register: usize,
    bit: u32,
}

const fn feature(
    level: CpuModel,
    name: &'static str,
    (leaf, register, bit): (u32, usize, u32),
) -> Feature {
    Feature { level, name, leaf, register, bit }
}

/// Table 3.1 from v2 on. The baseline is what makes a processor one of x86-64. OSXSAVE follows CR4,
/// so that XSAVE stands for it.
const FEATURES: &[Feature] = &[
    feature(CpuModel::V2, "CMPXCHG16B", (1, 2, 13)),
    feature(CpuModel::V2, "LAHF-SAHF", (0x8000_0001, 2, 0)),
    feature(CpuModel::V2, "POPCNT", (1, 2, 23)),
    feature(CpuModel::V2, "SSE3", (1, 2, 0)),
    feature(CpuModel::V2, "SSE4.1", (1, 2, 19)),
    feature(CpuModel::V2, "SSE4.2", (1, 2, 20)),
    feature(CpuModel::V2, "SSSE3", (1, 2, 9)),
    feature(CpuModel::V3, "AVX", (1, 2, 28)),
    feature(CpuModel::V3, "AVX2", (7, 1, 5)),
    feature(CpuModel::V3, "BMI1", (7, 1, 3)),
    feature(CpuModel::V3, "BMI2", (7, 1, 8)),
    feature(CpuModel::V3, "F16C", (1, 2, 29)),
    feature(CpuModel::V3, "FMA", (1, 2, 12)),
    feature(CpuModel::V3, "LZCNT", (0x8000_0001, 2, 5)),
    feature(CpuModel::V3, "MOVBE", (1, 2, 22)),
    feature(CpuModel::V3, "XSAVE", (1, 2, 26)),
    feature(CpuModel::V4, "AVX512F", (7, 1, 16)),
    feature(CpuModel::V4, "AVX512BW", (7, 1, 30)),
    feature(CpuModel::V4, "AVX512CD", (7, 1, 28)),
    feature(CpuModel::V4, "AVX512DQ", (7, 1, 17)),
    feature(CpuModel::V4, "AVX512VL", (7, 1, 31)),
];

/// VMX, and SVM: leaf, register, bit.
const VIRTUALIZATION: [(u32, usize, u32); 2] = [(1, 2, 5), (0x8000_0001, 2, 2)];

fn has(leaves: &[CpuidLeaf], (leaf, register, bit): (u32, usize, u32)) -> bool {
    let first = leaves.iter().find(|[function, index, ..]| (*function, *index) == (leaf, 0));
    first.is_some_and(|entry| entry[3 + register] >> bit & 1 != 0)
}

impl CpuModel {
    /// All that KVM supports on this host.
    pub fn is_host(&self) -> bool {
        *self == Self::Host
    }

    /// What a user calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    /// The bits of a register (0 to 3: eax, ebx, ecx, edx) of a leaf's first subleaf that tell of
    /// this level's features.
    pub fn bits(self, leaf: u32, register: usize) -> u32 {
        let of = FEATURES.iter().filter(|feature| feature.level <= self);
        let here = of.filter(|feature| (feature.leaf, feature.register) == (leaf, register));
        here.fold(0, |bits, feature| bits | 1 << feature.bit)
    }
}

impl Processor {
    /// All that the host has, but for virtualization.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Why a host whose KVM supports these leaves has no such processor for a guest, if it has
    /// none. Of a host that did not say nothing is known.
    pub fn refused_by(&self, leaves: &[CpuidLeaf]) -> Option<String> {
        if leaves.is_empty() {
            return None;
        }
        let of = FEATURES.iter().filter(|feature| feature.level <= self.model);
        let lacks = |f: &&Feature| !has(leaves, (f.leaf, f.register, f.bit));
        let missing: Vec<_> = of.filter(lacks).map(|feature| feature.name).collect();
        if !missing.is_empty() {
            return Some(format!(
                "this host's processor is no {}: it lacks {}; choose a lower `CpuModel`, or host",
                self.model.name(),
                missing.join(", ")
            ));
        }
        let virtualizes = VIRTUALIZATION.iter().any(|bit| has(leaves, *bit));
        (self.nested && !virtualizes).then(|| {
            "`NestedVirtualization` is not possible on this host: its KVM gives guests neither VMX \
             nor SVM; load kvm_intel or kvm_amd with nested=1"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_level_when_it_has_all_of_it() {
        let leaf = |function, registers: [u32; 4]| {
            let [eax, ebx, ecx, edx] = registers;
            [function, 0, 0, eax, ebx, ecx, edx]
        };
        let mut host = vec![
            leaf(1, [0, 0, CpuModel::V3.bits(1, 2), 0]),
            leaf(7, [0, CpuModel::V3.bits(7, 1), 0, 0]),
            leaf(0x8000_0001, [0, 0, CpuModel::V3.bits(0x8000_0001, 2), 0]),
        ];
        let refused = |host: &[CpuidLeaf], model, nested| {
            Processor { model, nested }.refused_by(host).unwrap_or_default()
        };
        for model in [CpuModel::Host, CpuModel::V2, CpuModel::V3] {
            assert_eq!(refused(&host, model, false), "");
        }
        let all = "no x86-64-v4: it lacks AVX512F, AVX512BW, AVX512CD, AVX512DQ, AVX512VL;";
        assert!(refused(&host, CpuModel::V4, false).contains(all));
        host[0][5] &= !(1 << 12);
        assert!(refused(&host, CpuModel::V3, false).contains("it lacks FMA;"));
        assert!(refused(&host, CpuModel::Host, true).contains("neither VMX nor SVM"));
        host[2][5] |= 1 << 2;
        assert_eq!(refused(&host, CpuModel::V2, true), "");
        assert_eq!(refused(&[], CpuModel::V4, true), "", "nobody has asked KVM");
    }
}
