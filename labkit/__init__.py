"""Change a real Linux kernel, cell by cell, and see what changed.

A notebook needs one name, `open_lab`; the rooms below it (kernel, show, course) are imported when first used,
so that `import labkit` costs next to nothing.
"""

TYPE_CHECKING = False  # as in typing, whose import costs as much as a third of the interpreter's start
if TYPE_CHECKING:
    from labkit.course.expectation import expect
    from labkit.course.lab import Lab, open_lab

__all__ = ["Lab", "expect", "open_lab"]
__version__ = "0.1.0"

_HOMES = {"Lab": "labkit.course.lab", "open_lab": "labkit.course.lab", "expect": "labkit.course.expectation"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
