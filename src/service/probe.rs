//! Whether this host runs guests: some are launched to see. Each powers itself off, and nothing of
//! it stays.

use super::Service;
use super::launch::{Request, RunInstances};
use super::wait::{Until, Waited, wait};
use crate::error::{Error, OrFail, Result};
use crate::instance::dir::{InstanceDir, instances};
use crate::instance::{firmware, lifecycle, network, uefi};
use crate::kernel::{self, Registered, find};
use crate::network::probe;
use crate::record::kernel::{Kernel, Ramdisk};
use crate::sys::{fds, namespace};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The built-in guest takes milliseconds; in a nested VM some seconds.
const BUILT_IN_PATIENCE: Duration = Duration::from_secs(60);
/// The lab kernel reaches its init in some 0.3 s. Where it does not run it hangs for good.
const LAB_PATIENCE: Duration = Duration::from_secs(10);
/// Enough for the lab kernel.
const LAB_MEMORY: u64 = 256 << 20;
/// Where the init of the lab kernel's ramdisk is linked.
const INIT_ADDRESS: u64 = 0x40_0000;

/// The host's firmware and its version, if it says one.
///
/// # Errors
/// There is none.
pub fn firmware() -> Result<(PathBuf, Option<String>)> {
    let path = firmware::find(None)?;
    let version = firmware::version(&path);
    Ok((path, version))
}

/// The host's UEFI firmware.
///
/// # Errors
/// There is none.
pub fn uefi() -> Result<PathBuf> {
    uefi::find(None, None).map(|uefi| uefi.code)
}

/// Sees whether this user may open taps, those that are the user's.
///
/// # Errors
/// The host has none, or not for this user; the line says what helps.
pub fn taps() -> Result<()> {
    network::check_host()
}

/// Sees whether this user may make user namespaces: a child makes one.
///
/// # Errors
/// It may not; the line says what helps.
pub fn user_namespaces() -> Result<()> {
    namespace::probe().map_err(|cause| {
        let error = Error::failure(format!("cannot be made: {}", namespace::why(&cause)));
        error.remedy(namespace::remedy("user", &cause))
    })
}

/// The programs that networks take and that are not there, each with what is lacking without.
pub fn missing_network_programs() -> Vec<(&'static str, &'static str)> {
    probe::missing()
}

impl Service {
    /// Make a network of the store's, and a tap on it. Nothing of it stays.
    ///
    /// # Errors
    /// What this host does not allow, and what helps.
    pub fn probe_networks(&self) -> Result<()> {
        probe::networks(&self.store)
    }

    /// Boot the built-in image; how long it took from launch to power-off.
    ///
    /// # Errors
    /// It can't be launched, fails, or is not done in time.
    pub fn probe_built_in(&self) -> Result<Duration> {
        until_power_off(self, None, BUILT_IN_PATIENCE)
    }

    /// Boot the lab kernel to an init that powers off; how long it took from launch to power-off.
    /// `None` if the store's cache has no lab kernel.
    ///
    /// # Errors
    /// As [`Service::probe_built_in`]'s, within 10 s.
    pub fn probe_lab_kernel(&self) -> Option<Result<Duration>> {
        let path = find::lab_kernel(&self.store).ok()?;
        Some(lab_kernel(self, &path))
    }
}

fn lab_kernel(service: &Service, path: &Path) -> Result<Duration> {
    let store = &service.store;
    let mut file = fds::memfd("init")?;
    file.write_all(&ramdisk(&init())).or_fail(|| "write a ramdisk")?;
    let ramdisk = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let kernel: Registered<Kernel> = kernel::register(store, path, None)?;
    let ramdisk: Registered<Ramdisk> = kernel::register(store, &ramdisk, None)?;
    let ids = (kernel.record.kernel_id.to_string(), ramdisk.record.ramdisk_id.to_string());
    // What is new goes with the guest.
    until_power_off(service, Some(ids), LAB_PATIENCE)
}

/// Launch the built-in image, or its disk with this kernel and ramdisk, and see that the guest
/// powers off.
fn until_power_off(
    service: &Service,
    boot: Option<(String, String)>,
    patience: Duration,
) -> Result<Duration> {
    let memory = boot.is_some().then_some(LAB_MEMORY);
    let (kernel, ramdisk) = boot.unzip();
    let request = RunInstances {
        image_id: "demo".into(),
        kernel_id: kernel,
        ramdisk_id: ramdisk,
        request: Request { min_count: 1, max_count: 1, memory, ..Request::default() },
        wait_running: true,
        ..RunInstances::default()
    };
    let begin = Instant::now();
    let record = service.run_instances(&request)?.records.remove(0);
    let dir = InstanceDir::new(&service.store, &record.instance.instance_id);
    let waited = wait(std::slice::from_ref(&dir), Until::Exit, Some(patience), &mut |_| {});
    let took = begin.elapsed();
    lifecycle::terminate(&dir)?;
    // It would be in `ls` for an hour.
    instances(&service.store).remove(dir.id())?;
    let Some(Waited::Reached(record)) = waited.first() else {
        let limit = patience.as_secs();
        return Err(Error::failure(format!("the guest did not power off within {limit} s")));
    };
    match &record.instance.state_reason {
        Some(reason) if reason.code != "Client.InstanceInitiatedShutdown" => {
            Err(Error::failure(format!("the guest failed: {}", reason.message)))
        }
        _ => Ok(took),
    }
}

/// A static ELF of one segment that calls reboot(2) to power off.
fn init() -> Vec<u8> {
    #[rustfmt::skip]
    let code = [
        0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, SYS_reboot
        0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, LINUX_REBOOT_MAGIC1
        0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, LINUX_REBOOT_MAGIC2
        0xba, 0xdc, 0xfe, 0x21, 0x43, // mov edx, LINUX_REBOOT_CMD_POWER_OFF
        0x0f, 0x05,                   // syscall
        0xeb, 0xfe,                   // jmp to itself
    ];
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    // System V ABI, ELF-64: ET_EXEC, EM_X86_64, entry behind the headers; one program header.
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [INIT_ADDRESS + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    // PT_LOAD, readable and executable: the whole file.
    elf.extend(b"\x01\0\0\0\x05\0\0\0");
    for word in [0, INIT_ADDRESS, INIT_ADDRESS, size, size, 4096] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// A cpio archive with `init` as /init.
/// (Documentation/driver-api/early-userspace/buffer-format.rst)
fn ramdisk(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut entry = |name: &str, mode: usize, content: &[u8]| {
        archive.extend(b"070701");
        // Inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name,
        // checksum.
        let fields = [0, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        for field in fields {
            archive.extend(format!("{field:08x}").bytes());
        }
        for bytes in [&[name.as_bytes(), b"\0"].concat(), content] {
            archive.extend(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    };
    entry("init", 0o100_755, init);
    entry("TRAILER!!!", 0, &[]);
    archive
}
