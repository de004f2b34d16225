"""The kernel of a notebook is killed after each cell in turn: `labkit clean` leaves the machine as it was."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))

from labkit.kernel.snapshot import diff, snapshot
from sessions import Session

from labkit.course import course_map


def cells(notebook: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


CASES = [
    pytest.param(lab.notebook(), number, id=f"{lab.id}-cell-{number + 1}")
    for lab in course_map.written()
    for number in range(len(cells(lab.notebook())))
]


@pytest.mark.parametrize(("notebook", "last"), CASES)
def test_nothing_is_left_after_the_kernel_was_killed(notebook: Path, last: int):
    before = snapshot()
    kernel = Session(notebook.parent)
    try:
        for source in cells(notebook)[: last + 1]:
            kernel.ok(source)
    finally:
        kernel.kill()
        done = subprocess.run([sys.executable, "-m", "labkit", "clean"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not diff(before, snapshot()), diff(before, snapshot())
