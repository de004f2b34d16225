"""The home of the course: the map with a link to each lab, what comes next, and what this machine can do for it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from labkit import show
from labkit.course import course_map
from labkit.course.checkpoints import Checkpoint, as_checkpoints
from labkit.course.progress import Progress
from labkit.host.findings import Finding, Report
from labkit.show import Chapter, LabOnMap, View


def chapters(root: Path = course_map.NOTEBOOKS) -> View:
    """Draw the map of the course: each lab with a link to its notebook, and how many of its checkpoints have passed.

    Shell: labkit labs
    """
    return show.course_map(_chapters(root))


def what_next(root: Path = course_map.NOTEBOOKS) -> View:
    """Say which lab comes next, and which of its tasks: the first that is not done, in the order of the course."""
    lab = next((lab for chapter in _chapters(root) for lab in chapter.labs if lab.address and not lab.done), None)
    return show.next_lab(lab, _open_task(lab.id) if lab else "")


def doctor() -> View:
    """Say what this machine can do for the labs: green, amber or red; what is not green with cause, remedy and the labs that need it.

    Shell: labkit doctor
    """
    from labkit.host.doctor import examine

    needed = {need for lab in course_map.written() for need in _needs(lab.id)}
    report = examine()
    told = {finding.id for finding in report.findings}
    return _readiness(Report("", (*report.findings, *(one for one in examine(needed - told).findings if one.id not in told))))


def _readiness(report: Report) -> View:
    """Show the word of the doctor, and below it each finding that is not green."""
    wrong = sorted((one for one in report.findings if one.colour != "green"), key=lambda one: one.colour != "red")
    stopped = [lab.id for lab in course_map.written() if any(one.colour == "red" and _concerns(one, lab.id) for one in wrong)]
    word = f"on this machine {', '.join(stopped)} cannot run" if stopped else "every lab can run on this machine"
    return show.stack(show.notice(report.colour, word, [report.summary()]), *(show.finding(_named(one)) for one in wrong))


def _named(finding: Finding) -> Finding:
    """Return the finding with the labs that need it in its name."""
    from dataclasses import replace

    labs = [lab.id for lab in course_map.written() if finding.id in _needs(lab.id)]
    return replace(finding, id=f"{finding.id} ({'lab' if len(labs) == 1 else 'labs'} {', '.join(labs)})" if labs else finding.id)


def _concerns(finding: Finding, lab_id: str) -> bool:
    from labkit.host.doctor import ALWAYS

    return finding.id in (*ALWAYS, *_needs(lab_id))


def _chapters(root: Path) -> list[Chapter]:
    found = course_map.chapters().items()
    return [Chapter(number, course_map.CHAPTERS[number], tuple(_on_map(lab, root) for lab in labs)) for number, labs in found]


def _on_map(lab: course_map.CourseLab, root: Path) -> LabOnMap:
    if lab.notebook(root) is None:
        return LabOnMap(lab.id, lab.title, None)
    ids = {checkpoint.id for checkpoint in _checkpoints(lab.id)}
    record = Progress(lab.id)
    return LabOnMap(lab.id, lab.title, lab.file, len(ids & record.passed()), len(ids), begun=record.path.exists())


def _open_task(lab_id: str) -> str:
    passed = Progress(lab_id).passed()
    return next(checkpoint.task for checkpoint in _checkpoints(lab_id) if checkpoint.id not in passed)


@cache
def _checkpoints(lab_id: str) -> tuple[Checkpoint, ...]:
    return as_checkpoints(import_module(course_map.module(lab_id)))


def _needs(lab_id: str) -> tuple[str, ...]:
    return tuple(import_module(course_map.module(lab_id)).NEEDS)
