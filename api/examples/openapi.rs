//! Prints the OpenAPI document, or, with `--check`, fails if `api/openapi.json` is not the present one:
//!
//! ```sh
//! cargo run -p graphplane-api --example openapi > api/openapi.json
//! cargo run -p graphplane-api --example openapi -- --check
//! ```

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let text = graphplane_api::openapi::text();
    if std::env::args().any(|argument| argument == "--check") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        if std::fs::read_to_string(&path).is_ok_and(|committed| committed == text) {
            return ExitCode::SUCCESS;
        }
        eprintln!("{} is not what the code says; run: make generate", path.display());
        return ExitCode::FAILURE;
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the document: {error}");
            ExitCode::FAILURE
        }
    }
}
