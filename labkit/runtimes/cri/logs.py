"""The log of a container as a server of the CRI writes it: one line for each line, with its time and stream.

    2026-11-25T09:00:00.000000000Z stdout F a whole line
    2026-11-25T09:00:00.000000000Z stderr P the beginning of a long one

See: kubelet's documentation of logs, "CRI logging format"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError


@dataclass(frozen=True)
class Line:
    """One line that a container wrote.

    Attributes:
        time: when its end came, in RFC 3339.
        stream: "stdout" or "stderr".
        text: without the newline.
    """

    time: str
    stream: str
    text: str


def read(path: Path) -> tuple[Line, ...]:
    """Return what a container wrote so far, the parts of a long line put together.

    Shell:
        crictl logs CONTAINER

    Raises:
        LabError: there is no such log, or it has a line of another format.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error
    return tuple(parse(text, str(path)))


def parse(text: str, name: str = "log") -> Iterator[Line]:
    """Yield the lines of a log.

    Args:
        text: of the file; a last line without its newline is still being written, and left out.
        name: of the file, for the error.
    """
    begun: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        time, stream, tags, words = (*line.split(" ", 3), "", "", "", "")[:4]
        if stream not in ("stdout", "stderr") or tags.split(":")[0] not in ("P", "F"):
            raise LabError(f"{name}:{number}: not a line of the CRI logging format", cause=f"it is {line[:60]!r}")
        whole = begun.pop(stream, "") + words
        if tags.split(":")[0] == "P":
            begun[stream] = whole
        else:
            yield Line(time, stream, whole)
    yield from (Line("", stream, text) for stream, text in begun.items())
