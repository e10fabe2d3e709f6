//! The world that the engine is tested in: a store, a provider, nodes, devices, all in one thread and virtual time.
//!
//! # What there is
//!
//! | file | what it does |
//! |---|---|
//! | `spec/` | the design's section 4 as tests on one machine, one file a topic; `spec/found.rs` has a test for each bug below |
//! | `script.rs` | draws from a seed who is there and what befalls them; every line of a script can be dropped |
//! | `world/` | runs a script: nodes with the real engine, devices, messages, the store's and the provider's moods, crashes |
//! | `provider.rs` | an authorization server of its own making; it decides what is legal |
//! | `law.rs` | the judge: P1, P2, P3, P4, P5 and P8, checked at every step, from books of its own |
//! | `hunt.rs` | runs seeds, shrinks what fails, tells it |
//! | `mutants.rs` | shows that each mistake of `grant/broken.rs` is caught |
//! | `model.rs` | walks every order of events for two hubs and two devices, up to a stated depth |
//! | `props.rs` | property tests of the pure parts |
//!
//! A node may die at any moment and between any two orders, before and after each takes effect; its spool survives. It may
//! stand still, its clock may jump, its disk be full, its limiter empty. A store refuses, is away, is slow, loses answers,
//! and writes what nobody was told. A provider rotates in one of five ways and answers in one of fourteen. Devices decline,
//! keep silent, vanish with a refresh token in hand, and publish late. Logins and deletions come at any time. After 150 s
//! all of it heals, and within a bound everybody knows the same and every question has its answer.
//!
//! # How to run it
//!
//! ```text
//! cargo test -p lockstep-engine                                     all of it; 20,000 schedules
//! LOCKSTEP_SIM_SEEDS=1000000 cargo test -p lockstep-engine --lib sim::hunt -- --nocapture
//! LOCKSTEP_SIM_HOURS=8       cargo test -p lockstep-engine --lib sim::hunt -- --nocapture
//! LOCKSTEP_SIM_FROM=20000    begins with that seed, in either case
//! LOCKSTEP_SIM_SEED=42       replays one: its script, shrunk, and what happens, line by line
//! ```
//!
//! # What it found
//!
//! Each bug with the seed that showed it first. A seed stands for another run once the drawing of scripts changes; the tests
//! in `spec/found.rs` stay.
//!
//! | seed | promise | what was wrong |
//! |---|---|---|
//! | 47 | P1 | a node that had not read another's quiet verdict claimed without the doubt in it, and sent a token that might be used up. Claims and verdicts now carry the fence of the record they were decided on |
//! | 86 | P6 | a wish of another node, not granted for want of candidates, was remembered; the scheduler's next claim then went round in circles under the user's lock |
//! | 118 | P1 | a claim that took effect after its answer was lost hid the doubt that came before it |
//! | 1042 | P4 | a claim of the scheduler that no device could use was left standing |
//! | 2132 | P1 | the answer to one renewal was taken for that to a later one: the refresh token left up to 2 s too late |
//! | 14301 | P8 | a grant given up meanwhile got "no device that may redeem is connected" for its reason, and a time to try again |
//! | spec | §4 | the late result of a device that fell silent was not waited for |

mod bench;
mod carry_out;
mod hunt;
mod law;
mod model;
mod mutants;
mod order;
mod props;
mod provider;
mod script;
mod spec;
pub(crate) mod store;
mod trace;
mod world;
