//! `spore kernel …` and `spore ramdisk …`.

use super::answer;
use super::args::filter;
use super::output::{self, Table, human_bytes};
use super::ui::Ui;
use crate::error::Result;
use crate::plan::PvGrub;
use crate::record::kernel::{Kernel, Ramdisk};
use crate::service::filter::Filter;
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
    /// instance's own root volume says what boots, read again at every boot: the first for a volume
    /// that is one file system, the second for one with partitions.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: kernel-id, name, version, architecture (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]", value_parser = filter)]
        filters: Vec<Filter>,
    },
    /// Show kernels in full
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "KERNEL")]
        kernels: Vec<String>,
    },
    /// Deregister kernels that no image refers to
    #[command(visible_alias = "rm")]
    Deregister {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "KERNEL")]
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
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that match: ramdisk-id, name (may be repeated)
        #[arg(short, long = "filter", value_name = "NAME=VALUE[,VALUE]", value_parser = filter)]
        filters: Vec<Filter>,
    },
    /// Show initial ramdisks in full
    Show {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "RAMDISK")]
        ramdisks: Vec<String>,
    },
    /// Deregister initial ramdisks that no image refers to
    #[command(visible_alias = "rm")]
    Deregister {
        /// Ids, unique prefixes of ids, or names
        #[arg(required = true, value_name = "RAMDISK")]
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
        KernelCommand::Ls { filters } => {
            list(ui, &service.describe_kernels(&[], filters)?)?;
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
            kernel.kernel_id.to_string(),
            kernel.name.clone(),
            kernel.version.clone().unwrap_or_else(|| "-".into()),
            if built_in(kernel) { "-".into() } else { human_bytes(kernel.size_bytes) },
            if built_in(kernel) { "-".into() } else { kernel.creation_date.clone() },
        ]
    };
    let table = Table {
        columns: vec!["ID", "NAME", "VERSION", "SIZE", "CREATED"],
        rows: kernels.iter().map(row).collect(),
        ids: kernels.iter().map(|k| k.kernel_id.to_string()).collect(),
        json: json!({ "Kernels": kernels }),
    };
    output::emit(ui.output, &table)
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
        RamdiskCommand::Ls { filters } => {
            list_ramdisks(ui, &service.describe_ramdisks(&[], filters)?)?;
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
            ramdisk.ramdisk_id.to_string(),
            ramdisk.name.clone(),
            human_bytes(ramdisk.size_bytes),
            ramdisk.creation_date.clone(),
        ]
    };
    let table = Table {
        columns: vec!["ID", "NAME", "SIZE", "CREATED"],
        rows: ramdisks.iter().map(row).collect(),
        ids: ramdisks.iter().map(|r| r.ramdisk_id.to_string()).collect(),
        json: json!({ "Ramdisks": ramdisks }),
    };
    output::emit(ui.output, &table)
}
