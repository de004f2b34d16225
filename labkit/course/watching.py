"""Look on for a while at what runs: which lines processes print, in which state cgroups are."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from weakref import WeakKeyDictionary

from labkit import trace
from labkit.course.terminal import Terminal
from labkit.errors import CheckFailed, LabError
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.processes.process import Process
from labkit.show import View, table

Watchable = Process | Terminal | Cgroup


def _none() -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Watched:
    """What was seen.

    Attributes:
        seconds: how long it took.
        lines: process name to the lines that it printed meanwhile.
        states: cgroup name to "frozen" or "running", as the kernel said at the end.
    """

    seconds: float
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=_none)
    states: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def view(self) -> View:
        """A table: each thing, and what it did."""
        rows = [(name, "printed nothing" if not lines else f"printed, the last line: {lines[-1]}") for name, lines in self.lines.items()]
        rows += [(name, state) for name, state in self.states.items()]
        return table(("watched", f"in {self.seconds:g} second{'' if self.seconds == 1 else 's'}"), rows)

    def __str__(self) -> str:
        return self.view.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return dict(self.view._repr_mimebundle_())


_seen: WeakKeyDictionary[Process | Terminal, int] = WeakKeyDictionary()
"""How much of its output was there when a process or terminal was last watched."""


def watch(things: Sequence[Watchable], seconds: float) -> Watched:
    """Wait, then say what the things did meanwhile; what was watched before, since it was watched last.

    So nothing is missed that a process printed between the cell's earlier lines and this one. An interruption (Ctrl-C) ends
    the wait; nothing was started for it.

    Args:
        things: processes, terminals and cgroups.
        seconds: how long.

    Raises:
        LabError: a thing that cannot be watched.
    """
    for thing in things:
        if not isinstance(thing, Watchable):
            raise LabError(f"{type(thing).__name__} cannot be watched", remedy="give processes, terminals and cgroups")
    groups = [thing for thing in things if isinstance(thing, Cgroup)]
    talking = [thing for thing in things if not isinstance(thing, Cgroup)]
    begins = [_seen.setdefault(one, len(one.output())) for one in talking]
    _wait(seconds)
    lines = {}
    for one, begin in zip(talking, begins, strict=True):
        output = one.output()
        new = output[begin:] if begin <= len(output) else output  # a terminal forgets what was expected
        lines[one.name] = tuple(new.splitlines())
        _seen[one] = len(output)
    states = {group.name: "frozen" if group.frozen else "running" for group in groups}
    return Watched(seconds, MappingProxyType(lines), MappingProxyType(states))


def wait_for(group: Cgroup, key: str, field: str, at_least: int, timeout: float) -> int:
    """Wait until a counter of a cgroup has come so far, and return it.

    Raises:
        CheckFailed: it did not come so far in time.
    """
    file = group.directory(key.partition(".")[0]) / key
    if file.exists():  # in v1 some counters stand in files of other names
        seen = f"awk '$1 == \"{field}\" && $2 >= {at_least} {{ found = 1 }} END {{ exit !found }}' {file}"
        trace.record(f"until {seen}; do sleep 0.1; done")
    deadline = time.monotonic() + timeout
    while (value := counter(group, key, field)) < at_least:
        if time.monotonic() > deadline:
            raise CheckFailed(f"{key} of {group.name} to count {field} {at_least} within {timeout:g} s", f"{field} {value}")
        _wait(_LOOK_SECONDS)
    return value


def counter(group: Cgroup, key: str, field: str) -> int:
    """Return one counter of an interface file such as pids.events.

    Raises:
        LabError: the file has no such counter.
    """
    values = group[key]
    if not isinstance(values, dict) or not isinstance(value := values.get(field), int):
        raise LabError(f"{key} has no counter {field}", cause=f"it reads {values!r}")
    return value


def cpu_share(process: Process, seconds: float) -> float:
    """Return how much of one CPU a process used in the coming seconds, in steps of a tenth."""
    from psutil import Process as Running

    running = Running(process.pid)
    before, begin = running.cpu_times(), time.monotonic()
    _wait(seconds)
    after = running.cpu_times()
    used = after.user + after.system - before.user - before.system
    return float(round(used / (time.monotonic() - begin), 1))


def runs(first: Callable[[], int], instead_of: int, timeout: float) -> bool:
    """Tell whether there is a first process, other than an earlier one.

    Args:
        first: returns its pid, or raises LabError where there is none.
        instead_of: the earlier one, which is waited out; 0 where none is.
        timeout: seconds to wait at most.
    """
    deadline = time.monotonic() + (timeout if instead_of else 0)
    while True:
        with suppress(LabError):
            if first() not in (0, instead_of):
                return True
        if time.monotonic() >= deadline:
            return False
        _wait(_LOOK_SECONDS)


_LOOK_SECONDS = 0.02


def _wait(seconds: float) -> None:
    """Let time pass: here time itself is what is measured."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        select.select([], [], [], left)
