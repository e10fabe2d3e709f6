//! Commands that wait for something: each runs in a task of its own and comes back as an input.
//!
//! A task goes on when whoever asked is gone, and the hub waits for the running ones before it stops.

use std::{sync::Arc, time::Duration};

use lockstep_engine::{
    grant::{ClaimAnswer, Command, CommitAnswer, CommitRequest, Input, PermitAnswer, ProviderReply, Trouble},
    preload::{self, Life},
    record::GrantRecord,
    time::Unix,
};
use lockstep_protocol::{DeviceId, GrantName, LeaseId, Version};

use super::OsEntropy;
use crate::{
    app::Hub,
    audit::{By, Event, HexHash},
    clock, spool,
    store::{ClaimRow, Claimed, CommitRow, Committed, SettleRow, StoredGrant},
    telemetry,
    user::{Ticket, User},
    vault::Vault,
};

/// How long a redeem may wait in line at its provider's limiter before its machine is told to come back.
const PERMIT_WAIT: Duration = Duration::from_secs(5);

/// "Busy" at the lock delays a claim by this much at most: the claim in the store decides.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How long to wait before asking again when the spool has no room.
const SPOOL_WAIT: Duration = Duration::from_secs(5);

/// One grant, as its effects see it.
struct Scene {
    hub: Arc<Hub>,
    user: Arc<User>,
    grant: GrantName,
}

impl Hub {
    /// Starts what a command orders.
    pub(super) fn start(self: &Arc<Self>, user: &Arc<User>, grant: &GrantName, command: Command) {
        let scene = Scene {
            hub: Arc::clone(self),
            user: Arc::clone(user),
            grant: grant.clone(),
        };
        self.tasks.spawn(async move {
            if let Some(input) = scene.run(command).await {
                scene.hub.tell(&scene.user, &scene.grant, input);
            }
        });
    }
}

impl Scene {
    async fn run(&self, command: Command) -> Option<Input> {
        Some(match command {
            Command::Load => Input::Read(self.load().await),
            Command::AskPermit => Input::Permit(self.permit().await),
            Command::Claim { .. } => self.claim(command).await?,
            Command::Renew { lease, ttl } => Input::Renewed {
                lease,
                held: self.renew(lease, ttl).await,
            },
            Command::HandOut { lease, device } => Input::HandedOut {
                lease,
                held: self.hand_out(lease, device).await,
            },
            Command::Redeem { lease, .. } => Input::Redeemed {
                lease,
                reply: self.redeem(command).await,
            },
            Command::Commit(request) => {
                let lease = request.lease;
                let answer = self.commit(*request).await;
                self.unlock(lease, !matches!(answer, CommitAnswer::Trouble(_))).await;
                Input::Committed { lease, answer }
            }
            Command::KeepAlternate {
                lease,
                tokens,
                from_version,
            } => Input::AlternateKept {
                lease,
                answer: self.keep_alternate(&tokens, from_version).await,
            },
            Command::Spool {
                lease,
                from_version,
                tokens,
            } => Input::Spooled {
                lease,
                durable: self.spool(lease, from_version, *tokens).await,
            },
            Command::Unspool { lease } => {
                self.unspool(lease).await;
                return None;
            }
            Command::Settle { .. } => self.settle(command).await?,
            Command::Delete => Input::Deleted(self.delete().await),
            // Carried out under the lock.
            _ => return None,
        })
    }

    async fn renew(&self, lease: LeaseId, ttl: Duration) -> Result<bool, Trouble> {
        let (user, grant) = (&self.user.id, &self.grant);
        let renewed = self.hub.store.renew(user, grant, lease, millis(ttl)).await;
        self.hub.lock.renew(user, grant, lease, ttl).await;
        Ok(renewed?)
    }

    async fn hand_out(&self, lease: LeaseId, device: DeviceId) -> Result<bool, Trouble> {
        let (user, grant) = (&self.user.id, &self.grant);
        let held = self.hub.store.hand_out(user, grant, lease, device).await?;
        if held {
            self.hub.audit.record(Event::HandedOut {
                user: user.clone(),
                grant: grant.clone(),
                lease,
                device,
            });
        }
        Ok(held)
    }

    async fn delete(&self) -> Result<Option<Box<GrantRecord>>, Trouble> {
        let (user, grant) = (&self.user.id, &self.grant);
        let row = self.hub.store.delete_grant(user, grant).await?;
        if row.is_some() {
            self.hub.audit.record(Event::GrantDeleted {
                user: user.clone(),
                grant: grant.clone(),
            });
        }
        self.open(row)
    }

