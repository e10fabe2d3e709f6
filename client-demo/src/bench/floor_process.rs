//! The floor under measurement: this very program, as `bench-floor`, in a process of its own.

use std::{
    env,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde::Deserialize;

use super::{
    CALLERS, Options,
    figures::Common,
    hub_run::{Groups, measure_common},
    phases::{Bench, BenchError, Group},
    system::Cores,
    target::{Enrolment, Target},
};
use crate::term::Spinner;

/// A running floor. Dropping it kills it: it has nothing to lose.
struct Floor(Child);

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Deserialize)]
struct Ready {
    listening: SocketAddr,
    control: SocketAddr,
}

pub(super) fn measure(options: Options, cores: Option<Cores>, spinner: &Spinner) -> Result<Common, BenchError> {
    let (floor, ready) = Cores::on_server_core(cores, start)??;
    let target = Target::Floor {
        listen: ready.listening,
        control: ready.control,
    };
    let groups = Groups::of(options);
    let mut bench = Bench::new(target, floor.0.id(), CALLERS, groups.users())?;
    let (crowd, family) = (strangers(groups.crowd), strangers(groups.family));
    measure_common(&mut bench, options, groups, &crowd, &family, spinner, "floor")
}

fn start() -> io::Result<(Floor, Ready)> {
    let mut child = Command::new(env::current_exe()?)
        .arg("bench-floor")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let floor = Floor(child);
    let ready = serde_json::from_str(&line)?;
    Ok((floor, ready))
}

/// Devices that nobody has to enrol.
fn strangers(group: Group) -> Vec<Enrolment> {
    (group.first..group.first + group.users)
        .cycle()
        .take((group.users * group.devices_each) as usize)
        .map(|user| Enrolment { user, identity: None })
        .collect()
}
