"""A packet is followed on real networks: of each fault that is injected the hop and the cause are named, of healthy networks none."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from plumbing import inside, shell

from labkit.kernel.network import netlink, probe
from labkit.kernel.network.follow import follow
from labkit.kernel.network.namespace import NetworkNamespace

Told = Callable[[str, str], None]
HEALTHY = f"{'healthy network':<44} {'hops':<5} verdict"
FAULTS = f"{'injected fault':<44} named"
NAMES = ("router", "c1", "c2", "c3", "remote")

LAN = """
for n in router c1 c2 c3 remote; do ip netns add $n; ip -n $n link set lo up; done
ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ip -n router link add br0 type bridge
ip -n router addr add 172.18.0.1/24 dev br0
ip -n router link set br0 up
for i in 1 2 3; do
    ip -n router link add v$i type veth peer name eth0 netns c$i
    ip -n router link set v$i master br0 up
    ip -n c$i addr add 172.18.0.1$i/24 dev eth0
    ip -n c$i link set eth0 up
    ip -n c$i route add default via 172.18.0.1
    ip netns exec c$i sysctl -qw net.ipv4.ip_forward=0
done
ip -n router link add out type veth peer name eth0 netns remote
ip -n router addr add 203.0.113.1/24 dev out
ip -n remote addr add 203.0.113.2/24 dev eth0
ip -n router link set out up
ip -n remote link set eth0 up
ip netns exec router nft -f - << 'END'
table ip lab {
    chain pre { type nat hook prerouting priority dstnat; iifname "out" tcp dport 8080 counter dnat to 172.18.0.11:80; }
    chain here { type nat hook output priority -100; fib daddr type local tcp dport 8080 counter dnat to 172.18.0.11:80; }
    chain post { type nat hook postrouting priority srcnat; ip saddr 172.18.0.0/24 oifname != "br0" counter masquerade; }
}
END
"""
"""What docker makes: a bridge with containers, a published port, a way out."""

FILTER = """
ip netns exec router nft -f - << 'END'
table ip filter {
    chain FORWARD { type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        iifname "br0" counter accept
        oifname "br0" ip daddr 172.18.0.11 tcp dport 80 counter accept
    }
}
END
"""
PAIR = """
for n in c1 c2; do ip netns add $n; ip -n $n link set lo up; done
ip -n c1 link add eth0 type veth peer name eth0 netns c2
ip -n c1 addr add 10.7.0.1/24 dev eth0; ip -n c2 addr add 10.7.0.2/24 dev eth0
ip -n c1 link set eth0 up; ip -n c2 link set eth0 up
"""
ROUTED = """
for n in router c1 c2; do ip netns add $n; ip -n $n link set lo up; done
ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
for i in 1 2; do
    ip -n router link add r$i type veth peer name eth0 netns c$i
    ip -n router addr add 10.7.$i.1/24 dev r$i; ip -n c$i addr add 10.7.$i.2/24 dev eth0
    ip -n router link set r$i up; ip -n c$i link set eth0 up
    ip -n c$i route add default via 10.7.$i.1
done
"""
PTP = """
for n in router c1; do ip netns add $n; ip -n $n link set lo up; done
ip -n router link add p1 type veth peer name eth0 netns c1
ip -n router addr add 172.16.28.1/32 dev p1; ip -n router link set p1 up; ip -n router route add 172.16.28.2/32 dev p1
ip -n c1 addr add 172.16.28.2/24 dev eth0; ip -n c1 link set eth0 up; ip -n c1 route del 172.16.28.0/24
ip -n c1 route add 172.16.28.1/32 dev eth0; ip -n c1 route add default via 172.16.28.1
"""
VXLAN = (
    PAIR
    + """
for i in 1 2; do
    ip -n c$i link add vx type vxlan id 4097 remote 10.7.0.$((3 - i)) dstport 4789 dev eth0
    ip -n c$i addr add 10.8.0.$i/24 dev vx; ip -n c$i link set vx up
