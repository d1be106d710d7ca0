//! The fuzz targets: what each does with an input, and inputs that are nearly right to begin with.
//!
//! `tests/fuzz.rs` drives all of them with a bounded number of mutated inputs, `scripts/fuzz` for
//! as long as one likes.

pub mod mutate;

/// A target.
pub struct Target {
    /// Its name, of its file here and of its directory in fuzz/corpus.
    pub name: &'static str,
    /// Take an input; a panic, an endless loop or too much memory is a finding.
    pub drive: fn(&[u8]),
    /// Inputs that go deep.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Declares the modules and the table of targets.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*
        /// All targets.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), drive: $name::drive, seeds: $name::seeds }),*
        ];
    };
}

targets! {
    answers, api, archive, blk, bundle, chain, chipset, control, elf, esp, ext4, flash, foreign, form, formats, fw_cfg, initramfs, journal,
    kernel, memory_file, menu_asker, metadata, mmio, net, network, nvme, partitions, pci, plan, pv_disk, pv_menu, qcow2, records, remote,
    scsi, share, states, told, vsock,
}

/// Guest RAM of the least size, which all runs of a target share: it is never given back.
pub fn shared_ram() -> std::sync::MutexGuard<'static, sporevm::mem::GuestRam> {
    use std::sync::{Mutex, OnceLock, PoisonError};
    static RAM: OnceLock<Mutex<sporevm::mem::GuestRam>> = OnceLock::new();
    let ram = RAM.get_or_init(|| {
        Mutex::new(sporevm::mem::ram::create(sporevm::mem::layout::MIN_MEMORY).unwrap())
    });
    ram.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Three queues of so many descriptors; tables and rings begin at `base`, `stride` bytes each.
pub fn queues(
    ram: &sporevm::mem::GuestRam,
    (base, stride): (u64, u64),
    size: u16,
) -> Vec<sporevm::virtio::queue::SplitQueue> {
    use sporevm::virtio::queue::{QueueState, SplitQueue};
    let queue = |n: u64| {
        let desc = base + n * stride;
        let (avail, used) = (desc + 0x100, desc + 0x200);
        let state = QueueState { size, ready: true, desc, avail, used, ..QueueState::default() };
        SplitQueue::new(ram.clone(), state, 256, 1 << 28).unwrap()
    };
    (0..3).map(queue).collect()
}

/// A memory file with this content.
pub fn file(bytes: &[u8]) -> std::fs::File {
    use std::os::unix::fs::FileExt;
    let file = sporevm::sys::fds::memfd("fuzz").unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// The first number of an input, and the rest of it.
pub fn number(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// What is asked of a boot menu: its default entry, wherever it is.
pub fn any_boot() -> sporevm::plan::PvBoot {
    sporevm::plan::PvBoot {
        from: sporevm::plan::PvGrub::Any,
        entry: None,
        append: String::new(),
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 0,
        saved: None,
    }
}
