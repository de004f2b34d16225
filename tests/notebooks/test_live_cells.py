"""A live view in a notebook that nobody looks at: one settled picture, the same at each run, and no collector that goes on."""

import os
from pathlib import Path

import nbformat
import pytest

from labkit.course.render import render
from labkit.course.validate import validate
from labkit.kernel.live import feed

SOURCES = (
    'from labkit import open_lab, expect\nlab = open_lab("2.1")',
    'group = lab.cgroup("mycgroup")\nsleeper = lab.spawn("exec sleep 1000", name="sleeper")\ngroup.attach(sleeper)\ngroup.freeze()',
    "lab.live()",
    'with expect("no live view"):\n    lab.live("weather")',
    "lab.close()",
)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(SOURCES)]
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}})
    path = tmp_path / "live.ipynb"
    nbformat.write(made, path)
    return path


def collectors() -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += [entry] if b"labkit.kernel.live" in Path(f"/proc/{entry}/cmdline").read_bytes() else []
        except OSError:
            continue
    return found


def test_a_live_view_is_rendered_and_validated_alike(notebook: Path) -> None:
    assert render(notebook).written
    stored = nbformat.read(notebook, as_version=4)
    (view,) = stored.cells[2].outputs
    assert set(view.data) == {"text/plain", "text/html"}
    assert "  mycgroup  ■ frozen  sleeper" in view.data["text/plain"]
    assert "widgets" not in stored.metadata
    assert not render(notebook).written
    assert validate(notebook).failures == ()
    assert collectors() == []
    assert not feed.path().exists()
