//! Frames, JSON and texts out of thin air.

use lockstep_protocol::{
    ClientFrame, Code, Cursor, DeviceId, Epoch, GrantName, HubFrame, LeaseId, RequestId, Secret, Seq, SessionId,
    UnixSeconds, UserId, Version,
    frame::{
        Accept, Ack, Cause, Done, Elected, ElectedLease, Error, Failed, Goaway, Health, Hello, HelloDevice, Lease,
        Presence, PresenceState, Publish, PublishedToken, ReconnectAfter, Redeem, Refresh, RefreshReason, Renew,
        RequestFormat, Resume, Status, Synced, Token, Welcome,
    },
    number::NUMBER_BOUND,
};
use proptest::{collection::vec, option::of, prelude::*, sample::select, strategy::BoxedStrategy};
use serde_json::{Map, Value};
use uuid::Uuid;

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..NUMBER_BOUND, 0..100_u64, Just(NUMBER_BOUND - 1)]
}

fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![any::<String>(), "[ -~]{0,20}"]
}

fn secret() -> impl Strategy<Value = Secret> + Clone {
    text().prop_map(Secret::from)
}

fn uuid() -> impl Strategy<Value = Uuid> + Clone {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn lease() -> impl Strategy<Value = LeaseId> + Clone {
    uuid().prop_map(LeaseId)
}

fn version() -> impl Strategy<Value = Version> + Clone {
    number().prop_map(Version)
}

fn time() -> impl Strategy<Value = UnixSeconds> + Clone {
    number().prop_map(UnixSeconds)
}

fn epoch() -> impl Strategy<Value = Epoch> + Clone {
    any::<u64>().prop_map(Epoch)
}

fn cursor() -> impl Strategy<Value = Cursor> + Clone {
    (epoch(), number()).prop_map(|(epoch, seq)| Cursor { epoch, seq: Seq(seq) })
}

fn id() -> impl Strategy<Value = RequestId> + Clone {
    prop_oneof![
        "[ -~]{0,20}".prop_filter_map("too long", RequestId::new),
        number().prop_map(|number| serde_json::from_value(number.into()).expect("a number may be an id")),
    ]
}

fn grant() -> impl Strategy<Value = GrantName> + Clone {
    ("[A-Za-z0-9._@-]{1,64}", "[A-Za-z0-9._@-]{1,64}")
        .prop_filter_map("dots", |(provider, account)| GrantName::new(&provider, &account).ok())
}

fn state() -> impl Strategy<Value = PresenceState> + Clone {
    select(vec![PresenceState::Active, PresenceState::Idle])
}

fn reason() -> impl Strategy<Value = RefreshReason> + Clone {
    select(vec![RefreshReason::Expired, RefreshReason::Rejected])
}

fn published() -> impl Strategy<Value = PublishedToken> {
    (secret(), of(secret()), of(number()), of(text()), text()).prop_map(
        |(access_token, refresh_token, expires_in, scope, token_type)| PublishedToken {
            access_token,
            refresh_token,
            expires_in,
            scope,
            token_type,
        },
    )
}

/// Any frame of a client.
pub(crate) fn client_frame() -> BoxedStrategy<ClientFrame> {
    let hello = (secret(), uuid(), text(), of(text()), state(), of(any::<u8>())).prop_map(
        |(token, device, app, cursor, state, priority)| Hello {
            token,
            device: HelloDevice {
                id: DeviceId(device),
                app,
            },
            cursor,
            state,
            priority,
        },
    );
    let refresh = (id(), grant(), version(), reason()).prop_map(|(id, grant, rejected_version, reason)| Refresh {
        id,
        grant,
        rejected_version,
        reason,
    });
    let publish = (id(), grant(), lease(), epoch(), version(), published()).prop_map(
        |(id, grant, lease, epoch, from_version, token)| Publish {
            id,
            grant,
            lease,
            epoch,
            from_version,
            token,
        },
    );
    let failed = (
        id(),
        grant(),
        lease(),
        any::<bool>(),
        of(any::<u16>()),
        of(text()),
        of(text()),
    )
        .prop_map(|f| Failed {
            id: f.0,
            grant: f.1,
            lease: f.2,
            sent: f.3,
            status: f.4,
            error: f.5,
            detail: f.6,
        });
    prop_oneof![
        hello.prop_map(ClientFrame::Hello),
        number().prop_map(|seq| ClientFrame::Ack(Ack { seq: Seq(seq) })),
        refresh.prop_map(ClientFrame::Refresh),
        state().prop_map(|state| ClientFrame::Presence(Presence { state })),
        (grant(), lease()).prop_map(|(grant, lease)| ClientFrame::Accept(Accept { grant, lease })),
        (grant(), lease()).prop_map(|(grant, lease)| ClientFrame::Renew(Renew { grant, lease })),
        publish.prop_map(ClientFrame::Publish),
        failed.prop_map(ClientFrame::Failed),
    ]
    .boxed()
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let user = "[A-Za-z0-9._@-]{1,128}".prop_filter_map("dots", |user| user.parse::<UserId>().ok());
    let resume = select(vec![Resume::Uptodate, Resume::Delta, Resume::Reset]);
    (uuid(), user, epoch(), time(), number(), resume).prop_map(|(session, user, epoch, time, heartbeat, resume)| {
        Welcome {
            session: SessionId(session),
            user,
            epoch,
            time,
            heartbeat,
            resume,
        }
    })
}

fn token() -> impl Strategy<Value = Token> {
    let set = (secret(), text(), of(text()), of(time()));
    let cause = select(vec![Cause::Refresh, Cause::Login]);
    (grant(), version(), cursor(), set, time(), cause).prop_map(|(grant, version, cursor, set, refreshed_at, cause)| {
        Token {
            grant,
            version,
            seq: cursor.seq,
            cursor,
            access_token: set.0,
            token_type: set.1,
            scope: set.2,
            expires_at: set.3,
            refreshed_at,
            cause,
        }
    })
}

fn status() -> impl Strategy<Value = Status> {
    let health = select(vec![
        Health::Ok,
        Health::Refreshing,
        Health::Suspect,
        Health::ReauthRequired,
        Health::Deleted,
    ]);
    let more = (of(uuid()), of(number()), of(text()), of(time()), of(text()));
    (grant(), version(), cursor(), health, more).prop_map(|(grant, version, cursor, health, more)| Status {
        grant,
        version,
        seq: cursor.seq,
        cursor,
        health,
        refreshing_by: more.0.map(DeviceId),
        lease_expires_in: more.1,
        reason: more.2,
        retry_at: more.3,
        login_url: more.4,
    })
}

fn redeem() -> impl Strategy<Value = Redeem> {
    let how = select(vec![RequestFormat::Form, RequestFormat::Json]);
    let request = (secret(), text(), text(), how, of(text()));
    (grant(), lease(), version(), request, number(), number()).prop_map(
        |(grant, lease, from_version, request, send_within, deadline)| Redeem {
            grant,
            lease,
            from_version,
            refresh_token: request.0,
            token_endpoint: request.1,
            client_id: request.2,
            request_format: request.3,
            scope: request.4,
            send_within,
            deadline,
        },
    )
}

/// Any frame of a hub.
pub(crate) fn hub_frame() -> BoxedStrategy<HubFrame> {
    let elected = (grant(), lease(), number(), number(), version()).prop_map(
        |(grant, id, expires_in, renew_every, from_version)| Elected {
            grant,
            lease: ElectedLease {
                id,
                expires_in,
                renew_every,
            },
            from_version,
        },
    );
    let lease = (grant(), lease(), number()).prop_map(|(grant, id, expires_in)| Lease { grant, id, expires_in });
    let goaway = (text(), number(), number()).prop_map(|(reason, min_ms, max_ms)| Goaway {
        reason,
        reconnect_after: ReconnectAfter { min_ms, max_ms },
    });
    let error = (of(id()), of(grant()), select(Code::ALL.to_vec()), text(), of(time())).prop_map(
        |(id, grant, code, message, retry_at)| Error {
            id,
            grant,
            code,
            message,
            retry_at,
        },
    );
    let done = (id(), grant(), version()).prop_map(|(id, grant, version)| Done { id, grant, version });
    prop_oneof![
        welcome().prop_map(HubFrame::Welcome),
        cursor().prop_map(|cursor| HubFrame::Synced(Synced { cursor })),
        token().prop_map(HubFrame::Token),
        status().prop_map(HubFrame::Status),
        elected.prop_map(HubFrame::Elected),
        redeem().prop_map(HubFrame::Redeem),
        lease.prop_map(HubFrame::Lease),
        done.prop_map(HubFrame::Done),
        goaway.prop_map(HubFrame::Goaway),
        error.prop_map(HubFrame::Error),
    ]
    .boxed()
}

/// Any JSON, small.
pub(crate) fn json() -> BoxedStrategy<Value> {
    let words = select(vec!["ack", "active", "type", "id", "seq", "a/b", "token"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..9_u32).prop_map(|n| Value::from(f64::from(n))),
        text().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop_oneof![
            text(),
            select(vec!["type", "id", "seq", "grant", "lease"]).prop_map(String::from)
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key, inner), 0..4).prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
    .boxed()
}

/// Texts close to an `ack` as clients write it, right and wrong.
pub(crate) fn almost_ack() -> BoxedStrategy<String> {
    let number = prop_oneof![
        number().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        "[0-9]{0,20}",
        "[0-9 .eE+-]{0,8}",
        any::<String>(),
    ];
    let before = select(vec![
        r#"{"type":"ack","seq":"#,
        r#"{"type":"ack", "seq":"#,
        r#"{"type":"ack","seq": "#,
        r#"{"type":"ack","seq":1,"seq":"#,
        r#"{"type":"acks","seq":"#,
        r#"{"type":"ack","seQ":"#,
        r#"{"seq":"#,
    ]);
    let after = select(vec![
        "}",
        " }",
        "} ",
        "",
        "}}",
        ",}",
        r#","type":"ack"}"#,
        r#","x":0}"#,
        r#","seq":0}"#,
    ]);
    (before, number, after)
        .prop_map(|(before, number, after)| format!("{before}{number}{after}"))
        .boxed()
}
