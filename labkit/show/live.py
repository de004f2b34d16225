"""The live view in a notebook: what it says to the page, and what the page says back.

The page's part is live.js, with live.css; both go to the page with the widget, so nothing is built and nothing fetched. The widget has
no place of its own in the notebook: in the page it takes the place of the picture that is stored there, and gives it back when it
ends. So whoever opens the notebook without a kernel, or does not trust it, sees the last picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from labkit.show import markup
from labkit.show.frames import PAGES, TITLES
from labkit.show.view import View

_HERE = Path(__file__).parent


class LivePage(anywidget.AnyWidget):
    """The live view as the page has it.

    Args:
        place: the class of the element whose place it takes, one for each view.
        heard: called with what the page says: {"say": "look" | "away" | "alive" | "behind" | "everything", ...}.
        label: what the view is called by a screen reader.
    """

    _esm = _HERE / "live.js"
    _css = _HERE / "live.css"
    place = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    titles = traitlets.Dict().tag(sync=True)
    pages = traitlets.Dict().tag(sync=True)

    def __init__(self, place: str, heard: Callable[[Mapping[str, Any]], None], label: str) -> None:
        super().__init__(place=place, label=label, titles=dict(TITLES), pages=dict(PAGES))
        self.on_msg(lambda _, content, __: heard(content))

    def tell(self, **content: Any) -> None:
        """Say something to the page; may be called by any thread."""
        self.send(content)


def in_place(view: View, place: str) -> View:
    """Return a view whose HTML is the element that a live view takes the place of."""
    return View(view.text, markup.element("div", view.html, "font-size:13px;", class_=f"labkit-live {place}"))
