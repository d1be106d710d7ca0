//! The worker: it is in the network namespace, makes taps there and serves those who have them.

use super::begin::{Beginning, WITHOUT, explain, say};
use super::channel::{self, Ask, MAX_ASK};
use super::log::Log;
use super::netlink::{self, Netlink};
use super::rules::Rules;
use super::shared::Shared;
use super::{askers, confine, control};
use crate::control::network::Response;
use crate::error::{OrFail, Result};
use crate::sys::{fds, namespace};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

/// How long a network without a tap waits for one.
const EMPTY: Duration = Duration::from_secs(2);
/// Rules are made when no interface has come or gone for so long, as those of a launch do many at a
/// time; and after so long at the latest. What no rule knows yet has its services, and passes
/// nowhere.
const QUIET: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(20);
/// The same where guests talk already by the rules of a process that was killed: they are made anew
/// when all have been given back.
const QUIET_AGAIN: Duration = Duration::from_millis(10);
const LATEST_AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at all interfaces, of which each is told by many messages.
const BREATH: Duration = Duration::from_millis(20);
/// How often the way out is looked for while it is not there.
const LOOK: Duration = Duration::from_millis(500);

/// What new interfaces are like: a port answers for all addresses of its network, takes packets
/// from its own only, and passes them on. (Documentation/networking/ip-sysctl.rst)
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/default/proxy_arp", "1"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
];
/// The same of IPv6, which a host may be without.
const SETTINGS6: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    // A router's address stays, whatever its tap's is: guests keep it.
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
];

/// The worker from its fork to its end; its exit code.
pub fn run(beginning: Beginning, supervisor: OwnedFd) -> i32 {
    let Some(log) = Log::open() else { return 125 };
    let ready = beginning.ready.try_clone();
    match begin(beginning, supervisor, log) {
        Ok(()) => 0,
        Err(error) => {
            if let Ok(ready) = ready {
                say(&ready, &Response::Error { message: error.message().to_owned() });
            }
            if let Some(log) = Log::open() {
                log.line(&error);
            }
            125
        }
    }
}

fn begin(beginning: Beginning, supervisor: OwnedFd, log: Log) -> Result<()> {
    let Beginning { plan, control, lock, ready, network } = beginning;
    let sockets = askers::Sockets::open().or_fail(|| "open sockets on the host's network")?;
    match network {
        Some(network) => namespace::enter_network(network.as_fd())
            .or_fail(|| "go on in a network's namespace")?,
        None => {
            namespace::new_network().map_err(|cause| explain("net", cause))?;
            settle()?;
        }
    }
    let own = namespace::network().or_fail(|| "find a network's namespace")?;
    let ask = serde_json::to_vec(&Ask::Namespace { out: !plan.isolated });
    let ask = ask.or_fail(|| "start a network")?;
    let doing = || "reach the supervisor";
    channel::send_framed(&supervisor, &ask, &[own.as_fd()]).or_fail(doing)?;
    channel::receive_framed(&supervisor, MAX_ASK).or_fail(doing)?;
    drop(own);
    let netlink = Netlink::open().or_fail(|| "reach the kernel's interfaces")?;
    let changes = netlink::changes().or_fail(|| "reach the kernel's interfaces")?;
    let rules = RefCell::new(Rules::open()?);
    let loopback = netlink.index("lo").and_then(|index| netlink.set_up(index, None));
    loopback.or_fail(|| "set the loopback interface up")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail(|| "start a network's worker")?;
    let groups = RefCell::new(plan.groups.clone());
    let six = std::path::Path::new("/proc/sys/net/ipv6").exists();
    confine::confine()?;
    let work = async {
        let supervisor = StdStream::from(supervisor);
        supervisor.set_nonblocking(true).or_fail(doing)?;
        let supervisor = UnixStream::from_std(supervisor).or_fail(doing)?;
        let shared = Rc::new(Shared {
            plan,
            netlink,
            log,
            served: RefCell::default(),
            names: RefCell::default(),
            rules,
            groups,
            askers: sockets.askers().or_fail(doing)?,
            six,
            busy: Cell::new(0),
            supervisor: Mutex::new(supervisor),
            stale: Notify::new(),
            changed: Notify::new(),
            way_out: Cell::new(false),
            wrong_since: Cell::new(None),
        });
        serve(shared, control, ready, changes).await
    };
    let ended = LocalSet::new().block_on(&runtime, work);
    drop(lock);
    ended
}

/// The namespace's settings, before anything is in it.
fn settle() -> Result<()> {
    let set = |(name, value): &(&str, &str)| std::fs::write(format!("/proc/sys/net/{name}"), value);
    for setting in SETTINGS {
        let doing = || format!("set net/{} of a network's namespace", setting.0);
        set(setting).or_fail(doing).map_err(|error| {
            let why = "/proc/sys has to be writable for that: start the container with --security-opt systempaths=unconfined";
            error.remedy(why).remedy(WITHOUT)
        })?;
    }
    SETTINGS6.iter().for_each(|setting| drop(set(setting)));
    Ok(())
}

/// Serves until there is no tap any more.
async fn serve(shared: Rc<Shared>, control: OwnedFd, ready: File, changes: OwnedFd) -> Result<()> {
    // Before anybody is told: what no rule knows passes nowhere.
    // Where guests talk already, the rules are there.
    if !shared.plan.lives {
        shared.apply_rules()?;
    }
    say(&ready, &Response::Ok {});
    drop(ready);
    spawn_local(control::accept(shared.clone(), control));
    spawn_local(keep_rules(shared.clone()));
    let changes = fds::awaited(changes).or_fail(|| "hear of the kernel's interfaces")?;
    loop {
        if shared.look() {
            sleep(EMPTY).await;
            if shared.look() {
                return Ok(());
            }
        }
        if shared.uplink_is_wrong() {
            shared.ask(&Ask::OtherWayOut).await?;
        }
        let patience = if shared.way_out.get() || shared.plan.isolated { EMPTY * 15 } else { LOOK };
        tokio::select! {
            readable = changes.readable() => {
                let mut readable = readable.or_fail(|| "hear of the kernel's interfaces")?;
                let _ = readable.try_io(|changes| netlink::drain(changes.get_ref()));
            }
            () = shared.changed.notified() => {}
            () = sleep(patience) => {}
        }
        sleep(BREATH).await;
    }
}

/// Makes the rules anew whenever they are stale, many changes at once.
async fn keep_rules(shared: Rc<Shared>) {
    let mut patience =
        if shared.plan.lives { (QUIET_AGAIN, LATEST_AGAIN) } else { (QUIET, LATEST) };
    loop {
        shared.stale.notified().await;
        let (rest, latest) = std::mem::replace(&mut patience, (QUIET, LATEST));
        let quiet = async { while timeout(rest, shared.stale.notified()).await.is_ok() {} };
        let _ = timeout(latest, quiet).await;
        if let Err(error) = shared.apply_rules() {
            shared.log.line(&error);
            sleep(LOOK).await;
            shared.stale.notify_one();
        }
    }
}
