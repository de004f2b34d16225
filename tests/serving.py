"""The fixtures that bring up the services that tests need, in the machine's own instance, and say where they are."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pods
import pytest

from labkit import ledger
from labkit.course import course_map
from labkit.host import services as service

ENGINES = ("containerd", "docker", "lxd")
"""The services without which some runtimes are not available."""

ROOMS = ("browser", "faults", "notebooks")
"""The rooms whose tests run labs: their names have the lab's id."""


@pytest.fixture(scope="session", autouse=True)
def serving(request: pytest.FixtureRequest, own_state: Path) -> Iterator[None]:
    """Bring up what the tests need before the first of them looks at the machine, and take down after the last what was down.

    A lab would bring it up when it opens, and leave it: the services are the machine's. So they are here, with the images that
    its set-up has packed: neither the ledger nor the state of the tests has anything of them.
    """
    wanted = _needed(request.session.items)
    if not wanted:
        yield
        return
    with of_the_machine():
        before = _serving()
        service.up(wanted)
        here = service.places()
    file = own_state / "services.json"
    kept = {"lxd": str(here.lxd), "accounts_directory": str(here.accounts_directory)}
    file.write_text(json.dumps(kept))  # those whose place goes with the state
    try:
        if "containerd" in wanted:
            pods.first(here.containerd, own_state)
        yield
    finally:
        file.unlink()
        with of_the_machine():
            brought = _serving() - before
            if brought:
                service.down(brought)


@pytest.fixture(scope="session")
def services(serving: None) -> service.Places:
    """Say where the engines serve."""
    return service.places()


@contextmanager
def of_the_machine() -> Iterator[None]:
    """Speak of the machine's own instance in place of the tests' own state."""
    tests, owner = os.environ.pop("LABKIT_STATE"), ledger.owner()
    ledger.own("")
    try:
        yield
    finally:
        os.environ["LABKIT_STATE"] = tests
        ledger.own(owner)


def _serving() -> set[str]:
    return {one.name for one in service.status() if one.state != "down"}


def _needed(tests: list[pytest.Item]) -> set[str]:
    here = Path(__file__).parent
    names = " ".join(test.name for test in tests if test.path.parent.name in ROOMS and test.path.is_relative_to(here))
    modules = [import_module(f"labkit.course.lab_{lab.id.replace('.', '_')}") for lab in course_map.written() if lab.id in names]
    engines = ENGINES if any("services" in test.fixturenames for test in tests if isinstance(test, pytest.Function)) else ()
    return {*engines, *(one.name for one in service.SERVICES for module in modules if one.name in module.NEEDS)}
