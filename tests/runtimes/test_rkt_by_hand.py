"""What a person runs with rkt in a lab is the lab's, and goes with it, whatever was killed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trial_pods import until

from labkit import ledger
from labkit.kernel import trees
from labkit.kernel.cgroups import hierarchies
from labkit.runtimes import by_hand, rkt_by_hand

LAB = "rkt-by-hand"
SHELL = "quay.io/coreos/alpine-sh"


@pytest.fixture
def place(own_state: Path, services: object) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own(LAB)
    directory = trees.make_tree(own_state / "rkt-by-hand")
    rkt_by_hand.serve(directory)
    yield directory
    ledger.undo(LAB)
    ledger.own(before)


def environment(place: Path) -> dict[str, str]:
    return {"PATH": os.pathsep.join([*by_hand.path(place), os.environ["PATH"]])}


def rkt(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["rkt", *words]
    return subprocess.run(argv, env=environment(place), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)


def in_background(place: Path, *words: str) -> "subprocess.Popen[str]":
    with (place / "said").open("w") as said:
        return subprocess.Popen(["rkt", *words], env=environment(place), stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True)


def cgroups() -> list[Path]:
    return [found for hierarchy in hierarchies().mounted for found in hierarchy.path.glob(f"lab-{LAB}*/rkt-*")]


def test_an_image_comes_by_discovery_and_a_pod_of_it_runs(place: Path) -> None:
    fetched = rkt(place, "fetch", "--insecure-options=image", SHELL)
    assert fetched.returncode == 0, fetched
    done = rkt(place, "run", "--net=none", SHELL, "--exec", "/bin/sh", "--", "-c", "echo it runs; exit 3")
    assert done.returncode == 3, done
    assert "it runs" in done.stdout


def test_docker_images_come_from_the_machines_registry(place: Path) -> None:
    assert rkt(place, "fetch", "--insecure-options=image", "docker://busybox").returncode == 0
    assert "registry-1.docker.io/library/busybox:latest" in rkt(place, "image", "list").stdout


@pytest.mark.parametrize("killed", [False, True])
def test_what_runs_goes_with_the_lab(place: Path, killed: bool) -> None:
    saved = place / "uuid"
    pod = in_background(
        place, "run", "--insecure-options=image", f"--uuid-file-save={saved}", SHELL, "--exec", "/bin/sleep", "--", "600"
    )
    until(lambda: pod.poll() is not None or (saved.exists() and "pid=" in rkt(place, "status", saved.read_text().strip()).stdout))
    assert pod.poll() is None, (place / "said").read_text()
    assert cgroups()
    if killed:
        pod.kill()
        pod.wait(30)
    ledger.undo(LAB)
    pod.wait(30)
    assert cgroups() == []
    assert not list(Path("/run/netns").glob("rkt-*"))
