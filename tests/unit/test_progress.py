"""Progress and predictions: what is noted, and what is made of it."""

from pathlib import Path

import pytest

from labkit.course.predictions import Predictions, same
from labkit.course.progress import Progress
from labkit.errors import LabError


@pytest.fixture
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Progress:
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path))
    return Progress("2.1")


def test_the_standing_of_a_checkpoint_counts_checks_hints_and_the_solution(progress: Progress):
    progress.note("checked", checkpoint="frozen", passed=False)
    progress.note("hint", checkpoint="frozen", number=1)
    progress.note("solution", checkpoint="frozen")
    progress.note("checked", checkpoint="other", passed=True)
    standing = Progress("2.1").standing("frozen")
    assert (standing.passed, standing.attempts, standing.hints, standing.solution_shown) == (False, 1, 1, True)
    progress.note("checked", checkpoint="frozen", passed=True)
    progress.note("checked", checkpoint="frozen", passed=False)
    assert progress.standing("frozen").passed, "what once passed stays passed in the record"


def test_a_line_cut_short_by_a_crash_is_left_out(progress: Progress):
    progress.note("opened")
    with progress.path.open("a") as file:
        file.write('{"event": "chec')
    assert [event["event"] for event in progress.events()] == ["opened"]


def test_an_event_after_a_torn_line_is_kept(progress: Progress):
    progress.path.write_text('{"event": "chec')
    progress.note("opened")
    assert [event["event"] for event in progress.events()] == ["opened"]


def test_a_prediction_is_closed_by_its_observation(progress: Progress):
    predictions = Predictions(progress)
    with pytest.raises(LabError, match="no prediction is open"):
        predictions.observe(0)
    predictions.predict("how many?", 0)
    assert predictions.observe(0).right is True
    assert predictions.open is None
    assert predictions.observe(0).right is True, "a cell run again looks at the same prediction"
    predictions.predict("how many?", 3)
    assert predictions.observe(0).right is False


def test_a_prediction_without_an_answer_is_neither_right_nor_wrong(progress: Progress):
    predictions = Predictions(progress)
    assert not predictions.predict("how many?").answered
    assert predictions.observe(0).right is None


@pytest.mark.parametrize(
    ("predicted", "measured", "right"),
    [("Frozen ", "frozen", True), (3, 3.0, True), (1, True, False), (True, True, True), ("3", 3, False), ([1, 2], [1, 2], True)],
)
def test_words_compare_without_case_and_numbers_by_value(predicted, measured, right):
    assert same(predicted, measured) is right
