"""Probe: one prompt, which of its words an interaction needs, and what is left when words are taken out."""

from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.analysis.sets.one_masked_state import MaskedState, Matching, is_triggered
from sftscope.analysis.sets.set_diff import CHANGES, Ints
from sftscope.lattice.transforms import Relation
from sftscope_tui.contents.change_table import ChangeTable
from sftscope_tui.drawing.numbers import signed, small
from sftscope_tui.drawing.palette import CLASS_GLYPHS
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.panes.changes import SUPPORT, support_cell, support_head
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.prompt_words import word_pieces, wrapped
from sftscope_tui.widgets.sparkline import Marks, area, even_width, marked, signed_line, value_range

_EFFECT = 8
_MOST_PROMPT = 6  # lines
_LIFE, _TALLEST_LIFE = 3, 10  # rows of the life line's chart


@dataclass(frozen=True, eq=False)
class ProbeSlice:
    """One probe at one step. table, rows, cursor: its interactions as Changes lists them.

    masked: the words that are taken out, a subset; state: what the LLM and the logical model make of
    the rest; whole: of the whole prompt. word: the variable under the word cursor.
    """

    part: ProbeHistory
    steps: tuple[int, ...]
    now: int
    boundary: int | None
    table: ChangeTable
    rows: Ints
    cursor: int
    masked: int
    word: int
    state: MaskedState
    whole: MaskedState
    matching: Matching
    wants_support: bool = False

    @property
    def under_cursor(self) -> int | None:
        """The row of the table under the cursor."""
        return int(self.rows[min(self.cursor, self.rows.size - 1)]) if self.rows.size else None


