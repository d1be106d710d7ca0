//! A vCPU's state that kvm-ioctls leaves to `unsafe` or does not have: XSAVE of any size, and
//! SREGS2.

use crate::error::{Error, OrFail, Result};
use kvm_bindings::{Xsave, kvm_sregs2, kvm_xsave};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use std::io;
use std::os::fd::AsRawFd;

/// KVM_GET_SREGS2 and KVM_SET_SREGS2. (linux/kvm.h)
const GET_SREGS2: u64 = 2 << 30 | (size_of::<kvm_sregs2>() as u64) << 16 | 0xae << 8 | 0xcc;
const SET_SREGS2: u64 = 1 << 30 | (size_of::<kvm_sregs2>() as u64) << 16 | 0xae << 8 | 0xcd;
/// KVM_CAP_SREGS2, which kvm-ioctls has no name for. (linux/kvm.h)
const CAP_SREGS2: u64 = 200;
/// Most bytes of an XSAVE area that are believed; AMX takes 11 KiB.
const MAX_XSAVE: usize = 64 << 10;

/// The host's KVM has KVM_GET_SREGS2.
pub fn has_sregs2(kvm: &Kvm) -> bool {
    kvm.check_extension_raw(CAP_SREGS2) > 0
}

/// The special registers with the page-directory pointers of PAE paging.
///
/// # Errors
/// KVM refuses.
pub fn sregs2(vcpu: &VcpuFd) -> Result<kvm_sregs2> {
    let mut sregs = kvm_sregs2::default();
    // SAFETY: KVM writes one kvm_sregs2 to the address, which is that of one.
    let done = unsafe { libc::ioctl(vcpu.as_raw_fd(), GET_SREGS2 as _, &raw mut sregs) };
    checked(done).or_fail(|| "read a vCPU's system registers (KVM_GET_SREGS2)")?;
    Ok(sregs)
}

/// Sets what [`sregs2`] gave.
///
/// # Errors
/// KVM refuses.
pub fn set_sregs2(vcpu: &VcpuFd, sregs: &kvm_sregs2) -> Result<()> {
    // SAFETY: KVM reads one kvm_sregs2 at the address, which is that of one.
    let done = unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SREGS2 as _, &raw const *sregs) };
    checked(done).or_fail(|| "set a vCPU's system registers (KVM_SET_SREGS2)")
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// 32-bit words of the XSAVE area beyond the 4 KiB that every KVM has; `None` where there is no
/// KVM_GET_XSAVE2.
pub fn xsave_extra(kvm: &Kvm) -> Option<usize> {
    let size = usize::try_from(kvm.check_extension_int(Cap::Xsave2)).ok().filter(|n| *n > 0)?;
    Some(size.saturating_sub(size_of::<kvm_xsave>()).div_ceil(size_of::<u32>()))
}

/// The XSAVE area, as many words as KVM's has.
///
/// # Errors
/// KVM refuses.
pub fn xsave(vcpu: &VcpuFd, extra: Option<usize>) -> Result<Vec<u32>> {
    let doing = || "read a vCPU's floating-point registers";
    let Some(extra) = extra else {
        return Ok(vcpu.get_xsave().or_fail(doing)?.region.to_vec());
    };
    let mut area = Xsave::new(extra).map_err(|e| format!("{e:?}")).or_fail(doing)?;
    // SAFETY: the area is as large as KVM_CAP_XSAVE2 says, and nothing asks for more features later
    // (arch_prctl is called nowhere).
    unsafe { vcpu.get_xsave2(&mut area) }.or_fail(doing)?;
    let mut words = area.as_fam_struct_ref().xsave.region.to_vec();
    words.extend(area.as_slice());
    Ok(words)
}

/// Sets what [`xsave`] gave.
///
/// # Errors
/// The area is not as large as this KVM's, or KVM refuses.
pub fn set_xsave(vcpu: &VcpuFd, extra: Option<usize>, words: &[u32]) -> Result<()> {
    let doing = || "set a vCPU's floating-point registers";
    let mut basic = kvm_xsave::default();
    let expected = basic.region.len() + extra.unwrap_or(0);
    if words.len() != expected || size_of_val(words) > MAX_XSAVE {
        let (saved, here) = (size_of_val(words), 4 * expected);
        let what = format!("{saved} bytes of them are saved, and here they take {here}");
        return Err(Error::failure(format!(
            "cannot set a vCPU's floating-point registers: {what}"
        )));
    }
    let (first, rest) = words.split_at(basic.region.len());
    basic.region.copy_from_slice(first);
    let Some(extra) = extra else {
        // SAFETY: without KVM_CAP_XSAVE2 KVM reads 4 KiB, which `basic` has.
        return unsafe { vcpu.set_xsave(&basic) }.or_fail(doing);
    };
    let mut area = Xsave::new(extra).map_err(|e| format!("{e:?}")).or_fail(doing)?;
    area.as_mut_slice().copy_from_slice(rest);
    // SAFETY: the length stays as it is; only the fixed part is written.
    unsafe { area.as_mut_fam_struct() }.xsave = basic;
    // SAFETY: the area is as large as KVM_CAP_XSAVE2 says.
    unsafe { vcpu.set_xsave2(&area) }.or_fail(doing)
}
