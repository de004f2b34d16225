"""A pod's networks and ports as rkt takes them from its command line and from net.d, without a kernel."""

import json
from pathlib import Path

import pytest

from labkit.appc import networks, ports
from labkit.appc.networks import NetInfo, NetworkError, Networks
from labkit.appc.pod_manifest import PodManifest
from labkit.appc.ports import ForwardedPort, PortError

UUID = "31733fb7-8a7f-4bd5-9b2c-0d8a0c1f2e3d"


def wanted(tmp_path: Path, *texts: str) -> Networks:
    return Networks.parse(texts, tmp_path / "state", tmp_path)


def names(tmp_path: Path, *texts: str) -> list[str]:
    return [network.name for network in wanted(tmp_path, *texts).chosen()]


@pytest.fixture
def net_d(tmp_path: Path) -> Path:
    (tmp_path / "net.d").mkdir()
    for file, name in (("20-b.conf", "b"), ("10-containers.conf", "containers"), ("30-b.conf", "b"), ("README", "c")):
        (tmp_path / "net.d" / file).write_text(json.dumps({"name": name, "type": "bridge"}))
    return tmp_path


def test_without_a_word_the_pod_is_on_default(tmp_path: Path) -> None:
    assert names(tmp_path) == names(tmp_path, "") == names(tmp_path, "default") == ["default"]


def test_a_custom_network_brings_default_restricted_unless_default_is_asked_for(net_d: Path) -> None:
    assert names(net_d, "containers") == ["containers", "default-restricted"]
    assert names(net_d, "b,containers") == ["containers", "b", "default-restricted"]
    assert names(net_d, "b", "default") == ["b", "default"]
    assert names(net_d, "all") == ["containers", "b", "default"]


def test_a_file_of_net_d_takes_the_place_of_default(net_d: Path) -> None:
    (net_d / "net.d/50-mine.conf").write_text('{"name": "default", "type": "bridge"}')
    assert [network.plugins[0]["type"] for network in wanted(net_d, "default").chosen()] == ["bridge"]


def test_none_and_host_stand_alone(tmp_path: Path) -> None:
    assert (names(tmp_path, "none"), names(tmp_path, "host")) == ([], [])
    with pytest.raises(NetworkError, match="network host cannot be combined"):
        wanted(tmp_path, "host,default")
    with pytest.raises(NetworkError, match="given twice"):
        wanted(tmp_path, "default", "default")


def test_a_network_that_is_not_there_is_named_as_rkt_does(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"^networks not found: nosuchnet$"):
        names(tmp_path, "nosuchnet")


def test_words_for_plugins_go_with_their_network(net_d: Path) -> None:
    found = wanted(net_d, "containers:IP=172.19.0.9;FOO=bar,default")
    assert found.wanted == (("containers", (("IP", "172.19.0.9"), ("FOO", "bar"))), ("default", ()))
    for bad in ("containers:IP", ":IP=1", ",", "a:=x"):
        with pytest.raises(NetworkError):
            wanted(net_d, bad)


def test_net_info_is_read_back_and_shown_as_rkt_shows_it(tmp_path: Path) -> None:
    infos = (
        NetInfo("containers", "net/10-containers.conf", "eth0", "172.19.0.2", "255.255.0.0", "A=1"),
        NetInfo("default-restricted", "net/99-default-restricted.conf", "eth1", "172.31.0.2", "255.255.0.0"),
    )
    (tmp_path / "net-info.json").write_text(json.dumps([one.record() for one in infos]))
    assert networks.load(tmp_path) == infos
    assert networks.shown(infos) == "containers:ip4=172.19.0.2, default-restricted:ip4=172.31.0.2"
    for torn in ("[{", "3", "[3]"):
        (tmp_path / "net-info.json").write_text(torn)
        assert networks.load(tmp_path) == ()
    assert networks.load(tmp_path / "nowhere") == ()


def test_ports_lead_through_the_first_network_that_masquerades_else_the_last() -> None:
    one, two, three = (NetInfo(name, "", "eth0", "10.0.0.2", "", masquerades=name == "b") for name in "abc")
    assert networks.forwardable([one, two, three]) is two
    assert networks.forwardable([one, three]) is three
    with pytest.raises(NetworkError):
        networks.forwardable([])


def manifest(exposed: list[dict], app_ports: list[dict]) -> PodManifest:
    app = {"exec": ["/bin/sh"], "user": "0", "group": "0", "ports": app_ports}
    apps = [{"name": "web", "image": {"id": "sha512-" + "0" * 128}, "app": app}]
    return PodManifest.parse({"acVersion": "0.8.11", "acKind": "PodManifest", "apps": apps, "ports": exposed})


def test_a_port_is_found_by_its_name_and_a_count_is_that_many() -> None:
    found = ports.forwarded(
        manifest(
            [{"name": "http", "hostPort": 8080}, {"name": "many", "hostPort": 9000, "hostIP": "127.0.0.1"}],
            [{"name": "http", "protocol": "tcp", "port": 80}, {"name": "many", "protocol": "udp", "port": 53, "count": 2}],
        )
    )
    assert found == (
        ForwardedPort("tcp", 8080, 80),
        ForwardedPort("udp", 9000, 53, "127.0.0.1"),
        ForwardedPort("udp", 9001, 54, "127.0.0.1"),
    )


def test_a_port_that_no_app_has_is_named_as_rkt_does() -> None:
    with pytest.raises(PortError, match=r'^port name "nope" could not be found in any apps$'):
        ports.forwarded(manifest([{"name": "nope", "hostPort": 80}], []))


def test_ports_beyond_the_last_one_are_refused() -> None:
    with pytest.raises(PortError, match="beyond 65535"):
        ports.forwarded(manifest([{"name": "many", "hostPort": 65535}], [{"name": "many", "protocol": "tcp", "port": 1, "count": 2}]))


def test_the_rules_of_a_port_are_rkts() -> None:
    assert ports.rules(UUID, [ForwardedPort("tcp", 8080, 80), ForwardedPort("udp", 53, 53, "10.0.0.1")], "172.16.28.2") == [
        "-I PREROUTING 1 -m addrtype --dst-type LOCAL -j RKT-PFWD-DNAT-31733fb7",
        "-I OUTPUT 1 -m addrtype --dst-type LOCAL -j RKT-PFWD-DNAT-31733fb7",
        "-I POSTROUTING 1 -s 127.0.0.1 ! -d 127.0.0.1 -j RKT-PFWD-SNAT-31733fb7",
        "-A RKT-PFWD-DNAT-31733fb7 -p tcp --dport 8080 -j DNAT --to-destination 172.16.28.2:80",
        "-A RKT-PFWD-SNAT-31733fb7 -s 127.0.0.1 -d 172.16.28.2 -p tcp --dport 80 -j MASQUERADE",
        "-A RKT-PFWD-DNAT-31733fb7 -d 10.0.0.1 -p udp --dport 53 -j DNAT --to-destination 172.16.28.2:53",
        "-A RKT-PFWD-SNAT-31733fb7 -s 127.0.0.1 -d 172.16.28.2 -p udp --dport 53 -j MASQUERADE",
    ]
