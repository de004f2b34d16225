"""Each checkpoint on both sides: what must not pass does not, what must does. Prints the table."""

import signal
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from labkit.course import course_map
from labkit.course.checkpoints import Checkpoint
from labkit.course.lab import Lab, open_lab
from labkit.errors import LabError

CASES = [
    pytest.param(lab.id, checkpoint, id=f"{lab.id}-{checkpoint.id}")
    for lab in course_map.written()
    for checkpoint in import_module(f"labkit.course.lab_{lab.id.replace('.', '_')}").CHECKPOINTS
]
Told = Callable[[str, str], None]
PATIENCE = 300
HEADER = f"{'checkpoint':<20} {'kind':<6} {'before':<8} {'solved':<8} {'undone':<8} near misses"


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Let a script that waits for what never comes fail its test, not hold the whole run."""

    def over(*_: object) -> None:
        raise TimeoutError(f"a script has waited for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    one = open_lab(request.getfixturevalue("lab_id"))
    yield one
    one.close()


def verdict(lab: Lab, checkpoint: Checkpoint) -> str:
    measured = lab.checkpoints.verdict(checkpoint.id, lab)
    assert measured.passed or measured.measured, "what is not done says what was measured"
    return "passes" if measured.passed else "fails"


def anew(lab: Lab, checkpoint: Checkpoint) -> None:
    lab.reset()
    if checkpoint.given:
        lab.run(checkpoint.given)


@pytest.mark.parametrize(("lab_id", "checkpoint"), CASES)
def test_a_checkpoint_passes_for_its_solution_and_for_nothing_else(lab: Lab, lab_id: str, checkpoint: Checkpoint, told: Told):
    anew(lab, checkpoint)
    before = verdict(lab, checkpoint)
    lab.run(checkpoint.solution)
    measured = lab.checkpoints.verdict(checkpoint.id, lab)
    solved = "passes" if measured.passed else "fails"
    if checkpoint.kind == "level":
        lab.run(checkpoint.undo)
        undone = verdict(lab, checkpoint)
    else:
        kept = verdict(lab, checkpoint)
        lab.reset()
        undone = verdict(lab, checkpoint)
        assert kept == "passes", "an edge that was seen is kept"
    misses = {}
    for name, script in checkpoint.near_misses.items():
        anew(lab, checkpoint)
        lab.run(script)
        misses[name] = verdict(lab, checkpoint)
    tried = ", ".join(f"{name}: {result}" for name, result in misses.items())
    told(HEADER, f"{lab_id + ' ' + checkpoint.id:<20} {checkpoint.kind:<6} {before:<8} {solved:<8} {undone:<8} {tried}")
    assert before == "fails"
    assert solved == "passes", measured
    assert undone == "fails"
    assert set(misses.values()) == {"fails"}, misses


@pytest.mark.parametrize(("lab_id", "checkpoint"), CASES)
def test_a_checkpoint_is_complete(lab_id: str, checkpoint: Checkpoint):
    assert len(checkpoint.task.split()) > 3, "a sentence"
    assert 1 <= len(checkpoint.hints) <= 3
    assert checkpoint.solution.strip()
    assert checkpoint.near_misses, "something that looks nearly right"
    assert bool(checkpoint.undo) == (checkpoint.kind == "level")


@pytest.mark.parametrize(("lab_id", "checkpoint"), CASES)
def test_a_measurement_that_finds_nothing_is_no_crash(lab: Lab, lab_id: str, checkpoint: Checkpoint):
    lab.close()
    try:
        measured = checkpoint.measure(lab)
    except (LabError, OSError):
        return
    assert measured.measured
