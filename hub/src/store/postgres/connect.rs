//! Getting to a store: a bounded pool, sessions set as the store needs them, and the tables made.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Executor, PgPool,
    error::Error,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
};

use super::{
    super::{Answer, StoreError, fresh_epoch},
    horizon::Horizon,
    run::Postgres,
    whole,
};

/// How a store reaches PostgreSQL.
#[derive(Debug, Clone)]
pub struct Pooling {
    /// Connections at once.
    pub connections: u32,
    /// How long one may wait for a connection: a server that is gone must not hold up those who can do without it.
    pub connect_within: Duration,
    /// The longest that one statement may take.
    pub statement_timeout: Duration,
    /// How long to try when a hub starts and nobody answers.
    pub start_within: Duration,
}

impl Default for Pooling {
    fn default() -> Self {
        Self {
            connections: 8,
            connect_within: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            start_within: Duration::from_secs(30),
        }
    }
}

/// Connections beside the pool.
const ASIDE: u32 = 2;
/// A connection that was idle for longer is asked whether it lives before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to reach a server at the start.
const MOST_PAUSE: Duration = Duration::from_secs(2);
/// How long making the tables may take.
const MIGRATE_WITHIN: Duration = Duration::from_secs(120);

/// Opens the store at `url` and makes or upgrades its tables.
pub(in crate::store) async fn open(url: &str, pooling: &Pooling) -> Answer<Postgres> {
    let options = options(url)?;
    migrate(&options, pooling).await?;
    let horizon = Arc::new(Horizon::default());
    let store = Postgres {
        pool: pool(
            options.clone(),
            pooling.connections,
            pooling,
            Some(Arc::clone(&horizon)),
        ),
        aside: pool(options, ASIDE, pooling, None),
        horizon,
        statement_timeout: pooling.statement_timeout,
    };
    store.make_mark(fresh_epoch()).await?;
    Ok(store)
}

/// What `url` says of a server. It may hold a password: it is never repeated.
pub(crate) fn options(url: &str) -> Answer<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::Refused("store url: not a URL of PostgreSQL".into()))?;
    Ok(options.application_name("lockstep-hub").disable_statement_logging())
}

fn pool(options: PgConnectOptions, connections: u32, pooling: &Pooling, horizon: Option<Arc<Horizon>>) -> PgPool {
    let timeout = pooling.statement_timeout.as_millis();
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(pooling.connect_within)
        .test_before_acquire(false)
        .before_acquire(|connection, known| {
            Box::pin(async move {
                if known.idle_for > TRUSTED_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            let horizon = horizon.clone();
            Box::pin(async move {
                set_up(connection, timeout).await?;
                match horizon {
                    Some(horizon) => look_before(connection, &horizon).await,
                    None => Ok(()),
                }
            })
        })
        .connect_lazy_with(options)
}

/// What the store's promises need, whatever the server's own defaults are. A commit that waits for more than its own disk
/// (`remote_apply`) is left so.
async fn set_up(connection: &mut PgConnection, statement_timeout: u128) -> Result<(), Error> {
    let settings = format!(
        "SET default_transaction_isolation = 'read committed'; SET statement_timeout = {statement_timeout}; \
         SET idle_in_transaction_session_timeout = {statement_timeout}; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local')"
    );
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(settings))).await?;
    Ok(())
}

/// Leaves a server alone that lacks what was seen of the store.
async fn look_before(connection: &mut PgConnection, horizon: &Horizon) -> Result<(), Error> {
    let row = sqlx::query(whole::MARK).fetch_optional(connection).await?;
    // None: a new store, whose lifetime is about to be written.
    let allows = row.is_none_or(|row| whole::mark(Some(&row)).is_ok_and(|mark| horizon.allows(mark)));
    if allows {
        Ok(())
    } else {
        Err(Error::Protocol(
            "the store is behind what was seen of it, or in another lifetime".into(),
        ))
    }
}

/// Makes the tables, once somebody answers. Nodes that start at once wait for each other.
async fn migrate(options: &PgConnectOptions, pooling: &Pooling) -> Answer<()> {
    let mut connection = reach(options, pooling).await?;
    let made = async {
        let mut migrator = sqlx::migrate!("./migrations");
        migrator.dangerous_set_table_name("lockstep.migrations");
        // Only where it is missing: a role that may not make schemas can be given one.
        let known: bool = sqlx::query_scalar("SELECT to_regnamespace('lockstep') IS NOT NULL")
            .fetch_one(&mut connection)
            .await?;
        if !known {
            migrator.create_schema("lockstep");
        }
        migrator.run_direct(None, &mut connection, false).await
    };
    let made: Result<(), MigrateError> = tokio::time::timeout(MIGRATE_WITHIN, made)
        .await
        .map_err(|_| StoreError::Refused(format!("postgres: no tables within {MIGRATE_WITHIN:?}")))?;
    made.map_err(|error| StoreError::Refused(format!("postgres: tables cannot be made: {error}")))?;
    // Whatever becomes of the goodbye, the tables are there.
    let _ = connection.close().await;
    Ok(())
}

/// A connection, tried for again and again while the server may be on its way up.
async fn reach(options: &PgConnectOptions, pooling: &Pooling) -> Answer<PgConnection> {
    let Pooling {
        connect_within,
        start_within,
        ..
    } = *pooling;
    let deadline = Instant::now() + start_within;
    let mut pause = Duration::from_millis(100);
    loop {
        let why = match tokio::time::timeout(connect_within, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if !may_pass(&error) => return Err(StoreError::Refused(format!("postgres: {error}"))),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {connect_within:?}"),
        };
        if Instant::now() + pause > deadline {
            let host = format!("{}:{}", options.get_host(), options.get_port());
            return Err(StoreError::Refused(format!(
                "postgres: {host} was not reached within {start_within:?}: {why}"
            )));
        }
        tracing::warn!(error = why, "the store is not reached yet");
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(MOST_PAUSE);
    }
}

/// Whether trying again can help: a server that starts, stops, recovers or is full, or a network that is not there yet. A
/// wrong password or database stays wrong.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Io(_) => true,
        Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("57P") || code.starts_with("53") || code.starts_with("08")),
        _ => false,
    }
}
