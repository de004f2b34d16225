"""One small root file system for each way of counting ids."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.runtimes import Runtime, rootfs

OWNER = "contract"


@pytest.fixture(scope="module")
def root(own_state: Path) -> Iterator[Callable[[Runtime], Path]]:
    """Return a small root file system that belongs to the ids of a runtime."""

    def unpacked(runtime: Runtime) -> Path:
        ids = runtime.id_map()
        return rootfs.unpack(own_state / f"root-{ids[0][1] if ids else 0}", "busybox", ids)

    ledger.own(OWNER)
    yield unpacked
    ledger.undo()
    ledger.own("")
