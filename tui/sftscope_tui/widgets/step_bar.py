"""All checkpoints on one line, the present one in brackets and the two stages marked; under it the verdict.

Where there are more than fit, the line shows the page of checkpoints that holds the present one, so
that stepping moves the brackets and not the line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.conclusions.verdict import Agreement, HeldOut, Verdict
from sftscope.analysis.sets.boundary import Boundary
from sftscope_tui.drawing.numbers import small
from sftscope_tui.drawing.palette import ON_DARK, Inks
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.widgets.lines import Lines, Piece, ends, line


@dataclass(frozen=True)
class StepBarContent:
    """The steps, where we are, and what is known of the stages (None: not computed yet).

    partial: whether steps are still to be read, so that the verdict is one on those that are.
    """

    steps: tuple[int, ...]
    now: int
    pinned: int | None = None
    boundary: Boundary | None = None
    verdict: Verdict | None = None
    partial: bool = False


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


def step_cells(content: StepBarContent, width: int, inks: Inks) -> list[tuple[Piece, int | None]]:
    """The checkpoints of the present page as pieces, each with the index of its step."""
    boundary = content.boundary.index if content.boundary else None
    found = pages(content.steps, width, boundary)
    page = next(page for page in found if content.now in page)
    cells: list[tuple[Piece, int | None]] = []
    if len(found) > 1:
        cells.append((("‹" if page.start else " ", inks.muted), None))
    for index in page:
        style = _stage_style(index, boundary, inks)
        number = str(content.steps[index])
        if index == content.now:
            cells.append(((f"[{number}]", style + Style(reverse=True, bold=True)), index))
        elif index == content.pinned:
            cells.append(((f"({number})", style), index))
        else:
            cells.append(((f" {number} ", style), index))
        if index == boundary:
            cells.append((("┊", inks.strong), index))
    if len(found) > 1 and page.stop < len(content.steps):
        cells.append((("›", inks.muted), None))
    return cells


def step_pieces(content: StepBarContent, width: int, inks: Inks) -> list[Piece]:
    """The checkpoints of the present page."""
    return [piece for piece, _ in step_cells(content, width, inks)]


def stage_pieces(content: StepBarContent, inks: Inks) -> list[Piece]:
    """The two stages, the present one underlined; nothing where there are not two."""
    boundary = content.boundary
    if boundary is None or boundary.index is None:
        return []
    here = content.now <= boundary.index
    return [
        ("  ◀ ", inks.denoising),
        ("denoising", inks.denoising + Style(bold=here, underline=here)),
        (" ┊ ", inks.strong),
        ("overfitting", inks.overfitting + Style(bold=not here, underline=not here)),
        (" ▶ ", inks.overfitting),
    ]


def verdict_pieces(content: StepBarContent, inks: Inks) -> list[Piece]:
    """Stop, conflict or not enough evidence; where denoising ends, with its interval; what eval loss says; why."""
    boundary, verdict = content.boundary, content.verdict
    if boundary is None:
        return [("looking for the two stages …", inks.muted)]
    pieces: list[Piece] = []
    if verdict is not None:
        named = {
            Agreement.AGREE: (f"STOP at step {verdict.stop_step}", inks.denoising),
            Agreement.CONFLICT: ("CONFLICT", inks.emerged),
            Agreement.NOT_ENOUGH: ("NOT ENOUGH EVIDENCE", inks.muted),
        }
        text, ink = named[verdict.agreement]
        if verdict.latest_step is not None:
            text, ink = f"STOP by step {verdict.latest_step}", inks.emerged
        so_far = "so far " if content.partial else ""
        pieces = [(so_far, inks.muted), (text, ink + Style(bold=True)), ("  ", inks.plain)]
    if boundary.index is None:
        pieces.append(("no two stages  ", inks.strong))
    else:
        pieces.append((f"boundary {boundary.step} ({boundary.low}–{boundary.high})  ", inks.strong))
    if verdict is None:
        return [*pieces, (shown(boundary.reason), inks.muted)]
    if verdict.held_out is not None:
        pieces.append((f"{_of_loss(verdict.held_out)}  ", inks.plain))
    return [*pieces, (shown(boundary.reason), inks.muted)]


def _of_loss(held_out: HeldOut) -> str:
    if held_out.best_step == held_out.last_step:
        return f"eval loss still falls: {small(held_out.best_loss)} at {held_out.best_step}"
    return (
        f"eval loss lowest at {held_out.best_step}: {small(held_out.best_loss)}, at the end {small(held_out.last_loss)}"
    )


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

    def step_at(self, x: int, y: int) -> int | None:
        """The index of the step whose number lies there."""
        if self.content is None or y:
            return None
        end = 0
        for (text, _), index in step_cells(self.content, self.size.width - 2, self.inks):
            end += cell_len(text)
            if x < end:
                return index
        return None

    def lay_out(self, width: int, height: int) -> list[Strip]:
        """Two lines, one cell from the edge; the stages stand next to the steps if both fit."""
        if self.content is None:
            return []
        edge: Piece = (" ", self.inks.plain)
        steps = step_pieces(self.content, width - 2, self.inks)
        stages = stage_pieces(self.content, self.inks)
        if sum(cell_len(text) for text, _ in [*steps, *stages]) > width:
            stages = []
        return [ends(steps, stages, width), line([edge, *verdict_pieces(self.content, self.inks)], width)]
