"""`%%lab`: a cell of shell lines, run as a person would type them in the lab's directory."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labkit.errors import LabError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from labkit.course.lab import Lab


def parse(line: str) -> tuple[str | None, str | None]:
    """Return what `%%lab`'s own line says: about failing, and as which user.

    Returns:
        None (it must not fail), or words of the output ("" for any); None (root), or the user's name.

    Raises:
        LabError: another option, or more than one text.
    """
    words, fails, user = shlex.split(line), None, None
    if words[:1] == ["--user"] and len(words) > 1:
        user, words = words[1], words[2:]
    if words[:1] == ["--fails"] and len(words) <= 2:
        fails, words = (words[1] if len(words) == 2 else ""), []
    if words:
        remedy = 'write %%lab, %%lab --fails, %%lab --fails "words of the error", or %%lab --user NAME and one of these'
        raise LabError(f"%%lab does not know {line.strip()!r}", remedy=remedy)
    return fails, user


@dataclass(frozen=True)
class Cell:
    """The body of a `%%lab` cell, and what its own line says.

    Attributes:
        body: bash.
        fails: words that its output must have when it fails, as it must ("" for any); None: it must not fail.
        user: who runs it; None is root.
    """

    body: str
    fails: str | None = None
    user: str | None = None


def split(script: str, first: Cell) -> Iterator[Cell]:
    """Yield the cells of a script in which a line that begins with `%%lab` begins another one.

    Args:
        script: bash.
        first: what holds for the lines before the first such line.

    Raises:
        LabError: such a line has an option that there is not.
    """
    head, lines = first, list[str]()
    for line in script.splitlines(keepends=True):
        if line.split()[:1] == ["%%lab"]:
            if "".join(lines).strip():
                yield replace(head, body="".join(lines))
            head, lines = Cell("", *parse(line.strip().removeprefix("%%lab"))), []
        else:
            lines.append(line)
    yield replace(head, body="".join(lines))


def register(shell: InteractiveShell, lab: Lab) -> None:
    """Give the notebook the `%%lab` magic for this lab; an earlier one is replaced."""

    def run_cell(line: str, cell: str) -> None:
        fails, user = parse(line)
        lab.run(cell, fails=fails, user=user)

    shell.register_magic_function(run_cell, magic_kind="cell", magic_name="lab")
