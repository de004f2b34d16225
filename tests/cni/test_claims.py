"""What a lab's networks leave goes with the ledger: attachments, chains that plugins share, addresses, also after a kill."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plumbing import inside, shell

from labkit import ledger
from labkit.cni import Attachment, Caller, Network, claims
from labkit.cni.records import Record
from labkit.errors import LabError
from labkit.kernel import network as links
from labkit.kernel.network import NetworkNamespace

OWNER = "tests of claims"
LOCAL = {"type": "host-local", "subnet": "10.77.0.0/24"}
CHAIN = [
    {"type": "bridge", "bridge": "cnitest0", "isGateway": True, "ipMasq": True, "ipam": LOCAL},
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall"},
    {"type": "bandwidth", "egressRate": 8_000_000, "egressBurst": 80_000},
]
PORTS = {"portMappings": [{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}]}


def chain(*plugins: dict, name: str = "lab") -> Network:
    return Network.parse(json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": list(plugins)}))


def rules() -> list[str]:
    """Return the chains and rules of iptables, without what it counts and when."""
    saved = "\n".join(shell(f"{family}-save") for family in ("iptables", "ip6tables"))
    return sorted(line.partition(" [")[0] for line in saved.splitlines() if not line.startswith("#"))


@pytest.fixture
def owned(plain_packet_filter: None) -> Iterator[NetworkNamespace]:
    """A container of a lab; the lab's ledger is undone at the end."""
    with ledger.owned_by(OWNER):
        yield NetworkNamespace.create("web")
        ledger.undo(OWNER)


def left() -> set[str]:
    """Return what of a lab is still there: links of the host's, names of namespaces."""
    return {*shell("ls /sys/class/net").split(), *links.names()}


def test_the_ledger_takes_a_network_down_with_what_plugins_share(owned: NetworkNamespace, tmp_path: Path) -> None:
    before, there = rules(), left() - {"web"}
    caller = claims.caller(tmp_path / "state")
    link = Attachment("web", owned.path, capabilities=PORTS)
    for _ in range(2):  # a cell is run twice
        claims.attach(caller, chain(*CHAIN), link)
    assert {"cni caller", "cni attachment", "link-claim"} <= {entry.kind for entry in ledger.live(OWNER)}
    assert any("CNI-DN-" in rule for rule in rules())
    ledger.undo(OWNER)
    assert (rules(), left()) == (before, there)
    assert caller.attached() == ()
    assert ledger.live(OWNER) == []


def test_the_network_of_somebody_else_stays(owned: NetworkNamespace, tmp_path: Path) -> None:
    shell("ip netns add other")
    try:
        claims.attach(claims.caller(tmp_path / "state"), chain(*CHAIN), Attachment("web", owned.path))
        theirs = Caller(tmp_path / "theirs")
        bridge = {**CHAIN[0], "bridge": "cnitest1", "ipam": {"type": "host-local", "subnet": "10.78.0.0/24"}}
        net, link = chain(bridge, {"type": "firewall"}, name="theirs"), Attachment("other", "/run/netns/other")
        theirs.add(net, link)
        ledger.undo(OWNER)
        theirs.check(net, link)
        inside("other", "ping -c 1 -W 2 10.78.0.1")
        theirs.delete(net, link)
    finally:
        shell("ip netns delete other")


def test_a_bridge_of_somebody_else_is_refused_before_anything_is_made(owned: NetworkNamespace, tmp_path: Path) -> None:
    shell("ip link add cnitest0 type bridge")
    before = rules()
    with pytest.raises(OSError, match="EEXIST"):
        claims.attach(claims.caller(tmp_path / "state"), chain(*CHAIN), Attachment("web", owned.path))
    assert rules() == before
    assert "eth0" not in inside("web", "ip -o link")


@pytest.mark.parametrize("lost", ["netns", "daemon"])
def test_what_cannot_be_asked_any_more_is_given_up(owned: NetworkNamespace, tmp_path: Path, lost: str) -> None:
    """The daemon of dhcp ends with the lab's processes, and a namespace may be deleted by hand: neither keeps a lab open."""
    caller = claims.caller(tmp_path / "state")
    if lost == "netns":
        claims.attach(caller, chain(*CHAIN, {"type": "sbr"}), Attachment("web", owned.path, capabilities=PORTS))
        owned.delete()
    else:
        caller._records.write(record := _dhcp(owned))  # as ADD leaves it: a daemon that answers is what another test has
        ledger.intend("cni attachment", state=str(caller.state), network=record.network.name, container="web", ifname="eth0")
    ledger.undo(OWNER)
    assert caller.attached() == ()
    assert "CNI-DN-" not in "".join(rules())


def _dhcp(web: NetworkNamespace) -> Record:
    plugin = {"type": "macvlan", "master": "lo", "ipam": {"type": "dhcp", "daemonSocketPath": "/nowhere"}}
    return Record(chain(plugin), Attachment("web", web.path), 1, {"cniVersion": "1.0.0"})


def test_a_network_whose_plugins_are_called_by_hand_goes_by_its_name(owned: NetworkNamespace, tmp_path: Path) -> None:
    before = rules()
    claims.network("labkit-raw")
    links.claim_link("cnitest0")
    (tmp_path / "net.conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": "labkit-raw", **CHAIN[0]}))
    environment = f"CNI_COMMAND=ADD CNI_CONTAINERID=web CNI_NETNS={owned.path} CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni"
    shell(f"{environment} /usr/lib/cni/bridge < {tmp_path}/net.conf")
    assert (claims.LEASES / "labkit-raw/10.77.0.2").exists()
    ledger.undo(OWNER)
    assert rules() == before
    assert not (claims.LEASES / "labkit-raw").exists()


def test_a_name_that_has_addresses_already_is_refused(owned: NetworkNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASES", tmp_path)
    (tmp_path / "taken").mkdir()
    with pytest.raises(LabError, match="there is a network taken already"):
        claims.network("taken")


@pytest.mark.parametrize("wait", range(6))
def test_killed_while_plugins_are_called_nothing_is_left(owned: NetworkNamespace, tmp_path: Path, wait: int) -> None:
    before, there = rules(), left() - {"web"}
    signs: list[Callable[[], object]] = [
        lambda: Caller(tmp_path / "state").attached("web"),
        lambda: Path("/sys/class/net/cnitest0").exists(),
        lambda: "CNI-" in shell("iptables-save -t nat"),
        lambda: "CNI-DN" in shell("iptables-save -t nat"),
        lambda: "CNI-FORWARD" in shell("iptables-save -t filter"),
        lambda: "bwp" in shell("ls /sys/class/net"),
    ]
    caller = claims.caller(tmp_path / "state")
    pid = os.fork()
    if pid == 0:
        try:
            claims.attach(caller, chain(*CHAIN), Attachment("web", owned.path, capabilities=PORTS))
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while not signs[wait]() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ledger.undo(OWNER)
    deadline = time.monotonic() + 10  # the kernel takes a network namespace down in a work queue, with the ends of its veths
    while left() != there and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (rules(), left()) == (before, there)
