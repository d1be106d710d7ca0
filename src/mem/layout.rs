//! The one guest-physical address map and interrupt map. Everything that has an address in the
//! guest takes it from here.

/// Page size.
pub const PAGE: u64 = 4096;
/// Smallest and default-page-aligned guest: 16 MiB.
pub const MIN_MEMORY: u64 = 16 << 20;

/// Boot GDT (64-bit boot protocol: __BOOT_CS 0x10, __BOOT_DS 0x18).
pub const BOOT_GDT: u64 = 0x500;
/// Linux boot_params, the "zero page".
pub const ZERO_PAGE: u64 = 0x7000;
/// Initial stack, growing down.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Identity page tables: PML4, PDPT, then four page directories (4 GiB of 2 MiB pages).
pub const BOOT_PML4: u64 = 0x9000;
/// Kernel command line, at most [`CMDLINE_MAX`] bytes with its NUL.
pub const CMDLINE: u64 = 0x2_0000;
/// Room for the command line.
pub const CMDLINE_MAX: u64 = 0x1_0000;
/// End of conventional memory; the EBDA begins here.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables (RSDP first, in the area that ACPI 6.5 section 5.2.5.1 has an OS search).
pub const ACPI: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_END: u64 = VM_GENERATION;
/// The VM generation ID, 16 bytes, where a kernel is entered directly: on a page of its own beside
/// the tables.
pub const VM_GENERATION: u64 = 0xe_f000;
/// SMBIOS 3 entry point and structures (SMBIOS 3.6 section 5.2.2: searched in 0xf0000-0xfffff).
pub const SMBIOS: u64 = 0xf_0000;
/// End of the room for SMBIOS.
pub const SMBIOS_END: u64 = RESET_VECTOR;
/// F000:FFF0, where a CPU starts in real mode and where kernels jump to restart through the BIOS.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Extended memory begins.
pub const HIGH_RAM: u64 = 0x10_0000;

/// RAM below 4 GiB ends here at the latest; the rest lies from [`RAM_ABOVE_4G`] on.
pub const MMIO_HOLE: u64 = 0xc000_0000;
/// RAM above the hole.
pub const RAM_ABOVE_4G: u64 = 1 << 32;

/// virtio-mmio slots: register windows of [`VIRTIO_STRIDE`] bytes.
pub const VIRTIO_BASE: u64 = 0xd000_0000;
/// Bytes a virtio-mmio slot.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// Number of virtio-mmio slots; slot n interrupts on [`VIRTIO_GSIS`]`[n]`.
pub const VIRTIO_SLOTS: usize = 19;
/// Interrupts of the virtio-mmio slots.
pub const VIRTIO_GSIS: [u32; VIRTIO_SLOTS] =
    [5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 3, 8];
/// PCI configuration space in memory (ECAM) of bus 0: 4 KiB a function. (PCI Firmware 3.3, 4.1)
pub const PCI_ECAM: u64 = 0xd800_0000;
/// Bytes of a bus in [`PCI_ECAM`]: 32 devices of 8 functions.
pub const PCI_ECAM_LEN: u64 = 1 << 20;
/// Where PCI functions' memory may lie. SeaBIOS, on a machine whose host bridge it does not know,
/// gives out addresses from here on.
pub const PCI_WINDOW: u64 = 0xe000_0000;
/// End of the room for PCI functions' memory.
pub const PCI_WINDOW_END: u64 = IOAPIC;
/// End of the room for PCI functions' memory on the machine that UEFI firmware knows, and its ECAM,
/// which that firmware has no use for. (OvmfPkg/Library/PlatformInitLib in EDK2: 0xfc000000)
pub const I440FX_WINDOW_END: u64 = 0xfc00_0000;
/// Where that room begins at the lowest.
const I440FX_WINDOW: u64 = 2 << 30;
/// The first interrupt that is no pin of the I/O APIC: those of message signalled interrupts begin
/// here.
pub const MSI_GSI: u32 = 24;
/// The I/O APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// The local APICs.
pub const LAPIC: u64 = 0xfee0_0000;
/// KVM's identity-map page (KVM_SET_IDENTITY_MAP_ADDR), reserved in e820.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// KVM's three TSS pages (KVM_SET_TSS_ADDR), reserved in e820.
pub const KVM_TSS: u64 = 0xfeff_d000;
/// UEFI firmware with its variables begins here at the lowest: 8 MiB.
pub const FLASH: u64 = 0xff80_0000;
/// A BIOS begins here at the lowest, and ends at [`FIRMWARE_END`]. SeaBIOS reserves all of this,
/// whatever its size.
pub const FIRMWARE: u64 = 0xfffc_0000;
/// Firmware ends here: the CPU starts 16 bytes before.
pub const FIRMWARE_END: u64 = 1 << 32;
/// The firmware's last 128 KiB again, as RAM: its 16-bit code runs here.
pub const FIRMWARE_SHADOW: u64 = 0xe_0000;

