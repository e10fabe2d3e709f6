//! The project's binaries, as this very build has them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The hub.
pub fn hub() -> PathBuf {
    folder().join("lockstep-hub")
}

/// The demo program.
pub fn demo() -> PathBuf {
    folder().join("client-demo")
}

/// The Python with the packages that the tests need: `scripts/setup` makes it.
pub fn python() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    std::env::var_os("LOCKSTEP_PYTHON").map_or(own, PathBuf::from)
}

/// Where the binaries are. Cargo tells a test only of the binaries of its own package, so they are built here, once,
/// into the target directory that the test itself came from. `LOCKSTEP_BIN_DIR` names ready ones instead.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os("LOCKSTEP_BIN_DIR").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps")
        .to_path_buf();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bins",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(folder.parent().expect("a profile lies in a target directory"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the binaries do not build");
    folder
}
