"""Names, places, lines and messages of the network, on recorded answers of the kernel."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.errors import LabError, SyscallError
from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network import requests as network_requests
from labkit.kernel.network.addresses import check_destination, check_interface
from labkit.kernel.network.icmp import Ping, check_address, parse_ping
from labkit.kernel.network.messages import parse_address, parse_link, parse_route
from labkit.kernel.network.namespace import NetworkNamespace, names
from labkit.kernel.network.netlink import attribute, attributes
from labkit.kernel.network.nft import parse_rules
from labkit.kernel.network.places import place
from labkit.kernel.network.virtual import check_ifname, word
from labkit.kernel.state import RouteState

RECORDED = json.loads((Path(__file__).parents[1] / "data/rtnetlink.json").read_text())
LINKS = [parse_link(bytes.fromhex(message)) for message in RECORDED["links"]]
NAMES = {link.state.index: link.state.ifname for link in LINKS}


@pytest.mark.parametrize("name", ["", "host", "a/b", "..", ".", "-a", "two words", "tab\t", "nul\0", "é" * 200])
def test_what_cannot_name_a_namespace_is_refused_with_a_remedy(name):
    with pytest.raises(LabError, match=r"cannot name a network namespace.*cause: .*remedy: "):
        NetworkNamespace(name)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "-a", "two words", "eth0:1", "sixteen_letters_", "nul\0"])
def test_what_cannot_name_a_link_is_refused_with_a_remedy(name):
    with pytest.raises(LabError, match=r"cannot name a link.*cause: .*remedy: "):
        check_ifname(name)


@pytest.mark.parametrize("name", ["veth1", "br-lan.7", "a", "fifteen_letters"])
def test_names_that_the_kernel_takes_are_taken(name):
    check_ifname(name)
    assert NetworkNamespace(name).path == f"/run/netns/{name}"


@pytest.mark.parametrize("text", ["192.168.1.1", "192.168.1.256/24", "veth1", "", "192.168.1.1/33", "/24"])
def test_an_address_of_a_link_needs_its_length(text):
    with pytest.raises(LabError, match="remedy: write it as"):
        check_interface(text)


def test_an_address_without_its_length_is_told_how_to_write_it():
    with pytest.raises(LabError, match=r'"192.168.1.1/24"'):
        check_interface("192.168.1.1")


@pytest.mark.parametrize("text", ["192.168.1.1/24", "192.168.1", "host", ""])
def test_what_is_no_address_is_refused_before_ping_starts(text):
    with pytest.raises(LabError, match="is no address"):
        check_address(text)


def test_default_is_of_the_family_of_its_next_hop():
    assert str(check_destination("default", None)) == "0.0.0.0/0"
    assert str(check_destination("default", check_address("fd00::1"))) == "::/0"
    with pytest.raises(LabError, match="has host bits set"):
        check_destination("10.0.0.1/8", None)


@pytest.mark.parametrize(
    ("netns", "prefix", "word_of_it", "path"),
    [
        (None, "", "1", None),
        ("namespace1", "ip netns exec namespace1 ", "namespace1", "/run/netns/namespace1"),
        (NetworkNamespace("namespace1"), "ip netns exec namespace1 ", "namespace1", "/run/netns/namespace1"),
        (4711, "nsenter --target 4711 --net ", "4711", "/proc/4711/ns/net"),
        (SimpleNamespace(pid=4711, name="clock"), "nsenter --target $clock --net ", "$clock", "/proc/4711/ns/net"),
        (Path("/run/docker/netns/x y"), "nsenter --net='/run/docker/netns/x y' ", "'/run/docker/netns/x y'", "/run/docker/netns/x y"),
    ],
)
def test_a_place_is_written_as_a_person_types_it(netns, prefix, word_of_it, path):
    found = place(netns)
    assert (found.prefix, found.word, found.path) == (prefix, word_of_it, path)


def test_a_name_that_ip_takes_for_a_keyword_is_marked_as_a_device():
    assert word("a") == "dev a"
    assert word("veth1") == "veth1"


def test_recorded_links_are_read_whole():
    lo, veth, bridge = (link.state for link in LINKS)
    assert (lo.ifname, lo.kind, lo.up, lo.operstate, lo.mac, lo.mtu) == ("lo", "loopback", False, "DOWN", "00:00:00:00:00:00", 65536)
    assert (veth.ifname, veth.kind, veth.up, veth.operstate, veth.mac, veth.mtu) == ("veth1", "veth", True, "UP", "02:00:00:00:00:01", 1400)
    assert (bridge.ifname, bridge.kind) == ("br0", "bridge")
    assert (LINKS[1].master, LINKS[1].link, LINKS[1].netnsid) == (bridge.index, 2, 0)
    assert LINKS[1].counters[:4] == (0, 4, 0, 364)


def test_recorded_addresses_are_read_with_the_local_end_of_a_pair():
    found = [parse_address(bytes.fromhex(message)) for message in RECORDED["addresses"]]
    assert found[:2] == [(3, "192.168.1.1/24"), (3, "10.9.9.1/32")]
    assert (3, "fd00::1/64") in found


def test_recorded_routes_are_those_of_the_main_table_as_ip_writes_them():
    found = [hop for message in RECORDED["routes"] for hop in parse_route(bytes.fromhex(message), NAMES)]
    assert found[:8] == [
        RouteState("default", "192.168.1.254", "br0"),
        RouteState("10.0.0.0/8", "192.168.1.10", "br0"),
        RouteState("10.0.0.0/8", "192.168.1.11", "br0"),
        RouteState("10.9.9.2", "", "br0", "10.9.9.1"),
        RouteState("blackhole 10.66.0.0/16"),
        RouteState("172.16.0.0/12", "fd00::5", "br0"),
        RouteState("172.31.0.1", "", "br0"),
        RouteState("192.168.1.0/24", "", "br0", "192.168.1.1"),
    ]
    assert {hop.destination for hop in found[8:]} == {"fd00::/64", "fe80::/64"}


def test_attributes_survive_padding_and_a_torn_end():
    data = attribute(3, b"veth1\0") + attribute(4, struct.pack("=I", 1500))
    assert attributes(data) == {3: b"veth1\0", 4: struct.pack("=I", 1500)}
    assert attributes(data + b"\0\0\0\0\0") == attributes(data)
    assert attributes(b"\1") == {}


def test_a_veth_request_carries_both_names_and_the_other_namespace():
    body = network_requests.new_veth("veth1", "veth2", 5)
    top = attributes(body, 16)
    info = attributes(top[18])
    peer = attributes(attributes(info[2])[1], 16)
    assert (top[3], info[1], peer[3], peer[28]) == (b"veth1\0", b"veth\0", b"veth2\0", struct.pack("=I", 5))


def test_a_refusal_of_the_kernel_keeps_its_errno_and_its_own_words():
    words = b"Nexthop has invalid gateway.\0"
    payload = struct.pack("=i", -101) + bytes(16) + attribute(1, words)
    with pytest.raises(SyscallError) as caught:
        netlink._raise(netlink.RTM_NEWROUTE, 0x300, payload, ("default", "via 10.0.0.1"))
    assert caught.value.errno == 101
    assert str(caught.value) == (
        "RTM_NEWROUTE(default, via 10.0.0.1): ENETUNREACH (Network is unreachable); cause: the kernel says: Nexthop has invalid gateway."
    )


def test_a_refusal_without_words_names_no_cause():
    with pytest.raises(SyscallError) as caught:
        netlink._raise(netlink.RTM_NEWLINK, 0x100, struct.pack("=i", -17), ("veth1",))
    assert caught.value.cause is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 packets transmitted, 2 received, 0% packet loss\nrtt min/avg/max/mdev = 0.036/0.041/0.047/0.005 ms\n", (2, 2, 0.041)),
        ("1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms\n\n", (1, 0, None)),
        ("ping: connect: Network is unreachable\n", (0, 0, None)),
        ("3 packets transmitted, 3 packets received, 0% packet loss\nround-trip min/avg/max = 0.1/0.2/0.3 ms\n", (3, 3, 0.2)),
    ],
)
def test_what_ping_writes_is_counted(text, expected):
    assert parse_ping(text) == expected


def test_a_ping_is_true_only_if_every_packet_was_answered():
    assert Ping("10.0.0.1", 2, 2, 0.1, None, "")
    assert not Ping("10.0.0.1", 2, 1, 0.1, "x", "")
    assert not Ping("10.0.0.1", 0, 0, None, "x", "")


def test_rules_are_one_string_each_with_what_they_are_in():
    ruleset = """# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat {
	set bad {
		type ipv4_addr
		elements = { 10.0.0.1,
		10.0.0.2 }
	}

	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "e{0" tcp dport { 22, 80 } masquerade
	}
}
table inet empty {
}
"""
    assert parse_rules(ruleset) == (
        "table ip nat",
        "table ip nat set bad",
        "table ip nat set bad type ipv4_addr",
        "table ip nat set bad elements = { 10.0.0.1, 10.0.0.2 }",
        "table ip nat chain post",
        "table ip nat chain post type nat hook postrouting priority srcnat; policy accept;",
        'table ip nat chain post oifname "e{0" tcp dport { 22, 80 } masquerade',
        "table inet empty",
    )


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ('ip saddr 10.0.0.0/8 oifname != "br0" counter masquerade', 'oifname != "br0" ip saddr 10.0.0.0/8 counter masquerade'),
        ('iifname "eth0" ip protocol tcp ct original proto-dst 80 drop', 'iifname "eth0" meta l4proto tcp ct original proto-dst 80 drop'),
        ('ip daddr { 10.0.0.1, 10.0.0.2 } ip saddr 10.0.0.3 drop', "ip saddr 10.0.0.3 ip daddr { 10.0.0.1, 10.0.0.2 } drop"),
        ('counter ip daddr 10.0.0.1 iifname "a" accept', 'counter ip daddr 10.0.0.1 iifname "a" accept'),
        ("masquerade", "masquerade"),
        ('iifname "a"', 'iifname "a"'),
    ],
)
def test_a_rule_has_one_wording_whoever_lists_it(listed, expected):
    ruleset = f"table ip nat {{\n\tchain post {{\n\t\t{listed}\n\t}}\n}}\n"
    assert parse_rules(ruleset)[-1] == f"table ip nat chain post {expected}"


def test_files_without_a_namespace_are_no_names(tmp_path):
    (tmp_path / "left-behind").touch()
    assert names(tmp_path) == ()
    assert names(tmp_path / "nowhere") == ()


def test_a_process_that_goes_or_hides_is_left_out(tmp_path):
    for pid, target in (("1", None), ("7", "net:[42]"), ("8", "net:[42]"), ("9", "net:[43]")):
        (tmp_path / pid / "ns").mkdir(parents=True)
        if target:
            (tmp_path / pid / "ns/net").symlink_to(target)
    (tmp_path / "self").mkdir()
    found = network_state._of_processes(tmp_path)
    assert set(found) == {42, 43}
    assert found[43] == f"{tmp_path}/9/ns/net"


def test_an_error_in_a_namespace_thread_comes_back_to_its_caller():
    with pytest.raises(ZeroDivisionError):
        netlink.in_thread(lambda: 1 // 0)
    assert netlink.in_thread(lambda: 7) == 7


INTERRUPTED = """
import os, signal, threading, time
from labkit.kernel.network import netlink
signal.signal(signal.SIGINT, signal.default_int_handler)
done = []
def work():
    begun.set()
    time.sleep(0.3)
    done.append(1)
    {then}
