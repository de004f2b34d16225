"""What the doctor found: one finding a check, green, amber or red, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import Literal

Colour = Literal["green", "amber", "red"]
WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """What one check measured.

    Attributes:
        colour: green (works), amber (works another way, or not all of it), red (a lab that needs it cannot run).
        measured: what was read or tried, in words.
        cause: why it is not green, as measured; else None.
        remedy: what to do about it; else None.
        id: the check.
        title: what it looks at.
    """

    colour: Colour
    measured: str
    cause: str | None = None
    remedy: str | None = None
    id: str = ""
    title: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that the doctor found, for one lab or for all.

    Attributes:
        lab: the lab's id; empty for all of them.
        findings: one a check, in the order of the checks.
    """

    lab: str
    findings: tuple[Finding, ...]

    @property
    def colour(self) -> Colour:
        """Return the worst colour found."""
        found = {finding.colour for finding in self.findings}
        return "red" if "red" in found else "amber" if "amber" in found else "green"

    def json(self) -> str:
        """Return the report in the form that docs/doctor.schema.json describes."""
        checks = [asdict(finding) for finding in self.findings]
        return json.dumps({"version": 1, "lab": self.lab or None, "colour": self.colour, "checks": checks}, indent=2)

    def text(self) -> str:
        """Return the report in 80 columns: colour as a word, the check, what was measured, cause and remedy below."""
        lines = [line for finding in self.findings for line in _lines(finding)]
        return "\n".join([*lines, "", self.summary()])

    def summary(self) -> str:
        """Return one line: which colour, and how many checks are not green."""
        what = f"lab {self.lab}" if self.lab else "all labs"
        counts = [f"{sum(f.colour == colour for f in self.findings)} {colour}" for colour in ("green", "amber", "red")]
        return f"{what}: {self.colour} ({', '.join(counts)})"


def green(measured: str) -> Finding:
    """Return a finding that all is well."""
    return Finding("green", measured)


def amber(measured: str, cause: str, remedy: str | None = None) -> Finding:
    """Return a finding that it works another way, or not all of it."""
    return Finding("amber", measured, cause, remedy)


def red(measured: str, cause: str, remedy: str | None = None) -> Finding:
    """Return a finding that what needs this cannot run."""
    return Finding("red", measured, cause, remedy)


def _lines(finding: Finding) -> list[str]:
    indent = " " * 20
    lines = _wrapped(f"{finding.colour:<6} {finding.id:<12} {finding.measured}", indent)
    for word, said in (("cause", finding.cause), ("remedy", finding.remedy)):
        if said:
            lines += _wrapped(f"{indent}{word}: {said}", indent)
    return lines


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
