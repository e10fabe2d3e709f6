//! Keeps a token of one grant at hand and shows every change of it.
//!
//! ```text
//! LOCKSTEP_HUB=http://127.0.0.1:8787 LOCKSTEP_DEVICE=<device_id> LOCKSTEP_DEVICE_TOKEN=lsd_… \
//!     cargo run -p lockstep-client --example token -- example/alice
//! ```

use std::{error::Error, time::Duration};

use lockstep_client::{Client, GrantState, Secret};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let grant = std::env::args()
        .nth(1)
        .ok_or("usage: token provider/account")?
        .parse()?;
    let device = std::env::var("LOCKSTEP_DEVICE")?.parse()?;
    let client = Client::builder(std::env::var("LOCKSTEP_HUB")?)
        .device(device, Secret::new(std::env::var("LOCKSTEP_DEVICE_TOKEN")?))
        .cache_dir(std::env::temp_dir())
        .app("token-example/1")
        .connect()
        .await?;

    let lease = client.token(&grant, Duration::from_secs(60)).await?;
    println!("version {}, good for {:?}", lease.version, lease.remaining());

    let mut subscription = client.subscribe(&grant);
    loop {
        tokio::select! {
            state = subscription.changed() => match state? {
                GrantState::Token(lease) => println!("version {}, good for {:?}", lease.version, lease.remaining()),
                GrantState::Status(status) => println!("{:?}: {:?}", status.health, status.reason),
                GrantState::Unknown => println!("no such grant any more"),
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    client.close().await;
    Ok(())
}
