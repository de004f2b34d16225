"""LXC: as root, and as a user whose root is nobody outside.

Containers of the labs have a state directory of their own (lxc-start -P); those under /var/lib/lxc are listed and left
alone. See: lxc.container.conf(5), lxc-start(1), lxc-attach(1), user_namespaces(7)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import CommandError, LabError, UnsupportedError
from labkit.host import account, containers
from labkit.host.account import IdMap
from labkit.host.measures import Machine
from labkit.kernel import commands, processes, rooted, trees
from labkit.kernel.cgroups import hierarchies, members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed, run
from labkit.kernel.processes import ending
from labkit.runtimes import ours
from labkit.runtimes.container import Container, State, pick, running

_KINDS = {"lxc": "lxc container", "lxc-unprivileged": "lxc-unprivileged container"}
_STATES: Mapping[str, State] = {"STARTING": "creating", "RUNNING": "running", "FREEZING": "paused", "FROZEN": "paused", "THAWED": "running"}
_CONFIG = Path("/usr/share/lxc/config")
_PIVOT = "lxc.pivot"
EVERYBODYS = Path("/var/lib/lxc")
"""Where containers lie that root makes without -P."""


class Lxc:
    """LXC as root: root inside is root outside, with fewer capabilities."""

    name = "lxc"

    def available(self) -> str | None:
        """Return None where lxc-start is installed."""
        return None if shutil.which("lxc-start") else "no command lxc-start in PATH"

    def version(self) -> str:
        """Return the version of the tools."""
        return run(["lxc-start", "--version"]).stdout.strip()

    def id_map(self) -> IdMap:
        """Return an empty map: ids are the host's."""
        return ()

    def lxcpath(self) -> Path:
        """Return the state directory of the labs' containers, for `lxc-ls -P`."""
        return ledger.state() / self.name

    def others(self) -> tuple[Path, ...]:
        """Return the state directories of everybody else."""
        return (EVERYBODYS,)

    def list(self) -> tuple[Container, ...]:
        """Return the labs' containers and those of others, each as the command socket of its monitor says it is.

        Shell:
            lxc-ls -f
        """
        known = ours.entries(_KINDS[self.name])
        found = []
        for path in (self.lxcpath(), *self.others()):
            with suppress(OSError):
                names = sorted(entry.name for entry in path.iterdir() if (entry / "config").is_file())
                found += [_look(self.name, path, name, ours=path == self.lxcpath() and name in known) for name in names]
        return tuple(found)

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as first process of a container.

        Shell:
            lxc-start -P LXCPATH -n NAME -- PROGRAM
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        homes()
        key = {"rootfs": str(real), "lxcpath": str(self.lxcpath()), "cgroup": f"{subtree()}/{self._place(name)}"}
        with ours.making(_KINDS[self.name], name, self.list(), **key) as entry:
            directory = self._configure(name, real, argv)
            command = ["lxc-start", "-P", str(self.lxcpath()), "-n", name, "--", *argv]
            _note(entry, self.lxcpath(), self._run(command, name, "start"), directory / "log")
        return _look(self.name, self.lxcpath(), name, ours=True)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container.

        Shell:
            lxc-attach -P LXCPATH -n NAME -- PROGRAM
        """
        container = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        path = self.lxcpath() if container.ours or container.rootfs is None else container.rootfs.parent.parent
        return self._run(["lxc-attach", "-P", str(path), "-n", name, "--", *argv], name)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Ask the first process to end, and kill what is left after `timeout`.

        Shell:
            lxc-stop -P LXCPATH -n NAME -t SECONDS
        """
        entry = ours.entry(_KINDS[self.name], name, self.list())
        if ours.process_of(entry, "init") and ours.process_of(entry, "supervisor"):
            argv = ["lxc-stop", "-P", entry.key["lxcpath"], "-n", name, "-t", str(max(1, round(timeout)))]
            self._run(argv if timeout >= 1 else [*argv[:-2], "-k"], name)
        ours.end(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped container and its configuration."""
        entry = ours.entry(_KINDS[self.name], name, self.list())
        ours.must_be_stopped(ours.record(_KINDS[self.name], entry))
        ledger.undo_one(entry)

    def _plugged(self) -> bool:
        """Tell whether its containers get a veth to the bridge."""
        return containers.BRIDGE in os.listdir("/sys/class/net")

    def _place(self, name: str) -> str:
        """Return the cgroup of a container, below the lab's part."""
        return f"{self.name}.{name}"

    def _must_be_available(self) -> None:
        if self.available():
            raise commands.missing("lxc-start")

    def _configure(self, name: str, rootfs: Path, argv: Sequence[str]) -> Path:
        """Write the container's configuration and return the directory in which it lies: housekeeping, kept out of the trace."""
        with trace.silent():
            trees.make_tree(self.lxcpath())
            directory = trees.make_tree(self.lxcpath() / name)
        lines = [f"lxc.uts.name = {name}", f"lxc.rootfs.path = dir:{rootfs}", f"lxc.log.file = {directory}/log", "lxc.log.level = ERROR"]
        lines += [*self._own_lines(name), *_network(plugged=self._plugged())]
        if argv[0] != "/sbin/init":
            lines.append("lxc.signal.halt = SIGTERM")
        (directory / "config").write_text("\n".join(lines) + "\n")
        return directory

    def _own_lines(self, name: str) -> Sequence[str]:
        profile = "generated" if shutil.which("apparmor_parser") else "unconfined"
        cgroup = f"lxc.cgroup.dir = {subtree()}/{self._place(name)}"
        return [f"lxc.include = {_CONFIG}/debian.common.conf", f"lxc.apparmor.profile = {profile}", cgroup]

    def _run(self, argv: Sequence[str], name: str, leaf: str = "run") -> Completed:  # noqa: ARG002 - only a user needs a place of its own
        return processes.run(argv, env=rooted.ENVIRONMENT, cwd="/", on_error=lambda _: None, shell_line=" ".join(argv))


class LxcUnprivileged(Lxc):
    """LXC as a user: root inside is the first of that user's subordinate ids outside."""

    name = "lxc-unprivileged"

    def available(self) -> str | None:
        """Return None where LXC is installed and the labs' user has ids to map."""
        return account.cannot_map() or super().available()

    def id_map(self) -> IdMap:
        """Return the map of the labs' user."""
        return account.find().id_map()

    def others(self) -> tuple[Path, ...]:
        """Return where the user keeps the containers that are made without -P."""
        with suppress(UnsupportedError):
            homes = (account.find().home, *(ledger.state() / "labs").glob("*/home"))
            return tuple(home / ".local/share/lxc" for home in homes)
        return ()

    def _must_be_available(self) -> None:
        if why := self.available():
            raise LabError(f"{self.name} cannot be used here", cause=why, remedy="make lab")

    def _configure(self, name: str, rootfs: Path, argv: Sequence[str]) -> Path:
        student = account.find()
        _must_be_able(student, rootfs, account.delegate(student, self._place(name)))
        directory = super()._configure(name, rootfs, argv)
        for path in (self.lxcpath(), directory, directory / "config"):
            os.chown(path, student.uid, student.gid)
        return directory

    def _own_lines(self, name: str) -> Sequence[str]:  # noqa: ARG002
        student = account.find()
        ids = [(kind, pair) for kind, pair in (("u", student.subuid), ("g", student.subgid)) if pair]
        maps = [f"lxc.idmap = {kind} 0 {first} {account.IDS}" for kind, (first, _) in ids]
        includes = [f"lxc.include = {_CONFIG}/debian.{which}.conf" for which in ("common", "userns")]
        return [*includes, "lxc.apparmor.profile = unconfined", *maps]

    def _plugged(self) -> bool:
        return containers.unplugged(account.find(), Machine()) is None

    def _run(self, argv: Sequence[str], name: str, leaf: str = "run") -> Completed:
        student = account.find()
        account.delegate(student, self._place(name))  # LXC divides the cgroup that it is started in, which then takes no processes
        places = account.delegate(student, f"{self._place(name)}/{leaf}")
        typed = student.typed(argv)
        return processes.run(typed, env=student.environment(), cgroups=places, cwd="/", on_error=lambda _: None, shell_line=" ".join(typed))


def _network(*, plugged: bool) -> list[str]:
    """Return the lines for a veth to the bridge, or for loopback alone where there is no bridge for it."""
    if not plugged:
        return ["lxc.net.0.type = empty"]
    return ["lxc.net.0.type = veth", f"lxc.net.0.link = {containers.BRIDGE}", "lxc.net.0.flags = up"]


def _look(runtime: str, lxcpath: Path, name: str, *, ours: bool) -> Container:
    """Ask the monitor of a container, by the tool, for state and first process."""
    said = run(["lxc-info", "-P", lxcpath, "-n", name, "--state", "--pid", "--no-humanize"], check=False).stdout
    words = [line.split(":")[-1].strip() for line in said.splitlines()]
    state: State = next((_STATES[word] for word in words if word in _STATES), "stopped")
    pid = next((int(word) for word in words if word.isdigit()), None)
    return Container(runtime, name, state, pid if state != "stopped" else None, _rootfs(lxcpath / name / "config"), ours)


def _rootfs(config: Path) -> Path | None:
    with suppress(OSError):
        for line in config.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "lxc.rootfs.path":
                return Path(value.strip().removeprefix("dir:"))
    return None


def _must_be_able(student: account.Account, rootfs: Path, places: Sequence[Path]) -> None:
    """Refuse what would keep the user from running this root directory, before anything is made.

    Raises:
        LabError: with the fault that is there.
    """
    for fault in containers.faults_of(student, Machine(), (rootfs,), places):
        raise LabError(f"{student.name} cannot run {rootfs}", cause=fault.cause, remedy=fault.remedy)
    owner, wanted = rootfs.stat().st_uid, student.id_map()[0][1]
    if owner != wanted:
        cause = f"{rootfs} belongs to {owner}, and root inside will be {wanted}"
        raise LabError(f"{student.name} cannot run {rootfs}", cause=cause, remedy="unpack it with the runtime's id_map()")


def _note(entry: ledger.Entry, lxcpath: Path, done: Completed, log: Path) -> None:
    """Note the first process and the monitor, once the program runs.

    Raises:
        CommandError: it did not start, with the first error of LXC's log.
    """
    there = _look("lxc", lxcpath, entry.key["name"], ours=True)
    if done.status != 0 or there.pid is None:
        raise CommandError(done.argv, done.status, done.stderr, cause=first_error(log))
    init = ending.known(there.pid)
    parent = _parent(there.pid)
    if init is None or not ours.wait_until_it_runs(init, ("lxc-start",)):
        raise CommandError(done.argv, done.status, done.stderr, cause=first_error(log) or "its first process ended at once")
    entry.identity.update(init=init, supervisor=ending.known(parent))


def _parent(pid: int) -> int:
    fields = members.stat_fields(pid)
    return int(fields[1]) if fields else 0


def first_error(log: Path) -> str | None:
    """Return what LXC said first in its log: the later lines are what followed from it."""
    with suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            if " ERROR " in line:
                return line.split(" - ", 2)[-1]
    return None


@ledger.undoes("lxc container")
def _undo(entry: ledger.Entry) -> None:
    _finish(entry)


@ledger.undoes("lxc-unprivileged container")
def _undo_unprivileged(entry: ledger.Entry) -> None:
    _finish(entry)


def _finish(entry: ledger.Entry) -> None:
    """End a container, whoever started it: asked of its monitor where the ledger does not know its processes."""
    name, lxcpath = entry.key["name"], Path(entry.key["lxcpath"])
    _kill(lxcpath, name)
    ours.end(entry)
    if any(known.kind == "tree" and known.key["path"] == f"{lxcpath}/{name}" for known in ledger.live(ledger.owner())):
        trees.remove_tree(lxcpath / name)


def _kill(lxcpath: Path, name: str) -> None:
    """End a container, and wait until its monitor has taken its cgroups down: the tool returns before that."""
    if not shutil.which("lxc-stop") or not (lxcpath / name / "config").exists():
        return
    there = _look("lxc", lxcpath, name, ours=True)
    monitor = ending.known(_parent(there.pid)) if there.pid else None
    run(["lxc-stop", "-P", lxcpath, "-n", name, "--kill"], check=False, timeout=30)
    if monitor and not ours.terminate(monitor, 5, 0):
        ending.end([], root=monitor)


def claim(name: str) -> None:
    """Take a name for this lab whose container root will make by hand, as the course has it: the undo ends and removes it.

    Raises:
        LabError: there is such a container already, or a cgroup of its name, and no lab made it.
    """
    if not any(entry.kind == "lxc claim" and entry.key["name"] == name for entry in ledger.live(ledger.owner())):
        for directory in default_cgroups(name):
            raise LabError(f"{directory} is there already and was not made by this lab", remedy=f"lxc-stop -k -n {name}")
    trees.claim_tree(EVERYBODYS / name)
    ledger.intend("lxc claim", name=name, pivots=pivots())


def pivots() -> str:
    """Return the hierarchies in which LXC has left its own empty cgroup already."""
    return ":".join(str(hierarchy.path) for hierarchy in hierarchies().mounted if (hierarchy.path / _PIVOT).is_dir())


def remove_pivots(before: str) -> None:
    """Remove the empty cgroups that LXC has left, but where there was one before."""
    for hierarchy in hierarchies().mounted:
        if str(hierarchy.path) not in before.split(":"):
            with suppress(OSError):
                (hierarchy.path / _PIVOT).rmdir()


def default_cgroups(name: str) -> list[Path]:
    """Return the cgroups that LXC makes for a container without a lxc.cgroup.dir, those that are there."""
    places = (hierarchy.path / f"lxc.{part}.{name}" for hierarchy in hierarchies().mounted for part in ("payload", "monitor"))
    return [place for place in places if place.is_dir()]


@ledger.undoes("lxc claim")
def _undo_claim(entry: ledger.Entry) -> None:
    """End the container, its monitor first asked; then what is left in the cgroups of its name, which were not there before."""
    name = entry.key["name"]
    _kill(EVERYBODYS, name)
    for directory in default_cgroups(name):
        members.end(directory, 10)
    remove_pivots(entry.key["pivots"])
