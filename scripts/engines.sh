#!/usr/bin/env bash
# Makes the engines' libraries available under the user's cache and links .engines to them.
# LadybugDB: an existing cache, then an archive beside the checkout, then lbug's own sources (over 30 minutes on 2 cores).
# DuckDB: the official libduckdb.so, which an npm package carries; the header comes with libduckdb-sys.
set -euo pipefail
cd "$(dirname "$0")/.."

lbug_version=0.22.1
duckdb_npm_version=1.5.6-r.1
cache="${GRAPHPLANE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/graphplane}/engines"
lbug="$cache/lbug-$lbug_version"
duckdb="$cache/duckdb-$duckdb_npm_version"
case "$(uname -m)" in
  x86_64) npm_arch=x64 rust_arch=x86_64 ;;
  aarch64) npm_arch=arm64 rust_arch=aarch64 ;;
  *) echo "engines: no LadybugDB or DuckDB build for $(uname -m)" >&2; exit 1 ;;
esac

# Anything half-made lands in a temporary folder of the same file system and is renamed whole.
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

lbug_from_source() {
  echo "engines: building LadybugDB $lbug_version from source; this takes over 30 minutes on 2 cores"
  local src
  src=$(cargo metadata --format-version 1 --locked | python3 -c '
import json, os, sys
for p in json.load(sys.stdin)["packages"]:
    if p["name"] == "lbug": print(os.path.join(os.path.dirname(p["manifest_path"]), "lbug-src"))')
  CC=clang-19 CXX=clang++-19 cmake -G Ninja -S "$src" -B "$tmp/build" \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHELL=OFF -DBUILD_SINGLE_FILE_HEADER=ON -DAUTO_UPDATE_GRAMMAR=OFF \
    -DCMAKE_CXX_FLAGS="-stdlib=libc++ -fPIC" -DCMAKE_C_FLAGS=-fPIC \
    -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=12 -DCMAKE_PROJECT_INCLUDE="$PWD/scripts/lbug-unity.cmake"
  ninja -C "$tmp/build"
  mkdir -p "$tmp/lbug/latest-compat/lib"
  cp "$tmp/build/src/liblbug.a" "$tmp/build/src/lbug.hpp" "$src/src/include/c_api/lbug.h" "$tmp/lbug/latest-compat/lib/"
}

if [ ! -f "$lbug/latest-compat/lib/liblbug.a" ]; then
  archive="${GRAPHPLANE_ENGINES_DIR:-../shared/engines}/lbug-$lbug_version-linux-$rust_arch-clang19-libcxx.tar.xz"
  if [ -f "$archive" ]; then
    echo "engines: LadybugDB $lbug_version from $archive"
    mkdir -p "$tmp/lbug" && tar -C "$tmp/lbug" -xJf "$archive"
  else
    lbug_from_source
  fi
  rm -rf "$lbug" && mv "$tmp/lbug" "$lbug"
fi

if [ ! -f "$duckdb/libduckdb.so" ]; then
  echo "engines: libduckdb.so from @duckdb/node-bindings-linux-$npm_arch@$duckdb_npm_version"
  (cd "$tmp" && npm pack --silent "@duckdb/node-bindings-linux-$npm_arch@$duckdb_npm_version" >/dev/null && tar -xzf ./*.tgz)
  mkdir -p "$tmp/duckdb"
  find "$tmp/package" -name 'libduckdb.so*' -exec cp {} "$tmp/duckdb/" \;
  test -f "$tmp/duckdb/libduckdb.so" || { echo "engines: the npm package carries no libduckdb.so" >&2; exit 1; }
  rm -rf "$duckdb" && mv "$tmp/duckdb" "$duckdb"
fi

mkdir -p .engines
ln -sfn "$lbug" .engines/lbug
ln -sfn "$duckdb" .engines/duckdb
