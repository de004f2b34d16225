"""Make frames: each view has a part that reads it, when something told of a change, or when its turn comes.

Each part has a share of one core. One that costs more is read less often, so that the whole stays below the sum of the shares.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.kernel.live.cgroups import Cgroups
from labkit.kernel.live.containers import Containers
from labkit.kernel.live.frame import Frame
from labkit.kernel.live.layers import Overlays
from labkit.kernel.live.networks import Networks
from labkit.kernel.live.processes import Processes

INTERVAL = 0.1
"""Seconds between two full refreshes, as long as they cost little."""

PROMPT = 0.015
"""Seconds at least between two readings of a part that events ask for: a burst of them is one change."""

TOGETHER = 0.03
"""Seconds by which a part is read too early rather than that the process wakes up again for it."""

SAVED = 3.0
"""Seconds of its share that a part may have saved up."""


@dataclass
class _Part:
    """One view: how it is read, when it was, and what that cost.

    What it may take is saved up as long as it takes less, up to a limit: so a change is shown at once, and a flood of them in time.
    """

    name: str
    refresh: Callable[[float], bool]
    share: float
    cost: float = 0.0
    credit: float = 0.0
    at: float = 0.0
    told: bool = True
    warm: bool = False

    @property
    def interval(self) -> float:
        """Seconds between two readings that its share allows for good."""
        return max(INTERVAL, self.cost / self.share)

    def due(self) -> float:
        """Return when it is to be read next: after an event soon, else when its turn comes; later where it has taken too much."""
        return self.at + max(PROMPT if self.told else INTERVAL, -self.credit / self.share)

    def run(self, now: float) -> bool:
        """Read it, and return whether anything changed."""
        self.credit = min(self.credit + self.share * (now - self.at), self.share * SAVED)
        self.told, self.at = False, now
        begin = time.process_time()
        changed = self.refresh(now)
        spent = time.process_time() - begin
        if self.warm:  # the first time everything is new
            self.cost = 0.7 * self.cost + 0.3 * spent
            self.credit -= spent
        self.warm = True
        return changed


class Collector:
    """Everything that the views show.

    Args:
        selector: what the process sleeps in; descriptors are registered in it with (part, kind) as data.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.processes = Processes(self._watch, self._unwatch)
        self.cgroups, self.networks, self.overlays = Cgroups(), Networks(), Overlays()
        self.containers = Containers(self.processes.cgroups)
        self._parts = {
            "processes": _Part("processes", self._refresh_processes, 0.01),
            "cgroups": _Part("cgroups", self.cgroups.refresh, 0.015),
            "networks": _Part("networks", lambda now: self.networks.refresh(now, self.processes.rows), 0.015),
            "layers": _Part("layers", lambda now: self.overlays.refresh(now, self.processes.rows), 0.003),
            "containers": _Part("containers", lambda _: self.containers.refresh(self.processes.rows), 0.003),
        }
        self._watch(self.cgroups.watches.descriptor, "cgroups")
        self._watch(self.networks.socket.fileno(), "networks")
        self._watch(self.overlays.watches.descriptor, "layers")
        connector = ("process connector",) if self.processes.connector else ()
        sources = ("inotify", "netlink", "pidfd", *connector)
        self.frame = Frame(sources=sources)

    def _watch(self, descriptor: int, kind: str) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, kind)

    def _unwatch(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def take(self, kind: Any, descriptor: int) -> None:
        """Take what has become readable: it says which part is to be read."""
        if kind == "pidfd":
            self._tell("processes", self.processes.ended(descriptor))
        elif kind == "cgroups":
            self._tell("cgroups", self.cgroups.take_events())
        elif kind == "networks":
            self._tell("networks", self.networks.take_events())
        elif kind == "layers":
            self._tell("layers", self.overlays.take_events())

    def mounted(self) -> None:
        """Take that something was mounted or unmounted."""
        self.overlays.mounted = True
        self.cgroups.find_hierarchies()
        for name in ("layers", "cgroups", "networks"):
            self._tell(name, True)  # noqa: FBT003 - it did

    def _tell(self, name: str, told: bool) -> None:
        part = self._parts[name]
        part.told = part.told or told

    def due(self) -> float:
        """Return when the next part is to be read."""
        return min(part.due() for part in self._parts.values())

    def refresh(self, now: float, *, everything: bool = False) -> Frame:
        """Read the parts whose turn it is, or all, and return the frame."""
        begin = time.process_time()
        for part in self._parts.values():
            if everything or part.due() <= now + TOGETHER:
                part.run(now)
                if part.name == "processes" and self.processes.touched:
                    self.cgroups.mark(self.processes.touched)
                    self.processes.touched = set()
                    self._tell("cgroups", True)  # noqa: FBT003 - it did
        self.frame = Frame(
            number=self.frame.number + 1,
            at=time.time(),
            interval=max(part.interval for part in self._parts.values()),
            cost=time.process_time() - begin,
            sources=self.frame.sources,
            cgroups=self.cgroups.rows,
            processes=self.processes.rows,
            networks=self.networks.rows,
            layers=self.overlays.rows,
            containers=self.containers.rows,
        )
        return self.frame

    def _refresh_processes(self, now: float) -> bool:
        changed = self.processes.refresh(now)
        if changed:
            self._parts["containers"].told = True
        return changed

    def close(self) -> None:
        """Close every file."""
        self.processes.close()
        for descriptor in (self.cgroups.watches.descriptor, self.networks.socket.fileno(), self.overlays.watches.descriptor):
            self._unwatch(descriptor)
        for part in (self.cgroups, self.networks, self.overlays):
            part.close()
