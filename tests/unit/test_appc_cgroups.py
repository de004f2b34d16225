"""Where the cgroups of a pod lie on a machine with cgroup v2 alone, and to whom controllers are handed down."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from labkit.appc import cgroups
from labkit.kernel.cgroups import Hierarchies, Hierarchy, controllers, members

RUN = "machine.slice/run-r7.service"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy of v2, alone, in which this process is the unit `RUN`."""
    monkeypatch.setattr(cgroups, "hierarchies", lambda: Hierarchies((Hierarchy((), tmp_path),)))
    monkeypatch.setattr(members, "memberships", lambda _: {"": f"/{RUN}"})
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "cgroup.procs").write_text(f"{os.getpid()}\n")
    return tmp_path


def test_a_unit_of_machine_slice_is_where_its_pod_goes(root: Path) -> None:
    assert cgroups.own_unit() == f"/{RUN}"


@pytest.mark.parametrize(
    "place", ["/", "/user.slice/user-0.slice/session-1.scope", "/system.slice/jupyter.service", f"/{RUN}/below", "/lab-8.2"]
)
def test_every_other_place_is_none(root: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(members, "memberships", lambda _: {"": place})
    assert cgroups.own_unit() == ""


def test_a_unit_with_other_processes_is_none(root: Path) -> None:
    (root / RUN / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    assert cgroups.own_unit() == ""


def test_a_machine_with_v1_too_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Hierarchies((Hierarchy((), root / "unified"), Hierarchy(("memory",), root / "memory")))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: both)
    assert cgroups.own_unit() == ""


def test_controllers_are_handed_down_from_the_root_once_the_unit_s_own_cgroup_is_empty(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def written(path: Path, value: str) -> None:
        assert value == str(os.getpid())
        done.append(f"join {path.parent.relative_to(root)}")

    def enabled(directory: Path, names: Iterable[str]) -> None:
        done.append(f"{' '.join(names)} {directory.relative_to(root)}")

    monkeypatch.setattr(members, "write", written)
    monkeypatch.setattr(controllers, "enable", enabled)
    monkeypatch.setattr(controllers, "enable_for_lab", lambda above, below, names: (enabled(above, names), enabled(below, names)))
    monkeypatch.setattr(cgroups, "subtree", lambda: "lab-8.2")
    group = cgroups._in_unit(f"/{RUN}", "rkt-1", ["cpu", "memory"])
    assert done == [
        f"join {RUN}/lab-8.2/supervisor", "cpu memory .", "cpu memory machine.slice", f"cpu memory {RUN}", f"cpu memory {RUN}/lab-8.2",
    ]  # fmt: skip
    assert group.path == root / RUN / "lab-8.2/rkt-1"
    assert group.path.is_dir()