done
"""
)
MACVLAN = """
for n in router c1 c2; do ip netns add $n; ip -n $n link set lo up; done
ip -n router link add out type veth peer name eth0 netns c2
ip -n router link set out up; ip -n c2 addr add 10.7.0.2/24 dev eth0; ip -n c2 link set eth0 up
ip -n router link add mac0 link out type macvlan mode bridge
ip -n router link set mac0 netns c1; ip -n c1 addr add 10.7.0.3/24 dev mac0; ip -n c1 link set mac0 up
"""

WELL = {
    "a pair of veth, echo": (PAIR, "10.7.0.2", "c1", ""),
    "a pair of veth, tcp": (PAIR, "10.7.0.2:80", "c1", "c2:80"),
    "loopback, tcp": (PAIR, "127.0.0.1:80", "c2", "c2:80"),
    "a bridge of three, echo": (LAN, "172.18.0.12", "c1", ""),
    "a bridge of three, tcp": (LAN, "172.18.0.13:80", "c1", "c3:80"),
    "the bridge's own address, from a container": (LAN, "172.18.0.1", "c2", ""),
    "from the bridge's namespace to a container": (LAN, "172.18.0.13", "router", ""),
    "a published port, from outside": (LAN, "203.0.113.1:8080", "remote", "c1:80"),
    "a published port, from its own host": (LAN, "203.0.113.1:8080", "router", "c1:80"),
    "a published port, policy drop and rules": (LAN + FILTER, "203.0.113.1:8080", "remote", "c1:80"),
    "the way out by masquerade, echo": (LAN, "203.0.113.2", "c1", ""),
    "the way out by masquerade, tcp": (LAN + FILTER, "203.0.113.2:80", "c3", "remote:80"),
    "two routed subnets, echo": (ROUTED, "10.7.2.2", "c1", ""),
    "two routed subnets, tcp": (ROUTED, "10.7.2.2:80", "c1", "c2:80"),
    "ptp with routes of one address, as CNI's": (PTP, "172.16.28.1", "c1", ""),
    "a VXLAN, echo": (VXLAN, "10.8.0.2", "c1", ""),
    "a VXLAN, tcp": (VXLAN, "10.8.0.2:80", "c1", "c2:80"),
    "a macvlan": (MACVLAN, "10.7.0.2", "c1", ""),
    "a smaller mtu that both ends know": (
        ROUTED + "ip -n router link set r2 mtu 1400; ip -n c2 link set eth0 mtu 1400", "10.7.2.2", "c1", ""),
}
"""Name to (lines that make it, destination, from where, who listens)."""

ILL = {
    "the bridge is down": (LAN, "ip -n router link set br0 down", "172.18.0.12", "c1", "", "bridge down", "br0 in router"),
    "the bridge is down, for its own host": (
        LAN, "ip -n router link set br0 down", "172.18.0.12", "router", "", "bridge down", "br0 in router"),
    "the bridge is down, for a published port": (
        LAN, "ip -n router link set br0 down", "203.0.113.1:8080", "remote", "c1:80", "bridge down", "br0 in router"),
    "a port of the bridge is down": (LAN, "ip -n router link set v2 down", "172.18.0.12", "c1", "", "link down", "v2 in router"),
    "the link in the target is down": (LAN, "ip -n c2 link set eth0 down", "172.18.0.12", "c1", "", "link down", "eth0 in c2"),
    "the link in the source is down": (LAN, "ip -n c1 link set eth0 down", "203.0.113.2", "c1", "", "link down", "eth0 in c1"),
    "the other end of the source's link is down": (
        LAN, "ip -n router link set v1 down", "172.18.0.12", "c1", "", "link down", "v1 in router"),
    "the target is not plugged in": (LAN, "ip -n router link set v2 nomaster", "172.18.0.12", "c1", "", "not plugged in", "v2 in router"),
    "the target is not plugged in, published": (
        LAN, "ip -n router link set v1 nomaster", "203.0.113.1:8080", "remote", "c1:80", "not plugged in", "v1 in router"),
    "the source has no default route": (LAN, "ip -n c1 route del default", "203.0.113.2", "c1", "", "no route", "c1"),
    "the router has no route": (LAN, "ip -n c1 route add 198.51.100.0/24 via 172.18.0.1", "198.51.100.7", "c1", "", "no route", "router"),
    "the target has no route back": (ROUTED, "ip -n c2 route del default", "10.7.2.2", "c1", "", "no route back", "c2"),
    "the target has no route back, tcp": (ROUTED, "ip -n c2 route del default", "10.7.2.2:80", "c1", "c2:80", "no route back", "c2"),
    "a default gateway that nobody is": (
        LAN, "ip -n c1 route replace default via 172.18.0.99", "203.0.113.2", "c1", "", "wrong gateway", "eth0 in c1"),
    "the target's gateway is nobody": (
        ROUTED, "ip -n c2 route replace default via 10.7.2.99", "10.7.2.2", "c1", "", "wrong gateway", "eth0 in c2"),
    "a gateway that is no router": (
        LAN, "ip -n c1 route replace default via 172.18.0.13", "203.0.113.2", "c1", "", "no forwarding", "eth0 in c3"),
    "ip_forward is 0": (
        LAN, "ip netns exec router sysctl -qw net.ipv4.ip_forward=0", "203.0.113.2", "c1", "", "no forwarding", "br0 in router"),
    "ip_forward is 0, published": (
        LAN, "ip netns exec router sysctl -qw net.ipv4.ip_forward=0", "203.0.113.1:8080", "remote", "c1:80", "no forwarding",
        "out in router"),
    "FORWARD's policy drops": (
        LAN, "ip netns exec router iptables -P FORWARD DROP", "203.0.113.2", "c1", "", "dropped", "forward in router"),
    "FORWARD's policy drops, published": (
        LAN, "ip netns exec router iptables -P FORWARD DROP", "203.0.113.1:8080", "remote", "c1:80", "dropped", "forward in router"),
    "a rule with a counter drops": (
        LAN + FILTER, 'ip netns exec router nft insert rule ip filter FORWARD ip daddr 203.0.113.2 counter drop',
        "203.0.113.2", "c1", "", "dropped", "forward in router"),
    "a rule without a counter drops": (
        LAN + FILTER, 'ip netns exec router nft insert rule ip filter FORWARD ip daddr 203.0.113.2 drop',
        "203.0.113.2", "c1", "", "dropped", "forward in router"),
    "a rule of iptables rejects": (
        LAN, "ip netns exec router iptables -A FORWARD -d 172.18.0.11 -j REJECT", "203.0.113.1:8080", "remote", "c1:80",
        "dropped", "forward in router"),
    "only the answer is dropped": (
        LAN, "ip netns exec router iptables -A FORWARD -s 172.18.0.11 -p tcp --sport 80 -j DROP", "203.0.113.1:8080", "remote", "c1:80",
        "dropped", "forward in router"),
    "the target's INPUT drops": (
        LAN, "ip netns exec c2 iptables -A INPUT -p icmp -j DROP", "172.18.0.12", "c1", "", "dropped", "input in c2"),
    "the source's OUTPUT drops": (
        LAN, "ip netns exec c1 iptables -A OUTPUT -d 172.18.0.12 -j DROP", "172.18.0.12", "c1", "", "dropped", "output in c1"),
    "nobody published the port": (LAN, "ip netns exec router nft flush chain ip lab pre", "203.0.113.1:8080", "remote", "c1:80",
                                  "not published", "out in router"),
    "nobody masquerades": (LAN, "ip netns exec router nft flush chain ip lab post", "203.0.113.2", "c1", "", "no masquerade",
                           "postrouting in router"),
    "nobody masquerades, tcp": (LAN, "ip netns exec router nft flush chain ip lab post", "203.0.113.2:80", "c1", "remote:80",
                                "no masquerade", "postrouting in router"),
    "two have the target's address": (LAN, "ip -n c3 addr add 172.18.0.12/24 dev eth0", "172.18.0.12", "c1", "", "duplicate address",
                                      "eth0 in c1"),
    "two have the address of a published port": (
        LAN, "ip -n c3 addr add 172.18.0.11/24 dev eth0", "203.0.113.1:8080", "remote", "c1:80", "duplicate address", "br0 in router"),
    "a container has the gateway's address": (LAN, "ip -n c3 addr add 172.18.0.1/24 dev eth0", "203.0.113.2", "c1", "",
                                              "duplicate address", "eth0 in c1"),
    "a port of the bridge has a smaller mtu": (
        LAN, "ip -n router link set v2 mtu 1300", "172.18.0.12", "c1", "", "wrong MTU", "v2 in router"),
    "the target has a larger mtu than its bridge": (
        LAN, "ip -n c1 link set eth0 mtu 9000", "203.0.113.1:8080", "remote", "c1:80", "wrong MTU", "v1 in router"),
    "a neighbour has another MAC address since": (
        LAN, "ip -n c1 neigh add 172.18.0.12 lladdr 02:00:00:00:00:99 dev eth0", "172.18.0.12", "c1", "", "stale neighbour", "eth0 in c1"),
    "the gateway is a bridge whose MAC address a new port has changed": (
        LAN, """ip netns exec c1 ping -qc1 172.18.0.1; ip -n router link add low type veth peer name high
        ip -n router link set low address 02:00:00:00:00:01 master br0""", "203.0.113.2", "c1", "", "stale neighbour", "eth0 in c1"),
    "nobody listens": (LAN, "true", "172.18.0.12:80", "c1", "", "nobody listens", "eth0 in c2"),
    "nobody listens at a published port": (LAN, "true", "203.0.113.1:8080", "remote", "", "nobody listens", "eth0 in c1"),
    "nobody has the address": (LAN, "ip -n c2 addr flush dev eth0", "172.18.0.12", "c1", "", "no neighbour", "eth0 in c1"),
    "the target's address is in another subnet": (
        LAN, "ip -n c2 addr flush dev eth0; ip -n c2 addr add 172.19.0.12/24 dev eth0", "172.18.0.12", "c1", "",
        "no neighbour", "eth0 in c1"),
    "rp_filter, and another way back": (
        ROUTED, """ip netns exec router sysctl -qw net.ipv4.conf.all.rp_filter=1; ip -n c1 addr add 10.99.0.1/32 dev lo
        ip -n c1 route replace default via 10.7.1.1 src 10.99.0.1; ip -n router route add 10.99.0.1/32 dev r2""", "10.7.2.2", "c1", "",
        "rp_filter", "r1 in router"),
}  # fmt: skip
"""Name to (lines that make it, lines that break it, destination, from where, who listens, fault, where)."""


@pytest.fixture
def networks() -> Iterator[Callable[[str, str], None]]:
    """Make network namespaces by lines of a shell, with somebody who listens; both go afterwards."""
    with ExitStack() as listeners:

        def make(lines: str, listens: str) -> None:
            shell(f"set -e\n{lines}")
            if listens:
                name, _, port = listens.partition(":")
                listeners.enter_context(netlink.within(f"/run/netns/{name}", lambda: socket.create_server(("0.0.0.0", int(port)))))

        yield make
    for name in NAMES:
        shell(f"ip netns delete {name} 2>/dev/null", check=False)


@pytest.mark.parametrize("name", WELL)
def test_a_healthy_network_has_no_fault(networks, name: str, told: Told):
    lines, destination, source, listens = WELL[name]
    networks(lines, listens)
    path = follow(destination, source)
    told(HEALTHY, f"{name:<44} {sum(bool(hop.ifname) for hop in path.hops):<5} {path.verdict}")
    assert path, path.cause
    assert (path.fault, path.where, path.cause) == ("", "", "")
    assert path.request[-1].title != path.origin or "127." in destination
    assert path.answer[-1].title == source


@pytest.mark.parametrize("name", ILL)
def test_an_injected_fault_is_named(networks, name: str, told: Told):
    lines, broken, destination, source, listens, fault, where = ILL[name]
    networks(f"{lines}\n{broken}", listens)
    path = follow(destination, source, patience=0.5)
    told(FAULTS, f"{name:<44} {path.fault}: {path.where}")
    assert (path.fault, path.where) == (fault, where), f"{path.cause} {path.hops}"
    assert not path


@pytest.mark.parametrize("name", ["the way out by masquerade, tcp", "a published port, from outside"])
def test_nothing_is_changed_by_following(networks, name: str):
    lines, destination, source, listens = WELL[name]
    networks(lines, listens)

    def state() -> list[str]:
        what = "ip -o link; ip -4 addr; ip route; nft -s list ruleset; sysctl net.ipv4"
        return [inside(each, what) for each in NAMES]

    before = state()
    assert follow(destination, source)
    assert state() == before


def test_the_addresses_are_those_of_each_hop(networks):
    lines, destination, source, listens = WELL["a published port, policy drop and rules"]
    networks(lines, listens)
    path = follow(destination, source)
    seen = [(hop.title, hop.ifname, hop.outgoing, hop.source, hop.destination) for hop in path.request if hop.ifname]
    assert seen == [
        ("remote", "eth0", True, "203.0.113.2", "203.0.113.1:8080"),
        ("router", "out", False, "203.0.113.2", "203.0.113.1:8080"),
        ("router", "br0", True, "203.0.113.2", "172.18.0.11:80"),
        ("router", "v1", True, "203.0.113.2", "172.18.0.11:80"),
        ("c1", "eth0", False, "203.0.113.2", "172.18.0.11:80"),
    ]
    met = next(hop for hop in path.request if hop.ifname == "out").met
    assert [hook for hook, _ in met] == ["prerouting", "forward"]
    assert "dnat to 172.18.0.11:80" in met[0][1]
    assert met[1][1] == 'oifname "br0" ip daddr 172.18.0.11 tcp dport 80 accept'


def test_what_is_carried_in_a_vxlan_is_seen_inside(networks):
    lines, destination, source, listens = WELL["a VXLAN, echo"]
    networks(lines, listens)
    carried = [hop for hop in follow(destination, source).request if hop.vni == 4097]
    assert [(hop.title, hop.ifname) for hop in carried] == [("c1", "eth0"), ("c2", "eth0")]
    assert {(hop.source, hop.destination) for hop in carried} == {("10.8.0.1", "10.8.0.2")}


def test_a_namespace_is_there_to_be_deleted_afterwards(networks):
    networks(PAIR, "")
    follow("10.7.0.2", "c1")
    shell("ip netns delete c1; ip netns delete c2")
    assert not NetworkNamespace("c1").exists


def test_a_probe_is_sent_by_who_has_more_than_1024_files_open():
    with ExitStack() as open_files:
        for _ in range(1100):
            open_files.callback(os.close, os.dup(0))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            assert probe.tcp(None, "127.0.0.1", port).outcome == 0
        assert probe.tcp(None, "127.0.0.1", port).outcome == errno.ECONNREFUSED
        assert probe.echo(None, "127.0.0.1").outcome == 0
