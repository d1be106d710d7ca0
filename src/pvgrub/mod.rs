//! PV-GRUB: what boots is what the menu on the instance's own root volume says, read again at every
//! boot.
//!
//! A root volume is the guest's, and may be made to hurt. So none of it is interpreted here:
//! [`process`] is a child that has nothing but a socket, on which it asks for bytes of the disk and
//! gives answers. [`ask`] is the other end, which a launcher holds first and a VMM afterwards, so
//! that a reboot inside the guest reads the menu, too.
//!
//! What the child does: [`volume`] opens the file systems, [`find`] looks for a menu in one of its
//! four languages ([`legacy`]; [`grubcfg`], a [`script`] of [`commands`]; [`extlinux`]; [`bls`]) or
//! for what an EFI system partition boots ([`esp`], with [`systemd_boot`]'s menu and [`uki`]s),
//! [`load`] chooses the entry as the menu's own loader would and reads its kernel and initial
//! ramdisk, [`cmdline`] makes its arguments right for this machine. [`detect`] only tells what
//! there is, before an image is registered.

pub mod ask;
pub mod bls;
mod blscfg;
mod cmdline;
mod commands;
mod detect;
pub mod devices;
mod esp;
#[cfg(test)]
mod esp_tests;
pub mod extlinux;
pub mod find;
pub mod grubcfg;
mod grubtest;
pub mod legacy;
mod legacy_entry;
mod legacy_menu;
pub mod load;
pub mod menu;
mod process;
mod scope;
pub mod script;
pub mod systemd_boot;
#[cfg(test)]
mod tests;
mod uki;
pub mod volume;
mod wire;

pub use ask::Child;
pub use detect::Disk;
pub use menu::Listed;
pub(crate) use process::HELPER;
pub use volume::Bytes;
pub use wire::{Found, Wanted};

/// Why an entry boots no Linux kernel, if it does not.
fn not_linux(entry: &menu::Entry) -> Option<String> {
    let Some(path) = &entry.kernel else { return Some("it has no kernel".into()) };
    let name = path.rsplit('/').next().unwrap_or(path);
    let is = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    match () {
        () if is(&["memtest"]) => Some("it is a memory test".into()),
        () if is(&["xen-", "xen."]) || name == "xen" => Some("it boots Xen".into()),
        () if is(&["memdisk", "ipxe", "grub"]) => Some("it is no kernel".into()),
        () => None,
    }
}
