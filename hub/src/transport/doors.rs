//! How many may come in, in all, before they said who they are, and from one address.
//!
//! Whoever finds no room is told so and when to come back, as long as not too many are being told: being told costs a
//! place too. Above that the door stays shut.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use crate::config::Limits;

/// How many connections are told at once that there is no room for them.
const MOST_TOLD: usize = 256;

/// Counts who is inside.
#[derive(Clone)]
pub struct Doors(Arc<Inner>);

struct Inner {
    limits: Limits,
    inside: AtomicUsize,
    told: AtomicUsize,
    strangers: AtomicUsize,
    addresses: DashMap<IpAddr, usize>,
}

/// What one who knocks finds.
pub enum Entry {
    /// A place.
    Inside(Place),
    /// No place; time enough to be told why.
    Told(Told, Full),
    /// Nothing.
    Shut(Full),
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Connections in all.
    Hub,
    /// Connections from this address.
    Address,
}

/// One connection's place. Given back when dropped.
pub struct Place {
    doors: Doors,
    /// None for a proxy: whom it speaks for is counted, not the proxy.
    _guest: Option<Guest>,
}

/// One of those that are counted by address. Given back when dropped.
pub struct Guest {
    doors: Doors,
    address: IpAddr,
}

/// A place among those who are told that there is no room. Given back when dropped.
pub struct Told(Doors);

/// A place among those who have not said who they are. Given back when dropped.
pub struct Stranger(Doors);

impl Doors {
    /// Doors with these limits; zero means no limit.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            inside: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            addresses: DashMap::new(),
        }))
    }

    /// A place for a connection from `address`; none for the address is given when a proxy speaks for many.
    pub fn enter(&self, address: Option<IpAddr>) -> Entry {
        if !take(&self.0.inside, self.0.limits.max_connections) {
            return self.turn_away(Full::Hub);
        }
        match address.map(|address| self.guest(address)) {
            Some(None) => {
                self.0.inside.fetch_sub(1, Ordering::Relaxed);
                self.turn_away(Full::Address)
            }
            guest => Entry::Inside(Place {
                doors: self.clone(),
                _guest: guest.flatten(),
            }),
        }
    }

    fn turn_away(&self, full: Full) -> Entry {
        if take(&self.0.told, MOST_TOLD) {
            Entry::Told(Told(self.clone()), full)
        } else {
            Entry::Shut(full)
        }
    }

    /// One more from `address`; none when there are too many already.
    pub fn guest(&self, address: IpAddr) -> Option<Guest> {
        let most = self.0.limits.max_connections_per_address;
        let mut from_here = self.0.addresses.entry(address).or_insert(0);
        if most > 0 && *from_here >= most {
            return None;
        }
        *from_here += 1;
        Some(Guest {
            doors: self.clone(),
            address,
        })
    }

    /// A place for one who has not said who it is.
    pub fn stranger(&self) -> Option<Stranger> {
        take(&self.0.strangers, self.0.limits.max_unauthenticated).then(|| Stranger(self.clone()))
    }

    /// How many connections are inside.
    pub fn inside(&self) -> usize {
        self.0.inside.load(Ordering::Relaxed)
    }
}

/// Counts one more, if there are fewer than `most`.
fn take(count: &AtomicUsize, most: usize) -> bool {
    if count.fetch_add(1, Ordering::Relaxed) < most || most == 0 {
        return true;
    }
    count.fetch_sub(1, Ordering::Relaxed);
    false
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doors.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.doors.0.addresses.remove_if_mut(&self.address, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.0.told.fetch_sub(1, Ordering::Relaxed);
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

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

    fn found(entry: &Entry) -> Result<(), Full> {
        match entry {
            Entry::Inside(_) => Ok(()),
            Entry::Told(_, full) | Entry::Shut(full) => Err(*full),
        }
    }

    #[test]
    fn a_place_is_given_back() {
        let doors = Doors::new(limits(1, 0));
        let place = doors.enter(Some(HERE));
        assert_eq!(found(&place), Ok(()));
        assert_eq!(found(&doors.enter(Some(HERE))), Err(Full::Hub));
        drop(place);
        assert_eq!(found(&doors.enter(Some(HERE))), Ok(()));
        assert!(doors.0.addresses.is_empty());
        assert_eq!((doors.inside(), doors.0.told.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let doors = Doors::new(limits(10, 2));
        let _places = [doors.enter(Some(HERE)), doors.enter(Some(HERE))];
        assert_eq!(found(&doors.enter(Some(HERE))), Err(Full::Address));
        assert_eq!(found(&doors.enter(Some(THERE))), Ok(()));
        assert_eq!(found(&doors.enter(None)), Ok(()), "a proxy is not counted");
        assert!(doors.guest(HERE).is_none(), "but whom it speaks for is");
        assert_eq!(doors.inside(), 2, "who was turned away takes no place");
    }

    #[test]
    fn only_so_many_are_told() {
        let doors = Doors::new(limits(1, 0));
        let _inside = doors.enter(None);
        let told: Vec<_> = (0..MOST_TOLD).map(|_| doors.enter(None)).collect();
        assert!(told.iter().all(|entry| matches!(entry, Entry::Told(_, Full::Hub))));
        assert!(matches!(doors.enter(None), Entry::Shut(Full::Hub)));
        drop(told);
        assert!(matches!(doors.enter(None), Entry::Told(..)));
    }

    #[test]
    fn zero_is_no_limit() {
        let doors = Doors::new(limits(0, 0));
        let places: Vec<_> = (0..1000).map(|_| doors.enter(Some(HERE))).collect();
        assert!(places.iter().all(|entry| found(entry).is_ok()));
        assert!(doors.stranger().is_some());
    }
}
