"""An image as the tree of digests that it is: the name leads to an index or a manifest, that to a configuration and the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.images.image import ImageParts
from labkit.images.oci import Descriptor
from labkit.show import markup
from labkit.show.svg import Canvas, Point
from labkit.show.text import WIDTH, clean, columns, count, cut, joined, wrap
from labkit.show.view import View

MOST_LAYERS = 12
"""Layers shown before the rest is only counted."""
NO_INDEX = "the name leads to the manifest at once: there is no index"
_ID = 12
_UNITS = ("B", "kB", "MB", "GB")


@dataclass(frozen=True)
class _Part:
    """A line of the text form, and a box of the picture."""

    branch: str
    role: str
    descriptor: Descriptor
    told: str = ""


def image_tree(image: ImageParts) -> View:
    """Draw an image: what each part is, by which digest it is found, how large it is, of which media type.

    Args:
        image: its parts.
    """
    parts = _parts(image)
    rows = [[f"{part.branch}{part.role}", _short(part.descriptor), size(part.descriptor.size), _type(part.descriptor)] for part in parts]
    remarks = [] if image.index else [NO_INDEX]
    if len(image.layers) > MOST_LAYERS:
        remarks.append(f"… {count(len(image.layers) - MOST_LAYERS, 'more layer')}")
    lines = [*wrap(image.name, hanging="  "), *columns(rows)]
    lines += [line for part in parts if part.told for line in wrap(f"{part.role}: {clean(part.told)}", WIDTH, hanging="  ")]
    text = joined([*lines, *(line for remark in remarks for line in wrap(remark))])
    svg, bounds = _draw(image, parts)
    return View(text, markup.figure(markup.picture(svg, text, bounds)))


def size(number: int) -> str:
    """Return a number of bytes as engines write it, in steps of 1000: `1.1 MB`.

    Args:
        number: of bytes.
    """
    value, unit = float(number), _UNITS[0]
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{number} B" if unit == _UNITS[0] else f"{value:.1f} {unit}"


def _parts(image: ImageParts) -> list[_Part]:
    index = [_Part("", "index", image.index, _listed(image.listed))] if image.index else []
    configuration = _Part("├─ ", "config", image.config_descriptor, _runs(image))
    made = [each.created_by for each in image.config.history if not each.empty_layer]
    layers = []
    for number, each in list(enumerate(image.layers, 1))[:MOST_LAYERS]:
        by = made[number - 1] if len(made) == len(image.layers) else ""
        layers.append(_Part("└─ " if number == len(image.layers) else "├─ ", f"layer {number}", each, by))
    return [*index, _Part("", "manifest", image.manifest), configuration, *layers]


def _listed(manifests: Sequence[Descriptor]) -> str:
    platforms = [str(each.platform) for each in manifests if each.platform]
    return f"lists {count(len(manifests), 'manifest')}" + (f": {', '.join(platforms)}" if platforms else "")


def _runs(image: ImageParts) -> str:
    execution = image.config.execution
    words = " ".join((*execution.entrypoint, *execution.cmd))
    return f"{image.config.platform}, runs {words}" if words else f"{image.config.platform}, runs nothing by itself"


def _short(descriptor: Descriptor) -> str:
    algorithm, _, encoded = descriptor.digest.partition(":")
    return f"{algorithm}:{encoded[:_ID]}"


def _type(descriptor: Descriptor) -> str:
    return descriptor.media_type.removeprefix("application/")


_MARGIN, _BOX, _HIGH, _GAP, _LANE = 16, 236, 54, 12, 50
_WIDE = 2 * _MARGIN + 3 * _BOX + 2 * _LANE


def _draw(image: ImageParts, parts: Sequence[_Part]) -> tuple[str, tuple[int, int]]:
    """Draw index, manifest and what this names from left to right; the layers as they lie, the lowest at the bottom."""
    canvas = Canvas()
    right = [part for part in parts if part.role == "config"]
    right += [part for part in reversed(parts) if part.role.startswith("layer")]
    top = _MARGIN + 30
    bounds = (_WIDE, top + len(right) * (_HIGH + _GAP) - _GAP + _MARGIN)
    canvas.label((_MARGIN, _MARGIN + 14), image.name, _WIDE - 2 * _MARGIN, size=13, bold=True)
    manifest = next(part for part in parts if part.role == "manifest")
    xs = [_MARGIN + number * (_BOX + _LANE) for number in range(3)]
    if image.index:
        _box(canvas, parts[0], (xs[0], top))
        _arrow(canvas, (xs[0] + _BOX, top + _HIGH / 2), (xs[1], top + _HIGH / 2))
    else:
        canvas.box((xs[0], top), (_BOX, _HIGH), dashed=True)
        canvas.label((xs[0] + 12, top + 21), "no index", _BOX - 24, quiet=True)
    _box(canvas, manifest, (xs[1], top), bold=True)
    for number, part in enumerate(right):
        y = top + number * (_HIGH + _GAP)
        _box(canvas, part, (xs[2], y))
        _arrow(canvas, (xs[1] + _BOX, top + _HIGH / 2), (xs[2], y + _HIGH / 2))
    return canvas.document(bounds, image.name), bounds


def _box(canvas: Canvas, part: _Part, at: Point, *, bold: bool = False) -> None:
    (x, y), room = at, _BOX - 24
    canvas.box(at, (_BOX, _HIGH), bold=bold)
    canvas.label((x + 12, y + 17), part.role, room, size=12, bold=True)
    canvas.label((x + _BOX - 12, y + 17), size(part.descriptor.size), 90, size=11, anchor="end")
    canvas.label((x + 12, y + 32), _short(part.descriptor), room, size=11)
    canvas.label((x + 12, y + 46), cut(part.told or _type(part.descriptor), 60), room, size=10, quiet=True, mono=False)


def _arrow(canvas: Canvas, start: Point, tip: Point) -> None:
    middle = start[0] + _LANE / 2
    canvas.line(start, (middle, start[1]), (middle, tip[1]), (tip[0] - 6, tip[1]), accent=True)
    canvas.head(tip, right=True)
