"""A place that containers can reach, and one root file system for each way of counting ids."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.runtimes import Runtime, rootfs


@pytest.fixture(scope="module", autouse=True)
def state(own_state: Path) -> Iterator[Path]:
    """Keep the state where the root of an unprivileged container may go: others have no way into pytest's directories."""
    with tempfile.TemporaryDirectory(prefix="labkit-tests-", dir="/var/lib") as directory:
        os.chmod(directory, 0o755)
        os.environ["LABKIT_STATE"] = directory
        yield Path(directory)
        ledger.undo()
        os.environ["LABKIT_STATE"] = str(own_state)


@pytest.fixture(scope="module")
def root(state: Path) -> Callable[[Runtime], Path]:
    """Return a small root file system that belongs to the ids of a runtime."""

    def unpacked(runtime: Runtime) -> Path:
        ids = runtime.id_map()
        return rootfs.unpack(state / f"root-{ids[0][1] if ids else 0}", "busybox", ids)

    return unpacked
