"""Each of Debian's plugins: what it changes in the kernel, read with the tools of the field; CHECK finds it, DEL leaves nothing.

Prints the table.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plumbing import inside, shell

from labkit.cni import Attachment, Caller, CniError, Network
from labkit.kernel import network as links
from labkit.kernel.network import NetworkNamespace, nat, throughput

HEADER = f"{'plugin':<12} what it changed in the kernel"
LOCAL = {"type": "host-local", "subnet": "10.77.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
STATIC = {"type": "static", "addresses": [{"address": "10.77.0.9/24", "gateway": "10.77.0.1"}]}
BRIDGE = {"type": "bridge", "bridge": "cnitest0", "isGateway": True, "ipam": LOCAL}
WIRE = {"master": "cnitest1", "ipam": STATIC}
RATE = 8_000_000
PORTS = {"portMappings": [{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}]}

PLUGINS: dict[str, tuple[list[dict], list[str]]] = {
    "bridge": ([BRIDGE], [r"host link veth\w+ up .*master cnitest0 veth", r"web link eth0 up .*veth"]),
    "ptp": ([{"type": "ptp", "ipMasq": True, "ipam": LOCAL}], [r"host addr 10\.77\.0\.1/32 dev veth", r"nat -A CNI-\w+ .*MASQUERADE"]),
    "macvlan": ([{"type": "macvlan", **WIRE}], [r"web link eth0.* macvlan mode bridge"]),
    "ipvlan": ([{"type": "ipvlan", **WIRE}], [r"web link eth0.* ipvlan .*mode l2"]),
    "vlan": ([{"type": "vlan", "vlanId": 7, **WIRE}], [r"web link eth0.* vlan protocol 802\.1Q id 7"]),
    "host-device": ([{"type": "host-device", "device": "cnitest2"}], [r"web link eth0 up .*veth.* alias cnitest2"]),
    "loopback": ([{"type": "loopback"}], [r"web link lo up "]),
    "host-local": ([BRIDGE], [r"lease 10\.77\.0\.\d+ web"]),
    "static": ([{"type": "macvlan", **WIRE}], [r"web addr 10\.77\.0\.9/24 dev eth0"]),
    "portmap": (
        [BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}],
        [r"nat -A CNI-DN-\w+ .*--dport 8088 -j DNAT --to-destination 10\.77\.0\.\d+:80"],
    ),
    "bandwidth": (
        [BRIDGE, {"type": "bandwidth", "ingressRate": RATE, "ingressBurst": 80_000, "egressRate": RATE, "egressBurst": 80_000}],
        [r"host qdisc tbf .*dev veth\w+ .*rate 8Mbit", r"host qdisc tbf .*dev bwp\w+ .*rate 8Mbit"],
    ),
    "sbr": (
        [BRIDGE, {"type": "sbr"}],
        [r"web rule from 10\.77\.0\.\d+ lookup 100", r"web route default via 10\.77\.0\.1 dev eth0 table 100"],
    ),
    "firewall": ([BRIDGE, {"type": "firewall"}], [r"filter -A CNI-FORWARD -s 10\.77\.0\.\d+/32 -j ACCEPT"]),
    "tuning": ([BRIDGE, {"type": "tuning", "mtu": 1400, "mac": "c2:11:22:33:44:55"}], [r"web link eth0.* mtu 1400 .*c2:11:22:33:44:55"]),
}


REFUSED = {"portmap": "could not check ipv6 dnat", "sbr": "Failed to find Gateway"}
"""What CHECK says, in release 1.1 of the plugins, of a network that is as it was made: portmap looks for the rules of IPv4 in the table of
IPv6, too, and bridge for a route that sbr has moved to another table."""


@pytest.fixture
def wires(plain_packet_filter: None) -> None:
    """A cable whose ends are links of the host's."""
    shell("ip link add cnitest1 type veth peer name cnitest2; ip link set cnitest1 up; ip link set cnitest2 up")


