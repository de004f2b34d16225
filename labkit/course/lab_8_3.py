"""Checkpoints of lab 8.3: the network of Docker by hand, and what breaks it. Each is measured by a packet that is followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel.network import NetworkNamespace
from labkit.kernel.network.follow import follow

if TYPE_CHECKING:
    from labkit.course.lab import Lab
    from labkit.kernel.network.path import PacketPath

TITLE = "Docker's network by hand, and what breaks it"
AIMS = (
    "build what Docker builds: a bridge, a cable for each container, a way out, a published port",
    "follow a packet from link to link, and say at each what its addresses are",
    "name the place at which a packet stops, and the cause, and mend it",
)
MACHINE, OUTSIDE, BOX, THIEF = "machine", "outside", "box", "thief"
NEEDS = ("root", "namespaces", "ip", "nft", "ping", "dockerd", "registry")
CLAIMS = (("docker netns", "server"), *(("netns", name) for name in (MACHINE, OUTSIDE, BOX, THIEF)))

HOST, AWAY, INSIDE, PORT = "10.155.0.2", "10.155.0.1", "172.17.0.2", 8080


def out(_: Lab) -> Verdict:
    """Measure that box gets an answer from outside, and that the packet came there with the machine's address."""
    return _out(_follow(AWAY, BOX))


def published(_: Lab) -> Verdict:
    """Measure that a connection from outside to the machine's port 8080 came to box, and was answered."""
    return _published(_follow(f"{HOST}:{PORT}", OUTSIDE))


def whole(_: Lab) -> Verdict:
    """Measure both: the way out, and the published port."""
    ways = [_out(_follow(AWAY, BOX)), _published(_follow(f"{HOST}:{PORT}", OUTSIDE))]
    wrong = next((verdict for verdict in ways if not verdict.passed), None)
    return wrong or Verdict(passed=True, measured=f"box gets out as {HOST}, and port {PORT} leads to box; large packets pass, too")


def _follow(destination: str, source: str) -> PacketPath:
    return follow(destination, NetworkNamespace.find(source))


def _out(path: PacketPath) -> Verdict:
    if not path:
        return Verdict(passed=False, measured=f"box to {AWAY}: {path.verdict}", cause=path.cause or None)
    source = path.request[-1].source
    if source != HOST:
        return Verdict(passed=False, measured=f"{AWAY} answers box", cause=f"it got the packet from {source}, not from {HOST}")
    return Verdict(passed=True, measured=f"{AWAY} answers box, and got the packet from {HOST}")


def _published(path: PacketPath) -> Verdict:
    if not path:
        return Verdict(passed=False, measured=f"outside to {HOST}:{PORT}: {path.verdict}", cause=path.cause or None)
    last = path.request[-1]
    if (last.netns, last.destination) != (BOX, f"{INSIDE}:80"):
        return Verdict(passed=False, measured=f"{HOST}:{PORT} is answered", cause=f"by {last.destination} in {last.title}, not by box")
    return Verdict(passed=True, measured=f"{HOST}:{PORT} leads to {last.destination} in box, and is answered")


QUIET = " > /dev/null 2>&1"
_NO = QUIET + " || true\n"


def _once(there: str, make: str) -> str:
    return f"{there}{QUIET} || {make}\n"


def _netns(name: str) -> str:
    return _once(f"ip -n {name} link", f"ip netns add {name}")


BUILT = (
    "".join(_netns(name) for name in (MACHINE, OUTSIDE, BOX))
    + _once("ip -n machine link show eth0", "ip -n outside link add eth0 type veth peer name eth0 netns machine")
    + _once("ip -n machine link show br0", "ip -n machine link add br0 type bridge")
    + _once("ip -n machine link show vethbox", "ip -n box link add eth0 type veth peer name vethbox netns machine")
    + """\
ip -n outside addr replace 10.155.0.1/24 dev eth0
ip -n machine addr replace 10.155.0.2/24 dev eth0
ip -n machine link set br0 address 02:00:ac:11:00:01
ip -n machine addr replace 172.17.0.1/16 dev br0
ip -n box addr replace 172.17.0.2/16 dev eth0
ip -n machine link set vethbox mtu 1500 master br0
ip netns exec box sysctl -qw net.ipv6.conf.all.disable_ipv6=1
for one in 'outside eth0' 'machine eth0' 'machine vethbox' 'machine br0' 'box eth0' 'box lo'; do ip -n ${one% *} link set ${one#* } up; done
ip -n box route replace default via 172.17.0.1
ip netns delete thief > /dev/null 2>&1 || true
ip -n machine neigh flush dev br0
ip -n box neigh flush dev eth0
ip netns exec machine nft delete table ip lab > /dev/null 2>&1 || true
ip netns exec machine sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0
"""
)
"""The cables, the bridge and the addresses: whether they are there or not, afterwards they are as new."""

FORWARD = "ip netns exec machine sysctl -qw net.ipv4.ip_forward=1\n"
TABLE = "ip netns exec machine nft add table ip lab\n"
_CHAIN = "ip netns exec machine nft add chain ip lab {0} '{{ type {1} hook {0} priority {2}; }}'\n"
_RULE = "ip netns exec machine nft add rule ip lab {} {}\n"
POSTROUTING, PREROUTING = (
    TABLE + _CHAIN.format("postrouting", "nat", "100"), TABLE + _CHAIN.format("prerouting", "nat", "-100"))  # fmt: skip
