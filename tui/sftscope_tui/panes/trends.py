"""Trends: every class over all steps as small charts, with the numbers of the present step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan

from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.run.run_history import ACCURACY, LOSSES
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import Trends
from sftscope.analysis.trust.estimate_intervals import ENCODED, EstimateView
from sftscope_tui.drawing.numbers import plain, signed, small
from sftscope_tui.drawing.palette import CLASS_GLYPHS
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.sparkline import Marks, area, even_width, marked, value_range

_GAP = 2
_ESSENTIAL = 3  # rows of the classes' charts, where there is room for no more
_ROOMY = 18  # lines from which on there are as many as fit
_SPLIT_BELOW = 72  # columns below which the run's own curves take two rows, where there is height
_OF_SAME_SIGN = ("generalizable_mean", "z_mean")  # what is preserved counts there only with its sign
_WITH_TURNOVER = 72  # columns from which on it stands among the run's own curves
_FIELDS = (
    ("count", "n", "count_mean", plain),
    ("strength", "Σ|I|", "strength_mean", plain),
    ("ρ", "ρ", "generalizable_mean", plain),
    ("z", "z", "z_mean", signed),
    ("uncancelled", "γu", "uncancelled_mean", plain),
    ("mean order", "order", "order_mean", plain),
    ("contribution", "ΣI/n", "contribution_mean", signed),
)


@dataclass(frozen=True, eq=False)
class TrendsSlice:
    """The curves, the present step's index, how many probes they are means of, and the second run's name.

    estimate: how far they can be believed, where masked states were sampled.
    """

    trends: Trends
    now: int
    n_probes: int
    other: str = ""
    estimate: EstimateView | None = None

    @property
    def r2(self) -> float | None:
        """R² of the held-out masked states at the present step, mean over probes."""
        known = self.estimate is not None and self.now < len(self.estimate.r2_mean)
        return self.estimate.r2_mean[self.now] if known and self.estimate else None

    def interval(self, name: str) -> str:
        """The interval of a count at the present step; empty without replicates."""
        spans = self.estimate.intervals.get(name, []) if self.estimate else []
        return f" {_two_places(spans[self.now][0])}–{_two_places(spans[self.now][1])}" if self.now < len(spans) else ""


def _by_chance(slice: TrendsSlice, change: Change, field: str) -> str:
    """What the number of a class would be by chance, at the present step; empty where that is not defined."""
    trends, now = slice.trends, slice.now
    curves = {
        "uncancelled_mean": trends.classes[change].uncancelled_by_chance,
        "generalizable_mean": (
            trends.same_sign if change is Change.PRESERVED else trends.classes[change]
        ).generalizable_by_chance,
        "count_mean": trends.preserved_by_chance if change is Change.PRESERVED else [],
    }
    curve = curves.get(field, [])
    return f", chance {plain(curve[now])}" if now < len(curve) and not isnan(curve[now]) else ""


def _two_places(value: float) -> str:
    """Of the end of an interval: one decimal below ten, none from there on."""
    return f"{value:.1f}" if round(value, 1) < 10 else f"{value:.0f}"


@dataclass(frozen=True)
class Chart:
    """One small chart: its name, long and short, the number of the present step, the values, their range.

    chance: what follows the number where there is room.
    """

    name: str
    short: str
    number: str
    values: Sequence[float]
    limits: tuple[float, float]
    style: Style
    chance: str = ""


class TrendsPane(Pane[TrendsSlice]):
    """Three classes side by side, one quantity a row; the run's own curves in the last row."""

    view = View.TRENDS

    def content(self, slice: TrendsSlice, width: int, height: int) -> list[Strip]:
        """As many rows of charts as fit."""
        base = slice.trends.base_step
        probes = f"mean of {slice.n_probes} probes" if slice.n_probes > 1 else "one probe"
        rho = f", ρ in {slice.other}" if slice.trends.has_reference else ""
        r2 = f"; ESTIMATED, R² {small(slice.r2)}" if slice.r2 is not None else ""
        first = slice.trends.same_weights.get(slice.trends.steps[slice.now])
        same = f"; weights of step {first}" if first is not None else ""
        title = self.title([(f": against step {base}, {probes}{rho}{r2}{same}", self.look.inks.muted)], width)
        rows = [self._soft_row(slice), *self._class_rows(slice)]
        own = self._own_row(slice, with_turnover=width >= _WITH_TURNOVER)
        room = height - 1
        split = width < _SPLIT_BELOW and room >= (len(rows) + 2) * 3 and len(own) >= 4
        rows = rows[: room // 3 - 1 if room >= _ROOMY else _ESSENTIAL]
        rows = [*rows, *([[own[0], own[-1]], own[1:-1]] if split else [own])][: max(room // 2, 1)]
        chart_height = max(room // len(rows) - 1, 1)
        return [title, *(strip for row in rows for strip in self._draw(row, slice, width, chart_height))]

    def _class_rows(self, slice: TrendsSlice) -> list[list[Chart]]:
        rows = []
        for name, short, field, text in _FIELDS:
            if name == "ρ" and not slice.trends.has_reference:
                continue
            series = {change: getattr(slice.trends.classes[change], field) for change in Change}
            kept = field in _OF_SAME_SIGN
            if kept:
                series[Change.PRESERVED] = getattr(slice.trends.same_sign, field)
            limits = (0.0, 1.0) if name in ("uncancelled", "ρ") else value_range(*series.values())
            rows.append(
                [
                    Chart(
                        f"{CLASS_GLYPHS[change]} {name}{', same sign' if kept and change is Change.PRESERVED else ''}",
                        f"{CLASS_GLYPHS[change]} {short}",
                        text(values[slice.now]) + (slice.interval(change) if name == "count" else ""),
                        values,
                        limits,
                        self.look.inks.of(change),
                        _by_chance(slice, change, field),
                    )
                    for change, values in series.items()
                ]
            )
        return rows

    def _soft_row(self, slice: TrendsSlice) -> list[Chart]:
        """What needs no threshold: the effective number, and strengths as shares of that at the base step."""
        soft, inks = slice.trends.soft, self.look.inks
        number = soft.effective_mean
        charts = [Chart("effective number", "N_eff", plain(number[slice.now]), number, value_range(number), inks.loss)]
        for change, values in ((Change.REMOVED, soft.removed_mean), (Change.EMERGED, soft.emerged_mean)):
            limits = (0.0, 1.0) if change is Change.REMOVED else value_range(values)
            name, short = f"{CLASS_GLYPHS[change]} strength {change.value}", f"{CLASS_GLYPHS[change]} soft"
            charts.append(Chart(name, short, small(values[slice.now]), values, limits, inks.of(change)))
        return charts

    def _own_row(self, slice: TrendsSlice, *, with_turnover: bool) -> list[Chart]:
        trends, ink = slice.trends, self.look.inks.loss
        losses = {name: trends.losses[name] for name in LOSSES if name in trends.losses}
        accuracy = {name: trends.losses[name] for name in (ACCURACY,) if name in trends.losses}
        limits = value_range(*losses.values())
        turnover = trends.turnover or [float("nan")] * len(trends.steps)
        encoded, error, span = trends.encoded_mean, trends.matching_error_encoded, slice.interval(ENCODED)
        return [
            Chart(
                "encoded |Ω|",
                "|Ω|",
                plain(encoded[slice.now]) + span,
                encoded,
                value_range(encoded),
                ink,
            ),
            *(
                Chart(f"{shown(name)} loss", shown(name), small(values[slice.now]), values, limits, ink)
                for name, values in losses.items()
            ),
            *(
                Chart("held-out accuracy", "acc.", small(values[slice.now]), values, (0.0, 1.0), ink)
                for values in accuracy.values()
            ),
            *(
                [Chart("turnover", "turn.", plain(turnover[slice.now]), turnover, (0.0, 1.0), ink)]
                if with_turnover
                else []
            ),
            Chart("match. error", "error", small(error[slice.now]), error, value_range(error), ink),
        ]

    def _draw(self, row: list[Chart], slice: TrendsSlice, width: int, chart_height: int) -> list[Strip]:
        """The names and numbers on one line, the charts under them."""
        cell = max((width - 2 - _GAP * (len(row) - 1)) // len(row), 1)
        marks = Marks(cursor=slice.now, boundary=slice.trends.events.sparsest.index)
        without_cursor = replace(marks, cursor=None)  # on low charts the foot alone: half the bytes a step
        n_steps = len(slice.trends.steps)
        lines: list[list[Piece]] = [[(" ", Style())] for _ in range(chart_height + 1)]
        for chart in row:
            gap = (" " * _GAP, Style())
            chance = chart.chance if len(f"{chart.short} {chart.number}{chart.chance}") <= cell else ""
            name_room = max(cell - len(chart.number + chance) - 1, 0)
            name = chart.name if len(chart.name) <= name_room else chart.short
            name = fit(name, min(name_room, len(name)))
            number = f" {chart.number}{chance}".ljust(cell - len(name))
            lines[0] += [(name, chart.style), (number, self.look.inks.strong), gap]
            across = even_width(n_steps, cell)
            drawn = area(tuple(chart.values), across, chart_height, chart.limits, self.look.glyphs)
            rest = (" " * (cell - across + _GAP), Style())
            for y, (target, text) in enumerate(zip(lines[1:], drawn, strict=True)):
                here = marks if chart_height > 2 or y == chart_height - 1 else without_cursor
                target += [*marked(text, chart.style, here, n_steps, self.look.glyphs), rest]
        return [line(pieces[:-1], width) for pieces in lines]
