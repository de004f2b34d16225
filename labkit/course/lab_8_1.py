"""Checkpoints of lab 8.1, networks of Docker: who is plugged into which bridge, whose network somebody shares, and where a port leads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from labkit.course import reaching
from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import network, processes
from labkit.kernel.network import NetworkNamespace, nat, netlink
from labkit.kernel.network.nft import read_rules
from labkit.kernel.state import LinkState, NetworkState
from labkit.runtimes.docker import Docker

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Networks of Docker"
AIMS = (
    "say what each of Docker's networks is to the kernel: bridge, none, host, another container's, and your own",
    "follow a packet from a port of a machine to nginx, hop by hop, and name the hop that changed it",
    "find the hop at which a packet stops, and mend it",
)
SERVER = "server"
NEEDS = ("root", "namespaces", "ip", "nft", "iptables-save", "ping", "dockerd", "registry")
CLAIMS = (("docker netns", SERVER),)

ADDRESS = "10.154.0.2"
PORT, SHOP, LOCAL = 80, 8088, 8090

_ARCHIVE = """\
#!/bin/sh -e
# An archive for apt with one package: in it busybox stands in for ip.
cd "$(dirname "$0")"
mkdir -p deb/DEBIAN deb/usr/bin tree/srv/apt tree/etc/apt/sources.list.d
cp "$(command -v busybox)" deb/usr/bin/ip
cat > deb/DEBIAN/control << EOF
Package: iproute2
Version: 0
Architecture: $(dpkg --print-architecture)
Maintainer: labkit
Description: ip of busybox
EOF
cat > tree/etc/apt/sources.list.d/debian.sources << EOF
Types: deb
URIs: file:/srv/apt
Suites: ./
Trusted: yes
EOF
dpkg-deb --build deb tree/srv/apt/iproute2.deb > /dev/null
cd tree/srv/apt
{ dpkg-deb --field iproute2.deb
  stat --printf 'Filename: ./%n\\nSize: %s\\n' iproute2.deb
  sha256sum iproute2.deb | sed 's/ .*//; s/^/SHA256: /'; } > Packages
