//! One VMM process at a time, driven as the launcher drives it: a plan, descriptors, a socket. The
//! guests are a few bytes of machine code each and run on any /dev/kvm.

mod common;

use common::{guard, has_kvm};
use sporevm::control::{DiskTop, Request, Response};
use sporevm::error::Kind;
use sporevm::plan::{
    BUILD, BootPlan, Chipset, DeviceConfig, DeviceId, DeviceKind, DiskFormat, DiskPlan, EndReason,
    Engine, LayerPlan, PLAN_FD, PlanFd, Ready, ResetBy, SUBCOMMAND, TransportKind, VmConfig,
    VmPlan, VmReport,
};
use sporevm::sys::{fds, process};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Descriptors in the VMM.
const KERNEL: i32 = 10;
const CONSOLE: i32 = 11;
const CONTROL: i32 = 12;
const REPORT: i32 = 13;
const READY: i32 = 14;
const FIRST_IO: i32 = 15;
const DISK: i32 = 16;
const LOCK: i32 = 17;

/// A static ELF with one page-aligned segment at 1 MiB that holds `code`.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let number = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    for value in [0x10_0000, 64, 0] {
        number(&mut file, value);
    }
    file.extend(*b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    file.extend(*b"\x01\0\0\0\x07\0\0\0");
    for value in [4096, 0x10_0000, 0x10_0000, code.len() as u64, code.len() as u64, 4096] {
        number(&mut file, value);
    }
    file.resize(4096, 0);
    file.extend(code);
    file
}

/// `mov dx, port; mov al, value; out dx, al`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

fn print(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|&byte| out(0x3f8, byte)).collect()
}

/// `jmp` to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];

struct Vm {
    pid: u32,
    socket: std::path::PathBuf,
    _dir: tempfile::TempDir,
    console: File,
    report: File,
    ready: BufReader<File>,
    first_io: File,
    lock: File,
}

fn memfd(content: &[u8]) -> File {
    let mut file = fds::memfd("test").unwrap();
    file.write_all(content).unwrap();
    file
}

fn disk_id() -> DeviceId {
    "/dev/vda".parse().unwrap()
}

fn plan(disk: bool, first_io: bool) -> VmPlan {
    let volume_id = "vol-0123456789abcdef0".parse().unwrap();
    let layers = vec![LayerPlan { fd: PlanFd(DISK), format: DiskFormat::Raw }];
    let disk = disk.then_some(DiskPlan {
        volume_id,
        read_only: false,
        layers,
        hold: None,
        limits: Default::default(),
        engine: Engine::Auto,
        queues: 1,
    });
    let disk =
        disk.map(|disk| DeviceConfig { id: disk_id(), slot: 0, kind: DeviceKind::Disk(disk) });
    let kind = DeviceKind::Entropy;
    let entropy = DeviceConfig { id: "entropy".parse().unwrap(), slot: 1, kind };
    VmPlan {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 3,
        uuid: "ec200000-0000-4000-8000-000000000000".to_owned(),
        oem_strings: Vec::new(),
        config: VmConfig {
            cpus: 2,
            processor: Default::default(),
            memory: 32 << 20,
            boot: BootPlan::Direct {
                kernel: Some(PlanFd(KERNEL)),
                initrd: None,
                cmdline: String::new(),
                menu: None,
            },
            chipset: Chipset { transport: TransportKind::Mmio, ..Default::default() },
            devices: disk.into_iter().chain([entropy]).collect(),
        },
        cpuid: Vec::new(),
        console: PlanFd(CONSOLE),
        times: None,
        control: Some(PlanFd(CONTROL)),
        report: PlanFd(REPORT),
        ready: Some(PlanFd(READY)),
        lock: Some(PlanFd(LOCK)),
        lifeline: None,
        first_io: first_io.then_some(PlanFd(FIRST_IO)),
        resume: None,
        sandbox: true,
    }
}

fn launch(kernel: &[u8], plan: &VmPlan) -> Vm {
    launch_by(env!("CARGO_BIN_EXE_spore"), &["spore", SUBCOMMAND], kernel, plan)
}

