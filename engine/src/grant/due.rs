//! When the scheduler is to redeem ahead of expiry.

use std::time::Duration;

use crate::{
    entropy::{Entropy, up_to},
    policy::Policy,
    record::TokenSet,
    time::Unix,
};

/// When to redeem next: `lead` ahead of expiry, at most half the token's life, less a jitter of up to a tenth of that so
/// that grants made together do not stay together. A grant without a refresh token is looked at when it expires; one
/// without expiry never.
pub fn due_at(tokens: &TokenSet, refreshed_at: Unix, policy: &Policy, entropy: &mut dyn Entropy) -> Option<Unix> {
    if tokens.access_token.is_none() {
        return tokens.refresh_token.is_some().then_some(refreshed_at);
    }
    let expires_at = tokens.expires_at?;
    if tokens.refresh_token.is_none() {
        return Some(expires_at);
    }
    let lead = policy.lead.min(expires_at.since(refreshed_at) / 2);
    let jitter = up_to(entropy, lead / 10);
    Some(expires_at.minus(lead.saturating_sub(jitter).max(Duration::ZERO)))
}
