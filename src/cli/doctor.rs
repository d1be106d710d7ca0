//! `doctor`: can this machine run instances, and if not, what would help?

use super::output::{Table, emit, human_bytes};
use super::parameters::as_options;
use super::ui::Ui;
use crate::error::Result;
use crate::service::{Service, probe};
use kvm_ioctls::{Cap, Kvm};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// The KVM capabilities that a VMM can't do without, by name.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];
/// Less free space than this is worth a warning: a Debian image and a few overlays.
const SPACE: u64 = 4 << 30;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

struct Check {
    what: &'static str,
    verdict: Verdict,
    detail: String,
}

fn ok(what: &'static str, detail: impl Into<String>) -> Check {
    Check { what, verdict: Verdict::Ok, detail: detail.into() }
}

fn warn(what: &'static str, detail: impl Into<String>) -> Check {
    Check { what, verdict: Verdict::Warn, detail: detail.into() }
}

fn fail(what: &'static str, detail: impl Into<String>) -> Check {
    Check { what, verdict: Verdict::Fail, detail: detail.into() }
}

/// `doctor`.
pub fn doctor(ui: &Ui) -> Result<ExitCode> {
    let (kvm, usable) = kvm();
    let mut checks = kvm;
    checks.extend([virtualization(), io_uring(), user_namespaces(), taps()]);
    checks.extend([qemu_img(), firmware_image(), uefi_firmware()]);
    match ui.service() {
        Ok(service) => {
            checks.push(ok("store", service.home().display().to_string()));
            checks.push(space(service.home()));
            checks.push(networks(&service));
            if usable {
                checks.push(boot(&service));
                checks.extend(lab_kernel(&service));
            }
        }
        Err(error) => checks.push(fail("store", error.to_string())),
    }
    emit(&ui.output, &table(&checks))?;
    let bad = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(ExitCode::from(u8::from(bad)))
}

/// Whether an instance could have a network.
fn taps() -> Check {
    match probe::taps() {
        Ok(()) => ok("taps", format!("{} can be opened", crate::sys::tap::DEVICE)),
        Err(error) => warn("taps", error.to_string()),
    }
}

/// Whether instances can be on a network of the store's, without root: one is made.
fn networks(service: &Service) -> Check {
    let what = "networks";
    let lacks: Vec<String> = probe::missing_network_programs()
        .into_iter()
        .map(|(program, lacking)| format!("{program} is not found: {lacking}"))
        .collect();
    match service.probe_networks() {
        Err(error) => warn(what, error.message()),
        Ok(()) if lacks.is_empty() => ok(what, "namespaces, a tap, routes and rules can be made"),
        Ok(()) => warn(what, lacks.join("; ")),
    }
}

fn table(checks: &[Check]) -> Table {
    let verdict = |check: &Check| match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    let row = |check: &Check| {
        vec![check.what.to_owned(), verdict(check).to_owned(), check.detail.clone()]
    };
    let json = |check: &Check| json!({ "Check": check.what, "Verdict": verdict(check), "Detail": check.detail });
    Table::of_texts(
        vec!["CHECK", "VERDICT", "DETAIL"],
        checks.iter().map(row).collect(),
        checks.iter().filter(|c| c.verdict == Verdict::Fail).map(|c| c.what.into()).collect(),
        json!({ "Checks": checks.iter().map(json).collect::<Vec<_>>() }),
    )
}

/// /dev/kvm and what it can do; whether it can be used.
fn kvm() -> (Vec<Check>, bool) {
    if let Err(error) = crate::sys::kvm::check() {
        return (vec![fail("/dev/kvm", error.message())], false);
    }
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => return (vec![fail("/dev/kvm", format!("cannot be opened: {error}"))], false),
    };
    let version = kvm.get_api_version();
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(cap, _)| !kvm.check_extension(*cap))
        .map(|(_, name)| *name)
        .collect();
    let mut checks = vec![ok("/dev/kvm", "can be opened")];
    // The API has been at version 12 since Linux 2.6.22 (Documentation/virt/kvm/api.rst, 4.1).
    checks.push(if version != 12 {
        fail("KVM API", format!("version {version} instead of 12"))
    } else if missing.is_empty() {
        ok("KVM API", format!("version 12, up to {} vCPUs", kvm.get_max_vcpus()))
    } else {
        fail("KVM API", format!("lacks {}; use a newer kernel", missing.join(", ")))
    });
    let usable = checks.iter().all(|check| check.verdict == Verdict::Ok);
    (checks, usable)
}

