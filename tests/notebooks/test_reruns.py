"""Cells run twice, again from the top, after an interruption, and in another order: students do all of that.

That a section can be the first one after the opening is held by the tests of faults, which begin so.
"""

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


def test_each_cell_can_be_run_twice_and_each_section_after_the_later_ones(notebook: Path):
    opening_cells, *others = sections(notebook)
    *_, close = others[-1]
    assert "lab.close()" in close
    with session(notebook.parent) as kernel:
        for source in [*opening_cells, *(source for section in reversed(others) for source in section)]:
            if source != close:
                kernel.ok(source)
                kernel.ok(source)
        kernel.ok(close)
        kernel.ok(close)


def test_after_an_interruption_and_after_the_end_of_its_kernel_it_runs_again_from_the_top(notebook: Path):
    sources = cells(notebook)
    first, last = (max(opening(notebook) + 1, int(len(sources) * share)) for share in (0.3, 0.45))
    killed = Session(notebook.parent)
    run_and_interrupt(killed, sources, first)
    for source in sources[:last]:
        killed.ok(source)
    killed.kill()
    assert ledger.live(), "the lab was open"
    with session(notebook.parent) as kernel:
        for source in sources[: last + 1]:
            kernel.ok(source)


def run_and_interrupt(kernel: Session, sources: list[str], at: int) -> None:
    """Run the cells before one, and interrupt that one."""
    for source in sources[:at]:
        kernel.ok(source)
    interrupt(kernel, sources[at])


def interrupt(kernel: Session, source: str) -> None:
    """Begin a cell, and interrupt it as soon as the kernel works on it; it goes on for a while, lest the interrupt hit the kernel."""
    last = "sleep 10" if source.startswith("%%lab") else "__import__('time').sleep(10)"
    sent = kernel.begin(f"{source}\n{last}")
    while kernel.message()["msg_type"] != "execute_input":
        pass
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:  # into the cell's own work, not into the kernel's parser
        pass
    kernel.interrupt()
    kernel.finish(sent)
