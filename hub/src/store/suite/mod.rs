//! The rules that every store keeps, one test each. A backend's own test names its maker and nothing else:
//! `conformance!(make)`, where `make` is an async function that gives a [`Made`].

mod claims;
mod commits;
mod deletion;
mod devices;
mod due;
mod settling;
mod whole;
pub(super) mod world;

use std::{any::Any, sync::Arc};

pub(super) use claims::*;
pub(super) use commits::*;
pub(super) use deletion::*;
pub(super) use devices::*;
pub(super) use due::*;
pub(super) use settling::*;
pub(super) use whole::*;

use super::Store;

/// A new and empty store, and whatever must live as long.
pub(super) struct Made {
    pub(super) store: Arc<dyn Store>,
    pub(super) _keep: Box<dyn Any + Send>,
}

/// Runs every rule of the suite against stores that `$make` makes.
macro_rules! conformance {
    ($make:path) => {
        $crate::store::suite::conformance! { @rules $make:
            // claims
            a_claim_stands_as_it_was_asked_for
            a_claim_needs_the_newest_version_of_a_grant_that_is_there
            a_claim_that_stands_keeps_others_out_until_it_lapses
            a_former_incarnation_is_taken_over_at_once
            of_many_who_claim_at_once_one_wins
            fences_rise_and_leases_are_bounded
            a_lease_that_was_handed_out_is_remembered
            a_renewed_claim_stands_longer
            the_refresh_token_is_handed_out_only_under_a_live_claim
            // commits
            the_first_commit_makes_user_and_grant
            a_commit_follows_the_newest_version_only
            a_commit_ends_claim_doubt_and_alternate
            whoever_redeemed_the_newest_may_commit_late
            a_duplicate_commit_is_told_by_its_lease
            of_many_who_commit_at_once_one_wins
            used_up_refresh_tokens_are_remembered
            every_write_of_a_record_is_a_revision
            seq_is_counted_by_user_and_version_by_grant
            resealing_changes_neither_version_nor_seq
            // settling
            a_verdict_ends_its_claim
            only_news_raise_the_seq
            a_verdict_counts_for_its_own_claim_and_version_only
            what_was_decided_before_another_verdict_does_not_count
            another_nodes_claim_is_ended_only_once_it_lapsed
            the_first_alternate_of_the_newest_version_is_kept
            // due
            what_is_due_is_claimed_oldest_first_and_no_more_than_asked
            what_is_not_due_is_left_alone
            what_nobody_uses_is_left_until_it_is_used
            what_nobody_uses_now_sleeps_until_it_is_to_wake
            what_sleeps_is_due_again_once_it_is_used_or_changes
            use_tells_a_users_hours
            two_schedulers_never_claim_the_same
            what_was_claimed_unheard_is_found_by_its_lease
            abandoned_claims_are_returned_unclaimed
            what_was_abandoned_and_judged_is_due_again
            // deletion
            a_deleted_grant_keeps_its_version
            a_tombstone_takes_only_a_login
            deleting_a_user_leaves_tombstones_and_no_devices
            a_user_is_there_until_it_is_deleted_and_again_with_the_next_device_or_login
            // devices
            a_device_is_what_was_enrolled
            a_refresh_token_advances_once_per_generation
            of_many_who_advance_at_once_one_wins
            a_revoked_device_is_out_and_listed
            what_was_seen_is_kept_by_maximum
            a_slave_lives_as_long_as_its_device_and_grant
            slaves_are_listed_and_dropped_one_by_one
            // the store as a whole
            the_mark_counts_changes_of_grants
            incarnations_rise_by_node
            a_shared_value_is_replaced_only_over_what_stands
            of_many_who_share_at_once_all_hold_the_same
            a_restored_store_trusts_no_grant
            a_scan_meets_every_grant_in_order
            a_user_is_read_as_a_whole
            the_clock_runs_with_the_wall
        }
    };
    (@rules $make:path: $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let made = $make().await;
                $crate::store::suite::$rule(std::sync::Arc::clone(&made.store)).await;
            }
        )*
    };
}

pub(super) use conformance;