    async fn unspool(&self, lease: LeaseId) {
        if let Err(error) = self.hub.spool.remove(lease).await {
            // Landed again after the next start, and found to be a duplicate.
            tracing::warn!(%lease, %error, "a landed result stays in the spool");
        }
    }

    /// Gives the lock back once its claim has ended.
    async fn unlock(&self, lease: Option<LeaseId>, ended: bool) {
        if let Some(lease) = lease.filter(|_| ended) {
            self.hub.lock.release(&self.user.id, &self.grant, lease).await;
        }
    }

    fn open(&self, row: Option<StoredGrant>) -> Result<Option<Box<GrantRecord>>, Trouble> {
        row.map(|row| self.opened(row)).transpose()
    }

    fn opened(&self, row: StoredGrant) -> Result<Box<GrantRecord>, Trouble> {
        self.hub.open_record(&self.user.id, &self.grant, row)
    }

    async fn load(&self) -> Result<Option<Box<GrantRecord>>, Trouble> {
        self.open(self.hub.store.load(&self.user.id, &self.grant).await?)
    }

    async fn permit(&self) -> PermitAnswer {
        // A result that neither the store nor the spool could keep would be lost: no room, no redeem.
        let room = match self.hub.spool.reserve() {
            Ok(room) => room,
            Err(error) => {
                tracing::error!(%error, "nothing is redeemed while the spool has no room");
                return PermitAnswer::Refused {
                    why: format!("nothing is redeemed that could not be kept: {error}"),
                    again: SPOOL_WAIT,
                };
            }
        };
        let permit = match self.hub.providers.get(self.grant.provider()) {
            Some(provider) => match provider.permit(PERMIT_WAIT).await {
                Ok(permit) => Some(permit),
                Err(after) => return PermitAnswer::After(after),
            },
            // Without settings there is nothing to limit; the redeem itself will say what is the matter.
            None => None,
        };
        self.hub
            .slot(&mut self.user.lock(), &self.grant)
            .tickets
            .push(Ticket { permit, room });
        PermitAnswer::Granted
    }

    async fn claim(&self, command: Command) -> Option<Input> {
        let Command::Claim {
            lease,
            from_version,
            over,
            fence,
            ttl,
            purpose,
            for_device,
            doubt,
        } = command
        else {
            return None;
        };
        self.hub
            .lock
            .take(&self.user.id, &self.grant, lease, ttl, LOCK_WAIT)
            .await;
        let row = ClaimRow {
            user: self.user.id.clone(),
            grant: self.grant.clone(),
            lease,
            holder: self.hub.me.clone(),
            from_version,
            over,
            fence: Some(fence),
            ttl_ms: millis(ttl),
            purpose,
            for_device,
            doubt,
        };
        let claimed = self.hub.store.claim(row).await;
        self.hub.writes.note(&claimed);
        let answer = match claimed {
            Ok(Claimed::Won(row)) => self.opened(*row).map_or_else(ClaimAnswer::Trouble, ClaimAnswer::Won),
            Ok(Claimed::Lost(row)) => self.opened(*row).map_or_else(ClaimAnswer::Trouble, ClaimAnswer::Lost),
            Ok(Claimed::Gone) => ClaimAnswer::Gone,
            Err(error) => ClaimAnswer::Trouble(error.into()),
        };
        self.unlock(Some(lease), matches!(answer, ClaimAnswer::Lost(_) | ClaimAnswer::Gone))
            .await;
        Some(Input::Claimed { lease, answer })
    }

    async fn redeem(&self, command: Command) -> ProviderReply {
        let Command::Redeem {
            refresh_token,
            scope,
            send_within,
            deadline,
            ..
        } = command
        else {
            return ProviderReply::NotSent("not a redeem".into());
        };
        let Some(provider) = self.hub.providers.get(self.grant.provider()) else {
            return ProviderReply::NotSent(format!("provider {} is not in the settings", self.grant.provider()));
        };
        provider
            .redeem(&refresh_token, scope.as_deref(), send_within, deadline)
            .await
    }