fn launch_by(program: &str, words: &[&str], kernel: &[u8], plan: &VmPlan) -> Vm {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control");
    let listener = UnixListener::bind(&socket).unwrap();
    let open = |name: &str| {
        let options = File::options().read(true).append(true).create(true).to_owned();
        options.open(dir.path().join(name)).unwrap()
    };
    let (console, report, lock) = (open("console"), open("report"), open("lock"));
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (ready, ready_end) = fds::pipe().unwrap();
    let (first_io, first_io_end) = fds::pipe().unwrap();
    let text = memfd(&plan.to_bytes().unwrap());
    let (kernel, disk) = (memfd(kernel), memfd(&vec![0; sporevm::demo::ROOT_SIZE]));
    let map: [(BorrowedFd, i32); 9] = [
        (text.as_fd(), PLAN_FD),
        (kernel.as_fd(), KERNEL),
        (console.as_fd(), CONSOLE),
        (listener.as_fd(), CONTROL),
        (report.as_fd(), REPORT),
        (ready_end.as_fd(), READY),
        (first_io_end.as_fd(), FIRST_IO),
        (disk.as_fd(), DISK),
        (lock.as_fd(), LOCK),
    ];
    let pid = process::spawn(program, words, &map).unwrap();
    guard::vmm(pid);
    drop(lock);
    let lock = File::open(dir.path().join("lock")).unwrap();
    let ready = BufReader::new(ready);
    Vm { pid, socket, _dir: dir, console, report, ready, first_io, lock }
}

impl Drop for Vm {
    /// A test that fails leaves no machine behind.
    fn drop(&mut self) {
        let _ = self.send(&Request::Terminate {});
    }
}

impl Vm {
    fn ready(&mut self) -> Ready {
        let mut line = String::new();
        self.ready.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The stream that the answer comes on.
    fn send(&self, request: &Request) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(&request.to_line().unwrap())?;
        Ok(stream)
    }

    fn ask(&self, request: &Request) -> Response {
        Self::answer(self.send(request).unwrap())
    }

    /// The answer to a line that may be another version's.
    fn ask_line(&self, line: &str) -> Response {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        Self::answer(stream)
    }

