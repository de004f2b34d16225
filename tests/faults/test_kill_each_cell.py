"""The kernel of a notebook is killed after each cell in turn: `labkit clean` leaves the machine as it was."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from canaries import Canary
from sessions import Session

from labkit.course import course_map
from labkit.kernel.snapshot import diff, snapshot
from labkit.kernel.state import Change, Snapshot


def cells(notebook: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


CASES = [
    pytest.param(lab.notebook(), number, id=f"{lab.id}-cell-{number + 1}")
    for lab in course_map.written()
    for number in range(len(cells(lab.notebook())))
]


@pytest.mark.parametrize(("notebook", "last"), CASES)
def test_nothing_is_left_after_the_kernel_was_killed(notebook: Path, last: int, canary: Canary):
    before = snapshot()
    kernel = Session(notebook.parent)
    try:
        for source in cells(notebook)[: last + 1]:
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
