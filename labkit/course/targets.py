"""Which process a word means: a PID, a process that a lab named, a container of any runtime."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Protocol

from labkit import runtimes
from labkit.errors import LabError
from labkit.kernel.cgroups import Cgroup, subtree
from labkit.kernel.xray.containers import Found, containers
from labkit.kernel.xray.machine import Machine, read
from labkit.runtimes import docker_engine
from labkit.show import View, table


class HasPid(Protocol):
    """A process of a lab."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def name(self) -> str:
        """Its name in the lab, or ""."""


Target = str | int | HasPid
"""What can be looked at."""


def target(thing: Target, started: Mapping[str, HasPid], machine: Machine) -> tuple[str, int]:
    """Return the name and the pid of a process.

    Args:
        thing: a pid, also as text; a process; the name of one that the lab started; the name or id of a container;
            "ENGINE/NAME" is a container of an engine that stands in a network namespace.
        started: the processes of the lab.
        machine: where it runs.

    Raises:
        LabError: nothing here is called so, or several things are.
    """
    if isinstance(thing, int):
        return str(thing), thing
    if not isinstance(thing, str):
        return thing.name or str(thing.pid), thing.pid
    if thing.isdecimal():
        return thing, int(thing)
    engine, slash, name = thing.partition("/")
    if slash and docker_engine.serves(engine):
        return thing, docker_engine.pid(engine, name)
    for container in runtimes.containers():  # before the lab's processes: what watches over a container may be called as it is
        if container.ours and container.pid and thing in (container.name, str(container)):
            return thing, container.pid
    if thing in started:
        return thing, started[thing].pid
    return thing, _container(thing, machine)


def cgroup_of(pid: int) -> Cgroup:
    """Return the cgroup of the open lab that a process is in, in every hierarchy that has it.

    Raises:
        LabError: it is in none of the lab's, or has ended.
    """
    home = f"/{subtree()}/"
    try:
        paths = [line.split(":", 2)[2] for line in read(f"/proc/{pid}/cgroup").splitlines()]
    except OSError:
        raise LabError(f"there is no process {pid}") from None
    found = next((path.removeprefix(home) for path in paths if path.startswith(home)), None)
    if found is None:
        raise LabError(f"process {pid} is in no cgroup of the lab's", cause=f"it is in {', '.join(dict.fromkeys(paths))}")
    return Cgroup.find(found)


def _container(name: str, machine: Machine) -> int:
    """Ask the kernel first: cgroup paths and command lines name most; then the runtimes, for the names that only they know."""
    there = containers(machine)
    found = [each for each in there if each.is_called(name)]
    if len(found) == 1:
        return found[0].pid
    if found:
        pids = ", ".join(f"pid {each.pid} ({each.comm})" for each in found)
        raise LabError(f"several containers here are called {name!r}: {pids}", remedy="take the pid")
    known = runtimes.containers()
    if any(name in (each.name, str(each)) for each in known):
        return runtimes.pid(name)
    raise LabError(f"no process and no container here is called {name!r}", remedy=_near(name, there, known))


def _near(name: str, there: tuple[Found, ...], known: tuple[runtimes.Container, ...]) -> str:
    names = {*(word for each in there for word in each.names[:1]), *(each.name for each in known if each.pid is not None)}
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}"
    shown = sorted(names)[:8]
    return f"there are {', '.join(shown)}; a pid is taken, too" if shown else "a pid is taken, too"


def listed(machine: Machine) -> View:
    """Tabulate the containers that run here."""
    rows = [(each.pid, ", ".join(each.names) or "(no name in sight)", each.comm) for each in containers(machine)]
    return table(("pid", "name", "command"), rows, note="labkit xray NAME or labkit xray PID looks into one")
