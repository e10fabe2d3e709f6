//! Metrics: one table of all of them, and a function for each thing that happens.
//!
//! Names, units and labels stand in [`TABLE`] and nowhere else. Labels are bounded: providers come from the settings,
//! all else from lists in this program; never a user, a device or a grant.

use std::{sync::OnceLock, time::Duration};

use lockstep_protocol::Close;
use metrics::{Counter, Histogram, Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::process;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How values spread.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name for Prometheus.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

macro_rules! table {
    ($($constant:ident $kind:ident $name:literal [$($label:literal),*] $unit:ident $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+

        /// Every metric of the hub.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        }),+];
    };
}

table! {
    CLAIMS Counter "lockstep_claims_total" ["provider"] Count "Claims won: redeems started.";
    REDEEMS Counter "lockstep_redeems_total" ["provider", "outcome"] Count "Redeems ended, by outcome (committed, not_processed, rate_limited, unknown, conflict, misconfigured, refused).";
    COMMITS Counter "lockstep_commits_total" ["provider"] Count "Token sets committed, logins included.";
    ADOPTED Counter "lockstep_adopted_total" ["provider"] Count "Newer versions found in the store and adopted instead of a redeem.";
    LEASE_WAIT_TIMEOUTS Counter "lockstep_lease_wait_timeouts_total" ["provider"] Count "Waits for another's lease that took longer than their bound.";
    UNKNOWN_CLAIMS Counter "lockstep_unknown_claims_total" ["provider"] Count "Claims without outcome that were found.";
    LATE_RESULTS Counter "lockstep_late_results_total" ["provider"] Count "Late results that were committed.";
    SPOOLED Counter "lockstep_spooled_total" ["provider"] Count "Results that went to the spool because the store did not take them.";
    ALTERNATES Counter "lockstep_alternates_total" ["provider"] Count "Results of a second successful redeem that were kept as alternate.";
    SUSPECT Counter "lockstep_suspect_total" ["provider"] Count "Grants that became suspect.";
    REAUTH_REQUIRED Counter "lockstep_reauth_required_total" ["provider"] Count "Grants that became reauth_required.";
    MISCONFIGURED Counter "lockstep_misconfigured_total" ["provider"] Count "Answers of a provider that say that the hub's settings for it are wrong.";
    LIMITED Counter "lockstep_limited_total" ["provider"] Count "Refreshes asked for by devices that came too soon.";
    ELECTED Counter "lockstep_elected_total" ["provider"] Count "Devices elected to redeem.";
    DECLINED Counter "lockstep_declined_total" ["provider"] Count "Elected devices that declined, left, or were silent.";
    REDEEM_SECONDS Histogram "lockstep_redeem_seconds" ["provider"] Seconds "From the order to redeem to the provider's answer.";
    REFRESH_SUCCESS_RATIO Gauge "lockstep_refresh_success_ratio" [] Count "Share of redeems in the alert window that were committed; 1 if there were none.";
    CONFLICT_RATIO Gauge "lockstep_conflict_ratio" [] Count "Share of redeems in the alert window that ended in a conflict; 0 if there were none.";
    COMMIT_SECONDS Histogram "lockstep_commit_seconds" [] Seconds "From the order to commit to the store's answer.";
    STORE_ERRORS Counter "lockstep_store_errors_total" [] Count "What the store was told and did not do.";
    STORE_AVAILABLE Gauge "lockstep_store_available" [] Count "Whether the store does what it is told (1) or not (0).";
    CLUSTER_AVAILABLE Gauge "lockstep_cluster_available" [] Count "Whether lock and bus work (1) or the store alone must do (0).";
    CLUSTER_NODES Gauge "lockstep_cluster_nodes" [] Count "Nodes that share the providers' limits, as this one knows them.";
    SPOOL_ENTRIES Gauge "lockstep_spool_entries" [] Count "Results that wait in the spool.";
    SESSIONS Gauge "lockstep_sessions" ["transport"] Count "Sessions now, by transport (ws, poll).";
    SESSIONS_OPENED Counter "lockstep_sessions_opened_total" ["transport"] Count "Sessions that began, by transport (ws, poll).";
    SESSIONS_CLOSED Counter "lockstep_sessions_closed_total" ["code"] Count "WebSocket sessions that ended, by close code (0: the connection was lost).";
    CONNECTIONS_REFUSED Counter "lockstep_connections_refused_total" ["reason"] Count "Connections and requests refused at the door, by reason.";
    BAD_FRAMES Counter "lockstep_bad_frames_total" [] Count "Frames that were none.";
    USERS_RESIDENT Gauge "lockstep_users_resident" [] Count "Users in memory.";
    DEVICES_CONNECTED Gauge "lockstep_devices_connected" [] Count "Devices connected to this node.";
    DEVICES_BEHIND Gauge "lockstep_devices_behind" [] Count "Devices connected to this node that have not acked the newest seq.";
    DEVICES_BEHIND_RATIO Gauge "lockstep_devices_behind_ratio" [] Count "Share of the connected devices that have not acked the newest seq.";
    PUSHES Counter "lockstep_pushes_total" [] Count "Token and status frames sent to devices.";
    ACKS Counter "lockstep_acks_total" [] Count "Acks received from devices.";
    PUSH_TO_ACK_SECONDS Histogram "lockstep_push_to_ack_seconds" [] Seconds "From the push to a device to its ack.";
    ALERT_ACTIVE Gauge "lockstep_alert_active" ["alert"] Count "Level of an alert: 0 calm, 1 active, 2 and 3 escalated.";
    ALERTS Counter "lockstep_alerts_total" ["alert"] Count "Alerts that began or rose.";
    WEBHOOKS_FAILED Counter "lockstep_alert_webhooks_failed_total" [] Count "Alerts that the webhook did not take.";
    BUILD_INFO Gauge "lockstep_build_info" ["version"] Count "Always 1; the version of the hub.";
    RESIDENT_MEMORY Gauge "lockstep_process_resident_memory_bytes" [] Bytes "Resident memory of the hub.";
    CPU_SECONDS Gauge "lockstep_process_cpu_seconds_total" [] Seconds "CPU time of the hub, user and system.";
    OPEN_FILES Gauge "lockstep_process_open_fds" [] Count "Open file descriptors of the hub.";
}

/// Upper bounds of the histograms' buckets, in seconds: fine below a millisecond, up to the longest redeem.
const BUCKETS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// The recorder, once it is installed.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
/// What is counted with every frame: looked up once.
static HOT: OnceLock<Hot> = OnceLock::new();

struct Hot {
    pushes: Counter,
    acks: Counter,
    push_to_ack: Histogram,
}

/// Installs the recorder for the whole process. A second call does nothing.
pub fn install() {
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
            // Only an empty list is refused.
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is installed: /metrics will be empty");
        }
        describe();
        handle
    });
    HOT.get_or_init(|| Hot {
        pushes: counter!(PUSHES),
        acks: counter!(ACKS),
        push_to_ack: histogram!(PUSH_TO_ACK_SECONDS),
    });
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// The outcomes of redeems, as the machine notes them.
const OUTCOMES: [&str; 7] = [
    "committed",
    "not_processed",
    "rate_limited",
    "unknown",
    "conflict",
    "misconfigured",
    "refused",
];

