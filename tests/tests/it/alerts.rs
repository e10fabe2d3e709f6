//! What wakes an operator: alerts of a running hub, on the webhook, in the metrics and in the log.

use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use lockstep_tests::{Answer, BOUND, GRANT, Scene, eventually};
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpListener;

/// A webhook, and what it was told.
struct Webhook {
    url: String,
    told: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Webhook {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let told = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keep = Arc::clone(&keep);
                let serve = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let keep = Arc::clone(&keep);
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
                        keep.lock().expect("lock").push(message);
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self {
            url,
            told,
            task: task.abort_handle(),
        }
    }

    /// The first message about an alert in this state.
    async fn hears(&self, alert: &str, state: &str) -> Value {
        eventually(
            &format!("the webhook hears that {alert} is {state}"),
            BOUND,
            async || {
                let told = self.told.lock().expect("lock");
                told.iter()
                    .find(|one| one["alert"] == alert && one["state"] == state)
                    .cloned()
            },
        )
        .await
    }
}

async fn metrics(scene: &Scene) -> String {
    let answer = Answer::to(scene.admin.anonymous(Method::GET, "/metrics")).await;
    answer.body.as_str().unwrap_or_default().to_owned()
}

/// The value of this series, if it is there yet.
fn look_up(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The value of this series.
fn value(metrics: &str, series: &str) -> f64 {
    look_up(metrics, series).unwrap_or_else(|| panic!("{series} in {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_refresher_is_an_alert_that_ends_when_it_is_gone() {
    let webhook = Webhook::start().await;
    let scene = Scene::set(|settings| {
        settings
            .set("alerts.webhook", webhook.url.clone())
            // Long enough to look at the metrics while the alert stands, on a busy machine too.
            .set("alerts.conflict_rate_window", "20s")
            .set("alerts.calm", "2s")
            .example("late_wait", "1s")
    })
    .await;
    for alert in [
        "conflict_rate",
        "lease_wait_timeouts",
        "provider_misconfigured",
        "store_unavailable",
        "cluster_unavailable",
    ] {
        let series = format!("lockstep_alert_active{{alert=\"{alert}\"}}");
        let shown = eventually("the rules are looked at", BOUND, async || {
            look_up(&metrics(&scene).await, &series)
        });
        assert!(shown.await.abs() < f64::EPSILON, "shown before it ever began: {alert}");
    }

    let mut session = scene.session("alice").await;
    // Somebody outside the hub uses the refresh token up.
    let stolen = scene.provider.newest("alice").refresh_token;
    assert!(scene.provider.redeem(&stolen).is_some());
    session.refresh(GRANT, 1).await;

    let fired = webhook.hears("conflict_rate", "firing").await;
    assert_eq!(fired["level"], 1);
    assert!(
        fired["value"].as_f64() > fired["threshold"].as_f64() && fired["node"].is_string(),
        "{fired}"
    );
    assert!(!fired.to_string().contains("alice"), "nobody is named: {fired}");
    let active = metrics(&scene).await;
    assert!(value(&active, "lockstep_alert_active{alert=\"conflict_rate\"}") > 0.0);
    assert!(value(&active, "lockstep_conflict_ratio") > 0.05);
    assert!(value(&active, "lockstep_refresh_success_ratio") < 1.0);
    assert!(scene.hub.log().contains("conflict_rate"));

    let ended = webhook.hears("conflict_rate", "resolved").await;
    assert_eq!(ended["level"], 0);
    let told = webhook.told.lock().expect("lock").len();
    assert_eq!(told, 2, "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_refresh_are_there_to_be_read() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    session.refresh(GRANT, 1).await;
    session.settle().await;
    let told = eventually("the refresh is counted", BOUND, async || {
        let told = metrics(&scene).await;
        // These are figured out now and then.
        let figures = [
            "lockstep_push_to_ack_seconds_count",
            "lockstep_devices_connected",
            "lockstep_refresh_success_ratio",
        ];
        let there = figures.map(|series| look_up(&told, series) >= Some(1.0));
        there.iter().all(|is| *is).then_some(told)
    })
    .await;
    for series in [
        "lockstep_redeems_total{provider=\"example\",outcome=\"committed\"}",
        "lockstep_claims_total{provider=\"example\"}",
        "lockstep_redeem_seconds_count{provider=\"example\"}",
        "lockstep_commit_seconds_count",
        "lockstep_refresh_success_ratio",
        "lockstep_cluster_nodes",
        "lockstep_store_available",
    ] {
        assert!(value(&told, series) >= 1.0, "{series}");
    }
    for (series, still) in [
        ("lockstep_conflict_ratio", 0.0),
        ("lockstep_lease_wait_timeouts_total{provider=\"example\"}", 0.0),
    ] {
        assert!((value(&told, series) - still).abs() < f64::EPSILON, "{series}");
    }
    for histogram in ["redeem", "commit", "push_to_ack"] {
        assert!(
            told.contains(&format!("lockstep_{histogram}_seconds_bucket{{")),
            "{histogram}"
        );
    }
    eventually("the device is not behind", BOUND, async || {
        (value(&metrics(&scene).await, "lockstep_devices_behind_ratio") < f64::EPSILON).then_some(())
    })
    .await;
}
