"""Put a view where the student looks: under the cell in a notebook, on standard output elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from labkit.show import View


def shell() -> InteractiveShell | None:
    """Return the running IPython, or None outside it; IPython itself is not imported for that."""
    core = sys.modules.get("IPython.core.getipython")
    return core.get_ipython() if core is not None else None


def present(view: View) -> None:
    """Show the view now, above what the cell shows later."""
    sys.stdout.flush()
    if shell() is None:
        sys.stdout.write(view.text.rstrip("\n") + "\n")
        return
    from IPython.display import display

    display(view)


def say(text: str) -> None:
    """Write text to the cell's standard output at once, as a command there would."""
    sys.stdout.write(text)
    sys.stdout.flush()
