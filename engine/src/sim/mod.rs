//! The world that the engine is tested in: a store, a provider, nodes, devices, all in one thread and virtual time.

mod bench;
mod hunt;
mod law;
mod mutants;
mod order;
mod provider;
mod script;
mod spec;
pub(crate) mod store;
mod trace;
mod world;
