"""rkt's networks through real plugins: what the pod has, how it is reached, and that nothing is left, whenever it is killed."""

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from plumbing import inside, shell

from labkit import ledger
from labkit.appc import networks, pod_netns
from labkit.appc.networks import NetworkError, Networks
from labkit.appc.ports import ForwardedPort
from labkit.cni import Caller
from labkit.kernel.network import netlink

KILLS = 32
FORWARDED = ("-i rktout0", "-o rktout0")
OUTSIDE = (
    "ip netns add outside",
    "ip link add rktout0 type veth peer name eth0 netns outside",
    "ip addr add 10.66.0.1/24 dev rktout0; ip link set rktout0 up",
    "ip -n outside addr add 10.66.0.2/24 dev eth0; ip -n outside link set eth0 up",
    *(f"iptables -I FORWARD {rule} -j ACCEPT" for rule in FORWARDED),  # where dockerd lets nothing through
)
"""Another machine beside this one."""


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[str]:
    """The UUID of a pod; what it still has at the end is taken down."""
    pod_uuid = str(uuid.uuid4())
    yield pod_uuid
    networks.down(pod_uuid, tmp_path / "state")


def wanted(tmp_path: Path, *texts: str) -> Networks:
    return Networks.parse(texts, tmp_path / "state", tmp_path / "etc")


def up(pod: str, tmp_path: Path, *texts: str, forwarded: tuple[ForwardedPort, ...] = ()) -> tuple[networks.NetInfo, ...]:
    return networks.up(pod, None, wanted(tmp_path, *texts), tmp_path / "pod", forwarded)


def custom(tmp_path: Path, **configuration: object) -> None:
    (tmp_path / "etc/net.d").mkdir(parents=True, exist_ok=True)
    (tmp_path / f"etc/net.d/10-{configuration['name']}.conf").write_text(json.dumps(configuration))


def left(pod: str, tmp_path: Path) -> list[str]:
    """Name what there still is of a pod, by the kernel and by rkt's directory."""
    found = [line for line in shell("iptables-save").splitlines() if pod[:8] in line or "CNI-" in line]
    found += [name for name in os.listdir("/run/netns") if pod in name]
    found += [link for link in os.listdir("/sys/class/net") if link.startswith("veth")]
    files = [file for file in (tmp_path / "state").rglob("*") if file.is_file()]
    return found + [str(file) for file in files if file.name not in ("tables", "lock", "last_reserved_ip.0")]


def test_default_is_a_link_to_the_host_with_the_address_of_rkts(pod: str, tmp_path: Path) -> None:
    (info,) = up(pod, tmp_path)
    assert (info.net_name, info.if_name, info.ip, info.mask) == ("default", "eth0", "172.16.28.2", "255.255.255.0")
    assert networks.shown(networks.load(tmp_path / "pod")) == "default:ip4=172.16.28.2"
    assert (tmp_path / "pod/netns").read_text().strip() == str(pod_netns.path(pod))
    assert json.loads((tmp_path / "pod/net/99-default.conf").read_text())["type"] == "ptp"
    netns = pod_netns.path(pod).name
    assert "default via 172.16.28.1" in inside(netns, "ip route")
    inside(netns, "ping -c 1 -W 2 172.16.28.1")
    inside(netns, "ping -c 1 -W 2 127.0.0.1")
    networks.down(pod, tmp_path / "state")
    assert left(pod, tmp_path) == []


def test_none_has_its_loopback_and_host_has_no_namespace(pod: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert networks.up(pod, None, wanted(tmp_path, "none"), tmp_path / "pod", say=said.append) == ()
    assert said == ["networking namespace with loopback only"]
    assert [line.split()[1] for line in inside(pod_netns.path(pod).name, "ip -o -4 addr").splitlines()] == ["lo"]
    networks.down(pod, tmp_path / "state")
    assert up(pod, tmp_path, "host") == ()
    assert not pod_netns.path(pod).exists()


def test_a_custom_network_and_default_restricted_beside_it(pod: str, tmp_path: Path) -> None:
    """The line of the course: a bridge without a word about versions."""
    custom(tmp_path, name="containers", type="bridge", bridge="rkttest1", ipam={"type": "host-local", "subnet": "172.19.0.0/16"})
    one, two = up(pod, tmp_path, "containers:IP=172.19.0.77")
    assert (one.net_name, one.if_name, one.ip, one.args) == ("containers", "eth0", "172.19.0.77", "IP=172.19.0.77")
    assert (two.net_name, two.if_name, two.ip) == ("default-restricted", "eth1", "172.31.0.2")
    assert "default" not in inside(pod_netns.path(pod).name, "ip route")
    assert "master rkttest1" in shell("ip -o link")
    networks.down(pod, tmp_path / "state")
    assert left(pod, tmp_path) == []


def test_what_cannot_be_set_up_leaves_nothing(pod: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="networks not found: nosuchnet"):
        up(pod, tmp_path, "nosuchnet")
    custom(tmp_path, name="zbad", type="macvlan", master="nosuchlink", ipam={"type": "host-local", "subnet": "10.9.0.0/16"})
    custom(tmp_path, name="good", type="ptp", ipMasq=True, ipam={"type": "host-local", "subnet": "10.8.0.0/16"})
    with pytest.raises(Exception, match="plugin macvlan: ADD"):
        up(pod, tmp_path, "good,zbad")
    assert left(pod, tmp_path) == []


@contextmanager
def answering(netns: Path, port: int, word: bytes) -> Iterator[None]:
    """Serve a word to each who connects, from within a network namespace."""
    listening = netlink.within(str(netns), lambda: socket.create_server(("0.0.0.0", port)))

    def serve() -> None:
        while True:
            try:
                one, peer = listening.accept()
            except OSError:
                return
            with one:
                one.sendall(word + b" to " + peer[0].encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def ask(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=5) as connection:
        return connection.recv(100).decode()


def test_a_port_of_the_host_leads_into_the_pod_also_from_127_0_0_1_and_from_outside(pod: str, tmp_path: Path) -> None:
    up(pod, tmp_path, forwarded=(ForwardedPort("tcp", 8080, 80),))
    for line in OUTSIDE:
        shell(line)
    try:
        with answering(pod_netns.path(pod), 80, b"pod"):
            assert ask("127.0.0.1", 8080) == "pod to 172.16.28.1"
            assert ask("10.66.0.1", 8080).startswith("pod to ")
            assert netlink.within("/run/netns/outside", lambda: ask("10.66.0.1", 8080)) == "pod to 10.66.0.2"
    finally:
        for rule in FORWARDED:
            shell(f"iptables -D FORWARD {rule} -j ACCEPT")
        shell("ip netns delete outside")
    networks.down(pod, tmp_path / "state")
    assert left(pod, tmp_path) == []
    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 8080)


def test_two_pods_at_once_do_not_meet(tmp_path: Path) -> None:
    pods = [str(uuid.uuid4()) for _ in range(4)]
    found: dict[str, str] = {}

    def one(number: int) -> None:
        pod = pods[number]
        (info,) = networks.up(pod, None, wanted(tmp_path), tmp_path / pod, [ForwardedPort("tcp", 8080 + number, 80)])
        found[pod] = info.ip
        if number % 2:
            networks.down(pod, tmp_path / "state")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(pods))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found.values())) == len(pods)
    saved = shell("iptables-save")
    assert [name for name in pods if f"RKT-PFWD-DNAT-{name[:8]}" in saved] == [pods[0], pods[2]]
    networks.down(pods[0], tmp_path / "state")
    with answering(pod_netns.path(pods[2]), 80, b"third"):
        assert ask("127.0.0.1", 8082).startswith("third")
    networks.down(pods[2], tmp_path / "state")
    assert [thing for pod in pods for thing in left(pod, tmp_path)] == []


