"""The table v1 ↔ v2: which interface file of one version says what a file of the other does, and what has no equal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Row:
    """One line of the table v1 ↔ v2.

    Attributes:
        v2: interface file of v2; `<size>` stands for a page size such as 2MB.
        v1: the files that say the same; empty where there is no equal.
        note: how the values differ, or what v1 has instead.
    """

    v2: str
    v1: tuple[str, ...] = ()
    note: str = ""


TABLE: tuple[Row, ...] = (
    Row("cgroup.procs", ("cgroup.procs",)),
    Row("cgroup.threads", ("tasks",)),
    Row("cgroup.freeze", ("freezer.state",), "1 is FROZEN, 0 is THAWED"),
    Row("cgroup.events", ("freezer.state", "cgroup.procs"), "frozen and populated, told from the two"),
    Row("cgroup.kill", (), "v1 has no such file: each process is signalled"),
    Row("cgroup.controllers", (), "in v1 every cgroup of a hierarchy has the controllers it is mounted with"),
    Row("cgroup.subtree_control", (), "in v1 every cgroup of a hierarchy has the controllers it is mounted with"),
    Row("cgroup.type", (), "v1 moves single threads through tasks"),
    Row("cgroup.max.depth", (), "v1 has no such limit"),
    Row("cgroup.max.descendants", (), "v1 has no such limit"),
    Row("memory.current", ("memory.usage_in_bytes",)),
    Row("memory.peak", ("memory.max_usage_in_bytes",)),
    Row("memory.max", ("memory.limit_in_bytes",), "max is -1 when written"),
    Row("memory.high", (), "memory.soft_limit_in_bytes is a hint for global reclaim, it throttles nobody"),
    Row("memory.low", (), "v1 protects no memory from reclaim"),
    Row("memory.min", (), "v1 protects no memory from reclaim"),
    Row("memory.swap.max", ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes"), "v1 limits the two together: the difference"),
    Row("memory.swap.current", ("memory.memsw.usage_in_bytes", "memory.usage_in_bytes"), "v1 counts the two together: the difference"),
    Row("memory.events", ("memory.oom_control", "memory.failcnt"), "oom_kill and max; v1 counts no low, high, oom"),
    Row("memory.stat", ("memory.stat",), "v1 calls anon rss and file cache; the total_ lines count the descendants too"),
    Row("memory.oom.group", (), "the OOM killer of v1 takes one process at a time"),
    Row("memory.reclaim", (), "memory.force_empty reclaims all there is"),
    Row("cpu.weight", ("cpu.shares",), "shares = weight * 1024 / 100, as the kernel's scheduler counts"),
    Row("cpu.max", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), "max is a quota of -1"),
    Row("cpu.max.burst", ("cpu.cfs_burst_us",)),
    Row("cpu.idle", ("cpu.idle",)),
    Row("cpu.stat", ("cpu.stat", "cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys"), "v1 counts nanoseconds, usage in cpuacct"),
    Row("cpuset.cpus", ("cpuset.cpus",), "v1: empty means no process can enter"),
    Row("cpuset.mems", ("cpuset.mems",), "v1: empty means no process can enter"),
    Row("cpuset.cpus.effective", ("cpuset.effective_cpus",)),
    Row("cpuset.mems.effective", ("cpuset.effective_mems",)),
    Row("cpuset.cpus.partition", (), "cpuset.cpu_exclusive only keeps siblings from overlapping"),
    Row("pids.max", ("pids.max",)),
    Row("pids.current", ("pids.current",)),
    Row("pids.peak", ("pids.peak",)),
    Row("pids.events", ("pids.events",)),
    Row("io.max", ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device",
                   "blkio.throttle.write_iops_device"), "one file a direction and unit; max is 0"),
    Row("io.stat", ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"), "one file a unit"),
    Row("io.bfq.weight", ("blkio.bfq.weight",)),
    Row("io.weight", (), "v1 has no io cost model"),
    Row("hugetlb.<size>.max", ("hugetlb.<size>.limit_in_bytes",)),
    Row("hugetlb.<size>.current", ("hugetlb.<size>.usage_in_bytes",)),
    Row("hugetlb.<size>.events", ("hugetlb.<size>.failcnt",)),
    Row("<controller>.pressure", (), "pressure stall information is kept in v2 only"),
)


def row_of(key: str) -> Row | None:
    """Return the table's row for an interface file of v2, with `<size>` filled in, or None."""
    for row in TABLE:
        pattern = re.escape(row.v2).replace("<size>", "([0-9]+[KMG]B)").replace("<controller>", "([a-z]+)")
        if match := re.fullmatch(pattern, key):
            return Row(key, tuple(name.replace("<size>", match[1]) for name in row.v1) if match.groups() else row.v1, row.note)
    return None


def v2_name(key: str) -> str | None:
    """Return the name in v2 of an interface file that only v1 has, or None."""
    for row in TABLE:
        names = [re.escape(name).replace("<size>", "([0-9]+[KMG]B)") for name in row.v1 if name not in (row.v2, "cgroup.procs")]
        for name in names:
            if match := re.fullmatch(name, key):
                return row.v2.replace("<size>", match[1]) if match.groups() else row.v2
    return None


def near(key: str, names: Sequence[str]) -> str | None:
    """Return the remedy for a mistyped name: the nearest ones that there are."""
    close = get_close_matches(key, list(names), n=3)
    return f"did you mean {' or '.join(close)}" if close else None
