"""What a runtime is and what a container is: the one protocol that every file beside this one keeps.

The states are those of the OCI runtime specification. A container is known by the kernel, through what the ledger or the
runtime's own state directory says of its first process, never by how a process is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from labkit.errors import LabError
from labkit.host.account import IdMap
from labkit.kernel.commands import Completed

State = Literal["creating", "created", "running", "paused", "stopped"]
"""See: OCI runtime specification, "State"; "paused" is what runtimes with a freezer add."""


@dataclass(frozen=True)
class Container:
    """One container of one runtime, as it is now.

    Attributes:
        runtime: the runtime's name, as in `runtimes.ALL`.
        name: what the runtime calls it.
        state: where it is in its life.
        pid: its first process, as the host's PID namespace numbers it; None where none runs.
        rootfs: its root directory on the host; None where it is not known.
        ours: whether a lab made it through this protocol: nothing else is stopped or removed by it.
    """

    runtime: str
    name: str
    state: State
    pid: int | None = None
    rootfs: Path | None = None
    ours: bool = False

    def __str__(self) -> str:
        return f"{self.runtime}:{self.name}"


class Runtime(Protocol):
    """A tool that runs containers.

    Attributes:
        name: by which `runtimes.find` finds it.
    """

    name: str

    def available(self) -> str | None:
        """Return None where it can be used here, else why not, as measured."""

    def version(self) -> str:
        """Return its version.

        Raises:
            LabError: it is not available.
        """

    def id_map(self) -> IdMap:
        """Return how it maps user and group ids: a root file system must belong to the ids outside."""

    def list(self) -> tuple[Container, ...]:
        """Return the containers that it knows, the lab's and those of others."""

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program in a new container, or in the stopped one of this name, and return once it runs.

        Args:
            rootfs: its root directory.
            argv: program and arguments; its first process.
            name: how it is called.

        Raises:
            LabError: the name cannot stand or is taken; the runtime is not available; there is no such directory.
            SyscallError: ENOENT and EACCES of execve, with the cause where it was measured.
        """

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container to its end.

        Raises:
            LabError: there is no such container, or it does not run.
            SyscallError: ENOENT and EACCES of execve, with the cause where it was measured.
        """

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """End what runs in a container of the lab; one that is stopped already stays so.

        Args:
            name: the container.
            timeout: seconds that it has to end by itself, before it is killed.

        Raises:
            LabError: there is no such container, or it is not the lab's.
        """

    def remove(self, name: str) -> None:
        """Forget a stopped container of the lab; its root file system stays.

        Raises:
            LabError: there is no such container, it is not the lab's, or it runs.
        """


def pick(containers: Sequence[Container], name: str, runtime: str) -> Container:
    """Return the container of this name.

    Raises:
        LabError: there is none; names those there are.
    """
    for container in containers:
        if container.name == name:
            return container
    there = ", ".join(container.name for container in containers) or "none"
    raise LabError(f"{runtime} has no container {name!r}", remedy=f"there are: {there}")


def running(container: Container) -> int:
    """Return the host's number of a container's first process.

    Raises:
        LabError: it does not run.
    """
    if container.pid is None:
        raise LabError(f"the container {container} does not run", cause=f"its state is {container.state}", remedy="start it")
    return container.pid
