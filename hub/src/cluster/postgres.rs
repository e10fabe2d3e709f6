//! Facts by the store's own `NOTIFY`: for clusters without Redis, and for as long as Redis does not answer.
//!
//! Two connections of its own, made anew when they are lost: a busy pool delays no fact, and a fact takes nobody's place
//! in the pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sqlx::{
    ConnectOptions, Executor,
    error::Error,
    postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions},
};
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};

use super::{
    Bus, Fact, Heard, Place,
    nodes::{Nodes, Told},
};
use crate::store;

/// The channel of all facts.
const CHANNEL: &str = "lockstep_facts";
/// How many facts may wait to be sent; above it they are dropped.
const MOST_WAITING: usize = 8192;
/// The most that is sent at once.
const BATCH: usize = 256;
/// How often a node says that it is alive. Its own word coming back proves that the channel works.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Silence for this long, one's own word included, means that the channel is lost.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// No answer within this time is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The longest pause between two attempts to connect; the actual one is drawn from zero to this.
const MOST_PAUSE: Duration = Duration::from_secs(1);

const NOTIFY: &str = "SELECT pg_notify($1, told) FROM unnest($2::text[]) AS told";

/// Facts by `NOTIFY`.
pub(super) struct PostgresBus {
    say: mpsc::Sender<Fact>,
    nodes: Arc<Nodes>,
    up: Arc<AtomicBool>,
    node: String,
    /// What was known last: a node that hears nothing is not alone for that.
    place: Mutex<Place>,
}

impl PostgresBus {
    /// Connects, now and whenever the connection is lost.
    pub(super) fn start(url: &str, node: &str, hear: mpsc::Sender<Heard>) -> Result<Self, String> {
        let options = store::postgres_options(url).map_err(|error| error.to_string())?;
        let (say, to_say) = mpsc::channel(MOST_WAITING);
        let (nodes, up) = (Arc::new(Nodes::default()), Arc::new(AtomicBool::new(false)));
        tokio::spawn(speak(options.clone(), node.to_owned(), to_say));
        let ear = Ear {
            options,
            node: node.to_owned(),
            hear,
            nodes: Arc::clone(&nodes),
            up: Arc::clone(&up),
        };
        tokio::spawn(ear.listen());
        Ok(Self {
            say,
            nodes,
            up,
            node: node.to_owned(),
            place: Mutex::new(Place::ALONE),
        })
    }
}

impl Bus for PostgresBus {
    fn tell(&self, fact: Fact) {
        // Full: the server does not answer. What is dropped here is found by the other nodes' sweep.
        let _ = self.say.try_send(fact);
    }

    fn others_live(&self) -> bool {
        self.nodes.any()
    }

    fn place(&self) -> Place {
        let mut place = self.place.lock();
        if self.up.load(Ordering::Relaxed) {
            *place = self.nodes.place_of(&self.node);
        }
        *place
    }

    fn trouble(&self) -> Option<&'static str> {
        let up = self.up.load(Ordering::Relaxed);
        (!up).then_some("changes on other nodes are found by the sweep")
    }
}

async fn pause() {
    sleep(MOST_PAUSE.mul_f64(rand::random::<f64>())).await;
}

