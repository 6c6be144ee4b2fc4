#!/usr/bin/env bash
# Prints the directory of a virtual environment with the requirements of a file, all of them pinned. It is made in the user's
# cache, once for all checkouts, and again when the file changes.
set -euo pipefail

requirements="${1:?usage: scripts/venv.sh REQUIREMENTS}"
cache="${GRAPHPLANE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/graphplane}"
hash=$(sha256sum <"$requirements")
venv="$cache/venv-${hash:0:16}"
if [ ! -e "$venv/complete" ]; then
  mkdir -p "$cache"
  # Another test may be making it.
  exec 9>"$venv.lock"
  flock 9
  if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$requirements" >&2
    touch "$venv/complete"
  fi
fi
echo "$venv"
