//! The scenarios compare answers with DuckDB's own; this lets them find `libduckdb.so` where it was linked from.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    if let Ok(directory) = std::env::var("DUCKDB_LIB_DIR") {
        let resolved = std::path::Path::new(&directory)
            .canonicalize()
            .unwrap_or_else(|_| directory.clone().into());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", resolved.display());
    }
}
