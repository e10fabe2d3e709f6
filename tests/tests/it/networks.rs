//! Bad networks: packets are lost, late, swallowed or forgotten, and no device is left behind for longer than is said here.

use std::time::Duration;

use lockstep_client::{Builder, Timing, TransportChoice};
use lockstep_tests::{
    BOUND, Fleet, GRANT, Scene, eventually,
    fleet::Member,
    network::{Network, Weather, alone},
};
use tokio::time::{Instant, sleep};

/// How many devices use either transport.
const EACH: usize = 3;
const DEVICES: u64 = 2 * EACH as u64;

/// With 30 % of all packets lost each way: the kernel's retransmissions, each after twice the wait of the one before;
/// seldom a connection made anew.
const BEHIND_BY_LOSS: Duration = Duration::from_secs(120);
/// With each packet 400 ms under way.
const BEHIND_BY_DELAY: Duration = Duration::from_secs(20);
/// After a hole has healed: two and a half heartbeats of silence have passed by then, or soon pass; then one connect.
const BEHIND_BY_HOLE: Duration = Duration::from_secs(45);
/// With clients in a [`hurried`] mood: two and a half heartbeats are as long as a silence is borne, and no answer to a poll
/// is waited for longer than 14 s. Then a connect and a back-off; and a machine that stands still for a while.
const BEHIND_IN_A_HURRY: Duration = Duration::from_secs(14 + 3 + 5 + 15);
/// How long the hole lasts, in seconds; a minute on demand.
const HOLE: &str = "LOCKSTEP_BLACK_HOLE";

/// A hub at the near end and devices at the far one, half of them on long-poll.
struct Cast {
    network: Network,
    scene: Scene,
    fleet: Fleet,
    version: u64,
}

impl Cast {
    async fn gather(network: Network, weather: Weather, heartbeat: &str, timing: Timing) -> Self {
        let scene = Scene::set(|settings| {
            settings
                .set("server.listen", network.hub_address().to_string())
                .set("server.behind_proxy", true)
                .set("server.heartbeat", heartbeat)
        })
        .await;
        scene.log_in("alice").await;
        network.weather(|now| *now = weather);
        let mut members = Vec::new();
        for choice in [TransportChoice::Auto, TransportChoice::Poll].repeat(EACH) {
            let (url, device) = (scene.hub.url(""), scene.admin.enrol("alice").await);
            let timing = timing.clone();
            let set = move |builder: Builder| builder.timing(timing).transport(choice);
            let member = network
                .far()
                .spawn(async move { Member::start(&url, device, set).await });
            members.push(member.await.expect("a client starts"));
        }
        let fleet = Fleet { members };
        let took = fleet.reach(1, Duration::from_secs(120)).await;
        eprintln!(
            "{weather:?}: {DEVICES} devices up to date after {took:?}, {:?}",
            fleet.transports()
        );
        Self {
            network,
            scene,
            fleet,
            version: 1,
        }
    }

    async fn rotate(&mut self) {
        self.scene.admin.refresh("alice", GRANT).await.expect(200);
        self.version += 1;
    }

    /// Every device holds the newest within `bound`.
    async fn converge(&self, bound: Duration) -> Duration {
        self.fleet.reach(self.version, bound).await
    }

    /// Connections that were asked for since the counts were taken; resent requests count too.
    fn opened_since(&self, before: u64) -> u64 {
        self.network.counts().opened - before
    }
}

#[test]
fn thirty_percent_loss() {
    alone("networks::thirty_percent_loss", async |network| {
        let weather = Weather {
            loss: 0.3,
            ..Weather::default()
        };
        let mut cast = Cast::gather(network, weather, "25s", Timing::default()).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            cast.rotate().await;
            slowest = slowest.max(cast.converge(BEHIND_BY_LOSS).await);
        }
        let counts = cast.network.counts();
        eprintln!("10 rotations: the slowest device {slowest:?} after; {counts:?}");
        assert!(
            counts.lost * 5 > counts.passed,
            "the weather was better than it should be"
        );
        assert!(counts.opened <= DEVICES * 40, "somebody spins: {counts:?}");
    });
}

