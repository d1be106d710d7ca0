use super::*;
use crate::error::{Code, Kind};
use crate::id::ReservationId;
use crate::record::image::{BlockDeviceMapping, EbsBlockDevice, ImdsSupport};
use crate::record::metadata::HttpTokens;

struct Counted(u32);

impl Ids for Counted {
    fn reservation(&mut self) -> Result<ReservationId> {
        "r-00000000000000000".parse()
    }
    fn instance(&mut self) -> Result<InstanceId> {
        self.0 += 1;
        format!("i-{:017x}", self.0).parse()
    }
}

const HOST: Host = Host { memory: 8 << 30, taken: 0 };

fn mapping(device: &str, snapshot: Option<&str>) -> BlockDeviceMapping {
    BlockDeviceMapping {
        device_name: device.into(),
        ebs: Some(EbsBlockDevice {
            snapshot_id: snapshot.map(|s| s.parse().unwrap()),
            volume_size: 2,
            delete_on_termination: Some(true),
            volume_type: "gp3".into(),
            read_only: false,
        }),
        virtual_name: None,
        no_device: None,
    }
}

fn image() -> Image {
    Image {
        image_id: "ami-00000000000000001".parse().unwrap(),
        name: "debian".into(),
        description: None,
        owner_id: "1000".into(),
        creation_date: "2025-01-01T00:00:00.000Z".into(),
        state: ImageState::Available,
        architecture: Architecture::X86_64,
        virtualization_type: VirtualizationType::Hvm,
        kernel_id: Some("aki-00000000000000001".parse().unwrap()),
        ramdisk_id: Some("ari-00000000000000001".parse().unwrap()),
        command_line: Some("quiet".into()),
        root_device_type: RootDeviceType::Ebs,
        root_device_name: "/dev/vda".into(),
        block_device_mappings: vec![
            mapping("/dev/vdb", None),
            mapping("/dev/vda", Some("snap-00000000000000001")),
        ],
        public: false,
        launch_permissions: vec![],
        product_codes: vec![],
        hourly_rate: None,
        platform: None,
        platform_details: "Linux/UNIX".into(),
        boot_mode: None,
        uefi_variables: None,
        imds_support: None,
        transport: None,
        disk_bus: None,
        source_instance_id: None,
        source_image_id: None,
        source_image_region: None,
        image_location: None,
        deprecation_time: None,
        deregistration_protection: None,
        state_reason: None,
        client_token: None,
        tags: vec![],
    }
}

fn request(min_count: u32, max_count: u32) -> Request {
    Request { min_count, max_count, ..Request::default() }
}

fn go(request: &Request, image: &Image) -> Result<Vec<LaunchPlan>> {
    resolve(request, image, HOST, &|_, _| Drivers::default(), &mut Counted(0))
}

#[test]
fn a_plan_in_full() {
    let plans = go(&request(1, 1), &image()).unwrap();
    let golden = serde_json::json!([{
        "instance_id": "i-00000000000000001",
        "reservation_id": "r-00000000000000000",
        "image_id": "ami-00000000000000001",
        "launch_index": 0,
        "instance_type": "t3.micro",
        "cpus": 2,
        "memory": 1u64 << 30,
        "architecture": "x86_64",
        "virtualization_type": "hvm",
        "kernel": "aki-00000000000000001",
        "ramdisk": "ari-00000000000000001",
        "command_line": "quiet console=ttyS0 root=/dev/vda rw panic=-1 spore.instance=i-00000000000000001 spore.index=0",
        "image_command_line": "quiet",
        "uuid": plans[0].uuid,
        "volumes": [
            {"device_name": "/dev/vda", "snapshot_id": "snap-00000000000000001", "size": 2,
             "delete_on_termination": true, "volume_type": "gp3", "read_only": false},
            {"device_name": "/dev/vdb", "snapshot_id": null, "size": 2,
             "delete_on_termination": true, "volume_type": "gp3", "read_only": false}
        ],
        "root_device_type": "ebs",
        "shutdown_behavior": "stop",
        "restart": "no",
        "engine": "auto",
        "transport": "pci",
        "tags": []
    }]);
    assert_eq!(serde_json::to_value(&plans).unwrap(), golden);
    let dashes: Vec<usize> = plans[0].uuid.match_indices('-').map(|(at, _)| at).collect();
    assert_eq!((plans[0].uuid.len(), dashes), (36, vec![8, 13, 18, 23]));
}

#[test]
fn what_an_image_supports_is_what_its_instances_ask_for() {
    let image = Image { imds_support: Some(ImdsSupport::V2), ..image() };
    let tokens = |options: Option<&str>| {
        let mut request = request(1, 1);
        request.metadata_options = options.map_or_else(Default::default, |o| o.parse().unwrap());
        go(&request, &image).unwrap().remove(0).metadata.options.http_tokens
    };
    assert_eq!(tokens(None), HttpTokens::Required);
    assert_eq!(tokens(Some("http-tokens=optional")), HttpTokens::Optional);
}

