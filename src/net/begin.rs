//! The first steps of a network's process: what it is given, and its namespaces.

use crate::control::network::Response;
use crate::error::{Error, OrFail, Result};
use crate::plan::network::NetworkPlan;
use crate::sys::process::{Fork, fork};
use crate::sys::tap::{self, Refusal};
use crate::sys::{fds, namespace};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The longest plan, in bytes.
const MAX_PLAN: u64 = 4 << 20;

/// What a network's process begins with.
pub struct Beginning {
    /// The plan.
    pub plan: NetworkPlan,
    /// The listening control socket.
    pub control: OwnedFd,
    /// Its flock is held by whoever has this.
    pub lock: OwnedFd,
    /// Where it says that it is ready.
    pub ready: File,
    /// The network namespace that lives on.
    pub network: Option<OwnedFd>,
}

/// One line for the launcher, which may be gone.
pub fn say(mut ready: &File, response: &Response) {
    let mut line = serde_json::to_vec(response).unwrap_or_default();
    line.push(b'\n');
    let _ = ready.write_all(&line);
}

/// Makes the namespaces of users and processes, and process 1 of the latter. `None` in the process
/// that was started, which ends: its launcher waits for that.
///
/// # Errors
/// The host allows no such namespaces.
pub fn begin(ready: File) -> Result<Option<Beginning>> {
    let mut text = Vec::new();
    let plan = fds::take_file(NetworkPlan::FD)?.take(MAX_PLAN).read_to_end(&mut text);
    plan.or_fail(|| "read a network's plan")?;
    let plan: NetworkPlan = serde_json::from_slice(&text).or_fail(|| "read a network's plan")?;
    let control = fds::take(NetworkPlan::CONTROL)?;
    let lock = fds::take(NetworkPlan::LOCK)?;
    let network = match plan.lives {
        false => {
            namespace::new_users().map_err(|cause| explain("user", cause))?;
            None
        }
        true => {
            let tap = fds::take(NetworkPlan::TAP)?;
            let (network, users) =
                namespace::of_tap(tap.as_fd()).or_fail(|| "find a tap's network namespace")?;
            namespace::enter_users(users.as_fd())
                .or_fail(|| "go on in a network's user namespace")?;
            Some(network)
        }
    };
    namespace::new_processes().map_err(|cause| explain("pid", cause))?;
    match fork()? {
        Fork::Parent(child) => {
            child.let_go();
            Ok(None)
        }
        Fork::Child => Ok(Some(Beginning { plan, control, lock, ready, network })),
    }
}

/// What is there without a network.
pub const WITHOUT: &str =
    "or run with --network none, where 'spore exec' goes by the guest's vsock";

/// Why there is no namespace of this kind, and what helps; likewise if there are no taps either, as
/// in a container: both are told at once.
pub fn explain(kind: &str, cause: io::Error) -> Error {
    let why = namespace::why(&cause);
    let error = Error::failure(format!("cannot make a {kind} namespace for a network: {why}"));
    let mut error = error.remedy(namespace::remedy(kind, &cause));
    if let Err(Refusal::NoDevice(errno)) = tap::check() {
        error = error.remedy(tap::no_device(errno));
    }
    error.remedy(WITHOUT)
}
