//! The promises, the protocol and the operator's view, tested from outside against the real binaries.
#![expect(clippy::panic, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod admin_api;

mod alerts;
mod browser;
mod client_demo;
mod cluster;
mod cluster_trouble;
mod crash_loop;
mod device_codes;
mod deploy;
mod drop_in;
mod election;
mod external_identity;
mod frames;
mod grants_login;
mod harness;
mod hostile;
mod identity;
mod newcomer;
mod incidents;
mod operations;
mod outcomes;
mod p1_single_flight;
mod p2_persist_before_push;
mod p3_monotonic;
mod p4_convergence;
mod p5_nothing_wasted;
mod p6_isolation;
mod p7_secrets;
mod p8_honest_words;
mod poll;
mod real_provider;
mod sessions;
mod stock_clients;
mod store_trouble;
mod upkeep;
mod unknown;
mod upkeep;
mod torture;
