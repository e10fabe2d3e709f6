//! The `lockstep-hub` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // One crypto library for every TLS connection of the process. It fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    lockstep_hub::cli::main()
}
