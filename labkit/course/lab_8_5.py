"""Checkpoints of lab 8.5, CNI: whom a configuration has attached, whom a port leads to, what a chain lacks, and who is held to a rate."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from labkit.cni import PLUGINS, ConfigurationError, Network, versions
from labkit.course import cni_files, reaching
from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import network
from labkit.kernel.network import NetworkNamespace

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "CNI: a network by a configuration and a program"
AIMS = (
    "call a plugin as an engine does: a configuration on its standard input, the operation in its environment",
    "say of each plugin of Debian what it changes in the kernel, and read it there",
    "chain plugins, so that one gets the result of the other, and mend a chain that is refused",
)
NEEDS = ("root", "namespaces", "ip", "ping", "nft", "cni")
_NETNS, _BRIDGES = ("blue", "green", "red", "gold", "lan"), ("raw0", "shop0", "own0", "depot0", "pair0")
CLAIMS = (
    *(("netns", name) for name in _NETNS),
    *(("link", name) for name in (*_BRIDGES, "wire0", "card0", "lan0")),
    ("cni", "raw"),
)

FIRST, LAST, OWN = "10.62.0.100", "10.62.0.110", "10.62.0.0/24"
PORT = 8085
DEPOT, DEPOT_GATEWAY = "10.63.0.0/24", "10.63.0.1"
PAIR, RATE = "10.65.0.0/24", 4_000_000


def attached(lab: Lab) -> Verdict:  # noqa: ARG001 - by the kernel alone
    """Measure that green has a cable into the bridge own0, and at its own end an address of the range."""
    found = reaching.plugged("green", "own0", OWN)
    if isinstance(found, Verdict):
        return found
    given = [ipaddress.ip_interface(address).ip for address in found.addresses if reaching.lies_in(address, OWN)]
    if not any(ipaddress.ip_address(FIRST) <= address <= ipaddress.ip_address(LAST) for address in given):  # type: ignore[operator]
        return Verdict(passed=False, measured="green is plugged into own0", cause=f"its address is not between {FIRST} and {LAST}")
    return Verdict(passed=True, measured=f"green is plugged into own0, by an address between {FIRST} and {LAST}")


def served(lab: Lab) -> Verdict:  # noqa: ARG001 - by the kernel alone
    """Measure that a port of this machine leads to green by a rule of NAT, and is answered."""
    links = reaching.links("green")
    return reaching.leads(PORT, [address for link in links for address in link.addresses], "green")


def mended(lab: Lab) -> Verdict:
    """Measure that the bridge depot0 answers green, which is plugged into it; else what the configuration is refused for."""
    found = reaching.plugged("green", "depot0", DEPOT)
    if isinstance(found, Verdict):
        return Verdict(passed=False, measured=found.measured, cause=_refused(lab) or found.cause)
    answer = network.ping(DEPOT_GATEWAY, netns=NetworkNamespace.find("green"))
    if not answer.received:
        return Verdict(passed=False, measured=f"{DEPOT_GATEWAY} does not answer green", cause=answer.cause)
    return Verdict(passed=True, measured=f"{DEPOT_GATEWAY} answers green, which is plugged into depot0")


def alone(lab: Lab) -> Verdict:  # noqa: ARG001 - by the kernel alone
    """Measure that red and gold are in one bridge and reach each other, and that what goes to gold alone is held to the rate."""
    found = {name: reaching.plugged(name, "pair0", PAIR) for name in ("red", "gold")}
    for one in found.values():
        if isinstance(one, Verdict):
            return one
    host = {(link.peer or ("", ""))[0]: link for link in reaching.host().links if link.master == "pair0"}
    rates = {name: host[name].rate * 8 for name in found}
    said = ", ".join(f"{name} {_rate(rate)}" for name, rate in rates.items())
    if rates != {"red": 0, "gold": RATE}:
        return Verdict(passed=False, measured=f"what goes to them: {said}", cause=f"asked for: red unlimited, gold {_rate(RATE)}")
    (address,) = (one for link in reaching.links("gold") for one in link.addresses if reaching.lies_in(one, PAIR))
    answer = network.ping(address.partition("/")[0], netns=NetworkNamespace.find("red"))
    if not answer.received:
        return Verdict(passed=False, measured=f"gold does not answer red; {said}", cause=answer.cause)
    return Verdict(passed=True, measured=f"red and gold reach each other by pair0; {said}")


def _rate(bits: int) -> str:
    return f"{bits / 1e6:g} Mbit/s" if bits else "unlimited"


def _refused(lab: Lab) -> str | None:
    """Return why the chain depot cannot be called, as far as that can be read from its file."""
    try:
        wanted = Network.load(lab.path("depot.conflist"))
    except ConfigurationError as error:
        return str(error)
    kinds = [str(part["type"]) for one in wanted.plugins for part in (one, one.get("ipam") or one)]
    missing = [kind for kind in kinds if not any((place / kind).is_file() for place in PLUGINS)]
    if missing:
        return f"{missing[0]} is no program in {PLUGINS[0]}"
    if not versions.has_chains(wanted.cni_version):
        return f"in version {wanted.cni_version} no plugin gets the result of the one before it"
    return None


EXAMPLES = cni_files.EXAMPLES
QUIET = " > /dev/null"
GREEN = "ip netns add green 2> /dev/null || true\n"


def _written(file: str, text: str) -> str:
    return f"cat > {file} << 'END'\n{text}END\n"


def _attach(file: str, container: str = "green", more: str = "") -> str:
    return f"labkit cni 8.5 ADD {file} {container}{more}{QUIET}\n"


def _gone(*names: str) -> str:
    return "".join(f"ip netns delete {name} 2> /dev/null || true\n" for name in names)


_RANGE = {"rangeStart": FIRST, "rangeEnd": LAST}


def _own(bridge: str = "own0", **ipam: object) -> str:
    return _written("own.conf", cni_files.one("own", type="bridge", bridge=bridge, ipam=cni_files.local(OWN, **ipam)))


def _mapped(port: int) -> str:
    return f""" --capabilities '{{"portMappings": [{{"hostPort": {port}, "containerPort": 80, "protocol": "tcp"}}]}}'"""


def _open(declared: bool = True) -> str:
    portmap = cni_files.PORTMAP if declared else {"type": "portmap"}
    return _written("open.conflist", cni_files.chain("open", cni_files.bridge("shop0", cni_files.SHOP), portmap))


SERVE = "ip netns exec green busybox httpd -f -p 80 > /dev/null 2>&1 &\n" + until("ip netns exec green ss -Htln 'sport = :80' | grep -q .")
LOOP = "ip -n green link set lo up\n"
UNSERVE = "ip netns pids green 2> /dev/null | xargs -r kill\n" + until('[ -z "$(ip netns pids green 2> /dev/null)" ]')


def _depot(version: str = "1.0.0", kind: str = "bridge") -> str:
    bridge = {**cni_files.bridge("depot0", DEPOT), "type": kind}
    return _written("depot.conflist", cni_files.chain("depot", bridge, {"type": "firewall"}, version=version))


def _pair(file: str, rate: int, bridge: str = "pair0") -> str:
    limit = [{"type": "bandwidth", "ingressRate": rate, "ingressBurst": 80_000}] if rate else []
    return _written(f"{file}.conflist", cni_files.chain("pair", cni_files.bridge(bridge, PAIR), {"type": "firewall"}, *limit))


def _two(red: str, gold: str) -> str:
    names = "ip netns add red 2> /dev/null || true\nip netns add gold 2> /dev/null || true\n"
    return names + red + gold + _attach("pair.conflist", "red") + _attach("limited.conflist", "gold")


CHECKPOINTS = (
    Checkpoint(
        "attached",
        task=f"the namespace green has a cable into the bridge own0, and an address between {FIRST} and {LAST}",
        measure=attached,
        hints=(
            "a configuration of type bridge, with the name of the bridge, and host-local for the addresses",
            f'host-local takes "subnet": "{OWN}", and beside it where the range of addresses begins and ends',
            f'"rangeStart": "{FIRST}", "rangeEnd": "{LAST}"; then lab.cni("ADD", "own.conf", "green")',
        ),
        given=GREEN,
        solution=_own(**_RANGE) + _attach("own.conf"),
        undo="labkit cni 8.5 DEL own.conf green > /dev/null\n",
        near_misses={
            "the whole network": _own() + _attach("own.conf"),
            "another bridge": _own("shop0", **_RANGE) + _attach("own.conf"),
            "another namespace": "ip netns add blue 2> /dev/null || true\n" + _own(**_RANGE) + _attach("own.conf", "blue"),
            "added and deleted": _own(**_RANGE) + _attach("own.conf") + "labkit cni 8.5 DEL own.conf green > /dev/null\n",
        },
    ),
    Checkpoint(
        "served",
        task=f"port {PORT} of this machine leads to the web server in the namespace green, by a rule of NAT",
        measure=served,
        hints=(
            "portmap stands after bridge in a chain; the ports are no part of the file, the caller hands them over",
            'a plugin gets only what it declares: "capabilities": {"portMappings": true}',
            f'capabilities={{"portMappings": [{{"hostPort": {PORT}, "containerPort": 80, "protocol": "tcp"}}]}}',
        ),
        given=GREEN + LOOP + UNSERVE + SERVE,
        solution=_open() + _attach("open.conflist", more=_mapped(PORT)),
        undo="labkit cni 8.5 DEL open.conflist green > /dev/null\n",
        near_misses={
            "another port": _open() + _attach("open.conflist", more=_mapped(8086)),
            "not declared": _open(declared=False) + _attach("open.conflist", more=_mapped(PORT)),
            "no port handed over": _open() + _attach("open.conflist"),
            "nobody serves": _open() + _attach("open.conflist", more=_mapped(PORT)) + UNSERVE,
        },
    ),
    Checkpoint(
        "mended",
        task=f"the bridge depot0 answers the namespace green at {DEPOT_GATEWAY}, by the mended chain depot.conflist",
        measure=mended,
        hints=(
            'lab.cni("ADD", "depot.conflist", "green") says which plugin is not there: a type is the name of a program',
            "then one plugin says that a result is missing: from which version on does it get that of the one before it?",
            '"type": "bridge", and "cniVersion": "1.0.0"',
        ),
        given=GREEN + _depot("0.2.0", "brigde"),
        solution=_depot() + _attach("depot.conflist"),
        undo="labkit cni 8.5 DEL depot.conflist green > /dev/null\n",
        near_misses={
            "the type alone": _depot("0.2.0") + "labkit cni 8.5 ADD depot.conflist green > /dev/null 2>&1 || true\n",
            "the version alone": _depot(kind="brigde") + "labkit cni 8.5 ADD depot.conflist green > /dev/null 2>&1 || true\n",
            "mended, not called": _depot(),
        },
    ),
    Checkpoint(
        "alone",
        task=f"red and gold reach each other by the bridge pair0, in {PAIR}; what goes to gold is held to {_rate(RATE)}",
        measure=alone,
        hints=(
            "two files for two containers: the same name, the same bridge pair0, and in one of the chains a plugin more",
            f'{{"type": "bandwidth", "ingressRate": {RATE}, "ingressBurst": 80000}}',
            "where what is forwarded is dropped by default, firewall in both chains lets them reach each other",
        ),
        solution=_two(_pair("pair", 0), _pair("limited", RATE)),
        undo="labkit cni 8.5 DEL limited.conflist gold > /dev/null\n" + _gone("gold"),
        near_misses={
            "nobody is limited": _two(_pair("pair", 0), _pair("limited", 0)),
            "both are": _two(_pair("pair", RATE), _pair("limited", RATE)),
            "another rate": _two(_pair("pair", 0), _pair("limited", 10 * RATE)),
            "two bridges": _two(_pair("pair", 0), _pair("limited", RATE, "shop0")),
        },
    ),
)
