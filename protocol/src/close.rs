//! WebSocket close codes, and what a client does after each.

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// 1000: the client is done.
    Normal,
    /// 1001: the hub is going away; `goaway` told when to come back.
    GoingAway,
    /// 1009: a frame above [`crate::limits::MAX_FRAME`].
    TooBig,
    /// 1011: the hub failed.
    Internal,
    /// 4400: the client does not speak the protocol.
    Protocol,
    /// 4401: the token is missing, expired, forged, or another device's.
    NotAuthenticated,
    /// 4403: the device was revoked or the user deleted.
    Revoked,
    /// 4408: no `hello` in time, or nothing acked in time.
    Timeout,
    /// 4409: a newer session of the same device took over.
    Replaced,
    /// 4429: too many connections or requests.
    TooMany,
}

/// What a client does after a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterClose {
    /// Reconnect with full jitter.
    Reconnect,
    /// This connection simply ends: a newer one of the same device lives.
    End,
    /// Do not reconnect without a change (a new token, a new version of the client).
    Stop,
}

impl Close {
    /// All close codes of the protocol.
    pub const ALL: [Self; 10] = [
        Self::Normal,
        Self::GoingAway,
        Self::TooBig,
        Self::Internal,
        Self::Protocol,
        Self::NotAuthenticated,
        Self::Revoked,
        Self::Timeout,
        Self::Replaced,
        Self::TooMany,
    ];

    /// The number on the wire (RFC 6455 section 7.4; 4000 to 4999 are private).
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Protocol => 4400,
            Self::NotAuthenticated => 4401,
            Self::Revoked => 4403,
            Self::Timeout => 4408,
            Self::Replaced => 4409,
            Self::TooMany => 4429,
        }
    }

    /// The reason text that goes with it; short, and never a secret.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "going away",
            Self::TooBig => "frame too big",
            Self::Internal => "internal error",
            Self::Protocol => "protocol error",
            Self::NotAuthenticated => "not authenticated",
            Self::Revoked => "device revoked or user deleted",
            Self::Timeout => "no hello or no ack in time",
            Self::Replaced => "replaced by a newer session of this device",
            Self::TooMany => "too many",
        }
    }

    /// What a client does after a close with the number `code`; unknown numbers mean reconnect.
    pub const fn after(code: u16) -> AfterClose {
        match code {
            4400 | 4401 | 4403 => AfterClose::Stop,
            4409 => AfterClose::End,
            _ => AfterClose::Reconnect,
        }
    }
}
