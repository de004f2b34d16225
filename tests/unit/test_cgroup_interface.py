"""Formats of interface files, and the names of v2 on a v1 machine."""

from pathlib import Path

import pytest

from labkit.errors import LabError, UnsupportedError
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.cgroups import files as cgroup_files
from labkit.kernel.cgroups.interface import from_v1, parse, shares_of, size, text_of, to_v1, weight_of
from labkit.kernel.cgroups.versions import TABLE, row_of, v2_name

RECORDED = Path(__file__).parents[1] / "data" / "cgroups"
V2 = RECORDED / "v2/sys/fs/cgroup"
FIRST = RECORDED / "hybrid/sys/fs/cgroup"


def old() -> Cgroup:
    names = {"freezer": "freezer", "memory": "memory", "cpu": "cpu", "cpuacct": "cpuacct", "pids": "pids", "io": "blkio"}
    return Cgroup("mycgroup", {name: FIRST / place / "lab-2.1/mycgroup" for name, place in names.items()})


def new() -> Cgroup:
    return Cgroup("mycgroup", {"": V2 / "lab-2.1/mycgroup"})


def reader(files: dict[str, str]):
    return lambda name: files.get(name, "")


SIZES = {"0": 0, "4096": 4096, 65536: 65536, "64K": 65536, "64k": 65536, "64M": 67108864, "1G": 1 << 30, "2T": 2 << 40, "1P": 1 << 50,
         "1E": 1 << 60, " 1M ": 1 << 20}  # fmt: skip


@pytest.mark.parametrize(("text", "number"), SIZES.items())
def test_sizes_are_binary_as_the_kernel_reads_them(text, number):
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "M", "64Q", "64MB", "1.5G", "-1", "64 M", "max"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(LabError, match="no size"):
        size(text)


@pytest.mark.parametrize(("key", "text", "value"), [
    ("memory.max", "max", "max"),
    ("memory.max", "67108864", 67108864),
    ("hugetlb.2MB.max", "9223372036854771712", "max"),
    ("cpu.max", "max 100000", "max 100000"),
    ("pids.max", "20", 20),
    ("cgroup.procs", "2214\n2213\n2214", (2213, 2214)),
    ("cgroup.procs", "", ()),
    ("cgroup.controllers", "cpu memory pids", ("cpu", "memory", "pids")),
    ("cgroup.subtree_control", "", ()),
    ("cgroup.type", "domain invalid", "domain invalid"),
    ("cgroup.events", "populated 1\nfrozen 0", {"populated": 1, "frozen": 0}),
    ("memory.events.local", "low 0\nmax 3", {"low": 0, "max": 3}),
    ("memory.pressure", "some avg10=1.50 avg300=0.00 total=223301", {"some": {"avg10": 1.5, "avg300": 0.0, "total": 223301}}),
    ("cgroup.pressure", "1", 1),
    ("io.max", "8:16 rbps=2097152 wbps=max riops=max wiops=120", {"8:16": {"rbps": 2097152, "wbps": "max", "riops": "max", "wiops": 120}}),
    ("io.max", "", {}),
    ("cpuset.cpus", "0-3,7", "0-3,7"),
    ("io.weight", "default 100", {"default": 100}),
])  # fmt: skip
def test_each_file_is_read_in_its_own_format(key, text, value):
    assert parse(key, text) == value


def test_the_files_of_v2_are_read_as_the_kernel_documents_them():
    group = new()
    assert group["memory.events"]["oom_kill"] == 2
    assert group["cpu.stat"]["nr_throttled"] == 35
    assert group["pids.events"]["max"] == 7
    assert group["io.stat"]["8:16"]["wbytes"] == 314773504
    assert group["io.weight"] == {"default": 100, "8:16": 200, "8:0": 50}
    assert group["memory.pressure"]["some"]["avg10"] == 1.5
    assert group["memory.numa_stat"]["anon"] == {"N0": 81920}
    assert group["cgroup.freeze"] == 1
    assert (group.procs(), group.threads(), group.frozen) == ((2213, 2214), (2213, 2214, 2299), True)


@pytest.mark.parametrize("key", ["memory.max", "memory.current", "memory.peak", "memory.stat", "cpu.weight", "cpu.stat", "cgroup.freeze",
                                 "cgroup.events", "cgroup.procs", "cgroup.threads", "pids.current"])  # fmt: skip
def test_a_key_answers_the_same_on_v1_as_on_v2(key):
    first, second = old()[key], new()[key]
    assert (first == second) if not isinstance(first, dict) else first.items() <= {**second, **first}.items()
    assert type(first) is type(second)


