"""What stands beside the labs while they are killed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from canaries import Canary


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """Things of somebody else, for all tests of a module."""
    one = Canary(tmp_path_factory.mktemp("canary"))
    yield one
    one.close()
