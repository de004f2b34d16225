"""The life cycle of the OCI runtime specification, driven with any program that keeps to its command line: runc, crun.

create, state, start, kill, delete over a bundle. Containers of the labs have a state directory of their own (--root).
See: runtime-spec runtime.md, runc(8), crun(1)
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import CommandError, LabError, SyscallError
from labkit.kernel import commands, processes, rooted, trees
from labkit.kernel.cgroups import controllers, delegation, hierarchies, subtree
from labkit.kernel.commands import Completed
from labkit.kernel.processes import ending
from labkit.runtimes import bundle as bundles
from labkit.runtimes import ours
from labkit.runtimes.container import Container, State, running

_PATIENCE = 10.0  # seconds in which a process that was killed has ended, and one that was paused is frozen
_STATES: tuple[State, ...] = ("creating", "created", "running", "paused", "stopped")


def cgroups_path(program: str, name: str) -> str:
    """Return the `cgroupsPath` of a container in the lab's part of each hierarchy."""
    return f"/{subtree()}/{program}.{name}"


class Lifecycle:
    """The operations of one runtime.

    Args:
        program: its command, found in PATH.
        others: where it keeps the containers of everybody else.
        refuses_hybrid: whether it works with no machine that has controllers in both versions of cgroups.
    """

    def __init__(self, program: str, others: Path, *, refuses_hybrid: bool = False) -> None:
        self.program, self.others = program, others
        self._kind = f"{program} container"
        self._refuses_hybrid = refuses_hybrid

    @property
    def root(self) -> Path:
        """The state directory of the labs' containers, for `--root`."""
        return ledger.state() / self.program / "containers"

    def containers(self) -> tuple[Container, ...]:
        """Return the labs' containers and those of others, each as the runtime says that it is.

        Shell:
            runc list
        """
        known = ours.entries(self._kind)
        return tuple(container for root in (self.root, self.others) for container in self._listed(root, known if root == self.root else {}))

    def _listed(self, root: Path, known: dict[str, ledger.Entry]) -> Iterator[Container]:
        with suppress(OSError):
            if not any(root.iterdir()):  # the runtime would make it
                return
            done = commands.run([self.program, "--root", root, "list", "--format", "json"], check=False)
            with suppress(ValueError):
                for said in json.loads(done.stdout) or ():
                    yield self._container(said, known.get(said["id"]))

    def _container(self, said: dict[str, Any], entry: ledger.Entry | None) -> Container:
        state: State = next((state for state in _STATES if state == said["status"]), "stopped")
        place = entry.key["rootfs"] if entry else said.get("rootfs")
        rootfs = Path(said["bundle"], place) if place else None
        return Container(self.program, said["id"], state, said["pid"] or None if state != "stopped" else None, rootfs, ours=bool(entry))

    def create(self, bundle: Path, name: str) -> dict[str, Any]:
        """Make what a container needs, and stop before its program: it is "created".

        Shell:
            runc create --bundle DIRECTORY NAME

        Args:
            bundle: a directory with config.json; its `cgroupsPath` is in the lab's part, see `cgroups_path`.
            name: the container's id.

        Returns:
            Its state, as `state` does.

        Raises:
            LabError: no bundle, one that breaks the specification, or one whose cgroup would not be the lab's; the name is taken.
            CommandError: the runtime refused, with what it said.
        """
        config = bundles.read(bundle)
        cgroup = self._must_be_in_the_lab(config)
        with self.making(name, rootfs=str(bundles.rootfs(bundle, config)), cgroup=cgroup) as entry:
            self.create_for(entry, bundle)
        with trace.silent():
            return self.state(name)

    @contextmanager
    def making(self, name: str, **key: str) -> Iterator[ledger.Entry]:
        """Write a container down; the block creates it, and what fails there takes back what was made."""
        homes()
        with ours.making(self._kind, name, self.containers(), **key) as entry:
            with trace.silent():
                trees.make_tree(place(self.program, name))
            yield entry

    def create_for(self, entry: ledger.Entry, bundle: Path) -> None:
        """Create the container of an entry.

        Raises:
            CommandError: the runtime refused, with what it said.
        """
        name = entry.key["name"]
        files = place(self.program, name)
        argv = [self.program, "--root", str(self.root), "--log", f"{files}/log", "create", "--bundle", str(bundle), name]
        self.root.mkdir(parents=True, exist_ok=True)
        surroundings = self._surroundings(name, entry.key["cgroup"])
        typed = self._typed("create", "--bundle", str(bundle), name)
        if surroundings:
            typed = f'unshare --mount bash -c \'mount -t tmpfs none {self._hidden()}; exec "$0" "$@"\' {typed}'
        trace.record(f"{typed} < /dev/null > /dev/null 2>&1")
        with trace.silent():
            process = processes.start(argv, stdout=files / "output", env=rooted.ENVIRONMENT, cwd="/", **surroundings)
            status = process.wait()
            if status != 0:
                raise CommandError(argv, status, self.said(name) or self.output(name))
            entry.identity.update(init=ending.known(self.state(name)["pid"]))

    def spec(self, directory: Path) -> bundles.Config:
        """Write the runtime's example of config.json into a directory, and return it.

        Shell:
            runc spec --bundle DIRECTORY

        Raises:
            CommandError: there is a config.json already.
        """
        argv = [self.program, "spec", "--bundle", str(directory)]
        commands.run(argv)
        trace.record(" ".join(argv))
        return bundles.read(directory)

    def _must_be_in_the_lab(self, config: bundles.Config) -> str:
        path = config.linux.cgroups_path if config.linux else ""
        home, _, last = path.lstrip("/").partition("/")
        if not path.startswith("/") or home != subtree() or not last or {".", ".."} & set(last.split("/")):
            wanted = cgroups_path(self.program, "web")
            raise LabError(f"linux.cgroupsPath: {path!r} is not in the lab's part of the cgroups", remedy=f"a path such as {wanted}")
        return path.lstrip("/")

    def example(self, directory: Path, argv: Sequence[str], name: str) -> None:
        """Write the runtime's example of config.json with a program, without a terminal, and in a cgroup of the lab.

        Shell:
            runc spec --bundle DIRECTORY; sed -i 's|"sh"|"sleep"|' DIRECTORY/config.json
        """
        config = self.spec(directory)
        process = replace(config.process or bundles.Process(), args=tuple(argv), terminal=False)
        path = cgroups_path(self.program, name)
        linux = replace(config.linux or bundles.Linux(), cgroups_path=path)
        bundles.write(directory, replace(config, process=process, linux=linux))
        words = ", ".join(json.dumps(word) for word in argv)
        edits = ('"terminal": true|"terminal": false', f'"sh"|{words}', f'"linux": {{|"linux": {{ "cgroupsPath": "{path}",')
        trace.record(" ".join(["sed", "-i", *(f"-e {shlex.quote(f's|{edit}|')}" for edit in edits), str(directory / bundles.CONFIG)]))

    def state(self, name: str) -> dict[str, Any]:
        """Return the state of a container, as the runtime specification has it: ociVersion, id, status, pid, bundle, ...

        Shell:
            runc state NAME
        """
        done = commands.run([self.program, "--root", self.root, "state", name])
        trace.record(f"{self._typed('state', name)}; echo")  # runc ends it without a newline
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def start(self, name: str) -> None:
        """Run the program of a container that is created.

        Shell:
            runc start NAME
        """
        self._entry(name)
        with trace.silent():
            init = ending.known(self.state(name)["pid"])
        self._do("start", name)
        if init:
            ours.wait_until_it_runs(init, ("", self.program, "exe"))  # runc runs from a sealed copy of itself, which has no name

    def kill(self, name: str, signal: str = "TERM") -> None:
        """Send a signal to the first process of a container; the end that KILL brings is waited for.

        Shell:
            runc kill NAME TERM
        """
        init = ours.process_of(self._entry(name), "init")
        self._do("kill", name, signal)
        if signal == "KILL" and init:
            ours.terminate(init, _PATIENCE, 0)
            trace.record(f'until {self._typed("state", name)} | grep -q \'"status": "stopped"\'; do sleep 0.1; done')

    def pause(self, name: str) -> None:
        """Freeze all its processes, and return once they are.

        Shell:
            runc pause NAME
        Raises:
            LabError: they are not in time.
        """
        self._entry(name)
        self._do("pause", name)
        deadline = time.monotonic() + _PATIENCE
        with trace.silent():
            while self.state(name)["status"] != "paused":  # crun returns once the kernel was told
                if time.monotonic() > deadline:
                    raise LabError(f"{name} is not frozen after {_PATIENCE:g} s")
                time.sleep(0.01)

    def resume(self, name: str) -> None:
        """Let its processes go on.

        Shell:
            runc resume NAME
        """
        self._entry(name)
        self._do("resume", name)

    def delete(self, name: str) -> None:
        """Forget a stopped container, with what the runtime made for it; bundle and root file system stay.

        runc and crun also take one that is only created, and end it.

        Shell:
            runc delete NAME

        Raises:
            CommandError: it runs: the specification asks for an error then.
        """
        entry = self._entry(name)
        self._do("delete", name)
        with trace.silent():
            ledger.undo_one(entry)

    def exec(self, container: Container, argv: Sequence[str]) -> Completed:
        """Run a program in a running container to its end."""
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        root = self.root if container.ours else self.others
        cgroup = ours.entries(self._kind)[container.name].key["cgroup"] if container.ours else ""
        words = [self.program, "--root", str(root), "exec", container.name, *argv]
        return processes.run(words, env=rooted.ENVIRONMENT, cwd="/", on_error=lambda _: None, **self._surroundings(container.name, cgroup))

    def end(self, name: str, timeout: float) -> None:
        """Ask the program to end, and kill what is left after `timeout` seconds; the runtime then says "stopped"."""
        entry = self._entry(name)
        init = ours.process_of(entry, "init")
        there = {container.name: container.state for container in self.containers() if container.ours}.get(name)
        if init and there == "paused":
            self.resume(name)
        if init and there in ("running", "paused") and timeout > 0:
            self._do("kill", name, "TERM", check=False)  # it may have ended meanwhile
            ours.terminate(init, timeout, 0)
        ours.end(entry)

    def output(self, name: str) -> str:
        """Return what a container of the lab has written, both streams."""
        return self._text(name, "output")

    def said(self, name: str) -> str:
        """Return what the runtime itself wrote about a container of the lab: errors and warnings."""
        return self._text(name, "log")

    def _text(self, name: str, file: str) -> str:
        with suppress(OSError):
            return (place(self.program, name) / file).read_text(errors="replace")
        return ""

    def _entry(self, name: str) -> ledger.Entry:
        return ours.entry(self._kind, name, self.containers())

    def _typed(self, *words: str) -> str:
        return " ".join((self.program, "--root", str(self.root), *words))

    def _do(self, verb: str, name: str, *words: str, check: bool = True) -> None:
        commands.run([self.program, "--root", self.root, verb, name, *words], check=check)
        trace.record(self._typed(verb, name, *words))

    def _surroundings(self, name: str, cgroup: str) -> dict[str, Any]:
        """Return what the runtime is started in: crun on a hybrid machine sees v1 alone, and in v2 it stays where it is put.

        Shell:
            unshare --mount bash -c 'mount --bind EMPTY /sys/fs/cgroup/unified; exec crun ...'
        """
        unified = self._hidden()
        if unified is None or not cgroup:
            return {}
        instead, group = place(self.program, name) / "unified", unified / cgroup
        for directory in (instead, group):
            directory.mkdir(parents=True, exist_ok=True)
        return {"new": ("mount",), "binds": ((instead, str(unified)),), "cgroups": [group]}

    def _hidden(self) -> Path | None:
        """Return the mount point of v2 where the runtime must not see it."""
        here = hierarchies()
        if not self._refuses_hybrid or here.mode != "hybrid" or not here.v2_controllers:
            return None
        return here.unified


