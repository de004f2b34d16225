"""Docker, through its client: an image is made of the root directory, and a container of the image.

What the labs make carries the ledger's id: the container as a label, the image in its tag. By them alone they are removed.
The client is told its own configuration, so that neither a context nor a proxy of the user's reaches a container.
See: docker-run(1), docker-import(1), docker-inspect(1)
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import CommandError, LabError
from labkit.host.account import IDS, IdMap
from labkit.host.services import places
from labkit.kernel import commands, mounts, processes, rooted
from labkit.kernel.cgroups import members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed
from labkit.kernel.processes import ending
from labkit.runtimes import docker_daemon, ours
from labkit.runtimes.container import Container, State, pick, running

_KIND = "docker container"
_LABEL = "org.labkit.container"
_STATES: Mapping[str, State] = {"created": "created", "running": "running", "restarting": "creating", "paused": "paused"}
_STARTERS = ("runc", "crun", "exe")  # runc runs a copy of itself from memory, "/proc/self/exe" by name
_SETTLED = 0.5  # seconds in which what was asked of the daemon comes to be, when who asked was killed: of it the daemon gives no notice
_PATIENCE = 20.0


class Docker:
    """The engine that made containers common: client, dockerd, containerd, a shim for each container."""

    name = "docker"

    def available(self) -> str | None:
        """Return None where the client is installed and the daemon listens."""
        if not shutil.which("docker"):
            return "no command docker in PATH"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(endpoint()))
        except OSError as error:
            return f"{endpoint()}: {error.strerror}"
        return None

    def version(self) -> str:
        """Return the daemon's version."""
        self._must_be_available()
        return ask("version", "--format", "{{.Server.Version}}")

    def id_map(self) -> IdMap:
        """Return the map of a daemon with userns-remap, whose data directory is named after it; else ids are the host's."""
        if self.available() or "name=userns" not in _info("{{json .SecurityOptions}}"):
            return ()
        uid, _ = os.path.basename(_info("{{.DockerRootDir}}")).split(".")
        return ((0, int(uid), IDS),)

    def list(self) -> tuple[Container, ...]:
        """Return the daemon's containers, everybody's.

        Shell:
            docker ps --all
        """
        if self.available():
            return ()
        ids = ask("ps", "--all", "--quiet", "--no-trunc").split()
        known = {entry.identity.get("id") for entry in ours.entries(_KIND).values()}
        return tuple(_look(*fields, ours=fields[0] in known) for fields in _inspect(ids))

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as first process of a container, whose root is a copy of the directory, in layers.

        Shell:
            tar -C ROOTFS -c . | docker import - IMAGE
            docker run --detach --name NAME IMAGE PROGRAM
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        homes()
        place = {"cgroup": f"{subtree()}/{self.name}.{name}"} if _info("{{.CgroupDriver}}") == "cgroupfs" else {}
        with ours.making(_KIND, name, self.list(), rootfs=str(real), **place) as entry:
            image = _import(entry, real, self.id_map())
            parent = [f"--cgroup-parent=/{place['cgroup']}"] if place else []  # else systemd makes a scope of it, and removes it
            done = _client("run", "--detach", "--name", name, *parent, image, *argv, check=True)
            _note(entry, done.stdout.strip())
        return pick(self.list(), name, self.name)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container.

        Shell:
            docker exec NAME PROGRAM
        """
        container = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        return _client("exec", name, *argv)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Ask the first process to end, and kill what is left after `timeout`.

        Shell:
            docker stop --time SECONDS NAME
        """
        entry = ours.entry(_KIND, name, self.list())
        for identifier, *_ in _inspect([entry.identity.get("id", "")]):
            _client("stop", "-t", str(math.ceil(timeout)), identifier, check=True, shown=name)
        _finish(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped container, and its image.

        Shell:
            docker rm NAME; docker rmi IMAGE
        """
        there = self.list()
        entry = ours.entry(_KIND, name, there)
        for container in there:
            if container.name == name and container.ours:
                ours.must_be_stopped(container)
        ledger.undo_one(entry)
        trace.record(f"docker rm {name}; docker rmi {_image(entry)}")

    def _must_be_available(self) -> None:
        if not shutil.which("docker"):
            raise commands.missing("docker")
        if why := self.available():
            raise LabError("docker does not answer", cause=why, remedy="labkit up docker")


def endpoint() -> Path:
    """Return where the daemon listens: the lab's own where it has one, else that of this instance."""
    return docker_daemon.socket() or places().docker


def words(*typed: str) -> list[str]:
    """Return the client's command line for that daemon."""
    return ["docker", "--config", str(ledger.state() / "docker-client"), "--host", f"unix://{endpoint()}", *typed]


def _client(*told: str, check: bool = False, shown: str = "", **options: Any) -> Completed:
    """Run the client, and show it as a person types it."""
    typed = shlex.join(["docker", *told[:-1], shown] if shown else ["docker", *told])
    keep: dict[str, Any] = {"env": rooted.ENVIRONMENT, "cwd": "/", "on_error": lambda _: None, "shell_line": typed, **options}
    return processes.run(words(*told), check=check, **keep)


def ask(*typed: str, check: bool = True) -> str:
    """Ask the daemon something."""
    return commands.run(words(*typed), env=rooted.ENVIRONMENT, check=check).stdout.strip()


def _info(form: str) -> str:
    return ask("info", "--format", form)


def _inspect(ids: Sequence[str]) -> list[list[str]]:
    """Return id, pid, state and name of containers, those that are there; the fields are the same in every version."""
    form = "{{.Id}} {{.State.Pid}} {{.State.Status}} {{.Name}}"
    return [line.split() for line in ask("container", "inspect", "--format", form, *ids, check=False).splitlines()] if ids else []


def _look(_: str, pid: str, state: str, name: str, *, ours: bool) -> Container:
    root = mounted_root(int(pid)) if pid != "0" else None
    return Container("docker", name.lstrip("/"), _STATES.get(state, "stopped"), int(pid) or None, root, ours)


def mounted_root(pid: int) -> Path | None:
    """Return where on the host the file system is mounted that a process has as its root: the layers merged."""
    with suppress(OSError):
        device = os.stat(f"/proc/{pid}/root").st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        return next((Path(mount.mountpoint) for mount in mounts.mountinfo() if mount.device == number and mount.root == "/"), None)
    return None


def _import(entry: ledger.Entry, rootfs: Path, ids: IdMap) -> str:
    """Make an image of a directory and return its name."""
    image = _image(entry)
    read_end, write_end = os.pipe()
    said = os.memfd_create("tar")
    try:
        try:
            remapped: dict[str, Any] = {"new": ("user",), "uid_map": ids} if ids else {}
            with trace.silent():
                argv = ["tar", "--create", "--numeric-owner", "--xattrs", "."]
                tar = processes.start(argv, cwd=rootfs, env=rooted.ENVIRONMENT, stdout=write_end, stderr=said, **remapped)
        finally:
            os.close(write_end)
        try:
            words = ["import", "--change", f"LABEL {_LABEL}={entry.id}", "-", image]
            line = f"tar -C {shlex.quote(str(rootfs))} -c . | docker import - {image}"
            _client(*words, check=True, stdin=read_end, shell_line=line)
        finally:
            os.close(read_end)
        if status := tar.wait():
            raise CommandError(argv, status, os.pread(said, 4096, 0).decode(errors="replace"))
    finally:
        os.close(said)
    return image


def _image(entry: ledger.Entry) -> str:
    """Return what the image of a container is called: as no other is."""
    return f"labkit-rootfs:{entry.key['name']}-{entry.id[:8]}"


def _note(entry: ledger.Entry, identifier: str) -> None:
    """Note the container, its first process and the shim, once the program runs; one that has ended already has none."""
    entry.identity.update(id=identifier)
    init = next((ending.known(int(pid)) for _, pid, *_ in _inspect([identifier]) if pid != "0"), None)
    if init is None or not ours.wait_until_it_runs(init, _STARTERS):
        return
    entry.identity.update(init=init, supervisor=shim_of(init.pid))


def shim_of(pid: int) -> ending.Known | None:
    """Return the shim of containerd that a first process is the child of."""
    fields = members.stat_fields(pid)
    shim = ending.known(int(fields[1])) if fields else None
    return shim if shim and members.read(f"/proc/{shim.pid}/comm").startswith("containerd-shim") else None


def _finish(entry: ledger.Entry) -> None:
    """Let the shim of a container that has ended go, kill what is left, and remove its cgroups."""
    shim = ours.process_of(entry, "supervisor")
    if shim:
        ours.terminate(shim, 5, 0)
    ours.end(entry)


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Remove container and image; of what was being made when it was killed, until nothing comes any more.

    Raises:
        LabError: docker does not answer, or does not remove them.
    """
    if why := Docker().available():
        ours.end(entry)
        raise LabError(f"the container docker:{entry.key['name']} cannot be removed", cause=why, remedy="labkit up docker")
    deadline = time.monotonic() + _PATIENCE
    settled = time.monotonic() + (0 if "id" in entry.identity else _SETTLED)
    while (left := _left(entry)) or time.monotonic() < settled:
        for remove, found in left:
            said = commands.run(words(remove, "--force", found), env=rooted.ENVIRONMENT, check=False, timeout=_PATIENCE)
            if time.monotonic() > deadline:
                raise CommandError(said.argv, said.status, said.stderr)
    _finish(entry)


def _left(entry: ledger.Entry) -> list[tuple[str, str]]:
    """Return what is there of an entry, each with the verb that removes it: its container, and its image.

    A container has name and label: what a person makes of the image inherits the label alone.
    """
    label, name = f"label={_LABEL}={entry.id}", f"name=^/?{re.escape(entry.key['name'])}$"
    container = ask("ps", "--all", "--quiet", "--no-trunc", "--filter", label, "--filter", name).split()
    image = ask("images", "--quiet", _image(entry)).split()
    return [*(("rm", one) for one in container), *(("rmi", _image(entry)) for _ in image)]
