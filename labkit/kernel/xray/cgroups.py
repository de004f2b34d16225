"""In which cgroups a process is, what limits it there or further up, and how much of that is used.

The names are those of v2 also where the machine has v1: the table v1 ↔ v2 of `labkit.kernel.cgroups` finds the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel.cgroups import files
from labkit.kernel.cgroups.hierarchy import Hierarchy
from labkit.kernel.cgroups.interface import Value
from labkit.kernel.xray.machine import Machine, read
from labkit.kernel.xray.records import CgroupPlace, Cgroups, Limit

TIGHTEST = (
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),
    ("memory.swap.max", "memory.swap.current"),
    ("pids.max", "pids.current"),
    ("cpu.max", ""),
)
"""Limits of which the least from here up to the root counts, with what counts their use."""

SHARES = (("cpu.weight", 100), ("cpuset.cpus", ""), ("cpuset.mems", ""), ("io.max", ""), ("io.weight", ""))
"""What is set for the cgroup itself, with what it is where nobody has set it."""

Where = dict[str, Path]


def cgroups_of(pid: int, machine: Machine) -> Cgroups:
    """Return where a process is in each hierarchy, and what limits it.

    Shell:
        cat /proc/PID/cgroup
    """
    mounted = {hierarchy.name: hierarchy for hierarchy in machine.hierarchies.mounted}
    places = []
    where: Where = {}
    tops: Where = {}
    for line in read(f"{machine.proc}/{pid}/cgroup").splitlines():
        _, name, path = line.split(":", 2)
        hierarchy = mounted.get(name)
        directory = _directory(hierarchy, path) if hierarchy else None
        places.append(CgroupPlace(name, path, str(directory) if directory else None))
        if hierarchy and directory:
            keys = hierarchy.controllers or ("",)
            where.update(dict.fromkeys(keys, directory))
            tops.update(dict.fromkeys(keys, hierarchy.path))
    limits = (*_tightest(where, tops), *_shares(where, tops))
    stat, events = _value(where, "cpu.stat"), _value(where, "cgroup.events")
    at_root = (counts := _controller("cpu.stat", where)) is None or where[counts] == tops[counts]
    cpu = stat.get("usage_usec") if isinstance(stat, dict) and not at_root else None
    frozen = events.get("frozen") if isinstance(events, dict) else None
    return Cgroups(
        tuple(sorted(places, key=lambda place: place.hierarchy)),
        limits,
        cpu if isinstance(cpu, int) else None,
        None if frozen is None else bool(frozen),
    )


def _directory(hierarchy: Hierarchy, path: str) -> Path | None:
    """Return where a cgroup lies, or None where the mount does not show it."""
    root = hierarchy.root.rstrip("/")
    if not f"{path}/".startswith(f"{root}/"):
        return None
    directory = hierarchy.path / path[len(root) :].lstrip("/")
    return directory if directory.is_dir() else None


def _tightest(where: Where, tops: Where) -> Iterator[Limit]:
    for key, used in TIGHTEST:
        controller = _controller(key, where)
        if controller is None or where[controller] == tops[controller]:
            continue  # in the root cgroup nothing is limited
        found = [(value, directory) for directory in _upward(where[controller], tops[controller])
                 if (value := _value({controller: directory}, key)) is not None]  # fmt: skip
        if not found:
            continue
        value, directory = min(found, key=lambda each: _size(each[0]))
        use = _value(where, used) if used else None
        limit = value if isinstance(value, int | str) else str(value)
        if _size(limit) == float("inf"):
            directory, limit = tops[controller], "max"
        if key in ("memory.max", "pids.max") or limit != "max":
            yield Limit(key, limit, _path(directory, tops[controller]) if limit != "max" else "", use if isinstance(use, int) else None)


def _shares(where: Where, tops: Where) -> Iterator[Limit]:
    for key, usual in SHARES:
        controller = _controller(key, where)
        if controller is None or where[controller] == tops[controller]:
            continue
        value = _value(where, key)
        if value in (None, usual, "", {}) or value == {"default": usual}:
            continue
        yield Limit(key, _written(value), _path(where[controller], tops[controller]))


def _written(value: Value | None) -> int | str:
    if isinstance(value, dict):  # io.max: "8:0 rbps=1048576 wbps=max"
        rows = ((device, inner if isinstance(inner, dict) else {"": inner}) for device, inner in value.items())
        return "; ".join(" ".join([device, *(f"{name}={limit}".lstrip("=") for name, limit in inner.items())]) for device, inner in rows)
    return value if isinstance(value, int | str) else " ".join(map(str, value or ()))


def _controller(key: str, where: Where) -> str | None:
    """Return under which controller of `where` an interface file lies: that of v1, or "" for v2."""
    prefix = key.partition(".")[0]
    wanted = (prefix, "blkio") if prefix == "io" else (prefix,)
    return next((name for name in (*wanted, "") if name in where), None)


def _upward(directory: Path, top: Path) -> Iterator[Path]:
    while True:
        yield directory
        if directory == top or top not in directory.parents:
            return
        directory = directory.parent


def _size(value: Value) -> float:
    """Return what a limit comes to: of cpu.max "20000 100000" a fifth."""
    words = str(value).split()
    if not words or words[0] == "max":
        return float("inf")
    return int(words[0]) / (int(words[1]) if len(words) > 1 else 1)


def _path(directory: Path, top: Path) -> str:
    return "/" + os.path.relpath(directory, top).removeprefix(".")


def _value(where: Where, key: str) -> Value | None:
    if not where:
        return None
    try:
        return files.value("", where, key)
    except (LabError, OSError, ValueError):
        return None  # this machine, or this cgroup, has no such file
