//! Lists of checksums that their publishers sign, with keys that GnuPG makes.

use super::{Bed, Files, catalogue, disk, publish, sha256};
use crate::common::images::error_of;
use std::fs;
use std::process::{Command, Stdio};

/// A key, with a GnuPG of its own.
struct Signer {
    home: tempfile::TempDir,
    fingerprint: String,
}

impl Signer {
    fn new() -> Self {
        // The path of the agent's socket may have 108 bytes.
        let home = tempfile::tempdir().unwrap();
        let mut signer = Self { home, fingerprint: String::new() };
        signer.gpg(
            &["--passphrase", "", "--quick-gen-key", "somebody", "ed25519", "sign", "never"],
            b"",
        );
        let keys = signer.gpg(&["--with-colons", "--list-keys"], b"");
        let keys = String::from_utf8(keys).unwrap();
        let line = keys.lines().find(|line| line.starts_with("fpr:")).unwrap();
        signer.fingerprint = line.split(':').nth(9).unwrap().to_owned();
        signer
    }

    fn gpg(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let from = self.home.path().join("input");
        fs::write(&from, input).unwrap();
        let mut command = Command::new("gpg");
        command
            .args(["--batch", "--yes", "--quiet", "--no-permission-warning", "--homedir"])
            .arg(self.home.path());
        let input = fs::File::open(from).unwrap();
        let output = command.args(words).stdin(input).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "gpg {words:?}");
        output.stdout
    }

    fn export(&self, armor: bool) -> Vec<u8> {
        self.gpg(
            &["--export"][..].iter().copied().chain(armor.then_some("--armor")).collect::<Vec<_>>(),
            b"",
        )
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--kill", "all"])
            .status();
    }
}

#[test]
fn a_list_that_is_signed_is_what_its_signer_says() {
    let (signer, other) = (Signer::new(), Signer::new());
    let (bed, files) = (Bed::new(), Files::start());
    let write = |signature: &str| {
        let signers = format!("  signers: [{}]\n", signer.fingerprint);
        bed.catalogue(&format!("{}{signature}{signers}", catalogue(&files, "mine")));
    };
    let have = |name: &str, key: &[u8]| {
        let keys = bed.config.path().join("spore/keys");
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join(name), key).unwrap();
    };
    publish(&files, "disk-1.10.img", &disk(1));
    let list = format!("{} *disk-1.10.img\n", sha256(&disk(1))).into_bytes();
    files.put("/SHA256SUMS", &list);
    write("  signature: .sig\n");
    files.put("/SHA256SUMS.sig", &signer.gpg(&["--detach-sign", "--output", "-"], &list));
    // Nobody can say whose it is without the key.
    have("other.gpg", &other.export(false));
    let said = error_of(&bed.spore(&["image", "pull", "mine", "--name", "unchecked"]));
    assert!(
        said.contains("was not checked: no key") && said.contains(&signer.fingerprint),
        "{said}"
    );
    have("signer.asc", &signer.export(true));
    let said = error_of(&bed.spore(&["image", "pull", "mine", "--name", "checked"]));
    assert!(!said.contains("not checked"), "{said}");
    bed.ok(&["image", "show", "checked"]);
    let refused = |why: &str| {
        let line = bed.refused(&["image", "pull", "mine"], "InvalidManifest");
        assert!(line.contains("SHA256SUMS is not to be trusted: ") && line.contains(why), "{line}");
    };
    // Another list, another's signature, none.
    files.put("/SHA256SUMS", &[&list[..], b"\n"].concat());
    refused("it is not what was signed");
    files.put("/SHA256SUMS.sig", &other.gpg(&["--detach-sign", "--output", "-"], &list));
    refused("somebody else has signed it");
    files.put("/SHA256SUMS.sig", b"no signature");
    refused("it is not signed");
    // A list that has its signature within: what stands around it is nobody's word.
    write("");
    let signed = signer.gpg(&["--clearsign", "--output", "-"], &list);
    files.put("/SHA256SUMS", &signed);
    bed.ok(&["image", "pull", "mine", "--name", "clearsigned"]);
    let forged = format!("{}  disk-1.11.img\n", "0".repeat(64));
    for around in [[forged.as_bytes(), &signed].concat(), [&signed, forged.as_bytes()].concat()] {
        files.put("/SHA256SUMS", &around);
        let named = bed.ok(&["image", "pull", "mine", "--name", "clearsigned"]);
        assert!(!named.is_empty());
    }
    let theirs = other.gpg(&["--clearsign", "--output", "-"], forged.as_bytes());
    files.put("/SHA256SUMS", &[&signed[..], &theirs].concat());
    refused("");
    files.put("/SHA256SUMS", &list);
    refused("it is not signed");
}
