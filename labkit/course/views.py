"""The verbs of a lab that only look: read the kernel now, and draw it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from labkit import show, trace
from labkit.course.mechanisms import Mechanisms
from labkit.kernel import cgroups, namespaces, network
from labkit.kernel.overlay import Overlay
from labkit.kernel.state import ProcessState
from labkit.kernel.union import Union
from labkit.show import View

if TYPE_CHECKING:
    from labkit.course.checkpoints import Checkpoints
    from labkit.course.progress import Progress


class Views(Mechanisms):
    """What a lab can show."""

    checkpoints: Checkpoints
    record: Progress

    def cgroups(self) -> View:
        """Draw the lab's cgroups, with their values and the named processes in them."""
        with trace.silent():
            states = cgroups.states(below=f"lab-{self.id}")
        return show.cgroup_tree(states, self._named(), title=f"cgroups of lab {self.id}")

    def processes(self, *names: str, kinds: Sequence[str] | None = None) -> View:
        """Tabulate processes by namespace: the same letter in a column is the same namespace.

        Args:
            names: of the lab's processes; all of them by default.
            kinds: of namespace; all eight by default.
        """
        chosen = [self.process(name).state() for name in names] if names else self._named()
        host = [one for one in namespaces.processes() if one.pid == os.getpid()]
        reference = replace(host[0], name="this notebook") if host else None
        everyone = [*([reference] if reference else []), *chosen]
        if kinds is None:
            return show.process_table(everyone, reference=reference)
        return show.process_table(everyone, kinds=tuple(kinds), reference=reference)

    def namespaces(self) -> View:
        """Tabulate every namespace of the machine: kind, processes, owner."""
        return show.namespace_table(namespaces.inventory())

    def network(self, *names: str) -> View:
        """Draw network namespaces as boxes: links, addresses, and the cables between them.

        Args:
            names: which; by default those that have a name, and the host.
        """
        states = network.states()
        chosen = [state for state in states if state.name in names] if names else [s for s in states if not s.name.startswith("net:")]
        return show.network_picture(chosen)

    def union_view(self, union: Overlay | Union) -> View:
        """Draw a union mount as the stack of its branches: where each name really lies."""
        return show.union_stack(union.state())

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> View:
        """Tabulate values that a cell has read."""
        return show.table(tuple(header), [tuple(str(value) for value in row) for row in rows])

    def progress(self) -> View:
        """Tabulate the checkpoints of the lab, and how far each is."""
        rows = []
        for checkpoint in self.checkpoints.all:
            standing = self.record.standing(checkpoint.id)
            state = "passed" if standing.passed else "tried" if standing.attempts else "open"
            aid = "solution shown" if standing.solution_shown else f"{standing.hints} hints" if standing.hints else ""
            rows.append((checkpoint.id, checkpoint.task, state, aid))
        return show.table(("checkpoint", "task", "state", "with"), rows)

    def _named(self) -> list[ProcessState]:
        return [process.state() for process in self.started.values() if process.alive]
