//! Device-side redeem.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use lockstep_client::{Client, Error, TransportChoice};
use lockstep_protocol::{
    ClientFrame, Code, HubFrame, LeaseId, Secret, Version,
    frame::{Elected, ElectedLease, Redeem, RequestFormat},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    grant,
    hub::{BOUND, Core, Hub},
    quick, soon,
};

const LEASE: LeaseId = LeaseId(uuid::Uuid::from_u128(42));

async fn redeemer(hub: &Hub, directory: &Path) -> Client {
    let client = quick(hub)
        .transport(TransportChoice::Ws)
        .redeemer(true)
        .state_dir(directory)
        .connect()
        .await
        .unwrap();
    soon("sync", client.synced()).await.unwrap();
    client
}

/// A hub with a device that has said `accept`.
async fn elect(hub: &Hub, renew_every: u64) {
    hub.with(|core| {
        core.outbox.push_back(HubFrame::Elected(Elected {
            grant: grant(),
            lease: ElectedLease {
                id: LEASE,
                expires_in: 45,
                renew_every,
            },
            from_version: Version(1),
        }));
    });
    hub.until("accept", |core| {
        core.frames
            .iter()
            .any(|frame| matches!(frame, ClientFrame::Accept(a) if a.lease == LEASE))
    })
    .await;
}

fn hand_out(hub: &Hub, request_format: RequestFormat, endpoint: &str) {
    let redeem = Redeem {
        grant: grant(),
        lease: LEASE,
        from_version: Version(1),
        refresh_token: Secret::new("rt-1"),
        token_endpoint: endpoint.to_owned(),
        client_id: "app".into(),
        request_format,
        scope: None,
        send_within: 40,
        deadline: 50,
    };
    hub.with(|core| core.outbox.push_back(HubFrame::Redeem(redeem)));
}

fn endpoint(hub: &Hub) -> String {
    format!("{}/provider/token", hub.url())
}

fn sealed(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap();
    files
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "redeem"))
        .count()
}

/// Waits for what a background job leaves on disk.
async fn nothing_sealed(directory: &Path) {
    soon("an empty state directory", async {
        while sealed(directory) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_elected_device_redeems_once_and_publishes() {
    for format in [RequestFormat::Form, RequestFormat::Json] {
        let hub = Hub::start().await;
        let directory = TempDir::new().unwrap();
        let _client = redeemer(&hub, directory.path()).await;

        elect(&hub, 15).await;
        hand_out(&hub, format, &endpoint(&hub));

        hub.until("publish", |core| !core.published.is_empty()).await;
        hub.with(|core| {
            let publish = &core.published[0];
            assert_eq!(
                (publish.lease, publish.epoch, publish.from_version),
                (LEASE, core.epoch, Version(1))
            );
            assert_eq!(publish.token.access_token, Secret::new("fresh"));
            assert_eq!(publish.token.refresh_token, Some(Secret::new("rt-2")));
            assert_eq!(
                (publish.token.expires_in, publish.token.token_type.as_str()),
                (Some(3600), "Bearer")
            );
            let expected = match format {
                RequestFormat::Form => (
                    "application/x-www-form-urlencoded",
                    "grant_type=refresh_token&refresh_token=rt-1&client_id=app",
                ),
                RequestFormat::Json => (
                    "application/json",
                    r#"{"client_id":"app","grant_type":"refresh_token","refresh_token":"rt-1"}"#,
                ),
            };
            assert_eq!(core.redeems, [(expected.0.to_owned(), expected.1.to_owned())]);
        });
        nothing_sealed(directory.path()).await;
    }
}

#[tokio::test]
async fn a_redeem_goes_on_when_the_connection_drops() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let _client = redeemer(&hub, directory.path()).await;
    hub.with(|core| core.provider.2 = Duration::from_millis(600));
    elect(&hub, 15).await;
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    hub.until("the redeem", |core| core.redeems.len() == 1).await;

    hub.kill_sessions();

    hub.until("publish", |core| !core.published.is_empty()).await;
    hub.with(|core| assert_eq!((core.redeems.len(), core.sessions), (1, 2)));
}

#[tokio::test]
async fn what_is_not_answered_is_published_again_on_the_next_connection() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let _client = redeemer(&hub, directory.path()).await;
    hub.with(|core| core.takes_results = None);
    elect(&hub, 15).await;
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    hub.until("publish", |core| core.published.len() == 1).await;
    assert_eq!(sealed(directory.path()), 1, "it is on disk before it is published");

    hub.with(|core| core.takes_results = Some(Ok(())));
    hub.kill_sessions();

    hub.until("publish again", |core| core.published.len() == 2).await;
    hub.with(|core| assert_eq!(core.published[0].token, core.published[1].token));
    nothing_sealed(directory.path()).await;
}

/// Runs a redeemer in a runtime of its own, which is then torn down without a farewell, as a crash would.
fn crashing(hub: &Hub, directory: &Path, until: impl AsyncFnOnce()) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let client = redeemer(hub, directory).await;
        elect(hub, 15).await;
        hand_out(hub, RequestFormat::Form, &endpoint(hub));
        until().await;
        std::mem::forget(client);
    });
    runtime.shutdown_timeout(BOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_survives_a_crash() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    hub.with(|core| core.takes_results = None);
    tokio::task::block_in_place(|| {
        crashing(&hub, directory.path(), async || {
            hub.until("publish", |core| core.published.len() == 1).await;
        });
    });
    let secret_on_disk = fs::read_dir(directory.path())
        .unwrap()
        .any(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).contains("rt-2"));
    assert!(!secret_on_disk, "what is kept is sealed");

    hub.with(|core| core.takes_results = Some(Ok(())));
    hub.with(|core| core.device_token = ("lsd_0".into(), None));
    let _client = redeemer(&hub, directory.path()).await;

    hub.until("publish again", |core| core.published.len() == 2).await;
    hub.with(|core| assert_eq!(core.published[0].token, core.published[1].token));
    hub.with(|core| assert_eq!(core.redeems.len(), 1));
    nothing_sealed(directory.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_middle_is_reported() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    hub.with(|core| core.hold_redeems = true);
    tokio::task::block_in_place(|| {
        crashing(&hub, directory.path(), async || {
            hub.until("the redeem", |core| core.redeems.len() == 1).await;
        });
    });
    hub.with(|core| core.device_token = ("lsd_0".into(), None));
    let _client = redeemer(&hub, directory.path()).await;

    hub.until("failed", |core| !core.failed.is_empty()).await;
    hub.with(|core| {
        assert!(core.failed[0].sent, "nobody can know that it was not sent");
        assert_eq!((core.failed[0].lease, core.redeems.len()), (LEASE, 1));
    });
    nothing_sealed(directory.path()).await;
}

