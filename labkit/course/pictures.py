"""What a picture shows of a state: what the lab made, called as the lab calls it, and nothing that is chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import namespaces
from labkit.kernel.network import NetworkNamespace

if TYPE_CHECKING:
    from labkit.course.workplace import Workplace
    from labkit.kernel.state import CgroupState, NetworkState, ProcessState, UnionState


def without_followers(cgroups: Iterable[CgroupState], named: Sequence[ProcessState]) -> list[CgroupState]:
    """Return the cgroups without the children of named processes: a loop has one child now, and none a moment later."""
    parents = {process.pid: process.pid for process in named}
    return [replace(one, pids=tuple(pid for pid in one.pids if pid in parents or not _follows(pid, parents))) for one in cgroups]


def _follows(pid: int, named: Mapping[int, int]) -> bool:
    while pid > 1:
        try:
            pid = namespaces.process(pid).ppid
        except (LabError, OSError):
            return True  # it has ended since
        if pid in named:
            return True
    return False


def own_networks(networks: Iterable[NetworkState]) -> list[NetworkState]:
    """Return what the lab made of the machine's networks: its named network namespaces, and of the host its links."""
    links = {name for entry in ledger.live(ledger.owner()) for role, name in entry.key.items() if role in ("ifname", "peer")}
    chosen = []
    for one in networks:
        if one.name == "host":
            own = tuple(link for link in one.links if link.ifname in links)
            routes = tuple(route for route in one.routes if route.ifname in links)
            chosen += [replace(one, links=own, routes=routes, rules=())] if own else []
        elif not one.name.startswith("net:") and NetworkNamespace(one.name).ours:
            chosen.append(one)
    return chosen


def short_union(union: UnionState, place: Workplace) -> UnionState:
    """Return the union with the lab's directory written as `$LAB`."""
    branches = tuple((role, place.short(directory)) for role, directory in union.branches)
    return replace(union, merged=place.short(union.merged), workdir=place.short(union.workdir), branches=branches)
