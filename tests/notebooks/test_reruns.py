"""Cells run twice, twice from the top, after an interruption, and from the middle: students do all of that."""

import time
from pathlib import Path

import pytest
from sessions import Session, cells, sections, session

from labkit import ledger
from labkit.course import course_map


@pytest.fixture(params=course_map.written(), ids=lambda lab: lab.id)
def notebook(request: pytest.FixtureRequest) -> Path:
    return request.param.notebook()


def opening(notebook: Path) -> int:
    """Return the position of the cell that opens the lab."""
    return next(number for number, source in enumerate(cells(notebook)) if "open_lab(" in source)


def test_each_cell_can_be_run_twice(notebook: Path):
    with session(notebook.parent) as kernel:
        for source in cells(notebook):
            kernel.ok(source)
            kernel.ok(source)


def test_the_whole_can_be_run_twice_in_one_kernel(notebook: Path):
    with session(notebook.parent) as kernel:
        for source in cells(notebook) * 2:
            kernel.ok(source)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_after_a_cell_was_interrupted_it_runs_again_from_the_top(notebook: Path, share: float):
    sources = cells(notebook)
    at = max(opening(notebook) + 1, int(len(sources) * share))
    with session(notebook.parent) as kernel:
        for source in sources[:at]:
            kernel.ok(source)
        interrupt(kernel, sources[at])
        for source in sources:
            kernel.ok(source)


def interrupt(kernel: Session, source: str) -> None:
    """Begin a cell, and interrupt it as soon as the kernel works on it."""
    sent = kernel.begin(source)
    while kernel.message()["msg_type"] != "execute_input":
        pass
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:  # into the cell's own work, not into the kernel's parser
        pass
    kernel.interrupt()
    kernel.collect(sent)  # no more: where the cell was faster, the interrupt may have hit the kernel before it replied


def test_after_the_kernel_was_killed_it_runs_again_from_the_top(notebook: Path):
    sources = cells(notebook)
    killed = Session(notebook.parent)
    for source in sources[: len(sources) // 2]:
        killed.ok(source)
    killed.kill()
    assert ledger.live(), "the lab was open"
    with session(notebook.parent) as kernel:
        for source in sources:
            kernel.ok(source)


def test_each_section_can_be_run_again_after_the_later_ones(notebook: Path):
    opening_cells, *others = sections(notebook)
    others[-1] = [source for source in others[-1] if "lab.close()" not in source]
    with session(notebook.parent) as kernel:
        for source in [*opening_cells, *(source for section in others for source in section)]:
            kernel.ok(source)
        for section in reversed(others):
            for source in section:
                kernel.ok(source)


def test_each_section_can_be_the_first_one(notebook: Path):
    opening_cells, *others = sections(notebook)
    with session(notebook.parent) as kernel:
        for section in others:
            for source in [*opening_cells, *section]:
                kernel.ok(source)
