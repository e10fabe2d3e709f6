//! What a grant's machine notes: counted and logged, in one place.

use lockstep_engine::grant::Note;
use lockstep_protocol::{GrantName, UserId};
use metrics::{counter, histogram};
use tracing::{debug, info, warn};

use super::{alert, metrics as names};

/// Counts and logs a note of the machine of `user`'s `grant`.
pub fn note(user: &UserId, grant: &GrantName, note: &Note) {
    count(grant.provider(), note);
    log(user, grant, note);
}

fn count(provider: &str, note: &Note) {
    let one = |name: &'static str| counter!(name, "provider" => provider.to_owned()).increment(1);
    match note {
        Note::Claimed { .. } => one(names::CLAIMS),
        Note::Redeemed { outcome, took, .. } => {
            alert::redeemed(provider, outcome);
            counter!(names::REDEEMS, "provider" => provider.to_owned(), "outcome" => *outcome).increment(1);
            histogram!(names::REDEEM_SECONDS, "provider" => provider.to_owned()).record(took.as_secs_f64());
        }
        Note::Committed { .. } => one(names::COMMITS),
        Note::Adopted { .. } => one(names::ADOPTED),
        Note::LeaseWaitTimeout => {
            alert::lease_wait_timeout();
            one(names::LEASE_WAIT_TIMEOUTS);
        }
        Note::UnknownClaim { .. } => one(names::UNKNOWN_CLAIMS),
        Note::LateResult { .. } => one(names::LATE_RESULTS),
        Note::Spooled { .. } => one(names::SPOOLED),
        Note::KeptAlternate => one(names::ALTERNATES),
        Note::Suspect { .. } => one(names::SUSPECT),
        Note::ReauthRequired { .. } => one(names::REAUTH_REQUIRED),
        Note::Misconfigured { .. } => {
            alert::misconfigured(provider);
            one(names::MISCONFIGURED);
        }
        Note::Limited { .. } => one(names::LIMITED),
        Note::Elected { .. } => one(names::ELECTED),
        Note::Declined { .. } => one(names::DECLINED),
    }
}

fn log(user: &UserId, grant: &GrantName, note: &Note) {
    match note {
        Note::Claimed { lease, from_version } => info!(%user, %grant, %lease, %from_version, "redeem starts"),
        Note::Redeemed {
            lease,
            outcome,
            detail,
            took,
        } => {
            let ms = took.as_millis();
            if *outcome == "committed" {
                info!(%user, %grant, %lease, outcome, ms, "redeem ended");
            } else {
                warn!(%user, %grant, %lease, outcome, detail, ms, "redeem ended");
            }
        }
        Note::Committed { version } => info!(%user, %grant, %version, "committed"),
        Note::Adopted { version } => info!(%user, %grant, %version, "adopted a newer version from the store"),
        Note::LeaseWaitTimeout => warn!(%user, %grant, "waited too long for another's lease"),
        Note::UnknownClaim { lease } => warn!(%user, %grant, %lease, "found a claim without outcome"),
        Note::LateResult { lease } => info!(%user, %grant, %lease, "committed a late result"),
        Note::Spooled { lease } => warn!(%user, %grant, %lease, "the store does not take a result: it is in the spool"),
        Note::KeptAlternate => warn!(%user, %grant, "two redeems succeeded: the second result is kept as alternate"),
        Note::Suspect { reason } => warn!(%user, %grant, reason, "suspect"),
        Note::ReauthRequired { reason } => warn!(%user, %grant, reason, "reauth_required"),
        Note::Misconfigured { detail } => {
            tracing::error!(%user, %grant, detail, "the provider refuses the hub itself: check the provider's settings");
        }
        Note::Limited { device } => debug!(%user, %grant, %device, "refresh asked for too soon"),
        Note::Elected { device } => info!(%user, %grant, %device, "elected"),
        Note::Declined { device } => info!(%user, %grant, %device, "declined, left, or silent"),
    }
}
