"""Say first what will happen, then look: a prediction and what was measured beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.course.progress import Progress
from labkit.errors import LabError


@dataclass(frozen=True)
class Prediction:
    """A question, and what the student thinks the kernel will do.

    Attributes:
        question: what is asked.
        answer: what was said before; `...` stands for no answer.
    """

    question: str
    answer: Any = ...

    @property
    def answered(self) -> bool:
        """Whether the student wrote something in place of `...`."""
        return self.answer is not ...


@dataclass(frozen=True)
class Observation:
    """A prediction beside what was measured.

    Attributes:
        prediction: what was said before.
        measured: what the kernel did.
    """

    prediction: Prediction
    measured: Any

    @property
    def right(self) -> bool | None:
        """Whether the prediction came true; None where there was none."""
        return same(self.prediction.answer, self.measured) if self.prediction.answered else None


class Predictions:
    """The prediction that is open in a lab; there is one at a time.

    Args:
        progress: where what was predicted and observed is noted.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.open: Prediction | None = None
        self._last: Prediction | None = None

    def predict(self, question: str, answer: object = ...) -> Prediction:
        """Open a prediction; one that was open and never looked at is dropped, as when a cell is run again."""
        self.open = Prediction(question, answer)
        if self.open.answered:
            self.progress.note("predicted", question=question, answer=answer)
        return self.open

    def observe(self, measured: object) -> Observation:
        """Close the open prediction with what was measured; a cell run again looks at the last one again.

        Raises:
            LabError: nothing was predicted in this lab yet.
        """
        prediction = self.open or self._last
        if prediction is None:
            raise LabError("no prediction is open", remedy="run the cell with lab.predict(...) first")
        observation = Observation(prediction, measured)
        self.open, self._last = None, prediction
        self.progress.note("observed", question=observation.prediction.question, measured=measured, right=observation.right)
        return observation


def same(predicted: object, measured: object) -> bool:
    """Tell whether a prediction came true: words without regard to case and outer blanks, numbers by value."""
    if isinstance(predicted, str) and isinstance(measured, str):
        return predicted.strip().casefold() == measured.strip().casefold()
    if isinstance(predicted, bool) != isinstance(measured, bool):
        return False
    return bool(predicted == measured)
