//! What files are likely secrets, by where they are and what they are called.

/// What is looked for. The numbers are the order.
pub(super) const KINDS: [&str; 9] = [
    "an SSH host key",
    "a list of SSH keys that may log in",
    "a private key",
    "a shell's or a client's history",
    "cloud credentials",
    "a password file of a client",
    "a file of environment variables",
    "an account that takes no password",
    "the hash of an account's password",
];

/// The kinds that lines of /etc/shadow and /etc/passwd are.
const NO_PASSWORD: usize = 7;
const HASH: usize = 8;
/// Most characters of an account's name (login.defs(5) of Debian, useradd(8)).
const MAX_NAME: usize = 32;

/// The files in which accounts have their passwords. (passwd(5), shadow(5))
pub(super) const ACCOUNTS: [&str; 2] = ["/etc/shadow", "/etc/passwd"];

/// What kind of secret the second field of an account's line is, and whose.
pub(super) fn password(line: &str) -> Option<(usize, String)> {
    let (name, rest) = line.split_once(':')?;
    let (password, _) = rest.split_once(':')?;
    let kind = match password {
        "" => NO_PASSWORD,
        // Nothing hashes to what begins with neither, "x" sends to /etc/shadow. (crypt(5))
        _ if password.starts_with('$') || password.starts_with('_') => HASH,
        _ => return None,
    };
    Some((kind, name.chars().take(MAX_NAME).collect()))
}

/// What kind of secret the file at `path` (absolute, in its file system) is likely to be.
pub(super) fn kind(path: &str) -> Option<usize> {
    let (dir, name) = path.rsplit_once('/')?;
    let below = |end: &str| dir.ends_with(end);
    let public = name.ends_with(".pub");
    let is = match () {
        () if name.starts_with("ssh_host_") && name.ends_with("_key") => 0,
        () if below("/.ssh") && name.starts_with("authorized_keys") => 1,
        () if below("/.ssh") && name.starts_with("id_") && !public => 2,
        () if below("/etc/ssl/private") || below("/private-keys-v1.d") => 2,
        () if name.starts_with('.') && name.ends_with("_history") => 3,
        () if [".lesshst", ".viminfo"].contains(&name) => 3,
        () if below("/.aws") || below("/.azure") || below("/.config/gcloud") => 4,
        () if below("/.kube") && name == "config" => 4,
        () if below("/.docker") && name == "config.json" => 4,
        () if [".netrc", ".pgpass", ".my.cnf", ".git-credentials", ".npmrc", ".pypirc"]
            .contains(&name) =>
        {
            5
        }
        () if name == ".env" || (name.starts_with(".env.") && !name.ends_with("example")) => 6,
        () => return None,
    };
    Some(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_known_by_their_field() {
        for (line, found) in [
            ("root::19000:0:99999:7:::", Some(NO_PASSWORD)),
            ("root:*:19000:0:99999:7:::", None),
            ("root:!:19000::::::", None),
            ("root:x:0:0:root:/root:/bin/bash", None),
            ("root::0:0:root:/root:/bin/bash", Some(NO_PASSWORD)),
            ("alice:$y$j9T$abc$def:19000:::::::", Some(HASH)),
            ("alice:!$6$abc:19000:::::::", None),
            ("# a comment", None),
            ("", None),
        ] {
            assert_eq!(password(line).map(|(kind, _)| kind), found, "{line}");
        }
        let long = format!("{}::1", "n".repeat(1000));
        assert_eq!(password(&long).unwrap().1.len(), MAX_NAME);
    }

    #[test]
    fn secrets_are_known_by_their_places() {
        for (path, number) in [
            ("/etc/ssh/ssh_host_ed25519_key", Some(0)),
            ("/etc/ssh/ssh_host_ed25519_key.pub", None),
            ("/root/.ssh/authorized_keys", Some(1)),
            ("/home/a/.ssh/id_rsa", Some(2)),
            ("/home/a/.ssh/id_rsa.pub", None),
            ("/etc/ssl/private/web.key", Some(2)),
            ("/root/.bash_history", Some(3)),
            ("/home/a/.aws/credentials", Some(4)),
            ("/home/a/.netrc", Some(5)),
            ("/srv/app/.env", Some(6)),
            ("/srv/app/.env.production", Some(6)),
            ("/srv/app/.env.example", None),
            ("/etc/passwd", None),
            ("history", None),
        ] {
            assert_eq!(kind(path), number, "{path}");
        }
    }
}
