"""User data, run for real on a machine below a directory, with disks that are files and the emulator's S3."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from conftest import REGION, TEMPLATES, Aws
from machine import ADDRESS, INSTANCE, Machine, MetadataService, archive, user_data
from test_templates import FLEET, in_network, launch_template

VOLUME = "vol-0a1b2c3d4e5f60718"
TOKEN = "one-time-token-that-nobody-may-see"
CONFIG = {
    "node": "n1",
    "clusterId": "c1",
    "controlPlane": "https://graphplane.example:8000",
    "bootstrapToken": TOKEN,
    "objectStore": "s3://graphplane-objects",
}
# Leaves on its disk how it was called and with what configuration.
AGENT = """#!/bin/bash
printf '%s\\n' "$@" >"$2/arguments"
while [ $# -gt 0 ]; do [ "$1" != --config ] || cat "$2" > "$dir/config"; [ "$1" != --data-dir ] || dir="$2"; shift; done
"""


@pytest.fixture(scope="session")
def metadata():
    with MetadataService() as url:
        yield url


def publish(aws, folder):
    """Puts the archive of an agent into the artifact bucket; its digest."""
    path, sha256 = archive(folder, AGENT)
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="graphplane-artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.upload_file(str(path), "graphplane-artifacts", f"agents/{sha256}.tar.gz")
    return sha256


@pytest.fixture
def published(aws, tmp_path):
    return publish(aws, tmp_path)


@pytest.fixture
def machine(aws, metadata, tmp_path):
    return Machine(tmp_path / "root", aws.url, metadata)


@pytest.fixture(scope="session")
def first_boot(server, metadata, tmp_path_factory):
    """A writer after its first boot, without a volume."""
    folder, aws = tmp_path_factory.mktemp("first"), Aws(server)
    first = Machine(folder / "root", server, metadata)
    status, said = first.boot(writer(publish(aws, folder)))
    assert status == 0, said
    aws.reset()
    return first


@pytest.fixture
def booted(first_boot, metadata, server, tmp_path):
    """Another such writer."""
    machine = Machine(tmp_path / "root", server, metadata)
    machine.take_over(first_boot)
    return machine


def writer(sha256, **changes):
    settings = {
        "archive": f"s3://graphplane-artifacts/agents/{sha256}.tar.gz",
        "sha256": sha256,
        "region": REGION,
        "volume": VOLUME,
        "config": json.dumps(CONFIG),
    }
    return user_data(**{**settings, **changes})


def facts(disk):
    found = subprocess.run(["/usr/sbin/blkid", "-p", "-o", "export", disk], capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in found.splitlines() if "=" in line)


def run_agent(machine):
    subprocess.run(machine.agent(), check=True, timeout=30)


def test_it_is_small():
    # EC2 takes 16 KiB.
    assert len(writer("0" * 64)) < 8 << 10


def test_a_new_writer_formats_its_volume_and_registers_with_its_token(machine, published):
    machine.disk("nvme0n1", "vol-00000000000000001", size=1 << 20)
    disk = machine.disk("nvme1n1", VOLUME)
    status, said = machine.boot(writer(published))
    assert status == 0, said
    assert machine.commands.read_text().count("systemctl restart --no-block graphplane-node.service") == 1
    assert "systemctl enable --now graphplane-grow.timer" in machine.commands.read_text()
    status, said = machine.prepare()
    assert status == 0, said
    assert (facts(disk)["TYPE"], facts(disk)["LABEL"]) == ("xfs", "graphplane")
    assert machine.read("mounted") == str(disk)
    assert not list((machine.root / "var/lib").glob("graphplane-format-*"))
    run_agent(machine)
    data = machine.root / "var/lib/graphplane"
    assert json.loads((data / "config").read_text()) == {**CONFIG, "instanceId": INSTANCE}
    arguments = (data / "arguments").read_text().split()
    assert arguments[arguments.index("--advertise") + 1] == f"http://{ADDRESS}:8001"
    assert machine.mode("etc/graphplane/agent.json") == "0o400"
    assert machine.mode("var/lib/graphplane") == "0o700"


def test_the_token_is_in_no_argument_and_no_log(machine, published):
    machine.disk("nvme1n1", VOLUME)
    said = machine.boot(writer(published))[1] + machine.prepare()[1]
    assert TOKEN not in said
    assert TOKEN not in machine.commands.read_text()
    assert TOKEN not in " ".join(machine.agent())
    readable = [
        path
        for path in machine.root.rglob("*")
        if path.is_file() and TOKEN in path.read_bytes()[: 1 << 20].decode(errors="ignore")
    ]
    assert {path.name for path in readable} == {"agent.json", "user-data"}


def test_a_config_with_quotes_is_only_a_config(machine, published):
    name = "'; touch $(id) \"\\ `x` \u00fc"
    machine.disk("nvme1n1", VOLUME)
    status, said = machine.boot(writer(published, config=json.dumps({**CONFIG, "node": name})))
    assert status == 0, said
    assert json.loads(machine.read("etc/graphplane/agent.json"))["node"] == name


def test_the_volume_is_found_by_its_serial_wherever_it_is(booted):
    disk = booted.disk("nvme7n1", VOLUME)
    other = booted.disk("nvme1n1", "vol-0a1b2c3d4e5f60719")
    assert booted.prepare()[0] == 0
    assert booted.read("mounted") == str(disk)
    assert facts(other) == {}
    # After a reboot the kernel may name them the other way round.
    booted.reboot()
    booted.detach("nvme7n1")
    booted.detach("nvme1n1")
    booted.attach("nvme1n1", VOLUME, disk)
    booted.attach("nvme7n1", "vol-0a1b2c3d4e5f60719", other)
    assert booted.prepare()[0] == 0
    assert booted.read("mounted") == str(disk)
    assert facts(other) == {}


def test_a_second_boot_and_a_restart_find_everything_done(machine, published):
    disk = machine.disk("nvme1n1", VOLUME)
    assert machine.boot(writer(published))[0] == 0
    assert machine.prepare()[0] == 0
    uuid = facts(disk)["UUID"]
    assert machine.prepare()[0] == 0, "a restart of the agent"
    machine.reboot()
    assert machine.prepare()[0] == 0, "a reboot"
    status, said = machine.boot(writer(published))
    assert status == 0, said
    assert facts(disk)["UUID"] == uuid
    commands = machine.commands.read_text()
    assert commands.count("mkfs.xfs") == 1
    assert commands.count("aws s3 cp") == 1, "the archive is there already"


@pytest.mark.parametrize("content", ["ext4", "xfs", "partitions", "bytes", "bytes at its end"])
def test_a_disk_with_something_on_it_is_not_touched(booted, content):
    disk = booted.disk("nvme1n1", VOLUME)
    if content == "ext4":
        subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", disk], check=True)
    elif content == "xfs":
        subprocess.run([shutil.which("mkfs.xfs", path="/usr/sbin:/sbin"), "-q", "-L", "other", disk], check=True)
    else:
        with open(disk, "r+b") as file:
            if content == "partitions":
                # A table with one Linux partition, as fdisk leaves it.
                file.seek(446)
                file.write(bytes.fromhex("0020210083" "514100" "00080000" "00f80900"))
                file.seek(510)
                file.write(b"\x55\xaa")
            else:
                file.seek(4096 if content == "bytes" else -4096, os.SEEK_SET if content == "bytes" else os.SEEK_END)
                file.write(b"a database of somebody")
    before = disk.stat().st_mtime_ns
    status, said = booted.prepare()
    assert status != 0 and "not touched" in said and VOLUME in said
    assert disk.stat().st_mtime_ns == before
    assert not (booted.root / "mounted").exists()


def test_two_disks_of_one_serial_are_refused(booted):
    booted.disk("nvme1n1", VOLUME)
    booted.attach("nvme2n1", VOLUME, booted.root / f"{VOLUME}.img")
    status, said = booted.prepare()
    assert status != 0 and "several disks" in said


@pytest.mark.parametrize("cut", ["before", "within", "label"])
def test_formatting_that_was_cut_off_is_begun_again(booted, cut):
    disk = booted.disk("nvme1n1", VOLUME)
    # Where the power goes: the program that runs then leaves its work undone, or partly done.
    failing = {"before": "mkfs.xfs", "within": "mkfs.xfs", "label": "xfs_admin"}[cut]
    program = booted.root / "bin" / failing
    whole = program.read_text()
    partly = f"head -c 100000 /dev/urandom >{disk}.part; dd if={disk}.part of={disk} bs=4096 seek=16 conv=notrunc status=none"
    program.write_text("#!/bin/bash\n" + (f"PATH=/usr/bin:/bin; {partly}\n" if cut == "within" else "") + "kill -9 $PPID\n")
    assert booted.prepare()[0] != 0
    program.write_text(whole)
    booted.reboot()
    status, said = booted.prepare()
    assert status == 0, said
    assert (facts(disk)["TYPE"], facts(disk)["LABEL"]) == ("xfs", "graphplane")
    # The note is gone: what comes on this disk later is not formatted again.
    subprocess.run([shutil.which("mkfs.xfs", path="/usr/sbin:/sbin"), "-q", "-f", "-L", "other", disk], check=True)
    booted.reboot()
    assert booted.prepare()[0] != 0


def test_an_archive_with_another_digest_is_not_unpacked(aws, machine, published):
    s3 = aws.client("s3")
    s3.put_object(Bucket="graphplane-artifacts", Key=f"agents/{published}.tar.gz", Body=b"something else")
    status, said = machine.boot(writer(published))
    assert status != 0 and "another digest" in said
    assert not (machine.root / "opt/graphplane" / published).exists()
    assert not (machine.root / "etc/graphplane").exists()
    assert "systemctl" not in machine.commands.read_text()


def test_an_archive_that_is_not_there_is_asked_for_a_bounded_number_of_times(machine):
    status, said = machine.boot(writer("0" * 64).replace("-lt 8", "-lt 2"))
    assert status != 0 and "cannot be fetched" in said
    assert machine.commands.read_text().count("aws s3 cp") == 2


def test_a_missing_volume_is_waited_for(booted):
    status, said = booted.prepare()
    assert status != 0 and f"volume {VOLUME} is not attached" in said
    boot = booted.root / "opt/graphplane/current/boot.sh"
    waiting = booted.start([str(boot), "prepare"], GRAPHPLANE_WAIT="60")
    deadline = time.monotonic() + 60
    while "sleep 1" not in booted.commands.read_text():
        assert waiting.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    disk = booted.disk("nvme1n1", VOLUME)
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said
    assert booted.read("mounted") == str(disk)


def test_a_volume_that_has_grown_is_filled_while_the_agent_runs(booted):
    booted.disk("nvme1n1", VOLUME)
    grow = [str(booted.root / "opt/graphplane/current/boot.sh"), "grow"]
    status, said = booted.run(grow)
    assert status == 0, said
    assert "xfs_growfs" not in booted.commands.read_text(), "nothing is mounted yet"
    assert booted.prepare()[0] == 0
    before = booted.commands.read_text().count("xfs_growfs")
    status, said = booted.run(grow)
    assert status == 0, said
    assert booted.commands.read_text().count("xfs_growfs") == before + 1
    timer = (booted.root / "etc/systemd/system/graphplane-grow.timer").read_text()
    assert "OnUnitInactiveSec=15s" in timer
    service = (booted.root / "etc/systemd/system/graphplane-grow.service").read_text()
    assert "ExecStart=/opt/graphplane/current/boot.sh grow" in service


def test_another_disk_on_its_place_is_refused(booted):
    booted.disk("nvme1n1", VOLUME)
    (booted.root / "mounted").write_text("/dev/nvme9n1")
    status, said = booted.prepare()
    assert status != 0 and "another disk" in said
    assert "mkfs.xfs" not in booted.commands.read_text()


def test_a_replica_of_a_fleet_starts_from_its_template(aws, machine, published):
    aws.client("ssm").put_parameter(Name=FLEET["KeyParameter"], Value="key-of-callers", Type="SecureString")
    network = aws.create_stack("graphplane-network", "network", {})
    parameters = in_network(network, {**FLEET, "AgentSha256": published})
    fleet = aws.create_stack("graphplane-replica-1", "replica-fleet", parameters)
    text = base64.b64decode(launch_template(aws, fleet["LaunchTemplateId"])["UserData"]).decode()
    first, script = (TEMPLATES / "user-data.sh").read_text().split("\n", 1)
    assert text.startswith(f"{first}\narchive='s3://graphplane-artifacts/agents/") and text.endswith(f"\n{script}")
    status, said = machine.boot(text)
    assert status == 0, said
    status, prepared = machine.prepare()
    assert status == 0, prepared
    run_agent(machine)
    arguments = machine.read("var/lib/graphplane/arguments").split()
    said_to_agent = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert said_to_agent["--role"] == "replica"
    assert said_to_agent["--seed"] == "seeds/sec"
    assert said_to_agent["--object-store"] == "s3://graphplane-objects/"
    assert said_to_agent["--api-key-file"].endswith("/etc/graphplane/keys")
    assert machine.read("etc/graphplane/keys") == "key-of-callers\n"
    assert machine.mode("etc/graphplane/keys") == "0o400"
    assert "mount" not in [line.split()[0] for line in machine.commands.read_text().splitlines()]
    assert "key-of-callers" not in said + prepared + machine.commands.read_text() + " ".join(arguments)


def loop_device(image):
    """The image as a block device, if this machine has such; else nothing."""
    made = subprocess.run(["/usr/sbin/losetup", "-f", "--show", image], capture_output=True, text=True)
    return made.stdout.strip() if made.returncode == 0 else None


def test_a_volume_is_mounted_with_what_is_on_it(aws, metadata, published, tmp_path):
    """On a block device and with real mounts where this user may make them; else a directory stands for the disk."""
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    with contextlib.ExitStack() as after:
        device = loop_device(image) if os.geteuid() == 0 else None
        if device:
            after.callback(subprocess.run, ["/usr/sbin/losetup", "-d", device], check=True)
        machine = Machine(tmp_path / "root", aws.url, metadata, real_mounts=device is not None)
        machine.attach("nvme1n1", VOLUME, pathlib.Path(device) if device else image)
        assert machine.boot(writer(published))[0] == 0
        data = machine.root / "var/lib/graphplane"
        agent = " ".join(machine.agent())
        status, said = machine.prepare(f"PATH=/usr/bin:/bin {agent}", f"echo rows >{data}/rows")
        assert status == 0, said
        if device:
            assert not (data / "rows").exists(), "it is on the volume, not on the root disk"
        # The disk grew meanwhile, and the machine was started anew.
        if device:
            with open(image, "r+b") as file:
                file.truncate(400 << 20)
            subprocess.run(["/usr/sbin/losetup", "-c", device], check=True)
        machine.reboot()
        status, said = machine.prepare(
            f"cat {data}/rows", f"{machine.root}/opt/graphplane/current/boot.sh prepare", f"/usr/bin/df -BM --output=size {data}"
        )
        assert status == 0 and "rows" in said, said
        if device:
            assert int(said.split()[-1].removesuffix("M")) > 320
