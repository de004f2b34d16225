"""Pods on a machine with cgroup v2 alone: where their cgroups lie, and what the apps see of them; limits, where v2 has the controllers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trial_pods import Trial, isolator, main, processes_of, said, until

from labkit.appc import stage1
from labkit.appc.pod import Pod
from labkit.kernel.cgroups import hierarchies, members

ALONE = """
for place in $(findmnt --noheadings --list --types cgroup --output TARGET); do umount "$place"; done
mkdir -p "$1"
echo $$ > "$1/cgroup.procs"
shift
"""
"""Takes v1 away, in a mount namespace, and puts the shell into a cgroup of v2, as systemd does with a unit."""

UNIT = "machine.slice/run-r4711.service"


@pytest.fixture
def trial(own_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    return Trial(own_state / tmp_path_factory.mktemp("rkt").name)


@pytest.fixture
def unit() -> Iterator[Path]:
    """A unit's cgroup, which is trimmed at its end as systemd does it."""
    root = hierarchies().unified
    assert root is not None
    there = (root / "machine.slice").is_dir()
    yield root / UNIT
    members.end(root / (UNIT if there else "machine.slice"), 10)


def v2(trial: Trial, pod: Pod, cgroup: Path, *, last: str = 'exec "$@"') -> list[str]:
    """Return the command that runs a pod in a cgroup of v2."""
    return ["unshare", "--mount", "/bin/sh", "-e", "-c", ALONE + last, "sh", str(cgroup), *trial.argv(pod)]


def started(trial: Trial, pod: Pod, cgroup: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(v2(trial, pod, cgroup), text=True)
    until(lambda: process.poll() is not None or pod.read("appsinfo/main/pid"))
    assert process.poll() is None
    return process


def sleeper() -> dict[str, object]:
    return main("/bin/sleep", "1000")


def test_without_a_unit_a_pod_is_in_the_lab_s_part(trial: Trial, unit: Path) -> None:
    offered = "memory" in hierarchies().v2_controllers
    memory = [isolator("resource/memory", {"limit": "32Mi"})] if offered else []
    look = "grep ^0: /proc/self/cgroup; cd /sys/fs/cgroup; ls cgroup.controllers; [ ! -e unified ]; cat memory.max 2> /dev/null || :"
    pod = trial.pod({"main": main("/bin/sh", "-e", "-c", look, isolators=memory)})
    done = subprocess.run(v2(trial, pod, unit.parents[1]), capture_output=True, text=True, timeout=60, check=False)
    assert said(done.stdout) == ["0::/", "cgroup.controllers", *([str(32 << 20)] if offered else [])], done
    assert pod.read("subcgroup") == f"lab-lab/rkt-{pod.uuid}\n"
    assert not list(unit.parents[1].rglob(f"*{pod.uuid}"))


def test_a_unit_of_machine_slice_has_its_pod_and_no_process_in_an_inner_node(trial: Trial, unit: Path) -> None:
    pod = trial.pod({"main": sleeper()})
    process = started(trial, pod, unit)
    home, whole = unit / "lab-lab", unit / f"lab-lab/rkt-{pod.uuid}"
    assert pod.read("subcgroup") == f"{UNIT}/lab-lab/rkt-{pod.uuid}\n"
    until(lambda: members.pids(whole / "main"))
    assert [members.pids(inner) for inner in (unit, home, whole)] == [[], [], []]
    assert members.pids(home / "supervisor") == [process.pid]
    assert pod.pid in members.pids(whole / "_stage1")
    handed = members.read(whole / "cgroup.subtree_control").split()
    assert set(handed) >= {"cpu", "memory", "pids"} & set(hierarchies().v2_controllers)
    stage1.stop(pod)
    assert process.wait(30) == 15
    assert not whole.exists()


def test_who_is_not_alone_in_its_unit_runs_its_pod_in_the_lab_s_part(trial: Trial, unit: Path) -> None:
    pod = trial.pod({"main": main("/bin/true")})
    done = subprocess.run(v2(trial, pod, unit, last='"$@"; exit $?'), timeout=60, check=False)
    assert done.returncode == 0
    assert pod.read("subcgroup") == f"lab-lab/rkt-{pod.uuid}\n"


def test_a_unit_whose_supervisor_was_killed_leaves_what_is_collected(trial: Trial, unit: Path) -> None:
    pod = trial.pod({"main": sleeper()})
    process = started(trial, pod, unit)
    process.kill()
    process.wait()
    until(lambda: pod.state == "exited" and not processes_of(pod))
    stage1.clear(pod)
    assert not list(unit.rglob("rkt-*"))
