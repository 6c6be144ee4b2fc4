//! Where the programs under test are.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' folder has a parent")
        .to_owned()
}

/// The path of one of our programs: in the folder that `GRAPHPLANE_BIN` names, else built with the profile of this test.
///
/// `cargo test --workspace` has built them by then; `cargo test -p graphplane-tests` alone has not.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        if let Some(folder) = std::env::var_os("GRAPHPLANE_BIN") {
            return folder.into();
        }
        // target/<profile>/deps/<test>-<hash> -> target/<profile>
        let test = std::env::current_exe().expect("a running program has a path");
        let folder = test
            .ancestors()
            .nth(2)
            .expect("tests lie in target/<profile>/deps")
            .to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(repository())
            .args(["build", "-q", "-p", "graphplane-cli", "-p", "graphplane-node-agent"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cargo starts").success(),
            "building the programs under test failed"
        );
        folder
    });
    folder.join(name)
}
