//! When alerts begin, rise and end.

use std::time::Duration;

use lockstep_engine::time::Mono;

use super::{Alert, Change, Counts, Rules};
use crate::config::{Alerts, Config};

fn settings() -> Alerts {
    let silent = Config::parse("test", "", std::path::Path::new(""), std::iter::empty());
    silent.expect("defaults").alerts
}

/// Rules with a clock of their own.
struct Watch {
    rules: Rules,
    now: Mono,
    counts: Counts,
}

impl Watch {
    fn new() -> Self {
        let mut watch = Self {
            rules: Rules::new(settings()),
            now: Mono(1_000_000),
            counts: Counts::default(),
        };
        assert_eq!(watch.tick(), [], "calm at the start");
        watch
    }

    fn tick(&mut self) -> Vec<(Alert, u8)> {
        self.now = self.now + Duration::from_secs(1);
        let (changes, _) = self.rules.tick(self.now, self.counts);
        changes
            .into_iter()
            .map(|Change { alert, level, .. }| (alert, level))
            .collect()
    }

    fn ticks(&mut self, seconds: u64) -> Vec<(Alert, u8)> {
        (0..seconds).flat_map(|_| self.tick()).collect()
    }

    fn redeems(&mut self, committed: u64, conflicts: u64) {
        self.counts.redeems += committed + conflicts;
        self.counts.committed += committed;
        self.counts.conflicts += conflicts;
    }
}

#[test]
fn a_conflict_rate_above_five_percent_is_an_alert_and_five_is_not() {
    let mut watch = Watch::new();
    watch.redeems(95, 5);
    assert_eq!(watch.tick(), []);
    watch.redeems(0, 1);
    assert_eq!(watch.tick(), [(Alert::ConflictRate, 1)]);
}

#[test]
fn an_alert_is_told_once_and_ends_once_after_a_calm_while() {
    let mut watch = Watch::new();
    watch.redeems(0, 10);
    assert_eq!(watch.tick(), [(Alert::ConflictRate, 1)]);
    // The conflicts leave the window after five minutes, and two calm minutes follow.
    assert_eq!(watch.ticks(5 * 60 + 100), []);
    assert_eq!(watch.rules.level(Alert::ConflictRate), 1);
    assert_eq!(watch.ticks(60), [(Alert::ConflictRate, 0)]);
    assert_eq!(watch.ticks(600), []);
}

#[test]
fn a_value_that_plays_about_the_threshold_is_one_alert() {
    let mut watch = Watch::new();
    let mut told = Vec::new();
    for round in 0..3600 {
        // About 4 % in one five minutes, 6 % in the next: never half of five.
        let conflicts = if (round / 300) % 2 == 0 { 4 } else { 6 };
        watch.redeems(100 - conflicts, conflicts);
        told.extend(watch.tick());
    }
    assert_eq!(told, [(Alert::ConflictRate, 1)]);
}

#[test]
fn more_than_three_lease_wait_timeouts_in_a_minute_escalate() {
    let mut watch = Watch::new();
    watch.counts.lease_wait_timeouts += 3;
    assert_eq!(watch.tick(), []);
    watch.counts.lease_wait_timeouts += 1;
    assert_eq!(watch.tick(), [(Alert::LeaseWaitTimeouts, 1)]);
    watch.counts.lease_wait_timeouts += 3;
    assert_eq!(watch.tick(), [(Alert::LeaseWaitTimeouts, 2)]);
    watch.counts.lease_wait_timeouts += 6;
    assert_eq!(watch.tick(), [(Alert::LeaseWaitTimeouts, 3)]);
    assert_eq!(watch.ticks(60 + 119), []);
    assert_eq!(watch.ticks(10), [(Alert::LeaseWaitTimeouts, 0)]);
}

#[test]
fn three_in_every_minute_are_no_alert_however_long() {
    let mut watch = Watch::new();
    for _ in 0..100 {
        watch.counts.lease_wait_timeouts += 1;
        assert_eq!(watch.ticks(20), []);
    }
}

#[test]
fn what_was_counted_before_the_start_is_not_held_against_it() {
    let mut rules = Rules::new(settings());
    let counts = Counts {
        redeems: 100,
        conflicts: 100,
        lease_wait_timeouts: 100,
        ..Counts::default()
    };
    assert_eq!(rules.tick(Mono(5), counts).0, []);
}

