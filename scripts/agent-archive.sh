#!/usr/bin/env bash
# Makes the archive that machines on AWS start from: the agent, DuckDB's library beside it, and what boots them. The same
# input gives the same bytes. It is written as <sha256>.tar.gz, which is its name in the artifact bucket, below agents/.
set -euo pipefail

[ $# = 3 ] || {
  echo "usage: scripts/agent-archive.sh AGENT LIBDUCKDB.SO DIRECTORY" >&2
  exit 2
}
boot="$(cd "$(dirname "$0")/../cloudformation/node" && pwd)"
tree=$(mktemp -d)
archive=$(mktemp "$3/.archive.XXXXXX")
trap 'rm -rf "$tree" "$archive"' EXIT
install -D -m 755 "$1" "$tree/bin/graphplane-node-agent"
install -D -m 755 "$2" "$tree/lib/libduckdb.so"
install -m 755 "$boot/boot.sh" "$tree/"
install -m 644 "$boot"/graphplane-{node.service,grow.service,grow.timer} "$tree/"
tar -c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w -C "$tree" . | gzip -n >"$archive"
sha256=$(sha256sum <"$archive")
chmod 644 "$archive"
mv "$archive" "$3/${sha256%% *}.tar.gz"
echo "$3/${sha256%% *}.tar.gz"
