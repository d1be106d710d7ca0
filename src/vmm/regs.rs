//! A vCPU's registers at the machine's start and at each reset.

use crate::boot::entry::{BOOT_CS, BOOT_DS, BOOT_TR};
use crate::boot::{Entry, EntryState, Mode};
use crate::error::{Error, OrFail, Result};
use crate::mem::layout::LAPIC;
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, Msrs, kvm_dtable, kvm_fpu, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcr,
    kvm_xcrs,
};
use kvm_ioctls::VcpuFd;

/// x87 control word and MXCSR after FNINIT and reset. (Intel SDM vol. 3, table 9-1)
const FCW: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// CR0: PE, MP, ET, NE, WP, PG.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR0 without paging: PE, ET.
const CR0_PROTECTED: u64 = 1 | 1 << 4;
/// CR0 at reset: ET, NW, CD.
const CR0_RESET: u64 = 1 << 4 | 1 << 29 | 1 << 30;
/// CR4: PAE.
const CR4: u64 = 1 << 5;
/// EFER: LME, LMA.
const EFER: u64 = 1 << 8 | 1 << 10;

/// IA32_APIC_BASE: enabled; bit 8 marks the boot processor.
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_BSP: u64 = 1 << 8;

/// Model-specific registers that a reset brings back, with their values: what a guest may have set.
/// The time stamp counters run on in step, as Linux's clock needs them.
const MSRS: [(u32, u64); 18] = [
    (0x1a0, 1),                     // IA32_MISC_ENABLE: fast string operations
    (0x2ff, 1 << 11 | 6), // IA32_MTRR_DEF_TYPE: enabled, write-back, as firmware leaves it
    (0x277, 0x0007_0406_0007_0406), // IA32_PAT
    (0x174, 0),           // IA32_SYSENTER_CS
    (0x175, 0),           // IA32_SYSENTER_ESP
    (0x176, 0),           // IA32_SYSENTER_EIP
    (0x6e0, 0),           // IA32_TSC_DEADLINE
    (0xc000_0081, 0),     // STAR
    (0xc000_0082, 0),     // LSTAR
    (0xc000_0083, 0),     // CSTAR
    (0xc000_0084, 0),     // SFMASK
    (0xc000_0102, 0),     // KERNEL_GS_BASE
    (0xc000_0103, 0),     // TSC_AUX
    (0x4b56_4d00, 0),     // KVM wall clock
    (0x4b56_4d01, 0),     // KVM system time
    (0x4b56_4d02, 0),     // KVM asynchronous page faults
    (0x4b56_4d03, 0),     // KVM steal time
    (0x4b56_4d04, 0),     // KVM end-of-interrupt flag
];
/// Of those, what differs from KVM's own state of a new vCPU.
const MSRS_AT_START: usize = 2;

/// Bring a new vCPU into the state in which the machine starts. `entry` is the boot processor's;
/// the others wait for INIT and SIPI.
///
/// # Errors
/// An ioctl fails.
pub fn start(vcpu: &VcpuFd, index: u32, entry: Option<&Entry>) -> Result<()> {
    set_msrs(vcpu, &MSRS[..MSRS_AT_START])?;
    match entry {
        Some(entry @ Entry::Kernel(_)) => {
            set_sregs(vcpu, index, Some(entry))?;
            set_regs(vcpu, entry)?;
            // After the system registers, which hold the APIC's base address.
            set_lapic(vcpu, index, MASKED)
        }
        // KVM has made it so.
        Some(Entry::Reset) => Ok(()),
        None => set_mp_state(vcpu, KVM_MP_STATE_UNINITIALIZED),
    }
}

/// Bring a used vCPU back into the state of [`start`].
///
/// # Errors
/// An ioctl fails.
pub fn reset(vcpu: &VcpuFd, index: u32, entry: Option<&Entry>) -> Result<()> {
    // Whatever was pending, of an instruction half done included, is gone.
    vcpu.set_vcpu_events(&kvm_vcpu_events::default()).or_fail(|| "clear a vCPU's events")?;
    set_sregs(vcpu, index, entry)?;
    // Before firmware sets its local APIC up, the boot processor hears the 8259, as KVM starts it
    // too.
    let lint0 = if let Some(Entry::Reset) = entry { EXTINT } else { MASKED };
    set_lapic(vcpu, index, lint0)?;
    for &msr in &MSRS {
        // One that this KVM does not have needs no reset.
        let _ = set_msrs(vcpu, &[msr]);
    }
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: 1 };
    // A host without XSAVE has none to reset.
    let _ = vcpu.set_xcrs(&xcrs);
    let Some(entry) = entry else { return set_mp_state(vcpu, KVM_MP_STATE_UNINITIALIZED) };
    let fpu = kvm_fpu { fcw: FCW, mxcsr: MXCSR, ..Default::default() };
    vcpu.set_fpu(&fpu).or_fail(|| "reset a vCPU's FPU")?;
    set_regs(vcpu, entry)?;
    set_mp_state(vcpu, KVM_MP_STATE_RUNNABLE)
}