def test_v1_answers_in_the_format_of_v2():
    group = old()
    assert group["memory.max"] == 67108864
    assert group["memory.swap.max"] == "max"
    assert group["memory.swap.current"] == 8192
    assert group["memory.events"] == {"max": 123, "oom_kill": 2}
    assert group["memory.stat"] == {"anon": 81920, "file": 8192, "anon_thp": 0, "file_mapped": 4096, "pgfault": 25, "pgmajfault": 1}
    assert group["cpu.max"] == "max 100000"
    assert group["cpu.weight"] == 200
    assert group["cpu.stat"] == {"usage_usec": 701234, "user_usec": 600000, "system_usec": 101233, "nr_periods": 36, "nr_throttled": 35,
                                 "throttled_usec": 2772187, "nr_bursts": 0, "burst_usec": 0}  # fmt: skip
    assert group["cgroup.freeze"] == 1
    assert group["cgroup.events"] == {"populated": 1, "frozen": 1}
    assert group["pids.max"] == "max"
    assert group["io.max"] == {"8:0": {"rbps": 1048576, "wbps": "max", "riops": "max", "wiops": 120},
                               "8:16": {"rbps": "max", "wbps": "max", "riops": "max", "wiops": 50}}  # fmt: skip
    assert group["io.bfq.weight"] == {"default": 100}
    assert group["io.stat"] == {"8:0": {"rbytes": 4096, "wbytes": 8192, "dbytes": 0, "rios": 1, "wios": 2, "dios": 0}}


def test_the_names_of_v1_are_taken_on_v1_and_answer_what_the_file_says():
    group = old()
    assert group["memory.limit_in_bytes"] == 67108864
    assert group["memory.oom_control"] == {"oom_kill_disable": 0, "under_oom": 0, "oom_kill": 2}
    assert group["freezer.state"] == "FROZEN"
    assert group["cpu.cfs_quota_us"] == -1
    assert group["tasks"] == (2213, 2214, 2299)


def test_the_oom_control_of_a_kernel_that_does_not_count_kills_yet_is_read_too():
    files = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0", "memory.failcnt": "4"}
    assert from_v1("memory.events", reader(files)) == {"max": 4}


def test_no_limit_in_v1_is_max():
    assert from_v1("memory.max", reader({"memory.limit_in_bytes": "9223372036854771712"})) == "max"
    assert from_v1("memory.max", reader({"memory.limit_in_bytes": "9223372036854710272"})) == "max"  # pages of 64 KiB


def test_a_machine_that_does_not_count_swap_says_so():
    with pytest.raises(LabError, match="count swap"):
        from_v1("memory.swap.max", reader({"memory.limit_in_bytes": "4096"}))


