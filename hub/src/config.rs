//! Settings: a TOML file, then the environment.
