"""Runs: the runs next to this one, each with its headline."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.prompt_words import wrapped


@dataclass(frozen=True)
class RunLine:
    """One run; all texts are safe to draw. headline: None while it is read. error: whether it is a failure."""

    name: str
    where: str
    is_open: bool
    is_compared: bool
    headline: str | None = None
    error: bool = False


@dataclass(frozen=True)
class RunsSlice:
    """The runs that were found, and the cursor."""

    runs: Sequence[RunLine]
    cursor: int


class RunsPane(Pane[RunsSlice]):
    """A row a run; the one under the cursor with its headline in full at the foot."""

    view = View.RUNS
    page = 1

    def content(self, slice: RunsSlice, width: int, height: int) -> list[Strip]:
        """Title, rows, the headline of the chosen one."""
        inks = self.look.inks
        title = self.title([(f": {len(slice.runs)} found", inks.plain)], width)
        keys = line([(" enter opens, space compares with it;  * open  x compared with", inks.muted)], width)
        self.page = max(height - 7, 1)
        visible = self.rows_in(len(slice.runs), slice.cursor, self.page, 2)
        name = min(max((cell_len(run.name) for run in slice.runs), default=8), max(width // 3, 10))
        strips = [title, keys, *(self._row(slice, position, name, width) for position in visible)]
        if slice.runs:
            chosen = slice.runs[slice.cursor]
            strips += [line([], width), line([(f"  {chosen.where}", inks.muted)], width)]
            text = chosen.headline or "reading …"
            ink = inks.error if chosen.error else inks.plain
            strips += [line([("  ", ink), *pieces], width) for pieces in wrapped([(text, ink)], width - 3, 3)]
        return strips

    def _row(self, slice: RunsSlice, position: int, name: int, width: int) -> Strip:
        run, inks = slice.runs[position], self.look.inks
        mark = "*" if run.is_open else "x" if run.is_compared else " "
        headline: Piece = (run.headline or "reading …", inks.error if run.error else inks.muted)
        pieces: list[Piece] = [(f" {mark} ", inks.strong), (fit(run.name, name) + "  ", inks.strong), headline]
        return line(pieces, width, Style(reverse=True) if position == slice.cursor else None)
