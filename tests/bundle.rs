//! Bundles: made, registered, launched, and refused when anything about them is wrong. openssl,
//! gzip and tar referee.

mod common;
mod servers;

use common::Store;
use common::images::{data, error_of, noise, objects, refusal, show};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: usize = 1 << 20;

/// 31 MiB: 12 that nothing compresses, then zeros, then a little.
fn content() -> Vec<u8> {
    let mut bytes = vec![0; 31 * MIB];
    noise(&mut bytes[..12 * MIB], 7);
    // More runs than the header itself has room for.
    for n in 0..30 {
        bytes[13 * MIB + n * 512 * 1024..][..4096].fill(n as u8 + 1);
    }
    bytes
}

fn import(store: &Store, name: &str) -> Vec<u8> {
    let (path, bytes) = (store.home().join("disk.raw"), content());
    fs::write(&path, &bytes).unwrap();
    let args = ["--root-device-type", "instance-store"];
    store.ok(&[&["image", "import", path.to_str().unwrap(), "--name", name], &args[..]].concat());
    bytes
}

/// A directory for bundles.
fn depot(store: &Store) -> PathBuf {
    let path = store.home().join("bundles");
    fs::create_dir(&path).unwrap();
    path
}

#[track_caller]
fn refused(store: &Store, args: &[&str], code: &str) -> String {
    let before = objects(store);
    let error = refusal(&store.spore(args), code);
    assert_eq!(objects(store), before, "{error}");
    error
}

fn sh(dir: &Path, script: &str) -> String {
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(dir).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{script}: {}", error_of(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}")).unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once(&format!("</{name}>")).unwrap().0
}

/// A user's key and certificate, by openssl.
fn keys(dir: &Path, name: &str) -> (String, String) {
    let (key, cert) = (format!("{name}-pk.pem"), format!("{name}-cert.pem"));
    sh(
        dir,
        &format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 9 -subj /CN={name} 2>&1"
        ),
    );
    (dir.join(key).display().to_string(), dir.join(cert).display().to_string())
}

#[test]
fn a_bundle_is_registered_launched_and_outlives_its_image() {
    let store = Store::new();
    let bytes = import(&store, "web");
    let dir = depot(&store);
    let bundle = ["image", "bundle", "web", "--to", dir.to_str().unwrap()];
    let location = store.ok(&bundle).trim().to_owned();
    assert_eq!(location, dir.join("web.manifest.xml").to_str().unwrap());
    let files = || fs::read_dir(&dir).unwrap().count();
    assert_eq!(files(), 3);
    assert_eq!(dir.join("web.part.00").metadata().unwrap().len(), 10 * MIB as u64);
    refused(&store, &bundle, "InvalidParameterValue");
    let id = store.ok(&["image", "register", &location, "--name", "web-2"]).trim().to_owned();
    let image = show(&store, &id);
    assert_eq!(
        (&image["RootDeviceType"], &image["Name"]),
        (&"instance-store".into(), &"web-2".into())
    );
    assert_eq!(image["ImageLocation"], *location);
    assert!(fs::read(data(&store, &id)).unwrap() == bytes);
    refused(
        &store,
        &["image", "register", &location, "--name", "web-2"],
        "InvalidAMIName.Duplicate",
    );
    store.ok(&["image", "deregister", "web-2"]);
    assert_eq!(files(), 3);
    store.ok(&["image", "register", &location, "--name", "web-2"]);
    // A part that is touched is read again; one that has changed keeps instances from being
    // launched.
    let part = dir.join("web.part.01");
    let content = fs::read(&part).unwrap();
    fs::write(&part, &content).unwrap();
    let launch = || error_of(&store.spore(&["run", "web-2", "-n", "100000"]));
    assert!(!launch().contains("InvalidManifest"), "{}", launch());
    let mut changed = content.clone();
    changed[1000] ^= 4;
    fs::write(&part, &changed).unwrap();
    assert!(launch().starts_with("spore: InvalidManifest: "), "{}", launch());
    fs::remove_file(&part).unwrap();
    assert!(launch().starts_with("spore: InvalidManifest: "), "{}", launch());
    fs::write(&part, &content).unwrap();
    assert!(!launch().contains("InvalidManifest"), "{}", launch());
}

#[test]
fn a_launch_begins_as_what_was_bundled() {
    if !common::has_kvm() {
        return;
    }
    let store = Store::new();
    let dir = depot(&store);
    let location =
        store.ok(&["image", "bundle", "demo", "--to", dir.to_str().unwrap(), "--unencrypted"]);
    let id = store.ok(&["image", "register", location.trim(), "--name", "bundled"]);
    assert!(show(&store, id.trim())["KernelId"].is_string());
    assert!(store.ok(&["run", "bundled", "-m", "128M", "--wait"]).contains("i-"));
}

