"""What dockerd and the CNI plugins leave in the packet filter: found again, and taken away without touching anybody else's rules."""

from __future__ import annotations

from typing import Any


def state() -> dict[str, Any]:
    """Note what the packet filter has before a service writes into it."""
    return {}


def restore(name: str, links: list[str], noted: dict[str, Any]) -> None:
    """Remove the rules and chains of a service."""
