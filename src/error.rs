//! The one error type of the crate: what went wrong, why, and what to do about it, in one line.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;

/// Whose doing an error is; it decides the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The command line itself is wrong: exit code 2.
    Usage,
    /// The request is well-formed but can't be done (unknown id, name taken, wrong state …): exit
    /// code 1.
    Refused,
    /// Something did not become true in time; the object is left alive: exit code 124.
    Timeout,
    /// Spore or its host failed (I/O error, no space, KVM error): exit code 125.
    Failure,
}

/// Makes [`Code`]: each code's variant, its text, and the HTTP status that EC2 answers it with.
macro_rules! codes {
    ($($variant:ident = $text:literal, $status:literal;)*) => {
        /// EC2's error codes, as far as Spore answers with them (EC2 API Reference, "Error codes").
        /// A variant is called as its code is, without the dots.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $text, "`, HTTP status ", $status, ".")] $variant,)*
        }

        impl Code {
            /// All that there are.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As EC2 spells it, e.g. `InvalidAMIID.NotFound`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The status of an HTTP answer with it: 4xx for the caller's doing, 5xx for what may
            /// work later.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }
        }
    };
}

codes! {
    ActiveInstanceRefreshNotFound = "ActiveInstanceRefreshNotFound", 400;
    AlreadyExists = "AlreadyExists", 400;
    AttachmentLimitExceeded = "AttachmentLimitExceeded", 400;
    AuthFailure = "AuthFailure", 401;
    DependencyViolation = "DependencyViolation", 400;
    DryRunOperation = "DryRunOperation", 412;
    IdempotentParameterMismatch = "IdempotentParameterMismatch", 400;
    IncorrectInstanceState = "IncorrectInstanceState", 400;
    IncorrectState = "IncorrectState", 400;
    InstanceRefreshInProgress = "InstanceRefreshInProgress", 400;
    InstanceLimitExceeded = "InstanceLimitExceeded", 400;
    InsufficientFreeAddressesInSubnet = "InsufficientFreeAddressesInSubnet", 400;
    InsufficientInstanceCapacity = "InsufficientInstanceCapacity", 500;
    InsufficientVolumeCapacity = "InsufficientVolumeCapacity", 500;
    InternalError = "InternalError", 500;
    InvalidAKIIDInUse = "InvalidAKIID.InUse", 400;
    InvalidAKIIDMalformed = "InvalidAKIID.Malformed", 400;
    InvalidAKIIDNotFound = "InvalidAKIID.NotFound", 400;
    InvalidAction = "InvalidAction", 400;
    InvalidAMIIDMalformed = "InvalidAMIID.Malformed", 400;
    InvalidAMIIDNotFound = "InvalidAMIID.NotFound", 400;
    InvalidAMIIDUnavailable = "InvalidAMIID.Unavailable", 400;
    InvalidAMINameDuplicate = "InvalidAMIName.Duplicate", 400;
    InvalidAMINameMalformed = "InvalidAMIName.Malformed", 400;
    InvalidARIIDInUse = "InvalidARIID.InUse", 400;
    InvalidARIIDMalformed = "InvalidARIID.Malformed", 400;
    InvalidARIIDNotFound = "InvalidARIID.NotFound", 400;
    InvalidBlockDeviceMapping = "InvalidBlockDeviceMapping", 400;
    InvalidBootMenu = "InvalidBootMenu", 400;
    InvalidConversionTaskId = "InvalidConversionTaskId", 400;
    InvalidConversionTaskIdMalformed = "InvalidConversionTaskId.Malformed", 400;
    InvalidGroupDuplicate = "InvalidGroup.Duplicate", 400;
    InvalidGroupInUse = "InvalidGroup.InUse", 400;
    InvalidGroupNotFound = "InvalidGroup.NotFound", 400;
    InvalidGroupIdMalformed = "InvalidGroupId.Malformed", 400;
    InvalidID = "InvalidID", 400;
    InvalidInstanceAttributeValue = "InvalidInstanceAttributeValue", 400;
    InvalidInstanceIDMalformed = "InvalidInstanceID.Malformed", 400;
    InvalidInstanceIDNotFound = "InvalidInstanceID.NotFound", 400;
    InvalidInstanceType = "InvalidInstanceType", 400;
    InvalidKeyFormat = "InvalidKey.Format", 400;
    InvalidKeyPairDuplicate = "InvalidKeyPair.Duplicate", 400;
    InvalidKeyPairIDMalformed = "InvalidKeyPairID.Malformed", 400;
    InvalidKeyPairNotFound = "InvalidKeyPair.NotFound", 400;
    InvalidManifest = "InvalidManifest", 400;
    InvalidLaunchTemplateIdMalformed = "InvalidLaunchTemplateId.Malformed", 400;
    InvalidLaunchTemplateIdNotFound = "InvalidLaunchTemplateId.NotFound", 400;
    InvalidLaunchTemplateIdVersionNotFound = "InvalidLaunchTemplateId.VersionNotFound", 400;
    InvalidLaunchTemplateNameAlreadyExistsException = "InvalidLaunchTemplateName.AlreadyExistsException", 400;
    InvalidLaunchTemplateNameMalformedException = "InvalidLaunchTemplateName.MalformedException", 400;
    InvalidLaunchTemplateNameNotFoundException = "InvalidLaunchTemplateName.NotFoundException", 400;
    InvalidNetworkInterfaceIDMalformed = "InvalidNetworkInterfaceID.Malformed", 400;
    InvalidNetworkInterfaceIDNotFound = "InvalidNetworkInterfaceID.NotFound", 400;
    InvalidNetworkInterfaceInUse = "InvalidNetworkInterface.InUse", 400;
    InvalidNextToken = "InvalidNextToken", 400;
    InvalidParameterCombination = "InvalidParameterCombination", 400;
    InvalidParameterValue = "InvalidParameterValue", 400;
    InvalidPermissionDuplicate = "InvalidPermission.Duplicate", 400;
    InvalidPermissionNotFound = "InvalidPermission.NotFound", 400;
    InvalidProductCodeNotFound = "InvalidProductCode.NotFound", 400;
    InvalidRegion = "InvalidRegion", 400;
    InvalidReservationIDMalformed = "InvalidReservationID.Malformed", 400;
    InvalidSnapshotInUse = "InvalidSnapshot.InUse", 400;
    InvalidSnapshotNotFound = "InvalidSnapshot.NotFound", 400;
    InvalidSnapshotIDMalformed = "InvalidSnapshotID.Malformed", 400;
    InvalidSubnetIDMalformed = "InvalidSubnetID.Malformed", 400;
    InvalidSubnetIDNotFound = "InvalidSubnetID.NotFound", 400;
    InvalidUserDataMalformed = "InvalidUserData.Malformed", 400;
    InvalidUserIDMalformed = "InvalidUserID.Malformed", 400;
    InvalidUserIDUnknown = "InvalidUserID.Unknown", 400;
    InvalidVolumeNotFound = "InvalidVolume.NotFound", 400;
    InvalidVolumeIDMalformed = "InvalidVolumeID.Malformed", 400;
    InvalidVpcIDMalformed = "InvalidVpcID.Malformed", 400;
    InvalidVpcIDNotFound = "InvalidVpcID.NotFound", 400;
    InvalidVpcRange = "InvalidVpc.Range", 400;
    LimitExceeded = "LimitExceeded", 400;
    IrreversibleInstanceRefresh = "IrreversibleInstanceRefresh", 400;
    MalformedQueryString = "MalformedQueryString", 400;
    MissingAction = "MissingAction", 400;
    MissingParameter = "MissingParameter", 400;
    NoSuchVersion = "NoSuchVersion", 400;
    OperationNotPermitted = "OperationNotPermitted", 400;
    OptInRequired = "OptInRequired", 401;
    RequestExpired = "RequestExpired", 400;
    ResourceInUse = "ResourceInUse", 400;
    ScalingActivityInProgress = "ScalingActivityInProgress", 400;
    SignatureDoesNotMatch = "SignatureDoesNotMatch", 403;
    ResourceLimitExceeded = "ResourceLimitExceeded", 400;
    TagLimitExceeded = "TagLimitExceeded", 400;
    Unavailable = "Unavailable", 503;
    UnknownParameter = "UnknownParameter", 400;
    UnsupportedHibernationConfiguration = "UnsupportedHibernationConfiguration", 400;
    UnsupportedOperation = "UnsupportedOperation", 400;
    ValidationError = "ValidationError", 400;
    VolumeInUse = "VolumeInUse", 400;
    VpcLimitExceeded = "VpcLimitExceeded", 400;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    /// It is none of the codes.
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(())
    }
}

