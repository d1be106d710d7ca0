//! Several Unix users and one shared store: who sees, launches and changes what is the kernel's to
//! say.
//!
//! Needs root, to make the users. With CI=true it has to be there.

mod common;

use common::has_kvm;
use common::installed::Installed;
use common::skip::is_root;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A Unix user, or the superuser, who goes with the test.
struct User {
    name: String,
    uid: String,
    gid: String,
}

impl User {
    fn new(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("spore{}{role}{number}", std::process::id());
        done(Command::new("useradd").args(["-M", "-U", "-s", "/bin/sh", &name]));
        let id = |flag: &str| done(Command::new("id").args([flag, &name]));
        Self { uid: id("-u"), gid: id("-g"), name }
    }

    fn root() -> Self {
        Self { name: "root".into(), uid: "0".into(), gid: "0".into() }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.uid != "0" {
            let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
        }
    }
}

/// A shared store, and a copy of the program where everybody can run it.
struct Region {
    installed: Installed,
    users: Vec<User>,
}

impl Region {
    fn new(roles: &[&str]) -> Self {
        let installed = Installed::new();
        common::guard::store(installed.dir());
        let mut users = vec![User::root()];
        users.extend(roles.iter().map(|role| User::new(role)));
        let region = Self { installed, users };
        region.ok(0, &["store", "share"]);
        region
    }

    fn store(&self) -> PathBuf {
        self.installed.path("region")
    }

    /// `program ARGS` as the user of that number; 0 is root.
    fn as_user(&self, user: usize, program: &Path, args: &[&str]) -> Command {
        let user = &self.users[user];
        let id = |number: &str| number.parse().unwrap();
        let who = (id(&user.uid), id(&user.gid));
        let mut command = self.installed.command_with_kvm(who, &self.store(), &[], program);
        command.args(args);
        command
    }

    fn spore(&self, user: usize, args: &[&str]) -> Output {
        self.as_user(user, &self.installed.path("spore"), args).output().unwrap()
    }

    fn ok(&self, user: usize, args: &[&str]) -> String {
        done(&mut self.as_user(user, &self.installed.path("spore"), args))
    }