/// Sends what this node has to tell.
async fn speak(options: PgConnectOptions, node: String, mut facts: mpsc::Receiver<Fact>) {
    let mut alive = interval(ALIVE_EVERY);
    let mut connection: Option<PgConnection> = None;
    loop {
        let first = tokio::select! {
            fact = facts.recv() => match fact {
                Some(fact) => fact,
                None => return,
            },
            _ = alive.tick() => Fact::Alive,
        };
        let mut told = vec![Told::text(&node, first)];
        while told.len() < BATCH
            && let Ok(fact) = facts.try_recv()
        {
            told.push(Told::text(&node, fact));
        }
        if connection.is_none() {
            connection = timeout(ANSWER_WITHIN, connect(&options))
                .await
                .ok()
                .and_then(Result::ok);
        }
        let Some(live) = &mut connection else {
            // What waits meanwhile is old by the time there is a connection; the sweep has found it by then.
            while facts.try_recv().is_ok() {}
            pause().await;
            continue;
        };
        let notify = sqlx::query(NOTIFY).bind(CHANNEL).bind(told).execute(live);
        if !matches!(timeout(ANSWER_WITHIN, notify).await, Ok(Ok(_))) {
            connection = None;
        }
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let mut connection = options.connect().await?;
    // A fact is worth no fsync.
    connection.execute("SET synchronous_commit = 'off'").await?;
    Ok(connection)
}

/// What this node hears.
struct Ear {
    options: PgConnectOptions,
    node: String,
    hear: mpsc::Sender<Heard>,
    nodes: Arc<Nodes>,
    up: Arc<AtomicBool>,
}

impl Ear {
    /// Takes in what all nodes tell, for as long as somebody wants to hear it.
    async fn listen(self) {
        while !self.hear.is_closed() {
            if let Err(error) = self.subscription().await {
                tracing::debug!(%error, "facts are not heard from the store");
            }
            self.up.store(false, Ordering::Relaxed);
            pause().await;
        }
    }

    async fn subscription(&self) -> Result<(), Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ANSWER_WITHIN)
            .connect_lazy_with(self.options.clone());
        let connect = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, Error>(listener)
        };
        let Ok(connected) = timeout(ANSWER_WITHIN, connect).await else {
            return Ok(());
        };
        let mut listener = connected?;
        // Whatever was told before this moment is missed.
        let _ = self.hear.send(Heard::Gap).await;
        while let Ok(Ok(Some(told))) = timeout(SILENT_FOR, listener.try_recv()).await {
            self.up.store(true, Ordering::Relaxed);
            self.nodes
                .take_in(told.payload().as_bytes(), &self.node, &self.hear)
                .await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lockstep_protocol::Seq;
    use lockstep_tests::Postgres as Server;

    use super::*;
    use crate::cluster::{Cluster, join};
    use crate::config::ClusterUrl;

    async fn connected(cluster: &Cluster) {
        for _ in 0..3_000 {
            if cluster.bus.trouble().is_none() && cluster.bus.others_live() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}", cluster.bus.trouble());
    }

    fn moved(seq: u64) -> Fact {
        Fact::Moved {
            user: "alice".parse().unwrap(),
            seq: Seq(seq),
        }
    }

    async fn next(cluster: &mut Cluster) -> Heard {
        timeout(Duration::from_secs(60), cluster.heard.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Tells a thousand facts. Whether all of them came, one after the other: they do, unless a connection was made
    /// anew meanwhile because the machine stood still.
    async fn crossed(one: &Cluster, two: &mut Cluster, from: u64) -> bool {
        let began = std::time::Instant::now();
        for seq in from..from + 1000 {
            one.bus.tell(moved(seq));
        }
        let mut wanted = from;
        while wanted < from + 1000 {
            match timeout(Duration::from_secs(20), two.heard.recv()).await {
                Ok(Some(Heard::Fact(fact))) if fact == moved(wanted) => wanted += 1,
                Ok(Some(Heard::Fact(Fact::Moved { seq, .. }))) if seq.0 < from => {}
                Ok(Some(Heard::Gap)) => return false,
                other => {
                    assert!(began.elapsed() >= ANSWER_WITHIN, "{other:?} in place of {wanted}");
                    return false;
                }
            }
        }
        true
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn facts_cross_and_a_lost_connection_is_noticed_and_made_anew() {
        let url = Server::database().await;
        let one = join(&ClusterUrl::Local, Some(&url), "one").unwrap();
        let mut two = join(&ClusterUrl::Local, Some(&url), "two").unwrap();
        connected(&one).await;
        connected(&two).await;
        assert_eq!(next(&mut two).await, Heard::Gap, "what was told before is missed");
        let mut round = 0;
        while !crossed(&one, &mut two, 1 + round * 1000).await {
            round += 1;
            assert!(round < 3, "facts do not cross");
        }

        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockstep-hub' AND datname = current_database()")
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(next(&mut two).await, Heard::Gap, "facts may have been lost");
        let mut seq = 5000;
        loop {
            // What is told while a connection is lost may be lost with it.
            one.bus.tell(moved(seq));
            if let Ok(Some(Heard::Fact(_))) = timeout(Duration::from_millis(500), two.heard.recv()).await {
                break;
            }
            seq += 1;
            assert!(seq < 5100, "no fact comes any more");
        }
        drop(one);
        for _ in 0..3_000 {
            if !two.bus.others_live() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("a node that is gone still counts");
    }
}
