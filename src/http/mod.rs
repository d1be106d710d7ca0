//! Amazon EC2's own API over a store: a front end of [`crate::service`], as the command line is
//! one.
//!
//! [`server`] has the sockets, [`front`] makes an answer of a request: who signed it
//! ([`signature`]), what it asks for ([`query`], by the service's [`model`]), the action (a row of
//! [`ec2`], [`autoscaling`] or [`sts`]), and the answer's [`xml`]; [`ebs`]'s are [`rest`] instead.
//! [`console`] does the same actions from a browser. It holds nothing that the store does not: it
//! can be killed and started again at any moment.

mod autoscaling;
mod call;
mod console;
mod ebs;
mod ec2;
mod front;
pub mod model;
pub mod query;
mod rest;
pub mod server;
pub mod signature;
mod sts;
pub mod xml;

pub use console::form;

/// The token of a link that is followed once.
pub fn one_time() -> String {
    console::one_time()
}

/// What serves ([`server::serve`]), in a program that has it.
pub type Serve = fn(server::Settings) -> crate::error::Result<()>;
