"""The interface files of one cgroup that may lie in several hierarchies: which file a key means, and what to write where.

`where` is controller to directory throughout, "" for the v2 hierarchy; a key is a name in v2 or, on v1, one of v1.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabError, UnsupportedError
from labkit.kernel.cgroups import members
from labkit.kernel.cgroups.hierarchy import ALIASES
from labkit.kernel.cgroups.interface import Read, Value, from_v1, parse, to_v1, translated
from labkit.kernel.cgroups.versions import TABLE, Row, near, row_of, v2_name

_OF_FREEZER = ("cgroup.freeze", "cgroup.events")
_OF_CORE = ("cgroup", "tasks", "notify_on_release", "release_agent")
_COMMANDS = ("cgroup.kill", "memory.reclaim", "memory.force_empty", "cgroup.event_control", "memory.pressure_level")


def directory_of(name: str, where: dict[str, Path], controller: str) -> Path:
    """Return the directory that has the interface files of a controller.

    Args:
        name: of the cgroup, for the error.
        where: controller to directory.
        controller: "" for the v2 one.

    Raises:
        LabError: the cgroup does not have it.
    """
    for key in (controller, ALIASES.get(controller, controller)):
        if key in where:
            return where[key]
    if "" in where:
        return where[""]
    remedy = f'lab.cgroup("{name}", controllers=("{controller}",))' if controller else None
    raise LabError(f"cgroup {name} has no {controller or 'v2 directory'}: it has {', '.join(where)}", remedy=remedy)


def _place(name: str, where: dict[str, Path], key: str) -> tuple[Path, int]:
    prefix = key.partition(".")[0]
    if key in _OF_FREEZER and "freezer" in where:
        prefix = "freezer"
    elif prefix in _OF_CORE:
        prefix = "" if "" in where else next(iter(where))
    directory = directory_of(name, where, prefix)
    return directory, 2 if directory == where.get("") else 1


def _reader(where: dict[str, Path], directory: Path) -> Read:
    def read(file: str) -> str:
        return members.read(where.get(file.partition(".")[0], directory) / file)

    return read


def value(name: str, where: dict[str, Path], key: str) -> Value:
    """Return what the kernel says under this key now.

    Raises:
        UnsupportedError: the file is one of v2 that v1 has no equal of.
        LabError: there is no such file.
    """
    directory, version = _place(name, where, key)
    if version == 1 and translated(key):
        row = _require_equal(key)
        if key == "cgroup.events":
            return _events(directory)
        _require_file(name, directory, row.v1[0], key)
        return from_v1(key, _reader(where, directory))
    _require_file(name, directory, key, key)
    if not (directory / key).stat().st_mode & 0o444:
        raise LabError(f"{key} can be written only")
    return parse(key, members.read(directory / key))


def writes(name: str, where: dict[str, Path], key: str, text: str) -> list[tuple[Path, str]]:
    """Return the files to write, in this order, and what, for a value.

    Raises:
        UnsupportedError: the file is one of v2 that v1 has no equal of.
        LabError: there is no such file, or it can be read only.
    """
    directory, version = _place(name, where, key)
    if version == 1 and translated(key):
        row = _require_equal(key)
        _require_file(name, directory, row.v1[0], key)
        pairs = to_v1(key, text, _reader(where, directory))
    else:
        _require_file(name, directory, key, key)
        pairs = [(key, text)]
    for file, _ in pairs:
        if not (directory / file).stat().st_mode & 0o222:
            raise LabError(f"{key} can be read only")
    return [(directory / file, content) for file, content in pairs]


def _events(directory: Path) -> dict[str, int]:
    freezer = (directory / "freezer.state").exists()
    populated = {"populated": int(bool(members.pids(directory, deep=True)))}
    return {**populated, "frozen": int(members.is_frozen(directory))} if freezer else populated


def _require_equal(key: str) -> Row:
    row = row_of(key) or Row(key)
    if not row.v1:
        prefix = key.partition(".")[0]
        found = "v1" if prefix == "cgroup" else f"{prefix} in v1"
        raise UnsupportedError(f"cgroup v2 for {key}", f"{found}, which has no equal: {row.note}")
    return row


def _require_file(name: str, directory: Path, file: str, key: str) -> None:
    if (directory / file).exists():
        return
    if not directory.is_dir():
        raise LabError(f"cgroup {name} is not there any more", cause=f"no directory {directory}", remedy=f'lab.cgroup("{name}") makes it')
    prefix = key.partition(".")[0]
    if renamed := v2_name(key):
        raise LabError(f"cgroup {name} lies in v2, where {key} is {renamed}", remedy=f'write ["{renamed}"]')
    offered = members.read(directory / "cgroup.controllers").split()
    there = [row.v2 for row in TABLE]
    if (directory / "cgroup.controllers").exists() and prefix not in ("cgroup", *offered) and key in there:
        cause = f"{directory}/cgroup.controllers has {', '.join(offered) or 'none'}"
        raise LabError(f"cgroup {name} has no {prefix} controller", cause=cause, remedy=f'lab.cgroup("{name}", controllers=("{prefix}",))')
    raise LabError(f"cgroup {name} has no interface file {key}", remedy=near(key, [*os.listdir(directory), *there]))


def keys(where: dict[str, Path]) -> tuple[str, ...]:
    """Return the interface files there are, each once: by its name in v2 where it has one there, else by its own."""
    found = set()
    for controller, directory in where.items():
        files = os.listdir(directory) if directory.is_dir() else []
        files = [file for file in files if not (directory / file).is_dir()]
        if not controller:
            found.update(files)
            continue
        known = {row.v2 for file in files for row in TABLE if row.v1[:1] == (file,)}
        found |= known | {file for file in files if not v2_name(file) and not translated(file)}
    if "freezer" in where:
        found.add("cgroup.events")
    return tuple(sorted(found - set(_COMMANDS)))


def kill_lines(directories: Iterable[Path]) -> list[str]:
    """Return how a person ends all that is in these cgroups and below them; nothing for one that is empty."""
    lines = []
    for directory in directories:
        full = [part for part in members.below(directory) if members.pids(part)]
        if not full:
            continue
        if (directory / "cgroup.kill").exists():
            lines.append(f"echo 1 > {directory}/cgroup.kill")
            continue
        lines.append(f"kill -KILL $(cat {' '.join(f'{part}/cgroup.procs' for part in full)})")
        frozen = [part for part in reversed(members.below(directory)) if members.read(part / "freezer.self_freezing") == "1"]
        lines += [f"echo THAWED > {part}/freezer.state" for part in frozen]
    return lines


def quoted(text: str) -> str:
    """Return a value as a word of the shell."""
    return shlex.quote(text)
