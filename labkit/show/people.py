"""What processes are called: the name that the lab gave, else the kernel's, always with the pid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labkit.kernel.state import ProcessState
from labkit.show.text import clean, count, cut

MOST_NAMES = 4
"""Processes named in one cell before the rest is only counted."""


class Names:
    """Names of processes by their pid.

    Args:
        processes: those that are known.
    """

    def __init__(self, processes: Iterable[ProcessState]) -> None:
        self._names = {one.pid: one.name or one.comm for one in processes}

    def several(self, pids: Sequence[int]) -> str:
        """Write the processes of a cgroup or a namespace: the named ones, and how many more."""
        named = sorted(pid for pid in pids if pid in self._names)
        if not named:
            return "" if not pids else f"pid {pids[0]}" if len(pids) == 1 else count(len(pids), "process", "processes")
        shown = named[:MOST_NAMES]
        rest = len(pids) - len(shown)
        parts = [f"{cut(self._names[pid], 24)} (pid {pid})" for pid in shown]
        return ", ".join(parts) + (f" and {rest:,} more" if rest else "")


def label(process: ProcessState) -> str:
    """Write one process: name, pid, and its number inside where that is another one."""
    inside = f", {process.pid_inside} inside" if process.pid_inside not in (0, process.pid) else ""
    return f"{clean(process.name or process.comm)} (pid {process.pid}{inside})"
