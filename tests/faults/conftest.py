"""What stands beside the labs while they are killed."""

from collections.abc import Iterator

import pytest
from canaries import Canary
from jupyter_core.utils import ensure_event_loop


@pytest.fixture(scope="session", autouse=True)
def event_loop_of_the_client() -> None:
    """Make the loop that jupyter_client keeps for good before the first test counts open files."""
    ensure_event_loop()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """Things of somebody else, for all tests of a module."""
    one = Canary(tmp_path_factory.mktemp("canary"))
    yield one
    one.close()
