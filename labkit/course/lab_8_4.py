"""Checkpoints of lab 8.4, the drivers of Docker's networks: what a container's endpoint is joined to, and whom it reaches by that."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.errors import LabError
from labkit.kernel import network
from labkit.kernel.network.endpoints import Endpoint

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "The drivers of Docker's networks"
AIMS = (
    "name the sandbox, the endpoint and the network of a container, and find each in the kernel",
    "say what each driver makes: none, host, bridge, macvlan, ipvlan, overlay",
    "join two engines by an overlay network, and read a container's packet inside the packet that carries it",
)
NEEDS = ("root", "namespaces", "ip", "ping", "dockerd", "registry")
CLAIMS = (
    ("docker engine", "east"),
    ("docker engine", "west"),
    ("netns", "lan"),
    ("link", "lan0"),
    ("link", "lan2"),
    ("link", "lab84"),
    ("link", "lab85"),
)

LAN, NEIGHBOUR = "10.84.0.0/24", "10.84.0.1"
APART, OTHER_NEIGHBOUR = "10.86.0.0/24", "10.86.0.1"
PAIR_NAMES = ("left", "right")
FAR = "10.0.9.0/24"
PORT = "4789"
"""Of VXLAN over UDP. See: RFC 7348"""


def own(lab: Lab) -> Verdict:
    """Measure that own is joined to the parent lan0 by a link of its own, with an address there, and that the neighbour answers."""
    found = _on(lab, "own", "lan0", LAN)
    if isinstance(found, Verdict):
        return found
    answer = network.ping(NEIGHBOUR, netns=lab.pid("own"))
    measured = f"own has a {found.kind} on lan0, in {LAN}"
    if answer.received:
        return Verdict(passed=True, measured=f"{measured}, and {NEIGHBOUR} answers it")
    return Verdict(passed=False, measured=f"{measured}, and {NEIGHBOUR} does not answer it", cause=_down("lan0", None) or answer.cause)


def far(lab: Lab) -> Verdict:
    """Measure that one on east and two on west are joined to bridges with a vxlan of one id, and that one reaches two."""
    found = _tunnel(lab)
    if isinstance(found, Verdict):
        return found
    one, two = found
    answer = network.ping(_address(two), netns=lab.pid("east/one"))
    measured = f"one and two are joined by the vxlan with {one.vxlan}"
    if answer.received:
        return Verdict(passed=True, measured=f"{measured}, and reach each other")
    return Verdict(passed=False, measured=f"{measured}, and do not reach each other", cause=_broken() or answer.cause)


def alone(lab: Lab) -> Verdict:
    """Measure that left and right are joined to lan2, that the neighbour there answers both, and that they do not reach each other."""
    pair = [_on(lab, name, "lan2", APART) for name in PAIR_NAMES]
    for found in pair:
        if isinstance(found, Verdict):
            return found
    pids = [lab.pid(name) for name in PAIR_NAMES]
    deaf = [name for name, pid in zip(PAIR_NAMES, pids, strict=True) if not network.ping(OTHER_NEIGHBOUR, netns=pid).received]
    if deaf:
        cause = _down("lan2", None) or f"{OTHER_NEIGHBOUR} does not answer {deaf[0]}"
        return Verdict(passed=False, measured="left and right are joined to lan2", cause=cause)
    right = next(_address(found) for found in pair[1:] if isinstance(found, Endpoint))
    answers = network.ping(right, netns=pids[0]).received > 0
    measured = f"{OTHER_NEIGHBOUR} answers left and right, and right {'answers' if answers else 'does not answer'} left"
    return Verdict(not answers, measured, "both are in the same network of the driver" if answers else None)


def _on(lab: Lab, container: str, parent: str, subnet: str) -> Endpoint | Verdict:
    """Return the endpoint of a container that is stacked on a parent here, with an address of a network; else what is missing."""
    try:
        sandbox = lab.sandbox(container)
    except LabError:
        return Verdict(passed=False, measured=f"{container} does not run", cause=f"no container here is called {container}")
    if sandbox.host:
        return Verdict(passed=False, measured=f"{container} runs", cause="its sandbox is this machine's own")
    stacked = [each for each in sandbox.endpoints if each.joined == parent and each.where == "host" and each.kind in ("macvlan", "ipvlan")]
    if not stacked:
        joined = ", ".join(each.joined or "nothing" for each in sandbox.endpoints) or "nothing"
        return Verdict(passed=False, measured=f"{container} is joined to {joined}", cause=f"none of its links has {parent} for its parent")
    inside = [each for each in stacked if any(_lies_in(address, subnet) for address in each.addresses)]
    if inside:
        return inside[0]
    return Verdict(passed=False, measured=f"{container} is joined to {parent}", cause=f"it has no address of {subnet}")


def _tunnel(lab: Lab) -> tuple[Endpoint, Endpoint] | Verdict:
    """Return the endpoints by which one and two are joined to a vxlan, of the same id; else what is missing."""
    ends = []
    for engine, name in (("east", "one"), ("west", "two")):
        try:
            endpoints = lab.endpoints(f"{engine}/{name}")
        except LabError as error:
            return Verdict(passed=False, measured=f"{name} does not run on {engine}", cause=str(error))
        tunnel = next((each for each in endpoints if each.vxlan), None)
        if tunnel is None:
            return Verdict(passed=False, measured=f"{name} runs on {engine}", cause=f"no bridge that {name} is joined to has a vxlan")
        ends.append(tunnel)
    one, two = ends
    if one.vxlan != two.vxlan:
        return Verdict(passed=False, measured="one and two run", cause=f"one is joined to the vxlan with {one.vxlan}, two to {two.vxlan}")
    return one, two


def _broken() -> str | None:
    """Return what is measured between the engines that keeps packets of VXLAN from coming through."""
    for engine in ("east", "west"):
        state = network.NetworkNamespace.find(engine).state()
        if why := _dropped(engine, state.rules):
            return why
        if why := _down("wire0", engine):
            return why
    return None


def _dropped(engine: str, rules: tuple[str, ...]) -> str | None:
    """Return that a chain at the hook input drops packets of VXLAN: by a rule, or since none accepts them and nothing else does."""
    named = [rule for rule in rules if f"udp dport {PORT}" in rule]
    if any(rule.endswith("drop") for rule in named):
        return f"a rule of nft in {engine} drops what comes in for UDP port {PORT}"
    strict = any("hook input" in rule and "policy drop" in rule for rule in rules)
    accepted = any(rule.endswith("accept") for rule in named)
    return f"nft in {engine} drops what no rule accepts, and none accepts UDP port {PORT}" if strict and not accepted else None


def _down(ifname: str, netns: str | None) -> str | None:
    where = f" in {netns}" if netns else ""
    return None if network.link(ifname, netns=netns).up else f"{ifname}{where} is down"


def _address(endpoint: Endpoint) -> str:
    return endpoint.addresses[0].partition("/")[0]


def _lies_in(address: str, subnet: str) -> bool:
    found = ipaddress.ip_interface(address).ip
    return found.version == 4 and found in ipaddress.ip_network(subnet)


QUIET = " > /dev/null 2>&1"
IMAGE = "docker image pull --quiet alpine > /dev/null\n"
GONE = f"docker container rm --force {{0}}{QUIET} || true\n"
RUN = "docker container run --detach --name {0} {1} alpine sleep 600 > /dev/null\n"

PARENT = """\
ip netns list | grep -qw lan || ip netns add lan
ip link show {0} > /dev/null 2>&1 || ip link add {0} type veth peer name {1} netns lan
ip -n lan addr replace {2} dev {1}; ip -n lan link set {1} up; ip link set {0} up
"""
LAN_PARENT = PARENT.format("lan0", "lan1", f"{NEIGHBOUR}/24")
APART_PARENT = PARENT.format("lan2", "lan3", f"{OTHER_NEIGHBOUR}/24")
CLEAR = GONE.format("own left right") + f"docker network prune --force{QUIET}\n"
"""A parent serves one network at a time."""
MACVLAN = "docker network create --driver macvlan --opt parent={0} {1} --subnet {2} {3} > /dev/null\n"
BRIDGE = "docker network create --opt com.docker.network.bridge.name=lab84 --subnet 172.31.84.0/24 net84 > /dev/null\n"
START = IMAGE + LAN_PARENT + CLEAR
OWN = RUN.format("own", "--network lan84")
OWN_NETWORK = MACVLAN.format("lan0", "", LAN, "lan84")
PRIVATE = MACVLAN.format("lan2", "--opt macvlan_mode=private", APART, "apart")
LEFT, RIGHT = (RUN.format(name, f"--network apart --ip 10.86.0.{number}") for number, name in enumerate(PAIR_NAMES, 11))

WIRE = """\
ip -n east link show wire0 > /dev/null 2>&1 || ip link add wire0 netns east type veth peer name wire0 netns west
ip -n east addr replace 10.99.0.1/24 dev wire0; ip -n east link set wire0 up
ip -n west addr replace 10.99.0.2/24 dev wire0; ip -n west link set wire0 up
"""
LOAD = """\
for engine in east west; do
  docker -c $engine image inspect alpine > /dev/null 2>&1 || docker image save alpine | docker -c $engine image load > /dev/null
