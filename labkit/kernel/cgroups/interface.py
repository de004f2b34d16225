"""The interface files of cgroups: their formats, and v2 names on a v1 machine through one table.

v2 is the language. `from_v1` answers in the format of v2 from what the v1 files say, `to_v1` turns a value of v2 into
what must be written where. See: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from labkit.errors import LabError
from labkit.kernel.cgroups.versions import TABLE, row_of

Value = int | str | tuple[str, ...] | tuple[int, ...] | dict[str, int] | dict[str, dict[str, int | float | str]]
"""What an interface file says: number, "max" or other text, words, PIDs, flat keyed, nested keyed."""

Read = Callable[[str], str]
"""Reads a v1 interface file by its name; "" where it is not there."""


_SIZE = re.compile(r"(\d+)([KMGTPE]?)", re.IGNORECASE)
_UNLIMITED = (1 << 63) - (1 << 16)
"""A limit from here on is none: v1, and hugetlb in v2, write the kernel's largest number of whole pages (of up to 64 KiB)."""
_LIMITS = ("memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.max", "memory.swap.high", "memory.zswap.max")
_DEVICES = dict(zip(("rbps", "wbps", "riops", "wiops"), next(row.v1 for row in TABLE if row.v2 == "io.max"), strict=True))
_FLAT = (".stat", ".events", ".events.local", ".stat.local", ".oom_control", "io.weight", "io.bfq.weight")
_NESTED = ("io.stat", "io.max", "io.latency", "io.cost.qos", "io.cost.model", "memory.numa_stat", "rdma.max", "rdma.current")
_MEMORY_STAT = {
    "anon": "rss", "file": "cache", "anon_thp": "rss_huge", "shmem": "shmem", "file_mapped": "mapped_file", "file_dirty": "dirty",
    "file_writeback": "writeback", "swapcached": "swapcached", "inactive_anon": "inactive_anon", "active_anon": "active_anon",
    "inactive_file": "inactive_file", "active_file": "active_file", "unevictable": "unevictable", "pgfault": "pgfault",
    "pgmajfault": "pgmajfault", "workingset_refault_anon": "workingset_refault_anon", "workingset_refault_file": "workingset_refault_file",
}  # fmt: skip


