use super::*;
use crate::id::{ImageId, InstanceId, ReservationId};
use crate::record::image::{Architecture, VirtualizationType};
use crate::record::instance::{CpuOptions, Instance, Spore};
use crate::store::{Durability, Store};
use proptest::prelude::*;

pub fn record(
    state: State,
    root: RootDeviceType,
    shutdown: ShutdownBehavior,
    starts: u32,
) -> InstanceRecord {
    InstanceRecord {
        reservation_id: ReservationId::generate().unwrap(),
        owner_id: "0".into(),
        instance: Instance {
            instance_id: InstanceId::generate().unwrap(),
            image_id: ImageId::generate().unwrap(),
            state,
            state_reason: None,
            ami_launch_index: 0,
            instance_type: "t3.micro".into(),
            launch_time: "2025-01-01T00:00:00.000Z".into(),
            architecture: Architecture::X86_64,
            virtualization_type: VirtualizationType::Hvm,
            kernel_id: None,
            ramdisk_id: None,
            root_device_name: "/dev/vda".into(),
            root_device_type: root,
            block_device_mappings: vec![],
            network_interfaces: vec![],
            cpu_options: CpuOptions::of(1, Default::default()),
            hibernation_options: Default::default(),
            key_name: None,
            client_token: None,
            current_instance_boot_mode: None,
            metadata_options: Default::default(),
            instance_initiated_shutdown_behavior: shutdown,
            tags: vec![],
            product_codes: vec![],
            platform_details: "Linux/UNIX".into(),
            spore: own_part(starts),
        },
    }
}

fn own_part(starts: u32) -> Spore {
    Spore {
        memory: 1 << 30,
        firmware: None,
        command_line: String::new(),
        image_command_line: None,
        append: String::new(),
        boot_entry: None,
        boot_environment: None,
        public_key: None,
        no_cloud: false,
        uuid: String::new(),
        cpu_model: Default::default(),
        transport: Default::default(),
        disk_bus: Default::default(),
        engine: Engine::Auto,
        disk_limits: Default::default(),
        net_limits: Default::default(),
        engines: vec![],
        slots: Default::default(),
        restart: Default::default(),
        restarts: 0,
        ephemeral: vec![],
        pid: Some(1),
        starts,
        console_start: 0,
        forgotten: None,
        cgroup_limits: Default::default(),
        control_group: None,
        shares: vec![],
        cdroms: vec![],
        hourly_rate: None,
        ended_at: None,
        hibernated: None,
        terminated_at: None,
    }
}

fn ended(reason: EndReason) -> VmReport {
    VmReport::Ended { at: 1, reason, message: "words".into() }
}

#[test]
fn the_reason_says_who_ended_it() {
    let running = record(State::Running, RootDeviceType::Ebs, ShutdownBehavior::Stop, 1);
    let stopping = record(State::Stopping, RootDeviceType::Ebs, ShutdownBehavior::Stop, 1);
    let message = |record: &InstanceRecord, end: Option<EndReason>| {
        settle(record, end.map(ended).as_ref()).1.message
    };
    for (record, end, expected) in [
        (&running, Some(EndReason::GuestPoweroff), "Client.InstanceInitiatedShutdown: "),
        (&stopping, Some(EndReason::GuestPoweroff), "Client.UserInitiatedShutdown: "),
        (&stopping, Some(EndReason::Terminated), "Client.UserInitiatedShutdown: "),
        (&running, Some(EndReason::GuestPanic), "Client.InternalError: kernel panic: words"),
        (&running, Some(EndReason::TripleFault), "Client.InternalError: triple fault: words"),
        (&running, Some(EndReason::KvmError), "Server.InternalError: words"),
        (&running, None, "Server.InternalError: the VMM was killed"),
    ] {
        let message = message(record, end);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn what_ran_before_anybody_looked_has_run() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open_at(home.path()).unwrap();
    let becomes = |reports: &[VmReport]| {
        let pending = record(State::Pending, RootDeviceType::Ebs, ShutdownBehavior::Stop, 0);
        let dir = InstanceDir::new(&store, &pending.instance.instance_id);
        let made = dir::instances(&store).create_locked(Durability::Volatile, |_| Ok(pending));
        let mut locked = made.unwrap();
        let lines = reports.iter().map(|report| serde_json::to_string(report).unwrap() + "\n");
        std::fs::write(dir.file("report.jsonl"), lines.collect::<String>()).unwrap();
        settle_locked(&dir, &mut locked).unwrap();
        locked.record.instance.state
    };
    assert_eq!(
        becomes(&[VmReport::Started { at: 1 }, ended(EndReason::GuestPoweroff)]),
        State::Stopped,
        "its volumes have what it wrote"
    );
    assert_eq!(becomes(&[]), State::Terminated);
}

/// What EC2 says of an instance whose machine is gone, in the words of its manual.
fn model(state: State, ebs: bool, terminates: bool, was_up: bool) -> State {
    if state == State::ShuttingDown {
        return State::Terminated;
    }
    if !ebs {
        // "You can't stop an instance store-backed instance": it can only be gone.
        return State::Terminated;
    }
    match state {
        State::Pending if !was_up => State::Terminated,
        State::Running if terminates => State::Terminated,
        _ => State::Stopped,
    }
}

proptest! {
    #[test]
    fn a_dead_machine_is_stopped_or_terminated_as_ec2_says(
        which in 0usize..4, ebs: bool, terminates: bool, starts in 0u32..3, end in proptest::option::of(0usize..6),
    ) {
        // An instance-store instance is never stopping: `stop` refuses it.
        let states = [State::Pending, State::Running, State::ShuttingDown, State::Stopping];
        let state = states[which];
        prop_assume!(ebs || state != State::Stopping);
        let root = if ebs { RootDeviceType::Ebs } else { RootDeviceType::InstanceStore };
        let shutdown = if terminates { ShutdownBehavior::Terminate } else { ShutdownBehavior::Stop };
        let reasons = [EndReason::GuestPoweroff, EndReason::Terminated, EndReason::TripleFault,
            EndReason::GuestPanic, EndReason::KvmError, EndReason::VmmError];
        let end = end.map(|at| ended(reasons[at]));
        let (settled, reason) = settle(&record(state, root, shutdown, starts), end.as_ref());
        prop_assert_eq!(settled, model(state, ebs, terminates, starts > 0));
        prop_assert!(reason.message.starts_with(&reason.code));
        prop_assert!(!settled.is_active());
    }
}
