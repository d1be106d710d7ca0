//! Why something can't be read.

/// Why something can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is not there.
    Absent,
    /// It is there, but…
    Unreadable(String),
}

impl Error {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self::Unreadable(why.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

/// What a read gives.
pub(super) type Result<T> = std::result::Result<T, Error>;