#[tokio::test]
async fn failures_are_told_as_they_were_seen() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let _client = redeemer(&hub, directory.path()).await;

    hub.with(|core| core.provider = (400, r#"{"error":"invalid_grant"}"#.into(), Duration::ZERO));
    elect(&hub, 15).await;
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    hub.until("refused", |core| core.failed.len() == 1).await;

    hub.with(|core| core.provider = (200, "<html>".into(), Duration::ZERO));
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    hub.until("unusable", |core| core.failed.len() == 2).await;

    hand_out(&hub, RequestFormat::Form, "http://127.0.0.1:1/token");
    hub.until("unreachable", |core| core.failed.len() == 3).await;
    hub.with(|core| {
        let seen: Vec<_> = core
            .failed
            .iter()
            .map(|failed| (failed.sent, failed.status, failed.error.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                (true, Some(400), Some("invalid_grant")),
                (true, Some(200), None),
                (false, None, None)
            ]
        );
    });
    nothing_sealed(directory.path()).await;
}

#[tokio::test]
async fn a_device_that_does_not_redeem_says_so() {
    let hub = Hub::start().await;
    let client = quick(&hub).connect().await.unwrap();
    soon("sync", client.synced()).await.unwrap();
    let elected = Elected {
        grant: grant(),
        lease: ElectedLease {
            id: LEASE,
            expires_in: 45,
            renew_every: 15,
        },
        from_version: Version(1),
    };
    hub.with(|core| core.outbox.push_back(HubFrame::Elected(elected)));
    hub.until("failed", |core| {
        core.failed.iter().any(|failed| !failed.sent && failed.lease == LEASE)
    })
    .await;
}

#[tokio::test]
async fn a_superseded_result_is_forgotten() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let _client = redeemer(&hub, directory.path()).await;
    hub.with(|core| core.takes_results = Some(Err(Code::Superseded)));
    elect(&hub, 15).await;
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    hub.until("publish", |core| core.published.len() == 1).await;
    nothing_sealed(directory.path()).await;
}

#[tokio::test]
async fn a_lease_is_renewed_while_it_is_used() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let _client = redeemer(&hub, directory.path()).await;
    hub.with(|core| core.hold_redeems = true);
    elect(&hub, 1).await;
    let since = Instant::now();
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    let renewals = |core: &Core| {
        let renewal = |frame: &&ClientFrame| matches!(frame, ClientFrame::Renew(_));
        core.frames.iter().filter(renewal).count()
    };
    hub.until("two renewals", |core| renewals(core) >= 2).await;
    let most = since.elapsed().as_secs() + 1;
    hub.with(|core| {
        assert!(renewals(core) as u64 <= most, "one a second, as was asked for");
        core.hold_redeems = false;
    });
    hub.until("publish", |core| !core.published.is_empty()).await;
}

#[tokio::test]
async fn close_sees_a_redeem_through() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let client = redeemer(&hub, directory.path()).await;
    hub.with(|core| core.provider.2 = Duration::from_millis(500));
    elect(&hub, 15).await;
    hand_out(&hub, RequestFormat::Form, &endpoint(&hub));
    hub.until("the redeem", |core| core.redeems.len() == 1).await;

    soon("close", client.close()).await;

    hub.with(|core| assert_eq!(core.published.len(), 1));
    assert_eq!(sealed(directory.path()), 0);
}

#[tokio::test]
async fn a_state_directory_serves_one_process() {
    let hub = Hub::start().await;
    let directory = TempDir::new().unwrap();
    let _first = redeemer(&hub, directory.path()).await;
    let second = quick(&hub).redeemer(true).state_dir(directory.path()).connect().await;
    assert!(matches!(second, Err(Error::Misuse(_))), "{second:?}");
}
