#!/usr/bin/env bash
# Installs what a build and the tests need and this machine lacks. Does nothing, quickly, where all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${GRAPHPLANE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/graphplane}"
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# command that must exist = Debian package that brings it
packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need clang++-19 clang-19
need mold mold
need cmake cmake
need ninja ninja-build
need pkg-config pkg-config
need python3 python3
need npm npm
need xz xz-utils
need curl curl
need git git
need shellcheck shellcheck
[ -e /usr/lib/llvm-19/include/c++/v1/format ] || packages+=(libc++-19-dev libc++abi-19-dev)
[ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
if [ ${#packages[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install: ${packages[*]} (Debian's names)" >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1 && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
  echo "setup: installing Rust with rustup"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
fi

# kubectl is what the tests drive the embedded server with. Its own Go modules build it where the machine has none.
if ! command -v kubectl >/dev/null 2>&1 && [ ! -x "$cache/bin/kubectl" ]; then
  mkdir -p "$cache/bin"
  if command -v go >/dev/null 2>&1; then
    echo "setup: building kubectl from its Go modules"
    (cd scripts/kubectl && go build -o "$cache/bin/kubectl" .)
  else
    echo "setup: installing kubectl (package kubernetes-client)"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq kubernetes-client >/dev/null
  fi
fi