/// What an error came of: an error of the standard library or of a crate.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error as a user reads it. `Display` is one line without a trailing full stop.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    code: Option<Code>,
    /// What went wrong and why, then what to do about it.
    message: String,
    /// Where in `message` the remedy begins, if it was told apart.
    remedy: Option<usize>,
    source: Option<Cause>,
}

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(kind: Kind, code: Option<Code>, message: String) -> Self {
        let message = one_line(&message);
        Self { kind, code, message, remedy: None, source: None }
    }

    /// A mistake in the command line (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, None, message.into())
    }

    /// A request that can't be granted, with EC2's error code (exit code 1).
    pub fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, Some(code), message.into())
    }

    /// A wait that ran out of time (exit code 124).
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Kind::Timeout, None, message.into())
    }

    /// A failure of Spore or of its host (exit code 125).
    pub fn failure(message: impl Into<String>) -> Self {
        Self::new(Kind::Failure, None, message.into())
    }

    /// An error that another process had, by the text of its code. A code that Spore does not know
    /// counts as none.
    pub fn reported(kind: Kind, code: Option<&str>, message: String) -> Self {
        Self::new(kind, code.and_then(|code| code.parse().ok()), message)
    }

    /// An I/O error with what was being done to what: `cannot open /x: Permission denied (os error
    /// 13)`.
    pub fn io(doing: impl fmt::Display, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        let mut error = Self::failure(format!("cannot {doing}: {cause}"));
        if has_no_space(&*cause) {
            error = error.remedy("free some, or set SPORE_HOME to a larger file system");
            error.code = Some(Code::InsufficientVolumeCapacity);
        } else if let Some(remedy) = errno_of(&*cause).and_then(raising) {
            error = error.remedy(remedy);
        }
        error.because(cause)
    }

    /// As [`Error::io`], of a file that the user named: what is wrong with the name is a refusal.
    pub fn input(doing: impl fmt::Display, cause: io::Error) -> Self {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the file's name",
            io::ErrorKind::PermissionDenied => "you need permission to read it",
            io::ErrorKind::IsADirectory => "give a file",
            io::ErrorKind::InvalidData => "give a text file",
            _ => return Self::io(doing, cause),
        };
        let message = format!("cannot {doing}: {cause}");
        Self::refused(Code::InvalidParameterValue, message).remedy(remedy).because(cause)
    }

    /// Keep what the error came of; its text is in the message already.
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Prefix the message with more context: `context: message`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        let context = one_line(&format!("{context}: "));
        self.remedy = self.remedy.map(|at| at + context.len());
        self.message.insert_str(0, &context);
        self
    }

    /// Append what to do about it: `message; remedy`.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.message.push_str("; ");
        self.remedy.get_or_insert(self.message.len());
        self.message.push_str(&one_line(&remedy.to_string()));
        self
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// EC2's error code, if there is one.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// The code to answer an EC2 request with, which wants one of every error.
    pub fn ec2_code(&self) -> Code {
        self.code.unwrap_or(match self.kind {
            Kind::Usage | Kind::Refused => Code::InvalidParameterValue,
            Kind::Timeout => Code::Unavailable,
            Kind::Failure => Code::InternalError,
        })
    }

    /// Whether the host had no space for it (ENOSPC, EDQUOT).
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Failure && self.code == Some(Code::InsufficientVolumeCapacity)
    }

    /// Whether it came of a file or a file system that can't be written.
    pub fn is_denied(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if let Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) = kind
            {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The message without the code, with the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where that was said apart ([`Error::remedy`]).
    pub fn advice(&self) -> Option<&str> {
        self.remedy.and_then(|at| self.message.get(at..))
    }

    /// The process exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Refused => 1,
            Kind::Timeout => 124,
            Kind::Failure => 125,
        }
    }
}