begun = threading.Event()
threading.Thread(target=lambda: (begun.wait(), time.sleep(0.1), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
try:
    netlink.in_thread(work)
except KeyboardInterrupt:
    print("interrupted after", len(done))
"""


@pytest.mark.parametrize("then", ["", "1 // 0"])
def test_an_interrupt_waits_for_the_end_of_the_thread_and_is_not_lost(then):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.format(then=then)], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted after 1\n"


def stacked(kind: str, number: int, width: int) -> bytes:
    """Write the message of a link by hand: of its kind, with the first attribute of that kind."""
    data = attribute(2, attribute(1, number.to_bytes(width, sys.byteorder)))
    info = attribute(18, attribute(1, kind.encode() + b"\0") + data)
    return bytes(16) + attribute(3, b"eth0\0") + info


@pytest.mark.parametrize(
    ("kind", "number", "width", "told"),
    [
        ("macvlan", 4, 4, "mode bridge"),
        ("macvlan", 1, 4, "mode private"),
        ("macvlan", 99, 4, "mode 99"),
        ("ipvlan", 0, 2, "mode l2"),
        ("ipvlan", 1, 2, "mode l3"),
        ("vxlan", 4097, 4, "id 4097"),
        ("veth", 1, 4, ""),
    ],
)
def test_a_link_says_what_tells_it_from_others_of_its_kind(kind, number, width, told):
    link = parse_link(stacked(kind, number, width))
    assert (link.state.kind, link.detail) == (kind, told)
