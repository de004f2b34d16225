"""A dockerd in a network namespace of its own: what it publishes, its bridges and its rules meet nothing of this machine."""

import http.server
import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plumbing import inside, shell

from labkit import ledger
from labkit.course import examples, lab_8_1
from labkit.errors import LabError
from labkit.kernel import network, trees
from labkit.runtimes import docker_daemon, docker_netns

NAME = "own-machine"
Docker = Callable[..., str]


@pytest.fixture
def docker(own_state: Path) -> Iterator[Docker]:
    before = ledger.owner()
    ledger.own("dockerd")
    place = trees.make_tree(own_state / "machine")
    docker_netns.claim(NAME)
    docker_daemon.serve(place)

    def run(*words: str) -> str:
        environment = os.environ | docker_daemon.environment(place)
        return subprocess.run(["docker", *words], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    yield run
    ledger.undo("dockerd")
    ledger.own(before)


def outside() -> str:
    """What a dockerd with docker's own ways changes: bridges, rules and forwarding of where it stands."""
    return shell("ip -brief link show type bridge; nft --stateless list ruleset; cat /proc/sys/net/ipv4/ip_forward")


@pytest.mark.usefixtures("services")
def test_a_port_that_this_machine_uses_is_published_there_and_nothing_here_changes(docker: Docker):
    before = outside()
    here = http.server.ThreadingHTTPServer(("0.0.0.0", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=here.serve_forever, daemon=True).start()
    docker("run", "--detach", "--publish", f"{here.server_port}:80", "busybox", "sh", "-c", "echo there > index.html; httpd -f -p 80")
    fetch = f"until wget -qO- 127.0.0.1:{here.server_port} | grep there; do true; done"
    assert inside(NAME, fetch) == "there\n"
    with urllib.request.urlopen(f"http://10.154.0.2:{here.server_port}/index.html") as page:
        assert page.read() == b"there\n"
    here.shutdown()
    here.server_close()
    assert f"tcp dport {here.server_port}" in inside(NAME, "nft list ruleset")
    assert "policy drop" in inside(NAME, "nft list chain ip filter FORWARD")
    assert outside() == before


@pytest.mark.usefixtures("services")
def test_the_network_of_the_host_is_that_of_its_machine(docker: Docker):
    seen = docker("run", "--rm", "--network", "host", "busybox", "ip", "-o", "addr")
    assert "10.154.0.2/24" in seen
    assert docker("run", "--rm", "busybox", "ping", "-c", "1", "10.154.0.1")


@pytest.mark.usefixtures("services")
def test_where_the_daemon_was_killed_links_and_namespace_go_with_the_lab(docker: Docker):
    docker("network", "create", "mynet")
    docker("run", "--detach", "--restart", "always", "--network", "mynet", "--publish", "80:80", "busybox", "sleep", "600")
    before = outside()
    pid = next(int(each.name) for each in Path("/proc").glob("[0-9]*") if b"machine/dockerd/daemon.json" in _argv(each))
    os.kill(pid, signal.SIGKILL)
    ledger.undo("dockerd")
    assert NAME not in network.names()
    assert NAME not in {link.ifname for link in network.links()}
    assert outside() == before


def test_a_name_that_is_taken_is_refused(own_state: Path):
    before = ledger.owner()
    ledger.own("dockerd")
    shell(f"ip link add {NAME} type bridge")
    try:
        with pytest.raises(LabError, match=NAME):
            docker_netns.claim(NAME)
        assert docker_netns.claimed() is None
    finally:
        shell(f"ip link delete {NAME}")
        ledger.undo("dockerd")
        ledger.own(before)


def _argv(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.usefixtures("services")
def test_the_archive_of_lab_8_1_gives_apt_a_package_where_there_is_no_way_to_debian(docker: Docker, tmp_path: Path):
    examples.give(tmp_path, lab_8_1.EXAMPLES["archive"])
    subprocess.run([tmp_path / "archive/make"], check=True)
    docker("run", "--detach", "--name", "bare", "debian", "sleep", "600")
    assert "/ip" not in docker("exec", "bare", "sh", "-c", "which ip || true")
    docker("container", "cp", f"{tmp_path}/archive/tree/.", "bare:/")
    docker("exec", "bare", "sh", "-c", "apt update && apt install -y iproute2")
    assert "172.17.0.2/16" in docker("exec", "bare", "ip", "addr")
