"""The interface files that a meter is made of, in v1 and v2, and how their text is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.kernel.live.frame import Pressure

FILES: Mapping[int, tuple[str, ...]] = {
    1: (
        "cpuacct.usage", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.usage_in_bytes", "memory.limit_in_bytes", "pids.current",
        "pids.max", "blkio.throttle.io_service_bytes", "freezer.state",
    ),
    2: (
        "cpu.stat", "cpu.max", "memory.current", "memory.max", "pids.current", "pids.max", "io.stat", "cgroup.events",
        "cpu.pressure", "memory.pressure", "io.pressure",
    ),
}  # fmt: skip
"""By version of cgroups."""

_UNLIMITED = 1 << 62


@dataclass
class Reading:
    """What was counted when, so that the next time gives a rate."""

    cpu: float | None = None
    _cpu: tuple[int, float] | None = None
    _io: tuple[int, float] | None = None
    _limits: dict[str, Any] = field(default_factory=dict)

    def count_cpu(self, file: str, said: bytes, now: float) -> bool:
        """Take the time used, and return whether it has grown; `cpu` is then the cores used since the last time."""
        if not said:
            return False
        used = int(said) // 1000 if file == "cpuacct.usage" else int(said[11 : said.index(b"\n")])  # usage_usec N
        before, self._cpu = self._cpu, (used, now)
        if before is None:
            self.cpu = 0.0
            return False
        if used == before[0]:
            self._cpu = (used, now)
            self.cpu = 0.0
            return False
        self.cpu = round((used - before[0]) / 1e6 / max(now - before[1], 1e-3), 2)
        return True

    def count_io(self, total: int, now: float) -> float:
        """Return the bytes a second since the last time."""
        before, self._io = self._io, (total, now)
        if before is None or total == before[0]:
            return 0.0
        return round((total - before[0]) / max(now - before[1], 1e-3))


def parsed(said: Mapping[str, bytes], reading: Reading, now: float, *, whole: bool) -> dict[str, Any]:
    """Return the attributes of a meter that the files tell of.

    Args:
        said: file to its text.
        reading: what was counted before.
        now: seconds of the monotonic clock.
        whole: whether limits and pressure were read, too.
    """
    found: dict[str, Any] = {}
    for name in ("memory.current", "memory.usage_in_bytes"):
        if said.get(name):
            found["memory"] = int(said[name])
    if said.get("pids.current"):
        found["tasks"] = int(said["pids.current"])
    if "io.stat" in said or said.get("blkio.throttle.io_service_bytes"):
        found["io"] = reading.count_io(_transferred(said), now)
    return {**found, **_limits(said)} if whole else found


def _limits(said: Mapping[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {"cpu_max": None, "memory_max": None, "tasks_max": None}
    quota, period = said.get("cpu.cfs_quota_us", b"").strip(), said.get("cpu.cfs_period_us", b"").strip()
    if not quota and said.get("cpu.max"):
        quota, period = said["cpu.max"].split()
    if quota and period and quota not in (b"max", b"-1"):
        found["cpu_max"] = round(int(quota) / int(period), 2)
    for name, key in (("memory.max", "memory_max"), ("memory.limit_in_bytes", "memory_max"), ("pids.max", "tasks_max")):
        text = said.get(name, b"").strip()
        if text and text != b"max" and int(text) < _UNLIMITED:
            found[key] = int(text)
    shares = [_some(said.get(f"{what}.pressure", b"")) for what in ("cpu", "memory", "io")]
    if any(share is not None for share in shares):
        found["pressure"] = Pressure(*(share or 0.0 for share in shares))
    return found


def _some(text: bytes) -> float | None:
    begin = text.find(b"avg10=")
    return float(text[begin + 6 : text.index(b" ", begin)]) if text.startswith(b"some") and begin > 0 else None


def _transferred(said: Mapping[str, bytes]) -> int:
    total = 0
    for word in said.get("io.stat", b"").split():
        if word.startswith((b"rbytes=", b"wbytes=")):
            total += int(word[7:])
    text = said.get("blkio.throttle.io_service_bytes", b"").rstrip()
    if b"Total" in text:
        total += int(text.rpartition(b" ")[2])
    return total
