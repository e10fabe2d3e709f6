//! Where WebSockets are blocked.

use std::time::Duration;

use lockstep_client::{Client, Error, Event, Stopped, Transport, TransportChoice, Version};
use lockstep_protocol::{Code, Epoch};
use tokio::sync::broadcast::Receiver;

use crate::{
    grant,
    hub::{Hub, Refreshing, Upgrade},
    hurry, quick, soon,
};

const MINUTE: Duration = Duration::from_secs(60);

async fn changed(events: &mut Receiver<Event>) -> (Transport, Transport) {
    soon("a change of transport", async {
        loop {
            if let Event::TransportChanged { from, to, .. } = events.recv().await.unwrap() {
                return (from, to);
            }
        }
    })
    .await
}

/// The client holds this version, and the hub knows it.
async fn converged(hub: &Hub, client: &Client, version: u64) {
    let mut subscription = client.subscribe(&grant());
    while subscription.current().version() != Some(Version(version)) {
        soon("the version", subscription.changed()).await.unwrap();
    }
    hub.until("the ack", |core| core.acked == core.seq).await;
}

#[tokio::test]
async fn a_refused_upgrade_falls_back_to_long_poll() {
    let hub = Hub::start().await;
    hub.with(|core| core.upgrade = Upgrade::Refuse(403));
    hub.mint(&grant());
    let client = quick(&hub).connect().await.unwrap();
    let mut events = client.events();

    assert_eq!(changed(&mut events).await, (Transport::Ws, Transport::Poll));
    converged(&hub, &client, 1).await;
    for version in 2..12 {
        hub.mint(&grant());
        converged(&hub, &client, version).await;
    }
    assert_eq!(client.connection().borrow().transport, Transport::Poll);
}

#[tokio::test]
async fn a_websocket_that_is_killed_after_it_opened_counts_as_blocked() {
    let hub = Hub::start().await;
    hub.with(|core| core.upgrade = Upgrade::KillAfter(Duration::from_millis(100)));
    hub.mint(&grant());
    let client = quick(&hub).connect().await.unwrap();
    let mut events = client.events();

    assert_eq!(changed(&mut events).await, (Transport::Ws, Transport::Poll));
    for version in 2..12 {
        hub.mint(&grant());
        converged(&hub, &client, version).await;
    }
}

#[tokio::test]
async fn a_websocket_that_opens_and_says_nothing_counts_as_blocked() {
    let hub = Hub::start().await;
    hub.with(|core| core.upgrade = Upgrade::Mute);
    hub.mint(&grant());
    let mut timing = hurry();
    timing.greet = Duration::from_millis(700);
    let client = quick(&hub).timing(timing).connect().await.unwrap();
    converged(&hub, &client, 1).await;
    assert_eq!(client.connection().borrow().transport, Transport::Poll);
}

#[tokio::test]
async fn it_returns_to_websocket_with_the_same_state() {
    let hub = Hub::start().await;
    hub.with(|core| core.upgrade = Upgrade::Refuse(400));
    hub.mint(&grant());
    let client = quick(&hub).connect().await.unwrap();
    let mut events = client.events();
    assert_eq!(changed(&mut events).await, (Transport::Ws, Transport::Poll));
    converged(&hub, &client, 1).await;

    hub.with(|core| core.upgrade = Upgrade::Serve);

    assert_eq!(changed(&mut events).await, (Transport::Poll, Transport::Ws));
    hub.with(|core| {
        let cursor = core.hellos[0].cursor.clone();
        assert_eq!(cursor, Some(format!("{}.1", core.epoch)));
        core.polls.clear();
    });
    for version in 2..6 {
        hub.mint(&grant());
        converged(&hub, &client, version).await;
    }
    hub.with(|core| assert!(core.polls.is_empty(), "nobody polls beside a WebSocket that works"));
}

#[tokio::test]
async fn with_the_hub_down_nothing_is_blamed_on_websocket() {
    let hub = Hub::start().await;
    hub.with(|core| {
        core.upgrade = Upgrade::Refuse(500);
        core.polls_work = false;
    });
    let client = quick(&hub).connect().await.unwrap();
    let mut events = client.events();
    hub.until("several attempts", |core| core.upgrades >= 3 && core.polls.len() >= 2)
        .await;

    hub.with(|core| core.upgrade = Upgrade::Serve);

    soon("sync", client.synced()).await.unwrap();
    assert_eq!(client.connection().borrow().transport, Transport::Ws);
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::TransportChanged { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_poller_refreshes_over_http() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Poll).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();

    let newer = soon("answer", client.report_rejected(&grant(), Version(1)))
        .await
        .unwrap();
    assert_eq!(newer.version, Version(2));

    let unknown = client.token(&"example/nobody".parse().unwrap(), MINUTE).await;
    assert!(matches!(unknown, Err(Error::UnknownGrant { .. })), "{unknown:?}");
    hub.with(|core| core.refreshing = Refreshing::Refuse(Code::Suspect, Some(5)));
    let later = client.report_rejected(&grant(), Version(2)).await;
    assert!(
        matches!(later, Err(Error::Retry { retry_at: Some(_), .. })),
        "{later:?}"
    );
    hub.with(|core| assert_eq!(core.upgrades, 0));
}

#[tokio::test]
async fn a_poller_resets() {
    let hub = Hub::start().await;
    hub.mint(&"example/other".parse().unwrap());
    hub.mint(&grant());
    let client = quick(&hub).transport(TransportChoice::Poll).connect().await.unwrap();
    converged(&hub, &client, 1).await;
    assert_eq!(client.grants().len(), 2);

    hub.with(|core| {
        core.epoch = Epoch(9);
        core.grants.clear();
        core.seq = 0;
        core.acked = 0;
        core.mint(&grant());
    });
    hub.until("the ack", |core| core.acked == 1).await;
    assert_eq!(client.grants().len(), 1);
}

#[tokio::test]
async fn a_pollers_refused_token_is_replaced_once() {
    let hub = Hub::start().await;
    hub.with(|core| core.takes = Some("dat-2".into()));
    let client = quick(&hub).transport(TransportChoice::Poll).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();

    hub.with(|core| core.takes = Some("none".into()));
    hub.mint(&grant());
    let mut connection = client.connection();
    let end = soon("end", connection.wait_for(|c| c.stopped.is_some())).await.unwrap();
    assert!(matches!(end.stopped, Some(Stopped::NotAuthenticated { .. })));
}

#[tokio::test]
async fn a_proxy_that_cuts_long_requests_gets_shorter_ones() {
    let hub = Hub::start().await;
    hub.with(|core| core.cut_polls_after = Some(Duration::from_millis(3300)));
    let client = quick(&hub).transport(TransportChoice::Poll).connect().await.unwrap();
    let mut events = client.events();
    hub.until("a shorter poll", |core| {
        core.polls.last().is_some_and(|(_, wait)| *wait == 2)
    })
    .await;
    hub.until("and another", |core| {
        core.polls.iter().filter(|(_, wait)| *wait == 2).count() > 2
    })
    .await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::Disconnected { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn who_listens_from_the_start_misses_nothing() {
    let hub = Hub::start().await;
    let builder = quick(&hub).transport(TransportChoice::Poll);
    let (client, mut events) = builder.connect_listening().await.unwrap();
    soon("the newest", client.synced()).await.unwrap();
    let transport = Transport::Poll;
    let connected = Event::Connected {
        transport,
        session: None,
    };
    for event in [Event::Connecting { transport }, connected, Event::Synced { transport }] {
        assert_eq!(soon("a word", events.recv()).await, Ok(event));
    }
}
