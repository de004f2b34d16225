"""Garbage of pods: marked, kept for its grace period, removed."""

import os
from pathlib import Path

import pytest

from labkit.appc import garbage, stage1
from labkit.appc.garbage import collect, duration, remove, seconds
from labkit.appc.options import OptionError
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was cleared of networks and cgroups: here only noted."""
    found: list[str] = []
    monkeypatch.setattr(stage1, "clear", lambda pod, net=None: found.append(pod.uuid))
    return found


@pytest.fixture
def pods(tmp_path: Path, cleared: list[str]) -> Pods:
    return Pods(tmp_path)


def in_state(pods: Pods, place: str, *, held: bool = False) -> Pod:
    pod = pods.create()
    if place != "embryo":
        pod.move(place)
    (pod.directory / "stage1/rootfs").mkdir(parents=True)
    if not held:
        pod.unlock()
    return pod


def collected(pods: Pods, **how: float) -> list[str]:
    said: list[str] = []
    collect(pods, said.append, said.append, **how)
    return said


def test_an_exited_pod_is_marked_and_stays_for_its_grace_period(pods: Pods, cleared: list[str]) -> None:
    pod = in_state(pods, "run")
    assert collected(pods) == [
        f'moving pod "{pod.uuid}" to garbage',
        f'pod "{pod.uuid}" not removed: still within grace period (30m0s)',
    ]
    assert (pod.state, cleared) == (State.EXITED_GARBAGE, [])
    assert collected(pods, grace=300) == [f'pod "{pod.uuid}" not removed: still within grace period (5m0s)']
    assert collected(pods, grace=0) == [f'Garbage collecting pod "{pod.uuid}"']
    assert (pods.all(), cleared) == ((), [pod.uuid])


def test_without_a_grace_period_one_pass_does_it(pods: Pods) -> None:
    in_state(pods, "run")
    assert len(collected(pods, grace=0)) == 2
    assert pods.all() == ()


def test_who_is_at_work_is_left_alone(pods: Pods) -> None:
    kept = [in_state(pods, place, held=True) for place in ("embryo", "prepare", "run", "exited-garbage", "garbage")]
    prepared = in_state(pods, "prepared")
    assert collected(pods, grace=0) == []
    assert {pod.uuid for pod in pods.all()} == {pod.uuid for pod in [*kept, prepared]}


def test_a_prepare_that_failed_goes_at_once_and_one_that_expired_too(pods: Pods) -> None:
    failed, prepared = in_state(pods, "prepare"), in_state(pods, "prepared")
    assert collected(pods) == [f'moving failed prepare "{failed.uuid}" to garbage', f'Garbage collecting pod "{failed.uuid}"']
    assert collected(pods, expire=0) == [
        f'moving expired prepared pod "{prepared.uuid}" to garbage',
        f'Garbage collecting pod "{prepared.uuid}"',
    ]
    assert pods.all() == ()


def test_an_embryo_whose_maker_died_goes_after_a_minute(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    in_state(pods, "embryo")
    assert collected(pods) == []
    monkeypatch.setattr(garbage, "_EMBRYO", -1.0)
    assert len(collected(pods)) == 2
    assert pods.all() == ()


def test_only_marking_removes_nothing(pods: Pods) -> None:
    pod = in_state(pods, "run")
    collect(pods, lambda _: None, lambda _: None, grace=0, mark_only=True)
    assert pod.state is State.EXITED_GARBAGE


def test_a_removal_that_was_interrupted_is_done_again(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = in_state(pods, "exited-garbage")
    pod.write("pod", "{}")
    with monkeypatch.context() as interrupted:
        interrupted.setattr("shutil.rmtree", lambda path: os.unlink(path / "pod") or 1 / 0)
        with pytest.raises(ExceptionGroup):
            collected(pods, grace=0)
    assert pod.state is State.EXITED_GARBAGE  # nobody holds it
    assert collected(pods, grace=0) == [f'Garbage collecting pod "{pod.uuid}"']
    assert pods.all() == ()


def test_one_pod_that_resists_does_not_keep_the_others(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted((in_state(pods, "run"), in_state(pods, "run")), key=lambda pod: pod.uuid)

    def clear(pod: Pod, net: object = None) -> None:
        if pod.uuid == first.uuid:
            raise OSError("its network resists")

    monkeypatch.setattr(stage1, "clear", clear)
    with pytest.raises(ExceptionGroup, match="some pods could not be removed"):
        collected(pods, grace=0)
    assert [pod.uuid for pod in pods.all()] == [first.uuid]
    assert second.uuid not in os.listdir(pods.data / "pods/exited-garbage")


def test_rm_removes_at_once_what_does_not_run(pods: Pods) -> None:
    for place in ("prepared", "run", "exited-garbage", "garbage", "prepare"):
        remove(in_state(pods, place))
    assert pods.all() == ()
    running = in_state(pods, "run", held=True)
    with pytest.raises(PodError, match=f'pod "{running.uuid}" is currently running'):
        remove(pods.find(running.uuid))


@pytest.mark.parametrize(
    ("text", "length"), [("30m0s", 1800), ("5m0s", 300), ("0s", 0), ("0", 0), ("24h", 86400), ("1.5m", 90), ("1h2m3s", 3723)]
)
def test_times_are_read_as_go_writes_them(text: str, length: float) -> None:
    assert seconds(text) == length


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5m x", "-5m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="invalid duration"):
        seconds(text)


@pytest.mark.parametrize(("length", "text"), [(1800, "30m0s"), (86400, "24h0m0s"), (0, "0s"), (5.5, "5.5s"), (3600, "1h0m0s")])
def test_times_are_written_as_go_writes_them(length: float, text: str) -> None:
    assert duration(length) == text