done
"""
SWARM = """\
docker -c east node ls > /dev/null 2>&1 || docker -c east swarm init --advertise-addr 10.99.0.1 > /dev/null
docker -c west info 2> /dev/null | grep -q 'Swarm: active' ||
  docker -c west swarm join --token $(docker -c east swarm join-token --quiet worker) 10.99.0.1:2377 > /dev/null
"""
OVERLAY = "docker -c east network inspect {0} > /dev/null 2>&1 ||\n"
OVERLAY += "  docker -c east network create --driver overlay --attachable --subnet {1} {0} > /dev/null\n"
ENGINES = IMAGE + WIRE + LOAD + SWARM + OVERLAY.format("far", FAR)
NONE = f"docker -c east container rm --force one two{QUIET} || true\ndocker -c west container rm --force two{QUIET} || true\n"
ON = "docker -c {0} container run --detach --name {1} {2} alpine sleep 600 > /dev/null\n"
ONE, TWO = ON.format("east", "one", "--network far"), ON.format("west", "two", "--network far")
HOST = "--network host"
KEPT = '[ -n "$(docker -c {0} container ls --quiet --filter name={1} --filter network=far)" ] ||\n  '
CONNECTS = until(f"docker -c east container exec one ping -c 1 -W 1 two{QUIET}")
UNGUARDED = "ip netns exec west nft delete table inet guard 2> /dev/null || true\n"
PAIR = ENGINES + NONE + ONE + TWO + CONNECTS
PAIR_KEPT = UNGUARDED + ENGINES + KEPT.format("east", "one") + ONE + KEPT.format("west", "two") + TWO + CONNECTS
GUARD = """\
# what the swarm needs comes in to this machine, and nothing else
table inet guard {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established accept
    icmp type echo-request accept
    tcp dport { 2377, 7946 } accept
    udp dport 7946 accept
  }
}
"""
GUARDED = "ip netns exec west nft -f guard/guard.nft\n"
ALSO = "ip netns exec west nft add rule inet guard input {} accept\n"

EXAMPLES = {"guard": {"guard/guard.nft": GUARD}, "pair": {"pair/pair.sh": PAIR_KEPT}}

CHECKPOINTS = (
    Checkpoint(
        "own",
        task=f"the container own has an address of {LAN} on a link of its own with the parent lan0, and {NEIGHBOUR} in lan answers it",
        measure=own,
        hints=(
            "docker network create takes a driver, and options of the driver",
            f"docker network create --driver macvlan --opt parent=lan0 --subnet {LAN} lan84",
            "docker container run --detach --name own --network lan84 alpine sleep 600",
        ),
        solution=START + OWN_NETWORK + OWN,
        undo=GONE.format("own"),
        near_misses={
            "on a bridge": START + BRIDGE + RUN.format("own", "--network net84"),
            "in the machine's sandbox": START + RUN.format("own", "--network host"),
            "another subnet": START + MACVLAN.format("lan0", "", "10.87.0.0/24", "lan84") + OWN,
            "the parent is down": START + OWN_NETWORK + OWN + "ip link set lan0 down\n",
        },
    ),
    Checkpoint(
        "far",
        task="one, on the engine east, and two, on the engine west, reach each other through a vxlan",
        measure=far,
        hints=(
            "the engines need a link between them, and a swarm: docker swarm init on one, docker swarm join on the other",
            "docker -c east network create --driver overlay --attachable far",
            "docker -c east container run --detach --name one --network far alpine sleep 600; two alike, on west",
        ),
        solution=PAIR,
        undo=NONE,
        near_misses={
            "both on one engine": ENGINES + NONE + ONE + ON.format("east", "two", "--network far"),
            "by the engines' own link": ENGINES + NONE + ON.format("east", "one", HOST) + ON.format("west", "two", HOST),
            "two networks": ENGINES + NONE + OVERLAY.format("near", "10.0.10.0/24") + ONE + ON.format("west", "two", "--network near"),
        },
    ),
    Checkpoint(
        "mended",
        task="one and two reach each other again",
        measure=far,
        hints=(
            "do the engines reach each other? ip netns exec east ping -c 1 10.99.0.2",
            "the swarm speaks TCP, the containers' packets travel in UDP: what does west do with port 4789?",
            "ip netns exec west nft add rule inet guard input udp dport 4789 accept",
        ),
        given=f"{PAIR_KEPT}mkdir -p guard; cat > guard/guard.nft << 'END'\n{GUARD}END\n{GUARDED}",
        solution=ALSO.format("udp dport 4789") + CONNECTS,
        undo=UNGUARDED + GUARDED,
        near_misses={
            "the port of TCP": ALSO.format("tcp dport 4789"),
            "the port that VXLAN had before": ALSO.format("udp dport 8472"),
            "the rules of the other engine": "ip netns exec east nft flush ruleset\n",
            "the link down and up": "ip -n west link set wire0 down; ip -n west link set wire0 up\n",
        },
    ),
    Checkpoint(
        "alone",
        task=f"left and right have addresses of {APART} on lan2; {OTHER_NEIGHBOUR} answers both, and neither reaches the other",
        measure=alone,
        hints=(
            "ip-link(8), macvlan: what else is there than mode bridge?",
            "--opt macvlan_mode=",
            f"docker network create --driver macvlan --opt parent=lan2 --opt macvlan_mode=private --subnet {APART} apart",
        ),
        given=IMAGE + APART_PARENT,
        solution=CLEAR + PRIVATE + LEFT + RIGHT,
        undo=GONE.format("left right"),
        near_misses={
            "mode bridge": CLEAR + MACVLAN.format("lan2", "", APART, "apart") + LEFT + RIGHT,
            "on a bridge": CLEAR + BRIDGE + RUN.format("left", "--network net84") + RUN.format("right", "--network net84"),
            "one only": CLEAR + PRIVATE + LEFT,
        },
    ),
)
