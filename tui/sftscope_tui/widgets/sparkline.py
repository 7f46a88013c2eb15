"""Charts of values over the steps in character cells: filled areas, gaps for NaN, the cursor's columns.

Pure functions from numbers to rows of text. An area is filled between zero and the value, with at
least one dot, so that a zero and a gap differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rich.style import Style

from sftscope.lattice.transforms import Floats
from sftscope_tui.drawing.palette import Glyphs
from sftscope_tui.widgets.lines import Piece

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_FILL = " .:#"
_LEFT_DOTS, _RIGHT_DOTS = (0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08)  # bottom dot first
# One row high, by strength: filled for a positive effect, dotted for a negative one
_POSITIVE = {Glyphs.BRAILLE: "▁▂▃▄▅▆▇█", Glyphs.BLOCK: "▁▂▃▄▅▆▇█", Glyphs.ASCII: "_.:+*#"}
_NEGATIVE = {Glyphs.BRAILLE: "⡀⣀⣄⣤⣦⣶⣷⣿", Glyphs.BLOCK: "░░░▒▒▒▓▓", Glyphs.ASCII: "'`,;-~"}


@dataclass(frozen=True)
class Marks:
    """Columns of a chart that mean something: the present step, and the boundary after step `boundary`."""

    cursor: int | None = None
    boundary: int | None = None


def bucketed(values: Sequence[float] | Floats, columns: int) -> Floats:
    """The values at `columns` places: a step spreads over several, or several are averaged; NaN is a gap."""
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not columns:
        return np.full(columns, np.nan)
    if array.size <= columns:
        return array[np.arange(columns) * array.size // columns]
    edges = np.arange(columns + 1) * array.size // columns
    defined = np.isfinite(array)
    sums = np.add.reduceat(np.where(defined, array, 0.0), edges[:-1])
    counts = np.add.reduceat(defined.astype(np.float64), edges[:-1])
    return np.divide(sums, counts, out=np.full(columns, np.nan), where=counts > 0)


def columns_of(index: int, n_steps: int, width: int) -> tuple[int, int]:
    """The half-open range of the `width` columns in which step `index` of `n_steps` lies."""
    if n_steps > width:
        edges = np.arange(width + 1) * n_steps // width
        column = int(np.searchsorted(edges, index, side="right")) - 1
        return column, column + 1
    inside = np.flatnonzero(np.arange(width) * n_steps // width == index)
    return int(inside[0]), int(inside[-1]) + 1


def even_width(n_steps: int, width: int) -> int:
    """The most of `width` columns that gives every step as many as the next, unless that wastes a quarter."""
    even = width // n_steps * n_steps if n_steps else 0
    return even if 4 * even >= 3 * width else width


def value_range(*series: Sequence[float]) -> tuple[float, float]:
    """The range that holds zero and every finite value; (0, 1) where there is nothing above zero."""
    values = np.concatenate([np.zeros(1), *(np.asarray(part, dtype=np.float64) for part in series)])
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (0.0, 1.0)


@lru_cache(maxsize=256)
def area(
    values: tuple[float, ...], width: int, height: int, limits: tuple[float, float], glyphs: Glyphs
) -> tuple[str, ...]:
    """`height` rows of `width` cells, top first: the values as an area over zero."""
    per_cell = 2 if glyphs is Glyphs.BRAILLE else 1
    rise = {Glyphs.BRAILLE: 4, Glyphs.BLOCK: 8, Glyphs.ASCII: 3}[glyphs]
    low, high = limits
    dots = rise * height
    points = bucketed(values, width * per_cell)
    defined = np.isfinite(points)
    zero = round(-low / (high - low) * dots)
    safe = np.clip(np.where(defined, points, 0.0), low, high)
    level = np.rint((safe - low) / (high - low) * dots).astype(int)
    bottom, top = np.minimum(level, zero), np.maximum(level, zero)
    flat = bottom == top  # one dot on the zero line
    bottom = np.where(flat, np.minimum(bottom, dots - 1), bottom)
    top = np.where(flat, bottom + 1, top)
    rows = np.arange(dots)[:, None]
    filled = (rows >= bottom) & (rows < top) & defined  # (dots, columns), bottom first
    cells = filled.reshape(height, rise, width, per_cell)
    return tuple("".join(_cell(cells[row, :, x], glyphs) for x in range(width)) for row in reversed(range(height)))


def _cell(dots: NDArray[np.bool_], glyphs: Glyphs) -> str:
    """One character for the dots (rise, columns a cell), bottom first."""
    count = int(dots.sum())
    if not count:
        return " "
    if glyphs is Glyphs.BRAILLE:
        bits = sum(bit for lit, bit in zip(dots[:, 0], _LEFT_DOTS, strict=True) if lit)
        bits += sum(bit for lit, bit in zip(dots[:, 1], _RIGHT_DOTS, strict=True) if lit)
        return chr(0x2800 + bits)
    if glyphs is Glyphs.BLOCK:
        if dots[0, 0]:
            return _BLOCKS[count]
        return "▀" if count <= 4 else "█"
    return _ASCII_FILL[count]


def marked(row: str, style: Style, marks: Marks, n_steps: int, glyphs: Glyphs) -> list[Piece]:
    """A chart row as pieces: the cursor's columns in reverse video, the boundary where the row is empty."""
    width = len(row)
    if marks.boundary is not None and marks.boundary + 1 < n_steps <= width:
        x = columns_of(marks.boundary + 1, n_steps, width)[0]
        if row[x] == " ":
            row = row[:x] + ("|" if glyphs is Glyphs.ASCII else "┊") + row[x + 1 :]
    if marks.cursor is None or not width:
        return [(row, style)]
    start, stop = columns_of(marks.cursor, n_steps, width)
    return [(row[:start], style), (row[start:stop], style + Style(reverse=True)), (row[stop:], style)]


def signed_line(series: Sequence[float] | Floats, width: int, glyphs: Glyphs) -> str:
    """One row of strengths relative to the strongest: filled where positive, dotted where negative."""
    points = bucketed(series, width)
    strongest = float(np.nanmax(np.abs(points))) if np.isfinite(points).any() else 0.0
    return "".join(_signed_cell(float(point), strongest, glyphs) for point in points)


def _signed_cell(point: float, strongest: float, glyphs: Glyphs) -> str:
    if not np.isfinite(point):
        return " "
    ramp = (_NEGATIVE if point < 0 else _POSITIVE)[glyphs]
    share = abs(point) / strongest if strongest > 0 else 0.0
    return ramp[min(int(share * len(ramp)), len(ramp) - 1)]
