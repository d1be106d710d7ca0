//! What an account can plant in a shared store, at every place that a command opens something.

use crate::common::installed::Installed;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, makedev, mknodat};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Who runs the verbs, besides root.
pub const VICTIM: u32 = 64_011;
/// Who plants.
pub const ATTACKER: u32 = 64_012;
/// The instance that nothing is planted in.
pub const PLAIN: usize = 0;

/// What is planted in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Salt {
    LinkToVictims,
    LinkToRoots,
    LinkToNothing,
    LinkToEndless,
    Fifo,
    Socket,
    Device,
    Directory,
    Sparse,
    HardLink,
    WrongOwner,
    WrongMode,
    Missing,
}

const SALTS: [Salt; 13] = [
    Salt::LinkToVictims,
    Salt::LinkToRoots,
    Salt::LinkToNothing,
    Salt::LinkToEndless,
    Salt::Fifo,
    Salt::Socket,
    Salt::Device,
    Salt::Directory,
    Salt::Sparse,
    Salt::HardLink,
    Salt::WrongOwner,
    Salt::WrongMode,
    Salt::Missing,
];

/// The places of each kind of object where a command opens something; `.` is its directory itself.
const PLACES: [(&str, &str, &[&str]); 8] = [
    (
        "i",
        "instances",
        &[
            "record.json",
            "record.json.new",
            "lock",
            "vmm.lock",
            "control.sock",
            "vsock.sock",
            "vsock-seqpacket.sock",
            "console.log",
            "console.times",
            "vmm.log",
            "report.jsonl",
            "user-data",
            "user-data.new",
            ".",
        ],
    ),
    (
        "image",
        "images",
        &["record.json", "record.json.new", "lock", "bundle.json", "launched", "."],
    ),
    ("snap", "snapshots", &["record.json", "record.json.new", "data", "lock", "users", "."]),
    ("vol", "volumes", &["record.json", "lock", "in-use", "overlay", "base", "."]),
    ("aki", "kernels", &["record.json", "kernel", "lock", "."]),
    ("ari", "ramdisks", &["record.json", "ramdisk", "lock", "."]),
    ("key", "key-pairs", &["record.json", "private-key", "lock", "."]),
    ("lt", "launch-templates", &["record.json", "lock", "."]),
];

/// Every state that an instance's record may say.
const STATES: [(u32, &str); 6] = [
    (0, "pending"),
    (16, "running"),
    (32, "shutting-down"),
    (48, "terminated"),
    (64, "stopping"),
    (80, "stopped"),
];

pub fn instance_id(n: usize) -> String {
    format!("i-{n:017x}")
}
fn chown_to(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
}
fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A process of somebody's that must not be signalled.
struct Canary(Child);

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shared store, and who uses it.
pub struct World {
    pub installed: Installed,
    canaries: Mutex<Vec<Canary>>,
    /// The attacker listens wherever a command may connect.
    listeners: Mutex<Vec<UnixListener>>,
    /// The attacker holds locks.
    locks: Mutex<Vec<File>>,
    /// By kind and place, the ids that are salted there.
    salted: Mutex<BTreeMap<(String, String), Vec<String>>>,
    runnable: Mutex<Vec<String>>,
    bucket: Mutex<Option<String>>,
    /// The attacker's bucket.
    server: std::net::TcpListener,
    next: Mutex<usize>,
}

impl Drop for World {
    fn drop(&mut self) {
        // Root's own instances may run.
        let mine = self
            .spore(0, &["ls".into(), "-q".into(), "--filter".into(), "owner-id=0".into()])
            .output();
        let ids = String::from_utf8_lossy(&mine.unwrap().stdout).into_owned();
        let args: Vec<String> =
            ["terminate"].into_iter().chain(ids.lines()).map(str::to_owned).collect();
        if args.len() > 1 {
            let _ = self.spore(0, &args).output();
        }
    }
}

