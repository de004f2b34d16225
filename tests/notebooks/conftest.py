"""Kernels for the tests of notebooks."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from jupyter_core.utils import ensure_event_loop
from sessions import OPEN, Session, session

import labkit.course.lab  # noqa: F401 - it loads every module that can undo something
from labkit import ledger
from labkit.course.course_map import CourseLab
from labkit.course.validate import Validation, validate


@pytest.fixture(scope="session", autouse=True)
def event_loop_of_the_client() -> None:
    """Make the loop that jupyter_client keeps for good before the first test counts open files."""
    ensure_event_loop()


@pytest.fixture(autouse=True)
def clean_ledger(request: pytest.FixtureRequest, own_state: Path) -> Iterator[None]:
    """Undo what the test's lab made, as `labkit clean` does; what is left then fails the test."""
    yield
    if request.path.name not in ("test_shape.py", "test_commands.py"):
        ledger.undo()


@pytest.fixture(scope="session")
def fresh_run(own_state: Path) -> Callable[[CourseLab], tuple[Validation, list[dict]]]:
    """Run a lab under nbval, once for all who ask, and return what that found and what each cell recorded."""

    @cache
    def run(lab: CourseLab) -> tuple[Validation, list[dict]]:
        found = validate(lab.notebook())
        recorded = own_state / "labs" / f"{lab.id}.trace.jsonl"
        return found, [json.loads(line) for line in recorded.read_text().splitlines()]

    return run


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