    async fn commit(&self, request: CommitRequest) -> CommitAnswer {
        let version = request.from_version.next();
        let tokens = self
            .hub
            .vault
            .seal_tokens(&self.user.id, &self.grant, version, &request.tokens);
        let row = CommitRow {
            user: self.user.id.clone(),
            grant: self.grant.clone(),
            lease: request.lease,
            from_version: request.from_version,
            tokens,
            expires_at: request.tokens.expires_at,
            cause: request.cause,
            refreshed_at: request.refreshed_at,
            due_at: request.due_at,
            wake_at: self.wake_at(&request).await,
            retire: request.retire.as_ref().map(Vault::hash),
            unless_retired: request.unless_retired.as_ref().map(Vault::hash),
            rejected_in_a_row: request.rejected_in_a_row,
        };
        let committed = Event::Commit {
            user: self.user.id.clone(),
            grant: self.grant.clone(),
            version,
            cause: request.cause,
            by: request.lease.map(|_| self.redeemer()),
            access_token: request.tokens.access_token.as_ref().map(HexHash::plain),
        };
        let started = clock::mono();
        let answer = self.hub.store.commit(row).await;
        telemetry::metrics::commit_took(clock::mono().since(started));
        self.hub.writes.note(&answer);
        if matches!(answer, Ok(Committed::Done(_))) {
            self.hub.audit.record(committed);
        }
        match answer {
            Ok(Committed::Done(row)) => self.opened(*row).map_or_else(CommitAnswer::Trouble, CommitAnswer::Done),
            Ok(Committed::Superseded(row)) => match self.open(row.map(|row| *row)) {
                Ok(record) => CommitAnswer::Superseded(record),
                Err(trouble) => CommitAnswer::Trouble(trouble),
            },
            Ok(Committed::Retired) => CommitAnswer::Retired,
            Err(error) => CommitAnswer::Trouble(error.into()),
        }
    }

    /// When to refresh what is about to be committed, if nobody uses it by the time it is due.
    async fn wake_at(&self, request: &CommitRequest) -> Option<Unix> {
        let settings = self.hub.providers.get(self.grant.provider())?.settings();
        let expires_at = request.tokens.expires_at.filter(|_| settings.preload)?;
        request.due_at?;
        let hours = match self.hub.store.hours(&self.user.id).await {
            Ok(hours) => hours?,
            Err(error) => {
                tracing::debug!(user = %self.user.id, %error, "refreshed when it is due: the user's hours cannot be read");
                return None;
            }
        };
        let life = Life {
            refreshed_at: request.refreshed_at,
            expires_at,
            refresh_expires_at: request.tokens.refresh_expires_at,
        };
        preload::wake_at(&hours, life, settings.lead, settings.preload_spread, &mut OsEntropy)
    }

    /// Who redeems now, as far as the claim tells.
    fn redeemer(&self) -> By {
        let mut inner = self.user.lock();
        let record = self.hub.slot(&mut inner, &self.grant).machine.record();
        let handed_to = record.and_then(|record| record.claim.as_ref()?.handed_to);
        handed_to.map_or(By::Hub, By::Device)
    }

    async fn keep_alternate(
        &self,
        tokens: &lockstep_engine::record::TokenSet,
        from_version: Version,
    ) -> Result<(), Trouble> {
        let version = from_version.next();
        let sealed = self
            .hub
            .vault
            .seal_alternate(&self.user.id, &self.grant, version, tokens);
        let kept = self
            .hub
            .store
            .keep_alternate(&self.user.id, &self.grant, version, sealed)
            .await;
        if let Err(error) = &kept {
            tracing::error!(user = %self.user.id, grant = %self.grant, %error, "an alternate result is not kept yet");
        }
        Ok(kept?)
    }

    async fn spool(&self, lease: LeaseId, from_version: Version, tokens: lockstep_engine::record::TokenSet) -> bool {
        let spooled = spool::Spooled {
            user: self.user.id.clone(),
            grant: self.grant.clone(),
            lease,
            from_version,
            tokens,
        };
        match self.hub.spool.put(spooled).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(user = %self.user.id, grant = %self.grant, %error, "a result could not be spooled");
                false
            }
        }
    }

    async fn settle(&self, command: Command) -> Option<Input> {
        let Command::Settle {
            lease,
            version,
            fence,
            verdict,
        } = command
        else {
            return None;
        };
        let row = SettleRow {
            user: self.user.id.clone(),
            grant: self.grant.clone(),
            holder: self.hub.me.clone(),
            lease,
            version,
            fence: Some(fence),
            verdict: *verdict,
        };
        let settled = self.hub.store.settle(row).await.map_err(Trouble::from);
        self.unlock(Some(lease), settled.is_ok()).await;
        Some(Input::Settled {
            lease,
            answer: settled.and_then(|row| self.open(row)),
        })
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
