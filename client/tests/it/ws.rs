//! The WebSocket path.

use std::time::Duration;

use lockstep_client::{Error, GrantState, Health, Secret, Stopped, Transport, TransportChoice, Version};
use lockstep_protocol::{ClientFrame, Code, frame::ReconnectAfter};

use crate::{
    grant,
    hub::{Hub, Refreshing},
    quick, soon,
};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_pushed_is_held_and_acked() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    let mut subscription = client.subscribe(&grant());
    let first = subscription.current();
    assert_eq!(first.version(), Some(Version(1)));

    hub.mint(&grant());

    let GrantState::Token(lease) = soon("push", subscription.changed()).await.unwrap() else {
        panic!("expected a token");
    };
    assert_eq!(lease.version, Version(2));
    assert_eq!(lease.access_token, Secret::new("at-example/alice-2"));
    hub.until("ack", |core| core.acked == 2).await;
    let held = client.token(&grant(), MINUTE).await.unwrap();
    assert_eq!(held.version, Version(2));
    hub.with(|core| {
        assert!(
            core.refreshes.is_empty(),
            "a good token in memory needs no word to the hub"
        );
    });
}

#[tokio::test]
async fn many_callers_cause_one_refresh() {
    let hub = Hub::start().await;
    hub.with(|core| core.life = Some(1));
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.with(|core| core.life = Some(3600));
    let lease = client.state(&grant()).token().cloned().unwrap();

    let grant = grant();
    let callers = (0..50).map(|_| client.report_rejected(&grant, lease.version));
    let leases = soon("answers", futures::future::join_all(callers)).await;

    assert!(leases.iter().all(|lease| lease.as_ref().unwrap().version == Version(2)));
    hub.with(|core| assert_eq!(core.refreshes, [(grant.clone(), Version(1))]));
}

#[tokio::test]
async fn a_lost_connection_resumes_by_cursor() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    hub.until("ack", |core| core.acked == 1).await;

    hub.kill_sessions();
    hub.until("gone", |core| core.live == 0).await;
    hub.with(|core| core.mint(&"example/other".parse().unwrap()));

    let mut other = client.subscribe(&"example/other".parse().unwrap());
    while other.current().token().is_none() {
        soon("the other grant", other.changed()).await.unwrap();
    }
    hub.with(|core| {
        let cursor = core.hellos.last().unwrap().cursor.clone();
        assert_eq!(cursor, Some(format!("{}.1", core.epoch)));
    });
    hub.until("ack", |core| core.acked == 2).await;
}

#[tokio::test]
async fn a_refresh_that_the_connection_lost_is_asked_again() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    hub.with(|core| core.refreshing = Refreshing::Ignore);
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.report_rejected(&grant(), Version(1)).await }
    });
    hub.until("asked", |core| core.refreshes.len() == 1).await;

    hub.with(|core| core.refreshing = Refreshing::Mint);
    hub.kill_sessions();

    let lease = soon("answer", waiting).await.unwrap().unwrap();
    assert_eq!(lease.version, Version(2));
}

#[tokio::test]
async fn a_reset_drops_what_was_held() {
    let hub = Hub::start().await;
    let other = "example/other".parse().unwrap();
    hub.mint(&grant());
    hub.mint(&other);
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    hub.until("ack", |core| core.acked == 2).await;
    let mut subscription = client.subscribe(&other);
    assert!(subscription.current().token().is_some());

    hub.with(|core| {
        core.epoch = lockstep_protocol::Epoch(7);
        core.seq = 0;
        core.acked = 0;
        core.grants.clear();
        core.mint(&grant());
    });
    hub.kill_sessions();

    assert_eq!(soon("drop", subscription.changed()).await, Ok(GrantState::Unknown));
    hub.until("ack of the new epoch", |core| core.acked == 1).await;
    assert_eq!(client.state(&grant()).version(), Some(Version(1)));
}

#[tokio::test]
async fn refusals_come_in_tiers() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();

    let unknown = client.token(&"example/nobody".parse().unwrap(), MINUTE).await;
    assert!(matches!(unknown, Err(Error::UnknownGrant { .. })), "{unknown:?}");

    hub.with(|core| core.refreshing = Refreshing::Refuse(Code::RateLimited, Some(30)));
    let later = client.report_rejected(&grant(), Version(1)).await;
    let Err(Error::Retry { retry_at: Some(_), .. }) = later else {
        panic!("expected a time: {later:?}");
    };
    let again = client.token(&grant(), MINUTE).await;
    assert!(matches!(again, Err(Error::Retry { .. })), "{again:?}");
    hub.with(|core| {
        assert_eq!(
            core.refreshes.len(),
            2,
            "nothing is asked before the time that the hub gave"
        );
    });

    hub.with(|core| core.status(&grant(), Health::ReauthRequired, "family revoked"));
    let mut subscription = client.subscribe(&grant());
    while subscription.current().health() != Some(Health::ReauthRequired) {
        soon("status", subscription.changed()).await.unwrap();
    }
    let Err(Error::Reauth { reason, .. }) = client.token(&grant(), MINUTE).await else {
        panic!("expected a login");
    };
    assert_eq!(reason, "family revoked");
}

