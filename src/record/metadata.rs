//! How an instance's guest gets at its metadata, in the shapes of EC2's API.

use super::image::ImdsSupport;
use super::tag::Tag;
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// EC2 InstanceMetadataOptionsResponse. What EC2 takes where a request says nothing is the default
/// (RunInstances, MetadataOptions), but for the IPv6 endpoint: EC2 has it off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct MetadataOptions {
    /// Whether a change has taken effect.
    pub state: OptionsState,
    /// Whether IMDSv1 is refused.
    pub http_tokens: HttpTokens,
    /// How many hops an answer may travel.
    pub http_put_response_hop_limit: HopLimit,
    /// Whether there is any metadata at all.
    pub http_endpoint: Endpoint,
    /// Whether there is also at fd00:ec2::254.
    pub http_protocol_ipv6: Endpoint,
    /// Whether the guest may read the instance's tags.
    pub instance_metadata_tags: TagsState,
}

impl MetadataOptions {
    /// What instances of an image have where their launch says nothing. (EC2 User Guide, "Order of
    /// precedence for instance metadata configuration")
    pub fn of_image(support: Option<ImdsSupport>) -> Self {
        let options = Self::default();
        match support {
            None => options,
            Some(ImdsSupport::V2) => Self {
                http_tokens: HttpTokens::Required,
                http_put_response_hop_limit: HopLimit(2),
                ..options
            },
        }
    }

    /// Checks that tags can be read as metadata, if they are to be: a key is a name in a path then.
    /// (EC2 User Guide, "View tags for your EC2 instances using instance metadata")
    ///
    /// # Errors
    /// `InvalidParameterValue`: a key has other than letters, digits and `+-=.,_:@`, or is one that
    /// paths have.
    pub fn check_tags(&self, tags: &[Tag]) -> Result<()> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+-=.,_:@".contains(c);
        let bad = |key: &str| matches!(key, "." | ".." | "_index") || !key.chars().all(allowed);
        let wrong = tags.iter().find(|tag| bad(&tag.key));
        match wrong.filter(|_| self.instance_metadata_tags == TagsState::Enabled) {
            None => Ok(()),
            Some(tag) => Err(refused(format!(
                "the tag '{}' can't be read as metadata: with instance-metadata-tags=enabled a key \
                 has letters, digits and +-=.,_:@ only",
                shown(&tag.key)
            ))),
        }
    }
}

/// EC2 InstanceMetadataOptionsState.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptionsState {
    /// A change is yet to take effect.
    Pending,
    /// What the options say is so.
    #[default]
    Applied,
}

/// EC2 HttpTokensState.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpTokens {
    /// A request may come without a token (IMDSv1).
    #[default]
    Optional,
    /// A request needs a session token (IMDSv2).
    Required,
}

/// EC2 InstanceMetadataEndpointState, and InstanceMetadataProtocolState.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Nobody is answered.
    Disabled,
    /// The guest is.
    #[default]
    Enabled,
}

/// EC2 InstanceMetadataTagsState.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagsState {
    /// The guest does not see them.
    #[default]
    Disabled,
    /// It does.
    Enabled,
}

/// The IP time-to-live of what the metadata service sends: 1 to 64, in hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct HopLimit(u8);

impl Default for HopLimit {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u8> for HopLimit {
    type Error = Error;

    fn try_from(hops: u8) -> Result<Self> {
        match hops {
            1..=64 => Ok(Self(hops)),
            _ => Err(refused(format!("hop-limit is {hops}; give 1 to 64"))),
        }
    }
}

impl From<HopLimit> for u8 {
    fn from(limit: HopLimit) -> Self {
        limit.0
    }
}

/// EC2 InstanceMetadataOptionsRequest. What is `None` stays as it is. As text:
/// `http-tokens=required,hop-limit=2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataOptionsRequest {
    /// In place of [`MetadataOptions::http_tokens`].
    pub http_tokens: Option<HttpTokens>,
    /// In place of [`MetadataOptions::http_put_response_hop_limit`].
    pub http_put_response_hop_limit: Option<HopLimit>,
    /// In place of [`MetadataOptions::http_endpoint`].
    pub http_endpoint: Option<Endpoint>,
    /// In place of [`MetadataOptions::http_protocol_ipv6`].
    pub http_protocol_ipv6: Option<Endpoint>,
    /// In place of [`MetadataOptions::instance_metadata_tags`].
    pub instance_metadata_tags: Option<TagsState>,
}

