"""A union mount as the stack that it is: which layer each name really lies in, what is hidden, what was copied up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.kernel.state import FileState, UnionState
from labkit.show import markup
from labkit.show.svg import PAPER, SHADE, Canvas, Point, span
from labkit.show.text import WIDTH, clean, columns, count, joined, natural, wrap
from labkit.show.view import View

MOST_FILES = 40
"""Names in the text form before the rest is only counted."""
MOST_COLUMNS = 8
"""Names in the picture before the rest is only counted."""
MOST_LAYERS = 5
"""Layers that get a column of their own in the text form."""
EMPTY = "nothing in any layer yet"
_LEGEND = (
    ("○ hidden", "○ hidden: a layer above it has the name"),
    ("✕ whiteout", "✕ whiteout: deleted in the union, the file below is untouched"),
    ("◎ opaque", "◎ opaque: hides all that the directory has in the layers below"),
    ("▲ copied up", "▲ copied up: written through the union, so the upper layer got a copy"),
)


@dataclass(frozen=True)
class _Layer:
    role: str
    directory: str
    name: str


def union_stack(union: UnionState) -> View:
    """Draw the layers one under the other, the merged directory on top, and each name where it lies.

    Args:
        union: with its names sorted by path.
    """
    layers = _layers(union)
    files = sorted(union.files, key=lambda file: natural(file.path))
    head = [f"{union.fstype} on {clean(union.merged)} ({'mounted' if union.mounted else 'not mounted'})"]
    told = [[layer.role, layer.directory] for layer in layers] + ([["workdir", union.workdir]] if union.workdir else [])
    rows, header = _rows(files[:MOST_FILES], layers)
    used = {cell for row in rows for cell in row}
    remarks = [f"… {count(len(files) - MOST_FILES, 'more name')}"] if len(files) > MOST_FILES else []
    remarks += [meaning for cell, meaning in _LEGEND if cell in used]
    remarks += [] if files else [EMPTY]
    lines = [line for part in head for line in wrap(part, hanging="  ")]
    lines += ["  " + line for line in columns(told, WIDTH - 2)] + ([""] if files else [])
    lines += columns(rows, header=header) if files else []
    text = joined([*lines, *(line for remark in remarks for line in wrap(remark))])
    svg, size = _draw(union, layers, files)
    return View(text, markup.figure(markup.picture(svg, text, size)))


def _layers(union: UnionState) -> list[_Layer]:
    roles = [role for role, _ in union.branches]
    found = []
    for index, (role, directory) in enumerate(union.branches):
        number = f" {roles[: index + 1].count(role)}" if roles.count(role) > 1 else ""
        found.append(_Layer(role + number, directory, directory.rstrip("/").rpartition("/")[2] or "/"))
    return found


def _rows(files: Sequence[FileState], layers: Sequence[_Layer]) -> tuple[list[list[str]], list[str]]:
    """Return the table of the text form: with a column for each layer, or for very high stacks with their roles in a cell."""
    if len(layers) <= MOST_LAYERS:
        rows = [[file.path, _merged(file), *(cell(file, index) for index in range(len(layers)))] for file in files]
        return rows, ["name", "merged", *(layer.role for layer in layers)]
    rows = []
    for file in files:
        places = [layers[index].role for index in file.layers if index < len(layers)]
        first = f"{places[0]} ({cell(file, file.layers[0])})" if places else ""
        rows.append([file.path, _merged(file), first, ", ".join(places[1:4]) + (" …" if len(places) > 4 else "")])
    return rows, ["name", "merged", "lies in", "also in"]


def _merged(file: FileState) -> str:
    return "● " + ("directory" if file.kind == "opaque" else file.kind) if file.visible else "-"


def cell(file: FileState, layer: int) -> str:
    """Say by a sign and a word what a layer has of a name; "" for nothing."""
    if layer not in file.layers:
        return ""
    top = layer == file.layers[0]
    if top and file.kind == "whiteout":
        return "✕ whiteout"
    if top and file.kind == "opaque":
        return "◎ opaque"
    if top and file.copied_up:
        return "▲ copied up"
    if file.visible and (top or file.kind == "directory"):
        return f"● {file.kind}"
    return "○ hidden"


_LABEL, _HIGH, _GAP, _MARGIN, _WIDE = 130, 52, 14, 16, 840


def _draw(union: UnionState, layers: Sequence[_Layer], files: Sequence[FileState]) -> tuple[str, tuple[int, int]]:
    canvas = Canvas()
    shown, step = _columns(files)
    size = (_WIDE, 2 * _MARGIN + (len(layers) + 1) * (_HIGH + _GAP) - _GAP)
    heads = [("merged", union.merged.rstrip("/").rpartition("/")[2] or "/"), *((layer.role, layer.name) for layer in layers)]
    for number, (role, name) in enumerate(heads):
        y = _MARGIN + number * (_HIGH + _GAP)
        canvas.box((_MARGIN, y), (_WIDE - 2 * _MARGIN, _HIGH), bold=number == 0, dashed=number == 0 and not union.mounted)
        canvas.label((_MARGIN + 12, y + 22), role, _LABEL - 20, size=13, bold=True)
        canvas.label((_MARGIN + 12, y + 39), name, _LABEL - 20, size=11, quiet=True)
    for column, file in enumerate(shown):
        _draw_file(canvas, file, _MARGIN + _LABEL + column * step, step - 12)
    if len(files) > len(shown):
        x = _MARGIN + _LABEL + len(shown) * step
        canvas.label((x, _MARGIN + 30), f"… {len(files) - len(shown)} more", step - 8, size=11, quiet=True, mono=False)
    if not files:
        canvas.label((_MARGIN + _LABEL, _MARGIN + 30), EMPTY, 400, quiet=True, mono=False)
    return canvas.document(size, f"{union.fstype} on {union.merged}"), size


def _columns(files: Sequence[FileState]) -> tuple[Sequence[FileState], float]:
    """Return the names that are drawn and the width of a column: longer names get wider and fewer columns.

    Where not all have room, those that are hidden, changed or deleted somewhere come before those that simply lie in a layer.
    """
    room = _WIDE - _LABEL - 2 * _MARGIN
    wanted = max((span(file.path) + 22 for file in files), default=0)
    most = min(MOST_COLUMNS, int(room // min(max(wanted, 77), 118)))
    shown = files
    if len(files) > most:
        first = sorted(files, key=lambda file: all(cell(file, layer).startswith(("●", "○")) for layer in file.layers))
        shown = sorted(first[: most - 1], key=lambda file: natural(file.path))
    return shown, min(room / max(len(shown) + (len(files) > len(shown)), 1), max(wanted, 124))


def _draw_file(canvas: Canvas, file: FileState, x: float, wide: float) -> None:
    """Draw one name in each row that has it, and the line of sight from the merged directory down to where it lies."""
    high = _HIGH - 12
    for layer in file.layers:
        word = cell(file, layer)
        y = _row(layer + 1)
        seen = word.startswith(("●", "▲", "◎"))
        canvas.box((x, y), (wide, high), fill=PAPER if seen else SHADE, bold=seen, dashed=not seen)
        if word.startswith("✕"):
            canvas.cross((x, y), (wide, high))
        _write(canvas, (x, y), wide, file.path, word, PAPER if seen else SHADE)
    if file.visible:
        canvas.box((x, _row(0)), (wide, high))
        _write(canvas, (x, _row(0)), wide, file.path, _merged(file), PAPER)
        if file.layers:
            tip = _row(file.layers[0] + 1) - 1
            canvas.line((x + wide / 2, _row(0) + high), (x + wide / 2, tip - 5), accent=True)
            canvas.arrow((x + wide / 2, tip))


def _row(number: int) -> float:
    return _MARGIN + number * (_HIGH + _GAP) + 6


def _write(canvas: Canvas, at: Point, wide: float, path: str, word: str, ground: str) -> None:
    canvas.label((at[0] + wide / 2, at[1] + 17), path, wide - 8, anchor="middle", halo=ground)
    canvas.label((at[0] + wide / 2, at[1] + 32), word, wide - 6, size=10, quiet=True, mono=False, anchor="middle", halo=ground)


