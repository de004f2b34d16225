"""Fixtures for every room."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from leaks import nothing_left

__all__ = ["nothing_left"]  # of leaks.py: watches every test of the rooms that change the machine

ROOTED = ("kernel", "runtimes", "notebooks", "host", "vm", "images", "faults", "browser")
"""The rooms whose tests change the machine: one run at a time."""


@pytest.fixture(scope="session", autouse=True)
def one_run_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold a lock while tests that change the machine run: a second run waits instead of seeing the first one's objects."""
    here = Path(__file__).parent
    if not any(item.path.relative_to(here).parts[0] in ROOTED for item in request.session.items if item.path.is_relative_to(here)):
        yield
        return
    with open("/run/labkit-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_state() -> Iterator[Path]:
    """Keep the ledger and the state of the tests apart from those of the machine.

    Others may go through it, as through /var/lib/labkit: root inside an unprivileged container is such another.
    """
    state = Path(tempfile.mkdtemp(prefix="labkit-tests-", dir="/var/tmp"))
    state.chmod(0o755)
    before = os.environ.get("LABKIT_STATE")
    os.environ["LABKIT_STATE"] = str(state)
    yield state
    if before is None:
        del os.environ["LABKIT_STATE"]
    else:
        os.environ["LABKIT_STATE"] = before
    subprocess.run(["rm", "-rf", "--one-file-system", state], check=False)
