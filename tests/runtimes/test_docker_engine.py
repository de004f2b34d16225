"""Engines in network namespaces of their own: each another machine to the network, and nothing of them outlives the ledger."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import commands, namespaces, network, trees
from labkit.kernel.network import NetworkNamespace
from labkit.kernel.processes import ending
from labkit.runtimes import docker_daemon, docker_engine, ours

ENGINES = ("left", "right")
PATIENCE = 20.0


@pytest.fixture
def place(own_state: Path) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own("engines")
    yield trees.make_tree(own_state / "own-engines")
    ledger.undo("engines")
    ledger.own(before)


def typed(place: Path, *words: str) -> str:
    environment = os.environ | docker_daemon.environment(place)
    return subprocess.run(["docker", *words], env=environment, check=True, capture_output=True, text=True).stdout.strip()


def links() -> set[str]:
    return {link.ifname for link in network.links()}


def run(place: Path, engine: str, name: str) -> ending.Known:
    """Run a container of an image that is nothing but busybox, and return its first process."""
    root = trees.make_tree(place / "root" / "bin").parent
    busybox = Path("/bin/busybox")
    (root / "bin" / "sleep").write_bytes(busybox.read_bytes())
    (root / "bin" / "sleep").chmod(0o755)
    archive = place / "root.tar"
    commands.run(["tar", "-C", str(root), "-cf", str(archive), "."])
    typed(place, "-c", engine, "import", str(archive), "busy")
    typed(place, "-c", engine, "run", "--detach", "--restart", "always", "--network", "none", "--name", name, "busy", "sleep", "600")
    known = ending.known(docker_engine.pid(engine, name))
    assert known is not None
    return known


@pytest.mark.usefixtures("services")
def test_two_engines_know_nothing_of_each_other_and_change_nothing_here(place: Path):
    before = links()
    processes = {name: docker_engine.serve(place, name) for name in ENGINES}
    assert links() == before
    run(place, "left", "web")
    assert typed(place, "-c", "left", "ps", "--format", "{{.Names}}") == "web"
    assert typed(place, "-c", "right", "ps", "--all", "--quiet") == ""
    for name, process in processes.items():
        assert namespaces.of(process.pid)["net"] == NetworkNamespace(name).inode
        assert [link.ifname for link in network.links(name) if link.kind != "loopback"] == []


@pytest.mark.usefixtures("services")
def test_an_engine_that_was_killed_leaves_nothing(place: Path):
    process = docker_engine.serve(place, "left")
    init = run(place, "left", "web")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    ledger.undo("engines")
    assert not ours.lives(init)
    assert not NetworkNamespace("left").exists
    assert not place.exists()


@pytest.mark.usefixtures("services")
def test_a_network_that_an_engine_keeps_in_its_own_mounts_is_seen(place: Path):
    docker_engine.serve(place, "left")
    network.veth("wire0", "wire1", "left", "left")
    network.address("wire0", "10.99.0.1/24", "left")
    network.up("wire0", "left")
    typed(place, "-c", "left", "swarm", "init", "--advertise-addr", "10.99.0.1")
    deadline = time.monotonic() + PATIENCE
    while not any(link.master == "docker_gwbridge" for link in network.links("left")) and time.monotonic() < deadline:
        time.sleep(0.05)  # the network of the swarm's ports comes after the swarm
    kept = {os.stat(file).st_ino for file in docker_engine.sandboxes()}
    assert kept
    assert kept <= {state.inode for state in network.states()}


@pytest.mark.usefixtures("services")
def test_what_no_engine_has_is_named(place: Path):
    docker_engine.serve(place, "left")
    with pytest.raises(LabError, match="the engine left has no container web"):
        docker_engine.pid("left", "web")
    with pytest.raises(LabError, match="no lab has an engine middle"):
        docker_engine.pid("middle", "web")


def test_a_name_that_a_network_namespace_has_already_is_refused(place: Path):
    commands.run(["ip", "netns", "add", "taken"])
    try:
        with pytest.raises(LabError, match="network namespace taken is there and is not this lab's"):
            docker_engine.claim("taken")
    finally:
        commands.run(["ip", "netns", "delete", "taken"])
