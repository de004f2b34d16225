"""LXD, and Incus, its fork: a daemon that keeps containers of whole systems, unprivileged unless one asks, each from an image.

A root directory becomes an image first, and the container has a copy, whose ids the daemon has shifted. Below it, it is LXC
that starts the container: a monitor is left, the parent of the container's first process, and the daemon is not above it.
See: lxc(1) of LXD, incus(1), lxc.container.conf(5), user_namespaces(7)
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit import ledger
from labkit.errors import CommandError, LabError
from labkit.host import services
from labkit.host.account import IdMap
from labkit.kernel import commands, rooted
from labkit.kernel.cgroups import members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed
from labkit.kernel.processes import ending
from labkit.runtimes import lxd_daemon, lxd_images, ours
from labkit.runtimes.container import Container, State, pick, running
from labkit.runtimes.lxc import first_error
from labkit.runtimes.lxd_daemon import INCUS, LXD, MARK, Daemon

_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_STATES: Mapping[str, State] = {"Starting": "creating", "Running": "running", "Freezing": "paused", "Frozen": "paused"}
_TICK = 0.02  # seconds between two looks at what LXD gives no notice of
_PATIENCE = 30.0


class Lxd:
    """LXD through its client `lxc`, not to be taken for the tools lxc-start and so on."""

    name = "lxd"
    names = LXD

    def available(self) -> str | None:
        """Return None where the client is installed and the labs' daemon answers."""
        if shutil.which(self.names.client):
            return lxd_daemon.why_not(self.names)
        only = services.named(self.name).only
        return f"no command {self.names.client} in PATH" + (f", it is in {only}" if only else "")

    def version(self) -> str:
        """Return the version of the daemon."""
        self._must_be_available()
        return str(self._daemon().ask("/1.0")["environment"]["server_version"])

    def id_map(self) -> IdMap:
        """Return an empty map: the directory given is root's, and the daemon shifts the ids of the copy that it makes."""
        return ()

    def list(self) -> tuple[Container, ...]:
        """Return the containers that the daemon keeps.

        Shell:
            lxc list
        """
        self._must_be_available()
        daemon, known = self._daemon(), {entry.id for entry in ours.entries(self._kind()).values()}
        found = daemon.ask("/1.0/instances?recursion=2")
        return tuple(_as_container(daemon, one, known) for one in found if one["type"] == "container")

    def start(self, rootfs: Path, argv: Sequence[str], name: str, limits: Mapping[str, str] | None = None) -> Container:
        """Run a program as first process of a container made of a copy of a root directory.

        Shell:
            lxc init IMAGE NAME; lxc start NAME

        Args:
            rootfs: the directory, root's.
            argv: program and arguments.
            name: letters, digits and hyphens.
            limits: as the daemon calls them: {"limits.memory": "64MiB", "limits.cpu": "1"}.
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        if not _NAME.fullmatch(name):
            remedy = "letters, digits and -, a letter first, at most 63, such as web"
            raise LabError(f"{name!r} cannot be the name of a container", remedy=remedy)
        homes()
        daemon = self._daemon()
        key = {"rootfs": str(real), self.name: str(daemon.directory), "cgroup": f"{subtree()}/{self.name}.{name}"}
        profile = lxd_daemon.seed(daemon)
        with ours.making(self._kind(), name, self.list(), **key) as entry:
            lxd_images.make(daemon, entry, real, argv)
            daemon.type([self.names.client, *_init(entry, argv, profile, limits or {})])
            _note(daemon, entry, daemon.type([self.names.client, "start", name], check=False))
        return pick(self.list(), name, self.name)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container.

        Shell:
            lxc exec NAME -- PROGRAM
        """
        container = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        return self._daemon().type([self.names.client, "exec", name, "--mode=non-interactive", "--", *argv], check=False)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Ask the first process to end, and kill what is left after `timeout`.

        Shell:
            lxc stop NAME --timeout SECONDS
        """
        entry = ours.entry(self._kind(), name, self.list())
        daemon = lxd_daemon.of_entry(entry)
        if timeout >= 1 and ours.process_of(entry, "init"):
            daemon.type([self.names.client, "stop", name, "--timeout", str(round(timeout))], check=False)
        _end(daemon, entry)

    def remove(self, name: str) -> None:
        """Delete a stopped container, its copy of the root directory and its image."""
        container = pick(self.list(), name, self.name) if name in ours.entries(self._kind()) else None
        entry = ours.entry(self._kind(), name, self.list())
        if container:
            ours.must_be_stopped(container)
        ledger.undo_one(entry)

    def _must_be_available(self) -> None:
        if not shutil.which(self.names.client):
            raise commands.missing(self.names.client)
        if why := self.available():
            raise LabError(f"{self.names.title} cannot be used here", cause=why)

    def _daemon(self) -> Daemon:
        return lxd_daemon.of_the_labs(self.names)

    def _kind(self) -> str:
        """Return what its containers are called in the ledger."""
        return f"{self.name} container"


class Incus(Lxd):
    """Incus, LXD as it was forked in 2023, through its client `incus`."""

    name = "incus"
    names = INCUS


def _init(entry: ledger.Entry, argv: Sequence[str], profile: str, limits: Mapping[str, str]) -> list[str]:
    """Return the words for the client that make the container, its mark on it from the first moment."""
    raw = [lxd_images.init_line(argv), f"lxc.cgroup.dir = {entry.key['cgroup']}"]
    if argv[0] != "/sbin/init":
        raw.append("lxc.signal.halt = SIGTERM")
    config = {MARK: entry.id, "boot.autostart": "false", **limits, "raw.lxc": "\n".join(raw)}
    words = [word for key, value in config.items() for word in ("--config", f"{key}={value}")]
    return ["init", lxd_images.alias(entry), entry.key["name"], "--profile", profile, "--quiet", *words]


def _as_container(daemon: Daemon, one: Mapping[str, Any], known: set[str]) -> Container:
    state = _STATES.get(one["status"], "stopped")
    pid = (one.get("state") or {}).get("pid") or 0
    pool = one["expanded_devices"].get("root", {}).get("pool", "")
    root = daemon.directory / "storage-pools" / pool / "containers" / one["name"] / "rootfs"
    mine = one["config"].get(MARK) in known
    first = pid if pid > 0 and state != "stopped" else None
    return Container(daemon.names.service, one["name"], state, first, root if root.is_dir() else None, mine)


def _note(daemon: Daemon, entry: ledger.Entry, done: Completed) -> None:
    """Note the first process and the monitor, once the program runs.

    Raises:
        CommandError: it did not start, with the first error of LXC's log.
    """
    name = entry.key["name"]
    pid = (daemon.ask(f"/1.0/instances/{name}/state") or {}).get("pid") or 0
    init = ending.known(pid) if pid > 0 else None
    if done.status or init is None:
        log = daemon.directory / "logs" / name / "lxc.log"
        raise CommandError(done.argv, done.status, done.stderr, cause=first_error(log) or "its first process ended at once")
    fields = members.stat_fields(pid)
    entry.identity.update(init=init, supervisor=ending.known(int(fields[1])) if fields else None)
    if not ours.wait_until_it_runs(init, (daemon.names.daemon,)):
        raise CommandError(done.argv, done.status, done.stderr, cause="its first process ended at once")


def _end(daemon: Daemon, entry: ledger.Entry) -> None:
    """End what runs in a container, and wait until the daemon has seen its end, too."""
    for there in _until_done(daemon, entry):
        if there["status"] == "Stopped":
            break
        daemon.tell([daemon.names.client, "stop", entry.key["name"], "--force"], check=False)
        _end_processes(entry)
    _end_processes(entry)


def _delete(daemon: Daemon, entry: ledger.Entry) -> None:
    """Delete a container, as soon as the daemon has done what it does when one has stopped."""
    for _ in _until_done(daemon, entry):
        daemon.tell([daemon.names.client, "delete", entry.key["name"], "--force"], check=False)


def _until_done(daemon: Daemon, entry: ledger.Entry) -> Iterator[Mapping[str, Any]]:
    """Yield the container again and again, while it is there and has our mark.

    Raises:
        LabError: it is there for too long.
    """
    deadline = time.monotonic() + _PATIENCE
    while (there := daemon.instance(entry.key["name"])) and there["config"].get(MARK) == entry.id:
        yield there
        daemon.settle()
        if time.monotonic() > deadline:
            neither = f"{daemon.names.title} neither stops nor deletes {there['name']}"
            raise LabError(neither, cause=f"after {_PATIENCE:g} s it is still {there['status']}")
        time.sleep(_TICK)


@ledger.undoes("lxd container", survives_reboot=True)
@ledger.undoes("incus container", survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Delete the container that has our mark, and its image; where the daemon is down, end at least what runs."""
    daemon = lxd_daemon.of_entry(entry)
    try:
        if lxd_daemon.must_answer(daemon):
            daemon.settle()
            _end(daemon, entry)
            _delete(daemon, entry)
            lxd_images.forget(daemon, entry)
    finally:
        _end_processes(entry)


def _end_processes(entry: ledger.Entry) -> None:
    if ledger.of_this_boot(entry):
        ours.end(entry)
