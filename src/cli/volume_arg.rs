//! `--volume size=20G,snapshot=data,device=/dev/vdb,delete=false,read-only`.

use super::parse::parse_size;
use crate::error::{Error, Result};
use crate::service::disks::NewVolume;

/// One more volume of an instance.
///
/// # Errors
/// A word is unknown or given twice, or its value malformed; neither a size nor a snapshot is
/// given.
pub fn parse(text: &str) -> Result<NewVolume> {
    let mut volume = NewVolume::default();
    let mut seen: Vec<&str> = Vec::new();
    for part in text.split(',') {
        let (word, value) = part.split_once('=').map_or((part, None), |(w, v)| (w, Some(v)));
        if seen.contains(&word) {
            return Err(Error::usage(format!("'{}' is given twice", word.escape_debug())));
        }
        seen.push(word);
        match (word, value) {
            ("size", Some(value)) => volume.size = Some(parse_size(value)?),
            ("snapshot", Some(value)) => volume.snapshot_id = Some(value.to_owned()),
            ("device", Some(value)) => volume.device = Some(value.to_owned()),
            ("delete", Some(value)) => volume.delete_on_termination = Some(flag(value)?),
            ("read-only", None) => volume.read_only = true,
            ("read-only", Some(value)) => volume.read_only = flag(value)?,
            _ => {
                let known = "size=, snapshot=, device=, delete= and read-only";
                let part = part.escape_debug();
                return Err(Error::usage(format!(
                    "'{part}' says nothing of a volume: give {known}"
                )));
            }
        }
    }
    if volume.size.is_none() && volume.snapshot_id.is_none() {
        return Err(Error::usage("give size=, snapshot= or both"));
    }
    Ok(volume)
}

fn flag(text: &str) -> Result<bool> {
    text.parse().map_err(|_| Error::usage("give true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_told_in_words() {
        let volume =
            parse("size=20G,snapshot=data,device=/dev/vdc,delete=false,read-only").unwrap();
        let expected = NewVolume {
            device: Some("/dev/vdc".into()),
            size: Some(20 << 30),
            snapshot_id: Some("data".into()),
            delete_on_termination: Some(false),
            read_only: true,
        };
        assert_eq!(volume, expected);
        assert_eq!(parse("size=5").unwrap().size, Some(5 << 30));
        for bad in ["", "size", "size=x", "delete=true", "size=1,size=2", "size=1,colour=red"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
