"""Each driver of Docker's networks, by what the kernel has of it: a container's link, what that is joined to, and whom it reaches.

Prints the table. Where the kernel has no ipvlan, the container must not start, for the reason that the kernel gives.
"""

from collections.abc import Callable, Iterator

import pytest

from labkit.course import lab_8_4
from labkit.course.lab import Lab, open_lab
from labkit.errors import CommandError
from labkit.kernel import commands, network
from labkit.kernel.network.endpoints import Sandbox

Told = Callable[[str, str], None]
Row = tuple[str, str, bool, bool]
HEADER = f"{'driver':<8} {'link in the container':<22} {'joined to':<18} {'reaches its machine':<20} reaches another container"
OURS = "172.30.0.1"
"""An address of this machine's: of the bridge of the lab's daemon."""
PARENTS = {
    "bridge": "--opt com.docker.network.bridge.name=lab84 --subnet 172.31.84.0/24",
    "macvlan": f"--opt parent=lan0 --subnet {lab_8_4.LAN}",
    "ipvlan": f"--opt parent=lan2 --subnet {lab_8_4.APART}",
}
MACHINES = {
    "none": OURS,
    "host": OURS,
    "bridge": "172.31.84.1",
    "macvlan": "10.84.0.254",
    "ipvlan": "10.86.0.254",
    "overlay": "10.99.0.1",
}
"""Of the machine that the container runs on: the address nearest to it."""
EXPECTED: dict[str, Row] = {
    "none": ("lo", "nothing", False, False),
    "host": ("this machine's own", "nothing", True, True),
    "bridge": ("veth", "lab84", True, True),
    "macvlan": ("macvlan mode bridge", "lan0", False, True),
    "ipvlan": ("ipvlan mode l2", "lan2", False, True),
    "overlay": ("veth", "br0 vxlan id 4097", True, True),
}


@pytest.fixture
def lab(services: object) -> Iterator[Lab]:
    with open_lab("8.4") as one:
        one.run(lab_8_4.START + lab_8_4.APART_PARENT)
        one.run("ip addr replace 10.84.0.254/24 dev lan0; ip addr replace 10.86.0.254/24 dev lan2")
        yield one


def pair(lab: Lab, driver: str) -> tuple[str, str]:
    """Run two containers of a driver, and return how the lab calls them."""
    if driver == "overlay":
        lab.run(lab_8_4.PAIR)
        return "east/one", "west/two"
    called = driver
    if driver in PARENTS:
        called = f"of-{driver}"
        lab.run(f"docker network create --driver {driver} {PARENTS[driver]} {called} > /dev/null")
    for number in (1, 2):
        lab.run(lab_8_4.RUN.format(f"{driver}-{number}", f"--network {called}"))
    return f"{driver}-1", f"{driver}-2"


def kernel_has_ipvlan() -> bool:
    made = commands.run(["ip", "link", "add", "link", "lan2", "name", "trial", "type", "ipvlan"], check=False)
    return made.status == 0 and commands.run(["ip", "link", "delete", "trial"]).status == 0


def reaches(lab: Lab, container: str, address: str) -> bool:
    return network.ping(address, netns=lab.pid(container)).received > 0


def link_of(sandbox: Sandbox) -> tuple[str, str]:
    """Return what a container's first link is, and what it is joined to."""
    if not sandbox.endpoints:
        return "this machine's own" if sandbox.host else "lo", "nothing"
    first = sandbox.endpoints[0]
    return f"{first.kind} {first.detail}".strip(), " ".join(filter(None, (first.joined, first.vxlan and f"vxlan {first.vxlan}")))


def measure(lab: Lab, driver: str, machine: str) -> Row:
    """Return what a container of a driver is joined to, and whether it reaches the machine and another container."""
    one, other = pair(lab, driver)
    theirs = lab.endpoints(other)
    address = theirs[0].addresses[0].partition("/")[0] if theirs else OURS
    return *link_of(lab.sandbox(one)), reaches(lab, one, machine), reaches(lab, one, address)


def test_each_driver_makes_its_link_and_its_containers_reach_whom_they_should(lab: Lab, told: Told):
    measured: dict[str, Row] = {}
    for driver, machine in MACHINES.items():
        if driver == "ipvlan" and not kernel_has_ipvlan():
            with pytest.raises(CommandError, match="operation not supported"):
                pair(lab, driver)
            told(HEADER, f"{driver:<8} none: this kernel has no ipvlan, and says so: operation not supported")
            continue
        measured[driver] = link, joined, *reached = measure(lab, driver, machine)
        told(HEADER, f"{driver:<8} {link:<22} {joined:<18} {'yes' if reached[0] else 'no':<20} {'yes' if reached[1] else 'no'}")
    assert measured == {driver: row for driver, row in EXPECTED.items() if driver in measured}
    assert EXPECTED.keys() - measured.keys() <= {"ipvlan"}
