#!/usr/bin/env bash
# Builds the fuzz targets with coverage, for which stable Rust has all it takes, and runs each for some seconds (15 unless
# told) from the seeds in node-agent/fuzz/corpus. It begins alike each time; another FUZZ_SEED looks elsewhere. What makes
# one fail is left in the target directory; run it again with the target's name and the file as arguments.
set -euo pipefail
cd "$(dirname "$0")/../node-agent/fuzz"

seconds="${1:-15}"
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir="${CARGO_TARGET_DIR:-target}/fuzz"
coverage=(-Cpasses=sancov-module -Ccodegen-units=1)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
# For the target only: build scripts cannot be linked with coverage, and --target keeps these flags from them.
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions ${coverage[*]}" \
  cargo build --release --locked --target "$host" --target-dir "$target_dir"

failures="$target_dir/failures/"
mkdir -p "$failures"
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for source in fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  mkdir -p "$found/$target"
  dictionary=()
  if [ -f "dictionaries/$target" ]; then dictionary=("-dict=dictionaries/$target"); fi
  if "$target_dir/$host/release/$target" -seed="${FUZZ_SEED:-1}" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=512 -max_len=4096 \
    -artifact_prefix="$failures$target-" "${dictionary[@]}" "$found/$target" "corpus/$target" >"$found/$target.log" 2>&1; then
    echo "fuzz: $target: $(sed -n 's/^Done //p' "$found/$target.log")"
  else
    tail -n 40 "$found/$target.log" >&2
    echo "fuzz: $target failed" >&2
    exit 1
  fi
done
