//! How often one device may ask, and how often one address may fail to say who it is.

use std::{net::IpAddr, time::Duration};

use lockstep_protocol::DeviceId;

use crate::{buckets::Buckets, clock, config::Limits};

/// The limits of one node.
pub struct Rates {
    requests: Buckets<DeviceId>,
    failures: Buckets<IpAddr>,
}

impl Rates {
    /// Limits as configured; zero turns one off.
    pub fn new(limits: &Limits) -> Self {
        Self {
            requests: Buckets::new(limits.requests_per_second_per_device, Duration::from_secs(1)),
            failures: Buckets::new(limits.failures_per_minute_per_address, Duration::from_secs(60)),
        }
    }

    /// Counts a request of a device.
    ///
    /// # Errors
    /// When to come again.
    pub fn request(&self, device: DeviceId) -> Result<(), Duration> {
        self.requests.take(device, clock::mono())
    }

    /// Counts a failure of an address. This machine's own is not counted: a proxy that is not trusted to say for whom
    /// it speaks would be locked out with all whom it serves.
    pub fn failed(&self, address: IpAddr) {
        if address.is_loopback() {
            return;
        }
        // What it answers is for the next who knocks.
        let _ = self.failures.take(address, clock::mono());
    }

    /// Whether an address may try.
    ///
    /// # Errors
    /// When to come again.
    pub fn may_try(&self, address: IpAddr) -> Result<(), Duration> {
        self.failures.look(&address, clock::mono())
    }

    /// Forgets who has been quiet.
    pub fn tidy(&self) {
        let now = clock::mono();
        self.requests.tidy(now);
        self.failures.tidy(now);
    }
}
