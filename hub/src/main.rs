//! The `lockstep-hub` program.

fn main() {}
