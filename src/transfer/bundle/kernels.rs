//! The kernels that bundles of EC2's time name, by ids of 8 digits: PV-GRUB's are this store's too.

use crate::error::Result;
use crate::id::KernelId;
use crate::plan::PvGrub;

/// Digits of EC2's ids before 2016.
const SHORT: usize = 8;

/// The kernel that a bundle names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// One that a store may have.
    Ours(KernelId),
    /// PV-GRUB.
    PvGrub(PvGrub),
    /// Another of EC2's.
    Ec2s(String),
}

impl Kernel {
    /// # Errors
    /// It is no id.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if !is_short(text, KernelId::PREFIX) {
            return text.parse().map(Self::Ours);
        }
        let digits = &text[KernelId::PREFIX.len()..];
        let known = [(HD0, PvGrub::Hd0), (HD00, PvGrub::Hd00), (HD0_1_04, PvGrub::Any)];
        let found = known.iter().find(|(ids, _)| ids.split_whitespace().any(|id| id == digits));
        Ok(found.map_or_else(|| Self::Ec2s(text.to_owned()), |(_, kind)| Self::PvGrub(*kind)))
    }
}

/// Whether it is an id of that kind with 8 digits.
pub(super) fn is_short(text: &str, prefix: &str) -> bool {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    text.strip_prefix(prefix).is_some_and(|digits| digits.len() == SHORT && digits.bytes().all(hex))
}

// Digits of PV-GRUB's ids in all regions, i386 and x86_64. (EC2 User Guide, "PV-GRUB Kernel Image
// IDs")

/// Versions 1.01 to 1.03 for a root volume that is one file system.
const HD0: &str = "
    407d9529 427d952b 805ea7e9 825ea7eb b6aa75df 88aa75e1
    99a0f1dc 9ba0f1de 83396bc6 8d396bc8
    4deec439 4feec43b 64695810 62695816
    13d5aa41 11d5aa43 a4225af6 aa225af8
    d209a2d3 d409a2d5 ec5df7ed ee5df7ef";
/// The same for one with partitions.
const HD00: &str = "
    4c7d9525 4e7d9527 525ea73b 8e5ea7e7 b2aa75db b4aa75dd
    9da0f1d8 9fa0f1da 87396bc2 81396bc4 e97e26ac eb7e26ae
    f637bac6 f837bac8
    47eec433 41eec435 8a6657fe 60695814 89655dfd 8b655dff
    6fd5aa3d 6dd5aa3f a0225af2 a6225af4 f41354a6 fa1354a8
    3f990e05 3d990e07
    d609a2d7 d809a2d9 e85df7e9 ea5df7eb 3e99283f 40992841
    ce8f51d3 c88f51d5";
/// Version 1.04 takes both.
const HD0_1_04: &str = "
    8f9dcae6 919dcaf8 da055ebf 8e0531cb 880531cd f08f11c0 fc8f11cc 320ebd56 1de98d3e
    68a3451f 52a34525 8b6369ef 184c7a05 5b53f446 5553f448
    ae3973fc 503e7402 cd62fff7 c362fff9 136bf512 176bf516 01a66b6f a7305ac8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_ec2s_time_are_told_apart() {
        let parse = |text: &str| Kernel::parse(text).unwrap();
        assert_eq!(parse("aki-919dcaf8"), Kernel::PvGrub(PvGrub::Any));
        assert_eq!(parse("aki-427d952b"), Kernel::PvGrub(PvGrub::Hd0));
        assert_eq!(parse("aki-4e7d9527"), Kernel::PvGrub(PvGrub::Hd00));
        assert_eq!(parse("aki-a71cf9ce"), Kernel::Ec2s("aki-a71cf9ce".into()));
        assert!(matches!(parse("aki-0123456789abcdef0"), Kernel::Ours(_)));
        assert!(matches!(parse("aki-pv-grub-hd0"), Kernel::Ours(_)));
        assert!(Kernel::parse("aki-12345").is_err() && Kernel::parse("aki-919DCAF8").is_err());
        let all: Vec<&str> =
            [HD0, HD00, HD0_1_04].iter().flat_map(|ids| ids.split_whitespace()).collect();
        assert!(all.iter().all(|id| is_short(&format!("aki-{id}"), "aki-")));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }
}