impl World {
    /// A store with nothing planted.
    pub fn empty() -> Self {
        let installed = Installed::new();
        mode(installed.dir(), 0o711);
        let world = Self {
            installed,
            canaries: Mutex::default(),
            listeners: Mutex::default(),
            locks: Mutex::default(),
            salted: Mutex::default(),
            runnable: Mutex::default(),
            bucket: Mutex::default(),
            server: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            next: Mutex::new(PLAIN),
        };
        for uid in [0, VICTIM, ATTACKER] {
            let home = world.home(uid);
            for dir in ["", ".aws"] {
                fs::create_dir_all(home.join(dir)).unwrap();
                chown_to(&home.join(dir), uid);
            }
            for name in ["precious", ".bashrc"] {
                fs::write(home.join(name), format!("{name} of {uid}\n")).unwrap();
                chown_to(&home.join(name), uid);
            }
            let sleep = Command::new("setpriv")
                .args([format!("--reuid={uid}"), format!("--regid={uid}")])
                .args(["--clear-groups", "--", "sleep", "1000"])
                .stdin(Stdio::null())
                .spawn();
            world.canaries.lock().unwrap().push(Canary(sleep.unwrap()));
        }
        let root = sporevm::demo::root();
        for (name, bytes) in [("disk", &root[..]), ("kernel", sporevm::demo::KERNEL)] {
            fs::write(world.installed.path(name), bytes).unwrap();
            mode(&world.installed.path(name), 0o644);
        }
        world.ok(0, &["store", "share"]);
        world
    }

    /// A store with everything planted.
    pub fn new() -> Self {
        let world = Self::empty();
        let (disk, kernel) = (world.file("disk"), world.file("kernel"));
        for (uid, name) in [(ATTACKER, "bait"), (VICTIM, "own"), (0, "own")] {
            let import = [
                "image", "import", &disk, "--name", name, "--kernel", &kernel, "--initrd", &kernel,
            ];
            world.ok(uid, &import);
            world.ok(uid, &["image", "share", name, "--add", "all", "--yes"]);
        }
        world.ok(ATTACKER, &["volume", "create", "--size", "1"]);
        world.ok(ATTACKER, &["key", "create", "bait"]);
        world.ok(ATTACKER, &["template", "create", "bait", "--image", "demo"]);
        world.instance(instance_id(PLAIN), Salt::Missing);
        for (kind, _, places) in PLACES {
            for place in places {
                for salt in SALTS {
                    let id = world.object(kind, salt);
                    world.plant(kind, &id, place, salt);
                }
            }
        }
        world.traversals();
        world.loose();
        world
    }

    pub fn store(&self) -> PathBuf {
        self.installed.path("region")
    }

    pub fn home(&self, uid: u32) -> PathBuf {
        self.installed.path("homes").join(uid.to_string())
    }

    /// What must stay as it is.
    pub fn precious(&self) -> Vec<PathBuf> {
        [0, VICTIM, ATTACKER].map(|uid| self.home(uid).join("precious")).into()
    }

    pub fn file(&self, name: &str) -> String {
        self.installed.path(name).to_str().unwrap().to_owned()
    }

    /// Where a user puts what goes out of the store.
    pub fn out(&self, uid: u32) -> String {
        let out = self.installed.path(&format!("out-{uid}"));
        if !crate::exists(&out) {
            fs::create_dir(&out).unwrap();
            chown_to(&out, uid);
        }
        out.to_str().unwrap().to_owned()
    }

    /// `spore ARGS` as that user.
    pub fn spore(&self, uid: u32, args: &[String]) -> Command {
        let mut command =
            self.installed.command((uid, uid), &self.store(), &self.installed.path("spore"));
        command.args(args).env("HOME", self.home(uid));
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        command
    }

