"""`open_lab("2.1")`: what a notebook works with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType, TracebackType

from labkit import show, trace
from labkit.course import cells, claims, course_map, formatters, magics
from labkit.course.checkpoints import Checkpoints, Verdict, as_checkpoints
from labkit.course.image_views import ImageViews
from labkit.course.predictions import Predictions
from labkit.course.presenting import present, shell
from labkit.course.progress import Progress
from labkit.errors import LabError
from labkit.show import View


class Lab(ImageViews):
    """One open lab: verbs that change the kernel (mechanisms.py), verbs that look (views.py, image_views.py), and the teaching here.

    Args:
        lab_id: the lab.
        module: its checkpoints, TITLE, AIMS, NEEDS and CLAIMS.
    """

    def __init__(self, lab_id: str, module: ModuleType) -> None:
        super().__init__(lab_id, getattr(module, "NEEDS", ()))
        self.module = module
        self.claims = claims.of(module)
        self.record = Progress(lab_id)
        self.predictions = Predictions(self.record)
        self.checkpoints = Checkpoints(as_checkpoints(module), self.record)
        self.live_views = {}

    def open(self) -> None:
        """Remove what an earlier try left, and make the place anew.

        Raises:
            LabError: a name that the lab will use is taken by something that the lab did not make; that is left alone.
        """
        self.take_down()
        try:
            with trace.silent():
                claims.take(self.claims)
            self.set_up()
        except BaseException:
            self.take_down()
            raise
        self.record.note("opened")

    def card(self) -> View:
        """Draw the lab's card: title, aims and tasks."""
        aims = [f"- {aim}" for aim in self.module.AIMS]
        tasks = [f"[{checkpoint.id}] {checkpoint.task}" for checkpoint in self.checkpoints.all]
        where = ["Shell cells run in $LAB, a directory of the lab's own."]
        return show.notice("lab", f"Lab {self.id}: {self.module.TITLE}", [*aims, *tasks, *where])

    def predict(self, question: str, answer: object = ...) -> None:
        """Say what will happen before you look; `...` stands for no answer yet."""
        prediction = self.predictions.predict(question, answer)
        invitation = "your turn: write your answer in place of the dots, and run this cell again"
        said = f"predicted: {answer}" if prediction.answered else invitation
        present(show.notice("prediction", question, [said]))

    def observe(self, measured: object) -> None:
        """Close the open prediction: show it beside what was measured.

        Raises:
            LabError: no prediction is open.
        """
        observation = self.predictions.observe(measured)
        prediction = observation.prediction
        said = f"predicted: {prediction.answer}" if prediction.answered else "no prediction; next time, write yours first"
        verdict = {True: ["as predicted"], False: ["not as predicted: why?"], None: []}[observation.right]
        present(show.notice("measured", prediction.question, [f"measured:  {measured}", said, *verdict]))

    def check(self, checkpoint_id: str) -> Verdict:
        """Measure a checkpoint and show the verdict. What is not done is no error.

        Raises:
            LabError: there is no such checkpoint.
        """
        checkpoint = self.checkpoints.find(checkpoint_id)
        verdict = self._verdict(checkpoint_id)
        self.record.note("checked", checkpoint=checkpoint_id, passed=verdict.passed, measured=verdict.measured, cause=verdict.cause)
        lines = [f"measured: {verdict.measured}"]
        if not verdict.passed:
            lines += [f"cause: {verdict.cause}"] if verdict.cause else []
            lines += [f'a hint: lab.hint("{checkpoint_id}")']
        present(show.notice("passed" if verdict.passed else "not yet", checkpoint.task, lines))
        return verdict

    def hint(self, checkpoint_id: str) -> View:
        """Return the next hint of a checkpoint, with the cause measured now.

        Raises:
            LabError: there is no such checkpoint.
        """
        checkpoint = self.checkpoints.find(checkpoint_id)
        verdict = self._verdict(checkpoint_id)
        if verdict.passed:
            return show.notice("passed", checkpoint.task, [f"measured: {verdict.measured}", "no hint is needed"])
        number = min(self.record.standing(checkpoint_id).hints + 1, len(checkpoint.hints))
        self.record.note("hint", checkpoint=checkpoint_id, number=number, cause=verdict.cause)
        lines = [f"measured: {verdict.measured}", *([f"cause: {verdict.cause}"] if verdict.cause else [])]
        if number:
            lines.append(f"hint {number} of {len(checkpoint.hints)}: {checkpoint.hints[number - 1]}")
        if number == len(checkpoint.hints):
            lines.append(f'that was the last hint; lab.solution("{checkpoint_id}") shows one way')
        return show.notice("hint", checkpoint.task, lines)

    def solution(self, checkpoint_id: str, *, run: bool = False) -> View:
        """Return the reference solution of a checkpoint: shell lines, as for a `%%lab` cell.

        Args:
            checkpoint_id: the checkpoint.
            run: run them too.

        Raises:
            LabError: there is no such checkpoint.
        """
        checkpoint = self.checkpoints.find(checkpoint_id)
        self.record.note("solution", checkpoint=checkpoint_id, run=run)
        if run:
            self.run(checkpoint.solution)
        return show.notice("solution", checkpoint.task, [f"  {line}" for line in checkpoint.solution.strip().splitlines()])

    def given(self, checkpoint_id: str) -> View:
        """Make what a checkpoint begins with, such as a set-up that is broken, without showing by which lines.

        Raises:
            LabError: there is no such checkpoint.
            CommandError: it cannot be made.
        """
        checkpoint = self.checkpoints.find(checkpoint_id)
        with trace.silent():
            self.run(checkpoint.given)
        return show.notice("task", checkpoint.task)

    def look(self) -> None:
        """Measure the edges that were not seen yet, so that none passes by unseen between two checks."""
        if self.is_open:
            self.checkpoints.look(self)

    def reset(self) -> None:
        """Remove everything that the lab made and begin anew; progress stays."""
        self.open()

    def close(self) -> None:
        """Remove everything that the lab made; progress stays."""
        self.take_down()

    def take_down(self) -> None:
        """End the live views, then remove what the lab made."""
        while self.live_views:
            self.live_views.popitem()[1].close()
        super().take_down()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lab {self.id}, {'open' if self.is_open else 'closed'}>"

    def _verdict(self, checkpoint_id: str) -> Verdict:
        with trace.silent():
            return self.checkpoints.verdict(checkpoint_id, self)


