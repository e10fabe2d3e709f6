//! Facts over Redis, and by the store for as long as Redis does not answer.

use super::{Bus, Fact, Place, postgres::PostgresBus, redis::RedisBus};

/// Both ways are listened to; one is spoken on. A revocation takes both: it must not wait until a silent Redis is noticed,
/// and whoever hears of it twice does nothing the second time.
pub(super) struct Fallback {
    pub(super) redis: RedisBus,
    pub(super) store: PostgresBus,
}

impl Bus for Fallback {
    fn tell(&self, fact: Fact) {
        let by_redis = self.redis.trouble().is_none();
        if !by_redis || matches!(fact, Fact::Revoked { .. }) {
            self.store.tell(fact.clone());
        }
        if by_redis {
            self.redis.tell(fact);
        }
    }

    fn others_live(&self) -> bool {
        self.redis.others_live() || self.store.others_live()
    }

    fn place(&self) -> Place {
        if self.redis.trouble().is_some() && self.store.trouble().is_none() {
            self.store.place()
        } else {
            self.redis.place()
        }
    }

    fn trouble(&self) -> Option<&'static str> {
        let redis = self.redis.trouble()?;
        Some(self.store.trouble().map_or(
            "redis does not answer; the store carries what changed on other nodes",
            |_| redis,
        ))
    }
}