    /// Its standard output; the command must succeed.
    pub fn ok(&self, uid: u32, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let output = self.spore(uid, &args).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {err}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The ids of what is salted at that place.
    pub fn salted(&self, kind: &str, place: &str) -> Vec<String> {
        self.salted.lock().unwrap().get(&(kind.into(), place.into())).cloned().unwrap_or_default()
    }

    /// The instances whose record is as the attacker's command would have written it.
    pub fn readable_instances(&self) -> Vec<String> {
        let unreadable = ["record.json", "."];
        let of = |((kind, place), ids): (&(String, String), &Vec<String>)| {
            (kind == "i" && !unreadable.contains(&&**place)).then(|| ids.clone())
        };
        self.salted.lock().unwrap().iter().filter_map(of).flatten().collect()
    }

    /// Images of which something is salted.
    pub fn runnable(&self) -> Vec<String> {
        self.runnable.lock().unwrap().clone()
    }

    /// Manifests that are none.
    pub fn bundles(&self) -> Vec<String> {
        self.files()
    }

    /// Names outside of the store that a user may be talked into giving; a FIFO would be waited for
    /// by right.
    pub fn files(&self) -> Vec<String> {
        let bundle = self.home(ATTACKER).join("bundle");
        ["missing.manifest.xml", "sparse.manifest.xml", "directory.manifest.xml"]
            .map(|name| bundle.join(name).to_str().unwrap().to_owned())
            .into()
    }

    /// The image whose bundle is in a bucket of the attacker's.
    pub fn in_a_bucket(&self) -> String {
        self.bucket.lock().unwrap().clone().unwrap()
    }

    /// What was signalled, connected to or unlocked.
    pub fn disturbed(&self) -> impl Iterator<Item = String> {
        let mut found = Vec::new();
        for canary in &mut *self.canaries.lock().unwrap() {
            if let Some(status) = canary.0.try_wait().unwrap() {
                found.push(format!("a process was ended: {status}"));
            }
        }
        for listener in &*self.listeners.lock().unwrap() {
            if listener.accept().is_ok() {
                found.push(format!("{:?} was connected to", listener.local_addr()));
            }
        }
        if self.server.set_nonblocking(true).is_ok() && self.server.accept().is_ok() {
            found.push("the bucket was asked".to_owned());
        }
        found.into_iter()
    }

    /// Somebody's account's directory, made by the attacker.
    pub fn planted_account(&self, uid: u32) {
        let path = self.store().join("accounts").join(uid.to_string());
        fs::create_dir(&path).unwrap();
        chown_to(&path, ATTACKER);
        mode(&path, 0o755);
    }

    fn id(&self, kind: &str) -> String {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let prefix = if kind == "image" { "ami" } else { kind };
        format!("{prefix}-{:017x}", *next)
    }

    /// Another of the attacker's objects of that kind, which differs from the first in its id.
    fn object(&self, kind: &str, salt: Salt) -> String {
        if kind == "i" {
            return self.instance(self.id(kind), salt);
        }
        let id = self.id(kind);
        self.copy(kind, &id, |_| {});
        id
    }

    /// The first of the attacker's objects in a directory of the store.
    fn first(&self, directory: &str) -> PathBuf {
        use std::os::unix::fs::MetadataExt;
        let entries =
            fs::read_dir(self.store().join(directory)).unwrap().map(|e| e.unwrap().path());
        let made = |path: &PathBuf| {
            let id = path.file_name().unwrap().to_str().unwrap().to_owned();
            path.metadata().is_ok_and(|m| m.uid() == ATTACKER && m.is_dir())
                && !id.contains("-000000000")
        };
        entries.filter(made).min().unwrap()
    }

    fn directory(kind: &str) -> &'static str {
        PLACES.iter().find(|(known, ..)| *known == kind).unwrap().1
    }

