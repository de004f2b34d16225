"""The layers of an image, each beside the instruction that made it; and what a container has changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from labkit.images.saved import Saved, Step
from labkit.kernel.upper import PathChange
from labkit.show import markup
from labkit.show.changes import SIGNS
from labkit.show.tables import table
from labkit.show.text import WIDTH, columns, count, joined, wrap
from labkit.show.view import View

MOST_NAMES = 8
"""Names of a layer that are written; of more, they are counted."""
SETTINGS = "settings alone"
_SIGN = {"added": SIGNS[0], "changed": SIGNS[1], "removed": SIGNS[2]}
_MARGIN = 10
_LONGEST = 150


def layers_view(name: str, image: Saved, known: Mapping[str, Collection[str]] | None = None) -> View:
    """Show which instruction made which layer, how large it is, and what it adds, changes and removes.

    Args:
        name: how the image is called.
        image: what was read of it.
        known: names of other images to the diff_ids of their layers: a layer that is one of those says so.
    """
    title = f"{name}: {count(len(image.steps), 'instruction')}, {count(len(image.layers), 'layer')}"
    lines, rows, number = wrap(title), [], 0
    for step in image.steps:
        number += bool(step.diff_id)
        label = f"layer {number}" if step.diff_id else "  -"
        facts = _facts(step, known or {})
        told = [part for fact in facts for part in wrap(fact, WIDTH - _MARGIN, hanging="    ")]
        written = wrap(_short(step.instruction), WIDTH - _MARGIN, hanging="    ")
        lines += [
            f"{head:<{_MARGIN}}{line}" for head, line in zip([label, *[""] * len([*written, *told])], [*written, *told], strict=False)
        ]
        rows.append([markup.quiet(label.strip(" -")), markup.code(_short(step.instruction)), "<br>".join(map(markup.code, facts))])
    grid = markup.grid(rows, ["", "instruction", "what it made"])
    return View(joined(lines), markup.box(markup.heading(title), grid))


def _short(instruction: str) -> str:
    return instruction if len(instruction) <= _LONGEST else f"{instruction[: _LONGEST - 1]}…"


def _facts(step: Step, known: Mapping[str, Collection[str]]) -> list[str]:
    if not step.diff_id:
        return [SETTINGS]
    same = [name for name, layers in known.items() if step.diff_id in layers]
    size = size_of(step.size) + (f", the same layer as in {', '.join(same)}" if same else ", a new layer" if known else "")
    paths = {"added": step.added, "changed": step.changed, "removed": step.removed}
    return [size, *(f"{_SIGN[kind][1]} {_named(of)}" for kind, of in paths.items() if of)]


def _named(paths: Sequence[str]) -> str:
    return " ".join(paths) if len(paths) <= MOST_NAMES else f"{count(len(paths), 'name')}: {' '.join(paths[:3])} …"


def size_of(number: int) -> str:
    """Write a number of bytes as docker does: `29 B`, `1.1 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number} B"


def settings_view(name: str, settings: Mapping[str, Any]) -> View:
    """Tabulate what an image says about how a container of it is run: key and value, those that say something."""
    rows = [(key, _value(value)) for key, value in sorted(settings.items()) if value not in (None, "", [], {}, False)]
    return table(("setting", "value"), rows, title=f"{name}, how it is run")


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_value(one)}" if one not in ({}, None) else str(key) for key, one in sorted(value.items()))
    if isinstance(value, list):
        return f"[{', '.join(repr(str(each)) for each in value)}]"
    return str(value)


def changes_view(name: str, changes: Iterable[PathChange]) -> View:
    """Show what a container has changed in its root file system: a sign, a word and the path.

    Args:
        name: of the container.
        changes: as read from its upper layer.
    """
    found = list(changes)
    title = f"{name}: {count(len(found), 'path')} in its upper layer"
    rows = [(_SIGN[one.kind][1], one.kind, f"/{one.path}") for one in found]
    cells = [[markup.chip(f"{sign} {word}", _SIGN[word][3]), markup.code(path)] for sign, word, path in rows]
    return View(joined([title, *("  " + line for line in columns(rows, WIDTH - 2))]), markup.box(markup.heading(title), markup.grid(cells)))