#[test]
fn openssl_gzip_and_tar_read_it_and_it_reads_theirs() {
    let store = Store::new();
    let bytes = import(&store, "web");
    let dir = depot(&store);
    let (key, cert) = keys(&dir, "user");
    let (ec2_key, ec2_cert) = keys(&dir, "ec2");
    let to = dir.to_str().unwrap();
    let bundle = [
        "image",
        "bundle",
        "web",
        "--to",
        to,
        "--key",
        &key,
        "--cert",
        &cert,
        "--ec2-cert",
        &ec2_cert,
    ];
    let location = store.ok(&bundle).trim().to_owned();
    let xml = fs::read_to_string(&location).unwrap();
    for (who, key) in [("user", &key), ("ec2", &ec2_key)] {
        let decrypt = |what: &str| {
            let hex = element(&xml, &format!("{who}_encrypted_{what}"));
            fs::write(dir.join("wrapped"), unhex(hex)).unwrap();
            sh(&dir, &format!("openssl pkeyutl -decrypt -inkey {key} -in wrapped"))
        };
        let (key, iv) = (decrypt("key"), decrypt("iv"));
        let unpack = format!(
            "cat web.part.* | openssl enc -d -aes-128-cbc -K {key} -iv {iv} | gzip -d > web.tar && tar xSf web.tar && sha1sum < web.tar"
        );
        let sum = sh(&dir, &unpack);
        assert_eq!(sum.split_whitespace().next().unwrap(), element(&xml, "digest"));
        assert!(fs::read(dir.join("web.img")).unwrap() == bytes);
    }
    // The signature is over the two elements as they stand.
    let between = |name: &str| {
        let (start, end) = (xml.find(&format!("<{name}>")).unwrap(), format!("</{name}>"));
        &xml[start..xml.find(&end).unwrap() + end.len()]
    };
    fs::write(
        dir.join("signed"),
        format!("{}{}", between("machine_configuration"), between("image")),
    )
    .unwrap();
    fs::write(dir.join("signature"), unhex(element(&xml, "signature"))).unwrap();
    let verify = format!(
        "openssl x509 -in {cert} -pubkey -noout > public.pem && openssl dgst -sha1 -verify public.pem -signature signature signed"
    );
    assert!(sh(&dir, &verify).contains("Verified OK"));
    // Encrypted for others, and signed by them: not ours to read without their key and certificate.
    refused(&store, &["image", "register", &location, "--name", "abc"], "InvalidManifest");
    let wrong = ["image", "register", &location, "--name", "abc", "--cert", &cert];
    assert!(refused(&store, &wrong, "InvalidManifest").contains("--key"));
    let (other, _) = keys(&dir, "other");
    refused(&store, &[&wrong[..], &["--key", &other]].concat(), "InvalidManifest");
    store.ok(&[&wrong[..], &["--key", &key]].concat());
    assert!(fs::read(data(&store, "abc")).unwrap() == bytes);
    // tar's own way: a plain member, cut into other parts.
    sh(
        &dir,
        "tar cf plain.tar web.img && gzip -c plain.tar > plain.gz && split -b 3M -d plain.gz theirs.part.",
    );
    let manifest = theirs(&dir, &bytes, &key);
    let register =
        ["image", "register", &manifest, "--name", "theirs", "--key", &key, "--cert", &cert];
    store.ok(&register);
    assert!(fs::read(data(&store, "theirs")).unwrap() == bytes);
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// A manifest, indented and signed by openssl, for the unencrypted parts `theirs.part.*`.
fn theirs(dir: &Path, bytes: &[u8], key: &str) -> String {
    let digest =
        |file: &str| sh(dir, &format!("sha1sum < {file}")).split(' ').next().unwrap().to_owned();
    let names = sh(dir, "ls theirs.part.*");
    let mut parts = String::new();
    for (n, name) in names.lines().enumerate() {
        parts += &format!(
            "<part index=\"{n}\"><filename>{name}</filename><digest algorithm=\"SHA1\">{}</digest></part>",
            digest(name)
        );
    }
    let machine =
        "<machine_configuration><architecture>x86_64</architecture></machine_configuration>";
    let image = format!(
        "<image><name>web.img</name><user>1</user><type>machine</type><digest algorithm=\"SHA1\">{}</digest><size>{}</size>\
         <bundled_size>{}</bundled_size><parts count=\"{}\">{parts}</parts></image>",
        digest("plain.tar"),
        bytes.len(),
        dir.join("plain.gz").metadata().unwrap().len(),
        names.lines().count()
    );
    fs::write(dir.join("signed"), format!("{machine}{image}")).unwrap();
    let signature =
        sh(dir, &format!("openssl dgst -sha1 -sign {key} signed | od -An -tx1 | tr -d ' \\n'"));
    // Pretty-printed after signing, as others do.
    let xml = format!(
        "<manifest><version>2007-10-10</version>{machine}{image}<signature>{signature}</signature></manifest>"
    );
    let path = dir.join("theirs.manifest.xml");
    fs::write(&path, xml.replace("><", ">\n  <")).unwrap();
    path.display().to_string()
}

#[test]
fn what_is_wrong_with_a_bundle_is_said_and_leaves_nothing() {
    let store = Store::new();
    import(&store, "web");
    let dir = depot(&store);
    let to = dir.to_str().unwrap();
    let location = store.ok(&["image", "bundle", "web", "--to", to]).trim().to_owned();
    let register = ["image", "register", &location, "--name", "again"];
    let part = dir.join("web.part.00");
    let (good, xml) = (fs::read(&part).unwrap(), fs::read_to_string(&location).unwrap());
    let mut flipped = good.clone();
    flipped[5 * MIB] ^= 0x10;
    fs::write(&part, &flipped).unwrap();
    assert!(refused(&store, &register, "InvalidManifest").contains("web.part.00"));
    fs::write(&part, &good[..9 * MIB]).unwrap();
    refused(&store, &register, "InvalidManifest");
    fs::remove_file(&part).unwrap();
    assert!(refused(&store, &register, "InvalidManifest").contains("web.part.00"));
    fs::write(&part, &good).unwrap();
    // Whatever is changed in the manifest, the signature does not fit any more.
    for (from, to) in [
        ("web.part.00", "../web.part.00"),
        ("x86_64", "i386"),
        ("<size>", "<size>1"),
        ("index=\"0\"", "index=\"7\""),
        ("</signature>", "00</signature>"),
        ("</manifest>", ""),
        ("<manifest>", "<!DOCTYPE x [<!ENTITY a \"b\">]><manifest>"),
        ("<manifest>", "<other>"),
    ] {
        fs::write(&location, xml.replacen(from, to, 1)).unwrap();
        refused(&store, &register, "InvalidManifest");
    }
    fs::write(&location, vec![b'<'; 9 * MIB]).unwrap();
    refused(&store, &register, "InvalidManifest");
    fs::remove_file(&location).unwrap();
    refused(&store, &register, "InvalidManifest");
    fs::write(&location, &xml).unwrap();
    refused(&store, &["image", "bundle", "web", "--to", "/nonexistent"], "InvalidParameterValue");
    refused(&store, &["image", "bundle", "nothing", "--to", to], "InvalidAMIID.NotFound");
    let key = dir.join("web.part.00");
    let with = ["--key", key.to_str().unwrap(), "--cert", &location];
    refused(
        &store,
        &[&["image", "bundle", "web", "--prefix", "x", "--to", to], &with[..]].concat(),
        "InvalidParameterValue",
    );
    store.ok(&register);
}

/// A bundle of theirs, of what `script` makes plain.tar of, that says what `edit` makes of its
/// manifest; signed.
fn contrived(
    (dir, key): (&Path, &str),
    bytes: &[u8],
    script: &str,
    edit: &dyn Fn(String) -> String,
) -> String {
    sh(
        dir,
        &format!(
            "rm -f theirs.part.*; {script}; gzip -c plain.tar > plain.gz; split -b 3M -d plain.gz theirs.part."
        ),
    );
    let path = theirs(dir, bytes, key);
    let xml = edit(fs::read_to_string(&path).unwrap().replace(">\n  <", "><"));
    let at = xml.find("<machine_configuration>").unwrap()..xml.find("<signature>").unwrap();
    fs::write(dir.join("signed"), &xml[at]).unwrap();
    let sign = format!("openssl dgst -sha1 -sign {key} signed | od -An -tx1 | tr -d ' \\n'");
    let old = element(&xml, "signature").to_owned();
    fs::write(&path, xml.replace(&old, &sh(dir, &sign))).unwrap();
    path
}

/// Contrived, and signed by whoever contrived it.
#[test]
fn a_signature_makes_nothing_safe() {
    let store = Store::new();
    let bytes = import(&store, "web");
    let dir = depot(&store);
    let (key, cert) = keys(&dir, "user");
    fs::write(dir.join("web.img"), &bytes[..MIB]).unwrap();
    let make = |script: &str, size: usize, edit: &dyn Fn(String) -> String| {
        contrived((&dir, &key), &bytes[..size], script, edit)
    };
    let same = |xml: String| xml;
    let plain = "tar cf plain.tar web.img";
    type Edit<'a> = &'a dyn Fn(String) -> String;
    let bad: &[(&str, usize, Edit<'_>)] = &[
        (plain, 2 * MIB, &same),
        ("echo hello > plain.tar", MIB, &same),
        (
            "tar cf plain.tar --sparse --format=pax web.img web.img; truncate -s 700 plain.tar",
            MIB,
            &same,
        ),
        ("mkdir -p d && tar cf plain.tar d", MIB, &same),
        (plain, MIB, &|xml| xml.replace("theirs.part.00", "../theirs.part.00")),
        (plain, MIB, &|xml| xml.replace("theirs.part.00", "/etc/passwd")),
        (plain, MIB, &|xml| xml.replace("theirs.part.00", "..")),
        (plain, MIB, &|xml| xml.replace("count=\"1\"", "count=\"9\"")),
        (plain, MIB, &|xml| xml.replace("<bundled_size>", "<bundled_size>1")),
        (plain, MIB, &|xml| xml.replace("<size>", "<size>99999999999999")),
        (plain, MIB, &|xml| xml.replace("x86_64", "vax")),
    ];
    for (n, (script, size, edit)) in bad.iter().enumerate() {
        let path = make(script, *size, edit);
        eprintln!("contrivance {n}");
        let args = ["image", "register", &path, "--name", "bad", "--key", &key, "--cert", &cert];
        refused(&store, &args, "InvalidManifest");
    }
    let path = make(plain, MIB, &same);
    store.ok(&["image", "register", &path, "--name", "good", "--key", &key, "--cert", &cert]);
    assert!(fs::read(data(&store, "good")).unwrap() == bytes[..MIB]);
}

#[test]
fn kernels_of_ec2s_time_are_ours_where_they_are_pv_grub() {
    let store = Store::new();
    let dir = depot(&store);
    let (key, cert) = keys(&dir, "user");
    let bytes = &content()[..MIB];
    fs::write(dir.join("web.img"), bytes).unwrap();
    let boots = |kernel: &str| {
        let ids = format!("<kernel_id>{kernel}</kernel_id><ramdisk_id>ari-a51cf9cc</ramdisk_id>");
        let edit = move |xml: String| {
            xml.replace("x86_64</architecture>", &format!("x86_64</architecture>{ids}"))
        };
        contrived((&dir, &key), bytes, "tar cf plain.tar web.img", &edit)
    };
    for (n, (aki, ours)) in [
        ("aki-427d952b", "aki-pv-grub-hd0"),
        ("aki-b4aa75dd", "aki-pv-grub-hd00"),
        ("aki-919dcaf8", "aki-pv-grub-hd0"),
    ]
    .iter()
    .enumerate()
    {
        let (path, name) = (boots(aki), format!("pv-{n}"));
        store.ok(&["image", "register", &path, "--name", &name, "--key", &key, "--cert", &cert]);
        let image = show(&store, &name);
        assert_eq!((&image["KernelId"], &image["RamdiskId"]), (&(*ours).into(), &Value::Null));
    }
    let path = boots("aki-a71cf9ce");
    let args = ["image", "register", &path, "--name", "old", "--key", &key, "--cert", &cert];
    assert!(refused(&store, &args, "InvalidAKIID.NotFound").contains("--kernel"));
    store.ok(&[&args[..], &["--kernel", "aki-pv-grub-hd0"]].concat());
    assert_eq!(show(&store, "old")["KernelId"], "aki-pv-grub-hd0");
}

#[test]
fn a_bucket_keeps_bundles() {
    let Some(server) = servers::s3() else { return };
    let store = Store::new();
    let bytes = import(&store, "web");
    let spore = |args: &[&str]| {
        let mut command = store.command(args);
        command
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap()
    };
    let to = format!("s3://images/bundles?endpoint=http://127.0.0.1:{}", server.port);
    let bundled = spore(&["image", "bundle", "web", "--to", &to]);
    assert!(bundled.status.success(), "{}", error_of(&bundled));
    let location = String::from_utf8(bundled.stdout).unwrap().trim().to_owned();
    assert_eq!(location, to.replace("/bundles", "/bundles/web.manifest.xml"));
    let registered = spore(&["image", "register", &location, "--name", "from-bucket"]);
    assert!(registered.status.success(), "{}", error_of(&registered));
    assert!(fs::read(data(&store, "from-bucket")).unwrap() == bytes);
    let launch = || error_of(&spore(&["run", "from-bucket", "-n", "100000"]));
    assert!(!launch().contains("InvalidManifest"), "{}", launch());
    servers::request(server.port, "DELETE", "/images/bundles/web.part.00", b"");
    assert!(launch().starts_with("spore: InvalidManifest: "), "{}", launch());
    drop(server);
    assert!(launch().starts_with("spore: Unavailable: "), "{}", launch());
}