    /// Copy the attacker's first object of a kind under another id, with its record changed.
    fn copy(&self, kind: &str, id: &str, change: impl FnOnce(&mut Value)) {
        let directory = Self::directory(kind);
        let (from, to) = (self.first(directory), self.store().join(directory).join(id));
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(&from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                mode(&target, 0o1733);
            } else {
                fs::copy(entry.path(), &target).unwrap();
                mode(&target, 0o644);
            }
            chown_to(&target, ATTACKER);
        }
        let old = from.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(to.join("record.json")).unwrap().replace(old, id);
        let mut record: Value = serde_json::from_str(&text).unwrap();
        if record.get("Name").is_some() {
            record["Name"] = json!(format!("bait-{id}"));
        }
        change(&mut record);
        fs::write(to.join("record.json"), record.to_string()).unwrap();
        mode(&to, 0o755);
        chown_to(&to, ATTACKER);
    }

    /// An instance in one of the states, whose VMM is said to be a process of the victim's or
    /// root's.
    pub fn instance(&self, id: String, salt: Salt) -> String {
        let number = *self.next.lock().unwrap();
        let (code, name) = STATES[(number + salt as usize) % STATES.len()];
        let mut record: Value = serde_json::from_str(include_str!("instance.json")).unwrap();
        record["OwnerId"] = json!(ATTACKER.to_string());
        record["Instance"]["InstanceId"] = json!(id);
        record["Instance"]["State"] = json!({ "Code": code, "Name": name });
        let path = self.store().join("instances").join(&id);
        fs::create_dir(&path).unwrap();
        let canary = &self.canaries.lock().unwrap()[number % 2];
        let pid = canary.0.id().to_string();
        for (name, text) in [
            ("record.json", record.to_string()),
            ("lock", String::new()),
            ("vmm.lock", pid),
            ("console.log", "login: ".to_owned()),
            ("console.times", String::new()),
            ("vmm.log", String::new()),
            ("report.jsonl", "{\"event\":\"started\",\"at\":1}\n".to_owned()),
            ("user-data", String::new()),
        ] {
            fs::write(path.join(name), text).unwrap();
            mode(&path.join(name), 0o666);
            chown_to(&path.join(name), ATTACKER);
        }
        self.hold(&path.join("vmm.lock"));
        self.listen(&path.join("control.sock"));
        mode(&path, 0o755);
        chown_to(&path, ATTACKER);
        id
    }

    fn hold(&self, path: &Path) {
        // Descriptors are few; the victim may look at any of them.
        let mut locks = self.locks.lock().unwrap();
        if locks.len() < 150 {
            let file = File::open(path).unwrap();
            flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
            locks.push(file);
        }
    }

    fn listen(&self, path: &Path) {
        let mut listeners = self.listeners.lock().unwrap();
        if listeners.len() < 200 {
            let listener = UnixListener::bind(path).unwrap();
            listener.set_nonblocking(true).unwrap();
            mode(path, 0o777);
            chown_to(path, ATTACKER);
            listeners.push(listener);
        }
    }

    fn plant(&self, kind: &str, id: &str, place: &str, salt: Salt) {
        let directory = self.store().join(Self::directory(kind)).join(id);
        let name = match place {
            "." => None,
            "overlay" => {
                let names = fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name());
                let names = names.map(|name| name.into_string().unwrap());
                Some(names.filter(|name| name.starts_with("overlay-")).min().unwrap())
            }
            name => Some(name.to_owned()),
        };
        if place != "." || salt != Salt::Missing {
            let path = name.map_or(directory.clone(), |name| directory.join(name));
            self.put(&path, salt);
        }
        let key = (kind.to_owned(), place.to_owned());
        self.salted.lock().unwrap().entry(key).or_default().push(id.to_owned());
        // An image that begins as it.
        if matches!(
            (kind, place),
            ("snap", "data" | "users") | ("aki", "kernel") | ("ari", "ramdisk")
        ) {
            let image = self.image_of(kind, id);
            self.runnable.lock().unwrap().push(image);
        } else if (kind, place) == ("image", "bundle.json") {
            self.runnable.lock().unwrap().push(id.to_owned());
        }
    }

    fn image_of(&self, kind: &str, id: &str) -> String {
        let image = self.id("image");
        self.copy("image", &image, |record| match kind {
            "snap" => record["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] = json!(id),
            "aki" => record["KernelId"] = json!(id),
            _ => record["RamdiskId"] = json!(id),
        });
        image
    }

    /// Put `salt` where `path` is.
    fn put(&self, path: &Path, salt: Salt) {
        let target = |uid: u32| self.home(uid).join("precious");
        if matches!(salt, Salt::WrongOwner | Salt::WrongMode) {
            if !crate::exists(path) {
                fs::write(path, "{}").unwrap();
            }
            let directory = path.is_dir();
            return match salt {
                // A directory of the victim's would be the victim's to use.
                Salt::WrongOwner if directory => mode(path, 0o775),
                Salt::WrongOwner => chown_to(path, VICTIM),
                _ => mode(path, if directory { 0o777 } else { 0 }),
            };
        }
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
        let node = |kind: FileType, device: u64| {
            mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
            mode(path, 0o666);
        };
        match salt {
            Salt::LinkToVictims => symlink(target(VICTIM), path).unwrap(),
            Salt::LinkToRoots => symlink(target(0), path).unwrap(),
            Salt::LinkToNothing => symlink(self.home(VICTIM).join("new"), path).unwrap(),
            Salt::LinkToEndless => symlink("/dev/zero", path).unwrap(),
            Salt::Fifo => node(FileType::Fifo, 0),
            Salt::Socket => drop(UnixListener::bind(path).unwrap()),
            Salt::Device => node(FileType::CharacterDevice, makedev(1, 5)),
            Salt::Directory => fs::create_dir(path).unwrap(),
            Salt::Sparse => File::create(path).unwrap().set_len(1 << 40).unwrap(),
            // Where the kernel lets anybody: fs.protected_hardlinks=0.
            Salt::HardLink => return fs::hard_link(target(VICTIM), path).unwrap(),
            Salt::Missing | Salt::WrongOwner | Salt::WrongMode => return,
        }
        chown_to(path, ATTACKER);
    }

    /// Records whose names lead out of their directory, and one in a bucket.
    fn traversals(&self) {
        let precious = self.home(VICTIM).join("precious");
        let up = format!("../../..{}", precious.display());
        for name in
            [&*up, precious.to_str().unwrap(), "../../homes/0/precious", "record.json", "lock"]
        {
            let snapshot = self.id("snap");
            self.copy("snap", &snapshot, |record| {
                record["Layers"] = json!([{ "File": name, "Format": "raw" }]);
            });
            let image = self.image_of("snap", &snapshot);
            self.runnable.lock().unwrap().push(image);
            let volume = self.id("vol");
            self.copy("vol", &volume, |record| {
                record["Layers"] = json!([{ "File": name, "Format": "raw" }]);
            });
        }
        self.server.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", self.server.local_addr().unwrap());
        let image = self.id("image");
        self.copy("image", &image, |record| {
            record["ImageLocation"] =
                json!(format!("s3://bait/web.manifest.xml?endpoint={endpoint}"));
        });
        let seal = json!({ "Files": [{ "Name": "../x", "Size": 1, "Stamp": "", "Sha1": "" }] });
        let path = self.store().join("images").join(&image).join("bundle.json");
        fs::write(&path, seal.to_string()).unwrap();
        chown_to(&path, ATTACKER);
        *self.bucket.lock().unwrap() = Some(image);
    }

    /// What lies beside objects: in tmp, in accounts, in `users` of the victim's own, and outside.
    fn loose(&self) {
        for (n, salt) in SALTS.into_iter().enumerate() {
            self.put(&self.store().join("tmp").join(format!("salt{n}")), salt);
            let uid = 64_100 + u32::try_from(n).unwrap();
            let account = self.store().join("accounts").join(uid.to_string());
            fs::create_dir(&account).unwrap();
            fs::write(account.join("journal.jsonl"), "{}\n").unwrap();
            self.put(&account.join("journal.jsonl"), salt);
            mode(&account, 0o755);
            chown_to(&account, uid);
            self.put(&self.store().join("accounts").join(format!("{VICTIM}.{n}")), salt);
            for entry in fs::read_dir(self.store().join("snapshots")).unwrap().map(Result::unwrap) {
                let users = entry.path().join("users");
                if users.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                    let name = format!("vol-{n:017x}");
                    if !crate::exists(&users.join(&name)) {
                        self.put(&users.join(name), salt);
                    }
                }
            }
        }
        let nested = self.store().join("tmp/nested");
        fs::create_dir_all(nested.join("a/b")).unwrap();
        fs::write(nested.join("a/b/c"), "x").unwrap();
        chown(&nested, Some(ATTACKER), Some(ATTACKER)).unwrap();
        mode(&nested, 0o777);
        let bundle = self.home(ATTACKER).join("bundle");
        fs::create_dir(&bundle).unwrap();
        File::create(bundle.join("sparse.manifest.xml")).unwrap().set_len(1 << 40).unwrap();
        fs::create_dir(bundle.join("directory.manifest.xml")).unwrap();
        mode(&bundle, 0o755);
        mode(&self.home(ATTACKER), 0o755);
    }
}
