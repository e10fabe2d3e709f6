//! The world that the engine is tested in: a store, a provider, nodes, devices, all in one thread and virtual time.

mod bench;
mod spec;
pub(crate) mod store;