def size(text: str | int) -> int:
    """Return the number of bytes that a size means, read as the kernel reads it: K, M, G, T, P, E are powers of 1024.

    Raises:
        LabError: it is no size, or a negative one.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if not match:
        raise LabError(f"{text!r} is no size", remedy="write bytes, or a whole number with K, M, G, T, P or E, such as 64M")
    return int(match[1]) << 10 * " KMGTPE".index(match[2].upper() or " ")


def parse(key: str, text: str) -> Value:
    """Read the text of an interface file in the format that this file has.

    Args:
        key: its name.
        text: what it says.

    Returns:
        A number, "max" or other text, a tuple of words or PIDs, a dict (flat keyed) or a dict of dicts (nested keyed).
    """
    if key in ("cgroup.procs", "cgroup.threads", "tasks"):
        return tuple(sorted({int(word) for word in text.split()}))
    if key in ("cgroup.controllers", "cgroup.subtree_control"):
        return tuple(text.split())
    if key in _NESTED or (key.endswith(".pressure") and "=" in text):
        if "=" in text.partition(" ")[0]:
            return text  # v1 has another memory.numa_stat
        return {words[0]: _pairs(words[1:]) for line in text.splitlines() if (words := line.split())}
    if key.endswith(_FLAT):
        return {name: int(number) for name, number in (line.split() for line in text.splitlines())}
    if not re.fullmatch(r"-?\d+", text.strip()):
        return text.strip()
    return "max" if key.endswith(".max") and int(text) >= _UNLIMITED else int(text)


def _pairs(words: Sequence[str]) -> dict[str, int | float | str]:
    pairs: dict[str, int | float | str] = {}
    for name, _, value in (word.partition("=") for word in words):
        pairs[name] = int(value) if value.isdecimal() else float(value) if re.fullmatch(r"\d+\.\d+", value) else value
    return pairs


def text_of(key: str, value: object) -> str:
    """Return the text to write for a value, checked as far as can be known before the kernel sees it.

    Raises:
        LabError: a size that is none, a weight out of range, a state that is neither 0 nor 1, a quota that is none.
    """
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(int(value) if isinstance(value, bool) else value).strip()
    if key in _LIMITS or re.fullmatch(r"hugetlb\..*\.max|.*limit_in_bytes", key):
        if text not in ("max", "-1"):
            size(text)
    elif key == "cgroup.freeze" and text not in ("0", "1"):
        raise LabError(f"cgroup.freeze takes 1 (frozen) or 0 (thawed), not {text!r}")
    elif key == "cpu.weight" and not (text.isdecimal() and 1 <= int(text) <= 10_000):
        raise LabError(f"cpu.weight takes a number from 1 to 10000, not {text!r}", remedy="100 is the default: twice that is 200")
    elif key == "cpu.max" and not re.fullmatch(r"(max|\d+)( \d+)?", text):
        raise LabError(f"cpu.max takes a quota and a period in microseconds, not {text!r}", remedy='such as "20000 100000"')
    elif key == "io.max" and not re.fullmatch(r"\d+:\d+( [rw](bps|iops)=(max|\d+))+", text):
        raise LabError(f"io.max takes a device and its limits, not {text!r}", remedy='such as "8:0 rbps=1048576 wiops=120"')
    elif key == "pids.max" and not re.fullmatch(r"max|\d+", text):
        raise LabError(f"pids.max takes a number or max, not {text!r}")
    return text


def translated(key: str) -> bool:
    """Whether a name of v2 means another file, or another format, on v1."""
    row = row_of(key)
    return row is not None and (row.v1 != (key,) or key in _READERS)


def from_v1(key: str, read: Read) -> Value:
    """Answer for an interface file of v2 from the v1 files that say the same.

    Args:
        key: name in v2, with an equal in the table.
        read: reads a v1 file.
    """
    if key in _READERS:
        return _READERS[key](read)
    row = row_of(key)
    assert row is not None
    text = read(row.v1[0])
    if key.startswith("hugetlb.") and key.endswith(".events"):
        return {"max": int(text)}
    return parse(key, text)


def weight_of(shares: int) -> int:
    """Return the cpu.weight that gives the same share as these cpu.shares.

    The kernel counts both in the unit of its scheduler: 1024 shares are a weight of 100 (sched_weight_to_cgroup() in
    kernel/sched/sched.h), rounded to the nearest and kept from 1 to 10000.
    """
    return min(10_000, max(1, (shares * 100 + 512) // 1024))


def shares_of(weight: int) -> int:
    """Return the cpu.shares of a cpu.weight, as sched_weight_from_cgroup() does; 2 is the least that v1 takes."""
    return max(2, (weight * 1024 + 50) // 100)


def _cpu_max(read: Read) -> str:
    quota = read("cpu.cfs_quota_us")
    return f"{'max' if quota == '-1' else quota} {read('cpu.cfs_period_us')}"


def _cpu_stat(read: Read) -> dict[str, int]:
    stat = {}
    for name, file in (("usage_usec", "cpuacct.usage"), ("user_usec", "cpuacct.usage_user"), ("system_usec", "cpuacct.usage_sys")):
        if text := read(file):
            stat[name] = int(text) // 1000
    for name, number in (line.split() for line in read("cpu.stat").splitlines()):
        in_time = name.endswith("_time")
        stat[name.replace("_time", "_usec")] = int(number) // 1000 if in_time else int(number)
    return stat


def _memory_events(read: Read) -> dict[str, int]:
    control = dict(line.split() for line in read("memory.oom_control").splitlines())
    events = {"max": int(read("memory.failcnt"))}
    return {**events, "oom_kill": int(control["oom_kill"])} if "oom_kill" in control else events  # since Linux 4.13


def _memory_stat(read: Read) -> dict[str, int]:
    there = dict(line.split() for line in read("memory.stat").splitlines())
    return {name: int(there[f"total_{old}"]) for name, old in _MEMORY_STAT.items() if f"total_{old}" in there}


def _swap(kind: str, read: Read) -> int | str:
    both, memory = int(read(f"memory.memsw.{kind}_in_bytes") or -1), int(read(f"memory.{kind}_in_bytes"))
    if both < 0:
        raise LabError("this kernel does not count swap in v1", remedy="boot with swapaccount=1")
    return "max" if both >= _UNLIMITED else both - memory


def _io_max(read: Read) -> dict[str, dict[str, int | float | str]]:
    devices: dict[str, dict[str, int | float | str]] = {}
    for name, file in _DEVICES.items():
        for device, number in (line.split() for line in read(file).splitlines()):
            devices.setdefault(device, dict.fromkeys(_DEVICES, "max"))[name] = int(number)
    return devices


def _io_stat(read: Read) -> dict[str, dict[str, int | float | str]]:
    devices: dict[str, dict[str, int | float | str]] = {}
    for unit, file in (("bytes", "io_service_bytes"), ("ios", "io_serviced")):
        for words in map(str.split, read(f"blkio.throttle.{file}_recursive").splitlines()):
            if len(words) == 3 and words[1] in ("Read", "Write", "Discard"):
                devices.setdefault(words[0], {})[words[1][0].lower() + unit] = int(words[2])
    return devices


_READERS: dict[str, Callable[[Read], Value]] = {
    "cgroup.freeze": lambda read: int(read("freezer.self_freezing") or read("freezer.state") != "THAWED"),
    "cpu.weight": lambda read: weight_of(int(read("cpu.shares"))),
    "cpu.max": _cpu_max,
    "cpu.stat": _cpu_stat,
    "memory.events": _memory_events,
    "memory.stat": _memory_stat,
    "memory.swap.max": lambda read: _swap("limit", read),
    "memory.swap.current": lambda read: _swap("usage", read),
    "io.max": _io_max,
    "io.stat": _io_stat,
    "io.bfq.weight": lambda read: {"default": int(read("blkio.bfq.weight"))},
}


def to_v1(key: str, text: str, read: Read) -> list[tuple[str, str]]:
    """Return the v1 files to write, in this order, and what, for a value of v2.

    Args:
        key: name in v2, with an equal in the table.
        text: from `text_of`.
        read: reads a v1 file: some values depend on what is set already.
    """
    if key == "cgroup.freeze":
        return [("freezer.state", "FROZEN" if text == "1" else "THAWED")]
    if key == "cpu.weight":
        return [("cpu.shares", str(shares_of(int(text))))]
    if key == "cpu.max":
        return _quota(text, read)
    if key == "memory.swap.max":
        both = "-1" if text == "max" else str(int(read("memory.limit_in_bytes")) + size(text))
        return [("memory.memsw.limit_in_bytes", both)]
    if key == "io.max":
        device, *limits = text.split()
        pairs = [word.partition("=")[::2] for word in limits]
        return [(_DEVICES[name], f"{device} {0 if value == 'max' else value}") for name, value in pairs]
    row = row_of(key)
    assert row is not None
    return [(row.v1[0], "-1" if text == "max" and row.v1[0].endswith("limit_in_bytes") else text)]


def _quota(text: str, read: Read) -> list[tuple[str, str]]:
    quota, _, period = text.partition(" ")
    number = "-1" if quota == "max" else quota
    if not period or period == read("cpu.cfs_period_us"):
        return [("cpu.cfs_quota_us", number)]
    free = [] if read("cpu.cfs_quota_us") == "-1" else [("cpu.cfs_quota_us", "-1")]  # the old quota need not fit the new period
    return [*free, ("cpu.cfs_period_us", period)] + ([("cpu.cfs_quota_us", number)] if number != "-1" else [])
