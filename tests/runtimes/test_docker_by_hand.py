"""Docker's network and the same by hand: packets are followed in both, and what the X-ray reads of both differs only in names."""

import re
from collections.abc import Callable, Iterator

import pytest
from plumbing import inside

from labkit.course import lab_8_3
from labkit.course.lab import Lab, open_lab
from labkit.kernel.xray import Machine
from labkit.kernel.xray.network import network_of

Told = Callable[[str, str], None]
HEADER = f"{'followed in the network of Docker':<44} verdict"
RUN = """docker container run -d --name web -p 8080:80 nginx > /dev/null
docker container run -d --name box2 alpine top > /dev/null
until curl -s 10.154.0.2:8080 > page; do true; done"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab("8.3") as one:
        one.run(RUN)
        one.run(lab_8_3.EVERYTHING)
        yield one


@pytest.mark.parametrize(
    ("name", "destination", "source", "words"),
    [
        ("a published port, from outside", "10.154.0.2:8080", None, "dnat to 172.17.0.2:80"),
        ("a published port, from 127.0.0.1 of the machine", "127.0.0.1:8080", "server", "docker-proxy takes the connection"),
        ("container to container", "172.17.0.2:80", "box2", "eth0"),
        ("the way out", "10.154.0.1", "box2", "masquerade"),
        ("the container's own loopback", "127.0.0.1:80", "web", "lo"),
    ],
)
def test_a_packet_finds_its_way_in_the_network_of_docker(lab: Lab, told: Told, name: str, destination: str, source: str, words: str):
    path = lab.follow(destination, source)
    told(HEADER, f"{name:<44} {path.path.verdict}")
    assert path, str(path)
    assert words in str(path)
    assert path.links[-1] == {"10.154.0.1": "server in host", "127.0.0.1:80": "lo in web"}.get(destination, "eth0 in web")


def test_the_rule_that_drops_is_named(lab: Lab, told: Told):
    inside("server", "iptables -I DOCKER-USER -p tcp --dport 80 -j DROP")
    path = lab.follow("10.154.0.2:8080")
    inside("server", "iptables -D DOCKER-USER -p tcp --dport 80 -j DROP")
    told(HEADER, f"{'a rule of DOCKER-USER drops':<44} {path.path.verdict}")
    assert (path.fault, path.where) == ("dropped", "forward in server")
    assert "in chain DOCKER-USER of table ip filter" in path.cause


def test_a_port_that_nobody_published(lab: Lab, told: Told):
    path = lab.follow("10.154.0.2:8081")
    told(HEADER, f"{'a port that nobody published':<44} {path.path.verdict}")
    assert (path.fault, path.where) == ("not published", "eth0 in server")


def test_what_the_x_ray_reads_of_both_networks_differs_only_in_names(lab: Lab):
    pid = int(inside("box", "ip netns pids box").split()[0])
    machine = Machine()
    ours = words(network_of(pid, machine), "vethbox", "br0", "machine", "box")
    web = machine.network(lab.pid("web"))
    port = next(link.ifname for link in machine.network_named("server").links if link.peer and link.peer[0] == web.name)
    docker = words(network_of(lab.pid("web"), machine), port, "docker0", "server", "web")
    assert ours == docker


def words(network, port: str, bridge: str, host: str, name: str) -> dict[str, object]:
    """Return what an X-ray says of a network, with the names of this one replaced, and without what differs each time."""

    def called(text: object) -> str:
        found = str(text)
        for word, instead in ((port, "PORT"), (bridge, "BRIDGE"), (host, "MACHINE"), (name, "BOX")):
            found = re.sub(rf"\b{re.escape(word)}\b", instead, found)
        return found

    links = [(link.ifname, link.kind, link.up, link.operstate, link.mtu, called(link.peer), link.addresses) for link in network.links]
    ways = [called((way.ifname, way.peer, way.netns, way.bridge, way.bridge_addresses, way.outside, way.gateway)) for way in network.ways]
    masquerade = [sorted(called(rule).replace("counter ", "").split()) for way in network.ways for rule in way.masquerade]
    ports = [one for one in network.ports if one.by == "nft"]
    return {"links": links, "routes": network.routes, "ways": ways, "masquerade": masquerade, "ports": ports}
