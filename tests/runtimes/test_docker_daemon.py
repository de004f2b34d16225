"""A dockerd of a lab's own stands beside the machine's: neither sees what the other has, and nothing of it outlives the ledger."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import credentials, network, trees
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.processes import ending
from labkit.runtimes import docker, docker_daemon, ours

Docker = Callable[..., str]


@pytest.fixture
def place(own_state: Path) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own("dockerd")
    yield trees.make_tree(own_state / "own-docker")
    ledger.undo("dockerd")
    ledger.own(before)


def typed(place: Path) -> Docker:
    def run(*words: str) -> str:
        environment = os.environ | docker_daemon.environment(place)
        return subprocess.run(["docker", *words], env=environment, check=True, capture_output=True, text=True).stdout.strip()

    return run


def cgroups() -> list[Path]:
    return [path for one in hierarchies().mounted if not one.own for path in one.path.glob("lab-dockerd/docker/*/") if path.is_dir()]


@pytest.mark.usefixtures("services")
def test_what_is_typed_meets_the_labs_own_containers_and_no_others(place: Path):
    subprocess.run(["docker", "run", "--detach", "--name", "canary", "busybox", "sleep", "600"], check=True, capture_output=True)
    try:
        docker_daemon.serve(place)
        run = typed(place)
        assert run("ps", "--all", "--quiet") == run("images", "--quiet") == ""
        run("run", "--detach", "--name", "web", "busybox", "sleep", "600")
        pid = int(run("inspect", "--format", "{{.State.Pid}}", "web"))
        init = ending.known(pid)
        assert init is not None
        assert cgroups()
        assert [link.ifname for link in network.links() if link.master == docker_daemon.bridge("dockerd")]
        assert [(each.name, each.pid) for each in docker.Docker().list()] == [("web", pid)]
        run("rm", "--force", *run("ps", "--all", "--quiet").split())
        run("system", "prune", "--all", "--force")
        assert not ours.lives(init)
        assert subprocess.run(["docker", "top", "canary"], check=False, capture_output=True).returncode == 0
    finally:
        subprocess.run(["docker", "rm", "--force", "canary"], check=True, capture_output=True)


@pytest.mark.usefixtures("services")
def test_a_privileged_container_starts_and_has_no_capability_that_root_lacks_here(place: Path):
    docker_daemon.serve(place)
    run = typed(place)
    run("run", "--detach", "--privileged", "--name", "web", "busybox", "sleep", "600")
    pid = int(run("inspect", "--format", "{{.State.Pid}}", "web"))
    has = credentials.capabilities(pid)["effective"]
    assert "CAP_SYS_ADMIN" in has
    assert set(has) <= set(credentials.capabilities()["bounding"])
    assert run("exec", "--privileged", "web", "id", "-u") == "0"


@pytest.mark.usefixtures("services")
def test_a_container_that_always_starts_again_ends_with_the_lab_also_where_its_daemon_was_killed(place: Path):
    process = docker_daemon.serve(place)
    run = typed(place)
    run("run", "--detach", "--restart", "always", "--name", "stubborn", "busybox", "sleep", "0.1")
    run("run", "--detach", "--restart", "always", "--name", "web", "busybox", "sleep", "600")
    init = ending.known(int(run("inspect", "--format", "{{.State.Pid}}", "web")))
    assert init is not None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    ledger.undo("dockerd")
    assert not ours.lives(init)
    assert not place.exists()
    assert not cgroups()
    assert docker_daemon.bridge("dockerd") not in {link.ifname for link in network.links()}


@pytest.mark.usefixtures("services")
def test_one_that_lives_and_starts_containers_again_ends_with_the_lab(place: Path):
    docker_daemon.serve(place)
    run = typed(place)
    for number in range(3):
        run("run", "--detach", "--restart", "always", "--name", f"stubborn{number}", "busybox", "sleep", "0.05")
    ledger.undo("dockerd")
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert not cgroups()
    assert not place.exists()


@pytest.mark.usefixtures("services")
def test_one_that_cannot_start_says_why(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(docker_daemon, "configuration", lambda *_: {"nonsense": True})
    with pytest.raises(LabError, match="the lab's dockerd ended with status 1") as caught:
        docker_daemon.serve(place)
    assert "nonsense" in caught.value.cause
    assert [entry for entry in ledger.live("dockerd") if entry.kind == "docker daemon"] == []
