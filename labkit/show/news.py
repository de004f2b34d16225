"""What happened between two frames, in short sentences: for who hears the view rather than sees it."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.kernel.live.frame import Frame
from labkit.show.frames import EVERYTHING, Scope
from labkit.show.text import cut, short_ids

MOST = 4
"""Sentences of one step; of a flood the rest is left out."""


def news(before: Frame, after: Frame, scope: Scope = EVERYTHING) -> tuple[str, ...]:
    """Return what came, went or changed its state: cgroups, links, network namespaces, overlays, containers."""
    if not before.number:
        return ()
    return tuple(sentence for sentence, _ in zip(_all(before, after, scope), range(MOST), strict=False))


def _all(before: Frame, after: Frame, scope: Scope) -> Iterator[str]:
    if before.cgroups is not after.cgroups:
        yield from _cgroups(before, after, scope)
    if before.networks is not after.networks:
        yield from _networks(before, after)
    if before.containers is not after.containers:
        old, new = ({key: row.name or row.comm for key, row in frame.containers.items()} for frame in (before, after))
        yield from _keyed(old, new, "container", "runs", "has ended")
    if before.layers is not after.layers:
        old, new = ({key: row.merged for key, row in frame.layers.items()} for frame in (before, after))
        yield from _keyed(old, new, "overlay", "is mounted", "is unmounted")


def _cgroups(before: Frame, after: Frame, scope: Scope) -> Iterator[str]:
    for path, row in after.cgroups.items():
        old = before.cgroups.get(path)
        if old is row or not scope.inside(path):
            continue
        if old is None:
            yield f"cgroup {scope.label(path)} is made"
        elif old.state != row.state and {old.state, row.state} & {"frozen", "freezing"}:
            yield f"cgroup {scope.label(path)}: {old.state or 'empty'} → {row.state or 'empty'}"
    for path in before.cgroups:
        if path not in after.cgroups and scope.inside(path):
            yield f"cgroup {scope.label(path)} is removed"


def _networks(before: Frame, after: Frame) -> Iterator[str]:
    for key, row in after.networks.items():
        old = before.networks.get(key)
        if old is row:
            continue
        if old is None:
            yield f"network namespace {row.state.name} is made"
            continue
        states = {one.ifname: one.state for one in old.traffic}
        for one in row.traffic:
            if one.ifname not in states:
                yield f"link {one.ifname} in {row.state.name} is made"
            elif states[one.ifname] != one.state:
                yield f"link {one.ifname} in {row.state.name}: {states[one.ifname]} → {one.state}"
        for ifname in states.keys() - {one.ifname for one in row.traffic}:
            yield f"link {ifname} in {row.state.name} is gone"
    for key, row in before.networks.items():
        if key not in after.networks:
            yield f"network namespace {row.state.name} is gone"


def _keyed(old: dict[str, str], new: dict[str, str], thing: str, came: str, went: str) -> Iterator[str]:
    yield from (f"{thing} {cut(short_ids(name), 40)} {came}" for key, name in new.items() if key not in old)
    yield from (f"{thing} {cut(short_ids(name), 40)} {went}" for key, name in old.items() if key not in new)
