"""A small lab for the tests of the course's machinery; `import trial_lab` in a cell puts it in the place of lab 9.2."""

import sys

from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.errors import LabError
from labkit.kernel.cgroups import Cgroup

TITLE = "A lab for tests"
AIMS = ("try every verb once",)
NEEDS = ("root", "cgroups", "freezer")
CLAIMS = (("netns", "trial1"),)


def _box() -> Cgroup | None:
    try:
        return Cgroup.find("box")
    except LabError:
        return None


def made(_: object) -> Verdict:
    """Measure that the cgroup `box` is there."""
    return Verdict(_box() is not None, f"cgroup box: {'there' if _box() else 'not there'}", None if _box() else "mkdir was not called")


def frozen(_: object) -> Verdict:
    """Measure that `box` is, or was, frozen."""
    group = _box()
    return Verdict(group is not None and group.frozen, "frozen" if group is not None and group.frozen else "not frozen")


CHECKPOINTS = (
    Checkpoint(
        "made",
        "Make a cgroup called box.",
        made,
        hints=("mkdir makes a cgroup", "its directory is $FREEZER/box"),
        solution="mkdir -p $FREEZER/box",
        undo="rmdir $FREEZER/box",
        near_misses={"another name": "mkdir -p $FREEZER/bax"},
    ),
    Checkpoint(
        "frozen",
        "Freeze box, once.",
        frozen,
        kind="edge",
        hints=("freezer.state takes a word",),
        given="mkdir -p $FREEZER/box",
        solution="echo FROZEN > $FREEZER/box/freezer.state",
        near_misses={"thawed": "echo THAWED > $FREEZER/box/freezer.state"},
    ),
)

sys.modules["labkit.course.lab_9_2"] = sys.modules[__name__]
