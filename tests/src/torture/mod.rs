//! Three hubs, sixty devices, and everything that may break, broken at random; and a judge who has seen it all.

mod arena;
mod chaos;
mod judge;
mod stalls;

pub use arena::{Arena, Ground, Node, User, Wire};
pub use chaos::{Chaos, Event, Lost, What, run as torment};
pub use judge::{Verdict, converge, history, judge};
