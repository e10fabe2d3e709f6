//! A small share of what `cargo run -p lockstep-tests --example restart` measures with thousands.

use lockstep_tests::restart::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_device_comes_back_after_a_restart() {
    let plan = Plan {
        devices: 60,
        devices_per_user: 6,
        kill: false,
    };
    let report = run(plan).await;
    eprintln!("{report}");
    assert_eq!(report.converged.len(), 60);
    assert!(
        report.after.peak_kib > 0 && report.after.cpu.as_millis() > 0,
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_comes_back_after_a_crash() {
    let plan = Plan {
        devices: 60,
        devices_per_user: 6,
        kill: true,
    };
    let report = run(plan).await;
    eprintln!("{report}");
    assert_eq!(report.converged.len(), 60);
}
