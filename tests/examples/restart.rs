//! Restarts a hub under many connected devices on the real SDK, and tells what it took.
//!
//! ```sh
//! cargo run --release -p lockstep-tests --example restart -- --devices 5000
//! cargo run --release -p lockstep-tests --example restart -- --devices 5000 --kill
//! ```
#![expect(clippy::print_stdout, reason = "the report is what it is run for")]

use std::process::ExitCode;

use lockstep_tests::restart::{Plan, run};

fn plan() -> Option<Plan> {
    let mut plan = Plan {
        devices: 5000,
        devices_per_user: 10,
        kill: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--devices" => plan.devices = arguments.next()?.parse().ok()?,
            "--per-user" => plan.devices_per_user = arguments.next()?.parse().ok()?,
            "--kill" => plan.kill = true,
            _ => return None,
        }
    }
    Some(plan)
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("usage: restart [--devices 5000] [--per-user 10] [--kill]");
        return ExitCode::from(2);
    };
    println!("{}", run(plan).await);
    ExitCode::SUCCESS
}
