"""`%%lab`: a cell of shell lines, run as a person would type them in the lab's directory."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from labkit.errors import LabError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from labkit.course.lab import Lab


def parse(line: str) -> str | None:
    """Return what `%%lab`'s own line says about failing: None (it must not), or words of the output ("" for any).

    Raises:
        LabError: another option, or more than one text.
    """
    words = shlex.split(line)
    if not words:
        return None
    if words[0] != "--fails" or len(words) > 2:
        raise LabError(f"%%lab does not know {line.strip()!r}", remedy='write %%lab, %%lab --fails, or %%lab --fails "words of the error"')
    return words[1] if len(words) == 2 else ""


def register(shell: InteractiveShell, lab: Lab) -> None:
    """Give the notebook the `%%lab` magic for this lab; an earlier one is replaced."""

    def run_cell(line: str, cell: str) -> None:
        lab.run(cell, fails=parse(line))

    shell.register_magic_function(run_cell, magic_kind="cell", magic_name="lab")
