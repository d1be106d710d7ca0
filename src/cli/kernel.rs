//! `spore kernel …` and `spore ramdisk …`.

use super::answer;
use super::args::ListFilters;
use super::complete;
use super::output::{self, Cell, Column, Table};
use super::ui::Ui;
use crate::error::Result;
use crate::plan::PvGrub;
use crate::record::kernel::{Kernel, Ramdisk};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verbs on kernels.
#[derive(Debug, Subcommand)]
pub enum KernelCommand {
    /// Register a kernel for direct boot; prints its id
    ///
    /// A bzImage (what distributions install as vmlinuz) is unpacked once, here; instances map the
    /// result, so that all clones share it in memory. An ELF vmlinux will do as well. The id comes
    /// from the content: a file that is registered already gives the same kernel.
    #[command(
        after_long_help = "Examples:\n  spore kernel register /boot/vmlinuz-6.1.0-18-amd64 --name debian-6.1"
    )]
    Register {
        /// The kernel: a bzImage or an ELF vmlinux
        file: PathBuf,
        /// Its name: 3 to 128 letters, digits, spaces and ()[]./-'@_; made of the file's name if
        /// not given
        #[arg(long)]
        name: Option<String>,
    },
    /// List kernels
    ///
    /// aki-pv-grub-hd0 and aki-pv-grub-hd00 are built in. They mean that the boot menu on an
    /// instance's own root volume, or what its EFI system partition has, says what boots, read
    /// again at every boot: the first for a volume that is one file system, the second for one with
    /// partitions.
    ///
    /// Filters: architecture, creation-date, kernel-id, name, owner-id, version, tag:KEY, tag-key.
    #[command(visible_alias = "list")]
    Ls {
        /// Ids, unique prefixes, names or patterns of names [default: all]
        #[arg(add = complete::kernel())]
        targets: Vec<String>,
        /// Which.
        #[command(flatten)]
        filters: ListFilters,
    },
    /// Show kernels in full
    #[command(visible_alias = "inspect")]
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "KERNEL", add = complete::kernel())]
        kernels: Vec<String>,
    },
    /// Deregister kernels that no image refers to
    #[command(visible_alias = "rm")]
    Deregister {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "KERNEL", add = complete::kernel())]
        kernels: Vec<String>,
        /// Even if instances of other accounts boot it, which can't be started again then
        #[arg(long)]
        force: bool,
    },
}

/// Verbs on initial ramdisks.
#[derive(Debug, Subcommand)]
pub enum RamdiskCommand {
    /// Register an initial ramdisk; prints its id
    ///
    /// It is kept as it is. The id comes from the content: a file that is registered already gives
    /// the same ramdisk.
    Register {
        /// The initial ramdisk
        file: PathBuf,
        /// Its name: 3 to 128 letters, digits, spaces and ()[]./-'@_; made of the file's name if
        /// not given
        #[arg(long)]
        name: Option<String>,
    },
    /// List initial ramdisks
    ///
    /// Filters: creation-date, name, owner-id, ramdisk-id, tag:KEY, tag-key.
    #[command(visible_alias = "list")]
    Ls {
        /// Ids, unique prefixes, names or patterns of names [default: all]
        #[arg(add = complete::kernel())]
        targets: Vec<String>,
        /// Which.
        #[command(flatten)]
        filters: ListFilters,
    },
    /// Show initial ramdisks in full
    #[command(visible_alias = "inspect")]
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "RAMDISK", add = complete::ramdisk())]
        ramdisks: Vec<String>,
    },
    /// Deregister initial ramdisks that no image refers to
    #[command(visible_alias = "rm")]
    Deregister {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "RAMDISK", add = complete::ramdisk())]
        ramdisks: Vec<String>,
        /// Even if instances of other accounts boot it, which can't be started again then
        #[arg(long)]
        force: bool,
    },
}

