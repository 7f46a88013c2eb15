"""Changes: the set diff between the base step and the present one, one interaction a row."""

from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.sets.evolution import CLASS_WORDS, Change
from sftscope.analysis.sets.set_diff import CHANGES, Ints
from sftscope.analysis.trust.noise_support import COPIES
from sftscope.lattice.transforms import Relation
from sftscope_tui.contents.change_table import ChangeTable
from sftscope_tui.drawing.numbers import signed
from sftscope_tui.drawing.palette import CLASS_GLYPHS, FLIPPED
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import Sort, View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.sparkline import signed_line

_EFFECT = 7
SUPPORT = 6  # cells
_DELTA_FROM = 96  # columns of the pane from which Δ has its own column


@dataclass(frozen=True, eq=False)
class ChangesSlice:
    """The table, which of its rows are listed, and the cursor. all_probes: whether rows name their probe.

    wants_support: of noisy copies, where the rows are no estimates.
    """

    table: ChangeTable
    rows: Ints
    cursor: int
    sort: Sort
    filter: str
    all_probes: bool
    wants_support: bool = False


class ChangesPane(Pane[ChangesSlice]):
    """A table of which only the visible rows are made."""

    view = View.CHANGES
    _columns: "_Columns | None" = None

    @property
    def page(self) -> int:
        """Number of rows that are visible at once."""
        return max(self.size.height - 2, 1)

    def sort_at(self, x: int, y: int) -> Sort | None:
        """By the column whose head lies there; the effect at the base and the curve mean strength."""
        if y != 1 or self._columns is None:
            return None
        columns = self._columns
        ends: list[tuple[int, Sort]] = []
        for width, sort in (
            (3, Sort.CLASS),
            (4, Sort.RELATION),
            (4, Sort.ORDER),
            (columns.probe + 1 if columns.probe else 0, Sort.WORDS),
            (columns.words, Sort.WORDS),
            (columns.support, Sort.STRENGTH),
            (_EFFECT, Sort.STRENGTH),
            (_EFFECT, Sort.NOW),
            (columns.delta, Sort.DELTA),
        ):
            ends.append(((ends[-1][0] if ends else 0) + width, sort))
        return next((sort for end, sort in ends if x < end), Sort.STRENGTH)

    def content(self, slice: ChangesSlice, width: int, height: int) -> list[Strip]:
        """Title, heads, rows."""
        self._columns = columns = _Columns.for_width(width, slice)
        visible = self.rows_in(slice.rows.size, slice.cursor, max(height - 2, 0), 2)
        strips = [self._counts(slice, width), line(self._heads(slice, columns), width)]
        strips += [self._row(slice, position, columns, width) for position in visible]
        if not slice.rows.size:
            why = "no row matches the filter; / changes it" if slice.filter else "no interaction in any class"
            strips.append(line([(f"   {why}", self.look.inks.muted)], width))
        return strips

    def _counts(self, slice: ChangesSlice, width: int) -> Strip:
        rest: list[Piece] = [(f": step {slice.table.base_step} → {slice.table.step}", Style())]
        short, wordy = width < 76, width >= 92
        for change, count in slice.table.counts.items():
            word = "" if short else f" {CLASS_WORDS[change]}"
            rest.append((f"  {CLASS_GLYPHS[change]} {count}{word}", self.look.inks.of(change)))
            if change is Change.PRESERVED and (flipped := int(slice.table.flipped.sum())):
                rest.append((f" ({flipped} {'sign flipped' if wordy else FLIPPED})", Style()))
        return self.title(rest, width)

    def _heads(self, slice: ChangesSlice, columns: "_Columns") -> list[Piece]:
        listed = f"words, by {slice.sort.value}"
        if slice.filter:
            listed = f"{slice.rows.size} of {slice.table.subset.size} with {slice.filter!r}, by {slice.sort.value}"
        heads = "   rel ord " + (fit("probe", columns.probe) + " " if columns.probe else "")
        heads += fit(shown(listed), columns.words)
        heads += fit(support_head(slice.table), columns.support, right=True) if columns.support else ""
        for step in (slice.table.base_step, slice.table.step):
            named = f"at {step}"
            heads += fit(named if len(named) < _EFFECT else str(step), _EFFECT, right=True)
        heads += fit("Δ", _EFFECT, right=True) if columns.delta else ""
        heads += "  over the steps" if columns.line else ""
        return [(heads, self.look.inks.muted)]

    def _row(self, slice: ChangesSlice, position: int, columns: "_Columns", width: int) -> Strip:
        table, row = slice.table, int(slice.rows[position])
        change = CHANGES[int(table.change[row])]
        style = self.look.inks.of(change)
        relation = Relation(int(table.relation[row])).name
        before, now = float(table.effect_base[row]), float(table.effect_now[row])
        pieces: list[Piece] = [
            (f" {CLASS_GLYPHS[change]}{FLIPPED if slice.table.flips(row) else ' '}", style + Style(bold=True)),
            (f"{relation:<3} {int(table.order[row]):>2}  ", Style()),
        ]
        if columns.probe:
            name = shown(table.probes[int(table.probe[row])].probe.id)
            pieces.append((fit(name, columns.probe) + " ", self.look.inks.muted))
        pieces += [
            (fit(" · ".join(table.words(row)), columns.words), Style()),
            (support_cell(table, row, columns.support, pending=slice.wants_support), self.look.inks.muted),
            (fit(signed(before), _EFFECT, right=True), self.look.inks.muted),
            (fit(signed(now), _EFFECT, right=True), style),
        ]
        if columns.delta:
            pieces.append((fit(signed(now - before), _EFFECT, right=True), Style()))
        pieces.append(("  " + signed_line(table.series(row), columns.line, self.look.glyphs), style))
        base = Style(reverse=True) if position == slice.cursor else None
        return line(pieces, width, base)


def support_head(table: ChangeTable) -> str:
    """How many replicates, or noisy copies, could agree; of a run with both each row says it."""
    kinds = {part.is_estimated for part in table.probes}
    return "agree" if len(kinds) > 1 else f"of {table.agreeing(0) if table.support.size else COPIES}"


def support_cell(table: ChangeTable, row: int, width: int, *, pending: bool) -> str:
    """How many replicates, or noisy copies, have the row in its class; … while it is computed."""
    if not width:
        return ""
    count, part = int(table.support[row]), table.probes[int(table.probe[row])]
    if count < 0:
        return fit("…" if pending and not part.is_estimated else "", width, right=True)
    mixed = len({each.is_estimated for each in table.probes}) > 1
    return fit(f"{count}/{table.agreeing(row)}" if mixed else str(count), width, right=True)


@dataclass(frozen=True)
class _Columns:
    """Widths of the columns that vary; 0 where a column is left out."""

    probe: int
    words: int
    support: int
    delta: int
    line: int

    @classmethod
    def for_width(cls, width: int, slice: ChangesSlice) -> "_Columns":
        probe = 0
        if slice.all_probes:
            probe = min(max([5, *(cell_len(shown(part.probe.id)) for part in slice.table.probes[:200])]), 10)
        delta = _EFFECT if width >= _DELTA_FROM else 0
        drawn = min(max(width // 5, 8), 32) if width >= 76 else 8
        support = SUPPORT if slice.table.replicates or slice.wants_support else 0
        words = width - 11 - (probe + 1 if probe else 0) - support - 2 * _EFFECT - delta - drawn - 3
        if words < 10:
            words, drawn = words + drawn + 2, 0
        return cls(probe, max(words, 0), support, delta, drawn)
