//! Whose request it is, when proxies stand between.
//!
//! Whoever sends a request may write anything into its headers. Only what a trusted proxy added counts, and each of them
//! adds at the end: so the list is read from the end, for as long as it was written by somebody trusted.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::{ForwardedHeader, Network};

/// The most proxies that are followed.
const MOST_HOPS: usize = 16;

/// The address that a request came from: `peer`, unless that is a trusted proxy; then the last address in `header` that
/// is not one. Where the list ends or cannot be read, the last trusted address stands for what is behind it.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, header: ForwardedHeader, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = peer.to_canonical();
    if !is_trusted(nearest) {
        return nearest;
    }
    for hop in hops(headers, header).take(MOST_HOPS) {
        match hop {
            Some(address) => nearest = address.to_canonical(),
            None => break,
        }
        if !is_trusted(nearest) {
            break;
        }
    }
    nearest
}

/// The addresses in the header, nearest first; none where there is something else.
fn hops(headers: &HeaderMap, header: ForwardedHeader) -> impl Iterator<Item = Option<IpAddr>> {
    let (name, address): (_, fn(&str) -> Option<IpAddr>) = match header {
        ForwardedHeader::XForwardedFor => ("x-forwarded-for", node_address),
        ForwardedHeader::Forwarded => ("forwarded", element_address),
    };
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(move |line| {
        let elements: Vec<_> = match line.to_str() {
            Ok(line) => line.split(',').rev().map(|element| address(element.trim())).collect(),
            Err(_) => vec![None],
        };
        elements
    })
}

/// `for=` of one element of `Forwarded` (RFC 7239 section 4).
fn element_address(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for")
            .then(|| node_address(value.trim().trim_matches('"')))?
    })
}

/// An address, with or without a port, with or without brackets (RFC 7239 section 6). Obfuscated names are none.
fn node_address(text: &str) -> Option<IpAddr> {
    let whole = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(whole).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            )
        };
        lines.iter().map(pair).collect()
    }

    fn trusted() -> Vec<Network> {
        ["10.0.0.0/8", "::1"]
            .iter()
            .map(|n| n.parse().expect("a network"))
            .collect()
    }

    fn from(peer: &str, header: ForwardedHeader, lines: &[(&'static str, &str)]) -> String {
        client_address(peer.parse().expect("an address"), &headers(lines), header, &trusted()).to_string()
    }

    fn xff(peer: &str, list: &str) -> String {
        from(peer, ForwardedHeader::XForwardedFor, &[("x-forwarded-for", list)])
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_cannot_say_who_it_is() {
        assert_eq!(xff("203.0.113.9", "198.51.100.1"), "203.0.113.9");
    }

    #[test]
    fn a_trusted_proxy_says_whom_it_saw() {
        assert_eq!(xff("10.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(xff("::ffff:10.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(xff("::1", "2001:db8::7"), "2001:db8::7");
    }

    #[test]
    fn what_the_client_wrote_before_is_not_believed() {
        assert_eq!(xff("10.0.0.1", "127.0.0.1, 10.9.9.9, 198.51.100.1"), "198.51.100.1");
    }

    #[test]
    fn proxies_behind_proxies_are_followed_as_long_as_they_are_trusted() {
        assert_eq!(
            xff("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.3, 10.0.0.2"),
            "198.51.100.1"
        );
        let lines = [
            ("x-forwarded-for", "6.6.6.6, 198.51.100.1"),
            ("x-forwarded-for", "10.0.0.2"),
        ];
        assert_eq!(from("10.0.0.1", ForwardedHeader::XForwardedFor, &lines), "198.51.100.1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_list() {
        for list in ["", "unknown", "198.51.100.1, _hidden", "198.51.100.1, ", "1.2.3.4.5"] {
            assert_eq!(xff("10.0.0.1", list), "10.0.0.1", "{list}");
        }
        assert_eq!(xff("10.0.0.1", "198.51.100.1, junk, 10.0.0.2"), "10.0.0.2");
        assert_eq!(from("10.0.0.1", ForwardedHeader::XForwardedFor, &[]), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_not_part_of_an_address() {
        assert_eq!(xff("10.0.0.1", "198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(xff("10.0.0.1", "[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(xff("10.0.0.1", "[2001:db8::7]"), "2001:db8::7");
    }

    /// A proxy sets one of the headers and passes on the other as the client wrote it.
    #[test]
    fn only_the_header_that_the_proxy_sets_is_believed() {
        let lines = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(from("10.0.0.1", ForwardedHeader::XForwardedFor, &lines), "198.51.100.1");
        assert_eq!(from("10.0.0.1", ForwardedHeader::Forwarded, &lines), "6.6.6.6");
    }

    #[test]
    fn the_standard_header_is_read_as_rfc_7239_writes_it() {
        let forwarded = |value| from("10.0.0.1", ForwardedHeader::Forwarded, &[("forwarded", value)]);
        assert_eq!(forwarded("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(forwarded("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        assert_eq!(forwarded("for=192.0.2.43, FOR=\"198.51.100.17\""), "198.51.100.17");
        assert_eq!(forwarded("for=_mystery"), "10.0.0.1");
        assert_eq!(forwarded("proto=https"), "10.0.0.1");
    }

    #[test]
    fn a_list_without_end_is_not_read_to_its_end() {
        let long = vec!["10.0.0.2"; 5000].join(",");
        assert_eq!(xff("10.0.0.1", &format!("6.6.6.6,{long}")), "10.0.0.2");
    }

    proptest! {
        /// Whatever is written, the answer is the peer or an address that the nearest proxies vouch for.
        #[test]
        fn nothing_written_before_the_first_stranger_matters(noise in "[0-9a-z:., \\[\\]\"=;]{0,60}") {
            prop_assert_eq!(xff("10.0.0.1", &format!("{noise}, 198.51.100.1, 10.0.0.2")), "198.51.100.1");
        }
    }
}
