//! `lockstep-hub dev` prints steps. Whoever does exactly these sees what they promise.

use std::process::Output;

use lockstep_tests::{BOUND, Demo, binaries, eventually, within};
use tokio::process::Command;

/// A shell in the network of `hub`, where all the usual ports are free.
fn shell(hub: &Demo, script: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(hub.id().to_string());
    command.args(["--user", "--preserve-credentials", "--net", "sh", "-e", "-c", script]);
    command.kill_on_drop(true);
    command
}

async fn done(hub: &Demo, script: &str) -> String {
    let Output { status, stdout, stderr } = within(script, BOUND, shell(hub, script).output())
        .await
        .expect("a shell");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{script}: {stdout}{stderr}");
    stdout.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_that_dev_prints_work_as_they_are() {
    let mut command = Command::new("unshare");
    let up = "ip link set lo up && exec \"$0\" dev";
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", up]);
    let hub = Demo::spawn(command.arg(binaries::hub()));
    hub.line("\"listening\"", BOUND).await;
    // They are written before that, but on the other stream.
    let steps: [String; 7] = eventually("all steps are printed", BOUND, async || {
        let lines = hub.written();
        let steps = lines.iter().filter_map(|line| line.strip_prefix("     "));
        steps.map(str::to_owned).collect::<Vec<_>>().try_into().ok()
    })
    .await;
    let [authserver, export, login, laptop, phone, list, refresh] = steps;

    let provider = Demo::spawn(&mut shell(&hub, &format!("exec {authserver}")));
    provider.line("\"listening\"", BOUND).await;
    let put = done(&hub, &format!("{export}\n{login}")).await;
    assert!(put.contains("version 1"), "{put}");
    let devices = [laptop, phone].map(|line| Demo::spawn(&mut shell(&hub, &format!("exec {line}"))));
    for device in &devices {
        device.line("version 1, token", BOUND).await;
        device.line("up to date", BOUND).await;
    }
    let listed = done(&hub, &format!("{export}\n{list}")).await;
    for word in ["laptop", "phone", "ws", "poll"] {
        assert!(listed.contains(word), "{word} in {listed}");
    }
    done(&hub, &format!("{export}\n{refresh}")).await;
    for device in &devices {
        device.line("version 2, token", BOUND).await;
    }
}
