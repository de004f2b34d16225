"""Network namespaces, links, addresses, routes and ping on the real kernel, read back by ip(8)."""

import ast
import contextlib
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import network
from labkit.kernel.network import NetworkNamespace

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def lab():
    """Work as the lab "2.2" and leave nothing of it."""
    before = ledger.owner()
    ledger.own("2.2")
    yield
    ledger.undo("2.2")
    ledger.own(before)


@pytest.fixture
def pair():
    """Two namespaces joined by a veth pair with addresses, up."""
    one, two = NetworkNamespace.create("namespace1"), NetworkNamespace.create("namespace2")
    network.veth("veth1", "veth2", one, two)
    network.address("veth1", "192.168.1.1/24", one)
    network.address("veth2", "192.168.1.2/24", two)
    network.up("veth1", one)
    network.up("veth2", two)
    return one, two


@pytest.fixture
def foreign():
    """A namespace `namespace1` that somebody else made."""
    ip("netns add namespace1")
    yield os.stat("/run/netns/namespace1").st_ino
    if os.path.exists("/run/netns/namespace1"):
        ip("netns delete namespace1")


def ip(line):
    return subprocess.run(["ip", *line.split()], check=True, capture_output=True, text=True).stdout


def ip_json(line):
    return json.loads(ip(f"-json {line}") or "[]")


