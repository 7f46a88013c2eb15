"""What the panes share: a slice of the state in, lines out, a title that tells which pane has the focus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.style import Style
from textual.strip import Strip

from sftscope_tui.drawing.palette import ON_DARK, Glyphs, Inks
from sftscope_tui.state.view_state import Sort, View
from sftscope_tui.widgets.lines import Lines, Piece, line
from sftscope_tui.widgets.virtual_table import window

Slice = TypeVar("Slice")


@dataclass(frozen=True)
class Look:
    """How a pane is drawn, whatever it shows."""

    inks: Inks = ON_DARK
    glyphs: Glyphs = Glyphs.BRAILLE
    focused: bool = True


class Pane(Lines, Generic[Slice]):
    """A pane that draws a slice, or says what it waits for."""

    view: View
    slice: Slice | None = None
    look = Look()
    _top = 0  # the first visible row of a pane that lists rows
    _rows = range(0)  # those that are visible
    _first_line = 0  # where the first of them lies

    def show(self, slice: Slice | None, look: Look) -> None:
        """Draw `slice`."""
        self.slice, self.look = slice, look
        self.redraw()

    def lay_out(self, width: int, height: int) -> Sequence[Strip]:
        """The title and the content."""
        if self.slice is None:
            return [self.title([(": computing …", self.look.inks.muted)], width)]
        return self.content(self.slice, width, height)

    def content(self, slice: Slice, width: int, height: int) -> Sequence[Strip]:
        """The lines of the pane, the title first."""
        raise NotImplementedError  # every pane has its own; Textual's metaclass leaves no room for ABCMeta

    def rows_in(self, n_rows: int, cursor: int, height: int, first_line: int) -> range:
        """The rows that fit into `height` lines from the line `first_line` on; remembered for the mouse."""
        self._rows, self._first_line = window(n_rows, cursor, height, self._top), first_line
        self._top = self._rows.start
        return self._rows

    @property
    def lists_rows(self) -> bool:
        """Whether there is a row for a cursor."""
        return bool(self._rows)

    def row_at(self, y: int) -> int | None:
        """The row that lies on the line `y`."""
        at = y - self._first_line
        return self._rows[at] if 0 <= at < len(self._rows) else None

    def sort_at(self, x: int, y: int) -> Sort | None:
        """What a click there asks the rows to be ordered by: the head of a column."""
        return None

    def title(self, rest: Sequence[Piece], width: int) -> Strip:
        """The pane's number and name, then `rest`."""
        name = Style(bold=True, underline=self.look.focused)
        number = f"{self.view.number} {self.view.value}"
        return line([(" ", Style()), (number, name), *rest], width)
