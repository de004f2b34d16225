"""Checkpoints: what must hold in the kernel, however the student got there, with hints and a reference solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Literal

from labkit.course.progress import Progress
from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.course.lab import Lab


@dataclass(frozen=True)
class Verdict:
    """What a checkpoint measured.

    Attributes:
        passed: whether the task is done.
        measured: what was read from the kernel, in words.
        cause: why it is not done, where that was measured; else None.
    """

    passed: bool
    measured: str
    cause: str | None = None

    def _ipython_display_(self) -> None:
        """Show nothing more: `lab.check` has shown it already."""


def until(condition: str) -> str:
    """Return the line of a script that waits for a state of the kernel, looking 20 times a second."""
    return f"until {condition}; do sleep 0.05; done\n"


def _no_scripts() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Checkpoint:
    """One task of a lab.

    The scripts are bash, run as the body of a `%%lab` cell: in the lab's directory, with its variables.

    Attributes:
        id: how notebook and student name it.
        task: what is to be done, in one sentence.
        measure: reads the kernel (never the student's variables) and says whether it is done.
        kind: "level" (must hold now) or "edge" (must have happened; kept once seen, until the lab is opened again).
        hints: up to three, from a nudge to nearly all; each is shown with the measured cause.
        given: what earlier steps of the lab made, that the task builds on.
        solution: the reference solution.
        undo: takes the solution back (level only).
        near_misses: name to script: looks nearly right, and must not pass.
    """

    id: str
    task: str
    measure: Callable[[Lab], Verdict]
    kind: Literal["level", "edge"] = "level"
    hints: Sequence[str] = ()
    given: str = ""
    solution: str = ""
    undo: str = ""
    near_misses: Mapping[str, str] = field(default_factory=_no_scripts)


class Checkpoints:
    """The checkpoints of an open lab, and the edges seen since it was opened.

    Args:
        checkpoints: those of the lab's module, in the order of the lab.
        record: the lab's progress; it keeps the edges, so that a terminal beside the notebook knows them too.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], record: Progress) -> None:
        self.all = tuple(checkpoints)
        self.record = record

    def find(self, checkpoint_id: str) -> Checkpoint:
        """Return the checkpoint with this id.

        Raises:
            LabError: the lab has no such checkpoint; names those it has.
        """
        for checkpoint in self.all:
            if checkpoint.id == checkpoint_id:
                return checkpoint
        names = ", ".join(checkpoint.id for checkpoint in self.all) or "none"
        raise LabError(f"this lab has no checkpoint {checkpoint_id!r}", remedy=f"it has {names}")

    def verdict(self, checkpoint_id: str, lab: Lab) -> Verdict:
        """Measure now; an edge that was seen before stays passed.

        A measurement that fails is a verdict too: not passed, with the error as what was measured.
        """
        checkpoint = self.find(checkpoint_id)
        if checkpoint.kind == "level":
            return _measured(checkpoint, lab)
        seen = self._seen(checkpoint_id)
        if seen is not None:
            return seen
        verdict = _measured(checkpoint, lab)
        if verdict.passed:
            self.record.note("seen", checkpoint=checkpoint_id, measured=verdict.measured)
        return verdict

    def look(self, lab: Lab) -> None:
        """Measure the edges that were not seen yet, so that one which passes by between two checks counts."""
        for checkpoint in self.all:
            if checkpoint.kind == "edge":
                self.verdict(checkpoint.id, lab)

    def _seen(self, checkpoint_id: str) -> Verdict | None:
        seen = None
        for event in self.record.events():
            if event["event"] == "opened":
                seen = None
            elif event["event"] == "seen" and event["checkpoint"] == checkpoint_id:
                seen = Verdict(passed=True, measured=event["measured"])
        return seen


def _measured(checkpoint: Checkpoint, lab: Lab) -> Verdict:
    try:
        return checkpoint.measure(lab)
    except (LabError, OSError) as error:
        return Verdict(passed=False, measured=str(error), cause=getattr(error, "cause", None))


def as_checkpoints(module: ModuleType) -> tuple[Checkpoint, ...]:
    """Return the checkpoints that a lab's module declares, after a look that no id is there twice.

    Raises:
        LabError: an id is there twice, or a checkpoint has more than three hints.
    """
    found: tuple[Checkpoint, ...] = tuple(getattr(module, "CHECKPOINTS", ()))
    ids = [checkpoint.id for checkpoint in found]
    for checkpoint in found:
        if ids.count(checkpoint.id) > 1:
            raise LabError(f"{module.__name__}: the checkpoint {checkpoint.id!r} is there twice")
        if len(checkpoint.hints) > 3:
            raise LabError(f"{module.__name__}: the checkpoint {checkpoint.id!r} has {len(checkpoint.hints)} hints, three at most")
    return found
