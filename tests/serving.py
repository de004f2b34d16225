"""The fixture that brings up the services of the labs that are tested, in the tests' own instance."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pods
import pytest

from labkit.course import course_map
from labkit.host import services


@pytest.fixture(scope="session", autouse=True)
def serving(request: pytest.FixtureRequest, own_state: Path) -> Iterator[None]:
    """Bring up what those labs need, before the first test looks at the machine, and take it down after the last.

    A lab would bring it up when it opens, and leave it: the services are the machine's.
    """
    wanted = _needed(" ".join(item.nodeid for item in request.session.items))
    if wanted:
        services.up(wanted)
        if "containerd" in wanted:
            pods.first(services.places().containerd, own_state)
    yield
    if wanted:
        services.down(wanted)


def _needed(tests: str) -> set[str]:
    modules = [import_module(f"labkit.course.lab_{lab.id.replace('.', '_')}") for lab in course_map.written() if lab.id in tests]
    return {service.name for service in services.SERVICES for module in modules if service.name in module.NEEDS}
