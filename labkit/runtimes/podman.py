"""Podman: no daemon, a conmon for each container; as root, and as a user who is root inside.

The labs' containers have a store, locks and a configuration of their own: what other podmans of the machine keep is read at most.
See: podman-run(1), containers.conf(5), conmon(8)
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.host import account, containers
from labkit.host.account import IdMap
from labkit.host.measures import Machine
from labkit.host.services.mirrors import containers_conf
from labkit.kernel import commands, mounts, processes, rooted, syscalls, trees
from labkit.kernel.cgroups import hierarchies, members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed, run
from labkit.kernel.mounts import ownership
from labkit.kernel.processes import ending
from labkit.runtimes import ours, podman_store
from labkit.runtimes.container import Container, State, pick, running

_KINDS = {"podman": "podman container", "podman-rootless": "podman-rootless container"}
_STATES: Mapping[str, State] = {"created": "created", "initialized": "created", "running": "running", "paused": "paused"}
_STARTERS = ("runc", "crun", "exe", "conmon")  # runc runs a copy of itself from memory, "/proc/self/exe" by name
_EVERYBODYS = Path("/var/lib/containers/storage")
_PATIENCE = 30.0


class Podman:
    """Podman as root: root inside is root outside, with fewer capabilities."""

    name = "podman"
    _storage: tuple[str, ...] = ("--storage-opt=overlay.skip_mount_home=true",)
    """Else the storage is mounted on itself, and stays so where podman is killed in the middle."""

    def available(self) -> str | None:
        """Return None where podman is installed."""
        return None if shutil.which("podman") else "no command podman in PATH"

    def version(self) -> str:
        """Return its version."""
        return run(["podman", "--version"]).stdout.split()[-1]

    def id_map(self) -> IdMap:
        """Return an empty map: ids are the host's."""
        return ()

    def store(self) -> Path:
        """Return the directory of the lab's containers: storage and configuration."""
        return ledger.state() / self.name / subtree()

    def session(self) -> Path:
        """Return what its containers have until the machine is started anew."""
        return podman_store.session(self.store())

    def list(self) -> tuple[Container, ...]:
        """Return the labs' containers, and those that podman keeps for everybody.

        Shell:
            podman ps --all
        """
        kind = _KINDS[self.name]
        return (*(ours.record(kind, entry) for entry in ours.entries(kind).values()), *self._others())

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as first process of a container whose root is the directory itself, with loopback alone.

        Shell:
            podman run --detach --name NAME --network none --rootfs ROOTFS PROGRAM
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        homes()
        self._make_store()  # it goes after the containers in it: the latest that was made goes first
        place = f"{subtree()}/{self._place(name)}"
        with ours.making(_KINDS[self.name], name, self.list(), rootfs=str(real), store=str(self.store()), cgroup=place) as entry:
            self._must_be_able(real, name)
            parent = self._parent(place)
            how = ["--detach", "--replace", "--name", name, "--network", "none", *parent, "--rootfs"]
            done = self._run(self.store(), name, "run", *how, str(real), *argv, check=True)
            self._note(entry, done.stdout.split()[-1])
        return ours.record(_KINDS[self.name], entry)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container.

        Shell:
            podman exec NAME PROGRAM
        """
        container = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        if container.ours:
            return self._run(Path(ours.entries(_KINDS[self.name])[name].key["store"]), name, "exec", name, *argv)
        return processes.run(["podman", "exec", name, *argv], env=rooted.ENVIRONMENT, cwd="/", on_error=lambda _: None)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Ask the first process to end, and kill what is left after `timeout`.

        Shell:
            podman stop --time SECONDS NAME
        """
        entry = ours.entry(_KINDS[self.name], name, self.list())
        if ours.process_of(entry, "init") and ours.process_of(entry, "supervisor"):
            self._run(Path(entry.key["store"]), name, "stop", "--time", str(math.ceil(timeout)), name, check=True)
        _finish(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped container.

        Shell:
            podman rm NAME
        """
        entry = ours.entry(_KINDS[self.name], name, self.list())
        ours.must_be_stopped(ours.record(_KINDS[self.name], entry))
        ledger.undo_one(entry)

    def forget(self, entry: ledger.Entry) -> None:
        """Let podman forget a container of the ledger, and end what is left of it."""
        name, store = entry.key["name"], Path(entry.key["store"])
        there = podman_store.ids(store)  # podman forgets them; the runtime, killed with it in the middle, may not
        if shutil.which("podman") and (store / "containers.conf").exists():
            with trace.silent(), ledger.owned_by(entry.owner):
                self._run(store, name, "rm", "--force", "--ignore", "--time", "0", name, timeout=_PATIENCE)
        _finish(entry)
        _forget_dead(store, there, [other for other in ours.entries(entry.kind).values() if other.id != entry.id])

    def _others(self) -> tuple[Container, ...]:
        """Ask the podman of each store in which somebody types, and of everybody's, where there is one."""
        places = [podman_store.environment(place) for place in podman_store.of_the_labs()]
        places += [{}] if podman_store.is_used(_EVERYBODYS) else []
        return tuple(found for place in places for found in self._listed(place)) if self.available() is None else ()

    def _listed(self, place: Mapping[str, str]) -> Iterator[Container]:
        said = run(["podman", "ps", "--all", "--format", "json"], env={**rooted.ENVIRONMENT, **place}, check=False).stdout
        with suppress(ValueError):
            for one in json.loads(said):
                yield Container(self.name, one["Names"][0], _STATES.get(one["State"], "stopped"), one["Pid"] or None)

    def _must_be_available(self) -> None:
        if self.available():
            raise commands.missing("podman")

    def _must_be_able(self, rootfs: Path, name: str) -> None:
        """Refuse a root directory that cannot be run: root can run any."""

    def _make_store(self) -> None:
        """Make the store, with the configuration that this machine needs: housekeeping, kept out of the trace."""
        with trace.silent():
            for directory in (self.store(), self.session()):
                trees.make_tree(directory).chmod(0o700 if directory == self.session() else 0o755)
            ownership.claim(self.store())  # podman mounts its storage on itself; killed in the middle, it leaves that there
        (self.store() / "containers.conf").write_text(f'{containers_conf()}lock_type = "file"\n')

    def _place(self, name: str) -> str:
        """Return the cgroup of a container, below the lab's part."""
        return f"{self.name}.{name}"

    def _parent(self, place: str) -> tuple[str, ...]:
        return (f"--cgroup-parent=/{place}",)

    def _cgroups(self, name: str) -> Sequence[Path]:
        """Return the cgroups of podman itself and of conmon, made."""
        found = account.delegable(f"{self._place(name)}/run")
        for directory in found:
            directory.mkdir(parents=True, exist_ok=True)
        return found

    def _environment(self, store: Path) -> dict[str, str]:
        return {**rooted.ENVIRONMENT, "HOME": str(store), "CONTAINERS_CONF": str(store / "containers.conf")}

    def _typed(self, argv: Sequence[str]) -> Sequence[str]:
        return argv

    def _run(self, store: Path, name: str, *words: str, **options: Any) -> Completed:
        """Run podman on the store of the labs, in the cgroup of a container."""
        run = podman_store.session(store)
        own = ["--root", str(podman_store.graph(store)), "--runroot", f"{run}/run", "--tmpdir", f"{run}/libpod"]
        argv = self._typed(["podman", *own, *self._storage, "--cgroup-manager=cgroupfs", "--events-backend=file", *words])
        keep: dict[str, Any] = {"env": self._environment(store), "cwd": "/", "on_error": lambda _: None, **options}
        return processes.run(argv, cgroups=self._cgroups(name), **keep)

    def _note(self, entry: ledger.Entry, identifier: str) -> None:
        """Note the first process and its conmon, once the program runs; one that has ended already has neither."""
        name, store = entry.key["name"], Path(entry.key["store"])
        entry.identity.update(id=identifier)
        with trace.silent():
            said = self._run(store, name, "container", "inspect", "--format", "{{.State.Pid}} {{.State.ConmonPid}}", identifier, check=True)
        pid, conmon = map(int, said.stdout.split())
        init, monitor = (ending.known(number) if number else None for number in (pid, conmon))
        if init and ours.wait_until_it_runs(init, _STARTERS):
            watches = monitor and members.read(f"/proc/{monitor.pid}/comm").strip() == "conmon"
            entry.identity.update(init=init, supervisor=monitor if watches else None)


class PodmanRootless(Podman):
    """Podman as a user: root inside is that user outside, the others are its subordinate ids."""

    name = "podman-rootless"
    _storage = ()  # it is mounted in the user's own mount namespace

    def available(self) -> str | None:
        """Return None where podman is installed and the labs' user has ids to map."""
        return account.cannot_map() or super().available()

    def id_map(self) -> IdMap:
        """Return podman's map: the user itself, then its subordinate ids."""
        student = account.find()
        ((_, first, count),) = student.id_map()
        return ((0, student.uid, 1), (1, first, count))

    def _others(self) -> tuple[Container, ...]:
        """Return nothing: to ask the podman of another user would start a process of that user."""
        return ()

    def _must_be_available(self) -> None:
        if why := self.available():
            raise LabError(f"{self.name} cannot be used here", cause=why, remedy="make lab")

    def _must_be_able(self, rootfs: Path, name: str) -> None:
        student = account.find()
        for fault in containers.faults_of(student, Machine(), (rootfs,), self._cgroups(name)):
            raise LabError(f"{student.name} cannot run {rootfs}", cause=fault.cause, remedy=fault.remedy)
        if rootfs.stat().st_uid != student.uid:
            cause = f"{rootfs} belongs to {rootfs.stat().st_uid}, and root inside will be {student.uid}"
            raise LabError(f"{student.name} cannot run {rootfs}", cause=cause, remedy="unpack it with the runtime's id_map()")

    def _make_store(self) -> None:
        super()._make_store()
        student = account.find()
        for path in (self.store(), self.session()):
            os.chown(path, student.uid, student.gid)

    def _parent(self, place: str) -> tuple[str, ...]:
        """Return the cgroup where a user may be given one with controllers; else the runtime stays in podman's own."""
        return super()._parent(place) if hierarchies().mode == "v2" else ()

    def _cgroups(self, name: str) -> Sequence[Path]:
        student = account.find()
        account.delegate(student, self._place(name))
        return account.delegate(student, f"{self._place(name)}/run")

    def _environment(self, store: Path) -> dict[str, str]:
        session = {"HOME": str(store), "XDG_RUNTIME_DIR": str(podman_store.session(store)), "CONTAINERS_CONF": f"{store}/containers.conf"}
        return {**account.find().environment(), **session}

    def _typed(self, argv: Sequence[str]) -> Sequence[str]:
        return account.find().typed(argv)


def _finish(entry: ledger.Entry) -> None:
    """Let the conmon of a container that has ended go, kill what is left, and remove its cgroups."""
    conmon = ours.process_of(entry, "supervisor")
    if conmon and not ours.process_of(entry, "init"):
        ours.terminate(conmon, 5, 0)
    ours.end(entry)


def _forget_dead(store: Path, there: set[str], others: Sequence[ledger.Entry]) -> None:
    """Remove what stays of a container that was killed in the middle: the runtime's state, and mounts in the store."""
    beside = [other.identity.get("id") for other in others if other.key["store"] == str(store)]
    if None in beside:
        return  # one that is being made now: it cannot be told from a dead one
    dead = (there | podman_store.ids(store)).difference(beside)
    for identifier, runtime in ((identifier, runtime) for identifier in dead for runtime in podman_store.LOW_LEVEL):
        state = Path("/run") / runtime / identifier
        if state.is_dir() and shutil.which(runtime):
            run([runtime, "delete", "--force", identifier], check=False, timeout=_PATIENCE)
            shutil.rmtree(state, ignore_errors=True)  # of one that had not written anything down yet
    for mount in reversed(mounts.at_or_below(store)):
        if dead.intersection(Path(mount.mountpoint).parts):
            with suppress(OSError):
                syscalls.umount2(mount.mountpoint, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


@ledger.undoes("podman container")
def _undo(entry: ledger.Entry) -> None:
    Podman().forget(entry)


@ledger.undoes("podman-rootless container")
def _undo_rootless(entry: ledger.Entry) -> None:
    PodmanRootless().forget(entry)
