"""Measure every row and write docs/benchmarks.md: `python -m benchmarks [WORD...]`, rows whose name has a WORD; alone, all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import rows, table
from benchmarks.measure import Result, compiled
from labkit import ledger
from labkit.host.services.places import places

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BALLAST = 150 << 20
"""Bytes: a notebook process is as large as this, and starting a process must not get dearer by it."""


def main(words: list[str]) -> int:
    """Run the rows whose name has one of the words, and write the page when all were run."""
    if os.geteuid() != 0:
        print("benchmarks: needs root: run it with sudo", file=sys.stderr)
        return 2
    ballast = bytearray(os.urandom(1 << 20) * (BALLAST >> 20))
    with open("/run/labkit-tests.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run of tests or benchmarks changes this machine: waiting for its end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        room = Path(tempfile.mkdtemp(prefix="labkit-bench-", dir="/var/tmp"))
        room.chmod(0o755)  # root of an unprivileged container is another user, and must reach its root directory
        engines = {name: str(getattr(places(), name)) for name in ("containerd", "docker", "lxd")}
        (room / "state").mkdir()
        (room / "state/services.json").write_text(json.dumps(engines))  # those of the machine, where they serve
        os.environ["LABKIT_STATE"] = str(room / "state")
        ledger.own("bench")
        try:
            results = _all(words, room)
        finally:
            ledger.undo()
            shutil.rmtree(room)
    del ballast
    text = table.page(results)
    if words:
        print(text)
    else:
        PAGE.write_text(text)
        print(f"written: {PAGE}")
    return 0


def _all(words: list[str], room: Path) -> list[Result]:
    limits = compiled(room)
    results = []
    for name, measure in rows.ROWS.items():
        if words and not any(word in name for word in words):
            continue
        print(f"{name} ...", end=" ", flush=True)
        found = measure(room, limits)
        print("; ".join(f"{other} {table.duration(seconds)}" for result in found for other, seconds in result.seconds.items()), flush=True)
        results += found
        ledger.undo()
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
