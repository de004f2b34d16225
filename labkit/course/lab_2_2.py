"""Checkpoints of lab 2.2, namespaces: each reads the kernel, never the student's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import namespaces, network
from labkit.kernel.network import NetworkNamespace
from labkit.kernel.state import LinkState, NetworkState

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Namespaces"
AIMS = (
    "name the eight kinds of namespace, and tell which ones two processes share",
    "join two network namespaces by a virtual cable, and send packets both ways",
    "give a process its own host name, process numbers, mounts and users",
)
NEEDS = ("root", "namespaces", "userns", "ip", "ping", "unshare", "nsenter")
CLAIMS = (
    ("netns", "namespace1"),
    ("netns", "namespace2"),
    ("netns", "red"),
    ("netns", "blue"),
    ("link", "veth1"),
    ("link", "veth2"),
    ("link", "br-lab"),
    ("link", "red-br"),
    ("link", "blue-br"),
)


def ping(_: Lab) -> Verdict:
    """Measure that each of the two network namespaces gets an answer from the other."""
    silent = _answers("namespace1", "192.168.1.2") or _answers("namespace2", "192.168.1.1")
    return silent or Verdict(passed=True, measured="both get an answer")


def rootish(lab: Lab) -> Verdict:
    """Measure that a process of the lab is root in a user namespace of its own, and nobody in particular outside."""
    host = namespaces.of("self")["user"]
    living = [one for one in namespaces.processes() if one.state not in "ZX" and f"/lab-{lab.id}" in str(one.cgroups)]
    remapped = [one for one in living if one.namespaces.get("user", host) != host]
    for process in remapped:
        for inside, outside, length in namespaces.uid_map(process.pid):
            if inside == 0 and outside > 0 and length > 0:
                return Verdict(passed=True, measured=f"0 inside is {outside} outside")
    cause = "its user 0 is not mapped to an ordinary one" if remapped else "no process of the lab has a user namespace of its own"
    return Verdict(passed=False, measured=f"{len(remapped)} in other user namespaces", cause=cause)


def bridge(_: Lab) -> Verdict:
    """Measure that red and blue reach each other through the bridge br-lab, and not by a cable of their own."""
    host = _network("host")
    ports = [link for link in host.links if link.master == "br-lab"]
    if "br-lab" not in {link.ifname for link in host.links}:
        return Verdict(passed=False, measured="no br-lab", cause="there is no bridge br-lab on the host")
    for name in ("red", "blue"):
        if name not in {state.name for state in network.states()}:
            return Verdict(passed=False, measured=f"no {name}", cause=f"there is no network namespace {name}")
        if not any(link.peer and link.peer[0] == name for link in ports):
            return Verdict(passed=False, measured=f"{len(ports)} ports", cause=f"no port of br-lab is the other end of a veth in {name}")
    if _direct_cable("red", "blue"):
        return Verdict(passed=False, measured="a direct cable", cause="a veth joins red and blue past the bridge")
    silent = _answers("red", "10.10.0.2") or _answers("blue", "10.10.0.1")
    return silent or Verdict(passed=True, measured="through br-lab, both get an answer")


def _answers(netns: str, address: str) -> Verdict | None:
    """Return None when `address` answers, else the verdict that says why not."""
    answer = network.ping(address, netns=NetworkNamespace.find(netns))
    if answer.received:
        return None
    return Verdict(passed=False, measured=f"{address} does not answer {netns}", cause=answer.cause)


def _network(name: str) -> NetworkState:
    return next((state for state in network.states() if state.name == name), NetworkState(name, 0))


def _direct_cable(one: str, other: str) -> bool:
    def joins(link: LinkState) -> bool:
        return link.peer is not None and link.peer[0] == other

    return any(joins(link) for link in _network(one).links)


CABLE = """ip netns add namespace1; ip netns add namespace2
ip link add veth1 type veth peer name veth2
ip link set veth1 netns namespace1; ip link set veth2 netns namespace2
ip -n namespace1 addr add 192.168.1.1/24 dev veth1; ip -n namespace2 addr add 192.168.1.2/24 dev veth2
"""
UP = "ip -n namespace1 link set veth1 up; ip -n namespace2 link set veth2 up"
ROOTISH = "unshare --user sleep 600 >/dev/null 2>&1 &\n" + until('[ "$(readlink /proc/$!/ns/user)" != "$(readlink /proc/$$/ns/user)" ]')
ROOMS = "ip netns add red; ip netns add blue\n"
SWITCH = "ip link add br-lab type bridge; ip link set br-lab up\n"
PLUG = """for room in red blue; do
  ip link add $room-br type veth peer name eth0 netns $room
  ip link set $room-br master br-lab; ip link set $room-br up
  ip -n $room link set eth0 up
done
"""
ADDRESSES = "ip -n red addr add 10.10.0.1/24 dev eth0; ip -n blue addr add 10.10.0.2/24 dev eth0"

CHECKPOINTS = (
    Checkpoint(
        id="ping",
        task="namespace1 and namespace2 get an answer from each other",
        measure=ping,
        hints=(
            "each end of the cable needs an address, and must be up",
            "addresses: 192.168.1.1/24 on veth1, 192.168.1.2/24 on veth2",
            "ip netns exec namespace1 ip link set dev veth1 up",
        ),
        solution=CABLE + UP,
        undo="ip -n namespace1 link set veth1 down",
        near_misses={
            "one end is down": CABLE + "ip -n namespace1 link set veth1 up",
            "two networks": CABLE.replace("192.168.1.2/24", "192.168.2.2/24") + UP,
            "no cable": "ip netns add namespace1; ip netns add namespace2",
        },
    ),
    Checkpoint(
        id="rootish",
        task="a process is user 0 in its own user namespace, and an ordinary user outside",
        measure=rootish,
        hints=("new user namespaces map nobody until uid_map is written", 'lab.spawn(..., new=["user"], uid_map=[(0, 100000, 65536)])'),
        solution=ROOTISH + "echo 0 100000 65536 > /proc/$!/uid_map\necho $! > $LAB/rootish",
        undo="kill -9 $(cat $LAB/rootish); tail --pid=$(cat $LAB/rootish) --follow /dev/null",
        near_misses={
            "a user namespace without a map": ROOTISH,
            "mapped to the real root": ROOTISH + "echo 0 0 1 > /proc/$!/uid_map",
            "an ordinary user, no namespace": "setpriv --reuid 100000 --clear-groups sleep 600 >/dev/null 2>&1 &",
        },
    ),
    Checkpoint(
        id="bridge",
        task="red (10.10.0.1) and blue (10.10.0.2) reach each other through the bridge br-lab",
        measure=bridge,
        hints=(
            "a bridge is a link of type bridge on the host; a port is a link whose master it is",
            "ip link add red-br type veth peer name eth0 netns red; ip link set red-br master br-lab",
            "every link must be up: br-lab, red-br, blue-br, and eth0 in each namespace",
        ),
        solution=ROOMS + SWITCH + PLUG + ADDRESSES,
        undo="ip link set br-lab down",
        near_misses={
            "the bridge is down": ROOMS + SWITCH.replace("; ip link set br-lab up", "") + PLUG + ADDRESSES,
            "a cable from room to room": ROOMS + SWITCH + "ip -n red link add eth0 type veth peer name eth0 netns blue\n"
            "ip -n red link set eth0 up; ip -n blue link set eth0 up\n" + ADDRESSES,
            "blue is not plugged in": ROOMS + SWITCH + PLUG + "ip link set blue-br nomaster\n" + ADDRESSES,
            "no addresses": ROOMS + SWITCH + PLUG,
        },
    ),
)
