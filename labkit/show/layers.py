"""The layers of an image, each beside the instruction that made it; and what a container has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
SETTINGS_KEYS = (
    "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User", "Volumes", "WorkingDir",
)  # fmt: skip
"""Those of the OCI image specification, and the three that Docker has beside them; what else an engine writes there is its own affair."""
_SIGN = {"added": SIGNS[0], "changed": SIGNS[1], "removed": SIGNS[2]}
_MARGIN = 10
_LONGEST = 150


def layers_view(name: str, image: Saved, known: Mapping[str, Saved] | None = None) -> View:
    """Show which instruction made which layer, how large it is, and what it adds, changes and removes.

    Args:
        name: how the image is called.
        image: what was read of it.
        known: other images by name: what the image has of one from its beginning on is told in one line, and a layer that one has says so.
    """
    title = f"{name}: {_counted(image.steps)}"
    same, below = max(((_begin(image, other), called) for called, other in (known or {}).items()), default=(0, ""))
    rows = [("=", f"{_counted(image.steps[:same])}, those of {below}", list[str]())] if same else []
    for number, step in enumerate(image.steps[same:], same + 1):
        label = f"layer {len([one for one in image.steps[:number] if one.diff_id])}" if step.diff_id else "-"
        rows.append((label, _short(step.instruction), _facts(step, known or {})))
    lines = wrap(title)
    for label, instruction, facts in rows:
        told = [part for said in (instruction, *facts) for part in wrap(said, WIDTH - _MARGIN, hanging="    ")]
        lines += [f"{head:<{_MARGIN}}{line}" for head, line in zip([label, *[""] * len(told)], told, strict=False)]
    cells = [[markup.quiet(label), markup.code(said), "<br>".join(map(markup.code, facts))] for label, said, facts in rows]
    return View(joined(lines), markup.box(markup.heading(title), markup.grid(cells, ["", "instruction", "what it made"])))


def _begin(image: Saved, other: Saved) -> int:
    """Count the steps that two images have in common from the beginning on."""
    return next(
        (number for number, (one, two) in enumerate(zip(image.steps, other.steps, strict=False)) if one != two),
        min(len(image.steps), len(other.steps)),
    )


def _counted(steps: Sequence[Step]) -> str:
    layers = len([step for step in steps if step.diff_id])
    return f"{count(len(steps), 'instruction')}, {count(layers, 'layer')}"


def _short(instruction: str) -> str:
    return instruction if len(instruction) <= _LONGEST else f"{instruction[: _LONGEST - 1]}…"


def _facts(step: Step, known: Mapping[str, Saved]) -> list[str]:
    if not step.diff_id:
        return [SETTINGS]
    same = [name for name, image in known.items() if step.diff_id in [one.diff_id for one in image.layers]]
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


def settings_view(name: str, settings: Mapping[str, Any], below: Mapping[str, Any]) -> View:
    """Tabulate what an image says about how a container of it is run: key and value, those that say something.

    Args:
        name: how the image is called.
        settings: the `config` of its configuration.
        below: that of another image: what it has alike is left out.
    """
    own = {key: _without(settings.get(key), below.get(key)) for key in SETTINGS_KEYS}
    rows = [(key, _value(value)) for key, value in own.items() if value not in (None, "", [], {}, False)]
    return table(("setting", "value"), rows, title=f"{name}, how it is run")


def _without(value: Any, below: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(below, Mapping):
        return {key: one for key, one in value.items() if below.get(key, ...) != one}
    if isinstance(value, list) and isinstance(below, list) and value[: len(below)] == below:
        return value[len(below) :]
    return None if value == below else value


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


def file_view(name: str, text: str) -> View:
    """Show a text file as it is.

    Args:
        name: how the file is called.
        text: what it holds.
    """
    shown = text.rstrip("\n")
    parts = [f"  {part}" for line in shown.split("\n") for part in _broken(line, WIDTH - 2)]
    return View(joined([name, *parts]), markup.box(markup.heading(name), markup.code_block(shown)))


def _broken(line: str, limit: int) -> list[str]:
    """Break a line that is too long; what stands before its first word stands before each part."""
    margin = line[: len(line) - len(line.lstrip(" "))]
    return [margin + part for part in wrap(line.lstrip(" "), limit - len(margin), hanging="    ")]
