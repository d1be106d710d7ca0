//! Directories, records and locks.