fn set_mp_state(vcpu: &VcpuFd, mp_state: u32) -> Result<()> {
    vcpu.set_mp_state(kvm_mp_state { mp_state }).or_fail(|| "set a vCPU's run state")
}

fn set_msrs(vcpu: &VcpuFd, msrs: &[(u32, u64)]) -> Result<()> {
    let entries: Vec<_> = msrs
        .iter()
        .map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() })
        .collect();
    let list = Msrs::from_entries(&entries).map_err(|e| Error::failure(format!("{e:?}")))?;
    match vcpu.set_msrs(&list).or_fail(|| "set a vCPU's model-specific registers")? {
        done if done == entries.len() => Ok(()),
        done => Err(Error::failure(format!("KVM refuses to set MSR {:#x}", entries[done].index))),
    }
}

/// The boot processor's general registers.
fn set_regs(vcpu: &VcpuFd, entry: &Entry) -> Result<()> {
    let regs = match entry {
        Entry::Kernel(entry) => kvm_regs {
            rip: entry.rip,
            rsp: entry.rsp,
            // The 32-bit protocol wants 0 there, and nobody else anything.
            rbp: if entry.mode == Mode::Long { entry.rsp } else { 0 },
            rsi: entry.rsi,
            rbx: entry.rbx,
            rflags: 2,
            ..Default::default()
        },
        Entry::Reset => kvm_regs { rip: 0xfff0, rflags: 2, ..Default::default() },
    };
    vcpu.set_regs(&regs).or_fail(|| "set the boot vCPU's registers")
}

fn set_sregs(vcpu: &VcpuFd, index: u32, entry: Option<&Entry>) -> Result<()> {
    let mut sregs = kvm_sregs {
        apic_base: LAPIC | APIC_BASE_ENABLE | if index == 0 { APIC_BASE_BSP } else { 0 },
        cr0: CR0_RESET,
        ..real_mode()
    };
    if let Some(Entry::Kernel(entry)) = entry {
        set_mode(&mut sregs, entry);
    }
    vcpu.set_sregs(&sregs).or_fail(|| "set a vCPU's system registers")
}

/// Segments, tables and control registers of a kernel's entry.
fn set_mode(sregs: &mut kvm_sregs, entry: &EntryState) {
    let long = entry.mode == Mode::Long;
    let code = kvm_segment {
        selector: BOOT_CS,
        limit: u32::MAX,
        type_: 0xb,
        present: 1,
        s: 1,
        l: long.into(),
        db: (!long).into(),
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: BOOT_DS, type_: 3, l: 0, db: 1, ..code };
    let task = kvm_segment {
        selector: BOOT_TR,
        limit: 0xffff,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    (sregs.cs, sregs.tr) = (code, task);
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.ldt = kvm_segment { unusable: 1, type_: 2, ..Default::default() };
    let limit = entry.gdt_limit;
    sregs.gdt = kvm_dtable { base: entry.gdt_base, limit, ..Default::default() };
    sregs.idt = kvm_dtable::default();
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = match entry.mode {
        Mode::Long => (CR0, entry.cr3, CR4, EFER),
        Mode::Protected => (CR0_PROTECTED, 0, 0, 0),
    };
}

/// The segments of a CPU after reset. SIPI sets CS; this is only what it finds.
fn real_mode() -> kvm_sregs {
    let data = kvm_segment { limit: 0xffff, type_: 3, present: 1, s: 1, ..Default::default() };
    let system = kvm_segment { s: 0, ..data };
    let table = kvm_dtable { base: 0, limit: 0xffff, ..Default::default() };
    kvm_sregs {
        cs: kvm_segment { selector: 0xf000, base: 0xffff_0000, type_: 0xb, ..data },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment { type_: 0xb, ..system },
        ldt: kvm_segment { type_: 2, ..system },
        gdt: table,
        idt: table,
        ..Default::default()
    }
}

/// Local vector table entries: a masked one, and one that brings the 8259's interrupts.
const MASKED: u32 = 1 << 16;
const EXTINT: u32 = 7 << 8;

/// The local APIC after reset (Intel SDM vol. 3, 11.4.7.1), all of its local interrupts but `lint0`
/// masked: an ACPI guest has no 8259 that it could bring, and sets LINT1 up from the MADT.
fn set_lapic(vcpu: &VcpuFd, index: u32, lint0: u32) -> Result<()> {
    let mut lapic = kvm_lapic_state::default();
    let mut set = |offset: usize, value: u32| {
        for (byte, to) in value.to_le_bytes().into_iter().zip(&mut lapic.regs[offset..]) {
            *to = byte as _;
        }
    };
    set(0x20, index << 24); // ID
    set(0x30, 0x0005_0014); // version 0x14, 6 local vector table entries
    set(0xe0, u32::MAX); // destination format
    set(0xf0, 0xff); // spurious vector, software-disabled
    for local in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        set(local, MASKED);
    }
    set(0x350, lint0);
    vcpu.set_lapic(&lapic).or_fail(|| "set a vCPU's local APIC")
}
