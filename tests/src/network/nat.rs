//! A NAT's memory of the flows through it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// To the hub.
    In,
    /// To the devices.
    Out,
}

/// What of a packet matters: addresses and ports of its TCP flow, the devices' side first, and whether it opens one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) flow: ([u8; 4], u16, [u8; 4], u16),
    pub(super) opens: bool,
}

impl Segment {
    /// Reads an IPv4 packet; none if it does not hold TCP.
    pub(super) fn read(packet: &[u8], way: Way) -> Option<Self> {
        let first = *packet.first()?;
        if first >> 4 != 4 || *packet.get(9)? != 6 {
            return None;
        }
        let address = |at: usize| packet.get(at..at + 4)?.try_into().ok();
        let tcp = packet.get(usize::from(first & 15) * 4..)?;
        let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        let (from, to) = ((address(12)?, port(0)?), (address(16)?, port(2)?));
        let (device, hub) = match way {
            Way::In => (from, to),
            Way::Out => (to, from),
        };
        let flags = *tcp.get(13)?;
        Some(Self {
            flow: (device.0, device.1, hub.0, hub.1),
            // SYN without ACK.
            opens: way == Way::In && flags & 0x12 == 0x02,
        })
    }
}

/// The flows that are remembered, and when each was last used.
#[derive(Debug, Default)]
pub(super) struct Nat {
    flows: HashMap<([u8; 4], u16, [u8; 4], u16), Instant>,
}

impl Nat {
    /// Whether a segment passes: its flow is known and was used within `idle`, or it opens a new one from the inside.
    pub(super) fn passes(&mut self, segment: Segment, idle: Duration, now: Instant) -> bool {
        let known = self.flows.get(&segment.flow).is_some_and(|used| now - *used < idle);
        if known || segment.opens {
            self.flows.insert(segment.flow, now);
            return true;
        }
        self.flows.remove(&segment.flow);
        false
    }

    /// Forgets every flow.
    pub(super) fn forget(&mut self) {
        self.flows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    /// 10.77.0.2:4660 to 10.77.0.1:80, with these TCP flags.
    fn packet(flags: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[9]) = (0x45, 6);
        packet[12..20].copy_from_slice(&[10, 77, 0, 2, 10, 77, 0, 1]);
        packet[20..24].copy_from_slice(&[0x12, 0x34, 0, 80]);
        packet[33] = flags;
        packet
    }

    #[test]
    fn both_ways_are_one_flow() {
        let there = Segment::read(&packet(0x02), Way::In).expect("TCP");
        assert_eq!(there.flow, ([10, 77, 0, 2], 0x1234, [10, 77, 0, 1], 80));
        assert!(there.opens);
        let mut back = packet(0x12);
        back[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        back[20..24].copy_from_slice(&[0, 80, 0x12, 0x34]);
        let back = Segment::read(&back, Way::Out).expect("TCP");
        assert_eq!((back.flow, back.opens), (there.flow, false));
        assert_eq!(Segment::read(&packet(0)[..21], Way::In), None);
    }

    #[test]
    fn what_was_idle_is_forgotten_for_good() {
        let start = Instant::now();
        let syn = Segment::read(&packet(0x02), Way::In).expect("TCP");
        let ack = Segment::read(&packet(0x10), Way::In).expect("TCP");
        let mut nat = Nat::default();
        assert!(!nat.passes(ack, IDLE, start), "never opened");
        assert!(nat.passes(syn, IDLE, start));
        assert!(nat.passes(ack, IDLE, start + IDLE / 2));
        assert!(nat.passes(ack, IDLE, start + IDLE), "used in between");
        assert!(!nat.passes(ack, IDLE, start + IDLE * 2));
        assert!(!nat.passes(ack, IDLE, start + IDLE * 2), "and stays so");
        assert!(nat.passes(syn, IDLE, start + IDLE * 2));
        nat.forget();
        assert!(!nat.passes(ack, IDLE, start + IDLE * 2));
    }
}
