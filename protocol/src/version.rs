//! Versions of the protocol, newest last, each with its changes.

/// One version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolVersion {
    /// The WebSocket subprotocol (RFC 6455 section 1.9) that selects it.
    pub subprotocol: &'static str,
    /// What is new in it, for people who write a client.
    pub changes: &'static [&'static str],
}

/// All versions that this code speaks, oldest first.
pub const VERSIONS: &[ProtocolVersion] = &[ProtocolVersion {
    subprotocol: "lockstep.v1",
    changes: &["first version: hello, token, status, ack, refresh; device-side redeem; long-poll"],
}];

/// The newest version: what a client asks for.
pub const NEWEST: ProtocolVersion = VERSIONS[VERSIONS.len() - 1];

/// The first of the `offered` subprotocols (the value of `Sec-WebSocket-Protocol`, comma-separated) that is spoken here.
pub fn choose(offered: &str) -> Option<ProtocolVersion> {
    offered
        .split(',')
        .map(str::trim)
        .find_map(|name| VERSIONS.iter().find(|v| v.subprotocol == name))
        .copied()
}
