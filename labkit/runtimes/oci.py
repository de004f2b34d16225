"""runc and crun: one mechanism and two names, since every runtime of the OCI specification has the same command line.

Each container gets a bundle: the runtime's own `spec`, with root, program and cgroup put in.
See: runtime-spec runtime.md, runc(8), crun(1)
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from labkit import ledger
from labkit.host.account import IdMap
from labkit.kernel import commands, rooted
from labkit.kernel.commands import Completed, run
from labkit.runtimes import bundle, ours
from labkit.runtimes.container import Container, pick
from labkit.runtimes.lifecycle import Lifecycle, cgroups_path, place, undo


class Runc:
    """The reference implementation, in Go."""

    name = "runc"
    refuses_hybrid = False

    def available(self) -> str | None:
        """Return None where its command is installed."""
        return None if shutil.which(self.name) else f"no command {self.name} in PATH"

    def version(self) -> str:
        """Return its version."""
        return run([self.name, "--version"]).stdout.splitlines()[0].split()[-1]

    def id_map(self) -> IdMap:
        """Return an empty map: a bundle without uidMappings has the host's ids."""
        return ()

    def lifecycle(self) -> Lifecycle:
        """Return the operations of the runtime specification: create, state, start, kill, delete."""
        return Lifecycle(self.name, Path("/run") / self.name, refuses_hybrid=self.refuses_hybrid)

    def list(self) -> tuple[Container, ...]:
        """Return the labs' containers and those that others made by hand.

        Shell:
            runc list
        """
        return self.lifecycle().containers()

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Write a bundle and run it.

        Shell:
            runc spec; runc create NAME; runc start NAME
        """
        if self.available():
            raise commands.missing(self.name)
        real = rooted.must_be_directory(rootfs, argv)
        life, path = self.lifecycle(), cgroups_path(self.name, name)
        with life.making(name, rootfs=str(real), cgroup=path.lstrip("/")) as entry:
            directory = place(self.name, name)
            bundle.write(directory, _edited(life.spec(directory), real, argv, name, path))
            life.create_for(entry, directory)
            life.start(name)
        return pick(self.list(), name, self.name)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in the namespaces and the cgroup of a running one.

        Shell:
            runc exec NAME PROGRAM
        """
        return self.lifecycle().exec(pick(self.list(), name, self.name), argv)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Send SIGTERM; what is left after `timeout` is killed.

        Shell:
            runc kill NAME TERM
        """
        self.lifecycle().end(name, timeout)

    def remove(self, name: str) -> None:
        """Forget a stopped one."""
        entry = ours.entry(f"{self.name} container", name, self.list())
        ours.must_be_stopped(ours.record(f"{self.name} container", entry))
        ledger.undo_one(entry)


class Crun(Runc):
    """The implementation in C: smaller, and faster to start."""

    name = "crun"
    refuses_hybrid = True


def _edited(config: bundle.Config, rootfs: Path, argv: Sequence[str], name: str, cgroups_path: str) -> bundle.Config:
    """Return the runtime's example with what is to be run: without a terminal, in a cgroup of the lab that it sees as its root."""
    linux = config.linux or bundle.Linux()
    namespaces = linux.namespaces
    if "cgroup" not in [namespace.type for namespace in namespaces]:
        namespaces = (*namespaces, bundle.Namespace("cgroup"))
    environment = tuple(f"{key}={value}" for key, value in rooted.ENVIRONMENT.items())
    process = replace(config.process or bundle.Process(), args=tuple(argv), env=environment, terminal=False)
    linux = replace(linux, namespaces=namespaces, cgroups_path=cgroups_path)
    return replace(config, process=process, root=bundle.Root(str(rootfs)), hostname=name, linux=linux)


@ledger.undoes("runc container")
def _undo_runc(entry: ledger.Entry) -> None:
    undo(entry)


@ledger.undoes("crun container")
def _undo_crun(entry: ledger.Entry) -> None:
    undo(entry)