/// Do a kernel command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run(command: &KernelCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        KernelCommand::Register { file, name } => {
            let kernel = service.register_kernel(file, name.as_deref())?;
            answer::made(ui, "KernelId", kernel.kernel_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
        KernelCommand::Ls { targets, filters } => {
            list(ui, &service.describe_kernels(targets, &filters.all())?)?;
            Ok(ExitCode::SUCCESS)
        }
        KernelCommand::Show { kernels } => {
            let id = |kernel: &Kernel| kernel.kernel_id.to_string();
            answer::show(ui, "Kernels", kernels, id, |ids| service.describe_kernels(&ids, &[]))
        }
        KernelCommand::Deregister { kernels, force } => {
            answer::delete(ui, kernels, |text| service.deregister_kernel(text, *force))
        }
    }
}

fn list(ui: &Ui, kernels: &[Kernel]) -> Result<()> {
    let built_in = |kernel: &Kernel| PvGrub::of(&kernel.kernel_id).is_some();
    let row = |kernel: &Kernel| {
        vec![
            kernel.kernel_id.to_string().into(),
            kernel.name.as_str().into(),
            kernel.version.clone().into(),
            if built_in(kernel) { Cell::None } else { Cell::Bytes(kernel.size_bytes) },
            if built_in(kernel) { Cell::None } else { Cell::Time(kernel.creation_date.clone()) },
        ]
    };
    let table = Table {
        columns: vec![
            Column::new("KernelId", "ID"),
            Column::text("Name", "NAME"),
            Column::text("Version", "VERSION"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("CreationDate", "CREATED"),
        ],
        rows: kernels.iter().map(row).collect(),
        ids: kernels.iter().map(|k| k.kernel_id.to_string()).collect(),
        json: json!({ "Kernels": kernels }),
    };
    output::emit(&ui.output, &table)
}

/// Do a ramdisk command.
///
/// # Errors
/// As the command's; each says what was wrong in one line.
pub fn run_ramdisk(command: &RamdiskCommand, ui: &Ui) -> Result<ExitCode> {
    let service = ui.service()?;
    match command {
        RamdiskCommand::Register { file, name } => {
            let ramdisk = service.register_ramdisk(file, name.as_deref())?;
            answer::made(ui, "RamdiskId", ramdisk.ramdisk_id.as_str())?;
            Ok(ExitCode::SUCCESS)
        }
        RamdiskCommand::Ls { targets, filters } => {
            list_ramdisks(ui, &service.describe_ramdisks(targets, &filters.all())?)?;
            Ok(ExitCode::SUCCESS)
        }
        RamdiskCommand::Show { ramdisks } => {
            let id = |ramdisk: &Ramdisk| ramdisk.ramdisk_id.to_string();
            answer::show(ui, "Ramdisks", ramdisks, id, |ids| service.describe_ramdisks(&ids, &[]))
        }
        RamdiskCommand::Deregister { ramdisks, force } => {
            answer::delete(ui, ramdisks, |text| service.deregister_ramdisk(text, *force))
        }
    }
}

fn list_ramdisks(ui: &Ui, ramdisks: &[Ramdisk]) -> Result<()> {
    let row = |ramdisk: &Ramdisk| {
        vec![
            ramdisk.ramdisk_id.to_string().into(),
            ramdisk.name.as_str().into(),
            Cell::Bytes(ramdisk.size_bytes),
            Cell::Time(ramdisk.creation_date.clone()),
        ]
    };
    let table = Table {
        columns: vec![
            Column::new("RamdiskId", "ID"),
            Column::text("Name", "NAME"),
            Column::new("SizeBytes", "SIZE"),
            Column::new("CreationDate", "CREATED"),
        ],
        rows: ramdisks.iter().map(row).collect(),
        ids: ramdisks.iter().map(|r| r.ramdisk_id.to_string()).collect(),
        json: json!({ "Ramdisks": ramdisks }),
    };
    output::emit(&ui.output, &table)
}
