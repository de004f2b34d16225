"""How a thing looks: text and HTML of frozen records; reads no kernel state."""

from labkit.show.changes import cell_report, difference, operations
from labkit.show.notices import notice
from labkit.show.tables import table
from labkit.show.view import View, stack

__all__ = ["View", "cell_report", "difference", "notice", "operations", "stack", "table"]
