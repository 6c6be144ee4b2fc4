#!/bin/bash
# The part of a machine's start that comes with the agent's archive.
#
#   boot.sh install   once, from the user data, with its settings in the environment: writes what the agent needs to
#                     /etc/graphplane, the unit, and starts it. It may be repeated.
#   boot.sh prepare   before each start of the agent: the volume is mounted, the keys are there. It fails with a reason
#                     when it cannot be done, and systemd asks again.
#   boot.sh grow      every quarter of a minute: lets the file system fill a volume that was made larger. Nobody asks for
#                     it, so nobody needs the right to.
set -euo pipefail
umask 077

# The tests run all of this below a directory of theirs.
root="${GRAPHPLANE_ROOT:-}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
etc="$root/etc/graphplane"
data="$root/var/lib/graphplane"
user=graphplane
# The same on every machine, since volumes move between machines with the owner's number on their files.
uid=8001
label=graphplane

fail() {
  echo "graphplane: $*" >&2
  exit 1
}

# Writes standard input to a file: the old content stays until the new is whole.
put() {
  local path="$1" mode="$2"
  cat >"$path.new"
  chmod "$mode" "$path.new"
  mv "$path.new" "$path"
}

# A fact of this machine from its metadata service, version 2. The session's token goes by standard input.
metadata() {
  local base="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}" token
  base="${base%/}/latest"
  token="$(curl -sSf --retry 5 --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$base/api/token")"
  curl -sSf --retry 5 --max-time 5 -H @- "$base/meta-data/$1" <<<"X-aws-ec2-metadata-token: $token"
}

install_node() {
  local instance address
  mkdir -p "$etc" "$root/etc/systemd/system"
  chmod 755 "$etc"
  getent passwd "$user" >/dev/null || useradd --system --uid "$uid" --no-create-home --shell /sbin/nologin "$user"
  address="$(metadata local-ipv4)"
  [[ "$address" =~ ^[0-9.]+$ ]] || fail "the metadata service gives no address"
  if [ -n "${config:-}" ]; then
    instance="$(metadata instance-id)"
    [[ "$instance" =~ ^i-[0-9a-z]+$ ]] || fail "the metadata service gives no instance id"
    # The machine's identity is known here first; the rest of the object is the control plane's.
    put "$etc/agent.json" 400 <<<"{\"instanceId\":\"$instance\",${config#\{}"
    chown "$user:" "$etc/agent.json"
    arguments="${arguments:-} --config /etc/graphplane/agent.json"
  fi
  [ -z "${parameter:-}" ] || arguments="${arguments:-} --api-key-file /etc/graphplane/keys"
  put "$etc/agent.env" 444 <<END
AWS_REGION=$region
AGENT_ARGUMENTS=--host 0.0.0.0 --advertise http://$address:8001 ${arguments:-}
END
  put "$etc/node.env" 444 <<END
region='$region'
volume='${volume:-}'
parameter='${parameter:-}'
END
  chmod 755 "$here" "$here/bin" "$here/lib"
  ln -sfn "$(basename "$here")" "$(dirname "$here")/current"
  for unit in graphplane-node.service graphplane-grow.service graphplane-grow.timer; do
    put "$root/etc/systemd/system/$unit" 444 <"$here/$unit"
  done
  systemctl daemon-reload
  systemctl enable graphplane-node.service
  # A machine without a volume has nothing that grows.
  [ -z "${volume:-}" ] || systemctl enable --now graphplane-grow.timer
  # Without waiting: the volume may be attached only later, and the end of this script is the end of the machine's start.
  systemctl restart --no-block graphplane-node.service
}