/// What may be shown of a character that somebody else wrote: nothing that steers a terminal, ends
/// a line or turns it round (Unicode, UAX #9, "Explicit Directional Formatting Characters").
pub fn shown(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        c if c.is_control() => '?',
        c => c,
    }
}

/// A text as a part of a line: an error often quotes what somebody else wrote.
pub fn one_line(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// How a limit of the process's, or the host's, that was met is raised.
fn raising(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::MFILE => Some("raise 'ulimit -n'"),
        Errno::NFILE => Some("raise fs.file-max, or end what has many files open"),
        Errno::FBIG => Some("raise 'ulimit -f'"),
        _ => None,
    }
}

/// The error of the system that it says, or comes of.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        let inner = || error.get_ref().and_then(|inner| errno_of(inner));
        return error.raw_os_error().map(Errno::from_raw_os_error).or_else(inner);
    }
    error.downcast_ref().copied().or_else(|| error.source().and_then(errno_of))
}

/// Whether it says, or comes of one that says, that the file system or the user's quota is full.
fn has_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        // An error within an io::Error is not its source.
        return full || error.get_ref().is_some_and(|inner| has_no_space(inner));
    }
    match (error.downcast_ref::<Errno>(), error.downcast_ref::<Error>()) {
        (Some(errno), _) => matches!(*errno, Errno::NOSPC | Errno::DQUOT),
        (_, Some(error)) => error.is_full(),
        _ => error.source().is_some_and(has_no_space),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Attach "cannot DOING" to any error: `file.sync_all().or_fail(|| format!("sync {path}"))?`.
pub trait OrFail<T> {
    /// Turn the error into an [`Error::io`] that says what was being done.
    fn or_fail<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Cause>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::io(doing(), cause))
    }
}

