"""Kernels for the tests of notebooks, and a look that each test leaves the machine as it was."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from labkit.kernel.snapshot import diff, snapshot
from sessions import OPEN, Session, session

import labkit.course.lab  # noqa: F401 - it loads every module that can undo something
from labkit import ledger


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, own_state: Path) -> Iterator[None]:
    """Compare the kernel before and after; what a test left is removed, and fails it."""
    if request.path.name == "test_shape.py":
        yield
        return
    before = snapshot()
    yield
    ledger.undo()
    difference = diff(before, snapshot())
    assert not difference, difference


@pytest.fixture
def kernel() -> Iterator[Session]:
    """Give a fresh kernel."""
    with session() as one:
        yield one


@pytest.fixture
def lab(kernel: Session) -> Session:
    """Give a kernel in which the trial lab is open as `lab`."""
    kernel.ok(OPEN)
    return kernel
