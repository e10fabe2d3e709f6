//! Running statements: within a time, and with an honest word about what became of them.

use std::{future::Future, sync::Arc, time::Duration};

use sqlx::{
    PgPool, Postgres as Database,
    error::Error,
    pool::PoolConnection,
    postgres::{PgArguments, PgDatabaseError, PgRow, PgSeverity},
    query::Query,
};

use super::{
    super::{Answer, StoreError},
    horizon::Horizon,
};

/// A statement with its values.
pub(super) type Statement<'q> = Query<'q, Database, PgArguments>;

/// How much longer than the server an answer is waited for: the server ends its statements itself, and is then heard.
const LATE: Duration = Duration::from_secs(1);

/// The store over a pool of connections.
pub(in crate::store) struct Postgres {
    pub(super) pool: PgPool,
    /// For the mark and what is done about it: the one way to a server that the pool leaves alone.
    pub(super) aside: PgPool,
    pub(super) horizon: Arc<Horizon>,
    pub(super) statement_timeout: Duration,
}

impl Postgres {
    /// Rows, if the server answers. Whatever goes wrong with a reading, nothing was done.
    pub(super) async fn read_all(&self, statement: Statement<'_>) -> Answer<Vec<PgRow>> {
        self.read_from(&self.pool, statement).await
    }

    /// The same from a pool of the caller's choice.
    pub(super) async fn read_from(&self, pool: &PgPool, statement: Statement<'_>) -> Answer<Vec<PgRow>> {
        let mut connection = connection(pool).await?;
        let answer = Within(self.statement_timeout)
            .run(statement.fetch_all(&mut *connection))
            .await;
        finish(connection, answer).map_err(Failure::of_reading)
    }

    /// The row, if there is one.
    pub(super) async fn read(&self, statement: Statement<'_>) -> Answer<Option<PgRow>> {
        Ok(self.read_all(statement).await?.pop())
    }

    /// Rows that a statement changed: durable when this returns `Ok`.
    pub(super) async fn write_all(&self, statement: Statement<'_>) -> Answer<Vec<PgRow>> {
        let mut connection = connection(&self.pool).await?;
        let answer = Within(self.statement_timeout)
            .run(statement.fetch_all(&mut *connection))
            .await;
        finish(connection, answer).map_err(Failure::of_writing)
    }

    /// The row that a statement changed, if it did.
    pub(super) async fn write(&self, statement: Statement<'_>) -> Answer<Option<PgRow>> {
        Ok(self.write_all(statement).await?.pop())
    }

    /// Whether a statement changed a row.
    pub(super) async fn changes(&self, statement: Statement<'_>) -> Answer<bool> {
        let mut connection = connection(&self.pool).await?;
        let answer = Within(self.statement_timeout)
            .run(statement.execute(&mut *connection))
            .await;
        let done = finish(connection, answer).map_err(Failure::of_writing)?;
        Ok(done.rows_affected() > 0)
    }

    /// Opens a transaction whose statements may each take `limit`.
    pub(super) async fn begin(&self, pool: &PgPool, limit: Duration) -> Answer<Transaction> {
        let mut transaction = Transaction {
            connection: Some(connection(pool).await?),
            limit,
        };
        transaction.execute(sqlx::query("BEGIN")).await?;
        if limit != self.statement_timeout {
            let limit = limit.as_millis().to_string();
            let set = "SELECT set_config('statement_timeout', $1, true)";
            transaction.execute(sqlx::query(set).bind(limit)).await?;
        }
        Ok(transaction)
    }
}

/// A connection to say something on. Without one, nothing was said.
async fn connection(pool: &PgPool) -> Answer<PoolConnection<Database>> {
    pool.acquire().await.map_err(|error| Failure::from(error).of_reading())
}

/// Several statements that count together. Dropped before the commit, it is undone by the end of its connection.
pub(super) struct Transaction {
    connection: Option<PoolConnection<Database>>,
    limit: Duration,
}

impl Transaction {
    /// Rows of one statement. As long as nothing is committed, nothing is done.
    pub(super) async fn all(&mut self, statement: Statement<'_>) -> Answer<Vec<PgRow>> {
        let Some(connection) = &mut self.connection else {
            return Err(StoreError::Refused("the transaction is over".into()));
        };
        let answer = Within(self.limit).run(statement.fetch_all(&mut **connection)).await;
        answer.map_err(Failure::of_reading)
    }

    /// One statement whose rows do not matter.
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Answer<()> {
        self.all(statement).await.map(drop)
    }

    /// Makes it all count.
    pub(super) async fn commit(mut self) -> Answer<()> {
        let Some(mut connection) = self.connection.take() else {
            return Err(StoreError::Refused("the transaction is over".into()));
        };
        let commit = sqlx::query("COMMIT").execute(&mut *connection);
        let answer = Within(self.limit).run(commit).await;
        finish(connection, answer).map(drop).map_err(Failure::of_writing)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

struct Within(Duration);

impl Within {
    async fn run<T>(self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.0 + LATE, work).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure {
                why: format!("no answer within {:?}", self.0 + LATE),
                certain: false,
            }),
        }
    }
}

/// Gives the connection back, or ends it when it is not known what state it is in.
fn finish<T>(mut connection: PoolConnection<Database>, answer: Result<T, Failure>) -> Result<T, Failure> {
    if answer.as_ref().is_err_and(|failure| !failure.certain) {
        connection.close_on_drop();
    }
    answer
}

/// Why a statement gave no answer.
pub(super) struct Failure {
    why: String,
    /// The server itself said that it did nothing.
    certain: bool,
}

impl Failure {
    fn of_reading(self) -> StoreError {
        StoreError::Refused(self.why)
    }

    fn of_writing(self) -> StoreError {
        if self.certain {
            StoreError::Refused(self.why)
        } else {
            StoreError::Unknown(self.why)
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // A server that ends a connection (shutdown, crash of a neighbour) may have committed before: only an error of
        // the statement itself is known to have undone it.
        let certain = match &error {
            Error::Database(error) => error
                .try_downcast_ref::<PgDatabaseError>()
                .is_some_and(|error| error.severity() == PgSeverity::Error),
            _ => false,
        };
        let why = match &error {
            Error::PoolTimedOut => "postgres: no connection in time".to_owned(),
            error => format!("postgres: {error}"),
        };
        Self { why, certain }
    }
}
