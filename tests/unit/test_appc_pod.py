"""Pods on disk: places, locks, states."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.appc.pod import PLACES, Pod, PodError, Settings, State
from labkit.appc.pods import Pods


@pytest.fixture
def pods(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


def in_state(pods: Pods, place: str) -> Pod:
    pod = pods.create()
    if place != "embryo":
        pod.move(place)
    return pod


@pytest.mark.parametrize(
    ("place", "held", "free"),
    [
        ("embryo", "embryo", "embryo"),
        ("prepare", "preparing", "aborted prepare"),
        ("prepared", "prepared", "prepared"),
        ("run", "running", "exited"),
        ("exited-garbage", "deleting", "exited garbage"),
        ("garbage", "deleting", "garbage"),
    ],
)
def test_the_state_is_told_by_the_place_and_the_lock(pods: Pods, place: str, held: str, free: str) -> None:
    pod = in_state(pods, place)
    seen = pods.find(pod.uuid)
    assert (pod.state, seen.state) == (held, held)
    pod.unlock()
    assert (pod.state, seen.state) == (free, free)


def test_a_pod_whose_holder_is_killed_has_exited(pods: Pods) -> None:
    pod = in_state(pods, "run")
    pod.unlock()
    code = "import fcntl, os, sys, time; fd = os.open(sys.argv[1], 0); fcntl.flock(fd, 2); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, pod.directory], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert pod.state is State.RUNNING
        with pytest.raises(PodError, match="is held by another process"):
            pod.lock(0)
        holder.kill()
        holder.wait()
        assert pod.state is State.EXITED


def test_a_lock_follows_the_pod_to_its_next_place(pods: Pods) -> None:
    pod = pods.create()
    seen = pods.find(pod.uuid)
    for place in PLACES[1:]:
        pod.move(place)
        assert seen.place == place
        assert seen.directory.name == pod.uuid


def test_a_pod_never_goes_back(pods: Pods) -> None:
    pod = in_state(pods, "run")
    with pytest.raises(PodError, match="cannot go from run to prepared"):
        pod.move("prepared")


def test_a_pod_is_found_by_the_beginning_of_its_uuid(pods: Pods) -> None:
    uuids = ["31733fb7-0000-4000-8000-000000000000", "31733fb8-0000-4000-8000-000000000000"]
    for place, name in zip(("run", "prepared"), uuids, strict=True):
        (pods.data / "pods" / place / name).mkdir(parents=True)
    assert pods.find("31733fb7").uuid == uuids[0]
    assert pods.find("31733FB8").uuid == uuids[1]
    for wrong, why in (("31733", "2 matches"), ("dead", 'no matches found for "dead"'), ("", "no matches found")):
        with pytest.raises(PodError, match=why):
            pods.find(wrong)
    assert [pod.uuid for pod in pods.all()] == uuids


def test_what_is_no_pod_in_its_place_is_not_listed(pods: Pods) -> None:
    (pods.data / "pods/run/lost+found").mkdir(parents=True)
    assert pods.all() == ()


def test_a_pod_that_is_gone_says_so(pods: Pods) -> None:
    pod = pods.create()
    pod.unlock()
    (pod.directory / "pod-created").unlink()
    pod.directory.rmdir()
    with pytest.raises(PodError, match="no matches found"):
        assert pod.state
    with pytest.raises(PodError, match="no matches found"):
        pod.lock()


def test_files_are_written_whole_and_read_where_they_are(pods: Pods) -> None:
    pod = in_state(pods, "run")
    pod.write("pid", "4242\n")
    pod.write("status/etcd", "0")
    pod.write("status/sh", "203")
    pod.write("status/torn", "")
    assert pod.pid == 4242
    assert pod.exit_codes == {"etcd": 0, "sh": 203}
    assert pod.read("nothing") is None
    assert sorted(os.listdir(pod.directory)) == ["pid", "pod-created", "status"]
    assert abs((pod.since("pod-created") or 0) - time.time()) < 60


def test_settings_are_kept_beside_the_manifest(pods: Pods) -> None:
    pod = in_state(pods, "prepared")
    assert pod.settings == Settings()
    pod.settings = Settings(hostname="box", dns=("8.8.8.8", "8.8.4.4"))
    assert pods.find(pod.uuid).settings == Settings(hostname="box", dns=("8.8.8.8", "8.8.4.4"))


def test_the_root_of_an_app_is_where_rkt_has_it(pods: Pods) -> None:
    pod = in_state(pods, "run")
    pod.write("appsinfo/web/treeStoreID", "deps-sha512-1234\n")
    assert pod.rootfs_of("web") == pods.data / "pods/run" / pod.uuid / "stage1/rootfs/opt/stage2/web/rootfs"
    assert pod.image_of("web") == pods.data / "cas/tree/deps-sha512-1234/rootfs"
    assert not pod.overlay
