"""Pods as containers: found by their directories, named by their cgroups, and in an X-ray beside those of docker and of the CRI."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trial_pods import until

from labkit import ledger, runtimes
from labkit.appc import aci, claims
from labkit.appc.app import App
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.pods import Pods
from labkit.errors import LabError
from labkit.host.services import Places
from labkit.kernel import namespaces
from labkit.kernel.xray import Machine, xray
from labkit.kernel.xray.containers import containers
from labkit.runtimes import Runtime, rkt

SLEEP = ["sleep", "600"]


@pytest.fixture
def pod(own_state: Path, root: Callable[[Runtime], Path]) -> Iterator[rkt.Pod]:
    """Run a pod of two apps by the command, in a directory that a lab has claimed."""
    data, image = own_state / "typed", own_state / "box.aci"
    aci.build(ImageManifest("example.com/box", app=App(tuple(SLEEP), "0", "0")), root(runtimes.find("rkt")), image)
    claims.claim(data)
    words = ["--insecure-options=image", "run", "--net=none", str(image), "--name=front", str(image), "--name=back"]
    argv = [sys.executable, "-m", "labkit.appc", f"--dir={data}", *words]
    supervisor = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def up() -> bool:
        assert supervisor.poll() is None, supervisor.communicate()
        return any(one.has_begun for one in Pods(data).all() if one.pid)

    until(up)
    yield Pods(data).all()[0]
    claims.end_all(data)
    supervisor.communicate(timeout=20)
    for entry in ledger.live():
        if entry.kind == "rkt claim":
            ledger.undo_one(entry)


def test_a_pod_and_each_of_its_apps_are_listed(pod: rkt.Pod):
    short = pod.uuid[:8]
    found = {one.name: one for one in runtimes.find("rkt").list()}
    assert list(found) == [short, f"{short}/front", f"{short}/back"]
    assert {(one.state, one.ours) for one in found.values()} == {("running", False)}
    assert found[short].pid == pod.pid
    for app in ("front", "back"):
        process = found[f"{short}/{app}"]
        assert process.rootfs is not None
        assert (process.rootfs / "bin/busybox").exists()
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", b"600"]
        assert runtimes.find("rkt").exec(f"{short}/{app}", ["sh", "-c", "echo $AC_APP_NAME"]).stdout == f"{app}\n"


def test_the_apps_of_a_pod_share_all_but_their_mounts_and_cgroups(pod: rkt.Pod):
    front, back = (rkt.first_of(pod, app) for app in ("front", "back"))
    same = {kind for kind, shared in namespaces.shared(front, back).items() if shared}
    assert {"pid", "net", "ipc", "uts"} <= same
    assert not {"mount", "cgroup"} & same


def test_a_word_finds_a_pod_an_app_of_it_and_an_app_by_its_name_alone(pod: rkt.Pod):
    there, short = containers(Machine()), pod.uuid[:8]

    def called(word: str) -> list[int]:
        return [one.pid for one in there if one.is_called(word)]

    assert called(short) == called(pod.uuid) == [pod.pid]
    assert called("back") == called(f"{short}/back") == [rkt.first_of(pod, "back")]


def test_no_lab_stops_or_removes_what_was_typed(pod: rkt.Pod):
    for verb in (runtimes.find("rkt").stop, runtimes.find("rkt").remove):
        with pytest.raises(LabError, match="was not made by a lab and stays as it is"):
            verb(pod.uuid[:8])


@pytest.mark.parametrize("other", ["docker", "cri"])
def test_an_app_has_the_x_ray_of_a_container(other: str, root: Callable[[Runtime], Path], services: Places):
    """The kernel makes no difference between the three: one process with namespaces, a root of layers, a part of root's capabilities."""
    shown = {}
    for name in ("rkt", other):
        runtime = runtimes.find(name)
        try:
            started = runtime.start(root(runtime), SLEEP, "web")
            shown[name] = xray(started.pid, "web", machine=Machine())
        finally:
            runtime.stop("web", 0)
            runtime.remove("web")
    mine, theirs = shown["rkt"], shown[other]
    assert mine.security.capabilities["effective"] == theirs.security.capabilities["effective"]
    own = {name: {one.kind for one in found.namespaces if one.own} for name, found in shown.items()}
    assert {"mount", "uts", "ipc", "net", "pid"} <= own["rkt"] & own[other]
    assert mine.root.mount.fstype == theirs.root.mount.fstype == "overlay"


def test_a_pod_whose_starter_is_gone_goes_with_the_ledger(root: Callable[[Runtime], Path]):
    runtime = runtimes.find("rkt")
    started = runtime.start(root(runtime), SLEEP, "web")
    data = Path(next(entry for entry in ledger.live() if entry.kind == "rkt container").key["data"])
    assert started.pid
    ledger.undo("contract")
    assert not os.path.exists(f"/proc/{started.pid}")
    assert not data.exists()
    assert not list(Path("/run/netns").glob("rkt-*"))
    assert not list(Path("/sys/fs/cgroup").glob("**/rkt-*"))