#[test]
fn nodes_that_hear_nothing_for_ten_seconds_are_an_alert_and_a_restart_of_redis_is_none() {
    let mut watch = Watch::new();
    watch.counts.cluster_unavailable = true;
    assert_eq!(watch.ticks(9), []);
    watch.counts.cluster_unavailable = false;
    assert_eq!(watch.ticks(5), []);
    watch.counts.cluster_unavailable = true;
    assert_eq!(watch.ticks(12), [(Alert::ClusterUnavailable, 1)]);
    watch.counts.cluster_unavailable = false;
    assert_eq!(watch.ticks(119), []);
    assert_eq!(watch.ticks(5), [(Alert::ClusterUnavailable, 0)]);
}

#[test]
fn a_misconfigured_provider_and_a_store_that_is_away_are_alerts_at_once() {
    let mut watch = Watch::new();
    watch.counts.misconfigured = 1;
    watch.counts.store_unavailable = true;
    assert_eq!(
        watch.tick(),
        [(Alert::ProviderMisconfigured, 1), (Alert::StoreUnavailable, 1)]
    );
    assert_eq!(watch.ticks(1000), []);
    watch.counts.misconfigured = 0;
    watch.counts.store_unavailable = false;
    assert_eq!(
        watch.ticks(130),
        [(Alert::ProviderMisconfigured, 0), (Alert::StoreUnavailable, 0)]
    );
}

#[test]
fn ratios_are_of_the_window() {
    let mut watch = Watch::new();
    let (_, ratios) = watch.rules.tick(watch.now, watch.counts);
    assert_eq!(
        (ratios.success, ratios.conflict),
        (1.0, 0.0),
        "nothing redeemed, nothing failed"
    );
    watch.redeems(3, 1);
    watch.tick();
    let (_, ratios) = watch.rules.tick(watch.now, watch.counts);
    assert_eq!((ratios.success, ratios.conflict), (0.75, 0.25));
    watch.ticks(301);
    let (_, ratios) = watch.rules.tick(watch.now, watch.counts);
    assert_eq!((ratios.success, ratios.conflict), (1.0, 0.0));
}

#[test]
fn a_long_window_takes_no_more_memory_than_a_short_one() {
    let mut settings = settings();
    settings.conflict_rate_window = Duration::from_secs(7 * 24 * 3600);
    let mut rules = Rules::new(settings);
    for second in 0..100_000 {
        rules.tick(Mono(second * 1000), Counts::default());
    }
    assert!(rules.samples() < 1000, "{}", rules.samples());
}

mod webhook {
    use std::sync::{Arc, Mutex};

    use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
    use serde_json::Value;

    use super::*;
    use crate::telemetry::alert::webhook::Webhook;

    type Taken = Arc<Mutex<Vec<Value>>>;

    /// Refuses the first message once, then takes all.
    async fn take(State(taken): State<Taken>, Json(message): Json<Value>) -> StatusCode {
        let mut taken = taken.lock().expect("lock");
        taken.push(message);
        if taken.len() == 1 {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::NO_CONTENT
        }
    }

    #[tokio::test]
    async fn a_webhook_that_refuses_is_tried_again() {
        let taken = Taken::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().route("/hook", post(take)).with_state(Arc::clone(&taken));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let text = format!("[alerts]\nwebhook = \"http://{address}/hook?key=s3cret\"");
        let config = Config::parse("test", &text, std::path::Path::new(""), std::iter::empty()).expect("settings");

        let webhook = Webhook::start(&config.alerts, "node-1").expect("a webhook");
        webhook.tell(&Change {
            alert: Alert::ConflictRate,
            level: 1,
            value: 0.5,
            threshold: 0.05,
        });

        let wait = async {
            while taken.lock().expect("lock").len() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("two tries");
        server.abort();
        let taken = taken.lock().expect("lock");
        assert_eq!(taken[0], taken[1], "the same message");
        assert_eq!(taken[0]["alert"], "conflict_rate");
        assert_eq!(taken[0]["state"], "firing");
        assert_eq!(taken[0]["node"], "node-1");
    }

    #[test]
    fn there_is_none_unless_configured() {
        assert!(Webhook::start(&settings(), "n").is_none());
    }
}