"""
EXAMPLES = {"archive": {"archive/make": _ARCHIVE}}


def named(_: Lab) -> Verdict:
    """Measure that front and back have cables in one bridge, none in docker0, and that back answers front by its name."""
    pids = _pids("front", "back")
    if isinstance(pids, Verdict):
        return pids
    bridges = [_bridges(pid) for pid in pids]
    common = set(bridges[0]) & set(bridges[1])
    if "docker0" in {*bridges[0], *bridges[1]}:
        return Verdict(passed=False, measured="front and back run", cause="one of them has a cable in docker0")
    if not common:
        return Verdict(passed=False, measured="front and back run", cause="no bridge has a cable of both")
    if not _finds(pids[0], "back"):
        return Verdict(passed=False, measured="front and back are in one bridge", cause="front gets no answer from the name back")
    return Verdict(passed=True, measured="front and back are in one bridge of their own, and back answers to its name")


def shared(_: Lab) -> Verdict:
    """Measure that another container's first process is in the network namespace of web, and that this is not the server's."""
    pids = _pids("web")
    if isinstance(pids, Verdict):
        return pids
    inode = _netns(pids[0])
    if inode == NetworkNamespace(SERVER).inode:
        return Verdict(passed=False, measured="web runs", cause="it has the network of the server itself")
    others = [each for each in Docker().list() if each.pid and each.name != "web"]
    if any(_netns(each.pid) == inode for each in others if each.pid):
        return Verdict(passed=True, measured="two containers, one network namespace, and it is not the server's")
    cause = "each has a network namespace of its own" if others else "no other container runs"
    return Verdict(passed=False, measured="web runs", cause=cause)


def mended(_: Lab) -> Verdict:
    """Measure that port 8088 of the server leads to a container by a rule of NAT, and that somebody outside gets an answer there."""
    leads = _leads(SHOP)
    if not leads:
        return Verdict(passed=False, measured=f"no rule of NAT names port {SHOP}", cause="no container that runs publishes it")
    if reaching.answers(SHOP, ADDRESS):
        return Verdict(passed=True, measured=f"port {SHOP} leads to a container, and is answered outside")
    rules = _rules()
    dropping = any("chain DOCKER-USER" in rule and rule.endswith("drop") for rule in rules)
    cause = "a rule of the chain DOCKER-USER drops packets" if dropping else None
    return Verdict(passed=False, measured=f"port {SHOP} leads to a container, and is not answered outside", cause=cause)


def alone(_: Lab) -> Verdict:
    """Measure that port 8090 is published on 127.0.0.1 of the server alone: answered there, refused outside."""
    leads = _leads(LOCAL)
    if not leads:
        return Verdict(passed=False, measured=f"no rule of NAT names port {LOCAL}", cause="no container that runs publishes it")
    if leads != {"127.0.0.1"}:
        addresses = ", ".join(sorted(address or "every address" for address in leads))
        return Verdict(passed=False, measured=f"port {LOCAL} leads to a container", cause=f"it does on {addresses}")
    if reaching.answers(LOCAL, ADDRESS):
        return Verdict(passed=False, measured=f"port {LOCAL} leads to a container", cause="it is answered outside, too")
    if not netlink.within(NetworkNamespace(SERVER).path, lambda: reaching.answers(LOCAL)):
        return Verdict(passed=False, measured=f"port {LOCAL} leads to a container on 127.0.0.1", cause="nobody answers there")
    return Verdict(passed=True, measured=f"port {LOCAL} is answered on 127.0.0.1 of the server, and nowhere else")


def _pids(*names: str) -> list[int] | Verdict:
    """Return the first processes of containers; where one does not run, what is missing."""
    running = {each.name: each.pid for each in Docker().list() if each.pid}
    missing = [name for name in names if name not in running]
    if missing:
        measured = f"{' and '.join(missing)} does not run" if len(missing) == 1 else f"{' and '.join(missing)} do not run"
        return Verdict(passed=False, measured=measured, cause="docker container ls shows no such container")
    return [pid for name in names if (pid := running[name])]


def _netns(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except FileNotFoundError:  # it has ended since
        return 0


def _bridges(pid: int) -> list[str]:
    """Return the bridges of the server into which a process has cables."""
    return [port.master for port in _ports(network.states(rules=False), _netns(pid))]


def _ports(states: Iterable[NetworkState], inode: int) -> Iterator[LinkState]:
    states = list(states)
    inside = [each for each in states if each.inode == inode]
    peers = {link.peer[1] for each in inside for link in each.links if link.peer and link.peer[0] == SERVER}
    for server in (each for each in states if each.name == SERVER):
        yield from (link for link in server.links if link.ifname in peers and link.master)


def _finds(pid: int, name: str) -> bool:
    """Tell whether a name answers an echo request of a container: by its resolver and over its network."""
    enter = {"mount": pid, "net": pid}
    done = processes.run(["ping", "-c", "1", "-W", "2", name], enter=enter, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, timeout=20)
    return done.status == 0


def _leads(port: int) -> set[str]:
    """Return on which addresses of the server a port leads somewhere by a rule of NAT; "" for any."""
    return {rule.address for rule in nat.read(NetworkNamespace(SERVER).path).dnat if rule.port == str(port)}


def _rules() -> tuple[str, ...]:
    return netlink.within(NetworkNamespace(SERVER).path, read_rules)


QUIET = " > /dev/null 2>&1"
GONE = f"docker container rm --force {{0}}{QUIET} || true\n"
WEB = GONE + f"docker container run --detach --name {{0}} {{1}} nginx{QUIET}\n"
TOP = GONE + f"docker container run --detach --name {{0}} {{1}} alpine top{QUIET}\n"
OWN = f"docker network inspect own{QUIET} || docker network create own > /dev/null\n"
SERVER_SAYS = f"ip netns exec {SERVER} "
CONNECTS = until("curl --silent --max-time 2 {0} > /dev/null")
DROP = f"DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport {SHOP} -j DROP"
UNDROPPED = f"while {SERVER_SAYS}iptables -D {DROP} 2> /dev/null; do :; done\n"
SERVED = WEB.format("shop", f"-p {SHOP}:80") + until(f"{SERVER_SAYS}curl --silent --max-time 2 {ADDRESS}:{SHOP} > /dev/null")
BROKEN = UNDROPPED + SERVED + f"{SERVER_SAYS}iptables -I {DROP}\n"

CHECKPOINTS = (
    Checkpoint(
        "shared",
        task="a second container is in the network namespace of web, and it is not the server's",
        measure=shared,
        hints=(
            "--network takes more than names of networks: docker container run --help says which word goes before the name of a container",
            "docker container run -it --network=container:web alpine sh, and Ctrl-P Ctrl-Q",
        ),
        given=WEB.format("web", ""),
        solution=WEB.format("web", "") + TOP.format("beside", "--network container:web"),
        undo=GONE.format("beside"),
        near_misses={
            "a network of its own": WEB.format("web", "") + TOP.format("beside", ""),
            "both have the server's": WEB.format("web", "--network host") + TOP.format("beside", "--network host"),
            "it shares the PID namespace": WEB.format("web", "") + TOP.format("beside", "--pid container:web"),
            "not started": WEB.format("web", "")
            + GONE.format("beside")
            + "docker container create --name beside --network container:web alpine top > /dev/null\n",
        },
    ),
    Checkpoint(
        "named",
        task="the containers front and back are in a network of their own, not in the default one, and front reaches back by its name",
        measure=named,
        hints=(
            "on the default bridge names are not known; on one of your own dockerd answers for them",
            "docker network create own, and both containers with --network own",
            "docker container run -d --name back --network own alpine top",
        ),
        solution=OWN + TOP.format("front", "--network own") + TOP.format("back", "--network own"),
        undo=GONE.format("back"),
        near_misses={
            "the default bridge": TOP.format("front", "") + TOP.format("back", ""),
            "the default bridge, and a line in /etc/hosts": TOP.format("back", "")
            + GONE.format("front")
            + f"docker container run --detach --name front --link back alpine top{QUIET}\n",
            "two networks": OWN
            + f"docker network create other{QUIET} || true\n"
            + TOP.format("front", "--network own")
            + TOP.format("back", "--network other"),
            "front is in the default bridge, too": OWN
            + TOP.format("front", "--network own")
            + TOP.format("back", "--network own")
            + "docker network connect bridge front\n",
        },
    ),
    Checkpoint(
        "mended",
        task=f"port {SHOP} of the server leads to a container, and who asks from outside gets an answer",
        measure=mended,
        hints=(
            "the picture names the last hop that saw the packet: look at the rules of that chain",
            f"ip netns exec {SERVER} iptables -nvL DOCKER-USER --line-numbers",
            f"ip netns exec {SERVER} iptables -D DOCKER-USER 1",
        ),
        given=BROKEN,
        solution=SERVED + UNDROPPED,
        undo=BROKEN,
        near_misses={
            "run again": BROKEN + SERVED,
            "a policy that accepts": BROKEN + f"{SERVER_SAYS}iptables -P FORWARD ACCEPT\n",
            "accepted too late": BROKEN + f"{SERVER_SAYS}iptables -A DOCKER-USER -j ACCEPT\n",
            "without a port": WEB.format("shop", "") + UNDROPPED,
        },
    ),
    Checkpoint(
        "alone",
        task=f"port {LOCAL} of the server leads to nginx for who asks 127.0.0.1 on the server, and for nobody outside",
        measure=alone,
        hints=(
            "-p takes an address before the port",
            f"docker container run -d --name local -p 127.0.0.1:{LOCAL}:80 nginx",
        ),
        solution=WEB.format("local", f"-p 127.0.0.1:{LOCAL}:80")
        + until(f"{SERVER_SAYS}curl --silent 127.0.0.1:{LOCAL} > /dev/null"),
        undo=GONE.format("local"),
        near_misses={
            "on every address": WEB.format("local", f"-p {LOCAL}:80") + CONNECTS.format(f"{ADDRESS}:{LOCAL}"),
            "on the address outside": WEB.format("local", f"-p {ADDRESS}:{LOCAL}:80") + CONNECTS.format(f"{ADDRESS}:{LOCAL}"),
            "nobody serves in it": TOP.format("local", f"-p 127.0.0.1:{LOCAL}:80"),
            "not published": WEB.format("local", ""),
        },
    ),
)
