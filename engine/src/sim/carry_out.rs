//! What a machine orders of the store, carried out on [`Store`]: the one place where an order becomes its answer.

use super::store::{ClaimRow, Commit, Store};
use crate::{
    grant::{ClaimAnswer, Command, CommitAnswer, Input, Trouble},
    record::Holder,
    time::Unix,
};

impl Store {
    /// Carries out what `by` ordered, if it is the store's to do.
    pub(crate) fn carry_out(&mut self, by: &Holder, command: &Command, now: Unix) -> Option<Input> {
        Some(match command {
            Command::Load => Input::Read(Ok(self.read())),
            Command::Claim { lease, .. } => Input::Claimed {
                lease: *lease,
                answer: self.answer_claim(claim_row(by, command)?, now),
            },
            Command::Renew { lease, ttl } => Input::Renewed {
                lease: *lease,
                held: Ok(self.renew(*lease, *ttl, now)),
            },
            Command::HandOut { lease, device } => Input::HandedOut {
                lease: *lease,
                held: Ok(self.hand_out(*lease, *device, now)),
            },
            Command::Commit(request) => Input::Committed {
                lease: request.lease,
                answer: match (self.commit(request), self.read()) {
                    (Commit::Done, Some(record)) => CommitAnswer::Done(record),
                    (Commit::Retired, _) => CommitAnswer::Retired,
                    (_, record) => CommitAnswer::Superseded(record),
                },
            },
            Command::KeepAlternate {
                lease,
                tokens,
                from_version,
            } => {
                self.keep_alternate((**tokens).clone(), *from_version);
                Input::AlternateKept {
                    lease: *lease,
                    answer: Ok(()),
                }
            }
            Command::Settle {
                lease,
                version,
                fence,
                verdict,
            } => {
                self.settle(by, *lease, (*version, *fence), (**verdict).clone(), now);
                Input::Settled {
                    lease: *lease,
                    answer: Ok(self.read()),
                }
            }
            Command::Delete => {
                self.delete();
                Input::Deleted(Ok(self.read()))
            }
            _ => return None,
        })
    }

    fn answer_claim(&mut self, row: ClaimRow, now: Unix) -> ClaimAnswer {
        match (self.claim(row, now), self.read()) {
            (Some(true), Some(record)) => ClaimAnswer::Won(record),
            (Some(false), Some(record)) => ClaimAnswer::Lost(record),
            _ => ClaimAnswer::Gone,
        }
    }
}

/// The claim that is ordered, if one is.
pub(crate) fn claim_row(by: &Holder, command: &Command) -> Option<ClaimRow> {
    let Command::Claim {
        lease,
        from_version,
        over,
        fence,
        ttl,
        purpose,
        for_device,
        doubt,
    } = command
    else {
        return None;
    };
    Some(ClaimRow {
        lease: *lease,
        holder: by.clone(),
        from_version: *from_version,
        over: *over,
        fence: *fence,
        ttl: *ttl,
        purpose: *purpose,
        for_device: *for_device,
        doubt: doubt.clone(),
    })
}

/// Whether it changes the store.
pub(crate) fn is_write(command: &Command) -> bool {
    matches!(
        command,
        Command::Claim { .. }
            | Command::Renew { .. }
            | Command::HandOut { .. }
            | Command::Commit(_)
            | Command::KeepAlternate { .. }
            | Command::Settle { .. }
            | Command::Delete
    )
}

/// The answer to an order that met with trouble.
pub(crate) fn refused(command: &Command, trouble: Trouble) -> Input {
    match command {
        Command::Claim { lease, .. } => Input::Claimed {
            lease: *lease,
            answer: ClaimAnswer::Trouble(trouble),
        },
        Command::Renew { lease, .. } => Input::Renewed {
            lease: *lease,
            held: Err(trouble),
        },
        Command::HandOut { lease, .. } => Input::HandedOut {
            lease: *lease,
            held: Err(trouble),
        },
        Command::Commit(request) => Input::Committed {
            lease: request.lease,
            answer: CommitAnswer::Trouble(trouble),
        },
        Command::Settle { lease, .. } => Input::Settled {
            lease: *lease,
            answer: Err(trouble),
        },
        Command::KeepAlternate { lease, .. } => Input::AlternateKept {
            lease: *lease,
            answer: Err(trouble),
        },
        Command::Delete => Input::Deleted(Err(trouble)),
        Command::Load => Input::Read(Err(trouble)),
        other => panic!("{other:?} is no business of the store"),
    }
}
