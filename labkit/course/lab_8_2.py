"""Checkpoints of lab 8.2, networks of rkt: whom a port leads to, which bridge a pod is plugged into, and what a network lacks."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from labkit.appc.pod import PodError, State
from labkit.appc.pods import Pods
from labkit.course import reaching
from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import network
from labkit.kernel.network import NetworkNamespace
from labkit.kernel.state import LinkState, NetworkState
from labkit.runtimes import rkt_by_hand

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Networks of rkt"
AIMS = (
    "say what each of rkt's networks is to the kernel: none, host, default, default-restricted, and your own",
    "follow a packet from a port of this machine into a pod, rule by rule",
    "write a network of your own, and read from the kernel what the plugins made of it",
)
NEEDS = ("root", "namespaces", "ip", "ping", "registry", "rkt")
CLAIMS = (("link", "rktbr1"), ("link", "rktbr2"), ("link", "rktbr3"))

PORT, OWN_PORT = 8080, 8088
CONTAINERS, SHOP, BRANCH = "172.19.0.0/16", "10.22.0.0/24", "10.23.0.0/24"
GATEWAY = "10.22.0.1"
_NO_POD = Verdict(passed=False, measured="no pod runs in a network of its own", cause="rkt list shows no running pod with an address")


def served(lab: Lab) -> Verdict:
    """Measure that port 8080 of this machine leads to a pod by a rule of NAT, without anybody on the machine who listens there."""
    pods = _networks(lab)
    return reaching.leads(PORT, [address for pod in pods for link in pod.links for address in link.addresses], "a pod") if pods else _NO_POD


def bridged(lab: Lab) -> Verdict:
    """Measure that a pod has a cable into the bridge rktbr1, and at its own end an address of the network."""
    wrong = _plugged(lab, "rktbr1", CONTAINERS)
    return wrong if isinstance(wrong, Verdict) else Verdict(passed=True, measured=f"a pod is plugged into rktbr1, in {CONTAINERS}")


def mended(lab: Lab) -> Verdict:
    """Measure that a pod in the network shop gets an answer from its gateway, the bridge's own address."""
    found = _plugged(lab, "rktbr2", SHOP)
    if isinstance(found, Verdict):
        return found
    pod, _ = found
    answer = network.ping(GATEWAY, netns=NetworkNamespace.find(pod.name))
    if answer.received:
        return Verdict(passed=True, measured=f"{GATEWAY} answers a pod that is plugged into rktbr2")
    bridge = next(link for link in reaching.host().links if link.ifname == "rktbr2")
    lacks = not any(reaching.lies_in(address, SHOP) for address in bridge.addresses)
    cause = f"rktbr2 has no address of {SHOP}" if lacks else answer.cause
    return Verdict(passed=False, measured=f"{GATEWAY} does not answer the pod", cause=cause)


def alone(lab: Lab) -> Verdict:
    """Measure that a pod is plugged into rktbr3, and that port 8088 of this machine leads to it through that bridge."""
    found = _plugged(lab, "rktbr3", BRANCH)
    if isinstance(found, Verdict):
        return found
    _, link = found
    return reaching.leads(OWN_PORT, link.addresses, "a pod")


def _networks(lab: Lab) -> list[NetworkState]:
    """Return the network namespaces of the lab's pods that run, as they are now."""
    names = set()
    for pod in Pods(rkt_by_hand.data(lab.directory)).all():
        with suppress(PodError):  # it goes just now
            if pod.state is State.RUNNING:
                names.add(f"rkt-{pod.uuid}")
    return [state for state in network.states() if state.name in names]


def _plugged(lab: Lab, bridge: str, subnet: str) -> tuple[NetworkState, LinkState] | Verdict:
    """Return the pod and its link that has an address of a network and the other end in a bridge; else what is missing."""
    pods = _networks(lab)
    if not pods:
        return _NO_POD
    host = reaching.host()
    if bridge not in [link.ifname for link in host.links]:
        return Verdict(
            passed=False, measured=f"a pod runs, there is no bridge {bridge}", cause=f"no pod was attached to a network of {bridge}"
        )
    far = {link.peer for link in host.links if link.master == bridge}
    ends = [(pod, link) for pod in pods for link in pod.links if (pod.name, link.ifname) in far]
    if not ends:
        return Verdict(passed=False, measured=f"a pod runs, {bridge} is there", cause=f"no pod that runs has its cable in {bridge}")
    for pod, link in ends:
        if any(reaching.lies_in(address, subnet) for address in link.addresses):
            return pod, link
    return Verdict(passed=False, measured=f"a pod is plugged into {bridge}", cause=f"it has no address of {subnet}")


def _written(name: str, bridge: str, subnet: str, **more: object) -> str:
    """Return the lines that write a network of type bridge into net.d."""
    conf = {"name": name, "type": "bridge", "bridge": bridge, **more, "ipam": {"type": "host-local", "subnet": subnet}}
    return f"cat > $RKT_LOCAL_CONFIG/net.d/{name}.conf << 'END'\n{json.dumps(conf)}\nEND\n"


