"""A machine on which user data is run for real, below a directory: what is stood in for is listed here."""

import http.server
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import threading

from conftest import REGION, REPOSITORY, TEMPLATES

INSTANCE, ADDRESS = "i-0123456789abcdef0", "10.80.3.7"
# Everything that a start may use. It is found nowhere else, so that nothing can be installed on the way.
PROGRAMS = """aws basename bash blkid cat chmod chown cmp curl dirname findmnt getent head ln mkdir mkfs.xfs mount
    mountpoint mv readlink rm sed sha256sum sleep sync systemctl tail tar gzip touch tr useradd xfs_admin xfs_db xfs_growfs""".split()
# These would change the machine that the tests run on, whose init they are not.
STAND_INS = {
    "systemctl": "exit 0",
    "useradd": "exit 0",
    "getent": "exit 2",
    "chown": "exit 0",
}
# Where a directory stands for the mounted disk, since the tests may not mount. `mounted` is the device.
DIRECTORY_AS_DISK = {
    "mount": 'printf %s "$(readlink -f "${@: -2:1}")" >"$GRAPHPLANE_ROOT/mounted"',
    "mountpoint": '[ -e "$GRAPHPLANE_ROOT/mounted" ]',
    "findmnt": 'cat "$GRAPHPLANE_ROOT/mounted"',
    "xfs_growfs": "exit 0",
}


class Metadata(http.server.BaseHTTPRequestHandler):
    """The metadata service of a machine that demands version 2: without a session's token it answers 401."""

    answers = {
        "instance-id": INSTANCE,
        "local-ipv4": ADDRESS,
        "placement/availability-zone": f"{REGION}a",
        "iam/security-credentials/": "node",
        "iam/security-credentials/node": """{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIATEST",
            "SecretAccessKey": "secret", "Token": "token", "Expiration": "2099-01-01T00:00:00Z",
            "LastUpdated": "2026-01-01T00:00:00Z"}""",
    }

    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        asked = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.answer(200, "session") if asked else self.answer(400)

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != "session":
            return self.answer(401)
        found = self.answers.get(self.path.removeprefix("/latest/meta-data/"))
        self.answer(404) if found is None else self.answer(200, found)

    def log_message(self, *_):
        pass


class MetadataService:
    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Machine:
    """One instance: its root directory, its disks, and what was run on it."""

    def __init__(self, root, aws_url, metadata_url, real_mounts=False):
        self.root = pathlib.Path(root)
        self.real_mounts = real_mounts
        for folder in ("bin", "dev", "sys/block", "etc", "var/lib", "tmp"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.commands = self.root / "commands"
        self.commands.touch()
        stand_ins = STAND_INS if real_mounts else {**STAND_INS, **DIRECTORY_AS_DISK}
        places = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])
        for name in PROGRAMS:
            does = stand_ins.get(name) or f'exec {shlex.quote(shutil.which(name, path=places))} "$@"'
            program = self.root / "bin" / name
            program.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >>{self.commands}\n{does}\n')
            program.chmod(0o755)
        self.environment = {
            "PATH": str(self.root / "bin"),
            "HOME": str(self.root),
            "TMPDIR": str(self.root / "tmp"),
            "GRAPHPLANE_ROOT": str(self.root),
            "GRAPHPLANE_WAIT": "0",
            "GRAPHPLANE_PAUSE": "0",
            "AWS_ENDPOINT_URL": aws_url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_url + "/",
            "AWS_EC2_METADATA_DISABLED": "false",
        }

    def disk(self, name, volume, size=320 << 20):
        """A disk as the kernel shows it; its content is a file."""
        content = self.root / f"{volume}.img"
        if not content.exists():
            with open(content, "wb") as file:
                file.truncate(size)
        self.attach(name, volume, content)
        return content

    def attach(self, name, volume, content):
        (self.root / "dev" / name).symlink_to(content)
        (self.root / "sys/block" / name / "device").mkdir(parents=True)
        # As NVMe drivers show it: without the hyphen, filled up with blanks.
        (self.root / "sys/block" / name / "device/serial").write_text(volume.replace("-", "").ljust(20) + "\n")

    def detach(self, name):
        (self.root / "dev" / name).unlink()
        shutil.rmtree(self.root / "sys/block" / name)

    def take_over(self, other):
        """What the first boot of another one left on its root disk; paths in it are relative to the root."""
        for folder in ("opt", "etc"):
            shutil.copytree(other.root / folder, self.root / folder, symlinks=True, dirs_exist_ok=True)

    def reboot(self):
        (self.root / "mounted").unlink(missing_ok=True)

    def start(self, command, **settings):
        argv = ["/bin/bash", *command]
        if self.real_mounts:
            # Mounts end with the process, as they do with a boot.
            argv = ["unshare", "--mount", "--propagation", "private", *argv]
        return subprocess.Popen(
            argv,
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            executable=shutil.which(argv[0]),
        )

    def run(self, command, **settings):
        """Status and output."""
        process = self.start(command, **settings)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def boot(self, user_data):
        script = self.root / "user-data"
        script.write_text(user_data)
        return self.run([str(script)])

    def prepare(self, *more, **settings):
        """What systemd runs before the agent, and then `more` in the same boot."""
        boot = shlex.quote(str(self.root / "opt/graphplane/current/boot.sh"))
        return self.run(["-ec", "\n".join([f"{boot} prepare", *more])], **settings)

    def agent(self):
        """The agent's command line as the unit has it, with this machine's directories."""
        unit = (self.root / "etc/systemd/system/graphplane-node.service").read_text()
        command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
        variables = dict(line.split("=", 1) for line in self.read("etc/graphplane/agent.env").splitlines())
        words = []
        for word in command.split():
            words += variables[word[1:]].split() if word.startswith("$") else [word]
        return [str(self.root) + word if word.startswith("/") else word for word in words]

    def read(self, path):
        return (self.root / path).read_text()

    def mode(self, path):
        return oct((self.root / path).stat().st_mode & 0o777)


def quoted(text):
    """A value between single quotes, as whoever starts a machine writes it; JSON says \\u0027 for such a quote."""
    return "'" + text.replace("'", "\\u0027") + "'"


def user_data(**settings):
    """What the operator gives to RunInstances: settings, then the script."""
    first, rest = (TEMPLATES / "user-data.sh").read_text().split("\n", 1)
    lines = [f"{name}={quoted(value)}" for name, value in settings.items()]
    return "\n".join([first, *lines, rest])


def archive(folder, agent):
    """The archive of an agent whose program is the script `agent`; its path and its digest."""
    program, library = folder / "agent", folder / "libduckdb.so"
    program.write_text(agent)
    library.write_bytes(b"library")
    made = subprocess.run(
        [REPOSITORY / "scripts/agent-archive.sh", program, library, folder], check=True, capture_output=True, text=True
    )
    path = pathlib.Path(made.stdout.strip())
    return path, path.name.removesuffix(".tar.gz")
