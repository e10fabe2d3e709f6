//! Locks over Redis: `SET NX PX` with an owner value, compare-and-renew, compare-and-delete.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lockstep_protocol::{GrantName, LeaseId, UserId};
use redis::{ExistenceCheck, RedisResult, Script, SetExpiry, SetOptions, aio::ConnectionManager, cmd};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{Address, CONNECT_WITHIN, Up};
use crate::cluster::Lock;

/// How often one who waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Locks over Redis.
pub(crate) struct RedisLock {
    address: Arc<Address>,
    up: Arc<Up>,
    connection: Mutex<Option<ConnectionManager>>,
    renew: Script,
    release: Script,
}

impl RedisLock {
    pub(super) fn new(address: Arc<Address>, up: Arc<Up>) -> Self {
        Self {
            address,
            up,
            connection: Mutex::new(None),
            renew: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0",
            ),
            release: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
            ),
        }
    }

    /// A connection, if Redis was heard lately: nobody waits for one that is gone.
    async fn connection(&self) -> Option<ConnectionManager> {
        if !self.up.is() {
            return None;
        }
        let mut connection = self.connection.lock().await;
        if connection.is_none() {
            *connection = timeout(CONNECT_WITHIN, self.address.connect())
                .await
                .ok()
                .and_then(Result::ok);
        }
        connection.clone()
    }

    /// The next who asks connects anew.
    async fn lost(&self) {
        *self.connection.lock().await = None;
    }

    /// None: Redis could not be asked.
    async fn try_take(&self, key: &str, owner: &str, ttl: Duration) -> Option<bool> {
        let mut connection = self.connection().await?;
        let options = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::PX(millis(ttl)));
        let taken: RedisResult<Option<String>> = cmd("SET")
            .arg(key)
            .arg(owner)
            .arg(options)
            .query_async(&mut connection)
            .await;
        match taken {
            Ok(answer) => Some(answer.is_some()),
            Err(_) => {
                self.lost().await;
                None
            }
        }
    }
}

fn key(user: &UserId, grant: &GrantName) -> String {
    format!("lockstep:lock:{user}:{grant}")
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Lock for RedisLock {
    async fn take(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl: Duration, wait: Duration) {
        let (key, owner) = (key(user, grant), lease.to_string());
        let until = Instant::now() + wait;
        while self.try_take(&key, &owner, ttl).await == Some(false) && Instant::now() < until {
            sleep(LOOK_EVERY.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }

    async fn renew(&self, user: &UserId, grant: &GrantName, lease: LeaseId, ttl: Duration) {
        let Some(mut connection) = self.connection().await else {
            return;
        };
        let mut call = self.renew.key(key(user, grant));
        call.arg(lease.to_string()).arg(millis(ttl));
        if call.invoke_async::<i64>(&mut connection).await.is_err() {
            self.lost().await;
        }
    }

    async fn release(&self, user: &UserId, grant: &GrantName, lease: LeaseId) {
        let Some(mut connection) = self.connection().await else {
            return;
        };
        let mut call = self.release.key(key(user, grant));
        call.arg(lease.to_string());
        if call.invoke_async::<i64>(&mut connection).await.is_err() {
            self.lost().await;
        }
    }
}
