"""A few shapes of SVG, on a ground of their own, so that a picture reads on a white and on a black page."""

from __future__ import annotations

import html

from labkit.show.text import clean, cut, width

GROUND, FRAME = "#f3f5f8", "#c3cad3"
PAPER, EDGE = "#ffffff", "#8b96a5"
INK, QUIET = "#1f2933", "#55606c"
ACCENT, SHADE = "#0b5cad", "#e3e7ec"
MONO = "DejaVu Sans Mono,Menlo,Consolas,monospace"
SANS = "system-ui,-apple-system,Segoe UI,DejaVu Sans,sans-serif"
DASHES = "5 4"
Point = tuple[float, float]
_ADVANCE = {True: 0.62, False: 0.57}
"""Width of a letter as a part of its size, of the one and the other font; a little more than the widest of them takes."""


class Canvas:
    """A picture in the making; sizes in pixels, the origin at the top left."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def document(self, size: tuple[int, int], title: str) -> str:
        """Return the whole picture on its ground."""
        wide, high = size
        ground = f'<rect x="0.5" y="0.5" width="{wide - 1}" height="{high - 1}" rx="8" fill="{GROUND}" stroke="{FRAME}"/>'
        begin = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" role="img">'
        return f"{begin}<title>{_escape(title, 200)}</title>{ground}{''.join(self._parts)}</svg>"

    def box(self, at: Point, size: Point, *, fill: str = PAPER, dashed: bool = False, bold: bool = False) -> None:
        """Draw a rounded box."""
        dash = f' stroke-dasharray="{DASHES}"' if dashed else ""
        place = f'x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}"'
        self._parts.append(f'<rect {place} rx="6" fill="{fill}" {_stroke(bold)}{dash}/>')

    def label(self, at: Point, text: str, room: float, *, size: int = 12, bold: bool = False, quiet: bool = False,
              mono: bool = True, anchor: str = "start", halo: str = "") -> None:  # fmt: skip
        """Write text on the line at `at`, cut in the middle where it has no `room`; a halo of the ground's colour keeps lines off it."""
        if not text:
            return
        look = f'font-family="{MONO if mono else SANS}" font-size="{size}" fill="{QUIET if quiet else INK}"'
        look += ' font-weight="600"' if bold else ""
        look += f' paint-order="stroke" stroke="{halo}" stroke-width="4"' if halo else ""
        shown = _escape(text, int(room / (size * _ADVANCE[mono])))
        self._parts.append(f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}" {look}>{shown}</text>')

    def line(self, *points: Point, dashed: bool = False, accent: bool = False) -> None:
        """Draw a line through points."""
        self._path("M" + " L".join(f"{x:g} {y:g}" for x, y in points), dashed=dashed, accent=accent)

    def curve(self, start: Point, end: Point, bend: Point, *, dashed: bool = False) -> None:
        """Draw a cable from one end to the other; `bend` are the x of its two control points."""
        way = f"M{start[0]:g} {start[1]:g} C{bend[0]:g} {start[1]:g} {bend[1]:g} {end[1]:g} {end[0]:g} {end[1]:g}"
        self._path(way, dashed=dashed, accent=True)

    def cell(self, at: Point, size: Point, full: float) -> None:
        """Draw a small box that is filled from below: 1.0 full, 0.0 empty."""
        (x, y), (wide, high) = at, size
        place = f'x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}"'
        self._parts.append(f'<rect {place} fill="{PAPER}" stroke="{EDGE}" stroke-width="0.8"/>')
        if full:
            place = f'x="{x:g}" y="{y + high * (1 - full):g}" width="{wide:g}" height="{high * full:g}"'
            self._parts.append(f'<rect {place} fill="{ACCENT}"/>')

    def bar(self, at: Point, wide: float, full: float) -> None:
        """Draw how much of something is used: 1.0 all of it."""
        x, y = at
        place = f'x="{x:g}" y="{y:g}" height="6" rx="3"'
        self._parts.append(f'<rect {place} width="{wide:g}" fill="{SHADE}" stroke="{EDGE}" stroke-width="0.8"/>')
        if full:
            self._parts.append(f'<rect {place} width="{max(wide * full, 3):g}" fill="{ACCENT}"/>')

    def lamp(self, at: Point, state: str) -> None:
        """Draw a state by its shape: "up" a full circle, "down" an empty one, anything else a half."""
        x, y = at
        fill = ACCENT if state == "up" else PAPER
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="4.5" fill="{fill}" stroke="{ACCENT}" stroke-width="1.4"/>')
        if state not in ("up", "down"):
            self._parts.append(f'<path d="M{x:g} {y - 4.5:g} A4.5 4.5 0 0 0 {x:g} {y + 4.5:g} Z" fill="{ACCENT}"/>')

    def socket(self, at: Point) -> None:
        """Draw the end of a cable on the edge of a box."""
        place = f'x="{at[0] - 4:g}" y="{at[1] - 4:g}" width="8" height="8" rx="1.5"'
        self._parts.append(f'<rect {place} fill="{PAPER}" stroke="{ACCENT}" stroke-width="1.6"/>')

    def arrow(self, tip: Point) -> None:
        """Draw the head of an arrow that points down."""
        x, y = tip
        self._parts.append(f'<path d="M{x - 4:g} {y - 6:g} L{x + 4:g} {y - 6:g} L{x:g} {y:g} Z" fill="{ACCENT}"/>')

    def head(self, tip: Point, *, right: bool) -> None:
        """Draw the head of an arrow that points to the right, or to the left."""
        (x, y), back = tip, -7 if right else 7
        self._parts.append(f'<path d="M{x + back:g} {y - 4:g} L{x + back:g} {y + 4:g} L{x:g} {y:g} Z" fill="{ACCENT}"/>')

    def cross(self, at: Point, size: Point) -> None:
        """Cross out a box."""
        (x, y), (wide, high) = at, size
        self._parts.append(f'<path d="M{x:g} {y:g} l{wide:g} {high:g} m0 {-high:g} l{-wide:g} {high:g}" stroke="{EDGE}" fill="none"/>')

    def _path(self, way: str, *, dashed: bool, accent: bool) -> None:
        dash = f' stroke-dasharray="{DASHES}"' if dashed else ""
        self._parts.append(f'<path d="{way}" fill="none" stroke="{ACCENT if accent else EDGE}" stroke-width="1.8"{dash}/>')


def span(text: str) -> float:
    """Return how wide a name of the usual size may become."""
    return width(clean(text)) * 12 * _ADVANCE[True]


def _stroke(bold: bool) -> str:
    return f'stroke="{ACCENT}" stroke-width="2"' if bold else f'stroke="{EDGE}" stroke-width="1.2"'


def _escape(text: str, letters: int) -> str:
    return html.escape(cut(text, max(letters, 1)), quote=True)