#[test]
fn a_uuid_is_of_ec2s_where_there_is_metadata_as_on_ec2() {
    let uuid = |network: &str, options: &str| {
        let mut request = request(1, 1);
        request.networks.extend(Some(network).filter(|n| *n != "none").map(|n| n.parse().unwrap()));
        request.metadata_options = options.parse().unwrap();
        go(&request, &image()).unwrap().remove(0).uuid
    };
    let own = uuid("default", "hop-limit=1");
    assert!(own.starts_with("ec2"), "{own}");
    for (network, options) in [
        ("default", "http-endpoint=disabled"),
        ("tap:tap0", "hop-limit=1"),
        ("none", "hop-limit=1"),
    ] {
        let other = uuid(network, options);
        assert!(!other.starts_with("ec2"), "{network} {options}");
        assert_eq!(other[3..], own[3..]);
    }
    // Whatever the id is.
    for n in 0..20_000 {
        let id = format!("i-{n:017x}").parse().unwrap();
        assert!(!super::uuid(&id, &MetadataOptions::default(), &[]).starts_with("ec2"));
    }
}

#[test]
fn clones_differ_in_their_identity_only() {
    let plans = go(&request(3, 3), &image()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (index, plan) in plans.iter().enumerate() {
        assert_eq!(plan.launch_index as usize, index);
        assert!(seen.insert(plan.uuid.clone()));
        let mut like_first = plan.clone();
        like_first.instance_id = plans[0].instance_id.clone();
        like_first.uuid.clone_from(&plans[0].uuid);
        like_first.launch_index = 0;
        like_first.command_line.clone_from(&plans[0].command_line);
        assert_eq!(like_first, plans[0]);
    }
}

#[test]
fn sizes_come_from_the_request_then_the_image_then_the_default() {
    let mut tagged = image();
    tagged.tags.push(Tag { key: types::IMAGE_TAG.into(), value: "spore.tiny".into() });
    let size = |request: &Request| {
        let plan = go(request, &tagged).unwrap().remove(0);
        (plan.instance_type, plan.cpus, plan.memory >> 20)
    };
    let mut wanted = request(1, 1);
    assert_eq!(size(&wanted), ("spore.tiny".into(), 1, 32));
    wanted.instance_type = Some("t3.nano".into());
    assert_eq!(size(&wanted), ("t3.nano".into(), 2, 512));
    wanted.cpus = Some(5);
    wanted.memory = Some(48 << 20);
    assert_eq!(size(&wanted), ("t3.nano".into(), 5, 48));
}

#[test]
fn another_kernel_does_not_take_the_images_ramdisk() {
    let mut wanted = request(1, 1);
    wanted.kernel = Some("aki-00000000000000002".parse().unwrap());
    assert_eq!(go(&wanted, &image()).unwrap()[0].ramdisk, None);
    wanted.ramdisk = Some("ari-00000000000000002".parse().unwrap());
    assert_eq!(go(&wanted, &image()).unwrap()[0].ramdisk, wanted.ramdisk);
}

#[test]
fn fewer_than_the_maximum_are_launched_if_no_more_fit() {
    assert_eq!(go(&request(2, 100), &image()).unwrap().len(), 8);
    let refused = Request { no_overcommit: true, ..request(9, 100) };
    let error = go(&refused, &image()).unwrap_err();
    assert_eq!(error.code(), Some(Code::InsufficientInstanceCapacity));
}

#[test]
fn what_runs_counts() {
    let at = |taken: u64, request: &Request| {
        let host = Host { taken: taken << 30, ..HOST };
        let plans = resolve(request, &image(), host, &|_, _| Drivers::default(), &mut Counted(0))?;
        Ok::<_, Error>((plans.len(), overcommitted(&plans, host).is_some()))
    };
    let strict = |min: u32, max: u32| Request { no_overcommit: true, ..request(min, max) };
    assert_eq!(at(5, &request(1, 100)).unwrap(), (3, false), "as many as fit");
    assert_eq!(at(5, &request(3, 3)).unwrap(), (3, false));
    assert_eq!(at(5, &request(4, 100)).unwrap(), (4, true), "what has to be is launched, and told");
    assert_eq!(at(0, &request(9, 9)).unwrap(), (9, true));
    assert_eq!(at(100, &request(1, 1)).unwrap(), (1, true));
    assert_eq!(at(5, &strict(1, 100)).unwrap(), (3, false));
    assert_eq!(at(5, &strict(3, 3)).unwrap(), (3, false));
    let error = at(5, &strict(4, 100)).unwrap_err();
    assert_eq!(error.code(), Some(Code::InsufficientInstanceCapacity));
    assert!(error.message().contains("3072 MiB that running instances leave"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let kind = |request: &Request, image: &Image| go(request, image).unwrap_err();
    assert_eq!(kind(&request(0, 0), &image()).kind(), Kind::Usage);
    assert_eq!(kind(&request(3, 2), &image()).kind(), Kind::Usage);
    assert_eq!(
        kind(&request(100_000, 100_000), &image()).code(),
        Some(Code::InstanceLimitExceeded)
    );
    let big = Request { memory: Some(9 << 30), ..request(1, 1) };
    assert_eq!(kind(&big, &image()).code(), Some(Code::InsufficientInstanceCapacity));
    let small = Request { memory: Some(1 << 20), ..request(1, 1) };
    assert_eq!(kind(&small, &image()).kind(), Kind::Usage);
    for cpus in [0, 65] {
        let many = Request { cpus: Some(cpus), ..request(1, 1) };
        assert_eq!(kind(&many, &image()).kind(), Kind::Usage);
    }
    let unknown = Request { instance_type: Some("x9.huge".into()), ..request(1, 1) };
    assert_eq!(kind(&unknown, &image()).code(), Some(Code::InvalidParameterValue));
    let gone = Image { state: ImageState::Deregistered, ..image() };
    assert_eq!(kind(&request(1, 1), &gone).code(), Some(Code::InvalidAMIIDUnavailable));
    let bare = Image { kernel_id: None, ..image() };
    let mut appended = request(1, 1);
    appended.append = "quiet".into();
    assert!(kind(&appended, &bare).message().contains("`KernelId`"));
    let paravirtual =
        Image { virtualization_type: VirtualizationType::Paravirtual, ..bare.clone() };
    assert!(kind(&request(1, 1), &paravirtual).message().contains("`KernelId`"));
    let uefi = Image { boot_mode: Some(BootMode::Uefi), ..bare };
    let mmio = Request { transport: Some(TransportKind::Mmio), ..request(1, 1) };
    assert!(kind(&mmio, &uefi).message().contains("UEFI"));
    assert_eq!(go(&request(1, 1), &uefi).unwrap()[0].boot_mode, Some(BootMode::Uefi));
    let rootless = Image { root_device_name: "/dev/sda1".into(), ..image() };
    assert_eq!(kind(&request(1, 1), &rootless).code(), Some(Code::InvalidBlockDeviceMapping));
}

#[test]
fn an_instance_store_root_has_ec2s_limit() {
    let mut image = image();
    let ebs = image.block_device_mappings[1].ebs.as_mut().unwrap();
    ebs.volume_size = 11;
    assert!(go(&request(1, 1), &image).is_ok());
    let request =
        Request { root_device_type: Some(RootDeviceType::InstanceStore), ..request(1, 1) };
    assert_eq!(go(&request, &image).unwrap_err().code(), Some(Code::InvalidManifest));
    image.block_device_mappings[1].ebs.as_mut().unwrap().volume_size = 10;
    assert!(go(&request, &image).is_ok());
}

#[test]
fn the_transport_is_what_is_asked_for_or_what_the_ramdisk_can_drive() {
    let chosen = |asked, image_asks, ramdisk: &[TransportKind]| {
        let image = Image { transport: image_asks, ..image() };
        let request = Request { transport: asked, ..request(1, 1) };
        let drivers = |_: Option<&KernelId>, _: Option<&RamdiskId>| Drivers {
            transports: ramdisk.to_vec(),
            disk_buses: Vec::new(),
        };
        let plans = resolve(&request, &image, HOST, &drivers, &mut Counted(0));
        plans.unwrap().remove(0).transport
    };
    let (mmio, pci) = (TransportKind::Mmio, TransportKind::Pci);
    assert_eq!(chosen(None, None, &[]), TransportKind::default());
    assert_eq!(chosen(None, None, &[mmio, pci]), TransportKind::default());
    assert_eq!(chosen(None, None, &[pci]), pci);
    assert_eq!(chosen(None, None, &[mmio]), mmio);
    assert_eq!(chosen(None, Some(mmio), &[pci]), mmio);
    assert_eq!(chosen(Some(pci), Some(mmio), &[mmio]), pci);
}

#[test]
fn drivers_are_those_of_what_boots() {
    let asked = |request: &Request| {
        let asked = std::cell::RefCell::new(Vec::new());
        let drivers = |kernel: Option<&KernelId>, ramdisk: Option<&RamdiskId>| {
            asked.borrow_mut().push((kernel.cloned(), ramdisk.cloned()));
            Drivers::default()
        };
        resolve(request, &image(), HOST, &drivers, &mut Counted(0)).unwrap();
        asked.into_inner()
    };
    let of_the_image = (image().kernel_id, image().ramdisk_id);
    assert!(of_the_image.0.is_some());
    assert_eq!(asked(&request(2, 2)), [of_the_image]);
    let firmware = Request { firmware: Some("bios".into()), ..request(1, 1) };
    assert_eq!(asked(&firmware), [(None, None)]);
}