MASQUERADE = _RULE.format("postrouting", "'oifname != \"br0\" ip saddr 172.17.0.0/16 masquerade'")
DNAT = _RULE.format("prerouting", "'iifname != \"br0\" tcp dport {} dnat to {}'")
WAY_OUT = FORWARD + POSTROUTING + MASQUERADE
SERVE = f"nsenter --net=/run/netns/box python3 -m http.server 80{QUIET} &\n" + until("ip netns exec box ss -ltnH | grep -q ':80 '")
PUBLISH = PREROUTING + DNAT.format(PORT, f"{INSIDE}:80")
EVERYTHING = BUILT + WAY_OUT + SERVE + PUBLISH

FILTERED = (
    TABLE + _CHAIN.format("forward", "filter", "0") + _RULE.format("forward", "tcp dport 80 counter drop")
)  # fmt: skip
UNFILTER = "ip netns exec machine nft delete chain ip lab forward" + _NO
THREE = FILTERED + "ip netns exec machine sysctl -qw net.ipv4.ip_forward=0\nip -n machine link set br0 down\n"
BRIDGE_UP = "ip -n machine link set br0 up\n"

STOLEN = (
    _netns(THIEF)
    + _once("ip -n machine link show veththief", "ip -n thief link add eth0 type veth peer name veththief netns machine")
    + """\
ip -n machine link set veththief master br0 up
ip -n thief link set eth0 up
ip -n thief addr replace 172.17.0.2/16 dev eth0
"""
)
SMALL = "ip -n machine link set vethbox mtu 1400\n"
LARGE = "ip -n machine link set vethbox mtu 1500\n"
UNMASKED = "ip netns exec machine nft flush chain ip lab postrouting\n"
CAUGHT = "ip netns delete thief" + _NO
FORGET = "ip -n machine neigh flush dev br0\n"

CHECKPOINTS = (
    Checkpoint(
        "out",
        task=f"box gets an answer from {AWAY}, which sees the packet come from {HOST}, the machine",
        measure=out,
        hints=(
            'lab.follow("10.155.0.1", "box") names what is missing; there are two things, one behind the other',
            "sysctl net.ipv4.ip_forward in the machine; then a chain of type nat with hook postrouting, and in it masquerade",
            "ip netns exec machine nft add rule ip lab postrouting 'oifname != \"br0\" ip saddr 172.17.0.0/16 masquerade'",
        ),
        given=BUILT,
        solution=WAY_OUT,
        undo="ip netns exec machine nft delete table ip lab\n",
        near_misses={
            "forwarding alone": FORWARD,
            "masquerading alone": POSTROUTING + MASQUERADE,
            "of another network": FORWARD + POSTROUTING + MASQUERADE.replace("172.17.", "172.18."),
            "a route back instead": FORWARD + f"ip -n outside route add 172.17.0.0/16 via {HOST}\n",
        },
    ),
    Checkpoint(
        "published",
        task=f"a connection from outside to port {PORT} of the machine comes to port 80 of box, and is answered",
        measure=published,
        hints=(
            "a chain of type nat with hook prerouting changes the destination before the machine asks for a route",
            f"ip netns exec machine nft add rule ip lab prerouting 'tcp dport {PORT} dnat to {INSIDE}:80'",
        ),
        given=BUILT + WAY_OUT + SERVE,
        solution=PUBLISH,
        undo="ip netns exec machine nft delete table ip lab\n",
        near_misses={
            "another port": PREROUTING + DNAT.format(8081, f"{INSIDE}:80"),
            "to a port where nobody listens": PREROUTING + DNAT.format(PORT, f"{INSIDE}:8080"),
            "to an address that nobody has": PREROUTING + DNAT.format(PORT, "172.17.0.3:80"),
            "somebody on the machine serves": f"ip netns exec machine python3 -m http.server {PORT}{QUIET} &\n"
            + until(f"ip netns exec machine ss -ltnH | grep -q ':{PORT} '"),
        },
    ),
    Checkpoint(
        "mended",
        task="box gets out again, and its port is answered again: three things were broken, one behind the other",
        measure=whole,
        hints=(
            f'lab.follow("{HOST}:{PORT}", "outside") names the first; mend it, and follow again',
            "a link is set up by ip -n machine link set NAME up, forwarding is a sysctl, a rule is deleted with its chain",
            "ip netns exec machine nft delete chain ip lab forward",
        ),
        given=EVERYTHING + THREE,
        solution=BRIDGE_UP + FORWARD + UNFILTER,
        undo=THREE,
        near_misses={
            "the bridge alone": BRIDGE_UP,
            "the bridge and forwarding": BRIDGE_UP + FORWARD,
            "all rules away": BRIDGE_UP + FORWARD + "ip netns exec machine nft flush ruleset\n",
        },
    ),
    Checkpoint(
        "alone",
        task="box gets out as the machine again, its port leads to box alone, and large packets pass: three things were broken",
        measure=whole,
        hints=(
            f'follow both ways: lab.follow("{AWAY}", "box") and lab.follow("{HOST}:{PORT}", "outside")',
            "somebody has taken the address of box; one link's mtu is smaller than the others'; and a chain of nat is empty",
            "ip netns delete thief; ip -n machine neigh flush dev br0; ip -n machine link set vethbox mtu 1500; and the rule of section 2",
        ),
        given=EVERYTHING + STOLEN + SMALL + UNMASKED,
        solution=CAUGHT + LARGE + MASQUERADE + FORGET,
        undo=STOLEN,
        near_misses={
            "masquerading alone": MASQUERADE,
            "the thief is there still": LARGE + MASQUERADE,
            "the mtu is small still": CAUGHT + FORGET + MASQUERADE,
            "a small mtu at one end alone": CAUGHT + FORGET + MASQUERADE + "ip -n box link set eth0 mtu 9000\n",
        },
    ),
)
