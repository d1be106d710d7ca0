//! Amazon EC2 Auto Scaling: groups that keep as many instances as they should have.
//!
//! A group's state is its record in the store, and every action here changes that. What a group
//! then needs is done by [`reconcile`], in one process a store: `spore serve`. It derives each step
//! from the record, and an intent is in the record before anything is launched or terminated, so it
//! may be killed at any moment.

mod activity;
pub mod configurations;
mod find;
pub mod groups;
mod launch;
mod load;
pub mod members;
mod plan;
pub mod policies;
pub mod reconcile;
pub mod refresh;
pub mod schedule;
pub mod shape;
