"""The set difference that the explorer lists: `sftscope.analysis.sets.set_diff`, sorted and filtered.

A row is made into text only where it is visible. Sorting and filtering are passes over the columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.set_diff import CHANGES, Ints, SetDiff, set_diff
from sftscope.analysis.sets.views import Selection
from sftscope.analysis.trust.noise_support import COPIES
from sftscope.foundation.safe_text import whole_number
from sftscope.lattice.transforms import Relation
from sftscope_tui.drawing.safe_lines import shown
from sftscope_tui.state.view_state import Sort

Identity = tuple[int, int, int]  # probe, relation, subset


class ChangeTable(SetDiff):
    """The set difference with what the explorer asks of a row."""

    def words(self, row: int) -> tuple[str, ...]:
        """The words of a row, safe to draw."""
        words = self.probes[int(self.probe[row])].words_of(int(self.subset[row]))
        return tuple(shown(word) for word in words)

    def identity(self, row: int) -> Identity:
        """What makes a row the same interaction at another step."""
        return int(self.probe[row]), int(self.relation[row]), int(self.subset[row])

    def flips(self, row: int) -> bool:
        """Whether a row is preserved with the other sign."""
        kept = CHANGES[int(self.change[row])] is Change.PRESERVED
        return kept and float(self.effect_base[row]) * float(self.effect_now[row]) < 0

    def agreeing(self, row: int) -> int:
        """How many could agree on the class of a row: replicates of an estimate, else noisy copies."""
        return self.replicates if self.probes[int(self.probe[row])].is_estimated else COPIES

    def find(self, identity: Identity) -> int | None:
        """The row of an interaction, None where it is in none of the classes."""
        probe, relation, subset = identity
        same = (self.probe == probe) & (self.relation == relation) & (self.subset == subset)
        found = np.flatnonzero(same)
        return int(found[0]) if found.size else None


def build_table(evolution: Evolution, selection: Selection) -> ChangeTable:
    """The set difference of `selection`, in no particular order."""
    diff = set_diff(
        evolution, selection.probes_of(evolution), selection.now, selection.base, trajectory=selection.trajectory
    )
    return ChangeTable(**vars(diff))


def arrange(table: ChangeTable, sort: Sort, filter_text: str) -> Ints:
    """The rows that match `filter_text`, in the order `sort`: indices into the table.

    Within equal keys the stronger interaction is first, then by probe id, relation and subset, as in
    `views.changes`.
    """
    kept = np.flatnonzero(_matches(table, filter_text))
    ids = sorted(range(len(table.probes)), key=lambda p: table.probes[p].probe.id)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[ids] = np.arange(len(ids))
    base, now = table.effect_base[kept], table.effect_now[kept]
    ties = (table.subset[kept], table.relation[kept], rank[table.probe[kept]])
    strength = -np.maximum(np.abs(base), np.abs(now))
    leading: dict[Sort, tuple[NDArray[Any], ...]] = {
        Sort.STRENGTH: (),
        Sort.NOW: (-np.abs(now),),
        Sort.ORDER: (table.order[kept],),
        Sort.DELTA: (-np.abs(now - base),),
        Sort.CLASS: (table.change[kept],),
        Sort.RELATION: (table.relation[kept],),
        Sort.WORDS: (table.subset[kept], rank[table.probe[kept]]),
    }
    return kept[np.lexsort((*ties, strength, *leading[sort]))]


def _matches(table: ChangeTable, filter_text: str) -> NDArray[np.bool_]:
    """Rows for which every term of the filter holds; a term after `!` must not hold."""
    kept = np.ones(table.subset.size, dtype=bool)
    for term in filter_text.split():
        kept &= ~_term_matches(table, term[1:]) if len(term) > 1 and term[0] == "!" else _term_matches(table, term)
    return kept


def _term_matches(table: ChangeTable, term: str) -> NDArray[np.bool_]:
    glyphs = {"−": Change.REMOVED, "-": Change.REMOVED, "=": Change.PRESERVED, "+": Change.EMERGED}
    if term in glyphs:
        return table.change == CHANGES.index(glyphs[term])
    if term in Relation.__members__:
        return table.relation == Relation[term]
    if term in (">0", "<0"):
        standing = np.where(table.change == CHANGES.index(Change.REMOVED), table.effect_base, table.effect_now)
        return standing > 0 if term == ">0" else standing < 0
    if term in ("sign:flipped", "sign:same"):  # of what is preserved
        kept = table.change == CHANGES.index(Change.PRESERVED)
        return table.flipped if term == "sign:flipped" else kept & ~table.flipped
    name, _, value = term.partition(":")
    low, _, high = value.partition("-")
    least, most = whole_number(low), whole_number(high or low)
    if name in ("order", "rep") and least is not None and most is not None:
        column = table.order if name == "order" else table.support
        return (column >= least) & (column <= most)
    if name == "probe" and value:
        named = [value.casefold() in shown(part.probe.id).casefold() for part in table.probes]
        return np.array(named, dtype=bool)[table.probe]
    return _has_word(table, term.casefold())


def _has_word(table: ChangeTable, text: str) -> NDArray[np.bool_]:
    """Rows of which at least one word contains `text`: one bit mask a probe, then one pass over the rows."""
    masks = np.array(
        [
            sum(1 << i for i, word in enumerate(part.probe.variables) if text in shown(word).casefold())
            for part in table.probes
        ],
        dtype=np.uint64,
    )
    return (table.subset & masks[table.probe]) != 0