    fn answer(stream: UnixStream) -> Response {
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Wait for the VMM to release its lock; then what it reported.
    fn end(&mut self) -> Vec<VmReport> {
        rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::LockShared).unwrap();
        self.report.rewind().unwrap();
        let mut text = String::new();
        self.report.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn reason(&mut self) -> (EndReason, String) {
        match self.end().pop() {
            Some(VmReport::Ended { reason, message, .. }) => (reason, message),
            other => panic!("the last report is {other:?}"),
        }
    }

    fn console(&mut self) -> String {
        self.console.rewind().unwrap();
        let mut text = Vec::new();
        self.console.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[test]
fn a_vmm_of_another_build_becomes_its_launcher() {
    if !has_kvm() {
        return;
    }
    let (vmm, spore) = (env!("CARGO_BIN_EXE_spore-vmm"), env!("CARGO_BIN_EXE_spore"));
    for (build, expected) in [(BUILD, "spore-vmm"), ("0123456789abcdef", "spore")] {
        let words = ["spore", SUBCOMMAND, "i-0123456789abcdef0", build, spore];
        let mut vm = launch_by(vmm, &words, &elf(&SPIN), &plan(true, false));
        assert!(matches!(vm.ready(), Ready::Running { .. }));
        let name = std::fs::read_to_string(format!("/proc/{}/comm", vm.pid)).unwrap();
        assert_eq!(name.trim_end(), expected);
        assert_eq!(vm.ask(&Request::Terminate {}), Response::Ok {});
        assert_eq!(vm.reason().0, EndReason::Terminated);
    }
}

#[test]
fn a_guest_prints_and_switches_itself_off() {
    if !has_kvm() {
        return;
    }
    let code = [print(b"hello\n"), out(0x600, 5 << 2 | 1 << 5), SPIN.into()].concat();
    let mut vm = launch(&elf(&code), &plan(true, false));
    assert!(matches!(vm.ready(), Ready::Running { engines } if engines.len() == 1));
    let (reason, message) = vm.reason();
    assert_eq!(reason, EndReason::GuestPoweroff, "{message}");
    assert_eq!(vm.console(), "hello\n");
}

#[test]
fn the_demo_guest_runs_confined() {
    if !has_kvm() {
        return;
    }
    let mut vm = launch(sporevm::demo::KERNEL, &plan(true, false));
    let (reason, message) = vm.reason();
    assert_eq!(reason, EndReason::GuestPoweroff, "{message}\n{}", vm.console());
    assert!(vm.console().contains("identity: written, flushed, read back"), "{}", vm.console());
}

#[test]
fn every_thread_is_confined_before_a_guest_is_answered() {
    if !has_kvm() {
        return;
    }
    let code = [print(b"."), SPIN.into()].concat();
    let mut vm = launch(&elf(&code), &plan(true, false));
    vm.ready();
    while vm.console().is_empty() {
        std::thread::yield_now();
    }
    // A filter, and no way to new privileges. (proc(5))
    let confined = |directory: &Path| {
        let status = std::fs::read_to_string(directory.join("status")).unwrap();
        ["Seccomp:\t2", "NoNewPrivs:\t1"].iter().all(|line| status.contains(line))
    };
    let tasks = format!("/proc/{}/task", vm.pid);
    assert!(confined(&Path::new(&tasks).join(vm.pid.to_string())), "the boot processor's thread");
    // KVM itself begins a thread in a process that has a VM.
    let ours =
        |task: &PathBuf| !std::fs::read_to_string(task.join("comm")).unwrap().starts_with("kvm-");
    let tasks = std::fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path());
    let tasks: Vec<_> = tasks.filter(ours).collect();
    assert!(tasks.len() >= 3, "the boot processor's, the other vCPU's, the event thread");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !tasks.iter().all(|task| confined(task)) {
        assert!(Instant::now() < deadline, "a thread is not confined: {tasks:?}");
        std::thread::yield_now();
    }
    assert_eq!(vm.ask(&Request::Terminate {}), Response::Ok {});
}

#[test]
fn a_reset_happens_in_the_same_process_and_terminate_ends_it() {
    if !has_kvm() {
        return;
    }
    // The first writes 0xcf9 for ever: each time the machine starts over with fresh memory.
    let code = [print(b"."), out(0xcf9, 6), print(b"never"), SPIN.into()].concat();
    let mut vm = launch(&elf(&code), &plan(false, false));
    vm.ready();
    while vm.console().len() < 3 {
        std::thread::yield_now();
    }
    let Response::Status(status) = vm.ask(&Request::Status {}) else { panic!("no status") };
    assert!(status.resets >= 2);
    assert_eq!(vm.ask(&Request::Terminate {}), Response::Ok {});
    let reports = vm.end();
    let by = |r: &VmReport| matches!(r, VmReport::Reset { by: ResetBy::Port0xcf9, .. });
    assert!(reports.iter().filter(|r| by(r)).count() >= 2);
    assert!(matches!(reports.last(), Some(VmReport::Ended { reason: EndReason::Terminated, .. })));
    assert!(!vm.console().contains("never"), "no instruction runs after the reset register");
}

#[test]
fn devices_are_asked_for_by_name_wherever_they_are() {
    if !has_kvm() {
        return;
    }
    for transport in [TransportKind::Mmio, TransportKind::Pci] {
        // Another order, and slots with gaps between them.
        let mut plan = plan(true, false);
        plan.config.chipset.transport = transport;
        plan.config.devices.reverse();
        plan.config.devices[0].slot = 5;
        plan.config.devices[1].slot = 3;
        let mut vm = launch(&elf(&SPIN), &plan);
        assert!(
            matches!(vm.ready(), Ready::Running { engines } if engines.contains_key(&disk_id()))
        );
        let Response::Layers { disks } = vm.ask(&Request::Layers {}) else { panic!("no layers") };
        assert_eq!(disks.keys().collect::<Vec<_>>(), [&disk_id()]);
        let Response::Status(status) = vm.ask(&Request::Status {}) else { panic!("no status") };
        assert_eq!(status.disks.keys().collect::<Vec<_>>(), [&disk_id()]);
        let top = disks[&disk_id()].top;
        let disk = DiskTop { disk: "/dev/vdb".parse().unwrap(), top };
        let Response::Error { message } =
            vm.ask(&Request::Rebase { disk, format: DiskFormat::Raw })
        else {
            panic!("a disk that is not there");
        };
        assert!(message.contains("no disk /dev/vdb"), "{message}");
        drop(vm);
        if transport == TransportKind::Pci {
            // The guest that looks at its disk drives no PCI.
            continue;
        }
        let mut vm = launch(sporevm::demo::KERNEL, &plan);
        let (reason, message) = vm.reason();
        assert_eq!(reason, EndReason::GuestPoweroff, "{message}\n{}", vm.console());
        assert!(vm.console().contains("written, flushed, read back"), "{}", vm.console());
    }
}

#[test]
fn a_plan_with_two_devices_of_one_name_or_slot_is_refused() {
    if !has_kvm() {
        return;
    }
    let refused = |change: &dyn Fn(&mut VmPlan), why: &str| {
        let mut plan = plan(true, false);
        change(&mut plan);
        let Ready::Failed { message, .. } = launch(&elf(&SPIN), &plan).ready() else {
            panic!("it runs");
        };
        assert!(message.contains(why) && !message.contains('\n'), "{message}");
    };
    refused(&|plan| plan.config.devices[1].id = disk_id(), "two devices are named /dev/vda");
    refused(&|plan| plan.config.devices[1].slot = 0, "/dev/vda and entropy are both in slot 0");
    refused(&|plan| plan.config.devices[1].slot = 19, "device entropy is in slot 19");
}

#[test]
fn a_spore_of_another_version_is_told_so_and_can_end_the_machine() {
    if !has_kvm() {
        return;
    }
    let mut vm = launch(&elf(&SPIN), &plan(true, false));
    vm.ready();
    for line in [
        r#"{"request":"status"}"#,
        r#"{"request":"freeze","disks":[{"disk":0,"top":1}]}"#,
        r#"{"request":"status","version":3}"#,
        r#"{"request":"dream","version":3,"of":"sheep"}"#,
    ] {
        let Response::Error { message } = vm.ask_line(&format!("{line}\n")) else {
            panic!("{line}")
        };
        assert!(message.contains("speaks version 2") && !message.contains('\n'), "{message}");
    }
    // As version 1 said it.
    assert_eq!(vm.ask_line("{\"request\":\"terminate\"}\n"), Response::Ok {});
    assert_eq!(vm.reason().0, EndReason::Terminated);
}

#[test]
fn a_triple_fault_and_a_panic_are_told_apart() {
    if !has_kvm() {
        return;
    }
    // ud2 with an empty IDT.
    let fault = [print(b"x"), vec![0x0f, 0x0b]].concat();
    assert_eq!(launch(&elf(&fault), &plan(false, false)).reason().0, EndReason::TripleFault);
    let banner = print(b"Kernel panic - not syncing: test\n");
    let panic = [banner.clone(), vec![0x0f, 0x0b]].concat();
    assert_eq!(launch(&elf(&panic), &plan(false, false)).reason().0, EndReason::GuestPanic);
    let reset = [banner, out(0x602, 1), SPIN.into()].concat();
    assert_eq!(launch(&elf(&reset), &plan(false, false)).reason().0, EndReason::GuestPanic);
    let pvpanic = [out(0x505, 1), SPIN.into()].concat();
    assert_eq!(launch(&elf(&pvpanic), &plan(false, false)).reason().0, EndReason::GuestPanic);
}

#[test]
fn a_guest_that_touches_every_port_is_survived() {
    if !has_kvm() {
        return;
    }
    // For each port but those that end the machine: in and out of 1, 2 and 4 bytes.
    let mut code = Vec::new();
    for port in (0..=0xffffu16).step_by(1) {
        let ends = [0x64, 0x505, 0x600, 0x602, 0xcf9];
        let near = |end: &u16| (end.saturating_sub(3)..=*end).contains(&port);
        if !ends.iter().any(near) && (port < 0x800 || port % 61 == 0) {
            let [low, high] = port.to_le_bytes();
            code.extend([0x66, 0xba, low, high, 0xec, 0x66, 0xed, 0xed, 0xee, 0x66, 0xef, 0xef]);
        }
    }
    code.extend(out(0x600, 5 << 2 | 1 << 5));
    code.extend(SPIN);
    assert_eq!(launch(&elf(&code), &plan(true, false)).reason().0, EndReason::GuestPoweroff);
}

#[test]
fn what_is_no_kernel_is_refused_in_one_line() {
    if !has_kvm() {
        return;
    }
    let mut vm = launch(b"#!/bin/sh\n", &plan(false, false));
    let Ready::Failed { message, kind, code } = vm.ready() else { panic!("it runs") };
    assert!(message.contains("kernel") && !message.contains('\n'), "{message}");
    assert_eq!(kind, Kind::Refused);
    let line = format!("{}: {message}", code.unwrap());
    assert_eq!(vm.reason(), (EndReason::VmmError, line));
}

#[test]
fn the_first_io_of_a_benchmark_is_told() {
    if !has_kvm() {
        return;
    }
    let mut vm = launch(&elf(&[print(b"x"), SPIN.into()].concat()), &plan(false, true));
    let mut time = [0; 8];
    vm.first_io.read_exact(&mut time).unwrap();
    assert_ne!(i64::from_le_bytes(time), 0);
}