def eventually(condition, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def type_in_bash(lines):
    return subprocess.run(["bash", "-e", "-c", lines], check=True, capture_output=True, text=True).stdout


COURSE = """\
ip netns add namespace1
ip netns add namespace2
ip link add veth1 type veth peer name veth2
ip link set veth1 netns namespace1
ip link set veth2 netns namespace2
ip netns exec namespace1 ip link set dev veth1 up
ip netns exec namespace2 ip link set dev veth2 up
ip netns exec namespace1 ip addr add 192.168.1.1/24 dev veth1
ip netns exec namespace2 ip addr add 192.168.1.2/24 dev veth2
ip netns exec namespace1 ping -c 1 -W 1 192.168.1.2
ip netns exec namespace2 ping -c 1 -W 1 192.168.1.1
ip netns delete namespace1
ip netns delete namespace2"""


def do_the_course():
    one, two = NetworkNamespace.create("namespace1"), NetworkNamespace.create("namespace2")
    network.veth("veth1", "veth2")
    network.move("veth1", one)
    network.move("veth2", two)
    network.up("veth1", one)
    network.up("veth2", two)
    network.address("veth1", "192.168.1.1/24", one)
    network.address("veth2", "192.168.1.2/24", two)
    return one, two


def what_ip_sees():
    """The lab's links and addresses in the two namespaces, by ip(8), without what is drawn by lot."""
    return {
        name: [
            (link["ifname"], "UP" in link["flags"], [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["family"] == "inet"])
            for link in ip_json(f"-netns {name} address")
        ]
        for name in ("namespace1", "namespace2")
    }


def test_the_whole_lab_of_the_course_runs_and_is_traced_as_the_course_types_it():
    with trace.collecting() as typed:
        one, two = do_the_course()
        assert network.names() == ("namespace1", "namespace2")
        seen = what_ip_sees()
        assert seen["namespace1"] == [("lo", False, []), ("veth1", True, ["192.168.1.1/24"])]
        assert seen["namespace2"] == [("lo", False, []), ("veth2", True, ["192.168.1.2/24"])]
        assert network.ping("192.168.1.2", one)
        assert network.ping("192.168.1.1", two)
        one.delete()
        two.delete()
    assert typed.shell() == COURSE
    assert not os.path.exists("/run/netns/namespace1")
    assert not os.path.exists("/run/netns/namespace2")


def test_the_traced_lines_typed_into_bash_give_the_same_state():
    with trace.collecting() as typed:
        one, two = do_the_course()
        network.bridge("br0", one)
        network.set_master("veth1", "br0", one)
        network.route("default", via="192.168.1.1", netns=two)
    by_labkit = what_ip_sees(), ip_json("-netns namespace2 route")
    ledger.undo("2.2")
    eventually(lambda: "veth" not in ip("link"))
    try:
        type_in_bash(typed.shell())
        assert (what_ip_sees(), ip_json("-netns namespace2 route")) == by_labkit
        assert ip_json("-netns namespace1 link show dev veth1")[0]["master"] == "br0"
    finally:
        type_in_bash("ip netns delete namespace1; ip netns delete namespace2")


def test_a_link_comes_back_to_the_host_as_the_line_says():
    one = NetworkNamespace.create("namespace1")
    network.veth("veth1", "veth2")
    network.move("veth1", one)
    with trace.collecting() as typed:
        network.move("veth1", None, one)
    assert typed.shell() == "ip netns exec namespace1 ip link set veth1 netns 1"
    assert "veth1" in ip("link")
    network.move("veth1", one)
    type_in_bash(typed.shell())
    assert "veth1" in ip("link")


def test_cells_run_twice_find_what_they_made(pair):
    def made():
        return [state for state in network.states(rules=False) if state.name in ("namespace1", "namespace2")]

    eventually(lambda: "UP" == operstates("namespace1")["veth1"] == operstates("namespace2")["veth2"])  # by and by, and the routes with it
    before = made()
    entries = len(ledger.live("2.2"))
    with trace.collecting() as typed:
        one, two = NetworkNamespace.create("namespace1"), NetworkNamespace.create("namespace2")
        ends = network.veth("veth1", "veth2", one, two)
        network.address("veth1", "192.168.1.1/24", one)
        network.bridge("br0", one)
        network.bridge("br0", one)
        network.route("10.0.0.0/8", via="192.168.1.2", netns=one)
        network.route("10.0.0.0/8", via="192.168.1.2", netns=one)
    assert [end.ifname for end in ends] == ["veth1", "veth2"]
    assert len(ledger.live("2.2")) == entries + 1
    assert typed.shell().splitlines() == [
        "ip netns exec namespace1 ip link add br0 type bridge",
        "ip netns exec namespace1 ip route add 10.0.0.0/8 via 192.168.1.2",
    ]
    network.delete_link("br0", one)
    network.delete_link("br0", one)
    network.delete_route("10.0.0.0/8", netns=one)
    network.delete_route("10.0.0.0/8", netns=one)
    eventually(lambda: made() == before)


def test_the_course_run_twice_makes_nothing_twice():
    do_the_course()
    with trace.collecting() as typed:
        do_the_course()
    assert typed.shell().splitlines() == [line for line in COURSE.splitlines() if line.endswith(" up")]


def test_a_name_that_is_taken_is_eexist_and_says_by_what(pair):
    with pytest.raises(SyscallError, match="namespace1 has a veth link of that name") as caught:
        network.veth("veth1", "other", pair[0])
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(SyscallError, match="has a loopback link") as caught:
        network.bridge("lo", pair[0])
    assert caught.value.errno == errno.EEXIST
    assert "other" not in ip("-netns namespace1 link")
    network.veth("veth1", "other")  # another namespace, another veth1
    network.move("other", pair[0])
    with pytest.raises(SyscallError) as caught:
        network.move("veth1", pair[0])
    assert caught.value.errno == errno.EEXIST
    assert "veth1" in ip("link")


def test_a_link_that_is_not_there_is_named_with_those_that_are(pair):
    with pytest.raises(SyscallError, match="namespace1 has lo, veth1") as caught:
        network.up("veth9", pair[0])
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(LabError, match="/run/netns has namespace1, namespace2"):
        network.up("veth1", "namespace9")
    with pytest.raises(LabError, match="/run/netns has namespace1, namespace2"):
        NetworkNamespace.find("namespace9")


def test_the_kernels_own_words_are_the_cause(pair):
    with pytest.raises(SyscallError, match="the kernel says: Nexthop has invalid gateway") as caught:
        network.route("default", via="10.1.2.3", netns=pair[0])
    assert caught.value.errno == errno.ENETUNREACH
    with pytest.raises(SyscallError, match="the kernel says: ") as caught:
        network.move("lo", pair[1], pair[0])
    assert caught.value.errno in (errno.EINVAL, errno.EEXIST)


def test_a_ping_that_is_not_answered_names_what_was_measured(pair):
    one, two = pair
    assert network.ping("192.168.1.2", one).cause is None
    assert network.ping("10.0.0.1", one).cause == "namespace1 has no route to 10.0.0.1 (Network is unreachable)"
    assert network.ping("192.168.1.9", one).cause == "nobody on link veth1 of namespace1 answers for 192.168.1.9"
    assert network.ping("192.168.1.1", one).cause == "link lo in namespace1 is down"
    network.down("veth2", two)
    sent = network.ping("192.168.1.2", one)
    assert (sent.sent, sent.received, bool(sent)) == (1, 0, False)
    assert sent.cause == "link veth1 in namespace1 is up without a carrier: its other end, veth2 in namespace2, is down"
    assert network.ping("192.168.1.1", two).cause == (
        "link veth2 in namespace2, which has 192.168.1.2/24, is down, and so there is no route"
    )
    network.up("veth2", two)
    eventually(lambda: network.ping("192.168.1.2", one))


def test_a_ping_that_is_dropped_on_its_way_back_claims_no_more_than_that(pair):
    one, _ = pair
    subprocess.run(["ip", "netns", "exec", "namespace2", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all"], check=True)
    assert network.ping("192.168.1.2", one).cause == "packets left namespace1 by link veth1, and no answer came back"


def test_statistics_count_what_really_passed(pair):
    one, _ = pair
    before = network.statistics("veth1", one)
    sent = network.ping("192.168.1.2", one, count=2)
    after = network.statistics("veth1", one)
    assert sent.received == 2
    assert sent.rtt_ms > 0
    assert after.tx_packets >= before.tx_packets + 2
    assert after.rx_bytes >= before.rx_bytes + 2 * 84
    by_ip = ip_json("-netns namespace1 -statistics link show dev veth1")[0]["stats64"]
    assert (by_ip["tx"]["packets"], by_ip["rx"]["bytes"]) == (after.tx_packets, after.rx_bytes)


def test_a_bridge_joins_three_namespaces():
    switch = NetworkNamespace.create("switch")
    network.bridge("br0", switch)
    network.up("br0", switch)
    for number in (1, 2):
        host = NetworkNamespace.create(f"namespace{number}")
        network.veth(f"veth{number}", "eth0", switch, host)
        network.set_master(f"veth{number}", "br0", switch)
        network.up(f"veth{number}", switch)
        network.address("eth0", f"10.7.0.{number}/24", host)
        network.up("eth0", host)
    assert network.link("veth1", switch).master == "br0"
    assert {each["ifname"] for each in ip_json("-netns switch link show master br0")} == {"veth1", "veth2"}
    eventually(lambda: network.ping("10.7.0.2", "namespace1"))
    network.set_master("veth2", None, switch)
    assert network.ping("10.7.0.2", "namespace1").cause == "packets left namespace1 by link eth0, and no answer came back"


def test_a_route_leads_through_a_namespace_in_between():
    left, router, right = (NetworkNamespace.create(name) for name in ("left", "router", "right"))
    for host, name, net in ((left, "a0", "10.1.0"), (right, "b0", "10.2.0")):
        network.veth("eth0", name, host, router)
        for where, ifname, last in ((host, "eth0", 2), (router, name, 1)):
            network.address(ifname, f"{net}.{last}/24", where)
            network.up(ifname, where)
    subprocess.run(["ip", "netns", "exec", "router", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)
    assert network.ping("10.2.0.2", left).cause == "left has no route to 10.2.0.2 (Network is unreachable)"
    network.route("default", via="10.1.0.1", netns=left)
    table = network.route("10.1.0.0/24", via="10.2.0.1", netns=right)
    assert [hop.gateway for hop in table if hop.destination == "10.1.0.0/24"] == ["10.2.0.1"]
    eventually(lambda: network.ping("10.2.0.2", left))
    network.delete_route("default", netns=left)
    assert not any(hop["dst"] == "default" for hop in ip_json("-netns left route"))


def test_addresses_of_the_other_family_and_their_removal(pair):
    one, _ = pair
    state = network.address("veth1", "fd00:1::1/64", one)
    assert "fd00:1::1/64" in state.addresses
    state = network.delete_address("veth1", "fd00:1::1/64", one)
    state = network.delete_address("veth1", "fd00:1::1/64", one)
    assert "fd00:1::1/64" not in state.addresses
    network.route("fd00:9::/64", ifname="veth1", netns=one)
    network.route("default", via="fe80::1", ifname="veth1", netns=one)
    table = network.route("default", via="192.168.1.2", netns=one)
    assert {hop.gateway for hop in table if hop.destination == "default"} == {"fe80::1", "192.168.1.2"}
    assert ip_json("-netns namespace1 -6 route show default")[0]["gateway"] == "fe80::1"
    network.delete_route("default", via="fe80::1", ifname="veth1", netns=one)
    assert ip_json("-netns namespace1 -6 route show default") == []
    assert "fd00:9::/64" in {hop.destination for hop in network.routes(one)}


def test_a_foreign_namespace_is_refused_and_outlives_the_undo(foreign):
    for refused in (
        lambda: NetworkNamespace.create("namespace1"),
        lambda: NetworkNamespace.claim("namespace1"),
        lambda: NetworkNamespace("namespace1").delete(),
        lambda: network.veth("veth1", "veth2", "namespace1"),
        lambda: network.veth("veth1", "veth2", None, "namespace1"),
        lambda: network.bridge("br0", "namespace1"),
        lambda: network.up("lo", "namespace1"),
        lambda: network.address("lo", "10.0.0.1/8", "namespace1"),
        lambda: network.route("10.0.0.0/8", ifname="lo", netns="namespace1"),
    ):
        with pytest.raises(LabError, match="not this lab's"):
            refused()
    assert not ledger.live("2.2")
    ledger.undo("2.2")
    assert os.stat("/run/netns/namespace1").st_ino == foreign
    assert [link["ifname"] for link in ip_json("-netns namespace1 link")] == ["lo"]


def test_links_that_the_lab_did_not_make_are_refused():
    ip("link add other0 type bridge")
    try:
        for refused in (
            lambda: network.down("lo"),
            lambda: network.down("other0"),
            lambda: network.address("other0", "10.99.0.1/24"),
            lambda: network.delete_link("other0"),
            lambda: network.move("other0", NetworkNamespace.create("namespace1")),
            lambda: network.route("10.99.0.0/24", ifname="other0"),
        ):
            with pytest.raises(LabError, match="not this lab's"):
                refused()
        assert ip_json("address show dev other0")[0]["addr_info"] == []
    finally:
        ip("link delete other0")


FIRST = """
import os
from pathlib import Path
from labkit import ledger
from labkit.kernel.network import NetworkNamespace
def mounts():
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [words for words in lines if words[4] == "/run/netns"]
before = mounts()
NetworkNamespace.create("namespace1")
assert len(mounts()) == len(before) + 1
assert mounts()[-1][6].startswith("shared:")
ledger.undo()
assert mounts() == before
assert not os.path.exists("/run/netns")
"""


def test_the_directory_of_names_is_made_as_ip_makes_it_and_goes_with_the_undo(tmp_path):
    script = f"mount -t tmpfs none /run && exec {sys.executable} -c {shlex.quote(FIRST)}"
    environment = {**os.environ, "LABKIT_STATE": str(tmp_path)}
    run = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(run, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_namespace_of_another_lab_is_refused():
    NetworkNamespace.create("namespace1")
    ledger.own("2.1")
    try:
        with pytest.raises(LabError, match="not this lab's"):
            NetworkNamespace.create("namespace1")
        assert ledger.undo("2.1") == []
    finally:
        ledger.own("2.2")
    assert NetworkNamespace("namespace1").ours


def test_a_namespace_made_again_by_another_is_left_alone_even_with_the_same_inode():
    made = NetworkNamespace.create("namespace1")
    inode = made.inode
    for _ in range(20):  # the kernel gives the lowest free number: often the same
        ip("netns delete namespace1")
        ip("netns add namespace1")
        if made.inode == inode:
            break
    assert not made.ours
    with pytest.raises(LabError, match="not this lab's"):
        NetworkNamespace.create("namespace1")
    ledger.undo("2.2")
    assert made.exists
    ip("netns delete namespace1")


def test_what_is_made_by_hand_under_a_claimed_name_is_undone():
    NetworkNamespace.claim("namespace1")
    network.claim_link("veth1")
    ip("netns add namespace1")
    ip("netns delete namespace1")
    ip("netns add namespace1")
    ip("link add veth1 type veth peer name veth2")
    assert NetworkNamespace.create("namespace1").ours
    network.up("veth1")
    assert NetworkNamespace.claim("namespace1").ours
    ledger.undo("2.2")
    assert not os.path.exists("/run/netns/namespace1")
    assert "veth1" not in ip("link")


def test_a_link_made_by_somebody_else_cannot_be_claimed():
    ip("link add veth1 type veth peer name veth2")
    try:
        with pytest.raises(SyscallError) as caught:
            network.claim_link("veth1")
        assert caught.value.errno == errno.EEXIST
        with pytest.raises(SyscallError) as caught:
            network.veth("veth1", "veth3")
        assert caught.value.errno == errno.EEXIST
        ledger.undo("2.2")
        assert "veth1" in ip("link")
    finally:
        ip("link delete veth1")


def test_the_undo_finds_links_in_the_host_and_where_they_were_moved(pair):
    network.veth("vetha", "vethb")
    network.bridge("brlab")
    network.veth("vethc", "vethd")
    network.move("vethc", pair[0])
    network.veth("vethe", "vethf")
    ip("link set vethe netns namespace1")  # by hand
    assert {"vetha", "vethb", "brlab", "vethd", "vethf"} <= {link.ifname for link in network.links()}
    ledger.undo("2.2")
    assert not {link.ifname for link in network.links()} & {"vetha", "vethb", "brlab", "vethc", "vethd", "vethe", "vethf"}
    assert not ledger.live("2.2")


KILLED = """
import os, signal, sys
from labkit import ledger
from labkit.kernel import network
from labkit.kernel.network import namespace as network_namespaces, netlink
ledger.own("2.2")
one = network.NetworkNamespace.create("namespace1")
network.veth("vetha", "vethb")
{last}
os.kill(os.getpid(), signal.SIGKILL)
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    "last",
    [
        "network.move('vetha', one)",
        "network.veth('veth1', 'veth2', one, network.NetworkNamespace.create('namespace2'))",
        f"ledger.made = lambda *_: {DIE}\nnetwork.NetworkNamespace.create('namespace2')",
        f"ledger.made = lambda *_: {DIE}\nnetwork.veth('veth3', 'veth4')",
        f"ledger.made = lambda *_: {DIE}\nnetwork.bridge('brlab')",
        f"made = ledger.made\ncalls = []\nledger.made = lambda *a: {DIE} if calls else calls.append(made(*a))\nnetwork.move('vetha', one)",
        f"network_namespaces.syscalls.unshare = lambda *_: {DIE}\nnetwork.NetworkNamespace.create('namespace2')",
        f"network_namespaces.Path.unlink = lambda *_, **__: {DIE}\none.delete()",
    ],
)
def test_after_a_kill_anywhere_the_undo_leaves_nothing(last):
    done = subprocess.run([sys.executable, "-c", KILLED.format(last=last)], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    ledger.undo("2.2")
    assert network.names() == ()
    assert not [name for name in os.listdir("/run/netns") if name.startswith("namespace")]
    eventually(lambda: not {"vetha", "vethb", "veth3", "veth4", "brlab"} & set(os.listdir("/sys/class/net")))


def operstates(name):
    return {link.ifname: link.operstate for state in network.states() if state.name == name for link in state.links}


def what_the_states_say(places):
    """(links, routes) of each place: a link as its facts, in the order of the kernel."""
    return {
        state.name: (
            [
                (link.ifname, link.index, link.mac, link.mtu, link.up, link.operstate, link.kind, sorted(link.addresses))
                for link in state.links
            ],
            {(hop.destination, hop.gateway, hop.ifname, hop.source) for hop in state.routes},
        )
        for state in network.states()
        if state.name in places
    }


def what_ip_says(places):
    def link(of):
        kind = "loopback" if of["link_type"] == "loopback" else of.get("linkinfo", {}).get("info_kind", "")
        addresses = sorted(f"{each['local']}/{each['prefixlen']}" for each in of["addr_info"])
        return of["ifname"], of["ifindex"], of["address"], of["mtu"], "UP" in of["flags"], of["operstate"], kind, addresses

    def route(of):
        destination = of["dst"] if of.get("type", "unicast") == "unicast" else f"{of['type']} {of['dst']}"
        return destination, of.get("gateway", ""), of.get("dev", ""), of.get("prefsrc", "")

    return {
        name: (
            [link(each) for each in ip_json(f"{where} -details address")],
            {route(each) for each in ip_json(f"{where} -details route") + ip_json(f"{where} -6 -details route")},
        )
        for name, where in places.items()
    }


def test_states_say_what_ip_says(pair):
    one, _ = pair
    network.veth("vethhost", "inside", None, one)
    network.address("vethhost", "10.8.0.1/24")
    network.up("vethhost")
    network.route("10.77.0.0/16", via="192.168.1.2", netns=one)
    ip("-netns namespace1 route add blackhole 10.66.0.0/16")
    places = {"host": "", "namespace1": "-netns namespace1", "namespace2": "-netns namespace2"}
    said = {}

    def alike():  # operational states, and the routes that wait for them, follow by and by: two readings may have a change between them
        said["states"], said["ip"] = what_the_states_say(places), what_ip_says(places)
        return said["states"] == said["ip"]

    with contextlib.suppress(AssertionError):
        eventually(alike)
    assert said["states"] == said["ip"]
    inodes = {state.name: state.inode for state in network.states()}
    assert inodes["namespace1"] == os.stat("/run/netns/namespace1").st_ino


def test_the_other_end_of_a_veth_is_found_in_whatever_namespace_it_is(pair):
    one, two = pair
    network.veth("vethhost", "inside", None, one)
    network.veth("same1", "same2", two, two)
    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        host = os.stat("/proc/self/ns/net").st_ino
        eventually(lambda: os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino != host)
        network.veth("out", "in", one, sleeper.pid)
        nameless = f"net:[{os.stat(f'/proc/{sleeper.pid}/ns/net').st_ino}]"
        peers = {(state.name, link.ifname): link.peer for state in network.states() for link in state.links if link.kind == "veth"}
        assert peers == {
            ("namespace1", "veth1"): ("namespace2", "veth2"),
            ("namespace2", "veth2"): ("namespace1", "veth1"),
            ("host", "vethhost"): ("namespace1", "inside"),
            ("namespace1", "inside"): ("host", "vethhost"),
            ("namespace2", "same1"): ("namespace2", "same2"),
            ("namespace2", "same2"): ("namespace2", "same1"),
            ("namespace1", "out"): (nameless, "in"),
            (nameless, "in"): ("namespace1", "out"),
        }
    finally:
        sleeper.kill()
        sleeper.wait()
    state = next(state for state in network.states() if state.name == "namespace1")
    assert "out" not in [link.ifname for link in state.links]  # its other end was dying: that was awaited


def test_twins_with_the_same_numbers_keep_their_own_peers():
    names = [f"twin{number}" for number in range(4)]
    for name in names:
        NetworkNamespace.create(name)
    network.veth("eth0", "eth0", "twin0", "twin1")
    network.veth("eth0", "eth0", "twin2", "twin3")
    peers = {state.name: link.peer for state in network.states() for link in state.links if link.ifname == "eth0" and state.name in names}
    assert peers == {"twin0": ("twin1", "eth0"), "twin1": ("twin0", "eth0"), "twin2": ("twin3", "eth0"), "twin3": ("twin2", "eth0")}


def test_nft_rules_are_seen_where_there_is_a_table(pair):
    assert NetworkNamespace("namespace2").state().rules == ()
    rules = "add table ip lab; add chain ip lab in { type filter hook input priority 0 ; }; add rule ip lab in tcp dport 80 counter accept"
    subprocess.run(["ip", "netns", "exec", "namespace1", "nft", rules], check=True)
    found = {state.name: state.rules for state in network.states()}
    assert found["namespace1"] == (
        "table ip lab",
        "table ip lab chain in",
        "table ip lab chain in type filter hook input priority filter; policy accept;",
        "table ip lab chain in tcp dport 80 counter accept",
    )
    assert found["namespace2"] == ()


def test_the_library_keeps_no_namespace_alive_that_was_deleted_by_hand(pair):
    network.states()
    network.ping("192.168.1.2", pair[0])
    ip("netns delete namespace1")
    eventually(lambda: "veth2" not in ip("-netns namespace2 link"))
    assert [state.name for state in network.states() if state.name.startswith("namespace")] == ["namespace2"]
    with pytest.raises(LabError, match="there is no network namespace namespace1"):
        network.up("veth1", "namespace1")


def test_no_thread_or_file_is_left_and_none_in_another_namespace(pair):
    network.states()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(20):
        network.states()
        network.up("veth1", pair[0])
        with pytest.raises(SyscallError):
            network.up("veth9", pair[0])
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)
    eventually(lambda: len(os.listdir("/proc/self/task")) == threading.active_count())  # a thread that ended is a task for a moment
    own = os.readlink("/proc/self/ns/net")
    assert {os.readlink(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")} == {own}


def test_many_threads_can_work_at_once():
    errors = []

    def work(number):
        try:
            netns = NetworkNamespace.create(f"many{number}")
            for turn in range(3):
                network.veth(f"veth{turn}", f"peer{turn}", netns, netns)
                network.address(f"veth{turn}", f"10.{number}.{turn}.1/24", netns)
                network.up(f"veth{turn}", netns)
                network.states(rules=False)
            assert len(network.links(netns)) == 7
            netns.delete()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not [name for name in network.names() if name.startswith("many")]


def test_namespaces_that_come_and_go_do_not_disturb_the_reader():
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            subprocess.run(["ip", "netns", "add", "churn"], check=True)
            subprocess.run(["ip", "netns", "delete", "churn"], check=True)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(50):
            assert network.states(rules=False)[0].name == "host"
    finally:
        stop.set()
        thread.join()


def test_a_reader_gets_the_host_first_and_an_inventory_is_taken_as_it_is():
    NetworkNamespace.create("namespace1")
    assert [state.name for state in network.states(namespaces=())] == ["host", "namespace1"]


def test_fifty_namespaces_are_read_with_the_other_end_of_each_cable():
    for number in range(50):
        ip(f"netns add fifty{number}")
    try:
        for number in range(0, 50, 2):
            ip(f"link add eth0 netns fifty{number} type veth peer name eth0 netns fifty{number + 1}")
        found = {state.name: link.peer for state in network.states(namespaces=()) for link in state.links if link.ifname == "eth0"}
    finally:
        for number in range(50):
            ip(f"netns delete fifty{number}")
    assert {name: peer for name, peer in found.items() if name.startswith("fifty")} == {
        f"fifty{number}": (f"fifty{number ^ 1}", "eth0") for number in range(50)
    }


CELL = """
import asyncio
asyncio.get_running_loop()
import os, threading
from labkit import ledger
from labkit.kernel import network
from labkit.kernel.network import NetworkNamespace
ledger.own("2.2")
one, two = NetworkNamespace.create("namespace1"), NetworkNamespace.create("namespace2")
network.veth("veth1", "veth2")
network.move("veth1", one); network.move("veth2", two)
for name, netns, last in (("veth1", one, 1), ("veth2", two, 2)):
    network.address(name, f"192.168.1.{last}/24", netns); network.up(name, netns)
there, back = network.ping("192.168.1.2", one), network.ping("192.168.1.1", two)
peers = {state.name: link.peer for state in network.states() for link in state.links if link.ifname.startswith("veth")}
def inside():
    return {os.readlink(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")}
one.delete(); two.delete()
for turn in range(300):
    if len(inside()) > 1:  # a thread that ended is a task for a moment
        await asyncio.sleep(0.01)
(bool(there), bool(back), peers, len(inside()))
"""


NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.stdin.read())])
NotebookClient(book, timeout=60, kernel_name="python3").execute()
print(book.cells[0].outputs[-1]["data"]["text/plain"])
"""


def test_the_whole_lab_works_in_a_running_notebook_kernel():
    run = [sys.executable, "-c", NOTEBOOK]
    done = subprocess.run(run, input=CELL, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peers = {"namespace1": ("namespace2", "veth2"), "namespace2": ("namespace1", "veth1")}
    assert ast.literal_eval(done.stdout) == (True, True, peers, 1)
    assert network.names() == ()
