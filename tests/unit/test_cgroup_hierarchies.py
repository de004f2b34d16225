"""Which hierarchies a machine has, read from recorded machines."""

from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel.cgroups.delegation import check_name, subtree
from labkit.kernel.cgroups.hierarchy import Hierarchies, hierarchies

RECORDED = Path(__file__).parents[1] / "data" / "cgroups"


def machine(name: str) -> Hierarchies:
    return hierarchies(RECORDED / name / "proc", RECORDED / name)


def place(name: str, path: str) -> Path:
    return RECORDED / name / "sys/fs/cgroup" / path


def test_a_machine_with_both_versions_is_hybrid():
    here = machine("hybrid")
    assert here.mode == "hybrid"
    assert here.unified == place("hybrid", "unified")
    assert here.v1["freezer"] == place("hybrid", "freezer")
    assert "hugetlb" not in here.v1


def test_a_machine_with_systemd_of_today_is_v2():
    here = machine("v2")
    assert (here.mode, here.unified, here.v1) == ("v2", place("v2", ""), {})


def test_the_same_hierarchy_mounted_twice_counts_once_and_where_it_was_mounted_first():
    assert len(machine("v2").mounted) == 1


def test_a_machine_of_the_old_kind_is_v1_and_its_controllers_may_share_a_hierarchy():
    here = machine("v1")
    assert (here.mode, here.unified) == ("v1", None)
    assert here.v1["cpu"] == here.v1["cpuacct"] == place("v1", "cpu,cpuacct")
    assert here.of(place("v1", "cpu,cpuacct/lab-2.1")).name == "cpu,cpuacct"


def test_the_version_of_a_controller_is_where_the_machine_has_it():
    hybrid, v1, v2 = machine("hybrid"), machine("v1"), machine("v2")
    assert [hybrid.version_of(name) for name in ("freezer", "memory", "hugetlb", "net_cls")] == [1, 1, 2, None]
    assert [v1.version_of(name) for name in ("freezer", "memory", "hugetlb")] == [1, 1, None]
    assert [v2.version_of(name) for name in ("freezer", "memory", "net_cls", "devices")] == [2, 2, None, None]


def test_io_of_v2_and_blkio_of_v1_are_one_controller_under_two_names():
    assert machine("hybrid").directory("io", 1) == place("hybrid", "blkio")
    assert machine("v2").directory("blkio", 2) == place("v2", "")


def test_the_v2_hierarchy_of_a_hybrid_machine_can_freeze_though_v1_has_a_freezer():
    assert machine("hybrid").directory("freezer", 2) == place("hybrid", "unified")


def test_a_controller_that_is_compiled_in_but_switched_off_is_not_known():
    assert "pids" not in machine("v1").known
    assert "pids" in machine("hybrid").known


def test_a_mount_that_shows_a_part_of_a_hierarchy_tells_which():
    assert {hierarchy.name: hierarchy.root for hierarchy in machine("v1").mounted}["memory"] == "/docker/4f2a"


def test_a_space_in_a_mount_point_is_decoded(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("61 24 0:27 / /srv/a\\040b rw - cgroup2 cgroup2 rw\n")
    assert hierarchies(tmp_path).unified == Path("/srv/a b")


def test_what_the_lab_mounted_for_itself_does_not_change_the_mode(tmp_path):
    (tmp_path / "self").mkdir()
    own = f"62 24 0:40 / {ledger.state()}/freezer rw - cgroup freezer rw,freezer\n"
    (tmp_path / "self/mountinfo").write_text("30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" + own)
    here = hierarchies(tmp_path)
    assert (here.mode, here.v1, here.version_of("freezer")) == ("v2", {}, 2)
    assert [hierarchy.own for hierarchy in here.mounted] == [False, True]


def test_no_hierarchy_at_all_is_said_so(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("")
    assert (hierarchies(tmp_path).mode, hierarchies(tmp_path).describe()) == ("none", "v1: none; v2: not mounted")


def test_the_part_of_a_lab_carries_its_id():
    ledger.own("2.1")
    assert subtree() == "lab-2.1"
    ledger.own("")
    assert subtree() == "lab-lab"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", ".hidden", "-n", "a b", "a\n", "a\0b", "ä", "$x", "x" * 300,
                                  "cgroup.procs", "memory.max", "tasks", "processes", "notify_on_release"])  # fmt: skip
def test_a_name_that_cannot_be_a_cgroup_is_refused_in_one_line_with_a_remedy(name):
    with pytest.raises(LabError) as refusal:
        check_name(name)
    assert "\n" not in str(refusal.value)
    assert refusal.value.remedy


@pytest.mark.parametrize("name", ["mycgroup", "a", "web-1", "x.y", "user@1000", "_x", "memory"])
def test_a_name_that_a_person_would_choose_is_taken(name):
    assert check_name(name) == name
