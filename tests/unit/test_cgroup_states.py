"""The cgroup part of a snapshot, from recorded machines."""

from pathlib import Path

from labkit.kernel.cgroups.hierarchy import hierarchies
from labkit.kernel.cgroups.members import describe, memberships
from labkit.kernel.cgroups.reading import states

RECORDED = Path(__file__).parents[1] / "data" / "cgroups"


def read(name: str, below: str | None = None):
    found = states(hierarchies(RECORDED / name / "proc", RECORDED / name), below)
    return {(state.hierarchy, state.path): state for state in found}


def test_every_cgroup_of_every_hierarchy_is_there_once():
    found = read("hybrid")
    assert {path for hierarchy, path in found if hierarchy == "freezer"} == {"/", "/lab-2.1", "/lab-2.1/mycgroup"}
    assert {path for hierarchy, path in found if hierarchy == ""} == {"/", "/lab-2.1", "/lab-2.1/clock"}
    assert ("name=systemd", "/") in found


def test_a_cgroup_of_v1_has_its_settings_and_its_processes():
    state = read("hybrid")["memory", "/lab-2.1/mycgroup"]
    assert state.values["memory.limit_in_bytes"] == "67108864"
    assert state.pids == (2213, 2214)
    assert state.version == 1


def test_counters_are_no_settings():
    found = read("v2")["", "/lab-2.1/mycgroup"].values
    assert not {"memory.current", "memory.events", "cpu.stat", "pids.current"} & set(found)
    assert found["memory.max"] == "67108864"
    assert found["cpu.max"] == "20000 100000"
    assert found["cgroup.freeze"] == "1"


def test_a_cgroup_of_v2_has_the_files_of_the_controllers_that_its_parent_gives_it():
    found = read("v2")
    assert "memory.max" in found["", "/lab-2.1"].values
    assert "memory.max" not in found["", "/"].values


def test_only_a_part_can_be_read():
    assert {path for _, path in read("hybrid", "lab-2.1")} == {"/lab-2.1", "/lab-2.1/mycgroup", "/lab-2.1/clock"}
    assert "memory.max" in read("v2", "lab-2.1")["", "/lab-2.1"].values


def test_controllers_mounted_together_are_one_hierarchy():
    assert read("v1")["cpu,cpuacct", "/lab-2.1"].values == {"cpu.shares": "1024"}


def test_a_file_that_says_nothing_is_left_out():
    assert "blkio.throttle.write_bps_device" not in read("hybrid")["blkio", "/lab-2.1/mycgroup"].values


def test_the_cgroups_of_a_process_are_read_from_proc():
    assert memberships(2213, RECORDED / "v2/proc") == {"": "/lab-2.1/mycgroup"}


def test_processes_are_named_for_an_error():
    assert describe([2213], RECORDED / "v2/proc") == "bash (pid 2213)"
    assert describe(range(1, 9), RECORDED / "v2/proc").endswith("and 3 more")