    fn refused(&self, user: usize, args: &[&str], code: &str) {
        let output = self.spore(user, args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
        assert!(err.contains(code), "{args:?}: {err}");
    }

    /// A shell command that must fail, and change nothing.
    fn cannot(&self, user: usize, script: &str) {
        let output = self.as_user(user, Path::new("/bin/sh"), &["-c", script]).output().unwrap();
        assert!(!output.status.success(), "{script}");
    }

    fn images(&self, user: usize, args: &[&str]) -> Vec<String> {
        let out = self.ok(user, &[&["image", "ls", "-q"], args].concat());
        out.lines().map(str::to_owned).filter(|id| !id.ends_with("de0")).collect()
    }

    /// An image of the built-in guest that is this user's own.
    fn import(&self, user: usize, name: &str) -> String {
        let (kernel, root) = (self.installed.path("kernel"), self.installed.path("root"));
        std::fs::write(&kernel, sporevm::demo::KERNEL).unwrap();
        std::fs::write(&root, sporevm::demo::root()).unwrap();
        let (kernel, root) = (kernel.to_str().unwrap(), root.to_str().unwrap());
        self.ok(user, &["image", "import", root, "--name", name, "--kernel", kernel])
    }

    fn show(&self, user: usize, image: &str) -> Value {
        let json = self.ok(user, &["image", "show", image, "-o", "json"]);
        serde_json::from_str::<Value>(&json).unwrap()["Images"][0].clone()
    }

    fn snapshot_of(&self, user: usize, image: &str) -> String {
        let ebs = &self.show(user, image)["BlockDeviceMappings"][0]["Ebs"];
        ebs["SnapshotId"].as_str().unwrap().to_owned()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        for user in 0..self.users.len() {
            let ids = self.spore(user, &["ls", "-q"]).stdout;
            let ids = String::from_utf8_lossy(&ids).into_owned();
            let args: Vec<&str> = ["terminate"].into_iter().chain(ids.lines()).collect();
            if args.len() > 1 {
                self.spore(user, &args);
            }
        }
    }
}

const ALICE: usize = 1;
const BOB: usize = 2;
const CAROL: usize = 3;

#[test]
fn an_account_sees_exactly_what_is_shared_with_it() {
    if !is_root() {
        return;
    }
    let region = Region::new(&["a", "b", "c"]);
    let web = region.import(ALICE, "web");
    assert_eq!(region.images(ALICE, &["--mine"]), [web.as_str()]);
    assert!(region.images(BOB, &[]).is_empty());
    for target in [web.as_str(), "web"] {
        region.refused(BOB, &["image", "show", target], "InvalidAMIID.NotFound");
        region.refused(BOB, &["run", target], "InvalidAMIID.NotFound");
    }
    // Explicit, by name; and who may is told to the owner.
    let bob = format!("user:{}", region.users[BOB].name);
    region.ok(ALICE, &["image", "share", "web", "--add", &bob]);
    assert_eq!(region.images(BOB, &["--executable-by", "self"]), [web.as_str()]);
    let alice = region.users[ALICE].uid.clone();
    assert_eq!(region.images(BOB, &["--owner", &alice]), [web.as_str()]);
    assert!(region.images(BOB, &["--mine"]).is_empty());
    assert!(region.images(CAROL, &[]).is_empty());
    assert!(region.ok(ALICE, &["image", "share", "web"]).contains(&region.users[BOB].uid));
    // By group, in EC2's spelling.
    let group = format!("Add=[{{Group={}}}]", region.users[CAROL].name);
    region.ok(ALICE, &["image", "share", "web", "--launch-permission", &group]);
    assert_eq!(region.images(CAROL, &["--executable-by", "self"]), [web.as_str()]);
    // A changed record keeps its readers.
    region.ok(ALICE, &["image", "modify", "web", "--description", "new"]);
    assert_eq!(region.images(BOB, &["--filter", "description=new"]), [web.as_str()]);
    // Implicit again.
    region.ok(ALICE, &["image", "share", "web", "--reset"]);
    for other in [BOB, CAROL] {
        region.refused(other, &["image", "show", &web], "InvalidAMIID.NotFound");
    }
    // Public.
    region.ok(ALICE, &["image", "share", "web", "--add", "all", "--yes"]);
    assert_eq!(region.images(CAROL, &["--community"]), [web.as_str()]);
    assert_eq!(region.images(CAROL, &["--executable-by", "all"]), [web.as_str()]);
    assert!(region.images(CAROL, &["--executable-by", "self"]).is_empty());
    assert!(region.images(CAROL, &["--quick-start"]).is_empty());
}

#[test]
fn nobody_changes_what_is_anothers_with_or_without_spore() {
    if !is_root() {
        return;
    }
    let region = Region::new(&["a", "b"]);
    let web = region.import(ALICE, "web");
    region.ok(ALICE, &["image", "share", "web", "--add", "all", "--yes"]);
    let snapshot = region.snapshot_of(ALICE, &web);
    for args in [
        &["image", "deregister", &web][..],
        &["image", "modify", &web, "--description", "mine"],
        &["image", "deprecate", &web, "--at", "2030-01-01"],
        &["image", "share", &web, "--reset"],
        &["tag", &web, "a=b"],
        &["snapshot", "delete", &snapshot],
        &["image", "register", "other", "--snapshot", &snapshot],
    ] {
        region.refused(BOB, args, "AuthFailure");
    }
    let store = region.store();
    let store = store.to_str().unwrap();
    for script in [
        format!("rm -r {store}/images/{web}"),
        format!("mv {store}/images/{web} {store}/images/ami-00000000000000001"),
        format!("echo x > {store}/images/{web}/record.json"),
        format!("touch {store}/images/{web}/new"),
        format!("chmod 777 {store}/snapshots/{snapshot}/data"),
        format!("echo x >> {store}/snapshots/{snapshot}/data"),
        format!(
            "ln {store}/snapshots/{snapshot}/data {store}/tmp/mine && echo x >> {store}/tmp/mine"
        ),
        format!("setfattr -x system.posix_acl_access {store}/images/{web}"),
        format!("rm {store}/shared"),
        format!("mv {store}/images {store}/other"),
    ] {
        region.cannot(BOB, &script);
    }
    // A record in another's name is nobody's.
    let forged = format!(
        "mkdir {store}/images/ami-00000000000000001 && \
         cp {store}/images/{web}/record.json {store}/images/ami-00000000000000001 && \
         sed -i 's/{web}/ami-00000000000000001/' {store}/images/ami-00000000000000001/record.json"
    );
    done(&mut region.as_user(BOB, Path::new("/bin/sh"), &["-c", &forged]));
    assert_eq!(region.images(ALICE, &[]), [web.as_str()]);
    region.refused(ALICE, &["image", "show", "ami-00000000000000001"], "InvalidAMIID.NotFound");
    region.ok(ALICE, &["image", "deregister", &web]);
    region.refused(BOB, &["image", "show", &web], "InvalidAMIID.Unavailable");
    // Names are each owner's.
    region.import(ALICE, "name");
    region.import(BOB, "name");
    region.refused(BOB, &["image", "register", "name", "--snapshot", &snapshot], "Duplicate");
}

#[test]
fn what_others_launched_outlives_permission_and_image() {
    if !is_root() || !has_kvm() {
        return;
    }
    let region = Region::new(&["a", "b"]);
    let web = region.import(ALICE, "web");
    let snapshot = region.snapshot_of(ALICE, &web);
    region.ok(ALICE, &["image", "modify", "web", "--product-code", "code-1"]);
    region
        .ok(ALICE, &["image", "share", "web", "--add", &format!("user:{}", region.users[BOB].uid)]);
    let run = ["run", web.as_str(), "-q", "-t", "spore.tiny", "--wait", "--timeout", "300"];
    region.refused(BOB, &run, "OptInRequired");
    region.ok(BOB, &["product", "accept", "code-1"]);
    let id = region.ok(BOB, &run);
    let mine = region.ok(BOB, &["image", "create", &id, "--name", "mine"]);
    let kernel = region.show(ALICE, &web)["KernelId"].clone();
    let copied = region.show(BOB, &mine)["KernelId"].clone();
    assert!(copied.is_string() && copied != kernel, "one's own image boots one's own kernel");
    // Bob's instance is private to him.
    assert_eq!(region.ok(ALICE, &["ls", "-q"]), "");
    region.ok(ALICE, &["image", "share", "web", "--reset"]);
    region.refused(BOB, &["run", &web], "InvalidAMIID.NotFound");
    let files = region.store().join("snapshots").join(&snapshot);
    region.refused(ALICE, &["snapshot", "delete", &snapshot], "InvalidSnapshot.InUse");
    region.ok(ALICE, &["image", "deregister", "web", "--delete-associated-snapshots"]);
    region.refused(ALICE, &["snapshot", "delete", &snapshot], "InvalidSnapshot.NotFound");
    assert!(!region.ok(ALICE, &["snapshot", "ls", "-q"]).contains(&snapshot));
    assert!(files.join("data").exists(), "Bob's volume begins as it");
    // Another image of the same kernel comes and goes.
    let other = region.import(ALICE, "other");
    assert_eq!(region.show(ALICE, &other)["KernelId"], kernel);
    region.ok(ALICE, &["image", "share", "other", "--add", "all", "--yes"]);
    region.ok(ALICE, &["image", "share", "other", "--reset"]);
    region.ok(ALICE, &["image", "deregister", "other"]);
    let kernel = kernel.as_str().unwrap();
    region.refused(ALICE, &["kernel", "deregister", kernel], "InvalidAKIID.InUse");
    region.refused(BOB, &["kernel", "deregister", kernel], "AuthFailure");
    region.ok(BOB, &["start", &id]);
    region.ok(BOB, &["wait", &id, "--timeout", "300"]);
    assert!(region.ok(BOB, &["logs", &id]).contains("identity: boot 2"));
    region.ok(BOB, &["terminate", &id]);
    region.ok(ALICE, &["snapshot", "ls"]);
    assert!(!files.exists(), "the last that needed it is gone");
    region.ok(ALICE, &["kernel", "deregister", kernel]);
    let run = ["run", "mine", "-q", "-t", "spore.tiny", "--wait", "--timeout", "300"];
    region.ok(BOB, &run);
    // The administrator sees what was used by whom; the others see their own.
    let usage = region.ok(0, &["usage", "-o", "csv"]);
    assert!(usage.lines().any(|l| l.starts_with(&region.users[BOB].uid) && l.contains("code-1")));
    assert!(!region.ok(ALICE, &["usage", "-o", "csv"]).contains("code-1"));
}

/// Owner and mode of a user's account.
fn account(region: &Region, user: usize) -> Option<(String, u32)> {
    use std::os::unix::fs::MetadataExt;
    let path = region.store().join("accounts").join(&region.users[user].uid);
    path.symlink_metadata().ok().map(|meta| (meta.uid().to_string(), meta.mode() & 0o7777))
}

#[test]
fn the_administrator_makes_accounts_ahead_of_time_and_gives_names_back() {
    if !is_root() {
        return;
    }
    let region = Region::new(&["a", "b", "c"]);
    let uid = |user: usize| region.users[user].uid.clone();
    let (alice, carol) = (region.users[ALICE].name.clone(), uid(CAROL));
    region.ok(0, &["store", "admit", &alice, &uid(BOB)]);
    for user in [ALICE, BOB] {
        assert_eq!(account(&region, user), Some((uid(user), 0o700)));
    }
    let accounts = region.store().join("accounts");
    let accounts = accounts.to_str().unwrap();
    region.cannot(BOB, &format!("mv {accounts}/{} {accounts}/x", uid(ALICE)));
    // Carol's name is taken, and what she does is elsewhere until it is hers.
    let plant = format!("mkdir -m 755 {accounts}/{carol} && touch {accounts}/{carol}/x");
    done(&mut region.as_user(BOB, Path::new("/bin/sh"), &["-c", &plant]));
    region.ok(CAROL, &["product", "accept", "code-1"]);
    assert_eq!(account(&region, CAROL).unwrap().0, uid(BOB));
    let admitted = region.spore(0, &["store", "admit", &carol, &alice]);
    let said = String::from_utf8_lossy(&admitted.stderr).into_owned();
    assert!(admitted.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.contains(&format!("was user {}'s", uid(BOB))), "{said}");
    assert_eq!(account(&region, CAROL), Some((carol.clone(), 0o700)));
    let listed = region.spore(CAROL, &["product", "ls", "-q"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "code-1");
    assert!(listed.stderr.is_empty(), "{listed:?}");
    assert!(region.ok(CAROL, &["events"]).contains("code-1"));
}

#[test]
fn who_may_not_admit_is_told_so() {
    if !is_root() {
        return;
    }
    let region = Region::new(&["a", "b"]);
    let bob = region.users[BOB].uid.clone();
    region.refused(ALICE, &["store", "admit", &bob], "AuthFailure");
    region.refused(0, &["store", "admit", "no-such-user"], "InvalidUserID.Unknown");
    // A store of Alice's own, which she shares.
    let own = region.installed.path("own");
    std::fs::create_dir(&own).unwrap();
    let ids = [&region.users[ALICE].uid, &region.users[ALICE].gid].map(|id| id.parse().ok());
    std::os::unix::fs::chown(&own, ids[0], ids[1]).unwrap();
    let alices = |args: &[&str]| {
        let mut command = region.as_user(ALICE, &region.installed.path("spore"), args);
        let output = command.env("SPORE_HOME", own.join("store")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = alices(&["store", "admit", &bob]);
    assert!(code == Some(1) && said.contains("'spore store share' shares it first"), "{said}");
    assert_eq!(alices(&["store", "share"]), (Some(0), String::new()));
    let (code, said) = alices(&["store", "admit", &bob]);
    assert!(code == Some(1) && said.contains("OperationNotPermitted"), "{said}");
    assert!(said.contains("sudo SPORE_HOME=") && said.lines().count() == 1, "{said}");
    assert_eq!(alices(&["store", "admit", &region.users[ALICE].uid]), (Some(0), String::new()));
}

/// Whatever another account does with what is shared with it: the owner deletes it, and gets the
/// space back.
#[test]
fn nobody_keeps_an_owner_from_deleting_a_snapshot() {
    if !is_root() {
        return;
    }
    let region = Region::new(&["a", "b"]);
    let web = region.import(ALICE, "web");
    let snapshot = region.snapshot_of(ALICE, &web);
    region.ok(ALICE, &["image", "share", "web", "--add", "all", "--yes"]);
    let (store, volume) = (region.store(), "vol-0123456789abcdef0");
    let (files, store) = (store.join("snapshots").join(&snapshot), store.to_str().unwrap());
    // A lock that is never let go, a volume that is none, a name in its users, and what can't be
    // removed.
    let hold = format!(
        "mkdir -m 755 {store}/volumes/{volume} && cd {store}/snapshots/{snapshot} && \
         ln -s x users/{volume} && mkdir -p users/mine/deep && \
         for n in $(seq 50); do mkdir -p users/$n/x; done && exec flock --no-fork -s data sleep 600"
    );
    let mut holder = region.as_user(BOB, Path::new("/bin/sh"), &["-c", &hold]);
    let mut holder = holder.stdout(Stdio::null()).spawn().unwrap();
    while !files.join("users/50/x").exists() {
        assert!(holder.try_wait().unwrap().is_none(), "it could not be held");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let locks = || std::fs::read_to_string("/proc/locks").unwrap();
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", files.join("data").metadata().unwrap().ino());
    while !locks().contains(&inode) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    region.ok(ALICE, &["image", "deregister", "web"]);
    let deleted = region.spore(ALICE, &["snapshot", "delete", &snapshot]);
    let said = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(deleted.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.contains("its content stays") && said.contains("--force"), "{said}");
    region.refused(ALICE, &["snapshot", "show", &snapshot], "InvalidSnapshot.NotFound");
    region.refused(BOB, &["volume", "create", "--snapshot", &snapshot], "InvalidSnapshot.NotFound");
    region.cannot(BOB, &format!("touch {}/users/late", files.display()));
    assert!(files.join("data").exists());
    assert_eq!(region.ok(ALICE, &["snapshot", "delete", "--force", &snapshot]), "");
    assert!(!files.exists());
    region.refused(
        ALICE,
        &["snapshot", "delete", "--force", &snapshot],
        "InvalidSnapshot.NotFound",
    );
    let events = region.ok(ALICE, &["events", &snapshot, "-o", "csv"]);
    assert_eq!(events.matches("removed").count(), 1, "{events}");
    holder.kill().unwrap();
    holder.wait().unwrap();
}
