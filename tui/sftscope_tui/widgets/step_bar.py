"""All checkpoints on one line, the present one in brackets and the stages marked; under it the verdict.

Where there are more than fit, the line shows the page of checkpoints that holds the present one, so
that stepping moves the brackets and not the line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.conclusions.stages import Stage, stages
from sftscope.analysis.conclusions.verdict import Decision, Verdict
from sftscope.analysis.course.events import Events
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
    events: Events | None = None
    verdict: Verdict | None = None
    partial: bool = False

    @property
    def sparsest(self) -> int | None:
        """The index of the sparsest step."""
        return self.events.sparsest.index if self.events else None

    def stages(self) -> list[Stage | None]:
        """Of each step."""
        return stages(self.steps, self.events, self.verdict) if self.events else [None] * len(self.steps)


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
    boundary, found_stages = content.sparsest, content.stages()
    found = pages(content.steps, width, boundary)
    page = next(page for page in found if content.now in page)
    cells: list[tuple[Piece, int | None]] = []
    if len(found) > 1:
        cells.append((("‹" if page.start else " ", inks.muted), None))
    for index in page:
        style = _stage_style(found_stages[index], inks)
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
    """The stages that the run has, the present one underlined; nothing where there are none."""
    of_steps = content.stages()
    pieces: list[Piece] = []
    for stage in (part for part in Stage if part in of_steps):
        here, ink = of_steps[content.now] is stage, _stage_style(stage, inks)
        pieces += [(" ┊ " if pieces else "  ", inks.strong), (stage.value, ink + Style(bold=here, underline=here))]
    return [*pieces, ("  ", inks.plain)] if pieces else []


def verdict_pieces(content: StepBarContent, inks: Inks) -> list[Piece]:
    """The verdict's sentence, what to do first; before it is known, where interactions are sparsest, and why."""
    events, verdict = content.events, content.verdict
    if events is None:
        return [("looking for the stages …", inks.muted)]
    if verdict is None:
        found = f"sparsest {events.sparsest.where}  " if events.two_stages else "no sparsest step  "
        return [(found, inks.strong), (shown(events.sparsest.reason), inks.muted)]
    ink = {Decision.STOP_AT: inks.denoising, Decision.NOT_ENOUGH: inks.muted}.get(verdict.decision, inks.emerged)
    so_far: list[Piece] = [("so far: ", inks.muted)] if content.partial else []
    rest = verdict.sentence.removeprefix(verdict.headline)
    return [*so_far, (verdict.headline, ink + Style(bold=True)), (shown(rest), inks.plain)]


def _stage_style(stage: Stage | None, inks: Inks) -> Style:
    if stage is Stage.DENOISING:
        return inks.denoising
    return inks.overfitting if stage is Stage.OVERFITTING else inks.plain


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