/// Shows what may be counted at 0 before it first happens, so that a rate over it is never without data.
pub fn expect_providers<'a>(providers: impl Iterator<Item = &'a String>) {
    for provider in providers {
        for outcome in OUTCOMES {
            counter!(REDEEMS, "provider" => provider.clone(), "outcome" => outcome).increment(0);
        }
        for metric in TABLE
            .iter()
            .filter(|m| m.kind == Kind::Counter && m.labels == ["provider"])
        {
            counter!(metric.name, "provider" => provider.clone()).increment(0);
        }
    }
    for metric in TABLE.iter().filter(|m| m.kind == Kind::Counter && m.labels.is_empty()) {
        counter!(metric.name).increment(0);
    }
}

fn describe() {
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// All metrics in the Prometheus text format, for `/metrics`.
pub fn render() -> String {
    process::measure();
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Bounds what histograms keep in memory between two renders; call it every few seconds.
pub fn upkeep() {
    if let Some(recorder) = RECORDER.get() {
        recorder.run_upkeep();
    }
}

/// How a session is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket.
    Ws,
    /// Long-poll.
    Poll,
}

impl Transport {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Poll => "poll",
        }
    }
}

/// A session began.
pub fn session_opened(transport: Transport) {
    counter!(SESSIONS_OPENED, "transport" => transport.as_str()).increment(1);
    gauge!(SESSIONS, "transport" => transport.as_str()).increment(1.0);
}