def test_the_tables_that_pods_brought_go_with_the_last(tmp_path: Path) -> None:
    """In a network namespace in which nobody has used iptables."""
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    found = []

    def try_it() -> None:
        found.append(shell("nft list tables"))
        for pod in (one, two):
            networks.up(pod, None, wanted(tmp_path), tmp_path / pod, [ForwardedPort("tcp", 8080, 80)])
        found.append(shell("nft list tables"))
        networks.down(one, tmp_path / "state")
        found.append(shell("nft list tables"))
        networks.down(two, tmp_path / "state")
        found.append(shell("nft list tables"))

    shell("ip netns add fresh")
    try:
        netlink.within("/run/netns/fresh", try_it)
    finally:
        shell("ip netns delete fresh")
    assert found == ["", "table ip nat\n", "table ip nat\n", ""]


def test_in_a_lab_the_ledger_takes_a_pods_networks_down(pod: str, tmp_path: Path) -> None:
    with ledger.owned_by("8.2"):
        up(pod, tmp_path, forwarded=(ForwardedPort("tcp", 8080, 80),))
        assert {"rkt networks", "netns"} <= {entry.kind for entry in ledger.live("8.2")}
    ledger.undo("8.2")
    assert left(pod, tmp_path) == []
    assert ledger.live("8.2") == []


@pytest.mark.parametrize("owner", ["", "8.2"], ids=["collected by rkt", "by the ledger of a lab"])
def test_killed_at_any_moment_nothing_is_left(tmp_path: Path, owner: str) -> None:
    """A supervisor is killed, sooner and later, while it sets networks and ports up; whoever collects the pod finds all of it."""
    custom(
        tmp_path,
        name="containers",
        type="bridge",
        bridge="rkttest1",
        isGateway=True,
        ipMasq=True,
        ipam={"type": "host-local", "subnet": "172.19.0.0/16"},
    )
    networks_wanted = wanted(tmp_path, "containers,default")

    def begin(pod: str) -> int:
        """Start a supervisor that sets up; return its pid."""
        pid = os.fork()
        if pid == 0:
            try:
                with ledger.owned_by(owner):
                    networks.up(pod, None, networks_wanted, tmp_path / "pod", [ForwardedPort("tcp", 8080, 80)])
            finally:
                os._exit(0)
        return pid

    def collect(pod: str) -> None:
        if owner:
            ledger.undo(owner)
        else:
            networks.down(pod, tmp_path / "state")

    for number in range(KILLS):
        pid = begin(pod := str(uuid.uuid4()))
        sign, reached = list(signs(pod, tmp_path).items())[number % 4]
        wait_for(reached, sign)
        time.sleep(0.004 * (number // 4))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        collect(pod)
        deadline = time.monotonic() + 5  # the kernel takes a network namespace down in a work queue, with the ends of its veths
        while (there := left(pod, tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert there == [], f"killed {4 * (number // 4)} ms after {sign}"
        collect(pod)


def signs(pod: str, tmp_path: Path) -> dict[str, Callable[[], bool]]:
    """Return what there is on the way, in its order, and how it is seen."""
    caller = Caller(tmp_path / "state")
    return {
        "its namespace": pod_netns.path(pod).exists,
        "its first network": lambda: bool(caller.attached(pod)),
        "its second network": lambda: len(caller.attached(pod)) == 2,
        "its ports": lambda: f"RKT-PFWD-DNAT-{pod[:8]}" in shell("iptables-save -t nat"),
    }


def wait_for(reached: Callable[[], bool], sign: str) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, f"{sign} never came"
        time.sleep(0.001)
