//! The store under many hands, and under the knife.

mod common;

use common::{Spore, skip};
use sporevm::error::Code;
use sporevm::id::SnapshotId;
use sporevm::image::manifest::Manifest;
use sporevm::image::{builtin, catalog};
use sporevm::plan::DiskFormat;
use sporevm::record::image::Image;
use sporevm::record::instance::{InstanceRecord, State};
use sporevm::record::kernel::Kernel;
use sporevm::record::snapshot::{DATA, Snapshot};
use sporevm::store::{Durability, RECORD, Store, now};
use sporevm::volume::NewVolume;
use sporevm::{kernel, snapshot, volume};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

struct Lab {
    _dir: tempfile::TempDir,
    store: Store,
}

fn lab() -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_at(&dir.path().join("s")).unwrap();
    Lab { _dir: dir, store }
}

fn open_again(store: &Store) -> Store {
    Store::open_at(store.home()).unwrap()
}

fn entries(path: &Path) -> BTreeSet<String> {
    fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn make_snapshot(store: &Store) -> Snapshot {
    let snapshot_id = SnapshotId::generate().unwrap();
    let make = |dir: &Path| {
        fs::write(dir.join(DATA), vec![7; 1 << 20]).unwrap();
        let content = (DiskFormat::Raw, String::new());
        Ok(Snapshot::flat(snapshot_id, (store.owner_id(), now()), 1 << 20, content))
    };
    store.snapshots().create(Durability::Volatile, make).unwrap()
}

fn register(store: &Store, name: &str) -> sporevm::Result<Image> {
    let snapshot = make_snapshot(store);
    catalog::register(store, Manifest::with_root(name, snapshot.snapshot_id))
}

#[test]
fn one_of_many_gets_the_name() {
    let lab = lab();
    let results: Vec<_> = std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| register(&open_again(&lab.store), "wanted"));
        let threads: Vec<_> = (0..20).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Some(Code::InvalidAMINameDuplicate));
    }
    assert_eq!(lab.store.images().list().unwrap().records.len(), 1);
}

#[test]
fn a_hundred_at_once_do_no_harm() {
    let lab = lab();
    let base = make_snapshot(&lab.store);
    std::thread::scope(|scope| {
        for worker in 0..100 {
            let (store, base) = (&lab.store, &base);
            scope.spawn(move || {
                let store = open_again(store);
                let volume = volume::create_from_snapshot(
                    &store,
                    base,
                    NewVolume::default(),
                    Durability::Volatile,
                );
                let id = volume.unwrap().volume_id;
                // Others come and go meanwhile; what is listed is whole.
                let listing = store.volumes().list().unwrap();
                assert!(listing.broken.is_empty(), "{:?}", listing.broken);
                assert!(listing.records.iter().any(|v| v.volume_id == id));
                if worker % 2 == 0 {
                    volume::delete(&store, &id).unwrap();
                }
            });
        }
    });
    assert_eq!(lab.store.volumes().list().unwrap().records.len(), 50);
    assert!(entries(&open_again(&lab.store).home().join("tmp")).is_empty());
}

#[test]
fn no_update_is_lost() {
    let lab = lab();
    let snapshot = make_snapshot(&lab.store);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let change = |s: &mut Snapshot| {
                    s.description.push('x');
                    Ok(())
                };
                let snapshots = open_again(&lab.store).snapshots();
                snapshots.update(&snapshot.snapshot_id, Durability::Volatile, change).unwrap();
            });
        }
    });
    let found = lab.store.snapshots().get(&snapshot.snapshot_id).unwrap();
    assert_eq!(found.description.len(), 50);
}

