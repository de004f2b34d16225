"""A pull that cannot be: docker's own words, nothing kept half, and the next pull works."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import of_the_machine

from labkit import ledger
from labkit.host import services as service
from labkit.kernel import trees
from labkit.runtimes import docker_daemon

SMALL, LARGE = "size=16m", "size=1g"


@pytest.fixture
def place(own_state: Path) -> Iterator[Path]:
    """Give a directory of its own for a dockerd, on a disk that is soon full."""
    disk, before = own_state / "small", ledger.owner()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{SMALL}", "small", disk], check=True)
    ledger.own("refused")
    directory = trees.make_tree(disk / "refused")
    docker_daemon.serve(directory)
    yield directory
    ledger.undo("refused")
    ledger.own(before)
    subprocess.run(["umount", disk], check=True)
    disk.rmdir()


def typed(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | docker_daemon.environment(place)
    return subprocess.run(["docker", *words], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.usefixtures("services")
def test_a_disk_that_is_full_during_a_pull(place: Path):
    refused = typed(place, "image", "pull", "nginx")
    assert refused.returncode == 1
    assert "no space left on device" in refused.stderr
    assert typed(place, "image", "ls", "--all", "--quiet").stdout == ""
    subprocess.run(["mount", "-o", f"remount,{LARGE}", place.parent], check=True)
    assert typed(place, "image", "pull", "--quiet", "nginx").returncode == 0


@pytest.mark.usefixtures("services")
def test_a_registry_that_is_down(place: Path):
    with of_the_machine():
        service.down({"registry"})
    try:
        refused = typed(place, "image", "pull", "busybox")
    finally:
        with of_the_machine():
            service.up({"registry"})
    assert refused.returncode == 1
    assert "Error response from daemon" in refused.stderr
    assert typed(place, "image", "ls", "--all", "--quiet").stdout == ""
    assert typed(place, "image", "pull", "--quiet", "busybox").returncode == 0


@pytest.mark.usefixtures("services")
def test_a_daemon_that_is_down(place: Path):
    subprocess.run(["pkill", "--full", "--signal", "KILL", f"dockerd.*{place}"], check=True)
    refused = typed(place, "image", "pull", "busybox")
    assert refused.returncode == 1
    assert "Is the docker daemon running?" in refused.stderr
