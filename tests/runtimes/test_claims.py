"""What root makes by hand in a namespace of containerd, or of pods, goes with the lab that took its name."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pods
import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.host.services import Places
from labkit.runtimes import Runtime, containerd_namespace, docker_claims, find
from labkit.runtimes.cri import Client, claim

NAME = "labkit-claimed"
BUSYBOX = "docker.io/library/busybox:latest"


@pytest.fixture
def ctr(services: Places) -> Callable[..., str]:
    def typed(*words: str) -> str:
        argv = ["ctr", "--address", str(services.containerd), "--namespace", NAME, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    return typed


@pytest.fixture
def owner() -> Iterator[None]:
    before = ledger.owner()
    ledger.own("claims")
    yield
    ledger.undo("claims")
    ledger.own(before)


@pytest.mark.usefixtures("owner")
def test_all_that_is_in_a_namespace_of_containerd_goes_with_the_lab(ctr: Callable[..., str], root: Callable[[Runtime], Path]):
    containerd_namespace.claim(NAME)
    containerd_namespace.claim(NAME)
    ctr("images", "pull", "--hosts-dir", "/etc/containerd/certs.d", BUSYBOX)
    ctr("run", "--detach", "--cgroup", "/labkit-cri-test/one", BUSYBOX, "one", "sleep", "600")
    ctr("run", "--detach", "--cgroup", "/labkit-cri-test/two", "--rootfs", str(root(find("containerd"))), "two", "/bin/sleep", "600")
    assert len(ctr("tasks", "list", "--quiet").split()) == 2
    ledger.undo("claims")
    assert NAME not in ctr("namespaces", "list", "--quiet").split()
    assert ctr("containers", "list", "--quiet") == ctr("snapshots", "list").partition("\n")[2] == ""
    pods.remove_cgroups()


@pytest.mark.usefixtures("owner")
def test_a_namespace_of_containerd_that_is_somebody_elses_is_refused_and_stays(ctr: Callable[..., str]):
    ctr("namespaces", "create", NAME)
    with pytest.raises(LabError, match=f"containerd has a namespace {NAME} already, and it was not made by this lab"):
        containerd_namespace.claim(NAME)
    ledger.undo("claims")
    assert NAME in ctr("namespaces", "list", "--quiet").split()
    ctr("namespaces", "remove", NAME)


@pytest.mark.usefixtures("owner")
def test_pods_that_are_made_by_hand_in_a_claimed_namespace_go_and_others_stay(services: Places, tmp_path: Path):
    claim.claim(NAME)
    label = {pods.LABEL: "claimed"}
    config = pods.pod(label, tmp_path)
    config["metadata"]["namespace"] = NAME
    line = [sys.executable, "-m", "labkit", "cri", "--socket", str(services.containerd), "RunPodSandbox", "-"]
    with Client(services.containerd) as client:
        try:
            for each in (config, pods.pod(label, tmp_path, "other")):
                subprocess.run(line, input=json.dumps({"config": each}), check=True, capture_output=True, text=True)
            with pytest.raises(LabError, match=r"the namespace test has pods already \(1\)"):
                claim.claim("test")
            ledger.undo("claims")
            assert [one["metadata"]["name"] for one in client.pods(**label)] == ["other"]
        finally:
            pods.remove_all(client, label)


@pytest.mark.usefixtures("owner")
def test_an_image_that_docker_had_not_goes_with_the_lab_and_one_that_it_had_stays(services: Places):
    def docker(*words: str) -> str:
        argv = ["docker", "--host", f"unix://{services.docker}", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    docker("pull", "--quiet", "busybox")
    docker("tag", "busybox", "labkit-theirs")
    for name in ("labkit-ours", "labkit-theirs"):
        docker_claims.claim_image(name)
    docker("tag", "busybox", "labkit-ours")
    ledger.undo("claims")
    assert docker("images", "--quiet", "labkit-ours") == ""
    assert docker("images", "--quiet", "labkit-theirs") != ""
    docker("rmi", "labkit-theirs")
