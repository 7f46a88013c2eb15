"""Backbone: the loss of predicting the answer from one class alone, and the losses of the run."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.sets.evolution import CLASS_WORDS, Change
from sftscope.analysis.sets.views import Backbone
from sftscope_tui.drawing.numbers import small
from sftscope_tui.drawing.palette import CLASS_GLYPHS
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.sparkline import Marks, area, even_width, marked, value_range

_NAME, _NUMBER = 18, 11
_TALLEST = 4
_BESIDE = 14  # columns that a curve needs next to the numbers; otherwise it stands under them


@dataclass(frozen=True, eq=False)
class BackboneSlice:
    """The table over all steps, the present step's index, and where the stages meet."""

    backbone: Backbone
    now: int
    boundary: int | None
    n_probes: int


class BackbonePane(Pane[BackboneSlice]):
    """A row a class: cross-entropy without and with b at the present step, a curve over all steps."""

    view = View.BACKBONE

    def content(self, slice: BackboneSlice, width: int, height: int) -> list[Strip]:
        """The classes on one scale, then the losses on theirs."""
        backbone, muted = slice.backbone, self.look.inks.muted
        mean = ", mean of probes" if slice.n_probes > 1 else ""
        against = f": against step {backbone.base_step}, at step {backbone.steps[slice.now]}{mean}"
        strips = [self.title([(against, muted)], width)]
        if backbone.note:
            strips.append(line([(f" {backbone.note}", muted)], width))
        n_curves = len(backbone.rows) + len(backbone.losses)
        per_curve = (height - 3) // max(n_curves, 1)
        tall = min(max(per_curve - (width - _NAME - 2 * _NUMBER - 3 < _BESIDE), 1), _TALLEST)
        numbers = fit("without b", _NUMBER, right=True) + fit("with b", _NUMBER, right=True)
        strips.append(line([(fit(" nats, using only", _NAME) + numbers + "  without b, over the steps", muted)], width))
        limits = value_range(*(row.cross_entropy_without_bias for row in backbone.rows))
        for row in backbone.rows:
            name, style = self._named(row.name)
            values = (row.cross_entropy_without_bias[slice.now], row.cross_entropy[slice.now])
            strips += self._curve(name, style, values, row.cross_entropy_without_bias, limits, slice, width, tall)
        if backbone.losses:
            strips.append(line([(" losses of the run", muted)], width))
        limits = value_range(*backbone.losses.values())
        for name in sorted(backbone.losses, reverse=True):
            loss = backbone.losses[name]
            drawn = (f"  {shown(name, 14)}", self.look.inks.loss)
            strips += self._curve(*drawn, (loss[slice.now],), loss, limits, slice, width, tall)
        return strips

    def _named(self, name: str) -> tuple[str, Style]:
        """A row's name on the screen, and its style."""
        if name in list(Change):
            change = Change(name)
            return f"{CLASS_GLYPHS[change]} {CLASS_WORDS[change]}", self.look.inks.of(change)
        if name.startswith("emerged"):
            return f"+ {name}", self.look.inks.emerged
        return f"  {shown(name)}", self.look.inks.loss

    def _curve(
        self,
        name: str,
        style: Style,
        values: Sequence[float],
        series: Sequence[float],
        limits: tuple[float, float],
        slice: BackboneSlice,
        width: int,
        tall: int,
    ) -> list[Strip]:
        beside = width - _NAME - 2 * _NUMBER - 3 >= _BESIDE
        indent = _NAME + 2 * _NUMBER + 2 if beside else 2
        across = even_width(len(series), max(width - indent - 1, 1))
        rows = area(tuple(series), across, tall, limits, self.look.glyphs)
        marks = Marks(cursor=slice.now, boundary=slice.boundary)
        numbers: list[Piece] = [(fit(small(value), _NUMBER, right=True), Style(bold=True)) for value in values]
        head: list[Piece] = [(fit(f" {name}", _NAME), style), *numbers]
        blank: Piece = (" " * indent, Style())
        curve = [marked(row, style, marks, len(series), self.look.glyphs) for row in rows]
        if not beside:
            return [line(head, width), *(line([blank, *pieces], width) for pieces in curve)]
        head.append((" " * (indent - sum(len(text) for text, _ in head)), Style()))
        lines = [[*head, *curve[0]], *([blank, *pieces] for pieces in curve[1:])]
        return [line(pieces, width) for pieces in lines]
