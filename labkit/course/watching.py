"""Look on for a while at what runs: which lines processes print, in which state cgroups are."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from labkit.errors import LabError
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.process import Process
from labkit.show import View, table

Watchable = Process | Cgroup


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
        return table(("watched", f"in {self.seconds:g} seconds"), rows)

    def __str__(self) -> str:
        return self.view.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return dict(self.view._repr_mimebundle_())


def watch(things: Sequence[Watchable], seconds: float) -> Watched:
    """Wait, then say what the things did meanwhile.

    An interruption (Ctrl-C) ends the wait; nothing was started for it.

    Args:
        things: processes and cgroups.
        seconds: how long.

    Raises:
        LabError: a thing that cannot be watched.
    """
    for thing in things:
        if not isinstance(thing, Watchable):
            raise LabError(f"{type(thing).__name__} cannot be watched", remedy="give processes and cgroups")
    running = [thing for thing in things if isinstance(thing, Process)]
    begins = {process.name: len(process.output()) for process in running}
    _wait(seconds)
    lines = {process.name: tuple(process.output()[begins[process.name] :].splitlines()) for process in running}
    states = {group.name: "frozen" if group.frozen else "running" for group in things if isinstance(group, Cgroup)}
    return Watched(seconds, MappingProxyType(lines), MappingProxyType(states))


def _wait(seconds: float) -> None:
    """Let time pass: here time itself is what is measured."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        select.select([], [], [], left)
