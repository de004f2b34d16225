"""How the services are, as a table of 80 columns and as JSON."""

from __future__ import annotations

import json as json_text
import time
from collections.abc import Sequence
from dataclasses import asdict

from labkit.host.services.observation import Status

WIDTH = 80


def text(found: Sequence[Status]) -> str:
    """Return a table: service, state, by whom, pid and since when, what it answered; under it where it is and its log."""
    lines = [f"{'service':<11}{'state':<8}{'by':<13}{'pid':<8}{'since':<10}health"]
    for one in found:
        since = time.strftime("%H:%M:%S", time.localtime(one.since)) if one.since else "-"
        row = f"{one.name:<11}{one.state:<8}{one.by or '-':<13}{one.pid or '-':<8}{since:<10}{one.health}"
        lines.append(_cut(row))
        lines += _below(one.where, one.log)
    return "\n".join(lines)


def json(found: Sequence[Status]) -> str:
    """Return the same as JSON: {"version": 1, "services": [...]}, a service with the fields of Status."""
    return json_text.dumps({"version": 1, "services": [asdict(one) for one in found]}, indent=2)


def _below(where: str, log: str) -> list[str]:
    """Return where a service is and where its log is: in one line if it fits, else in two, which may be longer."""
    together = f"{'':11}{where}, log {log}"
    if not log:
        return [f"{'':11}{where}"]
    return [together] if len(together) <= WIDTH else [f"{'':11}{where}", f"{'':11}log {log}"]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
