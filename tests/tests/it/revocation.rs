//! A device that is revoked at one node is out at all of them: its session, its polls, its tokens, its slaves; by whichever
//! way the nodes hear of each other. How long that takes is printed; that it comes is what is asserted.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use lockstep_tests::{
    Answer, BOUND, Cluster, Enrolled, Event, GRANT, Session, Weather,
    admin::http,
    eventually,
    provider::Rules,
    torture::{Arena, Ground, Wire},
    within,
};
use reqwest::Method;
use tokio::time::timeout;

/// Where the device has its session, where it is revoked, and where it tries its tokens.
const HOME: usize = 0;
const JUDGE: usize = 1;
const ELSEWHERE: usize = 2;

/// Once for each way, so that a lucky moment is not the figure.
const TIMES: usize = 5;

/// How long after the operator's order what was over.
#[derive(Debug, Default)]
struct Took {
    session: Vec<Duration>,
    poll: Vec<Duration>,
    tokens: Vec<Duration>,
}

impl Took {
    fn show(&mut self, way: &str) {
        let show = |times: &mut Vec<Duration>| {
            times.sort();
            format!("{:.1?}, at most {:.1?}", times[times.len() / 2], times[times.len() - 1])
        };
        eprintln!(
            "{way}: its session is closed after {}; its poll ends after {}; its tokens are refused after {}",
            show(&mut self.session),
            show(&mut self.poll),
            show(&mut self.tokens)
        );
    }
}

async fn slave(cluster: &Cluster, device: &Enrolled) -> String {
    let path = format!("/admin/v1/devices/{}/grants/{GRANT}", device.id);
    let slave = Answer::to(cluster.admin(HOME).request(Method::POST, &path))
        .await
        .expect(201);
    slave["refresh_token"].as_str().expect("a slave").to_owned()
}

async fn redeem(cluster: &Cluster, token: &str) -> Answer {
    let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
    Answer::to(http().post(cluster.hubs[ELSEWHERE].url("/oauth/token")).form(&form)).await
}

/// Everything that the device has is refused at a node that had no part in it.
async fn assert_out(cluster: &Cluster, device: &Enrolled, slave: &str) {
    cluster.poll(ELSEWHERE, device, "").await.expect(401);
    for token in [slave, &device.refresh_token] {
        assert_eq!(redeem(cluster, token).await.expect(400)["error"], "invalid_grant");
    }
    let mut session = Session::open(cluster.hubs[ELSEWHERE].listen)
        .await
        .expect("the hub listens");
    session.send(&device.hello(None)).await;
    assert_eq!(session.next().await, Event::Closed(4403));
}

async fn revoke(cluster: &Cluster, took: &mut Took) {
    let device = cluster.admin(HOME).enrol("alice").await;
    let slave = slave(cluster, &device).await;
    redeem(cluster, &slave).await.expect(200);
    let (mut session, _) = Session::connect(&cluster.hubs[HOME], &device, None).await;
    let cursor = session.cursor().expect("a cursor");
    let query = format!("?after={cursor}&wait=55");
    let mut poll = pin!(cluster.poll(ELSEWHERE, &device, &query));
    let early = timeout(Duration::from_millis(300), &mut poll).await;
    assert!(early.is_err(), "there is nothing to tell: {early:?}");

    let began = Instant::now();
    let order = async { cluster.admin(JUDGE).revoke(&device).await.expect(204) };
    let over = async {
        assert_eq!(session.closed().await, Some(4403));
        began.elapsed()
    };
    let ends = async {
        within("the poll ends", BOUND, poll).await.expect(401);
        began.elapsed()
    };
    let refused = eventually("its token is refused elsewhere", BOUND, async || {
        (cluster.get_token(ELSEWHERE, &device).await.status == 401).then(|| began.elapsed())
    });
    let (_, over, ends, refused) = tokio::join!(order, over, ends, refused);
    took.session.push(over);
    took.poll.push(ends);
    took.tokens.push(refused);
    assert_out(cluster, &device, &slave).await;
}

async fn revoke_some(cluster: &Cluster, way: &str) {
    let mut took = Took::default();
    for _ in 0..TIMES {
        revoke(cluster, &mut took).await;
    }
    took.show(way);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_on_every_node_whatever_redis_does() {
    let mut cluster = Cluster::start().await;
    cluster.user("alice").await;
    revoke_some(&cluster, "by Redis").await;

    // Stopped in its tracks: nobody has noticed yet.
    let mut took = Took::default();
    cluster.redis.as_ref().expect("a Redis").pause();
    revoke(&cluster, &mut took).await;
    took.show("Redis silent since a moment");
    cluster.redis.as_ref().expect("a Redis").resume();
    cluster.all_say("ok").await;

    let mut took = Took::default();
    cluster.redis.as_mut().expect("a Redis").kill9().await;
    revoke(&cluster, &mut took).await;
    took.show("Redis gone since a moment");
    cluster.all_say("degraded").await;
    revoke_some(&cluster, "Redis gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_on_every_node_of_a_cluster_without_redis() {
    let cluster = Cluster::with(3, false, Rules::default(), |settings| settings).await;
    cluster.user("alice").await;
    cluster.all_count(&[0, 1, 2], 3).await;
    revoke_some(&cluster, "by the store").await;
}

/// Whose device it was is in what the other node told: the store need not be asked, and the sweep would come too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_from_the_store_closes_the_session_all_the_same() {
    let arena = Arena::start(Ground::Proxies, "4s").await;
    let (cut_off, judge) = (&arena.nodes[0], &arena.nodes[1]);
    let device = judge.hub.admin().enrol(&arena.users[0].name).await;
    let mut session = Session::fresh(&cut_off.hub, &device).await;
    cut_off.turn(Wire::Postgres, Weather::Silent);

    let began = Instant::now();
    judge.hub.admin().revoke(&device).await.expect(204);
    assert_eq!(session.closed().await, Some(4403));
    eprintln!("without the store: its session is closed after {:?}", began.elapsed());

    let poll = http().get(cut_off.hub.url("/v1/tokens"));
    Answer::to(poll.bearer_auth(&device.access_token)).await.expect(401);
}
