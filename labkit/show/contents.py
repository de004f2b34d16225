"""How two root file systems compare: the same, or name by name where they are not."""

from __future__ import annotations

from labkit.kernel.contents import Compared
from labkit.show.notices import notice
from labkit.show.tables import table
from labkit.show.view import View

ALL = "kind, content, mode, owner and extended attributes"


def contents_view(compared: Compared) -> View:
    """Show a comparison.

    Args:
        compared: what was found.
    """
    covered = f"left out, for something else is mounted there: {', '.join(compared.covered)}" if compared.covered else ""
    if not compared.unequal:
        lines = [f"{compared.names:,} names, each with the same {ALL}"]
        return notice("passed", "the two are equal", [*lines, *([covered] if covered else [])])
    rows = [(each.path, each.what) for each in compared.unequal]
    return table(("name", "what differs"), rows, title=f"{compared.names:,} names compared", note=covered)
