//! The reset vector: what a kernel reaches that restarts the machine "through the BIOS".
//!
//! Linux with `CONFIG_EFI` answers a hardware-reduced FADT with reboot type EFI, whatever RESET_REG
//! says, and without EFI goes on to the BIOS (arch/x86/kernel/reboot.c, `reboot_init` and
//! `native_machine_emergency_restart`): real mode, and a jump to F000:FFF0. Firmware would begin
//! there; where a kernel is booted directly, these few instructions do.

use crate::mem::layout::{ACPI_RESET, ACPI_RESET_VALUE};

/// Real-mode code that writes the reset register, and waits for what it does.
pub const fn vector() -> [u8; 9] {
    let [low, high] = ACPI_RESET.to_le_bytes();
    // mov dx, ACPI_RESET; mov al, ACPI_RESET_VALUE; out dx, al; 1: hlt; jmp 1b
    [0xba, low, high, 0xb0, ACPI_RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
}
