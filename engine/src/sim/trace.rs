//! What happened, in few words.

use lockstep_protocol::LeaseId;

use super::{
    provider::Decision,
    script::Weather,
    world::{DeviceWord, SessionWord},
};
use crate::grant::Verdict;

/// The first digits of a lease: enough to tell it from others.
pub(crate) fn lease(lease: LeaseId) -> String {
    let mut text = lease.0.simple().to_string();
    text.truncate(6);
    text
}

pub(crate) fn verdict(verdict: &Verdict) -> String {
    let reason = verdict.reason.as_deref().unwrap_or("no reason");
    let doubt = if verdict.doubt.is_some() { ", in doubt" } else { "" };
    format!("{:?} ({reason}){doubt}", verdict.health)
}

pub(crate) fn decision(decision: Option<&Decision>, weather: Option<Weather>) -> String {
    let done = match decision {
        Some(Decision::Issued(pair)) => format!("issues {}", pair.access),
        Some(Decision::Invalid) => "invalid_grant".to_owned(),
        None => "not processed".to_owned(),
    };
    match weather {
        Some(weather) => format!("{done} ({weather:?})"),
        None => done,
    }
}

pub(crate) fn word(word: &DeviceWord) -> String {
    match word {
        DeviceWord::Shown { version, seq, .. } => format!("version {} seq {}", version.0, seq.0),
        DeviceWord::Elected(id) => format!("elected, lease {}", lease(*id)),
        DeviceWord::Redeem { lease: id, token, .. } => format!("redeem {token}, lease {}", lease(*id)),
    }
}

pub(crate) fn said(word: &SessionWord) -> String {
    match word {
        SessionWord::Accept(id) => format!("accept {}", lease(*id)),
        SessionWord::Renew(id) => format!("renew {}", lease(*id)),
        SessionWord::Refresh { rejected } => format!("version {} will not do", rejected.0),
        SessionWord::Failed { lease: id, .. } => format!("failed {}", lease(*id)),
        SessionWord::Publish(result) => format!("publishes {} for version {}", result.pair.access, result.from.0),
        SessionWord::Ack(seq) => format!("ack {}", seq.0),
    }
}