/// A session ended; `close` is none when the connection was lost or it was a poller.
pub fn session_closed(transport: Transport, close: Option<Close>) {
    gauge!(SESSIONS, "transport" => transport.as_str()).decrement(1.0);
    if transport == Transport::Ws {
        let code = close.map_or(0, Close::code).to_string();
        counter!(SESSIONS_CLOSED, "code" => code).increment(1);
    }
}

/// A connection or request was refused at the door. `reason` is one of a few words in the program.
pub fn refused(reason: &'static str) {
    counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
}

/// A client sent what is no frame.
pub fn bad_frame() {
    counter!(BAD_FRAMES).increment(1);
}

/// `n` token or status frames were sent.
pub fn pushed(n: u64) {
    if let Some(hot) = HOT.get() {
        hot.pushes.increment(n);
    }
}

/// A device acked, `took` after the newest frame that it owed an ack for was sent, if it owed one.
pub fn acked(took: Option<Duration>) {
    if let Some(hot) = HOT.get() {
        hot.acks.increment(1);
        if let Some(took) = took {
            hot.push_to_ack.record(took.as_secs_f64());
        }
    }
}

/// How many devices are connected to this node, and how many of them have not acked the newest seq.
#[expect(clippy::cast_precision_loss, reason = "counts of devices are far below 2^52")]
pub fn devices(connected: usize, behind: usize) {
    gauge!(DEVICES_CONNECTED).set(connected as f64);
    gauge!(DEVICES_BEHIND).set(behind as f64);
    gauge!(DEVICES_BEHIND_RATIO).set(behind as f64 / connected.max(1) as f64);
}

/// How many users are in memory.
#[expect(clippy::cast_precision_loss, reason = "counts of users are far below 2^52")]
pub fn users_resident(users: usize) {
    gauge!(USERS_RESIDENT).set(users as f64);
}

/// How many results wait in the spool.
#[expect(clippy::cast_precision_loss, reason = "counts of results are far below 2^52")]
pub fn spool_entries(entries: usize) {
    gauge!(SPOOL_ENTRIES).set(entries as f64);
}

/// A commit was answered, `took` after it was ordered.
pub fn commit_took(took: Duration) {
    histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
}

/// The store did not do what it was told.
pub fn store_error() {
    counter!(STORE_ERRORS).increment(1);
}

/// Whether the store does what it is told.
pub fn store_available(available: bool) {
    super::alert::store_available(available);
    gauge!(STORE_AVAILABLE).set(f64::from(u8::from(available)));
}

/// Whether lock and bus between nodes work.
pub fn cluster_available(available: bool) {
    super::alert::cluster_available(available);
    gauge!(CLUSTER_AVAILABLE).set(f64::from(u8::from(available)));
}

/// How many nodes there are, as far as this one knows.
#[expect(clippy::cast_precision_loss, reason = "counts of nodes are far below 2^52")]
pub fn cluster_nodes(nodes: usize) {
    gauge!(CLUSTER_NODES).set(nodes as f64);
}

/// Shares of redeems in the alerts' window.
pub(super) fn ratios(success: f64, conflict: f64) {
    gauge!(REFRESH_SUCCESS_RATIO).set(success);
    gauge!(CONFLICT_RATIO).set(conflict);
}

/// Shows every alert as calm before any begins.
pub(super) fn expect_alerts() {
    for alert in super::alert::Alert::ALL {
        gauge!(ALERT_ACTIVE, "alert" => alert.as_str()).set(0.0);
        counter!(ALERTS, "alert" => alert.as_str()).increment(0);
    }
    gauge!(STORE_AVAILABLE).set(1.0);
}

/// An alert began, rose or ended.
pub(super) fn alert(alert: &'static str, level: u8) {
    gauge!(ALERT_ACTIVE, "alert" => alert).set(f64::from(level));
    if level > 0 {
        counter!(ALERTS, "alert" => alert).increment(1);
    }
}

/// The webhook did not take an alert.
pub(super) fn webhook_failed() {
    counter!(WEBHOOKS_FAILED).increment(1);
}