@pytest.mark.parametrize(("key", "text", "files", "written"), [
    ("memory.max", "64M", {}, [("memory.limit_in_bytes", "64M")]),
    ("memory.max", "max", {}, [("memory.limit_in_bytes", "-1")]),
    ("memory.swap.max", "0", {"memory.limit_in_bytes": "67108864"}, [("memory.memsw.limit_in_bytes", "67108864")]),
    ("memory.swap.max", "1M", {"memory.limit_in_bytes": "67108864"}, [("memory.memsw.limit_in_bytes", "68157440")]),
    ("memory.swap.max", "max", {}, [("memory.memsw.limit_in_bytes", "-1")]),
    ("pids.max", "max", {}, [("pids.max", "max")]),
    ("cpu.weight", "100", {}, [("cpu.shares", "1024")]),
    ("cgroup.freeze", "1", {}, [("freezer.state", "FROZEN")]),
    ("cgroup.freeze", "0", {}, [("freezer.state", "THAWED")]),
    ("cpu.max", "20000 100000", {"cpu.cfs_period_us": "100000"}, [("cpu.cfs_quota_us", "20000")]),
    ("cpu.max", "20000", {"cpu.cfs_period_us": "50000"}, [("cpu.cfs_quota_us", "20000")]),
    ("cpu.max", "max", {"cpu.cfs_period_us": "100000"}, [("cpu.cfs_quota_us", "-1")]),
    ("cpu.max", "max 50000", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1"}, [("cpu.cfs_period_us", "50000")]),
    ("cpu.max", "5000 50000", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1"},
     [("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "5000")]),
    ("cpu.max", "5000 50000", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "9000"},
     [("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "5000")]),
    ("io.max", "8:0 rbps=1048576 wiops=max", {},
     [("blkio.throttle.read_bps_device", "8:0 1048576"), ("blkio.throttle.write_iops_device", "8:0 0")]),
    ("hugetlb.2MB.max", "4M", {}, [("hugetlb.2MB.limit_in_bytes", "4M")]),
    ("cgroup.threads", "12", {}, [("tasks", "12")]),
])  # fmt: skip
def test_a_value_of_v2_becomes_what_v1_wants(key, text, files, written):
    assert to_v1(key, text_of(key, text), reader(files)) == written


def test_each_weight_survives_the_way_to_shares_and_back():
    assert all(weight_of(shares_of(weight)) == weight for weight in range(1, 10_001))
    assert (shares_of(100), shares_of(1), shares_of(10_000)) == (1024, 10, 102400)


def test_shares_beyond_the_weights_stop_at_their_ends():
    assert (weight_of(2), weight_of(262_144)) == (1, 10_000)


NONSENSE = [("memory.max", "64Q"), ("memory.max", -5), ("memory.limit_in_bytes", "lots"), ("cgroup.freeze", 2), ("cgroup.freeze", "FROZEN"),
            ("cpu.weight", 0), ("cpu.weight", 10_001), ("cpu.max", "fast"), ("pids.max", "few"), ("pids.max", -1), ("io.max", "sda 100"),
            ("hugetlb.2MB.max", "x")]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), NONSENSE)
def test_a_value_that_cannot_be_meant_is_refused_before_the_kernel_sees_it(key, value):
    with pytest.raises(LabError) as refusal:
        text_of(key, value)
    assert "\n" not in str(refusal.value)


TEXTS = [("memory.max", 67108864, "67108864"), ("cpu.max", (20000, 100000), "20000 100000"), ("cgroup.freeze", True, "1"),
         ("pids.max", 20, "20"), ("memory.max", "max", "max")]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "text"), TEXTS)
def test_values_of_python_become_the_text_that_the_kernel_reads(key, value, text):
    assert text_of(key, value) == text


ONLY_V2 = ["memory.high", "memory.low", "cgroup.subtree_control", "cgroup.kill", "cgroup.type", "memory.oom.group",
           "io.weight", "memory.pressure"]  # fmt: skip


@pytest.mark.parametrize("key", ONLY_V2)
def test_what_has_no_equal_in_v1_says_so_and_what_v1_has_instead(key):
    with pytest.raises(UnsupportedError, match="no equal"):
        old()[key]
    with pytest.raises(UnsupportedError):
        cgroup_files.writes("mycgroup", old()._where, key, "1")


def test_a_name_of_v1_on_v2_is_answered_with_the_name_there():
    with pytest.raises(LabError, match=r"memory\.limit_in_bytes is memory\.max"):
        new()["memory.limit_in_bytes"]
    with pytest.raises(LabError, match=r"is cgroup\.freeze"):
        new()["freezer.state"]


def test_a_mistyped_key_is_answered_with_the_nearest_there_is():
    with pytest.raises(LabError, match=r"did you mean memory\.max"):
        new()["memory.mx"]


def test_a_controller_that_the_cgroup_has_not_is_named_with_the_way_to_it():
    with pytest.raises(LabError, match="no cpuset"):
        old()["cpuset.cpus"]
    with pytest.raises(LabError, match=r"no cpuset controller.*cgroup.controllers has cpu, memory, pids"):
        new()["cpuset.cpus"]


def test_a_cgroup_that_is_gone_says_so():
    with pytest.raises(LabError, match="not there any more"):
        Cgroup("gone", {"": V2 / "lab-2.1/gone"})["memory.max"]


def test_the_keys_are_those_of_v2_on_both():
    wanted = {"memory.max", "memory.events", "cpu.max", "cpu.weight", "cpu.stat", "pids.max", "cgroup.procs", "cgroup.freeze", "io.max"}
    assert wanted <= set(old().keys())
    assert wanted <= set(new().keys())
    assert "memory.limit_in_bytes" not in old().keys()  # noqa: SIM118
    assert "memory.high" not in old()
    assert "memory.high" in new()


def test_every_key_can_be_read():
    for group in (old(), new()):
        for key in group.keys():  # noqa: SIM118
            group[key]


def test_the_table_names_each_file_of_v2_once_and_explains_what_is_missing():
    names = [row.v2 for row in TABLE]
    assert len(names) == len(set(names))
    assert all(row.note for row in TABLE if not row.v1)


def test_the_table_is_read_in_both_directions():
    assert row_of("hugetlb.2MB.max").v1 == ("hugetlb.2MB.limit_in_bytes",)
    assert v2_name("hugetlb.1GB.limit_in_bytes") == "hugetlb.1GB.max"
    assert v2_name("memory.limit_in_bytes") == "memory.max"
    assert v2_name("memory.max") is None
    assert row_of("no.such") is None