#[tokio::test]
async fn the_hubs_clock_counts() {
    let hub = Hub::start().await;
    hub.with(|core| {
        core.clock_ahead = -7200;
        core.life = Some(600);
    });
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();

    let lease = client.token(&grant(), MINUTE).await.unwrap();
    let remaining = lease.remaining().unwrap();
    assert!(
        remaining > Duration::from_secs(580) && remaining <= Duration::from_secs(601),
        "{remaining:?}"
    );
    assert_eq!(lease.version, Version(1));
}

#[tokio::test]
async fn a_validity_that_no_token_has_is_not_asked_for() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();

    assert_eq!(client.token(&grant(), HOUR * 24).await.unwrap().version, Version(1));
}

#[tokio::test]
async fn goaway_is_obeyed() {
    let hub = Hub::start().await;
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    let start = std::time::Instant::now();

    hub.with(|core| {
        core.goaway = Some(ReconnectAfter {
            min_ms: 600,
            max_ms: 700,
        });
    });

    hub.until("second session", |core| core.sessions == 2).await;
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(600), "{waited:?}");
}

#[tokio::test]
async fn terminal_codes_stop_with_their_word() {
    for (code, why) in [
        (4400, Stopped::Protocol),
        (4403, Stopped::Revoked),
        (4409, Stopped::Replaced),
    ] {
        let hub = Hub::start().await;
        let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
        soon("sync", client.synced()).await.unwrap();
        let mut subscription = client.subscribe(&grant());

        hub.with(|core| core.close_all = Some(code));

        assert_eq!(soon("end", subscription.changed()).await, Err(why.clone()));
        let answer = client.token(&grant(), MINUTE).await;
        assert!(
            matches!(&answer, Err(Error::Stopped(stopped)) if *stopped == why),
            "{answer:?}"
        );
        hub.with(|core| assert_eq!(core.sessions, 1));
    }
}

#[tokio::test]
async fn a_refused_access_token_is_replaced_once() {
    let hub = Hub::start().await;
    hub.with(|core| core.takes = Some("dat-2".into()));
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.with(|core| assert_eq!((core.hellos.len(), core.purchases), (2, 2)));

    hub.with(|core| core.takes = Some("none".into()));
    hub.kill_sessions();
    let mut connection = client.connection();
    let end = soon("end", connection.wait_for(|c| c.stopped.is_some())).await.unwrap();
    assert!(matches!(end.stopped, Some(Stopped::NotAuthenticated { .. })));
    drop(end);
    hub.with(|core| assert_eq!(core.purchases, 3));
}

#[tokio::test]
async fn a_lost_purchase_is_made_again_with_the_same_token() {
    let hub = Hub::start().await;
    hub.with(|core| core.lose_purchases = 1);
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.with(|core| assert_eq!(core.presented, ["lsd_0", "lsd_0"]));
}

#[tokio::test]
async fn a_dead_device_token_stops_the_client() {
    let hub = Hub::start().await;
    hub.with(|core| core.device_token = ("lsd_other".into(), None));
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    let end = soon("end", client.synced()).await;
    assert!(matches!(end, Err(Stopped::NotAuthenticated { .. })), "{end:?}");
}

#[tokio::test]
async fn close_says_goodbye() {
    let hub = Hub::start().await;
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    assert_eq!(client.connection().borrow().transport, Transport::Ws);
    soon("close", client.close()).await;
    hub.until("gone", |core| core.live == 0).await;
    let answer = client.token(&grant(), MINUTE).await;
    assert!(matches!(answer, Err(Error::Stopped(Stopped::Closed))), "{answer:?}");
}

#[tokio::test]
async fn the_last_handle_takes_the_connection_with_it() {
    let hub = Hub::start().await;
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    drop(client);
    hub.until("gone", |core| core.live == 0).await;
}

#[tokio::test]
async fn presence_is_told() {
    let hub = Hub::start().await;
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    client.set_presence(lockstep_client::PresenceState::Idle).await;
    hub.until("presence", |core| {
        core.frames
            .iter()
            .any(|frame| matches!(frame, ClientFrame::Presence(_)))
    })
    .await;
}

#[tokio::test]
async fn more_validity_is_asked_for_without_blaming_the_token() {
    let hub = Hub::start().await;
    hub.with(|core| core.life = Some(100));
    hub.mint(&grant());
    // Half of its life is over.
    hub.with(|core| core.clock_ahead = 70);
    let client = quick(&hub).transport(TransportChoice::Ws).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    let short = client.token(&grant(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(short.version, Version(1));

    let leases = futures::future::join_all((0..20).map(|_| async { client.token(&grant(), MINUTE).await })).await;

    assert!(leases.iter().all(|lease| lease.as_ref().unwrap().version == Version(2)));
    hub.with(|core| {
        assert_eq!(core.fetches, [(grant(), 60)]);
        assert!(core.refreshes.is_empty(), "a token that works is not rejected");
    });
    hub.until("the ack of what was pushed too", |core| core.acked == 2)
        .await;
}
