//! The plan that a VMM is given, in postcard's format.

use sporevm::plan::{
    BootPlan, Chipset, DeviceConfig, DeviceKind, DiskFormat, DiskPlan, Engine, LayerPlan, PlanFd, TransportKind,
    VmConfig, VmPlan,
};

/// Read it; what is read is written and read again.
pub fn drive(data: &[u8]) {
    let Ok(plan) = VmPlan::from_bytes(data) else { return };
    let bytes = plan.to_bytes().unwrap();
    let again = VmPlan::from_bytes(&bytes).unwrap();
    assert_eq!(again.to_bytes().unwrap(), bytes);
}

/// One with a disk.
pub fn seeds() -> Vec<Vec<u8>> {
    let disk = DiskPlan {
        limits: Default::default(),
        volume_id: "vol-0123456789abcdef0".parse().unwrap(),
        read_only: false,
        layers: vec![LayerPlan { fd: PlanFd(16), format: DiskFormat::Raw }],
        hold: None,
        engine: Engine::Auto,
        queues: 1,
    };
    let plan = VmPlan {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        launch_index: 3,
        uuid: "ec200000-0000-4000-8000-000000000000".to_owned(),
        oem_strings: Vec::new(),
        config: VmConfig {
            cpus: 2,
            processor: Default::default(),
            memory: 32 << 20,
            boot: BootPlan::Direct { kernel: Some(PlanFd(10)), initrd: None, cmdline: "quiet".into(), menu: None },
            chipset: Chipset { transport: TransportKind::Mmio, ..Default::default() },
            devices: vec![
                DeviceConfig { id: "/dev/vda".parse().unwrap(), slot: 0, kind: DeviceKind::Disk(disk) },
                DeviceConfig { id: "entropy".parse().unwrap(), slot: 1, kind: DeviceKind::Entropy },
            ],
        },
        cpuid: vec![],
        console: PlanFd(11),
        times: None,
        control: Some(PlanFd(12)),
        report: PlanFd(13),
        ready: None,
        lock: None,
        lifeline: None,
        first_io: None,
        resume: None,
        sandbox: true,
    };
    vec![plan.to_bytes().unwrap()]
}
