//! The parsers that face the network, each by itself. What fuzz targets call, and the tests below, which replay the
//! seeds of those targets and many small damages of each; the hub itself uses none of this.

use std::{net::IpAddr, path::Path, sync::LazyLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use lockstep_protocol::Secret;

use crate::{
    clock,
    config::{Config, ForwardedHeader},
    http::{bearer_of, forwarded::client_address},
    identity::{Identity, IdentitySettings, code_as_typed, parameters_can_be_read},
    store,
    vault::Vault,
};

/// A hub's identity without a hub.
static IDENTITY: LazyLock<Option<std::sync::Arc<Identity>>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    let vault = std::sync::Arc::new(Vault::ephemeral());
    let identity = Identity::start(store::memory(), vault, IdentitySettings::default());
    runtime.block_on(identity).ok()
});

/// A body of `/oauth/*`: the first byte chooses form or JSON.
pub fn token_request(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let media = match choice % 3 {
        0 => "application/x-www-form-urlencoded; charset=utf-8",
        1 => "application/json",
        _ => "application/problem+json",
    };
    parameters_can_be_read(media, body);
}

/// A token in a `hello` or an `Authorization` header.
pub fn access_token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(identity) = IDENTITY.as_ref() else { return };
    let answer = identity.authenticate(&Secret::new(text), clock::unix());
    assert!(answer.is_err(), "a made-up token was believed: {text}");
}

/// Headers: one line each, `name: value`; those that the hub looks into.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let names = [
        header::AUTHORIZATION,
        header::FORWARDED,
        HeaderName::from_static("x-forwarded-for"),
    ];
    for (line, name) in data.split(|byte| *byte == b'\n').zip(names.iter().cycle()).take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let _ = bearer_of(&headers);
    let trusted: Vec<_> = ["10.0.0.0/8", "::1"]
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    for which in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        for peer in [IpAddr::from([10, 0, 0, 1]), IpAddr::from([203, 0, 113, 9])] {
            let address = client_address(peer, &headers, which, &trusted);
            assert!(trusted.iter().any(|network| network.contains(peer)) || address == peer);
        }
    }
}

/// A code as a user types it into the page.
pub fn typed_code(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(code) = code_as_typed(text) {
        assert_eq!(code_as_typed(&code).as_ref(), Some(&code), "one spelling");
    }
}

/// A file of settings.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = Config::parse("fuzz.toml", text, Path::new("."), std::iter::empty()) {
        // Whatever was taken can be printed.
        assert!(!config.print().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds of a target: one file each.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .expect("seeds")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no seeds in {}", dir.display());
        files.iter().map(|file| std::fs::read(file).expect("a seed")).collect()
    }

    /// Small, but the same on every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap_or(0) % below.max(1)
        }
    }

    fn damage(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(bytes.len() + 1);
            match dice.roll(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(dice.roll(256)).unwrap_or(0)),
                2 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
                3 if at < bytes.len() => drop(bytes.remove(at)),
                _ => {
                    let piece = bytes[at.min(bytes.len())..].to_vec();
                    bytes.extend_from_slice(&piece);
                }
            }
            bytes.truncate(64 * 1024);
        }
        bytes
    }

    fn replay(target: &str, times: usize, parse: fn(&[u8])) {
        let mut dice = Dice(20_260_901);
        for seed in seeds(target) {
            parse(&seed);
            for _ in 0..times {
                parse(&damage(&seed, &mut dice));
            }
        }
    }

    #[test]
    fn bodies_of_token_requests() {
        replay("token_request", 1000, token_request);
    }

    #[test]
    fn access_tokens() {
        replay("access_token", 500, access_token);
    }

    #[test]
    fn headers_that_are_looked_into() {
        replay("headers", 1000, headers);
    }

    #[test]
    fn codes_as_people_type_them() {
        replay("typed_code", 1000, typed_code);
    }

    #[test]
    fn files_of_settings() {
        replay("settings", 200, settings);
    }
}
