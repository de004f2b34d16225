"""Control groups of both versions behind one `Cgroup`. See: cgroups(7)."""

from __future__ import annotations

from labkit.kernel.cgroup_hierarchies import Hierarchies, Hierarchy, hierarchies
from labkit.kernel.cgroup_subtree import home, subtree, tracker

__all__ = ["Hierarchies", "Hierarchy", "hierarchies", "home", "subtree", "tracker"]
