"""What the panes share: a slice of the state in, lines out, a title that tells which pane has the focus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.style import Style
from textual.strip import Strip

from tui.palette import ON_DARK, Glyphs, Inks
from tui.state import View
from tui.widgets.lines import Lines, Piece, line

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

    def title(self, rest: Sequence[Piece], width: int) -> Strip:
        """The pane's number and name, then `rest`."""
        name = Style(bold=True, underline=self.look.focused)
        number = f"{self.view.number} {self.view.value}"
        return line([(" ", Style()), (number, name), *rest], width)
