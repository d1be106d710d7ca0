//! Identifiers: EC2's prefixes and 17 lower-case hexadecimal digits.

use crate::error::{Code, Error, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Hexadecimal digits after the prefix, as in EC2's long ids.
const DIGITS: usize = 17;

/// What every id has: a prefix with its dash, and a text that is safe as a file name.
pub trait Id: Clone + Ord + fmt::Debug + fmt::Display + FromStr<Err = Error> + AsRef<str> {
    /// The prefix with its dash.
    const PREFIX: &'static str;
}

/// `count` random lower-case hexadecimal digits from the kernel's generator.
pub(crate) fn random_hex(count: usize) -> Result<String> {
    let mut bytes = [0u8; 16];
    // getrandom(2) never cuts 256 bytes or fewer short.
    getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map_err(|e| Error::io("read random bytes", e))?;
    let mut digits = hex(&bytes);
    digits.truncate(count);
    Ok(digits)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that a record or a package gives a file: one component of a path, of 1 to 255 bytes,
/// without control characters. It is checked when it is read, so that no other ever gets as far as
/// a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl TryFrom<String> for FileName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        let bad = |c: char| c == '/' || c.is_control();
        if (1..=255).contains(&name.len()) && !matches!(&*name, "." | "..") && !name.contains(bad) {
            return Ok(Self(name));
        }
        let shown: String = name.escape_debug().take(100).collect();
        Err(Error::failure(format!("'{shown}' is not the name of a file")))
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl std::ops::Deref for FileName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What a task does, which its id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// `import-ami-…`
    ImportImage,
    /// `import-snap-…`
    ImportSnapshot,
    /// `export-ami-…`
    ExportImage,
}

impl TaskKind {
    const ALL: [(Self, &'static str); 3] = [
        (Self::ImportImage, "import-ami-"),
        (Self::ImportSnapshot, "import-snap-"),
        (Self::ExportImage, "export-ami-"),
    ];
}

/// A task, of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// A new random id.
    ///
    /// # Errors
    /// The kernel's random generator is not readable.
    pub fn generate(kind: TaskKind) -> Result<Self> {
        let found = TaskKind::ALL.iter().find(|(known, _)| *known == kind);
        Ok(Self(format!("{}{}", found.map_or("", |(_, prefix)| prefix), random_hex(DIGITS)?)))
    }

    /// What the task does.
    pub fn kind(&self) -> Option<TaskKind> {
        let of = |(kind, prefix): &(TaskKind, &str)| {
            let digits = self.0.strip_prefix(prefix)?;
            (digits.len() == DIGITS && digits.bytes().all(is_hex)).then_some(*kind)
        };
        TaskKind::ALL.iter().find_map(of)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Id for TaskId {
    /// Each kind has its own.
    const PREFIX: &'static str = "";
}

impl AsRef<str> for TaskId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TaskId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id = Self(text.to_owned());
        if id.kind().is_some() {
            return Ok(id);
        }
        let shown: String = text.escape_default().take(100).collect();
        let forms = TaskKind::ALL.map(|(_, prefix)| prefix).join(", ");
        let why = format!("'{shown}' is no id of a task: {forms} and {DIGITS} hexadecimal digits");
        Err(Error::refused(Code::InvalidConversionTaskIdMalformed, why))
    }
}

impl TryFrom<String> for TaskId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

fn is_hex(digit: u8) -> bool {
    digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $malformed:expr $(, $built_in:literal)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The prefix with its dash.
            pub const PREFIX: &'static str = concat!($prefix, "-");
            /// What is always there, under names that EC2 gave.
            pub const BUILT_IN: &'static [&'static str] = &[$($built_in),*];

            /// A new random id.
            ///
            /// # Errors
            /// The kernel's random generator is not readable.
            pub fn generate() -> Result<Self> {
                Ok(Self(format!("{}{}", Self::PREFIX, random_hex(DIGITS)?)))
            }

            /// The id whose digits are the first of `digest` (hexadecimal, lower case): the same
            /// content, the same id.
            ///
            /// # Errors
            /// `digest` has too few digits or other characters.
            pub fn from_digest(digest: &str) -> Result<Self> {
                format!("{}{}", Self::PREFIX, digest.get(..DIGITS).unwrap_or("")).parse()
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Id for $name {
            const PREFIX: &'static str = Self::PREFIX;
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let digits = text.strip_prefix(Self::PREFIX).unwrap_or("");
                let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                let built_in = Self::BUILT_IN.contains(&text);
                if built_in || digits.len() == DIGITS && digits.chars().all(hex) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Error::refused($malformed, format!(
                        "'{}' is not an id of the form {}{{17 hexadecimal digits}}",
                        text.escape_default(), Self::PREFIX)))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// An image, `ami-…`.
    ImageId, "ami", Code::InvalidAMIIDMalformed);
id!(
    /// A registered kernel, `aki-…`, or one of PV-GRUB's.
    KernelId, "aki", Code::InvalidAKIIDMalformed, "aki-pv-grub-hd0", "aki-pv-grub-hd00");
id!(
    /// A registered initial ramdisk, `ari-…`.
    RamdiskId, "ari", Code::InvalidARIIDMalformed);
id!(
    /// An immutable copy of one volume, `snap-…`.
    SnapshotId, "snap", Code::InvalidSnapshotIDMalformed);
id!(
    /// A writable disk, `vol-…`.
    VolumeId, "vol", Code::InvalidVolumeIDMalformed);
id!(
    /// A network interface, `eni-…`.
    NetworkInterfaceId, "eni", Code::InvalidNetworkInterfaceIDMalformed);
id!(
    /// A network, `vpc-…`.
    VpcId, "vpc", Code::InvalidVpcIDMalformed);
id!(
    /// A network's one subnet, `subnet-…`.
    SubnetId, "subnet", Code::InvalidSubnetIDMalformed);
id!(
    /// A set of rules of which packets pass, `sg-…`.
    SecurityGroupId, "sg", Code::InvalidGroupIdMalformed);
id!(
    /// A virtual machine, `i-…`.
    InstanceId, "i", Code::InvalidInstanceIDMalformed);
id!(
    /// A key pair, `key-…`.
    KeyPairId, "key", Code::InvalidKeyPairIDMalformed);
id!(
    /// A launch template, `lt-…`.
    LaunchTemplateId, "lt", Code::InvalidLaunchTemplateIdMalformed);
id!(
    /// An Auto Scaling group, `asg-…`.
    AutoScalingGroupId, "asg", Code::ValidationError);
id!(
    /// A launch configuration, `lc-…`.
    LaunchConfigurationId, "lc", Code::ValidationError);
id!(
    /// All that one `run` launched, `r-…`.
    ReservationId, "r", Code::InvalidReservationIDMalformed);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_parse_and_differ() {
        let (a, b) = (InstanceId::generate().unwrap(), InstanceId::generate().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<InstanceId>().unwrap(), a);
    }

    #[test]
    fn a_file_name_is_never_a_path() {
        let name = |name: &str| serde_json::from_value::<FileName>(name.into());
        for good in ["web.part.0", "a b", ".hidden", "ü"] {
            assert_eq!(&*name(good).unwrap(), good);
        }
        for bad in ["", ".", "..", "/", "../x", "a/b", "a\0", "a\n", &"x".repeat(256)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_tasks_id_says_what_it_does() {
        for kind in [TaskKind::ImportImage, TaskKind::ImportSnapshot, TaskKind::ExportImage] {
            let id = TaskId::generate(kind).unwrap();
            assert_eq!(id.as_str().parse::<TaskId>().unwrap().kind(), Some(kind));
        }
        for bad in ["", "import-ami-", "import-ami-../../../../etc/p", "ami-0123456789abcdef0"] {
            let error = bad.parse::<TaskId>().unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidConversionTaskIdMalformed), "{bad}");
        }
    }

    #[test]
    fn an_id_is_never_a_path() {
        for bad in
            ["", "i-", "i-../../../../etc/pas", "ami-0123456789abcdef0", "i-0123456789ABCDEF0"]
        {
            let error = bad.parse::<InstanceId>().unwrap_err();
            assert_eq!(error.code(), Some(Code::InvalidInstanceIDMalformed), "{bad}");
        }
    }
}