/// Likewise for a file that the user named.
pub trait OrRefuse<T> {
    /// Turn the error into an [`Error::input`] that says what was being done.
    fn or_refuse<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> OrRefuse<T> for io::Result<T> {
    fn or_refuse<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::input(doing(), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_full_disk_is_told_by_the_errors_kind_and_not_by_its_text() {
        let full = || io::Error::from_raw_os_error(28);
        let named = io::Error::new(full().kind(), "layer 3 has no room");
        let own = Error::io("write a layer", full());
        for cause in [
            Cause::from(full()),
            named.into(),
            io::Error::from_raw_os_error(122).into(),
            io::Error::other(Error::io("write a layer", full())).into(),
            rustix::io::Errno::NOSPC.into(),
            own.into(),
        ] {
            let error = Error::io("copy", cause);
            assert!(error.is_full(), "{error}");
            assert_eq!(error.code(), Some(Code::InsufficientVolumeCapacity));
            assert_eq!(error.exit_code(), 125);
            assert!(
                error.advice().is_some_and(|advice| advice.starts_with("free some")),
                "{error}"
            );
        }
        let said = Error::io("read", "its name is: No space left on device (os error 28)");
        assert!(!said.is_full() && said.code().is_none(), "{said}");
        assert!(!Error::io("read", io::Error::from_raw_os_error(5)).is_full());
    }

    #[test]
    fn an_error_keeps_what_it_came_of_and_its_remedy() {
        let error = Error::input("open x", io::Error::from_raw_os_error(2)).context("disk 1");
        let line = "InvalidParameterValue: disk 1: cannot open x: No such file or directory (os error 2); \
                    check the file's name";
        assert_eq!(error.to_string(), line);
        assert_eq!(error.advice(), Some("check the file's name"));
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::NotFound));
        let twice = Error::failure("a").remedy("b").remedy("c").context("d");
        assert_eq!((twice.message(), twice.advice()), ("d: a; b; c", Some("b; c")));
        assert!(Error::failure("a; b").advice().is_none());
    }

    #[test]
    fn codes_are_read_as_they_are_written() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(format!("{code:?}"), code.as_str().replace('.', ""));
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
        let reported = |code| Error::reported(Kind::Refused, Some(code), "no".into());
        assert_eq!(reported("VolumeInUse").code(), Some(Code::VolumeInUse));
        assert_eq!(reported("\u{1b}[31m").code(), None);
        assert_eq!(reported("Whatever").ec2_code(), Code::InvalidParameterValue);
        assert_eq!(Error::failure("no").ec2_code().http_status(), 500);
    }

    #[test]
    fn whatever_is_quoted_an_error_is_a_line_that_steers_nothing() {
        let quoted = "a\u{1b}[2J\u{7}\n\r\u{202e}b\u{9b}";
        let errors = [
            Error::failure(quoted),
            Error::refused(Code::Unavailable, quoted),
            Error::io(quoted, io::Error::other(quoted)),
            Error::failure("").context(quoted),
            Error::failure("").remedy(quoted),
        ];
        for error in errors {
            let reported = error.to_string();
            assert!(
                reported.contains("a?[2J?  ?b?") && !reported.contains(|c| shown(c) != c),
                "{reported:?}"
            );
        }
        let reported = Error::failure("x").remedy("y").context("é\u{1b}");
        assert_eq!(reported.advice(), Some("y"));
    }
}
