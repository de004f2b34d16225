"""What the live views show at one instant, as frozen records, and how one frame is told as what differs from the one before.

A record is the same object as long as nothing in it changed: so two frames are compared by identity, and what goes over
the socket is small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from labkit.kernel.state import LinkState, NetworkState, RouteState


@dataclass(frozen=True)
class Pressure:
    """How much of the last ten seconds some process waited, in per cent. See: Documentation/accounting/psi.rst."""

    cpu: float = 0.0
    memory: float = 0.0
    io: float = 0.0


@dataclass(frozen=True)
class Meter:
    """One cgroup: the same path in each hierarchy that has it, with what its controllers count.

    Attributes:
        path: inside the hierarchies, "/" for the root.
        directories: hierarchy ("" for v2, else the v1 controllers) and directory, of each that has the path.
        pids: its own processes, ascending.
        state: "frozen", "freezing", "running", or "" where nothing here can freeze it.
        cpu: cores used, hierarchically; None where nothing counts it, as in the following.
        cpu_max: cores that it may use; None for no limit.
        memory: bytes.
        memory_max: bytes; None for no limit.
        tasks: processes and threads, with those below it.
        tasks_max: None for no limit.
        io: bytes read and written a second.
        pressure: None where the kernel does not count it.
    """

    path: str
    directories: tuple[tuple[str, str], ...] = ()
    pids: tuple[int, ...] = ()
    state: str = ""
    cpu: float | None = None
    cpu_max: float | None = None
    memory: int | None = None
    memory_max: int | None = None
    tasks: int | None = None
    tasks_max: int | None = None
    io: float | None = None
    pressure: Pressure | None = None

    @property
    def key(self) -> str:
        """What it is told by from one frame to the next."""
        return self.path


@dataclass(frozen=True)
class Member:
    """One process, kernel threads left out.

    Attributes:
        pid: its number.
        ppid: its parent.
        comm: its name.
        namespaces: (kind, inode), those that could be read.
        own: the kinds in which it is not where process 1 is (or the collector, where those of process 1 may not be read).
    """

    pid: int
    ppid: int
    comm: str
    namespaces: tuple[tuple[str, int], ...] = ()
    own: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What it is told by from one frame to the next."""
        return str(self.pid)


@dataclass(frozen=True)
class Traffic:
    """What goes over one link now.

    Attributes:
        ifname: of the link.
        state: "up", "no carrier" (IFF_UP without IFF_LOWER_UP) or "down".
        received: bytes a second.
        sent: bytes a second.
    """

    ifname: str
    state: str
    received: float = 0.0
    sent: float = 0.0


@dataclass(frozen=True)
class Network:
    """One network namespace, and what goes over its links."""

    state: NetworkState
    traffic: tuple[Traffic, ...] = ()

    @property
    def key(self) -> str:
        """What it is told by from one frame to the next."""
        return str(self.state.inode)


@dataclass(frozen=True)
class LayerFile:
    """One file in the upper layer of an overlay.

    Attributes:
        path: relative to the merged directory.
        size: bytes.
        kind: "file", "whiteout", "symlink" or "other".
        written: whether it was written in the last seconds.
    """

    path: str
    size: int = 0
    kind: str = "file"
    written: bool = False


@dataclass(frozen=True)
class Layers:
    """One overlay mount.

    Attributes:
        merged: its mount point, as the process that sees it names it.
        lowers: the lower directories, the topmost first.
        upper: the directory that takes what is written; "" for a read-only mount.
        files: those of the upper layer that were written last, the latest first.
        count: how many files the upper layer has.
        pid: a process that sees it; 0 for the machine itself.
    """

    merged: str
    lowers: tuple[str, ...] = ()
    upper: str = ""
    files: tuple[LayerFile, ...] = ()
    count: int = 0
    pid: int = 0

    @property
    def key(self) -> str:
        """What it is told by from one frame to the next."""
        return self.upper or f"{self.pid}:{self.merged}"