def chain(plugins: list[dict]) -> Network:
    return Network.parse(json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": plugins}))


def facts(caller: Caller) -> set[str]:
    """Read all that a plugin may change, one line each, without numbers that the kernel hands out."""
    found = set()
    for place, run in (("host", shell), ("web", lambda line: inside("web", line))):
        found |= {f"{place} link {link(line)}" for line in run("ip -o -d link").splitlines()}
        found |= {f"{place} addr {one[3]} dev {one[1]}" for line in run("ip -o addr").splitlines() if (one := line.split())}
        found |= {f"{place} route {plain(line)}" for line in run("ip route show table all").splitlines()}
        found |= {f"{place} rule {line.partition(':')[2].strip()}" for line in run("ip rule").splitlines()}
        found |= {f"{place} {plain(line)}" for line in run("tc qdisc show").splitlines()}
    for family in ("iptables", "ip6tables"):
        table = ""
        for line in shell(f"{family}-save").splitlines():
            table = line[1:] if line.startswith("*") else table
            found |= {f"{table} {line}"} if line.startswith("-A") else set()
    for lease in caller.leases.glob("lab/10.*"):
        found.add(f"lease {lease.name} {lease.read_text().split()[0]}")
    return {fact for fact in found if "fe80:" not in fact and "fe80::" not in fact}


KIND = r" (?:veth|bridge|ifb|macvlan +mode \w+|ipvlan +mode \w+|vlan protocol \S+ id \d+)(?= |$)"


def plain(line: str) -> str:
    """Leave out what the kernel counts, and what comes by and by with a carrier."""
    return " ".join(re.sub(r"\brefcnt \d+|linkdown", "", line).split())


def link(line: str) -> str:
    """Return what `ip -o -d link` says of a link, without numbers that the kernel hands out."""
    flags = re.search(r"<([^>]*)>", line)
    words = [re.split(r"[:@ ]+", line)[1], "up" if flags and "UP" in flags[1].split(",") else "down"]
    for pattern in (r"mtu \d+", r"master \S+", KIND, r"(?:[0-9a-f]{2}:){5}\S+(?= brd)", r"alias \S+"):
        found = re.search(pattern, line.replace("\\", " "))
        words += found[0].split() if found else []
    return " ".join(words)


def settled(caller: Caller, wanted: set[str]) -> set[str]:
    """Read the facts until they are the wanted ones, which the kernel brings about by and by; return the last."""
    deadline = time.monotonic() + 10
    while (found := facts(caller)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("kind", PLUGINS)
def test_what_a_plugin_changes_is_found_by_check_and_gone_after_del(
    caller: Caller, web: NetworkNamespace, wires: None, able: set[str], told: Callable[[str, str], None], kind: str
) -> None:
    plugins, signs = PLUGINS[kind]
    net = chain(plugins)
    attachment = Attachment("web", web.path, "lo" if kind == "loopback" else "eth0", capabilities=PORTS)
    if kind in ("ipvlan", "vlan") and kind not in able:
        before = facts(caller)
        with pytest.raises(CniError, match="operation not supported"):
            caller.add(net, attachment)
        assert settled(caller, before) == before
        told(HEADER, f"{kind:<12} nothing: this kernel has no {kind} (operation not supported), and nothing is left of the attempt")
        return
    caller.add(net, attachment)
    caller.delete(net, attachment)  # what containers share, a bridge and chains, stays from here on
    before = facts(caller)
    caller.add(net, attachment)
    made = facts(caller) - before
    seen = [next((fact for fact in sorted(made) if re.match(sign, fact)), "") for sign in signs]
    for fact in seen:
        told(HEADER, f"{kind:<12} {fact}")
    assert all(seen), (signs, sorted(made))
    if kind in REFUSED:
        with pytest.raises(CniError, match=REFUSED[kind]):
            caller.check(net, attachment)
        told(HEADER, f"{kind:<12} CHECK refuses what is as it was made: {REFUSED[kind]}")
    else:
        caller.check(net, attachment)
    caller.delete(net, attachment)
    assert settled(caller, before) == before


@pytest.fixture
def lan(wires: None, tmp_path: Path) -> Iterator[Path]:
    """A DHCP server at the far end of cnitest1, and the daemon of the plugin; gives the daemon's socket."""
    shell("ip netns add lan; ip link set cnitest2 netns lan; ip -n lan link set cnitest2 up; ip -n lan addr add 10.77.0.1/24 dev cnitest2")
    told = ["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=cnitest2", "--user=root", "--pid-file="]
    told += ["--dhcp-range=10.77.0.50,10.77.0.59,1h", "--dhcp-authoritative", "--no-ping", f"--dhcp-leasefile={tmp_path}/given"]
    at_work = [
        subprocess.Popen(["ip", "netns", "exec", "lan", "dnsmasq", *told], stderr=subprocess.DEVNULL),
        subprocess.Popen(["/usr/lib/cni/dhcp", "daemon", "-socketpath", str(tmp_path / "socket")], stderr=subprocess.DEVNULL),
    ]
    deadline = time.monotonic() + 10
    while not ((tmp_path / "socket").is_socket() and (tmp_path / "given").exists()):
        assert time.monotonic() < deadline, "the server or the daemon does not come up"
        time.sleep(0.05)
    yield tmp_path / "socket"
    for process in at_work:
        process.kill()
        process.wait()
    shell("ip netns delete lan")


def test_dhcp_asks_a_server_by_its_daemon_and_gives_the_lease_back(
    caller: Caller, web: NetworkNamespace, lan: Path, told: Callable[[str, str], None]
) -> None:
    net = chain([{"type": "macvlan", "master": "cnitest1", "ipam": {"type": "dhcp", "daemonSocketPath": str(lan)}}])
    attachment, before = Attachment("web", web.path), facts(caller)
    ip = caller.add(net, attachment).address(web.path)
    (fact,) = (fact for fact in facts(caller) - before if fact.startswith("web addr"))
    assert ip is not None
    assert fact == f"web addr {ip.address} dev eth0"
    assert ip.gateway == "10.77.0.1"
    (given,) = (lan.parent / "given").read_text().splitlines()
    assert given.split()[2] == ip.address.partition("/")[0]
    told(HEADER, f"{'dhcp':<12} {fact}, as the server has it in its leases")
    caller.check(net, attachment)
    caller.delete(net, attachment)
    assert settled(caller, before) == before
    deadline = time.monotonic() + 10
    while (lan.parent / "given").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (lan.parent / "given").read_text() == ""


def test_a_rate_is_a_state_of_the_link_and_is_felt(caller: Caller, web: NetworkNamespace, told: Callable[[str, str], None]) -> None:
    """The bounds are wide: one is the limit itself, the other what any machine does without one."""
    attachment = Attachment("web", web.path, args=(("IP", "10.77.0.9"),))
    caller.add(chain([BRIDGE]), attachment)
    free = throughput.measure("10.77.0.9", web, 1 << 20) * 8
    caller.delete(chain([BRIDGE]), attachment)
    net = chain([BRIDGE, {"type": "bandwidth", "ingressRate": RATE, "ingressBurst": 80_000}])
    caller.add(net, attachment)
    held = throughput.measure("10.77.0.9", web, 1 << 20) * 8
    rates = {one.rate * 8 for one in links.links() if one.master == "cnitest0"}
    caller.delete(net, attachment)
    told(HEADER, f"{'bandwidth':<12} felt: {held / 1e6:.1f} Mbit/s where {RATE / 1e6:g} are allowed, without it {free / 1e6:.0f}")
    assert rates == {RATE}
    assert RATE / 4 < held < RATE * 1.5
    assert free > 5 * held


NETAVARK = "/usr/lib/podman/netavark --config {0} {1} /run/netns/web < {0}/told"


def test_netavark_of_podman_makes_by_one_call_what_a_chain_makes(
    caller: Caller, web: NetworkNamespace, tmp_path: Path, told: Callable[[str, str], None]
) -> None:
    """The same link, address, gateway and port, by the same kind of call: a file and the path of a namespace."""
    net = chain([BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "firewall"}])
    attachment = Attachment("web", web.path, args=(("IP", "10.77.0.9"),), capabilities=PORTS)
    caller.add(net, attachment)
    by_plugins = reached()
    caller.delete(net, attachment)
    shell("ip link delete cnitest0")
    (tmp_path / "told").write_text(json.dumps(as_podman_says_it()))
    shell(NETAVARK.format(tmp_path, "setup"))
    by_netavark = reached()
    shell(NETAVARK.format(tmp_path, "teardown"))
    told(HEADER, f"{'netavark':<12} by one call, as bridge, portmap and firewall: {', '.join(by_netavark)}")
    assert by_netavark == by_plugins
    assert "eth0" not in inside("web", "ip -o link")


def reached() -> list[str]:
    """Return how web is reached, whoever has made that: its address and gateway, the bridge, a port."""
    address = re.search(r"inet (\S+)", inside("web", "ip -o -4 addr show eth0"))
    gateway = re.search(r"default via (\S+) dev eth0", inside("web", "ip route"))
    ports = [f"{rule.port} to {rule.to_address}:{rule.to_port}" for rule in nat.read(None).dnat if rule.port == "8088"]
    bridge = [one.master for one in links.links() if one.kind == "veth"]
    return [*(found[1] for found in (address, gateway) if found), *bridge, *ports]


def as_podman_says_it() -> dict:
    """Return the network of the chain as podman tells netavark."""
    subnets = [{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1"}]
    network = {"name": "lab", "id": "ab" * 32, "driver": "bridge", "network_interface": "cnitest0", "created": "2024-01-01T00:00:00Z"}
    network |= {
        "subnets": subnets,
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,
        "ipam_options": {"driver": "host-local"},
    }
    port = {"host_ip": "", "container_port": 80, "host_port": 8088, "range": 1, "protocol": "tcp"}
    own = {"lab": {"static_ips": ["10.77.0.9"], "interface_name": "eth0"}}
    who = {"container_id": "ab" * 32, "container_name": "web"}
    return {**who, "networks": own, "network_info": {"lab": network}, "port_mappings": [port]}
