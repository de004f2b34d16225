"""What checkpoints are told of pods: by their directories, whoever is alive."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.appc.pod import State
from labkit.appc.pod_manifest import PodManifest
from labkit.appc.types import serialized
from labkit.course import rkt_pods
from labkit.errors import LabError

UUID = "6f4a2c11-0d3e-4b57-9a66-0c1d2e3f4a5b"
IMAGE = f"sha512-{'ab' * 64}"


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    return SimpleNamespace(directory=tmp_path)


@pytest.fixture
def pod(lab: Any) -> Path:
    directory = lab.directory / "rkt/pods/run" / UUID
    (directory / "status").mkdir(parents=True)
    apps = [{"name": name, "image": {"id": IMAGE}} for name in ("cache", "front")]
    record = {"acKind": "PodManifest", "acVersion": "1.30.0", "apps": apps}
    (directory / "pod").write_text(serialized(PodManifest.parse(record).record()))
    return directory


@pytest.fixture
def held(pod: Path) -> Iterator[Path]:
    fd = os.open(pod, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield pod
    os.close(fd)


def test_a_pod_that_nobody_holds_has_exited_and_its_codes_are_told(lab: Any, pod: Path):
    (pod / "status/cache").write_text("137\n")
    (pod / "status/front").write_text("0\n")
    assert rkt_pods.states(lab) == (State.EXITED,)
    assert rkt_pods.ended(lab, "cache") == (137,)
    assert rkt_pods.running(lab) == ()
    assert rkt_pods.absent(lab, ("front", "cache")).cause == "the app cache has ended with 137"


@pytest.mark.parametrize(("apps", "count"), [((), 1), (("cache", "front"), 1), (("cache", "other"), 0)])
def test_a_pod_that_is_held_runs_and_an_app_without_a_process_has_none(lab: Any, held: Path, apps: tuple[str, ...], count: int):
    found = rkt_pods.running(lab, apps)
    assert len(found) == count
    assert all((one.apps, one.processes) == ({"cache", "front"}, {}) for one in found)


def test_where_there_is_no_pod_nothing_is_told(lab: Any):
    assert rkt_pods.states(lab) == rkt_pods.running(lab) == rkt_pods.ended(lab, "cache") == ()
    assert rkt_pods.absent(lab, ("one", "two")).cause == "of the pods that run, none has both of them"


def test_a_supervisor_that_has_ended_is_told_by_its_last_words(tmp_path: Path):
    ended = SimpleNamespace(name="web", alive=False, pid=0, output=lambda: "image: no such\nrun: no image\n")
    with pytest.raises(LabError, match="the pod of web has ended") as told:
        rkt_pods.started(ended, tmp_path)  # type: ignore[arg-type]
    assert told.value.cause == "rkt said: run: no image"
