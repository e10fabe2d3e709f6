//! Network namespaces for programs, each joined to this one by wires of its own that can be made to swallow everything.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use super::{end_of_wire, ip, unshare_network, wire};

/// A namespace and the wires to it. Programs that entered it keep it; the wires end with this.
pub struct Island {
    namespace: File,
    first: u8,
    wires: Vec<Arc<wire::Wire>>,
}

impl Island {
    /// The `nth` of this test, with so many wires.
    ///
    /// # Panics
    /// When the machine does not let it.
    pub fn rise(nth: u8, wires: u8) -> Self {
        let first = nth * wires + 1;
        let (namespace, ends) = std::thread::spawn(move || far_side(first, wires))
            .join()
            .expect("a namespace for a program");
        let mut island = Self {
            namespace,
            first,
            wires: Vec::new(),
        };
        for (number, far) in (0..wires).zip(ends) {
            let near = end_of_wire(&format!("near{}", first + number), island.here(number));
            let wire = Arc::new(wire::Wire::default());
            let running = Arc::clone(&wire);
            std::thread::spawn(move || running.carry(&near, &far));
            island.wires.push(wire);
        }
        island
    }

    /// This side's end of a wire.
    pub fn here(&self, wire: u8) -> Ipv4Addr {
        address(self.first + wire, 1)
    }

    /// The far end of a wire.
    pub fn there(&self, wire: u8) -> Ipv4Addr {
        address(self.first + wire, 2)
    }

    /// Lets nothing through a wire, either way, and tells nobody; or everything again.
    pub fn swallow(&self, wire: u8, everything: bool) {
        self.wires[usize::from(wire)].change(|weather| weather.hole = everything);
    }

    /// Packets that went through the wires, and packets that were swallowed.
    pub fn counts(&self) -> (u64, u64) {
        let counts = self.wires.iter().map(|wire| wire.counts());
        counts.fold((0, 0), |(passed, lost), of| (passed + of.passed, lost + of.lost))
    }

    /// What a command is to begin with to run there.
    pub fn enter(&self) -> Vec<String> {
        let (pid, fd) = (std::process::id(), self.namespace.as_raw_fd());
        vec![
            "nsenter".to_owned(),
            format!("--net=/proc/{pid}/fd/{fd}"),
            "--".to_owned(),
        ]
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        self.wires.iter().for_each(|wire| wire.cut());
    }
}

fn address(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, network, host)
}

/// The far ends of the wires, made by a thread that is alone in the new namespace.
fn far_side(first: u8, wires: u8) -> (File, Vec<OwnedFd>) {
    unshare_network();
    ip(&["link", "set", "lo", "up"]);
    let end = |number| end_of_wire(&format!("far{number}"), address(number, 2));
    let ends = (first..first + wires).map(end).collect();
    (File::open("/proc/thread-self/ns/net").expect("the namespace"), ends)
}
