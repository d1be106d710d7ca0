//! The actions as any front end calls them, the command line being one: by their requests alone,
//! with an audience of its own.

mod common;

use common::Store;
use rustix::process::geteuid;
use serde_json::json;
use sporevm::context::{Audience, Context, Meter};
use sporevm::error::{Code, Error, Kind};
use sporevm::record::tag::Tag;
use sporevm::service::Service;
use sporevm::service::deregister::DeregisterImages;
use sporevm::service::filter::Filter;
use sporevm::service::images::{Catalog, DescribeImages};
use sporevm::service::instances::DescribeInstances;
use sporevm::service::launch::{Request, RunInstances};
use sporevm::service::register::{Boot, RegisterImage, Root};
use sporevm::service::snapshots::{DescribeSnapshots, ImportSnapshot};
use sporevm::service::tasks::{NewTask, NewWork, TaskKind, TaskStatus};
use sporevm::service::transfer::CopyImage;
use sporevm::service::volumes::{CreateVolume, DescribeVolumes};
use std::sync::{Arc, Mutex};

/// Keeps what it hears.
#[derive(Default)]
struct Ears(Mutex<Vec<String>>);

/// Of work that nobody watches.
struct Unwatched;

impl Audience for Ears {
    fn warn(&self, line: &str) {
        self.0.lock().unwrap().push(format!("warning: {line}"));
    }

    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(format!("note: {line}"));
    }

    fn meter(&self, _size: Option<u64>) -> Box<dyn Meter> {
        Box::new(Unwatched)
    }
}

impl Meter for Unwatched {
    fn at(&self, _bytes: u64) {}
}

fn service(store: &Store) -> (Service, Arc<Ears>) {
    let ears = Arc::new(Ears::default());
    let context = Context::new(geteuid().as_raw(), ears.clone()).by_verb("RegisterImage".into());
    (Service::open_within(store.home(), &context).unwrap(), ears)
}

fn filter(name: &str, value: &str) -> Filter {
    Filter { name: name.into(), values: vec![value.into()] }
}

/// The id of a snapshot of a disk with nothing on it.
fn snapshot(store: &Store, service: &Service) -> String {
    let disk = store.home().join("disk.img");
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(4 << 20).unwrap();
    let format = Some("raw".parse().unwrap());
    let tags = vec![Tag { key: "Name".into(), value: "data".into() }];
    let (snapshot_id, description) = (None, "empty".into());
    let request = ImportSnapshot { disk, format, snapshot_id, description, tags };
    service.import_snapshot(&request).unwrap().snapshot_id.to_string()
}

fn names(service: &Service, request: &DescribeImages) -> Vec<String> {
    let images = service.describe_images(request).unwrap();
    images.into_iter().map(|described| described.image.name).collect()
}

/// Who goes on with an export writes it, whatever somebody else has put into its place meanwhile.
#[test]
fn an_export_takes_nobodys_file_for_its_own() {
    let store = Store::new();
    let (service, _) = service(&store);
    let root = Root::Snapshot(snapshot(&store, &service));
    let request = RegisterImage { name: Some("web".into()), root, boot: Boot::default() };
    let image_id = service.register_image(&request).unwrap().image_id.to_string();
    let (directory, prefix) = (store.home().join("exported"), "web-".to_owned());
    std::fs::create_dir(&directory).unwrap();
    let bucket = directory.display().to_string();
    let work = NewWork::ExportImage { image_id, directory: directory.clone(), bucket, prefix };
    let new = NewTask { work, description: None, tags: Vec::new(), client_token: None };
    let id = service.begin_task(&new).unwrap().task_id;
    let file = directory.join(format!("web-{id}.raw"));
    std::fs::write(&file, "a stranger's").unwrap();
    service.do_task(&id).unwrap();
    let task = service.describe_tasks(TaskKind::ExportImage, &[id.to_string()], &[]).unwrap();
    assert_eq!(task[0].status, TaskStatus::Completed, "{task:?}");
    assert_eq!(std::fs::read(&file).unwrap(), vec![0; 4 << 20]);
}

#[test]
fn an_image_comes_and_goes_by_requests_alone() {
    let store = Store::new();
    let (service, ears) = service(&store);
    let root = Root::Snapshot(snapshot(&store, &service));
    let request = RegisterImage { name: Some("web".into()), root, boot: Boot::default() };
    let image = service.register_image(&request).unwrap();
    let heard = std::mem::take(&mut *ears.0.lock().unwrap());
    let warned = |line: &String| line.starts_with("warning: nothing was found on ami-");
    assert!(heard.iter().any(warned), "{heard:?}");

    let copy = CopyImage {
        source_image_id: "web".into(),
        name: "web-2".into(),
        tags: vec![Tag { key: "Env".into(), value: "test".into() }],
        ..CopyImage::default()
    };
    let copy = service.copy_image(&copy, &mut |_| ()).unwrap();
    assert_eq!(copy.source_image_id, Some(image.image_id.clone()));
    let mine = DescribeImages { catalog: Some(Catalog::Mine), ..DescribeImages::default() };
    let tagged = DescribeImages { filters: vec![filter("tag:Env", "t*")], ..mine.clone() };
    assert_eq!(names(&service, &tagged), ["web-2"]);
    let provided = DescribeImages { owners: vec!["amazon".into()], ..DescribeImages::default() };
    assert_eq!(names(&service, &provided), ["demo"]);

    let gone = DeregisterImages {
        image_ids: vec!["web".into(), "nothing".into(), "web-2".into()],
        ..DeregisterImages::default()
    };
    let results = service.deregister_images(&gone).unwrap();
    let codes = results.iter().map(|result| result.as_ref().err().and_then(Error::code));
    assert_eq!(codes.collect::<Vec<_>>(), [None, Some(Code::InvalidAMIIDNotFound), None]);
    let events = service.describe_events(&[image.image_id.to_string()]).unwrap();
    assert!(events.iter().all(|event| event.command == "RegisterImage"));
    assert_eq!(events.len(), 2, "{events:?}");
}