fn virtualization() -> Check {
    let what = "virtualization";
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
    match (has("vmx"), has("svm")) {
        (true, _) if loaded("kvm_intel") => ok(what, "Intel VT-x"),
        (_, true) if loaded("kvm_amd") => ok(what, "AMD-V"),
        _ => warn(
            what,
            "no hardware virtualization: a software KVM runs the built-in image; stock kernels run in \
             the box (scripts/kvm-box)",
        ),
    }
}

fn io_uring() -> Check {
    match io_uring::IoUring::new(2) {
        Ok(_) => ok("io_uring", "available"),
        Err(error) => {
            warn("io_uring", format!("not available ({error}): disks use preadv and pwritev"))
        }
    }
}

/// Networks and images that are built without root take them: one is made.
fn user_namespaces() -> Check {
    let what = "user namespaces";
    let root = rustix::process::geteuid().is_root();
    if let Err(error) = probe::user_namespaces() {
        return warn(what, error.to_string());
    }
    let user = std::env::var("USER").unwrap_or_default();
    let uid = rustix::process::getuid().as_raw().to_string();
    let ids = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let mine = ids.lines().filter_map(|line| line.split(':').next()).any(|n| n == user || n == uid);
    if root || mine {
        ok(what, "one was made")
    } else {
        warn(
            what,
            "no range in /etc/subuid: building images without root needs one (usermod --add-subuids)",
        )
    }
}

fn qemu_img() -> Check {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|dir| dir.join("qemu-img")).find(|p| p.is_file());
    match found {
        Some(path) => ok("qemu-img", path.display().to_string()),
        None => {
            warn("qemu-img", "not found: vmdk, vhd and vhdx can't be imported (package qemu-utils)")
        }
    }
}

fn firmware_image() -> Check {
    let what = "firmware";
    match probe::firmware() {
        Ok((path, version)) => {
            let version = version.unwrap_or_else(|| "of unknown version".into());
            ok(what, format!("SeaBIOS {version}: {}", path.display()))
        }
        Err(error) => warn(what, as_options(error.message())),
    }
}

fn uefi_firmware() -> Check {
    let what = "UEFI firmware";
    match probe::uefi() {
        Ok(path) => ok(what, path.display().to_string()),
        Err(error) => warn(what, as_options(error.message())),
    }
}

fn space(home: &Path) -> Check {
    let what = "disk space";
    match rustix::fs::statvfs(home) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} free under {}", human_bytes(free), home.display());
            if free < SPACE { warn(what, detail) } else { ok(what, detail) }
        }
        Err(error) => fail(what, format!("cannot look at {}: {error}", home.display())),
    }
}

/// Boot the built-in image once, as a user would.
fn boot(service: &Service) -> Check {
    let what = "boot";
    match service.probe_built_in() {
        Ok(took) => {
            ok(what, format!("the built-in image ran to its end in {} ms", took.as_millis()))
        }
        Err(error) => fail(what, error.to_string()),
    }
}

/// Boot the lab kernel where there is one: some hosts' KVM can't run it, and nobody is to be told
/// to try.
fn lab_kernel(service: &Service) -> Option<Check> {
    let what = "lab kernel";
    Some(match service.probe_lab_kernel()? {
        Ok(took) => ok(
            what,
            format!("boots on this host's KVM in {} ms: run --kernel lab", took.as_millis()),
        ),
        Err(error) => {
            warn(what, format!("does not boot on this host's KVM ({error}): don't use it here"))
        }
    })
}
