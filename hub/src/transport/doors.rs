//! How many may come in, in all, before they said who they are, and from one address.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use crate::config::Limits;

/// Counts who is inside.
#[derive(Clone)]
pub struct Doors(Arc<Inner>);

struct Inner {
    limits: Limits,
    inside: AtomicUsize,
    strangers: AtomicUsize,
    addresses: DashMap<IpAddr, usize>,
}

/// One connection's place. Given back when dropped.
pub struct Place {
    doors: Doors,
    address: IpAddr,
}

/// A place among those who have not said who they are. Given back when dropped.
pub struct Stranger(Doors);

impl Doors {
    /// Doors with these limits.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            inside: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            addresses: DashMap::new(),
        }))
    }

    /// A place for a connection from `address`; none when there is no room.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let most = self.0.limits.max_connections;
        if self.0.inside.fetch_add(1, Ordering::Relaxed) >= most {
            self.0.inside.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let per_address = self.0.limits.max_connections_per_address;
        let mut from_here = self.0.addresses.entry(address).or_insert(0);
        if per_address > 0 && *from_here >= per_address {
            self.0.inside.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *from_here += 1;
        Some(Place {
            doors: self.clone(),
            address,
        })
    }

    /// A place for one who has not said who it is.
    pub fn stranger(&self) -> Option<Stranger> {
        if self.0.strangers.fetch_add(1, Ordering::Relaxed) >= self.0.limits.max_unauthenticated {
            self.0.strangers.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Stranger(self.clone()))
    }

    /// How many connections are inside.
    pub fn inside(&self) -> usize {
        self.0.inside.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doors.0.inside.fetch_sub(1, Ordering::Relaxed);
        self.doors.0.addresses.remove_if_mut(&self.address, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.0.strangers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn limits(all: usize, per_address: usize) -> Limits {
        Limits {
            max_connections: all,
            max_unauthenticated: all,
            max_connections_per_address: per_address,
            requests_per_second_per_device: 0,
            failures_per_minute_per_address: 0,
            device_codes_per_minute_per_address: 0,
        }
    }

    #[test]
    fn a_place_is_given_back() {
        let doors = Doors::new(limits(1, 0));
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let place = doors.enter(here);
        assert!(place.is_some());
        assert!(doors.enter(here).is_none());
        drop(place);
        assert!(doors.enter(here).is_some());
        assert!(doors.0.addresses.is_empty());
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let doors = Doors::new(limits(10, 2));
        let (one, other) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::BROADCAST));
        let _places = [doors.enter(one), doors.enter(one)];
        assert!(doors.enter(one).is_none());
        assert!(doors.enter(other).is_some());
    }
}
