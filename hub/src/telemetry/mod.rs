//! Logs, metrics, alerts. Nothing here ever sees a secret.

pub mod alert;
pub mod logs;
pub mod metrics;
mod note;
mod process;
#[cfg(test)]
mod tests;

pub use note::note;
