//! A file system of a test's own that can be filled, or made read-only, and outlives the hub on it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    process::run,
    wait::{BOUND, within},
};

/// A mounted tmpfs in a namespace of its own: it needs no root, and ends with the process that holds it.
pub struct Volume {
    holder: Child,
    at: PathBuf,
}

impl Volume {
    /// Mounts one of `bytes` at `at`, for those only that [`Volume::enter`] it.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub async fn mount(at: &Path, bytes: u64) -> Self {
        fs::create_dir(at).expect("a directory");
        let mount = format!(
            "mount -t tmpfs -o size={bytes} tmpfs '{}' && echo && exec sleep infinity",
            at.display()
        );
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare starts");
        let mut lines = BufReader::new(holder.stdout.take().expect("stdout is piped")).lines();
        let mounted = within("the volume is mounted", BOUND, lines.next_line()).await;
        assert!(matches!(mounted, Ok(Some(_))), "the volume cannot be mounted");
        Self {
            holder,
            at: at.to_path_buf(),
        }
    }

    fn pid(&self) -> String {
        self.holder.id().expect("the holder lives").to_string()
    }

    /// What a command is to begin with to see the volume.
    pub fn enter(&self) -> Vec<String> {
        let pid = self.pid();
        [
            "nsenter",
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &pid,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The volume, as this process can reach it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), self.at.display()))
    }

    /// Fills it to the last byte, with a file that may be made smaller again.
    ///
    /// # Panics
    /// When no file can be made on it.
    pub fn fill(&self) -> fs::File {
        let mut file = fs::File::create(self.path().join("ballast")).expect("a file on the volume");
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        file
    }

    /// Makes it read-only, or writable again. Nobody may have a file on it open for writing.
    ///
    /// # Panics
    /// When the system refuses.
    pub async fn set_read_only(&self, read_only: bool) {
        let mode = if read_only { "remount,ro" } else { "remount,rw" };
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(["mount", "-o", mode]).arg(&self.at);
        let output = run(&mut command).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
