//! `-v HOST:GUEST[:ro|:rw]`.

use crate::error::{Error, Result};
use crate::record::share::Share;
use std::path::PathBuf;

/// A directory that is to be shared, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareArg {
    host: PathBuf,
    guest: String,
    /// `None`: what suits the command.
    read_only: Option<bool>,
}

/// One of `-v`.
///
/// # Errors
/// It is not of two paths, of which the guest's is absolute, and perhaps ro or rw.
pub fn parse(text: &str) -> Result<ShareArg> {
    let (paths, read_only) = match (text.strip_suffix(":ro"), text.strip_suffix(":rw")) {
        (Some(paths), _) => (paths, Some(true)),
        (_, Some(paths)) => (paths, Some(false)),
        _ => (text, None),
    };
    match paths.split_once(':') {
        Some((host, guest))
            if !host.is_empty() && guest.starts_with('/') && !guest.contains(':') =>
        {
            Ok(ShareArg { host: host.into(), guest: guest.to_owned(), read_only })
        }
        _ => Err(Error::usage(
            "give HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw, GUEST being an absolute path without ':'",
        )),
    }
}

impl ShareArg {
    /// What it means; read only by default for a command's `job`.
    ///
    /// # Errors
    /// There is no current directory that a relative path could begin at.
    pub fn share(&self, job: bool) -> Result<Share> {
        let absolute = std::path::absolute(&self.host);
        let host_path =
            absolute.map_err(|cause| Error::io(format!("find {}", self.host.display()), cause))?;
        let read_only = self.read_only.unwrap_or(job);
        let share = Share { host_path, guest_path: self.guest.clone(), read_only };
        share.check()?;
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_two_paths_and_how() {
        let of = |text: &str| parse(text).unwrap();
        let share = of("/a b:/src").share(false).unwrap();
        assert_eq!((share.host_path.to_str(), &*share.guest_path), (Some("/a b"), "/src"));
        assert!(!share.read_only && of("/a:/b").share(true).unwrap().read_only);
        assert!(!of("/a:/b:rw").share(true).unwrap().read_only);
        assert!(of("/a:/b:ro").share(false).unwrap().read_only);
        assert!(of("src:/b").share(false).unwrap().host_path.is_absolute());
        for bad in ["", "/a", "/a:", ":/b", "/a:b", "/a:/b:rx", "/a:/b:ro:rw", "/a:ro"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
