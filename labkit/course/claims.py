"""Names that the shell lines of a lab will make: the lab's own from its opening on, whoever types the line.

`%%lab` cells and a student's terminal make things without asking the ledger. So the names that a lab's text uses are
written into it when the lab is opened; what carries such a name already, and is not ours, is refused then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from labkit import ledger
from labkit.errors import LabError


@dataclass(frozen=True)
class Claim:
    """One name.

    Attributes:
        kind: "netns" or "link", as in the ledger.
        name: such as "namespace1".
    """

    kind: str
    name: str


_THERE: dict[str, Callable[[str], bool]] = {
    "netns": lambda name: (Path("/run/netns") / name).exists(),
    "link": lambda name: (Path("/sys/class/net") / name).exists(),
}
_FIELD = {"netns": "a network namespace", "link": "a network interface"}


def of(module: ModuleType) -> tuple[Claim, ...]:
    """Return the claims that a lab's module declares: `Claim`s, or (kind, name) pairs."""
    return tuple(claim if isinstance(claim, Claim) else Claim(*claim) for claim in getattr(module, "CLAIMS", ()))


def refuse_foreign(claims: Sequence[Claim]) -> None:
    """Refuse, before anything is changed, when a name is taken by something that no lab made.

    Raises:
        LabError: names it.
    """
    for claim in claims:
        if _THERE[claim.kind](claim.name) and _entry(claim) is None:
            remove = {"netns": f"ip netns delete {claim.name}", "link": f"ip link delete {claim.name}"}[claim.kind]
            raise LabError(
                f"{_FIELD[claim.kind]} {claim.name} is there already, and the lab did not make it",
                remedy=f"if nobody needs it: {remove}",
            )


def renew(claims: Sequence[Claim]) -> None:
    """Write every claim into the ledger that is not there (any more), as after a deletion."""
    for claim in claims:
        if _entry(claim) is None:
            ledger.intend(claim.kind, **{_KEY[claim.kind]: claim.name})


_KEY = {"netns": "name", "link": "ifname"}


def _entry(claim: Claim) -> ledger.Entry | None:
    return ledger.find(claim.kind, **{_KEY[claim.kind]: claim.name})
