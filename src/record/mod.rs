//! The records of all kinds of objects, in the shapes of EC2's API.

pub mod image;
pub mod instance;
pub mod volume;
