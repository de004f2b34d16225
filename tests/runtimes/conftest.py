"""One small root file system for each way of counting ids, and the services that engines need."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pods
import pytest

from labkit import ledger
from labkit.host import services as service
from labkit.runtimes import Runtime, rootfs

OWNER = "contract"
ENGINES = ("containerd", "docker", "lxd")
"""The services without which some runtimes are not available."""


@contextmanager
def of_the_machine() -> Iterator[None]:
    """Speak of the machine's own instance, with the images that the set-up has packed, in place of the tests' own state."""
    tests, owner = os.environ.pop("LABKIT_STATE"), ledger.owner()
    ledger.own("")
    try:
        yield
    finally:
        os.environ["LABKIT_STATE"] = tests
        ledger.own(owner)


@pytest.fixture(scope="session")
def services(own_state: Path) -> Iterator[service.Places]:
    """Let containerd, docker and LXD serve where the machine has them: what runs stays, what was brought up is taken down."""
    with of_the_machine():
        before = {one.name for one in service.status() if one.state != "down"}
        service.up(ENGINES)
        here = service.places()
    file = own_state / "services.json"
    file.write_text(json.dumps({name: str(getattr(here, name)) for name in ENGINES}))
    try:
        pods.first(here.containerd, own_state)
        yield service.places()
    finally:
        file.unlink()
        with of_the_machine():
            brought = {one.name for one in service.status() if one.state != "down"} - before
            if brought:
                service.down(brought)


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
