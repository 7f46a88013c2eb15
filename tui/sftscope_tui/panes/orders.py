"""Orders: how much effect, how many interactions, or how much strength each class has at each number of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.sets.evolution import CLASS_WORDS, Change
from sftscope.analysis.sets.views import OrderRow, Orders
from sftscope.analysis.soft.soft_orders import SoftOrderRow, SoftOrders
from sftscope_tui.drawing.numbers import plain
from sftscope_tui.drawing.palette import CLASS_GLYPHS
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import OrdersOf, View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.mirrored_bars import filled_bar, mirrored_bar

_NUMBER = 6
_GAP = 2
_SHORTEST = 3  # cells of a bar, below which its numbers give way


@dataclass(frozen=True, eq=False)
class OrdersSlice:
    """The distributions. soft: of the classes without a threshold, where `shown` is their strengths."""

    orders: Orders
    shown: OrdersOf
    n_probes: int
    soft: SoftOrders | None = None

    @property
    def classes(self) -> Mapping[Change, Sequence[OrderRow | SoftOrderRow]]:
        """The rows of each class."""
        return self.orders.classes if self.soft is None else {each: getattr(self.soft, each.value) for each in Change}

    @property
    def what(self) -> str:
        """What is drawn, in words."""
        if self.soft is not None:
            return f"strengths, shares of step {self.orders.base_step}, no τ"
        return "counts" if self.shown is OrdersOf.COUNTS else "− and + effects"


class OrdersPane(Pane[OrdersSlice]):
    """The three classes side by side, or one under the other where the pane is narrow and tall."""

    view = View.ORDERS

    def content(self, slice: OrdersSlice, width: int, height: int) -> list[Strip]:
        """All classes on one scale."""
        classes, counts = slice.classes, slice.shown is OrdersOf.COUNTS
        mean = ", mean of probes" if slice.n_probes > 1 else ""
        span = f": step {slice.orders.base_step} → {slice.orders.step}, "
        title = self.title([(span, Style()), (slice.what + mean, self.look.inks.muted)], width)
        scale = max((_size(row, counts) for rows in classes.values() for row in rows), default=0.0)
        block = len(next(iter(classes.values()))) + 2
        if width < 75 and height > len(classes) * block:
            blocks = [self._block(change, rows, scale, width - 2, counts) for change, rows in classes.items()]
            return [title, *(line([(" ", Style()), *pieces], width) for drawn in blocks for pieces in drawn)]
        cell = (width - 2 - _GAP * (len(classes) - 1)) // len(classes)
        blocks = [self._block(change, rows, scale, cell, counts) for change, rows in classes.items()]
        strips = [title]
        for parts in zip(*blocks, strict=True):
            joined = [Strip.join([line(pieces, cell), line([], _GAP)]) for pieces in parts]
            strips.append(Strip.join([line([], 1), *joined]).adjust_cell_length(width))
        return strips

    def _block(
        self, change: Change, rows: Sequence[OrderRow | SoftOrderRow], scale: float, width: int, counts: bool
    ) -> list[list[Piece]]:
        """A class: its name, a line an order, the sums."""
        style, muted = self.look.inks.of(change), self.look.inks.muted
        name = f"{CLASS_GLYPHS[change]} {CLASS_WORDS[change]}"
        head: list[Piece] = [(fit(name, width), style + Style(bold=True))]
        lines = [head]
        for row in rows:
            order: Piece = (f"{row.order:>2}", muted)
            if counts and isinstance(row, OrderRow):
                bar = filled_bar(row.count_mean / scale if scale else 0.0, width - 3 - _NUMBER, self.look.glyphs)
                lines.append([order, self._number(row.count_mean), (" ", Style()), (bar, style)])
                continue
            lines.append([order, *self._mirrored(row, scale, width, style)])
        lines.append(self._sums(rows, width, counts))
        return lines

    def _mirrored(self, row: OrderRow | SoftOrderRow, scale: float, width: int, style: Style) -> list[Piece]:
        """Both sums of an order as bars, between their numbers where there is room for both."""
        side, glyphs, space = self._side(width), self.look.glyphs, (" ", Style())
        if side < _SHORTEST:
            side = max((width - 4) // 2, 0)
            return [space, *mirrored_bar(row.negative_mean, row.positive_mean, scale, side, style, glyphs)]
        bars = mirrored_bar(row.negative_mean, row.positive_mean, scale, side, style, glyphs)
        return [self._number(row.negative_mean), space, *bars, self._number(row.positive_mean)]

    def _sums(self, rows: Sequence[OrderRow | SoftOrderRow], width: int, counts: bool) -> list[Piece]:
        sigma: Piece = (" Σ", self.look.inks.muted)
        if counts:
            return [sigma, self._number(sum(row.count_mean for row in rows if isinstance(row, OrderRow)), bold=True)]
        space = " " * (2 * self._side(width) + 2)
        return [
            sigma,
            self._number(sum(row.negative_mean for row in rows), bold=True),
            (space, Style()),
            self._number(sum(row.positive_mean for row in rows), bold=True),
        ]

    def _number(self, value: float, *, bold: bool = False) -> Piece:
        zero = value == 0
        text = "·" if zero else plain(value)
        return (fit(text, _NUMBER, right=True), self.look.inks.muted if zero else Style(bold=bold))

    @staticmethod
    def _side(width: int) -> int:
        """Cells on either side of the zero line."""
        return max((width - 4 - 2 * _NUMBER) // 2, 0)


def _size(row: OrderRow | SoftOrderRow, counts: bool) -> float:
    """What a bar shows of a row; 0 where it is undefined."""
    size = row.count_mean if counts and isinstance(row, OrderRow) else max(row.positive_mean, -row.negative_mean)
    return size if isfinite(size) else 0.0