@dataclass(frozen=True)
class Contained:
    """One container of any runtime, or a process of a lab in a place of its own.

    Attributes:
        pid: its first process.
        name: what it is called; "" where nothing tells.
        comm: name of its first process.
        cgroup: the longest of its paths.
        own: the kinds of namespace that it does not share with process 1.
    """

    pid: int
    name: str
    comm: str
    cgroup: str = ""
    own: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What it is told by from one frame to the next."""
        return str(self.pid)


Row = Meter | Member | Network | Layers | Contained
Rows = Mapping[str, Row]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Frame:
    """All views at one instant.

    Attributes:
        number: counts up; 0 before the first.
        at: seconds since 1970.
        interval: seconds to the next full refresh, as it is planned.
        cost: seconds of CPU time that this refresh took.
        sources: what tells the collector of changes, by view: "process connector", "inotify", ...
        cgroups: by path.
        processes: by pid.
        networks: by inode.
        layers: by upper directory.
        containers: by pid of their first process.
    """

    number: int = 0
    at: float = 0.0
    interval: float = 0.1
    cost: float = 0.0
    sources: tuple[str, ...] = ()
    cgroups: Mapping[str, Meter] = field(default_factory=_nothing)
    processes: Mapping[str, Member] = field(default_factory=_nothing)
    networks: Mapping[str, Network] = field(default_factory=_nothing)
    layers: Mapping[str, Layers] = field(default_factory=_nothing)
    containers: Mapping[str, Contained] = field(default_factory=_nothing)


VIEWS: Mapping[str, type[Row]] = MappingProxyType(
    {"cgroups": Meter, "processes": Member, "networks": Network, "layers": Layers, "containers": Contained}
)
"""The views of a frame, and what a row of each is."""


def difference(before: Frame, after: Frame) -> str:
    """Return one line of JSON from which `apply` makes `after` of `before`."""
    told: dict[str, Any] = {"number": after.number, "at": after.at, "interval": after.interval, "cost": after.cost}
    if after.sources != before.sources:
        told["sources"] = after.sources
    for view in VIEWS:
        old, new = getattr(before, view), getattr(after, view)
        if old is new:
            continue
        rows = [row for key, row in new.items() if old.get(key) is not row]
        gone = [key for key in old if key not in new]
        if rows or gone:
            told[view] = [rows, gone]
    return json.dumps(told, default=_fields, separators=(",", ":"))


def apply(before: Frame, line: str | bytes) -> Frame:
    """Return the frame that a line tells of."""
    told = json.loads(line)
    views: dict[str, Any] = {}
    for view, kind in VIEWS.items():
        if view in told:
            rows, gone = told[view]
            left = {key: row for key, row in getattr(before, view).items() if key not in gone}
            left.update((row.key, row) for row in (_row(kind, one) for one in rows))
            views[view] = MappingProxyType(left)
    header = {name: told[name] for name in ("number", "at", "interval", "cost")}
    return replace(before, **header, sources=tuple(told.get("sources", before.sources)), **views)


def changed(before: Frame, after: Frame) -> tuple[str, ...]:
    """Return the views that differ."""
    return tuple(view for view in VIEWS if getattr(before, view) is not getattr(after, view))


def _fields(thing: Any) -> dict[str, Any]:
    return dict(vars(thing))


def _row(kind: type[Row], told: dict[str, Any]) -> Any:
    if kind is Network:
        state = told["state"]
        links = tuple(LinkState(**{**_frozen(link), "peer": tuple(link["peer"]) if link["peer"] else None}) for link in state["links"])
        routes = tuple(RouteState(**route) for route in state["routes"])
        return Network(
            NetworkState(state["name"], state["inode"], links, routes), tuple(Traffic(**one) for one in told["traffic"])
        )
    if kind is Layers:
        told = {**told, "files": [LayerFile(**one) for one in told["files"]]}
    if kind is Meter and told["pressure"]:
        told = {**told, "pressure": Pressure(**told["pressure"])}
    return kind(**_frozen(told))


def _frozen(told: dict[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in told.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
