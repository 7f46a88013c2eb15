"""The one-line bars around the panes: who and where, the views and losses, what is wrong, the keys."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from sftscope_tui.drawing.palette import ON_DARK, Inks
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Lines, Piece, ends, line


class Bar(Lines):
    """One line: a left part that may be cut, a right part that may not."""

    left: Sequence[Piece] = ()
    right: Sequence[Piece] = ()

    def show(self, left: Sequence[Piece], right: Sequence[Piece] = ()) -> None:
        """Draw the two parts."""
        self.left, self.right = left, right
        self.redraw()

    def lay_out(self, width: int, height: int) -> list[Strip]:
        """The line."""
        return [ends(self.left, self.right, width)]


def header_parts(
    run: str, model: str, place: str, probe: str, rule: str, inks: Inks = ON_DARK
) -> tuple[list[Piece], list[Piece]]:
    """Run and model on the left; step, probe and threshold on the right."""
    left: list[Piece] = [(" sftscope ", inks.strong), (f" {run}", Style())]
    if model:
        left.append((f" · {model}", inks.muted))
    right = [(f" {place}", inks.strong), (f"  {probe}", Style()), (f"  τ {rule} ", inks.muted)]
    return left, right


def tab_parts(
    view: View, losses: Sequence[tuple[str, str]], width: int, inks: Inks = ON_DARK
) -> tuple[list[Piece], list[Piece]]:
    """The views, the chosen one in reverse video; losses and accuracy of the present step."""
    left: list[Piece] = []
    for each in View:
        style = inks.cursor + Style(bold=True) if each is view else Style()
        left.append((_tab(each), style))
    right: list[Piece] = []
    room = width - sum(cell_len(text) for text, _ in left)
    for name, number in losses:  # as many as there is room for
        pieces = [(f"{name} ", inks.muted), (f"{number} ", inks.strong)]
        room -= sum(cell_len(text) for text, _ in pieces)
        right += pieces if room >= 0 else []
    return left, right


def _tab(view: View) -> str:
    return f" {view.number} {view.value} "


def tab_at(x: int) -> View | None:
    """The view whose tab lies at the cell `x`."""
    end = 0
    for view in View:
        end += cell_len(_tab(view))
        if x < end:
            return view
    return None


class FooterBar(Lines):
    """The keys, as many as fit, help and quit always; or a note in their place."""

    items: Sequence[tuple[str, str]] = ()
    note = ""
    inks: Inks = ON_DARK

    def show(self, items: Sequence[tuple[str, str]], inks: Inks, note: str = "") -> None:
        """Draw the keys, or `note`."""
        self.items, self.inks, self.note = items, inks, note
        self.redraw()

    def lay_out(self, width: int, height: int) -> list[Strip]:
        """The line."""
        if self.note:
            return [line([(f" {self.note}", self.inks.emerged)], width)]
        items, kept = list(self.items), list[tuple[str, str]]()
        sizes = [cell_len(key) + cell_len(word) + 3 for key, word in items]
        last = 2 if len(items) > 2 else 0  # help and quit
        room = width - 1 - sum(sizes[len(items) - last :])
        for item, size in zip(items[: len(items) - last], sizes, strict=False):
            if size > room:
                break
            kept.append(item)
            room -= size
        pieces: list[Piece] = [(" ", Style())]
        for key, word in [*kept, *items[len(items) - last :]]:
            pieces += [(key, self.inks.strong), (f" {word}  ", self.inks.muted)]
        return [line(pieces, width)]