class ProbePane(Pane[ProbeSlice]):
    """The prompt above, its logical model in the middle, the life of one interaction at the foot."""

    view = View.PROBE
    page = 1

    def content(self, slice: ProbeSlice, width: int, height: int) -> list[Strip]:
        """From top to bottom, the list taking what is left."""
        head = [self._title(slice, width), *self._prompt(slice, width, height), *self._states(slice, width)]
        row = slice.under_cursor
        spare = height - len(head) - 3 - slice.rows.size  # what the list leaves, for the life line
        tall = min(max(spare, _LIFE), _TALLEST_LIFE)
        life = [] if row is None or height - len(head) < 10 else self._life(slice, row, width, tall)
        listed = self._list(slice, width, max(height - len(life), 0), len(head))
        return [*head, *listed, *life]

    def _title(self, slice: ProbeSlice, width: int) -> Strip:
        target = shown(slice.part.target_name, 40)
        name = f": {shown(slice.part.probe.id, 40)} → {target}, at step {slice.steps[slice.now]}"
        return self.title([(name, Style())], width)

    def _prompt(self, slice: ProbeSlice, width: int, height: int) -> list[Strip]:
        probe, row = slice.part.probe, slice.under_cursor
        lit = 0 if row is None else int(slice.table.subset[row])
        look = self.look
        pieces = word_pieces(probe.text, probe.words, lit, slice.masked, slice.word, look.inks, look.glyphs)
        most = max(min(_MOST_PROMPT, height // 4), 1)
        return [line([("  ", Style()), *pieces], width) for pieces in wrapped(pieces, width - 4, most)]

    def _states(self, slice: ProbeSlice, width: int) -> list[Strip]:
        """v and h of the masked state; the whole and the empty prompt and the matching error."""
        inks, state, n = self.look.inks, slice.state, slice.part.n_variables
        kept = n - slice.masked.bit_count()
        known: list[Piece] = [
            (f"{kept} of {n} words in  ", inks.strong),
            ("v ", inks.muted),
            (f"{signed(state.score)} ", inks.strong),
            (f"(p {small(state.probability)})  ", inks.muted),
            ("h ", inks.muted),
            (f"{signed(state.model)}  ", inks.strong),
            ("h of Ω ", inks.muted),
            (f"{signed(state.model_encoded)}  ", inks.strong),
            (f"|h−v| {small(abs(state.model - state.score))}, ζ {small(state.zeta)}", inks.muted),
        ]
        both = slice.matching
        context = (
            f"all words v {signed(slice.whole.score)}, none b {signed(float(slice.part.bias[slice.now]))}; "
            f"matching error {small(both.all)}, of Ω {small(both.encoded)} (|Ω| {both.n_encoded})"
        )
        lines = [*wrapped(known, width - 1, 2), *wrapped([(context, inks.muted)], width - 1, 2)]
        if influence := slice.part.probe.influence:
            style = inks.muted if influence.is_enough else inks.strong
            mark = "" if influence.is_enough else "! "
            lines += wrapped([(f"{mark}{slice.part.probe.influence_in_words}", style)], width - 1, 2)
        return [line([(" ", inks.plain), *pieces], width) for pieces in lines]

    def _list(self, slice: ProbeSlice, width: int, bottom: int, top: int) -> list[Strip]:
        height = bottom - top
        if height < 2:
            return []
        self.page = height - 1
        drawn = max(width // 5, 8) if width >= 60 else 0
        support = SUPPORT if slice.table.replicates or slice.wants_support else 0
        words = max(width - 12 - support - _EFFECT * 2 - drawn - 4, 6)
        heads = "   rel ord " + fit("logical model", words)
        heads += fit(support_head(slice.table), support, right=True) if support else ""
        heads += fit("effect", _EFFECT, right=True)
        heads += fit("in x_T", _EFFECT, right=True) + ("  over the steps" if drawn else "")
        visible = self.rows_in(slice.rows.size, slice.cursor, height - 1, top + 1)
        strips = [line([(heads, self.look.inks.muted)], width)]
        strips += [self._row(slice, position, words, support, drawn, width) for position in visible]
        if not slice.rows.size:
            strips.append(line([("   no interaction of this probe is listed; / changes the filter", Style())], width))
        return strips

    def _row(self, slice: ProbeSlice, position: int, words: int, support: int, drawn: int, width: int) -> Strip:
        table, row = slice.table, int(slice.rows[position])
        change, relation = CHANGES[int(table.change[row])], Relation(int(table.relation[row]))
        style, now = self.look.inks.of(change), float(table.effect_now[row])
        present = ((1 << slice.part.n_variables) - 1) & ~slice.masked
        on = is_triggered(relation, int(table.subset[row]), present)
        contribution: Piece = (fit(signed(now) if on else "out", _EFFECT, right=True), style if on else Style(dim=True))
        pieces: list[Piece] = [
            (f" {CLASS_GLYPHS[change]} ", style + Style(bold=True)),
            (f"{relation.name:<3} {int(table.order[row]):>2}  ", Style()),
            (fit(" · ".join(table.words(row)), words), Style() if on else Style(dim=True)),
            (support_cell(table, row, support, pending=slice.wants_support), self.look.inks.muted),
            (fit(signed(now), _EFFECT, right=True), style),
            contribution,
        ]
        if drawn:
            pieces.append(("  " + signed_line(table.series(row), drawn, self.look.glyphs), style))
        return line(pieces, width, Style(reverse=True) if position == slice.cursor else None)

    def _life(self, slice: ProbeSlice, row: int, width: int, tall: int) -> list[Strip]:
        """The effect of one interaction over all steps, on its own scale."""
        table, series = slice.table, slice.table.series(row)
        change = CHANGES[int(table.change[row])]
        style = self.look.inks.of(change)
        limits = value_range(series.tolist())
        name = f" life line {Relation(int(table.relation[row])).name} {' · '.join(table.words(row))}"
        name += ", sign flipped" if table.flips(row) else ""
        span = f"  from {signed(float(series.min()))} to {signed(float(series.max()))}"
        across = even_width(len(slice.steps), max(width - 3, 1))
        marks = Marks(cursor=slice.now, boundary=slice.boundary)
        rows = area(tuple(series.tolist()), across, tall, limits, self.look.glyphs)
        title = line([(name, style + Style(bold=True)), (span, self.look.inks.muted)], width)
        ends = fit(str(slice.steps[0]), max(across - len(str(slice.steps[-1])), 1)) + str(slice.steps[-1])
        chart = [[(" ", Style()), *marked(text, style, marks, len(slice.steps), self.look.glyphs)] for text in rows]
        return [title, *(line(pieces, width) for pieces in chart), line([(" " + ends, self.look.inks.muted)], width)]
