"""What every picture is: one thing in two forms, text and HTML."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class View:
    """Say one thing twice: as text of at most 80 columns, and as HTML that an untrusted notebook keeps.

    Attributes:
        text: without escape codes, no line longer than 80 columns.
        html: one element; no script, no style sheet, all that came from outside escaped.
    """

    text: str
    html: str

    def _repr_mimebundle_(self, include: Container[str] | None = None, exclude: Container[str] | None = None) -> dict[str, str]:
        del include, exclude  # IPython filters what it gets
        return {"text/plain": self.text, "text/html": self.html}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


def stack(*views: View) -> View:
    """Put views one under the other; empty ones fall away."""
    kept = [view for view in views if view]
    return View("\n\n".join(view.text for view in kept), "<div>" + "".join(view.html for view in kept) + "</div>" if kept else "")
