"""Fixtures for every room."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bystanders import Bystander, bystanders
from leaks import nothing_left
from serving import services, serving
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from labkit.course import course_map

__all__ = ["nothing_left", "services", "serving"]  # the first watches every test of the rooms that change the machine

ROOTED = ("kernel", "cni", "appc", "runtimes", "notebooks", "host", "vm", "images", "faults", "browser")
"""The rooms whose tests change the machine: one run at a time."""

BESIDE = ("appc", "browser", "cni", "faults", "notebooks", "runtimes")
"""The rooms whose tests may run side by side, but for those that need the process connector of the first namespaces."""

EXECS, PARTS = "lab.execs(", ("test_checkpoints", "test_shape")
"""What asks the process connector, and the tests of a lab that do not run the cell which does."""

BESIDE_OTHERS = re.compile(r"\b(notebooks|faults)/.*\[[5-9]\.\d")
"""Tests of the labs that do with an engine all that it can."""

STATES = Path("/var/tmp")
"""Where the state of a run lies: below another root's temporary directory its files could not be reached by other users."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--each-cell", action="store_true", help="tests/faults: kill the kernel after each cell, not every other section")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that may run in a machine of their own beside others."""
    labs = {lab.id for lab in course_map.written() if EXECS in lab.notebook().read_text()}
    for item in items:
        room, about = _about(item.nodeid)
        cells = item.callspec.params.get("cells") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
        whole = about in labs and item.path.stem not in PARTS
        execs = item.path.stem == "test_execs" or (whole if cells is None else EXECS in "".join(cells))
        if room in BESIDE and not execs:
            item.add_marker(pytest.mark.beside)


class Together(LoadScopeScheduling):
    """Gives a machine all tests of a room about one lab, or else of one file: they share what one run of the lab recorded."""

    def _split_scope(self, nodeid: str) -> str:
        return " ".join(_about(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Say how tests are given to several machines."""
    return Together(config, log)


def _about(nodeid: str) -> tuple[str, str]:
    """Return the room of a test, and the lab or else the file that it is about."""
    path, _, name = nodeid.partition("::")
    lab = re.search(r"\[(\d+\.\d+)", name)
    return Path(path).parent.name, lab[1] if lab else Path(path).stem


@pytest.fixture
def told(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Keep a row of a table that is printed, whole, at the end of the run."""
    return lambda heading, row: record_property("told", (heading, row))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that the tests told."""
    tables: dict[str, list[str]] = {}
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for heading, row in (value for name, value in report.user_properties if name == "told" and report.when == "call"):
            tables.setdefault(heading, []).append(row)
    for heading, rows in tables.items():
        terminalreporter.section(heading)
        terminalreporter.write_line("\n".join(sorted(rows)))


@pytest.fixture(scope="session", autouse=True)
def one_run_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold a lock while tests that change the machine run: a second run waits instead of seeing the first one's objects.

    What a run made that was killed is removed first, by the ledger that it left.
    """
    here = Path(__file__).parent
    if not any(item.path.relative_to(here).parts[0] in ROOTED for item in request.session.items if item.path.is_relative_to(here)):
        yield
        return
    with open("/run/labkit-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for state in STATES.glob("labkit-tests-*"):
            _take_over(state)
        yield


def _take_over(state: Path) -> None:
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # of a run that lives: one without a test that changes the machine
    finally:
        os.close(directory)
    for verb in ("clean", "down"):
        subprocess.run([sys.executable, "-m", "labkit", verb], env=os.environ | {"LABKIT_STATE": str(state)}, check=True)
    shutil.rmtree(state)


@pytest.fixture(scope="session", autouse=True)
def own_state(one_run_at_a_time: None) -> Iterator[Path]:
    """Keep the ledger and the state of the tests apart from those of the machine.

    Others may go through it, as through /var/lib/labkit: root inside an unprivileged container is such another.
    """
    state = Path(tempfile.mkdtemp(prefix="labkit-tests-", dir=STATES))
    state.chmod(0o755)
    held = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    before = os.environ.get("LABKIT_STATE")
    os.environ["LABKIT_STATE"] = str(state)
    yield state
    if before is None:
        del os.environ["LABKIT_STATE"]
    else:
        os.environ["LABKIT_STATE"] = before
    subprocess.run(["rm", "-rf", "--one-file-system", state], check=False)
    os.close(held)


@pytest.fixture(scope="session", autouse=True)
def others(request: pytest.FixtureRequest, serving: None) -> Iterator[list[Bystander]]:
    """Start a container of somebody else in each engine of the machine's, before the first test that it stands beside."""
    if not any(BESIDE_OTHERS.search(item.nodeid) for item in request.session.items):
        yield []
        return
    with bystanders() as found:
        yield found


@pytest.fixture(autouse=True)
def others_stay(request: pytest.FixtureRequest, others: list[Bystander]) -> Iterator[None]:
    """Fail a test of a lab after which a container, image, volume or network of somebody else is not what it was."""
    yield
    for one in others if BESIDE_OTHERS.search(request.node.nodeid) else ():
        assert one.now() == one.then
