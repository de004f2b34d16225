"""Pods for tests of stage 1: a busybox for a root, written where the store and `rkt prepare` would have put it."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.appc.pod import Pod

KEY = f"sha512-{'0' * 64}"

SUPERVISOR = """
import sys
from pathlib import Path
from labkit.appc import stage1
from labkit.appc.networks import Networks
from labkit.appc.pod import Pod
from labkit.errors import LabError
data, uuid, net, flags = sys.argv[1:]
pod = Pod(Path(data), uuid)
pod.lock()
try:
    wanted = Networks.parse([net], Path(data) / "networks") if net else None
    code = stage1.run(pod, interactive="i" in flags, net=wanted, mds="m" in flags)
except LabError as error:
    print(error, file=sys.stderr)
    code = 254
sys.exit(code)
"""
"""What `rkt run-prepared` does with a pod, at the end."""


AFTER = 'until [ -s /dev/shm/one ] && ! kill -0 "$(cat /dev/shm/one)" 2> /dev/null; do sleep 0.02; done; '
"""What an app of the shell begins with that does its work once another one, which begins with `FIRST`, has ended."""
FIRST = "echo $$ > /dev/shm/one; "


def main(*argv: str, user: str = "0", group: str = "0", **more: Any) -> dict[str, Any]:
    """Return the `app` of a manifest."""
    return {"exec": list(argv), "user": user, "group": group, **more}


def isolator(name: str, value: object) -> dict[str, object]:
    return {"name": name, "value": value}


class Trial:
    """A state directory of rkt with one image.

    Args:
        data: the directory.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.tree = data / "cas/tree/deps-sha512-trial/rootfs"
        self.image = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "trial.example/image"}
        for name in ("bin", "etc", "opt/work", "tmp", "proc", "sys", "dev"):
            (self.tree / name).mkdir(parents=True)
        self.tree.chmod(0o755)
        self.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:\n")
        self.write("etc/group", "root:x:0:\nwww:x:33:\n")
        busybox = shutil.which("busybox")
        assert busybox
        shutil.copy(busybox, self.tree / "bin/busybox")
        for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if name != "busybox":
                (self.tree / "bin" / name).symlink_to("busybox")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Put a file into the image."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def pod(
        self, apps: Mapping[str, dict[str, Any]], *, overlay: bool = True, options: Mapping[str, Any] | None = None, **more: Any
    ) -> Pod:
        """Make a pod that can be run.

        Args:
            apps: name to the `app` of the manifest.
            overlay: whether the image's tree is the lower directory of an overlay.
            options: of every app beside its `app`: mounts, readOnlyRootFS, annotations.
            more: of the pod's manifest: volumes, isolators, annotations.
        """
        pod = Pod(self.data, str(uuid.uuid4()))
        (self.data / "pods/run" / pod.uuid).mkdir(parents=True, mode=0o750)
        described = [{"name": name, "image": {"id": KEY}, "app": app, **(options or {})} for name, app in apps.items()]
        pod.write("pod", json.dumps({"acVersion": "1.30.0", "acKind": "PodManifest", "apps": described, **more}))
        for name in apps:
            pod.write(f"appsinfo/{name}/manifest", json.dumps(self.image))
            pod.write(f"appsinfo/{name}/treeStoreID", "deps-sha512-trial\n")
        if overlay:
            pod.write("overlay-prepared", "")
        return pod

    def argv(self, pod: Pod, net: str = "", flags: str = "") -> list[str]:
        """Return the command that runs a pod; flags are `i` (interactive) and `m` (metadata)."""
        return [sys.executable, "-c", SUPERVISOR, str(self.data), pod.uuid, net, flags]

    def run(self, pod: Pod, net: str = "", flags: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a pod to its end."""
        return subprocess.run(self.argv(pod, net, flags), capture_output=True, text=True, timeout=60, input=stdin, check=False)

    def sh(self, script: str, *, app: Mapping[str, Any] | None = None, net: str = "", flags: str = "", **more: Any) -> list[str]:
        """Return the lines that a shell script writes in a pod of its own, which must succeed."""
        done = self.run(self.pod({"main": main("/bin/sh", "-c", script, **(app or {}))}, **more), net, flags)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return said(done.stdout)

    def start(self, pod: Pod, net: str = "", flags: str = "", **streams: Any) -> "subprocess.Popen[str]":
        """Start a pod and return its supervisor once every app has its keeper."""
        process = subprocess.Popen(self.argv(pod, net, flags), text=True, **streams)
        names = [app.name for app in pod.manifest.apps]
        until(lambda: process.poll() is not None or all(pod.read(f"appsinfo/{name}/pid") for name in names))
        return process


def said(output: str) -> list[str]:
    """Return lines without the words before them that say whose they are."""
    return [line.partition("]: ")[2] for line in output.replace("\r\n", "\n").splitlines()]


def heard(process: "subprocess.Popen[str]") -> str:
    """Wait for the next line that the one app of a pod writes, and return it."""
    assert process.stdout is not None
    return "".join(said(process.stdout.readline()))


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.02)


def processes_of(pod: Pod) -> list[str]:
    """Return what still runs in a pod, by the name that it gives its host."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pod.uuid in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def interleaved(lines: Sequence[str], of: str) -> list[str]:
    """Return the lines that one app has written."""
    return [line.partition("]: ")[2] for line in lines if f"] {of}[" in line]
