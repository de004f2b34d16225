"""Follow who starts whom while something runs: from the client over the daemons to the process in the container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit import show
from labkit.kernel.processes import events
from labkit.runtimes import daemons
from labkit.show import View


class Followed:
    """What was seen; shown as a sequence once the block that it is about has ended."""

    def __init__(self, record: events.Record) -> None:
        self.record = record

    @property
    def view(self) -> View:
        """The sequence: a lifeline a program, an arrow an event."""
        return show.sequence(self.record)

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of the programs that were executed, in their order; "" for one that had ended before it could be read."""
        return tuple(Path(event.argv[0]).name if event.argv else "" for event in self.record.events if event.what == "exec")

    def __str__(self) -> str:
        return self.view.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return dict(self.view._repr_mimebundle_())


@contextmanager
def following() -> Iterator[Followed]:
    """Record what this process and the daemons of the runtimes start while the block runs.

    Raises:
        UnsupportedError: the kernel tells nothing here.
        SyscallError: EPERM without CAP_NET_ADMIN.
    """
    serving, shims = daemons.serving()
    with events.execs(daemons=[each.pid for each in serving], shims=[each.pid for each in shims]) as record:
        yield Followed(record)
