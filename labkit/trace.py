"""Each operation on the kernel, as the line a person would type, with the files and calls behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """One change of the kernel.

    Attributes:
        shell: the line, or lines, that a person would type into bash for the same effect. A process that the
            lab named `clock` is `$clock` there, so the lines can be typed one after the other.
        writes: (path, value) of each file that was written.
        calls: the system calls made, each as `name(arguments)` with flags by their names.
    """

    shell: str
    writes: tuple[tuple[str, str], ...] = ()
    calls: tuple[str, ...] = ()


@dataclass
class Trace:
    """The operations of one stretch of work, in their order."""

    operations: list[Operation] = field(default_factory=list)

    def shell(self) -> str:
        """Return the lines to type, one operation after the other."""
        return "\n".join(operation.shell for operation in self.operations if operation.shell)


_collectors: list[Trace] = []
_silences: list[object] = []


def record(shell: str, *, writes: Sequence[tuple[str, str]] = (), calls: Sequence[str] = ()) -> None:
    """Note one operation in every trace that is being collected; without a collector it costs nothing."""
    if _collectors and not _silences:
        operation = Operation(shell, tuple(writes), tuple(calls))
        for trace in _collectors:
            trace.operations.append(operation)


@contextmanager
def collecting() -> Iterator[Trace]:
    """Collect the operations done inside the `with` block."""
    trace = start()
    try:
        yield trace
    finally:
        stop(trace)


def start() -> Trace:
    """Begin a trace that `stop` ends: for callers whose begin and end are two events, such as a notebook cell."""
    trace = Trace()
    _collectors.append(trace)
    return trace


def stop(trace: Trace) -> None:
    """End a trace begun with `start`; ending it twice does nothing."""
    _collectors[:] = [other for other in _collectors if other is not trace]


@contextmanager
def silent() -> Iterator[None]:
    """Keep what happens inside out of every trace: the lab's own housekeeping, which no student would type."""
    _silences.append(object())
    try:
        yield
    finally:
        _silences.pop()
