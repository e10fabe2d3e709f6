//! Facts over Redis, and by the store for as long as Redis does not answer.

use super::{Bus, Fact, Place, postgres::PostgresBus, redis::RedisBus};

/// Both ways are listened to; one is spoken on.
pub(super) struct Fallback {
    pub(super) redis: RedisBus,
    pub(super) store: PostgresBus,
}

impl Bus for Fallback {
    fn tell(&self, fact: Fact) {
        if self.redis.trouble().is_none() {
            self.redis.tell(fact);
        } else {
            self.store.tell(fact);
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