# The block device of an EBS volume, by the serial number that the volume's controller reports. Names such as nvme1n1
# go by the order of discovery: on the next boot they may be another disk's.
device_of() {
  local serial="${1/-/}" file found=()
  for file in "$root"/sys/block/*/device/serial; do
    [ -r "$file" ] || continue
    [ "$(tr -d '[:space:]' <"$file")" = "$serial" ] || continue
    file="${file%/device/serial}"
    found+=("$root/dev/${file##*/}")
  done
  [ "${#found[@]}" -lt 2 ] || fail "$1 is the serial number of several disks: ${found[*]}"
  echo "${found[0]:-}"
}

# Waits a while for the volume; systemd tries again after that.
wait_for_device() {
  local left="${GRAPHPLANE_WAIT:-120}" device
  while true; do
    device="$(device_of "$1")"
    [ -z "$device" ] || [ ! -e "$device" ] || break
    [ "$left" -gt 0 ] || fail "volume $1 is not attached"
    left=$((left - 1))
    sleep 1
  done
  readlink -f "$device"
}

# Makes a file system on a disk that has never been written to, and on no other. The label is its last step: a disk
# without it was never mounted by any of our machines. A power cut in between leaves a disk that is not empty any more;
# the note on the root disk says that it was.
format_if_empty() {
  local device="$1" note="$root/var/lib/graphplane-format-$2" probe=0 facts type name
  facts="$(blkid -p -o export "$device")" || probe=$?
  type="$(sed -n 's/^TYPE=//p' <<<"$facts")"
  name="$(sed -n 's/^LABEL=//p' <<<"$facts")"
  if [ "$probe/$type/$name" = "0/xfs/$label" ]; then
    rm -f "$note"
    return
  fi
  if [ ! -e "$note" ]; then
    # 0: something was recognised. 2: nothing was. Anything else is doubt, and so is a disk that somebody wrote to.
    case "$probe" in
      0) fail "$2 holds something else (${type:-no file system}, label ${name:-none}): it is not touched" ;;
      2) ;;
      *) fail "$2 cannot be read for certain (blkid ended with $probe): it is not touched" ;;
    esac
    { head -c 1048576 "$device" && tail -c 1048576 "$device"; } | cmp -s -n 2097152 - /dev/zero ||
      fail "$2 is not empty and has no file system: it is not touched"
    : >"$note"
    sync "$note" "${note%/*}"
  elif [ "$probe" = 0 ] && [ "$type/$name" != xfs/ ]; then
    fail "$2 holds something else (${type:-no file system}, label ${name:-none}): it is not touched"
  fi
  mkfs.xfs -q -f "$device"
  sync "$device"
  xfs_admin -L "$label" "$device" >/dev/null
  sync "$device"
  rm "$note"
}

prepare() {
  local region='' volume='' parameter='' device
  # shellcheck disable=SC1091
  . "$etc/node.env"
  mkdir -p "$data"
  if [ -n "$volume" ]; then
    device="$(wait_for_device "$volume")"
    if mountpoint -q "$data"; then
      [ "$(findmnt -n -o SOURCE --mountpoint "$data")" = "$device" ] || fail "another disk than $volume is mounted on $data"
    else
      format_if_empty "$device" "$volume"
      mount -t xfs -o noatime,nodev,nosuid,noexec "$device" "$data"
    fi
    # It may have been made larger since.
    xfs_growfs "$data" >/dev/null
  fi
  chown "$user:" "$data"
  chmod 700 "$data"
  if [ -n "$parameter" ]; then
    aws ssm get-parameter --region "$region" --name "$parameter" --with-decryption \
      --query Parameter.Value --output text | put "$etc/keys" 400
    [ -s "$etc/keys" ] || fail "parameter $parameter is empty"
    chown "$user:" "$etc/keys"
  fi
}

# Between mount and unmount only: what is below an empty directory is the root disk's.
grow() {
  if mountpoint -q "$data"; then
    xfs_growfs "$data" >/dev/null
  fi
}

case "${1:-}" in
  install) install_node ;;
  prepare) prepare ;;
  grow) grow ;;
  *) fail "expected install, prepare or grow" ;;
esac
