//! Links two C++ engines that use different C++ standard libraries into one process.
//!
//! LadybugDB is built with libc++ (its sources need a newer library than the system's), the official `libduckdb.so`
//! with libstdc++. Both libraries define the same names: `__cxa_throw`, `std::runtime_error`, its type information.
//! Whichever is found first would serve both engines, and the first C++ exception would crash the process. So libc++
//! is linked statically and kept to ourselves, and libstdc++ is loaded by `libduckdb.so` alone.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["DUCKDB_LIB_DIR", "CXX", "CXXSTDLIB"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    find_duckdb_at_run_time();
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") && env::var("CXXSTDLIB").as_deref() == Ok("c++") {
        keep_libcxx_to_ourselves()?;
    }
    Ok(())
}

/// `libduckdb.so` is in the directory from which it was linked, beside the binary, or in a `lib` directory beside the
/// binary's own. The first lets a build run where it was made; the others let it be installed.
fn find_duckdb_at_run_time() {
    if let Ok(directory) = env::var("DUCKDB_LIB_DIR") {
        let resolved = Path::new(&directory)
            .canonicalize()
            .unwrap_or_else(|_| directory.clone().into());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", resolved.display());
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}

/// The build scripts of our dependencies ask for `-lstdc++` and `-lc++`. Both are answered with the static libc++,
/// through linker scripts in a directory that is searched before the system's. None of its symbols is exported, since
/// the dynamic linker would hand them to `libduckdb.so`.
fn keep_libcxx_to_ourselves() -> Result<(), Box<dyn Error>> {
    let compiler = env::var("CXX").unwrap_or_else(|_| "clang++".into());
    let archives = [archive(&compiler, "libc++.a")?, archive(&compiler, "libc++abi.a")?];
    let script = format!("INPUT({} {})\n", archives[0].display(), archives[1].display());
    let directory = PathBuf::from(env::var("OUT_DIR")?).join("cxx");
    fs::create_dir_all(&directory)?;
    for name in ["libc++.so", "libstdc++.so"] {
        fs::write(directory.join(name), &script)?;
    }
    println!("cargo:rustc-link-search=native={}", directory.display());
    println!("cargo:rustc-link-arg=-Wl,--exclude-libs,ALL");
    Ok(())
}

fn archive(compiler: &str, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(compiler)
        .args(["-stdlib=libc++", &format!("-print-file-name={name}")])
        .output()?;
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    if !path.is_absolute() {
        return Err(
            format!("{compiler} has no {name}; install libc++-19-dev and libc++abi-19-dev (scripts/setup.sh)").into(),
        );
    }
    Ok(path.canonicalize()?)
}
