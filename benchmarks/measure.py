"""Time the contestants of one row in turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent

Contestant = Callable[[], float]
"""Does its work once and returns the seconds of that part of it which is compared."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what is done.
        target: the most that labkit may take, as a multiple of `against`; None where there is only the bare time.
        against: the contestant that the target speaks of.
        rounds: how often each contestant has its turn.
        limit_seconds: the most that labkit may take, where the target is a time.
        reason: why the target is missed, if it is.
        first: the contestant that the others are set beside.
    """

    work: str
    target: float | None
    against: str
    rounds: int = 20
    limit_seconds: float | None = None
    reason: str = ""
    first: str = "labkit"


@dataclass(frozen=True)
class Result:
    """What a row came to: contestant to the median of its seconds."""

    row: Row
    seconds: Mapping[str, float]

    def ratio(self, other: str) -> float:
        """Return how many times as long as `other` the first contestant takes."""
        return self.seconds[self.row.first] / self.seconds[other]

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        in_time = self.row.limit_seconds is None or self.seconds[self.row.first] <= self.row.limit_seconds
        return in_time and (self.row.target is None or self.ratio(self.row.against) <= self.row.target)


def alternate(row: Row, contestants: Mapping[str, Contestant]) -> Result:
    """Let each contestant have its turn, round after round, and return the medians; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(row.rounds + 1):
        for name, contestant in contestants.items():
            seconds = contestant()
            if round_number:
                taken[name].append(seconds)
    return Result(row, {name: median(seconds) for name, seconds in taken.items()})


def timed(work: Callable[[], object]) -> Contestant:
    """Return a contestant that is timed around the call."""

    def contestant() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return contestant


def command(*argv: str, text: str | None = None) -> Contestant:
    """Return a contestant that is a command, timed from its start to its end."""
    return timed(lambda: said(*argv, text=text))


def limit(*argv: str, text: str | None = None) -> Contestant:
    """Return a contestant that is a program which times itself and prints the seconds."""
    return lambda: float(said(*argv, text=text))


def said(*argv: str, text: str | None = None) -> str:
    """Run a command and return its output.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    ended = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit status {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return ended.stdout


def compiled(room: Path) -> Path:
    """Compile the limits into a directory below `room` and return it."""
    binaries = Path(tempfile.mkdtemp(prefix="limits-", dir=room))
    for source in sorted((HERE / "limits").glob("*.c")):
        static = ["-static"] if source.stem == "true" else []  # it runs where no loader is
        said("gcc", "-O2", "-Wall", *static, "-o", str(binaries / source.stem), str(source))
    return binaries
