//! Tags, and what they may be.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// A key and a value (EC2 Tag).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// 1 to 127 characters.
    pub key: String,
    /// 0 to 255 characters.
    pub value: String,
}

/// The value of the tag `Name`.
pub fn name_tag(tags: &[Tag]) -> Option<&str> {
    tags.iter().find(|tag| tag.key == "Name").map(|tag| tag.value.as_str())
}

/// Whether only Spore itself gives and takes tags of that key.
pub fn is_reserved(key: &str) -> bool {
    key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// Most tags of an object (EC2, "Tag restrictions").
const MAX_TAGS: usize = 50;
/// Most characters of a key in a message.
const SHOWN: usize = 128;

/// # Errors
/// `TagLimitExceeded`: more than 50. `InvalidParameterValue`: a key is empty, too long, reserved or
/// given twice, or a value too long (EC2, "Tag restrictions").
pub fn check_tags(tags: &[Tag]) -> Result<()> {
    let refuse = |why: String| Err(Error::refused(Code::InvalidParameterValue, why));
    if tags.len() > MAX_TAGS {
        let why = format!("{} tags are too many: an object has at most {MAX_TAGS}", tags.len());
        return Err(Error::refused(Code::TagLimitExceeded, why));
    }
    for (index, tag) in tags.iter().enumerate() {
        let shown: String = tag.key.chars().take(SHOWN).collect();
        let key = shown.escape_debug();
        if !(1..=127).contains(&tag.key.chars().count()) || tag.value.chars().count() > 255 {
            return refuse(format!(
                "the tag '{key}' is malformed: a key has 1 to 127 characters, a value at most 255"
            ));
        }
        if [&tag.key, &tag.value].iter().any(|text| text.chars().any(char::is_control)) {
            return refuse(format!("the tag '{key}' has a control character; leave it out"));
        }
        if is_reserved(&tag.key) {
            return refuse(format!("the tag '{key}' is reserved: no key may begin with aws:"));
        }
        if tags[..index].iter().any(|other| other.key == tag.key) {
            return refuse(format!("the tag '{key}' is given twice; give each key once"));
        }
    }
    Ok(())
}

/// The tag that says whose an instance of an Auto Scaling group is.
pub const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// Set each of `new` in `tags`, over one of the same key.
///
/// # Errors
/// As [`check_tags`]; `tags` is then as it was.
pub fn set_tags(tags: &mut Vec<Tag>, new: &[Tag]) -> Result<()> {
    check_tags(new)?;
    let mut all = tags.clone();
    for tag in new {
        match all.iter_mut().find(|old| old.key == tag.key) {
            Some(old) => old.value.clone_from(&tag.value),
            None => all.push(tag.clone()),
        }
    }
    // Spore's own don't count.
    let own: Vec<Tag> = all.iter().filter(|tag| !is_reserved(&tag.key)).cloned().collect();
    check_tags(&own)?;
    *tags = all;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_one_value_a_key() {
        let tag = |key: &str| Tag { key: key.into(), value: "v".into() };
        assert!(check_tags(&[tag("a"), tag("b")]).is_ok());
        assert!(check_tags(&[tag("a"), tag("a")]).is_err());
        assert!(check_tags(&[tag("")]).is_err());
    }

    #[test]
    fn tags_have_ec2s_limits() {
        let tag = |key: String, value: String| Tag { key, value };
        let code = |tags: &[Tag]| check_tags(tags).unwrap_err().code();
        let many = |n: usize| (0..n).map(|i| tag(i.to_string(), String::new())).collect::<Vec<_>>();
        assert!(check_tags(&many(50)).is_ok());
        assert_eq!(code(&many(51)).unwrap(), Code::TagLimitExceeded);
        assert!(check_tags(&[tag("ä".repeat(127), "ü".repeat(255))]).is_ok());
        for bad in [
            tag("k".repeat(128), String::new()),
            tag("k".into(), "v".repeat(256)),
            tag("aws:x".into(), String::new()),
            tag("AWS:x".into(), String::new()),
            tag("k".repeat(10_000), "v".repeat(10_000)),
        ] {
            assert_eq!(code(std::slice::from_ref(&bad)).unwrap(), Code::InvalidParameterValue);
            assert!(check_tags(&[bad]).unwrap_err().to_string().len() < 400);
        }
        let mut tags = many(50);
        set_tags(&mut tags, &[tag("7".into(), "new".into())]).unwrap();
        assert_eq!(tags[7].value, "new");
        assert!(set_tags(&mut tags, &[tag("51st".into(), String::new())]).is_err());
        assert_eq!(tags.len(), 50);
    }
}