QUIET = " > /dev/null 2>&1"
SHELL, WEB = "quay.io/coreos/alpine-sh", "docker://nginx"
STOP = "rkt list --no-legend | awk '/running/ {print $1}' | xargs -r rkt stop --force" + QUIET + "\n"
STOP += until("! rkt list --no-legend | grep -q running")
RUN = f"rkt run --insecure-options=image {{}} {SHELL} --exec /bin/sleep -- 600{QUIET} &\n"
SERVE = f"rkt run --insecure-options=image {{}} {WEB}{QUIET} &\n"
ENDED = " || ! kill -0 $! 2> /dev/null"
UP = until(f"rkt list --no-legend | grep -q 'running.*ip4='{ENDED}")
CONNECTS = until(f"curl --silent --max-time 2 127.0.0.1:{{0}} > /dev/null{ENDED}")
ANSWERS = until(f"ip netns exec $(ip netns list | grep -o '^rkt-[^ ]*') ping -c 1 -W 1 {GATEWAY}{QUIET}{ENDED}")

NETWORK = _written("containers", "rktbr1", CONTAINERS)
BOX = STOP + RUN.format("--net=containers") + UP
SHOP_RUNS = STOP + RUN.format("--net=shop") + UP
GIVEN = _written("shop", "rktbr2", SHOP)
ANEW = STOP + "ip link delete rktbr2 2> /dev/null || true\n"
"""A bridge that has lost its last port has no MAC address any more, and the plugin of Debian 12 refuses it as a gateway."""
MEND = _written("shop", "rktbr2", SHOP, isGateway=True) + ANEW + SHOP_RUNS + ANSWERS
OWN = _written("branch", "rktbr3", BRANCH, isGateway=True, ipMasq=True)
OWN_PORT_OPEN = f"--port=80-tcp:{OWN_PORT}"

CHECKPOINTS = (
    Checkpoint(
        "served",
        task=f"port {PORT} of this machine leads to a pod, and nobody on this machine listens there",
        measure=served,
        hints=(
            "an image names its ports: rkt image cat-manifest registry-1.docker.io/library/nginx:latest",
            f"rkt run --port=80-tcp:{PORT} --insecure-options=image {WEB}",
        ),
        solution=STOP + SERVE.format(f"--port=80-tcp:{PORT}") + UP + CONNECTS.format(PORT),
        undo=STOP,
        near_misses={
            "another port": STOP + SERVE.format("--port=80-tcp:8081") + UP + CONNECTS.format(8081),
            "no port": STOP + SERVE.format("") + UP,
            "nobody serves in the pod": f"rkt run --insecure-options=image --port=80-tcp:{PORT} {WEB} --exec /bin/sleep -- 600{QUIET} &\n"
            + UP,
            "somebody outside serves": f"python3 -m http.server --bind 127.0.0.1 {PORT}{QUIET} &\n" + CONNECTS.format(PORT),
        },
    ),
    Checkpoint(
        "bridged",
        task=f"a pod has a cable into the bridge rktbr1, and an address of {CONTAINERS}",
        measure=bridged,
        hints=(
            "rkt reads the files of net.d in its local configuration, here $RKT_LOCAL_CONFIG/net.d; --net= takes the name that is in one",
            f"rkt run --net=containers {SHELL} --exec /bin/sleep -- 600",
        ),
        solution=NETWORK + BOX,
        undo=STOP,
        near_misses={
            "written, not asked for": NETWORK + STOP + RUN.format("") + UP,
            "another bridge": _written("containers", "rktbr2", CONTAINERS) + BOX,
            "another network": _written("containers", "rktbr1", "172.20.0.0/16") + BOX,
            "the pod has ended": NETWORK + BOX + STOP,
        },
    ),
    Checkpoint(
        "mended",
        task=f"a pod in the network shop gets an answer from {GATEWAY}, its gateway",
        measure=mended,
        hints=(
            "ip -brief addr show rktbr2 says whether the bridge has an address of its own",
            "the plugin bridge gives it one if it is to be a gateway, and does so when a pod is attached",
            'in $RKT_LOCAL_CONFIG/net.d/shop.conf "isGateway": true is missing; stop the pod, ip link delete rktbr2, and run one anew',
        ),
        given=GIVEN,
        solution=MEND,
        undo=STOP,
        near_misses={
            "run again": SHOP_RUNS,
            "mended, not run again": SHOP_RUNS + _written("shop", "rktbr2", SHOP, isGateway=True),
            "masquerading alone": _written("shop", "rktbr2", SHOP, ipMasq=False, hairpinMode=True) + SHOP_RUNS,
            "another bridge": _written("shop", "rktbr3", SHOP, isGateway=True) + SHOP_RUNS,
        },
    ),
    Checkpoint(
        "alone",
        task=f"nginx runs in a pod on the bridge rktbr3, in {BRANCH}, and port {OWN_PORT} of this machine leads to it there",
        measure=alone,
        hints=(
            "one file more in net.d, and one option more: a port leads in by the first network that masquerades",
            f'"bridge": "rktbr3", "isGateway": true, "ipMasq": true, and a subnet {BRANCH}',
            f"rkt run --net=branch {OWN_PORT_OPEN} --insecure-options=image {WEB}",
        ),
        solution=OWN + STOP + SERVE.format(f"--net=branch {OWN_PORT_OPEN}") + UP + CONNECTS.format(OWN_PORT),
        undo=STOP,
        near_misses={
            "without a port": OWN + STOP + SERVE.format("--net=branch") + UP,
            "by the default network": STOP + SERVE.format(OWN_PORT_OPEN) + UP + CONNECTS.format(OWN_PORT),
            "by another network of the pod": _written("branch", "rktbr3", BRANCH)
            + STOP
            + SERVE.format(f"--net=branch {OWN_PORT_OPEN}")
            + UP,
        },
    ),
)
