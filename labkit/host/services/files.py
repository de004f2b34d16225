"""Write configuration files whole or not at all, and only over what is ours."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from labkit.errors import LabError

MARK = "# labkit's: its set-up writes this file again; `labkit down --config` removes it"
"""The first line of each file that we write outside of our state directory."""


def write(path: Path, text: str, mode: int = 0o644, owner: tuple[int, int] | None = None) -> bool:
    """Write a file in one step, its directories too; tell whether it changed.

    Raises:
        LabError: it cannot be written; the old one is still there then.
    """
    fresh = path.with_name(f".{path.name}.labkit")
    try:
        if path.read_text() == text and path.stat().st_mode & 0o777 == mode:
            return False
    except (OSError, UnicodeDecodeError):
        pass  # not there, or unreadable: it is written anew, or the reason is told below
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            if owner:
                os.fchown(descriptor, *owner)
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise LabError(f"{path} cannot be written: {error.strerror}") from error
    return True


def is_ours(path: Path) -> bool:
    """Tell whether a file may be written: it is not there, or its first line says that it is ours."""
    try:
        with path.open(errors="replace") as file:
            return file.readline().startswith("# labkit's")
    except FileNotFoundError:
        return True
    except OSError:
        return False
