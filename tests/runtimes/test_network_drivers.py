"""Each driver of Docker's networks, by what the kernel has of it: a container's link, what that is joined to, and whom it reaches.

Prints the table. Where the kernel has no ipvlan, the container must not start, for the reason that the kernel gives.
"""

from collections.abc import Callable, Iterator

import pytest

from labkit.course import lab_8_4
from labkit.course.lab import Lab, open_lab
from labkit.errors import CommandError
from labkit.kernel import commands, network

Told = Callable[[str, str], None]
HEADER = f"{'driver':<8} {'link in the container':<22} {'joined to':<18} {'reaches its machine':<20} reaches another container"
OURS = "172.30.0.1"
"""An address of this machine's: of the bridge of the lab's daemon."""
PARENTS = {
    "bridge": "--opt com.docker.network.bridge.name=lab84 --subnet 172.31.84.0/24",
    "macvlan": f"--opt parent=lan0 --subnet {lab_8_4.LAN}",
    "ipvlan": f"--opt parent=lan2 --subnet {lab_8_4.APART}",
}
DRIVERS = (
    ("none", "lo", "nothing", OURS, (False, False)),
    ("host", "this machine's own", "nothing", OURS, (True, True)),
    ("bridge", "veth", "lab84", "172.31.84.1", (True, True)),
    ("macvlan", "macvlan mode bridge", "lan0", "10.84.0.254", (False, True)),
    ("ipvlan", "ipvlan mode l2", "lan2", "10.86.0.254", (False, True)),
    ("overlay", "veth", "br0 vxlan id 4097", "10.99.0.1", (True, True)),
)


@pytest.fixture(scope="module")
def lab(serving: None) -> Iterator[Lab]:
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


@pytest.mark.parametrize(("driver", "link", "joined", "machine", "reached"), DRIVERS, ids=[row[0] for row in DRIVERS])
def test_a_driver_makes_its_link_and_reaches_whom_it_should(
    lab: Lab, driver: str, link: str, joined: str, machine: str, reached: tuple[bool, bool], told: Told
):
    if driver == "ipvlan" and not kernel_has_ipvlan():
        with pytest.raises(CommandError, match="operation not supported"):
            pair(lab, driver)
        told(HEADER, f"{driver:<8} none: the kernel has no ipvlan, and docker says so: operation not supported")
        return
    one, other = pair(lab, driver)
    sandbox, theirs = lab.sandbox(one), lab.sandbox(other)
    found = [(f"{each.kind} {each.detail}".strip(), f"{each.joined} {'vxlan ' if each.vxlan else ''}{each.vxlan}".strip(), each) for each in sandbox.endpoints]
    link_found, joined_found = found[0][:2] if found else ("this machine's own" if sandbox.host else "lo", "nothing")
    address = theirs.endpoints[0].addresses[0].partition("/")[0] if theirs.endpoints else OURS
    measured = reaches(lab, one, machine), reaches(lab, one, address)
    words = ["yes" if each else "no" for each in measured]
    told(HEADER, f"{driver:<8} {link_found:<22} {joined_found:<18} {words[0]:<20} {words[1]}")
    assert (link_found, joined_found, measured) == (link, joined, reached)


def test_the_engines_are_gone_with_the_ledger_also_where_they_were_killed(): ...
