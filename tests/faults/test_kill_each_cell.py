"""The kernel of a notebook is killed after every other section, or each cell (--each-cell): `labkit clean` leaves the machine as it was."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from canaries import Canary
from sessions import Session, sections

from labkit.course import course_map
from labkit.kernel.snapshot import diff, snapshot
from labkit.kernel.state import Change, Snapshot

LOOKS = re.compile(r"lab\.(predict|observe|check|hint|xray|parts)\(.*\)")
"""A line that makes nothing: after a cell of such lines the machine is as after the one before."""


def runs(notebook: Path) -> list[list[str]]:
    """Return what is run before each kill: the opening and a section as far as each cell that does something; and all but the close.

    A section stands on its own, so the ones before it need not be run each time.
    """
    opening, *rest = sections(notebook)
    each = [opening[: last + 1] for last in range(len(opening))]
    for section in rest:
        each += [[*opening, *section[: last + 1]] for last in changing(section)]
    return [*each, [source for section in sections(notebook) for source in section][:-1]]


def changing(section: list[str]) -> list[int]:
    """Return the positions of the cells that do something, and of the last one."""
    return [last for last, source in enumerate(section) if last + 1 == len(section) or not looks(source)]


def of_sections(notebook: Path) -> set[int]:
    """Return which of the runs end with the opening, with every other section, or with everything open.

    All of them take four times as long: `pytest tests/faults --each-cell`.
    """
    opening, *rest = sections(notebook)
    lengths = (len(opening), *(len(changing(section)) for section in rest))
    ends = {sum(lengths[: number + 1]) - 1 for number in range(0, len(lengths), 2)}
    return {*ends, sum(lengths)}


def looks(source: str) -> bool:
    """Return whether a cell only looks."""
    return all(LOOKS.fullmatch(line) for line in source.splitlines())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    each = metafunc.config.getoption("--each-cell")
    cases = [
        pytest.param(lab.notebook(), cells, id=f"{lab.id}-{number + 1}")
        for lab in course_map.written()
        for number, cells in enumerate(runs(lab.notebook()))
        if each or number in of_sections(lab.notebook())
    ]
    metafunc.parametrize(("notebook", "cells"), cases)


def test_nothing_is_left_after_the_kernel_was_killed(notebook: Path, cells: list[str], canary: Canary):
    before = snapshot()
    kernel = Session(notebook.parent)
    try:
        for source in cells:
            kernel.ok(source)
    finally:
        kernel.kill()
        done = subprocess.run([sys.executable, "-m", "labkit", "clean"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10  # the kernel takes network namespaces down in a work queue, with the ends of their veths
    while (found := difference(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == []
    assert canary.now() == canary.then


def difference(before: Snapshot) -> list[Change]:
    """Return what differs now; cgroups of others, which their owners make and remove at any time, are left out."""
    found = diff(before, snapshot())
    changes = [*found.appeared, *found.went, *found.changed]
    return [one for one in changes if one.attribute or one.kind != "cgroup" or "/lab" in one.name]
