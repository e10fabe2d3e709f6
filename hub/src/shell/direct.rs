//! What goes to one session and to no other: the steps of an election.

use lockstep_engine::grant::Command;
use lockstep_protocol::{
    GrantName, HubFrame, SessionId,
    frame::{self, Elected, ElectedLease, Error, Lease, Redeem},
};

use crate::{app::Hub, config::RequestFormat};

impl Hub {
    /// The frame that a command orders for one session. None: the command is none of these, or the grant's provider is
    /// no longer in the settings.
    pub(super) fn direct(&self, grant: &GrantName, command: Command) -> Option<(SessionId, HubFrame)> {
        let grant = grant.clone();
        match command {
            Command::Elect {
                session,
                lease,
                expires_in,
                renew_every,
                from_version,
            } => {
                let lease = ElectedLease {
                    id: lease,
                    expires_in: expires_in.as_secs(),
                    renew_every: renew_every.as_secs().max(1),
                };
                let elected = Elected {
                    grant,
                    lease,
                    from_version,
                };
                Some((session, HubFrame::Elected(elected)))
            }
            Command::Hand { .. } => self.handed(grant, command),
            Command::Extended {
                session,
                lease,
                expires_in,
            } => {
                let expires_in = expires_in.as_secs();
                let lease = Lease {
                    grant,
                    id: lease,
                    expires_in,
                };
                Some((session, HubFrame::Lease(lease)))
            }
            Command::Refuse { session, lease, code } => {
                let error = Error {
                    id: None,
                    grant: Some(grant),
                    code,
                    message: format!("lease {lease} does not allow this"),
                    retry_at: None,
                };
                Some((session, HubFrame::Error(error)))
            }
            _ => None,
        }
    }

    /// The refresh token leaves the hub, for the one session that was elected and answered.
    fn handed(&self, grant: GrantName, command: Command) -> Option<(SessionId, HubFrame)> {
        let Command::Hand {
            session,
            lease,
            from_version,
            refresh_token,
            scope,
            send_within,
            deadline,
        } = command
        else {
            return None;
        };
        let settings = self.providers.get(grant.provider())?.settings();
        let redeem = Redeem {
            lease,
            from_version,
            refresh_token,
            token_endpoint: settings.token_endpoint.to_string(),
            client_id: settings.client_id.clone(),
            request_format: match settings.request_format {
                RequestFormat::Form => frame::RequestFormat::Form,
                RequestFormat::Json => frame::RequestFormat::Json,
            },
            scope,
            send_within: send_within.as_secs(),
            deadline: deadline.as_secs(),
            grant,
        };
        Some((session, HubFrame::Redeem(redeem)))
    }
}
