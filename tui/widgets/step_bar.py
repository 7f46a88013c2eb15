"""All checkpoints on one line: the present one in brackets, the boundary and the two stages marked.

Where there are more than fit, the line shows the page of checkpoints that holds the present one, so
that stepping moves the brackets and not the line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from engine.analysis.stages import Boundary
from tui.palette import ON_DARK, Inks
from tui.widgets.lines import Lines, Piece, line


@dataclass(frozen=True)
class StepBarContent:
    """The steps, where we are, and what is known of the stages (None: not computed yet)."""

    steps: tuple[int, ...]
    now: int
    pinned: int | None = None
    boundary: Boundary | None = None


def pages(steps: Sequence[int], width: int, boundary: int | None) -> list[range]:
    """The steps cut into runs of indices that fit into `width` cells, with room for ‹ and ›."""
    sizes = [len(str(step)) + 2 + (index == boundary) for index, step in enumerate(steps)]
    if sum(sizes) <= width:
        return [range(len(steps))]
    result, start, used = [], 0, 0
    for index, size in enumerate(sizes):
        if used + size > width - 2 and index > start:
            result.append(range(start, index))
            start, used = index, 0
        used += size
    return [*result, range(start, len(steps))]


def step_pieces(content: StepBarContent, width: int, inks: Inks) -> list[Piece]:
    """The checkpoints of the present page."""
    boundary = content.boundary.index if content.boundary else None
    found = pages(content.steps, width, boundary)
    page = next(page for page in found if content.now in page)
    pieces: list[Piece] = []
    if len(found) > 1:
        pieces.append(("‹" if page.start else " ", inks.muted))
    for index in page:
        style = _stage_style(index, boundary, inks)
        number = str(content.steps[index])
        if index == content.now:
            pieces.append((f"[{number}]", style + Style(reverse=True, bold=True)))
        elif index == content.pinned:
            pieces.append((f"({number})", style))
        else:
            pieces.append((f" {number} ", style))
        if index == boundary:
            pieces.append(("┊", inks.strong))
    if len(found) > 1 and page.stop < len(content.steps):
        pieces.append(("›", inks.muted))
    return pieces


def verdict_pieces(content: StepBarContent, inks: Inks) -> list[Piece]:
    """Which stage this is, where the boundary lies and why."""
    boundary = content.boundary
    if boundary is None:
        return [("looking for the two stages …", inks.muted)]
    if boundary.index is None:
        return [("no two stages: ", inks.strong), (boundary.reason, inks.muted)]
    here = content.now <= boundary.index
    denoising = inks.denoising + Style(bold=here, underline=here)
    overfitting = inks.overfitting + Style(bold=not here, underline=not here)
    return [
        ("◀ ", inks.denoising),
        ("denoising", denoising),
        (" ┊ ", inks.strong),
        ("overfitting", overfitting),
        (" ▶", inks.overfitting),
        (f"  boundary {boundary.step} ({boundary.low}–{boundary.high})  ", inks.strong),
        (boundary.reason, inks.muted),
    ]


def _stage_style(index: int, boundary: int | None, inks: Inks) -> Style:
    if boundary is None:
        return inks.plain
    return inks.denoising if index <= boundary else inks.overfitting


class StepBar(Lines):
    """The step line and the verdict line."""

    content: StepBarContent | None = None
    inks: Inks = ON_DARK

    def show(self, content: StepBarContent | None, inks: Inks) -> None:
        """Draw `content`."""
        self.content, self.inks = content, inks
        self.redraw()

    def lay_out(self, width: int, height: int) -> list[Strip]:
        """Two lines, one cell from the edge."""
        if self.content is None:
            return []
        edge: Piece = (" ", self.inks.plain)
        steps = step_pieces(self.content, width - 2, self.inks)
        return [line(steps, width), line([edge, *verdict_pieces(self.content, self.inks)], width)]
