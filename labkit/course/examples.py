"""Files that a lab gives: written into its directory as a person would type them, and shown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from labkit import show
from labkit.errors import LabError
from labkit.show import View

Files = Mapping[str, str]
"""Path below the lab's directory to text; a text that begins with `#!` is made executable."""


def script(files: Files) -> str:
    """Return the shell lines that write the files, those that are there included."""
    lines = []
    for path, text in files.items():
        name = shlex.quote(path)
        lines += [f"mkdir -p {shlex.quote(str(Path(path).parent))}; cat > {name} << 'END'", text.rstrip("\n"), "END"]
        lines += [f"chmod 755 {name}"] if text.startswith("#!") else []
    return "\n".join(lines) + "\n"


def give(directory: Path, files: Files) -> View:
    """Write the files that are not there yet, and return what they hold now.

    Args:
        directory: of the lab.
        files: what it gives.
    """
    for path, text in files.items():
        place = directory / path
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(0o755 if text.startswith("#!") else 0o644)
    return show.stack(*(show.file_view(f"$LAB/{path}", (directory / path).read_text()) for path in files))


def find(examples: Mapping[str, Files], name: str) -> Files:
    """Return the files of an example.

    Raises:
        LabError: the lab has none of this name.
    """
    if name not in examples:
        raise LabError(f"this lab has no example {name!r}", remedy=f"it has {', '.join(examples) or 'none'}")
    return examples[name]
