"""What a student did in a lab, on disk: it outlives the kernel and the reset of a lab."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit import ledger


def directory() -> Path:
    """Return where progress is kept ($LABKIT_PROGRESS, or `progress/` in the state directory)."""
    return Path(os.environ.get("LABKIT_PROGRESS") or ledger.state() / "progress")


@dataclass(frozen=True)
class Standing:
    """How far one checkpoint is.

    Attributes:
        id: the checkpoint.
        passed: whether it passed at some time.
        attempts: how often it was checked.
        hints: how many of its hints were shown.
        solution_shown: whether the reference solution was shown.
    """

    id: str
    passed: bool = False
    attempts: int = 0
    hints: int = 0
    solution_shown: bool = False


@dataclass
class Progress:
    """The record of one lab: an append-only file of events.

    Attributes:
        lab_id: the lab.
        path: its file, JSON lines.
    """

    lab_id: str
    path: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        self.path = directory() / f"{self.lab_id}.jsonl"

    def note(self, event: str, **details: object) -> None:
        """Append one event with the time at which it happened.

        Args:
            event: "opened", "predicted", "observed", "checked", "seen" (an edge), "hint" or "solution".
            details: what belongs to it; values that JSON has not are written by their `repr`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"time": time.time(), "event": event, **details}, default=repr)
        with self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            torn = bool(end) and os.pread(file.fileno(), 1, end - 1) != b"\n"  # the writer before us died in its line
            file.write(b"\n" * torn + line.encode() + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events in their order; a line cut short by a crash is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event

    def passed(self) -> frozenset[str]:
        """Return the ids of the checkpoints that passed at some time."""
        return frozenset(event["checkpoint"] for event in self.events() if event["event"] == "checked" and event.get("passed"))

    def standing(self, checkpoint: str) -> Standing:
        """Return how far the checkpoint is, over all openings of the lab."""
        own = [event for event in self.events() if event.get("checkpoint") == checkpoint]
        checks = [event for event in own if event["event"] == "checked"]
        return Standing(
            checkpoint,
            passed=any(event.get("passed") for event in checks),
            attempts=len(checks),
            hints=max((event.get("number", 0) for event in own if event["event"] == "hint"), default=0),
            solution_shown=any(event["event"] == "solution" for event in own),
        )