_current: Lab | None = None
"""The lab that is open in this process: what the process makes belongs to one lab at a time."""


def open_lab(lab_id: str) -> Lab:
    """Open a lab: look whether this machine can run it, remove what an earlier try left, show its card.

    Opening it again is a reset. Progress stays.

    Raises:
        LabError: an unknown lab, not root, a red finding of the doctor, or a name that is taken; nothing is changed then.
    """
    module = _module(lab_id)
    if os.geteuid() != 0:
        raise LabError("a lab changes the kernel's state and needs root", remedy="start JupyterLab as root: sudo make lab")
    _serve(module)
    warnings = _examined(lab_id, module)
    global _current
    if _current is not None:
        _current.close()
    lab = _current = Lab(lab_id, module)
    lab.open()
    running = shell()
    if running is not None:
        cells.register(running, lab)
        magics.register(running, lab)
        formatters.register(running, lab)
    for view in warnings:
        present(view)
    present(lab.card())
    return lab


def attach(lab_id: str) -> Lab:
    """Return a lab as it stands, opened by another process or not: to check and to hint, not to change it.

    Raises:
        LabError: an unknown lab.
    """
    lab = Lab(lab_id, _module(lab_id))
    lab.attach()
    return lab


def _module(lab_id: str) -> ModuleType:
    known = course_map.find(lab_id)
    name = course_map.module(known.id)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        there = ", ".join(one.id for one in course_map.written())
        raise LabError(f"lab {lab_id} is not there yet", remedy=f"open one of {there}") from None


def _serve(module: ModuleType) -> None:
    """Bring up the services that a lab needs and that are down; they are the machine's, and stay up when the lab is closed."""
    from labkit.host import services

    needed = [service.name for service in services.SERVICES if service.name in getattr(module, "NEEDS", ())]
    down = [one.name for one in services.status(needed) if one.state == "down"] if needed else []
    if down:
        services.up(down)


def _examined(lab_id: str, module: ModuleType) -> Sequence[View]:
    """Return a notice for each amber finding of the doctor.

    Raises:
        LabError: a red finding.
    """
    from labkit.host import doctor

    report = doctor.examine(module.NEEDS, lab=lab_id)
    red = [finding for finding in report.findings if finding.colour == "red"]
    if red:
        first = red[0]
        raise LabError(f"lab {lab_id} cannot run here: {first.id}: {first.measured}", cause=first.cause, remedy=first.remedy)
    return [show.finding(finding) for finding in report.findings if finding.colour == "amber"]
