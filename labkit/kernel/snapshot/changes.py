"""The two ways in which a thing differs between two snapshots: it is there or not, or one of its values is another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

from labkit.kernel.state import Change

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


def whole(
    kind: str,
    before: Mapping[Key, Thing],
    after: Mapping[Key, Thing],
    name: Callable[[Key], str],
    describe: Callable[[Thing], str],
) -> Iterator[Change]:
    """Give each thing that went or appeared, with a few words on what it was or is."""
    for key in before.keys() - after.keys():
        yield Change(kind, name(key), "", describe(before[key]), None)
    for key in after.keys() - before.keys():
        yield Change(kind, name(key), "", None, describe(after[key]))


def values(kind: str, name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    """Give each value that is another one now; one that only one side has came or went with something else."""
    for attribute in before.keys() & after.keys():
        if before[attribute] != after[attribute]:
            yield Change(kind, name, attribute, before[attribute], after[attribute])
