"""The kernel of a notebook is killed after each cell in turn: `labkit clean` leaves the machine as it was."""

import subprocess
import sys
from pathlib import Path

import pytest
from canaries import Canary
from sessions import Session, sections

from labkit.course import course_map
from labkit.kernel.snapshot import diff, snapshot
from labkit.kernel.state import Change, Snapshot


def runs(notebook: Path) -> list[list[str]]:
    """Return what is run before each kill: the opening and a section as far as one cell, for each cell; and all there is but the close.

    A section stands on its own, so the ones before it need not be run each time.
    """
    opening, *rest = sections(notebook)
    each = [opening[: last + 1] for last in range(len(opening))]
    each += [[*opening, *section[: last + 1]] for section in rest for last in range(len(section))]
    return [*each, [source for section in sections(notebook) for source in section][:-1]]


CASES = [
    pytest.param(lab.notebook(), cells, id=f"{lab.id}-{number + 1}")
    for lab in course_map.written()
    for number, cells in enumerate(runs(lab.notebook()))
]


@pytest.mark.parametrize(("notebook", "cells"), CASES)
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
    assert difference(before) == []
    assert canary.now() == canary.then


def difference(before: Snapshot) -> list[Change]:
    """Return what differs now; cgroups of others, which their owners make and remove at any time, are left out."""
    found = diff(before, snapshot())
    changes = [*found.appeared, *found.went, *found.changed]
    return [one for one in changes if one.attribute or one.kind != "cgroup" or "/lab" in one.name]
