"""Readers of namespaces and processes on a recorded /proc."""

from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.kernel import credentials, namespaces

STATUS = (
    "Name:\tclock\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t5\t5\t5\nGroups:\t4 24 \n"
    "NSpid:\t{pid}\t7\t1\nCapEff:\t0000000000200003\nCapAmb:\t0\n"
)
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max processes             30                   96365                processes
Max realtime timeout      unlimited            7                    us
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of three processes: 10 and 11 share all but uts, of 12 only net may be read; 9 is half gone."""
    for pid, uts, kinds in ((10, 1, None), (11, 2, None), (12, 1, ["net"]), (9, 1, [])):
        folder = tmp_path / str(pid) / "ns"
        folder.mkdir(parents=True)
        for kind in namespaces.KINDS.values():
            if kinds is None or kind.file in kinds:
                (folder / kind.file).symlink_to(f"{kind.file}:[402653{uts if kind.file == 'uts' else 9}]")
        (folder / "pid_for_children").symlink_to("pid:[4026539]")
    (tmp_path / "10/stat").write_text("10 (a (b) c) S 1 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4321 99\n")
    (tmp_path / "10/status").write_text(STATUS.format(pid=10))
    (tmp_path / "10/cmdline").write_bytes(b"bash\0-c\0sleep 1\0")
    (tmp_path / "10/cgroup").write_text("5:freezer:/lab/mycgroup\n1:name=systemd:/a:b\n0::/lab\n")
    (tmp_path / "10/limits").write_text(LIMITS)
    (tmp_path / "10/uid_map").write_text("         0       1000          1\n         1     100000      65536\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(
        "22 1 0:21 / /proc rw - proc proc rw\n"
        "90 30 0:4 net:[4026777] /some/place rw shared:2 - nsfs nsfs rw\n"
        "91 30 0:4 net:[4026777] /run/netns/name\\040one rw shared:2 - nsfs nsfs rw\n"
        "92 30 0:4 mnt:[4026539] /kept rw - nsfs nsfs rw\n"
    )
    (tmp_path / "uptime").write_text("1 1\n")
    return tmp_path


def test_the_inventory_groups_processes_by_namespace(proc: Path) -> None:
    states = {(state.kind, state.inode): state for state in namespaces.inventory(proc)}
    assert states["uts", 4026531].pids == (10,)
    assert states["uts", 4026532].pids == (11,)
    assert states["net", 4026539].pids == (10, 11, 12)
    assert list(states) == sorted(states, key=lambda place: (list(namespaces.KINDS).index(place[0]), place[1]))


def test_a_namespace_kept_by_a_mount_is_there_without_a_process_and_run_netns_names_it(proc: Path) -> None:
    states = {(state.kind, state.inode): state for state in namespaces.inventory(proc)}
    assert (states["net", 4026777].pids, states["net", 4026777].path) == ((), "/run/netns/name one")
    assert (states["mount", 4026539].pids, states["mount", 4026539].path) == ((10, 11), "/kept")


def test_what_may_not_be_read_is_left_out(proc: Path) -> None:
    assert namespaces.of(12, proc) == {"net": 4026539}
    assert namespaces.of(9, proc) == {}
    assert namespaces.shared(10, 12, proc) == {"net": True}
    assert not namespaces.shared(10, 11, proc)["uts"]
    with pytest.raises(LabError, match="there is no process 77"):
        namespaces.of(77, proc)


def test_a_process_whose_name_holds_brackets_and_spaces_is_read_whole(proc: Path) -> None:
    state = namespaces.process(10, proc, name="clock")
    assert (state.pid, state.ppid, state.comm, state.state, state.start) == (10, 1, "a (b) c", "S", 4321)
    assert (state.argv, state.pid_inside, state.name) == (("bash", "-c", "sleep 1"), 1, "clock")
    assert dict(state.cgroups) == {"freezer": "/lab/mycgroup", "name=systemd": "/a:b", "": "/lab"}
    assert [one.pid for one in namespaces.processes(proc)] == [10]


def test_maps_are_inside_outside_count(proc: Path) -> None:
    assert namespaces.uid_map(10, proc) == ((0, 1000, 1), (1, 100000, 65536))
    with pytest.raises(LabError, match="gid_map cannot be read"):
        namespaces.gid_map(10, proc)


def test_each_kind_has_one_flag_and_one_name_of_each_sort() -> None:
    rows = list(namespaces.KINDS.values())
    assert len(rows) == 8
    for field in ("name", "flag", "flag_name", "file", "oci"):
        assert len({getattr(row, field) for row in rows}) == 8
    with pytest.raises(LabError, match="one of mount, uts"):
        namespaces.kind_named("network")


def test_ids_capabilities_and_limits_are_read_by_name(proc: Path) -> None:
    ids = credentials.ids(10, proc)
    assert (ids.uid, ids.gid, ids.groups) == ((1000, 1001, 1002, 1003), (5, 5, 5, 5), (4, 24))
    assert credentials.capabilities(10, proc) == {"effective": ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"), "ambient": ()}
    assert credentials.lacking(["CAP_SYS_ADMIN", "CAP_KILL"], 10, proc) == ("CAP_KILL",)
    limits = credentials.rlimits(10, proc)
    assert limits == {"RLIMIT_CPU": (None, None), "RLIMIT_NPROC": (30, 96365), "RLIMIT_RTTIME": (None, 7)}
    with pytest.raises(LabError, match="no capability is called 'CAP_ALL'"):
        credentials.lacking(["CAP_ALL"], 10, proc)


def test_capabilities_newer_than_the_list_go_by_their_number() -> None:
    assert credentials.names_of(1 << 40 | 1 << 63) == ("CAP_CHECKPOINT_RESTORE", "CAP_63")
