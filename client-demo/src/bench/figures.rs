//! From measurements to figures.

use hdrhistogram::Histogram;

use super::{
    Options,
    phases::Rated,
    report::{Figure, Report, Setting},
};

/// What is measured of the hub and of the floor alike.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) cold_kib: f64,
    pub(super) warm_kib: f64,
    pub(super) connect_us: f64,
    /// Causing updates at the slow rate, with nobody to deliver them to.
    pub(super) slow_causes: Rated,
    /// The same as fast as possible.
    pub(super) fast_causes: Rated,
    pub(super) slow: Rated,
    pub(super) fast: Rated,
    pub(super) last: Histogram<u64>,
}

impl Common {
    /// CPU per delivery at the slow rate, without what causing it cost.
    fn slow_us(&self) -> f64 {
        (self.slow.cpu_us - self.slow.causes * self.slow_causes.cpu_us).max(0.0)
    }

    fn fast_us(&self) -> f64 {
        (self.fast.cpu_us - self.fast.causes * self.fast_causes.cpu_us).max(0.0)
    }

    /// Deliveries that a second of CPU is good for.
    fn per_cpu_second(&self) -> f64 {
        1e6 / self.fast_us().max(0.001)
    }
}

/// What is measured of the hub with its store in memory.
#[derive(Debug)]
pub(super) struct HubFigures {
    pub(super) common: Common,
    pub(super) askers: u32,
    pub(super) redeems: u64,
}

/// What is measured of the hub with its store on disk.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) slow: Rated,
    pub(super) commits: Rated,
}

pub(super) fn report(
    options: Options,
    pinned: bool,
    hub: &HubFigures,
    durable: &Durable,
    floor: &Common,
    bare_store: f64,
) -> Report {
    let mut figures = memory_and_cpu(&hub.common, floor);
    figures.extend(latency(&hub.common, durable, floor));
    figures.push(
        Figure::cost(
            "refreshes at the provider when all ask at once",
            "redeems",
            hub.redeems as f64,
        )
        .aims(1.0, 1.0),
    );
    figures.push(
        Figure::yields("durable commits, 64 waiting", "1/s", durable.commits.rate)
            .floor(bare_store)
            .aims(10_000.0, 50_000.0),
    );
    Report {
        setting: Setting {
            connections: options.connections,
            devices_per_user: options.devices_per_user,
            pinned,
            release: !cfg!(debug_assertions),
        },
        figures,
        notes: notes(hub, durable, floor),
    }
}

fn memory_and_cpu(hub: &Common, floor: &Common) -> Vec<Figure> {
    vec![
        Figure::cost("memory per idle device, after traffic", "KiB", hub.warm_kib)
            .floor(floor.warm_kib)
            .aims(10.0, 3.0),
        Figure::cost("memory per idle device, before traffic", "KiB", hub.cold_kib).floor(floor.cold_kib),
        Figure::cost("CPU per update at the highest rate", "us", hub.fast_us())
            .floor(floor.fast_us())
            .aims(20.0, 12.0),
        Figure::cost("CPU per update at 2,000/s", "us", hub.slow_us())
            .floor(floor.slow_us())
            .aims(45.0, 30.0),
        Figure::yields("acked deliveries per CPU-second", "1/s", hub.per_cpu_second())
            .floor(floor.per_cpu_second())
            .aims(45_000.0, 65_000.0),
        Figure::yields("the same, the updates' causes included", "1/s", hub.fast.rate).floor(floor.fast.rate),
        Figure::cost("CPU per connect, authenticated and synced", "us", hub.connect_us)
            .floor(floor.connect_us)
            .aims(200.0, 100.0),
    ]
}

fn latency(hub: &Common, durable: &Durable, floor: &Common) -> Vec<Figure> {
    let at = |histogram: &Histogram<u64>, quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
    let pair = |name, quantile| {
        Figure::cost(name, "ms", at(&hub.slow.latency, quantile)).floor(at(&floor.slow.latency, quantile))
    };
    vec![
        pair("login to device at 2,000/s, p50", 0.5),
        pair("login to device at 2,000/s, p99", 0.99).aims(1.0, 0.5),
        pair("login to device at 2,000/s, p99.9", 0.999),
        Figure::cost("the same, durable, p50", "ms", at(&durable.slow.latency, 0.5)),
        Figure::cost("the same, durable, p99", "ms", at(&durable.slow.latency, 0.99)),
        Figure::cost("last device of one user, p50", "ms", at(&hub.last, 0.5))
            .floor(at(&floor.last, 0.5))
            .aims(14.0, 10.0),
        Figure::cost("last device of one user, p99", "ms", at(&hub.last, 0.99))
            .floor(at(&floor.last, 0.99))
            .aims(25.0, 17.0),
    ]
}

fn notes(hub: &HubFigures, durable: &Durable, floor: &Common) -> Vec<String> {
    let common = &hub.common;
    vec![
        "floor: bare tokio-tungstenite with 1 KiB read and no write buffer; for commits, bare redb; same run, same generator".into(),
        format!(
            "updates are caused by logins over the admin API, store in memory; their cost with nobody connected ({:.0} us each \
             at the slow rate, {:.0} us at the highest) is measured apart and subtracted from CPU per update",
            common.slow_causes.cpu_us, common.fast_causes.cpu_us
        ),
        format!(
            "highest rate: {}; floor: {}",
            busy(&common.fast),
            busy(&floor.fast)
        ),
        format!(
            "latency counts from the sending of the login; durable: file store, {:.0} logins/s at {:.0} us of hub CPU each",
            durable.slow.rate * durable.slow.causes,
            durable.commits.cpu_us
        ),
        format!("{} devices asked at once", hub.askers),
    ]
}

fn busy(rated: &Rated) -> String {
    format!(
        "{:.0} deliveries/s with the server's core {:.0} % busy and the generator's {:.0} %",
        rated.rate,
        rated.busy * 100.0,
        rated.generator_busy * 100.0
    )
}
