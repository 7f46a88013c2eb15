"""A widget that is a list of lines, and repaints only the cells of them that changed.

Every pane and bar of the explorer is one: a pure function of its size and what it was last given.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[str, Style]
_WORTH_A_MOVE = 6  # unchanged cells that cost less to send again than a cursor move and a style


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells: padded, or cut with an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, max(width - 1, 0)) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def line(pieces: Iterable[Piece], width: int, base: Style | None = None) -> Strip:
    """The pieces as a strip of exactly `width` cells over the style `base`; an ellipsis where it is cut."""
    segments = [Segment(text, base + style if base else style) for text, style in pieces if text]
    strip = Strip(segments)
    if strip.cell_length > width > 0:
        return Strip([*strip.crop(0, width - 1), Segment("…", base)], width)
    return strip.adjust_cell_length(width, base)


def ends(left: Sequence[Piece], right: Sequence[Piece], width: int) -> Strip:
    """A line with a left part, which is cut where room is short, and a right part at the edge."""
    room = max(width - sum(cell_len(text) for text, _ in right), 0)
    return Strip.join([line(left, room), line(right, width - room)])


def changed_spans(old: Strip, new: Strip) -> list[tuple[int, int]]:
    """(x, width) of the cells of `new` that differ from `old`, neighbours taken together.

    A wide character is never cut.
    """
    before, after = _cells(old), _cells(new)
    spans: list[tuple[int, int]] = []
    for x, (was, cell) in enumerate(zip_longest(before, after)):
        if was == cell:
            continue
        start, stop = x, x + 1
        while start > 0 and start < len(after) and after[start] is None:
            start -= 1
        while stop < len(after) and after[stop] is None:
            stop += 1
        if spans and start - sum(spans[-1]) <= _WORTH_A_MOVE:
            start = spans.pop()[0]
        spans.append((start, stop - start))
    return spans


def _cells(strip: Strip) -> list[tuple[str, Style | None] | None]:
    """The strip cell by cell; None for the second cell of a wide character."""
    cells: list[tuple[str, Style | None] | None] = []
    for text, style, _ in strip:
        if text.isascii():
            cells += [(character, style) for character in text]
            continue
        for character in text:
            width = cell_len(character)
            if width:
                cells += [(character, style), *[None] * (width - 1)]
            elif cells:  # a combining mark belongs to the cell before it
                last = next(at for at in range(len(cells) - 1, -1, -1) if cells[at] is not None)
                kept = cells[last]
                assert kept is not None
                cells[last] = (kept[0] + character, kept[1])
    return cells


class Lines(Widget):
    """Lines of text that a subclass lays out for the present size."""

    can_focus = False

    class Clicked(Message):
        """A click on a cell of a widget."""

        def __init__(self, widget: "Lines", x: int, y: int) -> None:
            super().__init__()
            self.widget, self.x, self.y = widget, x, y

    class Wheeled(Message):
        """A turn of the wheel over a widget, 1 down or -1 up."""

        def __init__(self, widget: "Lines", by: int) -> None:
            super().__init__()
            self.widget, self.by = widget, by

    ALLOW_SELECT: ClassVar[bool] = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: list[Strip] = []

    def lay_out(self, width: int, height: int) -> Sequence[Strip]:
        """The lines, at most `height`, each `width` cells wide."""
        raise NotImplementedError  # every subclass has its own; Textual's metaclass leaves no room for ABCMeta

    def redraw(self) -> None:
        """Lay out again and repaint the cells that differ."""
        width, height = self.size
        if not width or not height:
            return
        old, self._strips = self._strips, self._laid_out(width, height)
        if len(old) != height or not old or old[0].cell_length != width:
            self.refresh()
            return
        regions = [
            Region(x, y, length, 1)
            for y, (before, after) in enumerate(zip(old, self._strips, strict=True))
            if before != after
            for x, length in changed_spans(before, after)
        ]
        if regions:
            self.refresh(*regions)

    def on_resize(self, event: Resize) -> None:
        """A new size is a new layout."""
        self.redraw()

    def on_click(self, event: Click) -> None:
        """Tell where, counted from the first cell of the content."""
        if (at := event.get_content_offset(self)) is not None:
            self.post_message(self.Clicked(self, at.x, at.y))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """The wheel, towards the user."""
        event.stop()
        self.post_message(self.Wheeled(self, 1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """The wheel, away."""
        event.stop()
        self.post_message(self.Wheeled(self, -1))

    def render_line(self, y: int) -> Strip:
        """Line `y`, over the widget's own colours."""
        strip = self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)
        return strip.apply_style(self.rich_style)

    @property
    def text(self) -> str:
        """The lines as plain text."""
        return "\n".join(strip.text.rstrip() for strip in self._strips)

    def _laid_out(self, width: int, height: int) -> list[Strip]:
        strips = list(self.lay_out(width, height))[:height]
        return strips + [Strip.blank(width)] * (height - len(strips))