#[test]
fn the_built_in_image_is_made_once_by_many() {
    let lab = lab();
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let ensure = || builtin::ensure(&open_again(&lab.store), "demo").unwrap().unwrap();
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(ensure)).collect();
        threads.into_iter().map(|t| t.join().unwrap().image_id.to_string()).collect()
    });
    assert_eq!(ids.len(), 1);
    let image = catalog::resolve(&lab.store, "demo").unwrap();
    let ebs = image.block_device_mappings[0].ebs.as_ref().unwrap();
    let root = lab.store.snapshots().get(ebs.snapshot_id.as_ref().unwrap()).unwrap();
    snapshot::verify(&lab.store, &root).unwrap();
    // It comes back, and nobody else can have its name.
    catalog::deregister(&lab.store, &image.image_id).unwrap();
    assert_eq!(
        register(&lab.store, "demo").unwrap_err().code(),
        Some(Code::InvalidAMINameDuplicate)
    );
    assert_eq!(catalog::resolve(&lab.store, "demo").unwrap().image_id, image.image_id);
    assert_eq!(lab.store.kernels().list().unwrap().records.len(), 1);
}

#[test]
fn what_an_instance_boots_stays() {
    let Lab { store, .. } = &lab();
    let file = store.home().join("vmlinux");
    fs::write(&file, sporevm::demo::KERNEL).unwrap();
    let registered = kernel::register::<Kernel>(store, &file, None).unwrap();
    let kernel_id = registered.record.kernel_id.clone();
    let record = include_str!("hostile_store/instance.json");
    let mut record: InstanceRecord = serde_json::from_str(record).unwrap();
    record.owner_id = store.owner_id();
    record.instance.kernel_id = Some(kernel_id.clone());
    record.instance.state = State::Stopped;
    let instances = store.collection::<InstanceRecord>();
    let record = instances.create(Durability::Volatile, |_| Ok(record)).unwrap();
    let id = &record.instance.instance_id;
    let error = kernel::deregister::<Kernel>(store, &kernel_id, false).unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidAKIIDInUse));
    assert!(error.message().contains(id.as_str()), "{error}");
    // Nor does a command take it back whose registration was what made it.
    drop(registered);
    assert!(store.kernels().exists(&kernel_id));
    let end = |record: &mut InstanceRecord| {
        record.instance.state = State::Terminated;
        Ok(())
    };
    instances.update(id, Durability::Volatile, end).unwrap();
    kernel::deregister::<Kernel>(store, &kernel_id, false).unwrap();
}

#[test]
fn what_is_in_use_stays() {
    let lab = lab();
    let image = catalog::resolve(&lab.store, "demo").unwrap();
    let kernel_id = image.kernel_id.clone().unwrap();
    let error = kernel::deregister::<Kernel>(&lab.store, &kernel_id, false).unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidAKIIDInUse));
    assert!(error.message().contains("'demo'"), "{error}");
    let ebs = image.block_device_mappings[0].ebs.as_ref().unwrap();
    let snapshot_id = ebs.snapshot_id.as_ref().unwrap();
    let error = snapshot::delete(&lab.store, snapshot_id, false).unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidSnapshotInUse));
    catalog::deregister(&lab.store, &image.image_id).unwrap();
    kernel::deregister::<Kernel>(&lab.store, &kernel_id, false).unwrap();
    snapshot::delete(&lab.store, snapshot_id, false).unwrap();
}

#[test]
fn ids_prefixes_and_names_resolve() {
    let lab = lab();
    let (one, two) = (register(&lab.store, "one").unwrap(), register(&lab.store, "two").unwrap());
    let resolve = |text: &str| catalog::resolve(&lab.store, text);
    assert_eq!(resolve("one").unwrap(), one);
    assert_eq!(resolve(two.image_id.as_str()).unwrap(), two);
    assert_eq!(resolve(&two.image_id.as_str()[..16]).unwrap(), two);
    for unknown in ["three", "ami-", "ami-00000000000000000", "../images", ""] {
        assert_eq!(
            resolve(unknown).unwrap_err().code(),
            Some(Code::InvalidAMIIDNotFound),
            "{unknown}"
        );
    }
    // Prefixes that several share are refused, naming them.
    let mut ids: Vec<String> = vec![one.image_id.to_string(), two.image_id.to_string()];
    while ids.iter().collect::<BTreeSet<_>>().len()
        == ids.iter().map(|i| &i[..5]).collect::<BTreeSet<_>>().len()
    {
        let image = register(&lab.store, &format!("image {}", ids.len())).unwrap();
        ids.push(image.image_id.to_string());
    }
    let shared = ids.iter().find(|a| ids.iter().filter(|b| a[..5] == b[..5]).count() > 1).unwrap();
    let error = resolve(&shared[..5]).unwrap_err();
    assert!(error.message().contains(shared.as_str()), "{error}");
}

