//! Logs, metrics, alerts.
