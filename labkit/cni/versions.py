"""The versions of the specification: which are spoken, and what an older plugin does not know. See: CNI specification 1.0.0."""

from __future__ import annotations

KNOWN = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")
"""Every version whose results are understood, the oldest first."""

UNSAID = "0.1.0"
"""What a configuration without `cniVersion` means."""


def number(version: str) -> tuple[int, ...]:
    """Return a version so that it can be compared; () for what is none."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else ()


def has_check(version: str) -> bool:
    """Whether there is CHECK, and DEL gets the result of ADD."""
    return number(version) >= (0, 4, 0)


def has_chains(version: str) -> bool:
    """Whether a plugin gets the result of the one before it."""
    return number(version) >= (0, 3, 0)