def homes(_: str = "") -> None:
    """Make the lab's part of each hierarchy, and switch on in v2 what a runtime would: then it is in the ledger.

    What root makes by hand with a runtime is then the lab's, too, if its `cgroupsPath` lies there.
    """
    delegation.homes()
    here = hierarchies()
    if here.mode == "v2" and here.unified:
        for controller in here.v2_controllers:
            with suppress(SyscallError), trace.silent():
                controllers.enable_for_lab(here.unified, here.unified / subtree(), [controller])


def place(program: str, name: str) -> Path:
    """Return where the lab keeps what belongs to one container: output, log, and the bundle where it made that itself."""
    return ledger.state() / program / "bundles" / name


def undo(entry: ledger.Entry) -> None:
    """End and remove a container, whatever state it was left in."""
    program, name = entry.kind.split()[0], entry.key["name"]
    root, files = ledger.state() / program / "containers", place(program, name)
    if shutil.which(program) and (root / name).is_dir():
        commands.run([program, "--root", root, "delete", "--force", name], check=False, timeout=30)
    ours.end(entry)
    with suppress(OSError):
        shutil.rmtree(root / name)  # one that was being made: the runtime does not know it
    if any(known.kind == "tree" and known.key["path"] == str(files) for known in ledger.live(ledger.owner())):
        trees.remove_tree(files)
    for directory in (root, files.parent, root.parent):
        with suppress(OSError):
            directory.rmdir()
