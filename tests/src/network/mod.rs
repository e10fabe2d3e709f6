//! A network that loses, delays and forgets packets: two namespaces joined by a wire that the test holds in its hand.
//!
//! What happens here happens to IP packets, so that the kernel's TCP does what it does out there: it retransmits, backs
//! off, and finds out late. The kernel's own emulation (`tc netem`) is not everywhere; `/dev/net/tun` nearly is.

mod island;
mod nat;
mod tun;
mod wire;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    process::Command,
    sync::Arc,
};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::runtime::{Builder, Handle, Runtime};

pub use island::Island;
pub use wire::{Counts, Weather};

use crate::binaries;

/// The hub's end of the wire.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The devices' end of the wire.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Set for the process that runs a test inside its namespace.
const INSIDE: &str = "LOCKSTEP_INSIDE_NAMESPACE";
/// Set by whoever knows that the machine has no namespaces, and does without these tests.
const WITHOUT: &str = "LOCKSTEP_TESTS_WITHOUT_NAMESPACES";

/// Runs `body` in a network of its own. `test` is the full name of the calling test: it is run once more, as a process
/// inside fresh namespaces, where it calls this again.
///
/// # Panics
/// When the test fails, or the machine has no namespaces and it was not said that this is known.
pub fn alone<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Network) -> F) {
    apart(test, async || body(Network::lay()).await);
}

/// The same, in a network that has nothing but loopback yet.
///
/// # Panics
/// As [`alone`].
pub fn apart(test: &str, body: impl AsyncFnOnce()) {
    if is_apart() {
        let near = Builder::new_multi_thread().enable_all().build().expect("a runtime");
        ip(&["link", "set", "lo", "up"]);
        return near.block_on(body());
    }
    if std::env::var_os(WITHOUT).is_some() {
        eprintln!("{test} was left out: {WITHOUT} is set");
        return;
    }
    let binaries = binaries::hub();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(std::env::current_exe().expect("a test knows its own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env(
            "LOCKSTEP_BIN_DIR",
            binaries.parent().expect("binaries lie in a directory"),
        )
        .output()
        .expect("unshare is part of util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test} failed inside its namespace (where there are none, set {WITHOUT}=1)"
    );
}

/// Whether this process runs in such a network.
pub(crate) fn is_apart() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Two namespaces and the wire between them: a hub in the one, devices in the other.
pub struct Network {
    wire: Arc<wire::Wire>,
    far: Option<Runtime>,
}

impl Network {
    /// Lays the wire between this namespace and a new one.
    ///
    /// # Panics
    /// When the machine does not let it.
    fn lay() -> Self {
        let near = end_of_wire("near", NEAR);
        let (end, far) = std::thread::spawn(far_side)
            .join()
            .expect("a namespace for the devices");
        let wire = Arc::new(wire::Wire::default());
        let running = Arc::clone(&wire);
        std::thread::spawn(move || running.carry(&near, &end));
        Self { wire, far: Some(far) }
    }

    /// Where a hub is to listen.
    pub fn hub_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(NEAR), 0)
    }

    /// What runs here runs at the devices' end.
    ///
    /// # Panics
    /// Never before it is dropped.
    pub fn far(&self) -> &Handle {
        self.far.as_ref().expect("it runs until it is dropped").handle()
    }

    /// Changes the weather from now on.
    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        self.wire.change(change);
    }

    /// The NAT forgets every flow: both ends believe in connections that are no more.
    pub fn forget_flows(&self) {
        self.wire.forget();
    }

    /// What went over the wire so far.
    pub fn counts(&self) -> Counts {
        self.wire.counts()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.wire.cut();
        if let Some(far) = self.far.take() {
            far.shutdown_background();
        }
    }
}

/// The devices' namespace: the thread that enters it makes the runtime, whose threads are then in it too.
fn far_side() -> (OwnedFd, Runtime) {
    unshare_network();
    ip(&["link", "set", "lo", "up"]);
    let end = end_of_wire("far", FAR);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    (end, runtime.expect("a runtime"))
}

/// This thread, and what it starts, is in a new network from now on.
fn unshare_network() {
    #[expect(
        unsafe_code,
        reason = "only the network namespace is left: no descriptor table is unshared"
    )]
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
}

fn end_of_wire(name: &str, address: Ipv4Addr) -> OwnedFd {
    let end = tun::open(name).unwrap_or_else(|error| panic!("/dev/net/tun: {error}"));
    ip(&["addr", "add", &format!("{address}/24"), "dev", name]);
    ip(&["link", "set", name, "up"]);
    end
}

fn ip(arguments: &[&str]) {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    let done = Command::new("ip").args(arguments).env("PATH", path).status();
    assert!(done.is_ok_and(|status| status.success()), "ip {arguments:?}");
}
