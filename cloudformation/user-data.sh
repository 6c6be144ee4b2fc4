#!/bin/bash
# What a new machine runs, once, as root: it fetches the agent's archive by its digest and hands over to the boot script in it.
# Nothing is installed from anywhere else; bash, coreutils, tar, curl, the aws command, xfsprogs and systemd are in the image.
#
# Whoever starts the machine puts the settings between the first line and this text, as `name='value'`; what is absent is
# empty. Values have no quote in them; JSON writes one as \u0027. replica-fleet.yaml holds this text, too; a test compares.
#
#   archive     s3://bucket/key of the archive that scripts/agent-archive.sh makes
#   sha256      its digest, 64 hexadecimal digits
#   region      AWS region of the bucket, the parameter and the object store
#   volume      vol-… that the agent keeps its data on; empty: the root disk, for replicas
#   config      the agent's --config file without instanceId, JSON, with its one-time token; empty: no control plane
#   parameter   name of the SSM parameter with the keys of callers, for an agent without a control plane
#   arguments   further arguments of the agent, separated by blanks; none is a secret
set -euo pipefail
umask 077
: "${archive:?}" "${sha256:?}" "${region:?}"

# The tests run all of this below a directory of theirs.
root="${GRAPHPLANE_ROOT:-}"
opt="$root/opt/graphplane"
home="$opt/$sha256"
mkdir -p "$opt"
chmod 755 "$opt"
# A directory of that name is whole: it was checked before it got the name.
if [ ! -d "$home" ]; then
  part="$home.part"
  rm -rf "$part"
  mkdir "$part"
  tries=0
  until aws s3 cp --only-show-errors --region "$region" "$archive" "$part/archive"; do
    tries=$((tries + 1))
    [ "$tries" -lt 8 ] || { echo "graphplane: $archive cannot be fetched" >&2; exit 1; }
    sleep "$((RANDOM % (1 << tries) * ${GRAPHPLANE_PAUSE:-1}))"
  done
  echo "$sha256  $part/archive" | sha256sum --check --status || {
    echo "graphplane: $archive has another digest than $sha256" >&2
    exit 1
  }
  mkdir "$part/new"
  tar -xzf "$part/archive" -C "$part/new" --no-same-owner
  sync -f "$part"
  mv "$part/new" "$home"
  rm -rf "$part"
fi
# Secrets go from here to the boot script in its environment: arguments of processes are everybody's to read.
export region volume config parameter arguments
exec "$home/boot.sh" install
