"""containerd through `ctr`, its own client: a directory is run as it lies, with neither an image nor a network.

The labs' containers have a containerd namespace of their own, which is no namespace of the kernel but a part of the daemon's
database. Docker's (moby) and the CRI's (k8s.io) are listed by those. See: ctr(8), containerd(8), namespaces of containerd
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.host.account import IdMap
from labkit.host.services import places
from labkit.kernel import commands, processes, rooted, trees
from labkit.kernel.cgroups import members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed
from labkit.kernel.processes import ending
from labkit.runtimes import ours, shims
from labkit.runtimes.container import Container, State, pick, running

_KIND = "containerd container"
_STATES: Mapping[str, State] = {"CREATED": "created", "RUNNING": "running", "PAUSED": "paused", "PAUSING": "paused"}
_SHOWN_ELSEWHERE = ("moby", "k8s.io")
_STARTERS = ("runc", "crun", "exe")  # runc runs a copy of itself from memory, "/proc/self/exe" by name
_PATIENCE = 10.0
USUAL = Path("/run/containerd/containerd.sock")
"""Where ctr looks by itself."""


class Containerd:
    """The daemon between engines and low-level runtimes."""

    name = "containerd"

    def available(self) -> str | None:
        """Return None where ctr is installed and the daemon answers."""
        if not shutil.which("ctr"):
            return "no command ctr in PATH"
        if not places().containerd.is_socket():
            return f"there is no socket {places().containerd}"
        done = commands.run(command("version"), check=False)
        return None if done.status == 0 else f"{places().containerd}: {done.stderr.strip()}"

    def version(self) -> str:
        """Return the daemon's version.

        Shell:
            ctr version
        """
        self._must_be_available()
        server = commands.run(command("version")).stdout.partition("Server:")[2]
        return next(line.split()[-1] for line in server.splitlines() if "Version:" in line)

    def id_map(self) -> IdMap:
        """Return an empty map: ids are the host's."""
        return ()

    def list(self) -> tuple[Container, ...]:
        """Return the containers of every containerd namespace but docker's and the CRI's; those of others as NAMESPACE/NAME.

        Shell:
            ctr namespaces list; ctr --namespace NAMESPACE tasks list
        """
        if self.available():
            return ()
        known = ours.entries(_KIND)
        there = commands.run(command("namespaces", "list", "--quiet")).stdout.split()
        return tuple(_look(*row, entry=known.get(row[1])) for row in _rows(there))

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as first process of a container, whose root is the very directory.

        Shell:
            ctr run --detach --rootfs ROOTFS NAME PROGRAM
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        homes()
        where = {"namespace": namespace(), "socket": str(places().containerd), "cgroup": f"{subtree()}/{self.name}.{name}"}
        with ours.making(_KIND, name, self.list(), rootfs=str(real), **where) as entry:
            log = _directory(name) / "log"
            settings = [f"--cgroup=/{where['cgroup']}", f"--log-uri=file://{log}"]
            settings += [word for item in rooted.ENVIRONMENT.items() for word in ("--env", "=".join(item))]
            line = shlex.join(["ctr", "--namespace", namespace(), "run", "--detach", "--rootfs", str(real), name, *argv])
            _ctr("run", "--detach", "--rootfs", *settings, str(real), name, *argv, line=line)
            _note(entry)
        return pick(self.list(), name, self.name)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container.

        Shell:
            ctr tasks exec --exec-id ID NAME PROGRAM
        """
        container = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        where, _, short = name.rpartition("/")
        identifier = f"labkit-{uuid.uuid4().hex[:8]}"
        words = ("tasks", "exec", "--fifo-dir", str(_directory()), "--exec-id", identifier, short, *argv)
        line = shlex.join(["ctr", "--namespace", where or namespace(), "tasks", "exec", "--exec-id", identifier, short, *argv])
        return _ctr(*words, line=line, within=where, check=False)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Send the first process SIGTERM, and kill what is left after `timeout`.

        Shell:
            ctr tasks kill --signal SIGTERM NAME; ctr tasks delete NAME
        """
        entry = ours.entry(_KIND, name, self.list())
        for signal, seconds in (("SIGTERM", timeout), ("SIGKILL", _PATIENCE)):
            init = ours.process_of(entry, "init")
            if init and seconds > 0:
                _ctr("tasks", "kill", "--signal", signal, name, check=False)
                ours.terminate(init, seconds, 0)
        _ctr("tasks", "delete", "--force", name, check=False)
        shims.wait_until_gone(entry.key["namespace"], name, Path(entry.key["socket"]))
        ours.end(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped container.

        Shell:
            ctr containers delete NAME
        """
        there = self.list()
        entry = ours.entry(_KIND, name, there)
        for container in there:
            if container.name == name:
                ours.must_be_stopped(container)
        ledger.undo_one(entry)
        trace.record(f"ctr --namespace {entry.key['namespace']} containers delete {name}")

    def _must_be_available(self) -> None:
        if not shutil.which("ctr"):
            raise commands.missing("ctr")
        if why := self.available():
            raise LabError("containerd does not answer", cause=why, remedy="labkit up containerd")


def namespace() -> str:
    """Return the labs' namespace in containerd: that of another state directory has another name."""
    usual = ledger.state() == Path("/var/lib/labkit")
    return "labkit" if usual else f"labkit-{hashlib.sha256(os.fsencode(ledger.state())).hexdigest()[:6]}"


def command(*words: str, within: str = "", socket: Path | None = None) -> list[str]:
    """Return the command line of ctr for the daemon of this instance.

    Args:
        words: subcommand and its arguments.
        within: containerd's namespace; "" is ctr's own default.
        socket: of another daemon.
    """
    where = socket or places().containerd
    return ["ctr", *([] if where == USUAL else ["--address", str(where)]), *(["--namespace", within] if within else []), *words]


def _ctr(*words: str, line: str = "", within: str = "", check: bool = True) -> Completed:
    """Run ctr in the labs' namespace, and show it as a person types it."""
    argv = command(*words, within=within or namespace())
    typed = line or shlex.join(argv)
    return processes.run(argv, check=check, env=rooted.ENVIRONMENT, cwd="/", on_error=lambda _: None, shell_line=typed)


def _directory(name: str = "") -> Path:
    """Return where the labs' logs and pipes of containerd lie, or a container's own part: housekeeping, kept out of the trace."""
    with trace.silent():
        whole = trees.make_tree(ledger.state() / "containerd-labs")
        return trees.make_tree(whole / name) if name else whole


def _rows(namespaces: Sequence[str]) -> list[tuple[str, str, int, str]]:
    """Return namespace, name, pid and status of each container of these namespaces; 0 and "" where it has no task."""
    rows = []
    for each in namespaces:
        names = [] if each in _SHOWN_ELSEWHERE else commands.run(command("containers", "list", "--quiet", within=each)).stdout.split()
        listed = commands.run(command("tasks", "list", within=each)).stdout.splitlines()[1:] if names else []
        tasks = {words[0]: (int(words[1]), words[2]) for line in listed if len(words := line.split()) == 3}
        rows += [(each, name, *tasks.get(name, (0, ""))) for name in names]
    return rows


def _look(within: str, name: str, pid: int, status: str, *, entry: ledger.Entry | None) -> Container:
    state = _STATES.get(status, "stopped")
    first = pid if state != "stopped" else None
    if entry is not None and within == entry.key["namespace"]:
        return Container("containerd", name, state, first, Path(entry.key["rootfs"]), ours=True)
    return Container("containerd", f"{within}/{name}", state, first)


def _note(entry: ledger.Entry) -> None:
    """Note the first process and its shim, once the program runs.

    Raises:
        LabError: it ended as it began, with the last line that it wrote.
    """
    name = entry.key["name"]
    pid = next((pid for _, each, pid, _ in _rows([entry.key["namespace"]]) if each == name), 0)
    init = ending.known(pid) if pid else None
    fields = members.stat_fields(pid)
    if init is None or not ours.wait_until_it_runs(init, _STARTERS):
        log = members.read(_directory(name) / "log").strip().splitlines()[-1:]
        raise LabError(f"the container containerd:{name} ended as it began", cause=log[0] if log else None)
    entry.identity.update(init=init, supervisor=ending.known(int(fields[1])) if fields else None)


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """End a container and take it out of containerd's database, where it survives a boot.

    Raises:
        LabError: the daemon does not answer: its processes are gone then, what the database says of it is not.
    """
    name, socket = entry.key["name"], Path(entry.key["socket"])
    directory = ledger.state() / "containerd-labs" / name
    shims.end_clients(f"--log-uri=file://{directory / 'log'}")
    there = bool(shutil.which("ctr")) and socket.is_socket()
    if there:
        _delete(name, entry.key["namespace"], socket, settled=bool(entry.identity))
    ours.end(entry)
    if any(known.kind == "tree" and known.key["path"] == str(directory) for known in ledger.live(ledger.owner())):
        trees.remove_tree(directory)
    if not there:
        raise LabError(f"containerd does not answer at {socket}, and has containerd:{name} in its database", remedy="labkit up containerd")


def _delete(name: str, within: str, socket: Path, *, settled: bool) -> None:
    def ctr(*words: str) -> str:
        return commands.run(command(*words, within=within, socket=socket), check=False, timeout=30).stdout

    if not settled:
        shims.wait_for_one(within, name, socket)
    ctr("tasks", "delete", "--force", name)
    shims.wait_until_gone(within, name, socket)
    ctr("containers", "delete", name)
    left = ctr("containers", "list", "--quiet").split()
    if name in left:
        raise LabError(f"the container containerd:{name} could not be deleted", remedy="labkit clean, once more")
    if not left:
        commands.run(command("namespaces", "remove", within, socket=socket), check=False, timeout=30)