/// Index and data of the CMOS RAM with the real-time clock.
pub const RTC_PORT: u16 = 0x70;
/// System control port A of the PS/2: the A20 gate.
pub const SYSTEM_CONTROL_PORT: u16 = 0x92;
/// Power management of the PIIX4 where UEFI firmware looks for it, 64 ports: what function 1.3 says
/// in its register PMBA. (82371AB datasheet, 7.2)
pub const PIIX4_PM_PORT: u16 = 0xb000;
/// Ports of it.
pub const PIIX4_PM_LEN: u16 = 64;
/// QEMU's firmware configuration device: selector, data, and its DMA address register 4 bytes on.
pub const FW_CFG_PORT: u16 = 0x510;
/// Ports of the firmware configuration device.
pub const FW_CFG_LEN: u16 = 12;
/// PCI configuration by ports: CONFIG_ADDRESS, and CONFIG_DATA four bytes on.
pub const PCI_CONFIG_PORT: u16 = 0xcf8;
/// Bytes of the two.
pub const PCI_CONFIG_LEN: u16 = 8;
/// COM1.
pub const COM1_PORT: u16 = 0x3f8;
/// COM1's interrupt.
pub const COM1_GSI: u32 = 4;
/// ACPI sleep control register (FADT SLEEP_CONTROL_REG), one byte.
pub const ACPI_SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register, one byte.
pub const ACPI_SLEEP_STATUS: u16 = 0x601;
/// FADT RESET_REG, one byte; [`ACPI_RESET_VALUE`] resets.
pub const ACPI_RESET: u16 = 0x602;
/// FADT RESET_VALUE.
pub const ACPI_RESET_VALUE: u8 = 1;
/// GED events pending, one byte, cleared by reading: bit 0 is the power button,
/// bit 1 the VM generation ID, bit 2 PCI hot-plug.
pub const GED_EVENTS: u16 = 0x604;
/// PCI hot-plug, where there is a PCI bus: three registers of four bytes.
/// (`chipset/pci/hotplug.rs`)
pub const PCI_HOTPLUG_PORT: u16 = 0x608;
/// Ports of it.
pub const PCI_HOTPLUG_LEN: u16 = 12;
/// The Generic Event Device's interrupt.
pub const GED_GSI: u32 = 9;
/// The SLP_TYP value of S5 in the \_S5 package.
pub const S5_SLEEP_TYPE: u8 = 5;
/// The guest's way to say that its kernel panicked is the serial console; this port (QEMU's
/// pvpanic) says it for certain.
pub const PVPANIC_PORT: u16 = 0x505;

/// The VM generation ID of a machine of `memory` bytes that starts in firmware, which has the low
/// memory to itself: the last page of RAM below 4 GiB, reserved in e820.
pub const fn firmware_generation(memory: u64) -> u64 {
    let low = if memory < MMIO_HOLE { memory } else { MMIO_HOLE };
    low - PAGE
}

/// What of the PCI bus depends on what boots the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciMap {
    /// The device number of slot 0: those below are the chipset's own.
    pub first: u8,
    /// Where functions' memory may lie begins here,
    pub window: u64,
    /// and ends here.
    pub window_end: u64,
    /// Configuration space in memory, [`PCI_ECAM_LEN`] bytes.
    pub ecam: u64,
}

impl PciMap {
    /// The machine that kernels and SeaBIOS find.
    pub const GENERIC: Self =
        Self { first: 1, window: PCI_WINDOW, window_end: PCI_WINDOW_END, ecam: PCI_ECAM };

    /// The machine that OVMF finds: it gives each function an address between the RAM below 4 GiB
    /// and [`I440FX_WINDOW_END`], whatever addresses they have.
    pub const fn i440fx(memory: u64) -> Self {
        let low = if memory < MMIO_HOLE { memory } else { MMIO_HOLE };
        let window = if low > I440FX_WINDOW { low } else { I440FX_WINDOW };
        Self { first: 2, window, window_end: I440FX_WINDOW_END, ecam: I440FX_WINDOW_END }
    }
}

/// Whether UEFI firmware, or its variables, may have `len` bytes.
pub const fn flash_fits(len: u64) -> bool {
    len > 0 && len <= FIRMWARE_END - FLASH && len.is_multiple_of(PAGE)
}

/// Whether a BIOS image may have `len` bytes.
pub const fn firmware_fits(len: u64) -> bool {
    len > 0 && len <= FIRMWARE_END - FIRMWARE && len.is_multiple_of(PAGE)
}

const _: () = {
    assert!(BOOT_GDT + 64 <= ZERO_PAGE);
    assert!(BOOT_PML4 + 6 * PAGE <= CMDLINE);
    assert!(CMDLINE + CMDLINE_MAX <= LOW_RAM_END);
    assert!(MMIO_HOLE <= VIRTIO_BASE);
    assert!(VIRTIO_BASE + VIRTIO_SLOTS as u64 * VIRTIO_STRIDE <= PCI_ECAM);
    assert!(PCI_ECAM + PCI_ECAM_LEN <= PCI_WINDOW);
    assert!(PCI_WINDOW < PCI_WINDOW_END && PCI_WINDOW_END <= IOAPIC);
    assert!(LAPIC < KVM_IDENTITY_MAP && KVM_IDENTITY_MAP + PAGE == KVM_TSS);
    assert!(KVM_TSS + 3 * PAGE <= FLASH && FLASH <= FIRMWARE);
    assert!(I440FX_WINDOW_END + PCI_ECAM_LEN <= IOAPIC && I440FX_WINDOW_END <= PCI_WINDOW_END);
    assert!(PCI_WINDOW >= MMIO_HOLE && PCI_WINDOW < I440FX_WINDOW_END);
    assert!(PCI_CONFIG_PORT + PCI_CONFIG_LEN <= PIIX4_PM_PORT);
    assert!(FIRMWARE_SHADOW < HIGH_RAM && FIRMWARE_END <= RAM_ABOVE_4G);
    assert!(GED_EVENTS < PCI_HOTPLUG_PORT && PCI_HOTPLUG_PORT + PCI_HOTPLUG_LEN <= PCI_CONFIG_PORT);
    assert!(PVPANIC_PORT < FW_CFG_PORT && FW_CFG_PORT + FW_CFG_LEN <= ACPI_SLEEP_CONTROL);
};
