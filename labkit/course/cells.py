"""Under each cell: what it changed in the kernel, and how that would be typed in a shell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import trace
from labkit.course.presenting import present
from labkit.kernel import snapshot
from labkit.kernel.state import Change, Difference
from labkit.show import cell_report

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell

    from labkit.course.lab import Lab
    from labkit.kernel.state import Snapshot

SHELL_CELL = "execve(bash -e -u -c ...)"
"""The call that marks a recorded operation as a script of its own: typed by a person, it stands in parentheses."""


class CellReports:
    """The two events of IPython around a cell, for the lab that is open.

    Args:
        lab: whose cells are reported on.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cell = 0
        self._source = ""
        self._before: Snapshot | None = None
        self._trace: trace.Trace | None = None

    def begin(self, info: ExecutionInfo) -> None:
        """Remember the kernel's state before a cell; a lab that is closed is left alone."""
        self.drop()
        if not self.lab.is_open:
            return
        self.cell += 1
        self._source = info.raw_cell or ""
        with trace.silent():
            self._before = snapshot.snapshot()
        self._trace = trace.start()

    def end(self, _: ExecutionResult) -> None:
        """Show and write down what the cell changed; nothing where it changed nothing."""
        operations, before = self._trace, self._before
        self.drop()
        if operations is None or before is None:
            return
        with trace.silent():
            difference = snapshot.diff(before, snapshot.snapshot())
            self.lab.look()
        self._write(operations, difference)
        shown = trace.Trace([] if self._source.lstrip().startswith("%%lab") else operations.operations)
        if difference or shown.operations:
            present(cell_report(shortened(difference, self.lab), _shortened(shown, self.lab)))

    def drop(self) -> None:
        """Forget the cell that runs: an opening or an interruption in between makes its difference meaningless."""
        if self._trace is not None:
            trace.stop(self._trace)
        self._trace = None
        self._before = None

    def _write(self, operations: trace.Trace, difference: Difference) -> None:
        lines = [_typed(operation) for operation in operations.operations if operation.shell]
        changes = [[word, *_values(change)] for word in ("appeared", "went", "changed") for change in getattr(difference, word)]
        record = {"cell": self.cell, "shell": "\n".join(lines), "changes": changes}
        with trace_file(self.lab).open("a") as file:
            file.write(json.dumps(record) + "\n")


_reports: CellReports | None = None


def register(shell: InteractiveShell, lab: Lab) -> None:
    """Report on each cell from now on for this lab; the reports of an earlier opening end."""
    global _reports
    if _reports is not None:
        _reports.drop()
        for event, callback in (("pre_run_cell", _reports.begin), ("post_run_cell", _reports.end)):
            if callback in shell.events.callbacks[event]:
                shell.events.unregister(event, callback)
    _reports = CellReports(lab)
    trace_file(lab).write_text("")
    shell.events.register("pre_run_cell", _reports.begin)
    shell.events.register("post_run_cell", _reports.end)


def trace_file(lab: Lab) -> Path:
    """Return the file that keeps, for each cell since the lab was opened, its shell lines and what they changed."""
    return lab.directory.parent / f"{lab.id}.trace.jsonl"


def shortened(difference: Difference, lab: Lab) -> Difference:
    """Return the difference with the lab's directory written as `$LAB`."""

    def short(changes: tuple[Change, ...]) -> tuple[Change, ...]:
        return tuple(
            Change(one.kind, lab.short(one.name), one.attribute, _optional(one.before, lab), _optional(one.after, lab)) for one in changes
        )

    return Difference(short(difference.appeared), short(difference.went), short(difference.changed))


def _optional(value: str | None, lab: Lab) -> str | None:
    return None if value is None else lab.short(value)


def _shortened(operations: trace.Trace, lab: Lab) -> trace.Trace:
    return trace.Trace(
        [
            replace(
                operation,
                shell=lab.short(operation.shell),
                writes=tuple((lab.short(path), value) for path, value in operation.writes),
                calls=tuple(lab.short(call) for call in operation.calls),
            )
            for operation in operations.operations
        ]
    )


def _typed(operation: trace.Operation) -> str:
    if SHELL_CELL in operation.calls:
        return f"( set -e -u\n{operation.shell}\n)"
    return operation.shell


def _values(change: Change) -> list[Any]:
    return [change.kind, change.name, change.attribute, change.before, change.after]