impl MetadataOptionsRequest {
    /// `options` with what is asked for in its place.
    pub fn over(&self, options: MetadataOptions) -> MetadataOptions {
        let hops = options.http_put_response_hop_limit;
        MetadataOptions {
            state: OptionsState::Applied,
            http_tokens: self.http_tokens.unwrap_or(options.http_tokens),
            http_put_response_hop_limit: self.http_put_response_hop_limit.unwrap_or(hops),
            http_endpoint: self.http_endpoint.unwrap_or(options.http_endpoint),
            http_protocol_ipv6: self.http_protocol_ipv6.unwrap_or(options.http_protocol_ipv6),
            instance_metadata_tags: self
                .instance_metadata_tags
                .unwrap_or(options.instance_metadata_tags),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let enabled = || either(name, value, ["enabled", "disabled"]);
        let endpoint = |on| if on { Endpoint::Enabled } else { Endpoint::Disabled };
        match name {
            "http-tokens" => {
                let required = either(name, value, ["required", "optional"])?;
                let tokens = if required { HttpTokens::Required } else { HttpTokens::Optional };
                once(&mut self.http_tokens, name, tokens)
            }
            "hop-limit" | "http-put-response-hop-limit" => {
                let no = |_| refused(format!("{name} is '{}'; give 1 to 64", shown(value)));
                let hops = value.parse::<u8>().map_err(no)?;
                once(&mut self.http_put_response_hop_limit, name, hops.try_into()?)
            }
            "http-endpoint" => once(&mut self.http_endpoint, name, endpoint(enabled()?)),
            "http-protocol-ipv6" => once(&mut self.http_protocol_ipv6, name, endpoint(enabled()?)),
            "instance-metadata-tags" => {
                let tags = if enabled()? { TagsState::Enabled } else { TagsState::Disabled };
                once(&mut self.instance_metadata_tags, name, tags)
            }
            _ => Err(refused(format!(
                "'{}' is no metadata option; there are http-tokens, http-endpoint, hop-limit, \
                 http-protocol-ipv6 and instance-metadata-tags",
                shown(name)
            ))),
        }
    }
}

impl FromStr for MetadataOptionsRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut request = Self::default();
        for option in text.split(',') {
            let pair = option.split_once('=').ok_or_else(|| {
                refused(format!("'{}' has no value; give OPTION=VALUE", shown(option)))
            })?;
            request.set(pair.0, pair.1)?;
        }
        Ok(request)
    }
}

/// Which of two words `value` is: true of the first.
fn either(name: &str, value: &str, words: [&str; 2]) -> Result<bool> {
    words.iter().position(|word| *word == value).map(|n| n == 0).ok_or_else(|| {
        refused(format!("{name} is '{}'; give {} or {}", shown(value), words[0], words[1]))
    })
}

fn once<T>(option: &mut Option<T>, name: &str, value: T) -> Result<()> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(refused(format!("{name} is given twice; give it once"))),
    }
}

fn shown(text: &str) -> String {
    text.escape_debug().take(40).collect()
}

fn refused(why: impl fmt::Display) -> Error {
    Error::refused(Code::InvalidParameterValue, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_ec2s_shape() {
        let expected = serde_json::json!({
            "State": "applied",
            "HttpTokens": "optional",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
            "HttpProtocolIpv6": "enabled",
            "InstanceMetadataTags": "disabled",
        });
        assert_eq!(serde_json::to_value(MetadataOptions::default()).unwrap(), expected);
        let mut far = expected;
        far["HttpPutResponseHopLimit"] = 65.into();
        assert!(serde_json::from_value::<MetadataOptions>(far).is_err());
    }

    #[test]
    fn what_is_not_given_stays() {
        let request: MetadataOptionsRequest =
            "http-tokens=required,hop-limit=2,instance-metadata-tags=enabled".parse().unwrap();
        let options = request.over(MetadataOptions::default());
        assert_eq!(options.http_tokens, HttpTokens::Required);
        assert_eq!(u8::from(options.http_put_response_hop_limit), 2);
        assert_eq!(options.http_endpoint, Endpoint::Enabled);
        let request: MetadataOptionsRequest = "http-endpoint=disabled".parse().unwrap();
        let options = request.over(options);
        assert_eq!(options.http_tokens, HttpTokens::Required);
        assert_eq!(options.instance_metadata_tags, TagsState::Enabled);
        assert_eq!(options.http_endpoint, Endpoint::Disabled);
    }

    #[test]
    fn an_image_whose_guest_knows_tokens_has_them_required() {
        let options = MetadataOptions::of_image(Some(ImdsSupport::V2));
        assert_eq!(options.http_tokens, HttpTokens::Required);
        assert_eq!(u8::from(options.http_put_response_hop_limit), 2);
        let request: MetadataOptionsRequest = "http-tokens=optional".parse().unwrap();
        let options = request.over(options);
        assert_eq!(options.http_tokens, HttpTokens::Optional);
        assert_eq!(u8::from(options.http_put_response_hop_limit), 2);
        assert_eq!(MetadataOptions::of_image(None), MetadataOptions::default());
    }

    #[test]
    fn tags_are_names_in_paths_where_guests_read_them() {
        let tag = |key: &str| [Tag { key: key.into(), value: "a/b".into() }];
        let mut options = MetadataOptions::default();
        assert!(options.check_tags(&tag("a/b")).is_ok());
        options.instance_metadata_tags = TagsState::Enabled;
        assert!(options.check_tags(&tag("aZ9+-=.,_:@")).is_ok());
        for bad in ["a/b", "..", ".", "_index", "a b", "\u{e9}"] {
            let error = options.check_tags(&tag(bad)).unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{bad}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused_in_a_line() {
        for bad in [
            "",
            "http-tokens",
            "http-tokens=",
            "http-tokens=Required",
            "http-tokens=required,",
            "http-tokens=required,http-tokens=required",
            "hop-limit=0",
            "hop-limit=65",
            "hop-limit=-1",
            "hop-limit=256",
            "http-endpoint=off",
            "tokens=required",
        ] {
            let error = bad.parse::<MetadataOptionsRequest>().unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidParameterValue), "{bad:?}");
        }
    }
}
