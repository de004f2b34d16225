"""The table that docs/benchmarks.md holds."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.measure import Result

BEGIN = """# What it costs

Made by `make bench` (`python -m benchmarks`), which writes this page. In each row all contestants take turns in the same
run, so that only the ratios matter: the times are medians on one machine, and machines are noisy. *Limit* is a small C
program (`benchmarks/limits/`) that does nothing but the system calls; the others are the tools that do the same work.
"""


def machine() -> str:
    """Return in one line what the times were taken on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return f"Taken on: {os.cpu_count()} cores ({model}), Linux {platform.release()}, CPython {platform.python_version()}."


def duration(seconds: float) -> str:
    """Return seconds as a person reads them: 1.23 s, 4.5 ms, 67 us."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def cells(result: Result) -> Sequence[str]:
    """Return the cells of one row."""
    others = [name for name in result.seconds if name != result.row.first]
    row = result.row
    goals = [f"{row.target:g} of {row.against}"] if row.target is not None else []
    goals += [f"{duration(row.limit_seconds)}"] if row.limit_seconds is not None else []
    reached = ("yes" if result.reached else "**no**") if goals else "no target"
    listed = "; ".join(f"{name} {duration(result.seconds[name])} (**{result.ratio(name):.2f}**)" for name in others)
    return row.work, duration(result.seconds[result.row.first]), listed or "-", " and ".join(goals) or "-", reached


def page(results: Iterable[Result]) -> str:
    """Return the page: the table, and under it the reason of each target that is missed."""
    every = list(results)
    results = [result for result in every if result.row.first == "labkit"]
    header = ("work", "labkit", "the others, and how many times as long labkit takes", "target: at most", "reached")
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(cells(result))} |" for result in results]
    missed = [result.row for result in results if not result.reached]
    reasons = [f"- {row.work}: {row.reason or 'not looked into yet'}." for row in missed]
    after = ["", "## Where a target is missed", "", *reasons] if reasons else []
    for result in every:
        if result.row.first != "labkit":
            after += ["", *beside(result)]
    return "\n".join([BEGIN, machine(), "", *lines, *after, ""])


def beside(result: Result) -> list[str]:
    """Return a table of its own for contestants none of which is labkit: each as a multiple of the first, the quickest at the top."""
    first = result.row.first
    lines = [f"## {result.row.work}", "", f"| by | time | times as long as {first} |", "| --- | --- | --- |"]
    quickest = sorted(result.seconds, key=lambda name: result.seconds[name])
    return lines + [f"| {name} | {duration(result.seconds[name])} | {1 / result.ratio(name):.2f} |" for name in quickest]
