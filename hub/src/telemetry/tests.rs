//! Metrics: all of them are in the table, described, and count what they say.

use std::{collections::BTreeSet, time::Duration};

use lockstep_engine::grant::Note;
use lockstep_protocol::{Close, DeviceId, LeaseId, Version};
use uuid::Uuid;

use super::{metrics, note};

fn every_note() -> Vec<Note> {
    let lease = LeaseId(Uuid::nil());
    let device = DeviceId(Uuid::nil());
    let why = || "because".to_owned();
    let mut notes = vec![
        Note::Claimed {
            lease,
            from_version: Version(1),
        },
        Note::Committed { version: Version(2) },
        Note::Adopted { version: Version(2) },
        Note::LeaseWaitTimeout,
        Note::UnknownClaim { lease },
        Note::LateResult { lease },
        Note::Spooled { lease },
        Note::KeptAlternate,
        Note::Suspect { reason: why() },
        Note::ReauthRequired { reason: why() },
        Note::Misconfigured { detail: why() },
        Note::Limited { device },
        Note::Elected { device },
        Note::Declined { device },
    ];
    for outcome in ["committed", "conflict", "unknown"] {
        notes.push(Note::Redeemed {
            lease,
            outcome,
            detail: why(),
            took: Duration::from_millis(30),
        });
    }
    notes
}

/// Lets everything happen that is counted.
fn everything() {
    let user = "alice".parse().expect("a user");
    let grant = "test-provider/main".parse().expect("a grant");
    for one in every_note() {
        note(&user, &grant, &one);
    }
    metrics::session_opened(metrics::Transport::Ws);
    metrics::session_opened(metrics::Transport::Poll);
    metrics::session_closed(metrics::Transport::Ws, Some(Close::Replaced));
    metrics::session_closed(metrics::Transport::Poll, None);
    metrics::refused("test");
    metrics::bad_frame();
    metrics::pushed(3);
    metrics::acked(Some(Duration::from_millis(1)));
    metrics::devices(4, 1);
    metrics::users_resident(2);
    metrics::spool_entries(0);
    metrics::commit_took(Duration::from_micros(300));
    metrics::store_error();
    metrics::store_available(true);
    metrics::cluster_available(true);
    metrics::cluster_nodes(3);
    metrics::ratios(1.0, 0.0);
    metrics::alert("conflict_rate", 1);
    metrics::webhook_failed();
}

/// `lockstep_x_seconds_bucket{le="1"} 2` → `lockstep_x_seconds`.
fn metric_of(line: &str) -> String {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix));
    base.unwrap_or(name).to_owned()
}

#[test]
fn every_metric_is_in_the_table_and_every_one_of_the_table_is_used() {
    metrics::install();
    everything();
    metrics::upkeep();
    let rendered = metrics::render();
    let shown: BTreeSet<_> = rendered
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(metric_of)
        .collect();
    let table: BTreeSet<_> = metrics::TABLE.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(shown, table);
    for metric in metrics::TABLE {
        assert!(metric.name.starts_with("lockstep_"), "{}", metric.name);
        assert!(
            rendered.contains(&format!("# HELP {} {}", metric.name, metric.help)),
            "{}",
            metric.name
        );
        for label in metric.labels {
            assert!(
                rendered
                    .lines()
                    .any(|line| metric_of(line) == metric.name && line.contains(&format!("{label}=\""))),
                "{} has no label {label}",
                metric.name
            );
        }
    }
}

#[test]
fn notes_are_counted_by_provider_and_never_by_user() {
    metrics::install();
    everything();
    let rendered = metrics::render();
    assert!(
        rendered.contains("lockstep_redeems_total{provider=\"test-provider\",outcome=\"conflict\"}"),
        "{rendered}"
    );
    assert!(!rendered.contains("alice"), "{rendered}");
}

#[test]
fn what_has_not_happened_yet_is_shown_at_zero() {
    metrics::install();
    metrics::expect_providers(["quiet-provider".to_owned()].iter());
    let rendered = metrics::render();
    for line in [
        "lockstep_redeems_total{provider=\"quiet-provider\",outcome=\"conflict\"} 0",
        "lockstep_lease_wait_timeouts_total{provider=\"quiet-provider\"} 0",
    ] {
        assert!(rendered.lines().any(|shown| shown == line), "{line}\n{rendered}");
    }
}

/// An operator who is woken looks a name up in that page: it has them all, and no others.
#[test]
fn the_page_for_operators_names_every_metric_and_every_alert() {
    let page = include_str!("../../../docs/operating.md");
    let quoted: BTreeSet<_> = page.split('`').skip(1).step_by(2).collect();
    let known: BTreeSet<_> = metrics::TABLE.iter().map(|metric| metric.name).collect();
    let missing: Vec<_> = known
        .iter()
        .filter(|name| !page.contains(&format!("| `{name}` |")))
        .collect();
    assert!(missing.is_empty(), "not in the table of the page: {missing:?}");
    let named = quoted.iter().filter(|word| word.starts_with("lockstep_"));
    let strange: Vec<_> = named.filter(|name| !known.contains(*name)).collect();
    assert!(strange.is_empty(), "no such metrics: {strange:?}");

    let alerts = page
        .split("## Alerts")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("a chapter");
    let told: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    assert_eq!(told, super::alert::Alert::ALL.map(super::alert::Alert::as_str));
}

#[test]
fn the_process_measures_itself() {
    metrics::install();
    let rendered = metrics::render();
    let value = |name: &str| -> f64 {
        let line = rendered.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.split(' ').nth(1))
            .and_then(|v| v.parse().ok())
            .expect(name)
    };
    assert!(value("lockstep_process_resident_memory_bytes") > 1_000_000.0);
    assert!(value("lockstep_process_cpu_seconds_total") > 0.0);
    assert!(value("lockstep_process_open_fds") > 2.0);
}