#[test]
fn what_was_registered_on_the_way_goes_with_an_image_that_did_not_come_to_be() {
    let store = Store::new();
    let (service, _) = service(&store);
    let kernel = store.home().join("vmlinux");
    std::fs::write(&kernel, sporevm::demo::KERNEL).unwrap();
    let before = service.describe_kernels(&[], &[]).unwrap().len();
    let boot = |description: String| Boot {
        kernel_id: Some(kernel.to_str().unwrap().into()),
        description: Some(description),
        ..Boot::default()
    };
    let root = Root::Snapshot(snapshot(&store, &service));
    let name = Some("web".to_owned());
    let mut request = RegisterImage { name, root, boot: boot("x".repeat(256)) };
    assert!(service.register_image(&request).is_err());
    assert_eq!(service.describe_kernels(&[], &[]).unwrap().len(), before);
    request.boot = boot("short enough".into());
    service.register_image(&request).unwrap();
    assert_eq!(service.describe_kernels(&[], &[]).unwrap().len(), before + 1);
}

#[test]
fn an_image_becomes_public_only_if_its_owner_agrees() {
    let store = Store::new();
    let (service, ears) = service(&store);
    let root = Root::Snapshot(snapshot(&store, &service));
    let request = RegisterImage { name: Some("web".into()), root, boot: Boot::default() };
    service.register_image(&request).unwrap();
    let everybody = "Add=[{Group=all}]".parse().unwrap();
    let public = || {
        let filters = vec![filter("is-public", "true"), filter("name", "web")];
        !names(&service, &DescribeImages { filters, ..DescribeImages::default() }).is_empty()
    };
    let refused = service.modify_launch_permission("web", &everybody, |exposure| {
        assert_eq!((exposure.name.as_str(), exposure.secrets.len()), ("web", 0));
        Err(Error::refused(Code::OperationNotPermitted, "not this one"))
    });
    assert_eq!(refused.unwrap_err().message(), "not this one");
    assert!(!public());
    service.modify_launch_permission("web", &everybody, |_| Ok(())).unwrap();
    assert!(public());
    let heard = ears.0.lock().unwrap();
    assert!(heard.iter().any(|line| line.starts_with("note: ") && line.contains("yours alone")));
}

#[test]
fn what_is_described_has_ec2s_shape_and_filters() {
    let store = Store::new();
    let (service, _) = service(&store);
    let snapshot = snapshot(&store, &service);
    let volume = CreateVolume { snapshot_id: Some("data".into()), ..CreateVolume::default() };
    let volume = service.create_volume(&volume).unwrap().volume;
    let filters = vec![filter("snapshot-id", &snapshot)];
    let described = DescribeVolumes { filters, ..DescribeVolumes::default() };
    let described = service.describe_volumes(&described).unwrap();
    assert_eq!(json!(described)[0]["VolumeId"], json!(volume.volume_id));
    assert_eq!(described[0].instance_id, None);
    let images = service.describe_images(&DescribeImages::default()).unwrap();
    assert_eq!(json!(images)[0]["Hypervisor"], "xen");
    assert_eq!(json!(images)[0].get("LaunchPermissions"), None);
    let unknown =
        DescribeSnapshots { filters: vec![filter("colour", "red")], ..Default::default() };
    let unknown = service.describe_snapshots(&unknown).unwrap_err();
    assert_eq!(unknown.code(), Some(Code::InvalidParameterValue));
    assert!(unknown.message().contains("volume-size"), "{unknown}");
}

#[test]
fn what_the_command_line_never_asks_for_is_refused() {
    let store = Store::new();
    let (service, _) = service(&store);
    let tag = Tag { key: "aws:reserved".into(), value: String::new() };
    let tags = Request { tags: vec![tag], ..launch(1, 1).request };
    let mut launches = vec![
        RunInstances { user_data: Some(vec![0; (16 << 10) + 1]), ..launch(1, 1) },
        RunInstances { request: tags, ..launch(1, 1) },
    ];
    // The rest is looked at once the host is seen to be able to.
    if common::has_kvm() {
        launches.extend([launch(0, 0), launch(2, 1)]);
    }
    for request in launches {
        let error = service.run_instances(&request).unwrap_err();
        assert_ne!(error.kind(), Kind::Failure, "{error}");
    }
    assert!(service.describe_instances(&DescribeInstances::default()).unwrap().is_empty());
    let volume_type = Some("floppy".to_owned());
    let volume = CreateVolume { size: Some(1 << 30), volume_type, ..CreateVolume::default() };
    let error = service.create_volume(&volume).unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidParameterValue));
    assert!(service.describe_volumes(&DescribeVolumes::default()).unwrap().is_empty());
}

fn launch(min_count: u32, max_count: u32) -> RunInstances {
    let request = Request { min_count, max_count, ..Request::default() };
    RunInstances { image_id: "demo".into(), request, ..RunInstances::default() }
}