#[test]
fn a_corrupt_record_is_named_and_hides_nothing() {
    let lab = lab();
    let (good, bad) = (register(&lab.store, "good").unwrap(), register(&lab.store, "bad").unwrap());
    let path = lab.store.images().dir(&bad.image_id).join(RECORD);
    let text = fs::read_to_string(&path).unwrap();
    for corrupt in
        [text.replacen('{', "{\"Surprise\": 1,", 1), text.replace("false", "3"), text[..40].into()]
    {
        fs::write(&path, corrupt).unwrap();
        let listing = lab.store.images().list().unwrap();
        assert_eq!(listing.records, vec![good.clone()]);
        assert_eq!(listing.broken.len(), 1);
        let line = listing.broken[0].to_string();
        assert!(line.contains(path.to_str().unwrap()) && !line.contains('\n'), "{line}");
        assert!(
            !line.contains("remove"),
            "nobody is told to delete what is not understood: {line}"
        );
    }
    lab.store.images().remove(&bad.image_id).unwrap();
    assert!(lab.store.images().list().unwrap().broken.is_empty());
}

#[test]
fn what_a_newer_spore_wrote_is_shown_and_left_alone() {
    let lab = lab();
    let image = register(&lab.store, "newer").unwrap();
    let path = lab.store.images().dir(&image.image_id).join(RECORD);
    let text = fs::read_to_string(&path).unwrap();
    for (old, new) in [("{", "{\"BootVolumes\": 1,"), ("\"available\"", "\"dreaming\"")] {
        let newer = text.replacen(old, new, 1);
        fs::write(&path, &newer).unwrap();
        let spore = |args: &[&str]| {
            let output = Spore::new(lab.store.home().to_owned()).spore(args);
            (output.status.success(), String::from_utf8(output.stderr).unwrap())
        };
        let (_, said) = spore(&["image", "ls"]);
        let named = said.contains(image.image_id.as_str()) && said.contains("'newer'");
        assert!(named && said.contains("a newer Spore") && said.lines().count() == 1, "{said}");
        let id = image.image_id.as_str();
        let snapshot = image.snapshots().next().unwrap().as_str();
        for change in [
            &["image", "deregister", id][..],
            &["image", "modify", id, "--description", "x"],
            &["tag", id, "A=b"],
            // Whatever else the record says, it may say that it needs this.
            &["snapshot", "delete", snapshot],
        ] {
            let (done, said) = spore(change);
            assert!(!done && said.contains("a newer Spore"), "{change:?}: {said}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    }
}

#[test]
fn what_a_power_failure_emptied_never_was() {
    let lab = lab();
    let snapshot = make_snapshot(&lab.store);
    let dir = lab.store.snapshots().dir(&snapshot.snapshot_id);
    fs::write(dir.join(RECORD), [0; 300]).unwrap();
    let listing = lab.store.snapshots().list().unwrap();
    assert!(listing.records.is_empty() && listing.broken.is_empty());
    assert!(!dir.exists());
}

#[test]
fn manifests_are_taken_at_their_word_or_not_at_all() {
    let lab = lab();
    let snapshot = make_snapshot(&lab.store);
    let id = &snapshot.snapshot_id;
    let manifest = |extra: &str, device: &str, ebs: &str| {
        format!(
            r#"{{"Name": "name", {extra} "BlockDeviceMappings":
                [{{"DeviceName": "{device}", "Ebs": {{"SnapshotId": "{id}" {ebs}}}}}]}}"#
        )
    };
    let attempt = |json: String| {
        Manifest::parse(json.as_bytes()).and_then(|m| catalog::register(&lab.store, m))
    };
    for (json, says) in [
        (manifest(r#""Kernel": "x","#, "/dev/vda", ""), "unknown field `Kernel`"),
        (manifest(r#""KernelId": 7,"#, "/dev/vda", ""), "invalid type"),
        (manifest(r#""KernelId": "aki-1","#, "/dev/vda", ""), "aki-1"),
        (manifest(r#""KernelId": "aki-00000000000000000","#, "/dev/vda", ""), "there is no kernel"),
        (manifest(r#""CommandLine": "a\nb","#, "/dev/vda", ""), "control character"),
        (manifest("", "/dev/../vda", ""), "not a device name"),
        (manifest("", "/dev/vdb", ""), "root device"),
        (manifest("", "/dev/vda", r#", "VolumeSize": 99999999"#), "99999999 GiB"),
        (manifest("", "/dev/vda", r#", "VolumeSize": -1"#), "invalid value"),
        ("{".into(), "malformed"),
        ("[]".into(), "malformed"),
    ] {
        let error = attempt(json.clone()).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{json}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert!(lab.store.images().ids().unwrap().is_empty());
    let image = attempt(manifest("", "/dev/vda", r#", "VolumeSize": 3"#)).unwrap();
    assert_eq!(image.block_device_mappings[0].ebs.as_ref().unwrap().volume_size, 3);
}

/// Run by `killed_anywhere`, in a process of its own: objects come and go until it is killed.
#[test]
fn churn() {
    let Some(home) = std::env::var_os("SPORE_TEST_CHURN") else { return };
    let home = Path::new(&home);
    let store = Store::open_at(&home.join("s")).unwrap();
    let base = make_snapshot(&store);
    for round in 0.. {
        let image = register(&store, &format!("image {}-{round}", std::process::id())).unwrap();
        let durability = [Durability::Volatile, Durability::Durable][round % 2];
        let new = NewVolume::default();
        let volume = volume::create_from_snapshot(&store, &base, new, durability).unwrap();
        let change = |v: &mut sporevm::record::volume::Volume| {
            v.create_time = now();
            Ok(())
        };
        store.volumes().update(&volume.volume_id, durability, change).unwrap();
        volume::delete(&store, &volume.volume_id).unwrap();
        catalog::deregister(&store, &image.image_id).unwrap();
    }
}

#[test]
fn killed_anywhere_the_store_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_at(&dir.path().join("s")).unwrap();
    for round in 0..20u64 {
        let churn = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["churn", "--exact", "--nocapture"])
                .env("SPORE_TEST_CHURN", dir.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut children = [churn(), churn()];
        // Any moment will do; this one differs each round.
        std::thread::sleep(std::time::Duration::from_millis(40 + round * 7));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let store = open_again(&store);
        for id in store.volumes().ids().unwrap() {
            let volume = store.volumes().get(&id).unwrap();
            volume::open_layers(&store, &volume, false).unwrap();
        }
        for image in store.images().list().unwrap().records {
            assert!(image.name.starts_with("image "));
        }
        for broken in [
            store.images().list().unwrap().broken,
            store.volumes().list().unwrap().broken,
            store.snapshots().list().unwrap().broken,
        ] {
            assert!(broken.is_empty(), "{broken:?}");
        }
        assert!(entries(&store.home().join("tmp")).is_empty(), "debris is swept");
    }
}

/// In a file system of its own, which takes a user namespace.
#[test]
fn no_space_is_said_and_nothing_left() {
    let inside = "mount -t tmpfs -o size=3m none /mnt || exit 77
        head -c 8000000 /dev/urandom | SPORE_HOME=/mnt/s \"$SPORE\" image import - --name full; code=$?
        find /mnt/s/snapshots /mnt/s/images /mnt/s/tmp -mindepth 1; exit $code";
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", inside])
        .env("SPORE", env!("CARGO_BIN_EXE_spore"))
        .output();
    let Ok(output) = output else { return skip::skip("there is no unshare") };
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || errors.contains("unshare failed") {
        return skip::skip_anywhere("user namespaces are not allowed here");
    }
    assert_eq!(output.status.code(), Some(125), "{errors}");
    assert!(errors.contains("No space left") && errors.contains("SPORE_HOME"), "{errors}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}
