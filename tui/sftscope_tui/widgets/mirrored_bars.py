"""Horizontal bars about a common zero: negative to the left and hollow, positive to the right and filled."""

from rich.style import Style

from sftscope_tui.drawing.palette import Glyphs
from sftscope_tui.widgets.lines import Piece

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def filled_bar(share: float, width: int, glyphs: Glyphs) -> str:
    """A bar from the left over `share` ∈ [0, 1] of `width` cells; anything above zero shows."""
    if glyphs is Glyphs.ASCII:
        length = _cells(share, width)
        return ("#" * length).ljust(width)
    eighths = max(round(min(share, 1.0) * width * 8), 1 if share > 0 else 0)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def hollow_bar(share: float, width: int, glyphs: Glyphs) -> str:
    """A bar from the right over `share` ∈ [0, 1] of `width` cells, in a lighter glyph."""
    return (("-" if glyphs is Glyphs.ASCII else "░") * _cells(share, width)).rjust(width)


def mirrored_bar(
    negative: float, positive: float, scale: float, width: int, style: Style, glyphs: Glyphs
) -> list[Piece]:
    """Both sides of zero on one line of 2 · `width` + 1 cells; `negative` ≤ 0 ≤ `positive` ≤ `scale`."""
    unit = scale if scale > 0 else 1.0
    axis = "|" if glyphs is Glyphs.ASCII else "│"
    left, right = hollow_bar(-negative / unit, width, glyphs), filled_bar(positive / unit, width, glyphs)
    return [(left, style), (axis, Style(dim=True)), (right, style)]


def _cells(share: float, width: int) -> int:
    return min(max(round(share * width), 1 if share > 0 else 0), width)