#[test]
fn four_hundred_milliseconds_each_way() {
    alone("networks::four_hundred_milliseconds_each_way", async |network| {
        let weather = Weather {
            delay: Duration::from_millis(400),
            ..Weather::default()
        };
        let mut cast = Cast::gather(network, weather, "25s", Timing::default()).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            cast.rotate().await;
            slowest = slowest.max(cast.converge(BEHIND_BY_DELAY).await);
        }
        let counts = cast.network.counts();
        eprintln!("10 rotations: the slowest device {slowest:?} after; {counts:?}");
        assert!(
            slowest >= Duration::from_millis(390),
            "the weather was better than it should be"
        );
        assert!(counts.opened <= DEVICES * 8, "somebody spins: {counts:?}");
    });
}

#[test]
fn a_black_hole_that_heals() {
    let hole = std::env::var(HOLE).ok().and_then(|text| text.parse().ok());
    let hole = Duration::from_secs(hole.unwrap_or(8));
    alone("networks::a_black_hole_that_heals", async |network| {
        let mut cast = Cast::gather(network, Weather::default(), "25s", Timing::default()).await;
        let before = cast.network.counts().opened;

        cast.network.weather(|weather| weather.hole = true);
        cast.rotate().await;
        sleep(hole).await;
        let held = cast.fleet.members.iter().filter_map(|member| {
            let grant = GRANT.parse().expect("a name");
            member.client.state(&grant).version()
        });
        assert!(
            held.into_iter().all(|held| held.0 == 1),
            "something came out of the hole"
        );
        cast.rotate().await;
        cast.network.weather(|weather| weather.hole = false);

        let took = cast.converge(BEHIND_BY_HOLE).await;
        let opened = cast.opened_since(before);
        eprintln!("a hole of {hole:?}: the slowest device {took:?} after it healed; {opened} connections asked for");
        assert!(opened <= DEVICES * (20 + hole.as_secs()), "somebody spins: {opened}");
        // All is well again: the next one comes at once.
        cast.rotate().await;
        cast.converge(BOUND).await;
    });
}

/// In a hurry, so that what takes a minute out there takes seconds here.
fn hurried() -> Timing {
    let mut timing = Timing::default();
    timing.connect = Duration::from_secs(3);
    timing.answer = Duration::from_secs(3);
    timing.poll_wait = Duration::from_secs(8);
    timing
}

#[test]
fn a_nat_that_forgets_idle_flows() {
    alone("networks::a_nat_that_forgets_idle_flows", async |network| {
        let weather = Weather {
            forgets_after: Some(Duration::from_secs(3)),
            ..Weather::default()
        };
        // A heartbeat is longer than the NAT remembers, and a poll is too.
        let mut cast = Cast::gather(network, weather, "4s", hurried()).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            sleep(Duration::from_secs(5)).await;
            cast.rotate().await;
            slowest = slowest.max(cast.converge(BEHIND_IN_A_HURRY).await);
        }
        let counts = cast.network.counts();
        eprintln!("5 rotations, each after 5 s of silence: the slowest device {slowest:?} after; {counts:?}");
        assert!(counts.lost > 0, "the weather was better than it should be");
        // Polls have learned how long a silence may be: what they open now, they open for the NAT's next whim only.
        let before = cast.network.counts().opened;
        let began = Instant::now();
        sleep(Duration::from_secs(15)).await;
        let opened = cast.opened_since(before);
        eprintln!(
            "{opened} connections asked for in {:?} in which nothing happened",
            began.elapsed()
        );
        assert!(opened <= DEVICES * 8, "somebody spins: {opened}");
    });
}

#[test]
fn half_open_sockets() {
    alone("networks::half_open_sockets", async |network| {
        let weather = Weather {
            forgets_after: Some(Duration::from_secs(3600)),
            ..Weather::default()
        };
        let mut cast = Cast::gather(network, weather, "2s", hurried()).await;
        let inside = async || {
            let ready = cast.scene.admin.anonymous(reqwest::Method::GET, "/readyz");
            lockstep_tests::Answer::to(ready).await.body["connections"].as_u64()
        };
        let before = inside().await.expect("a number");
        let opened = cast.network.counts().opened;

        // Both ends believe in connections that are no more.
        cast.network.forget_flows();
        cast.scene.admin.refresh("alice", GRANT).await.expect(200);
        cast.version += 1;

        let took = cast.converge(BEHIND_IN_A_HURRY).await;
        eprintln!("half-open sockets: the slowest device {took:?} after");
        assert!(cast.opened_since(opened) <= DEVICES * 8, "somebody spins");
        let reaped = eventually(
            "the hub has no dead sockets any more",
            Duration::from_secs(90),
            async || inside().await.filter(|inside| *inside <= before + 1),
        )
        .await;
        eprintln!("{before} connections before, {reaped} after");
    });
}
