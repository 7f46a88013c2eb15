"""Compare: the sets of a second run next to those of this one, at linked steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from sftscope.analysis.comparison.run_pairs import SIDES, RunDiff, Side
from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.analysis.sets.evolution import Change
from sftscope.lattice.transforms import Relation
from sftscope_tui.drawing.numbers import plain, signed
from sftscope_tui.drawing.palette import CLASS_GLYPHS, Inks
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.panes.pane import Pane
from sftscope_tui.state.view_state import View
from sftscope_tui.widgets.lines import Piece, fit, line
from sftscope_tui.widgets.sparkline import Marks, area, even_width, marked

_EFFECT = 8
_WITH_CHANCE = 118  # columns from which on ρ has its value by chance next to it
_GLYPHS = {Side.HERE: "<", Side.BOTH: "=", Side.THERE: ">"}
NO_SECOND_RUN = "no second run yet: press 7 for the runs, then space to compare with one"
NOTHING_SHARED = "the two runs share no probe: a comparison needs the same prompts and words"


@dataclass(frozen=True, eq=False)
class CompareSlice:
    """Two runs at their steps; diff is None where there is nothing to compare yet, and `why` says so.

    jaccard: over all steps of this run, None while it is computed. shared: number of probes both have.
    shares: ρ of each class at this step and by chance, empty where there is none (yet), for the second
    run at its last_step.
    """

    other: str
    why: str = ""
    diff: RunDiff | None = None
    jaccard: Sequence[float] | None = None
    probes: Sequence[ProbeHistory] = ()
    shared: int = 0
    linked: bool = True
    now: int = 0
    cursor: int = 0
    shares: Sequence[tuple[Change, float, float]] = ()
    last_step: int = 0


class ComparePane(Pane[CompareSlice]):
    """Counts, likeness over the steps, and the interactions, strongest first."""

    view = View.COMPARE
    page = 1

    def content(self, slice: CompareSlice, width: int, height: int) -> list[Strip]:
        """From top to bottom."""
        inks, diff = self.look.inks, slice.diff
        if diff is None:
            return [self.title([], width), line([], width), line([(f"  {slice.why}", inks.plain)], width)]
        how = "linked" if slice.linked else "held; x links"
        title: list[Piece] = [(f": step {diff.step}", Style()), (" and ", inks.muted), (slice.other, inks.strong)]
        title.append((f" at step {diff.other_step} ({how})", inks.muted))
        counts: list[Piece] = [(" ", Style())]
        for side, count in diff.counts.items():
            counts.append((f"{_GLYPHS[side]} {count} {side.value}   ", _ink(side, inks)))
        probes = f"{slice.shared} shared probes"
        alike = f" Jaccard {plain(diff.jaccard)}   same sign {plain(diff.same_sign)} of both   {probes}"
        head = [self.title(title, width), line(counts, width), line([(alike, inks.strong)], width)]
        head += [self._shares(slice, width)] if height >= 10 else []
        head += self._curve(slice, width) if height >= 14 else []
        return [*head, *self._list(slice, diff, width, height, len(head))]

    def _shares(self, slice: CompareSlice, width: int) -> Strip:
        inks = self.look.inks
        pieces: list[Piece] = [(" ρ" if slice.shares else " ρ –", inks.strong)]
        for change, share, by_chance in slice.shares:
            pieces.append((f"  {CLASS_GLYPHS[change]} {plain(share)}", inks.of(change)))
            pieces.append((f" (chance {plain(by_chance)})" if width >= _WITH_CHANCE else "", inks.muted))
        if slice.shares:
            pieces.append((f"   encoded there too at its last step {slice.last_step}, same sign", inks.muted))
        return line(pieces, width)

    def _curve(self, slice: CompareSlice, width: int) -> list[Strip]:
        inks = self.look.inks
        if slice.jaccard is None:
            return [line([(" Jaccard over the steps: computing …", inks.muted)], width)]
        across = even_width(len(slice.jaccard), max(width - 3, 1))
        rows = area(tuple(slice.jaccard), across, 2, (0.0, 1.0), self.look.glyphs)
        drawn = [marked(row, inks.preserved, Marks(slice.now), len(slice.jaccard), self.look.glyphs) for row in rows]
        title = line([(" Jaccard over the steps, from 0 to 1", inks.muted)], width)
        return [title, *(line([(" ", Style()), *pieces], width) for pieces in drawn)]

    def _list(self, slice: CompareSlice, diff: RunDiff, width: int, bottom: int, top: int) -> list[Strip]:
        height = bottom - top
        if height < 2:
            return []
        self.page = height - 1
        probe = 11 if width >= 60 else 0
        words = max(width - 12 - probe - 2 * _EFFECT, 6)
        heads = "   rel ord " + fit("probe", probe) + fit("words, by strength", words)
        heads += fit("here", _EFFECT, right=True) + fit("there", _EFFECT, right=True)
        visible = self.rows_in(diff.side.size, slice.cursor, height - 1, top + 1)
        strips = [line([(heads, self.look.inks.muted)], width)]
        for row in visible:
            side, part = SIDES[int(diff.side[row])], slice.probes[int(diff.probe[row])]
            subset, ink = int(diff.subset[row]), _ink(side, self.look.inks)
            pieces: list[Piece] = [
                (f" {_GLYPHS[side]} ", ink + Style(bold=True)),
                (f"{Relation(int(diff.relation[row])).name:<3} {subset.bit_count():>2}  ", Style()),
                (fit(shown(part.probe.id), probe - 1) + " " if probe else "", self.look.inks.muted),
                (fit(" · ".join(map(shown, part.words_of(subset))), words), Style()),
                (fit(signed(float(diff.effect[row])), _EFFECT, right=True), ink),
                (fit(signed(float(diff.other_effect[row])), _EFFECT, right=True), ink),
            ]
            strips.append(line(pieces, width, Style(reverse=True) if row == slice.cursor else None))
        return strips


def _ink(side: Side, inks: Inks) -> Style:
    return {Side.HERE: inks.emerged, Side.BOTH: inks.preserved, Side.THERE: inks.overfitting}[side]
