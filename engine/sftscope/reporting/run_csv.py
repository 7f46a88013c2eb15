"""A run as tidy CSV: one row an interaction that is encoded at a step, columns ready for any data frame."""

from collections.abc import Sequence

import numpy as np

from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.analysis.sets.evolution import Change, Encoded, Evolution, Sets, partition
from sftscope.analysis.shapley import banzhaf_values, shapley_values
from sftscope.foundation.safe_text import csv_text
from sftscope.lattice.transforms import Floats, Relation

Row = tuple[str | int | float, ...]
HEADER = ("run", "probe", "step", "relation", "subset", "order", "words", "effect", "tau", "change", "sign")


def as_csv(evolution: Evolution, *, base: int = 0) -> str:
    """All preserved and emerged interactions by probe, step, relation and subset; effect and τ in log-odds.

    change: preserved or emerged against the base step; with hysteresis, what is preserved may be below τ. sign: of
    what is preserved, same or flipped. What is removed at a step is what the base step encodes and that step has not.
    Words are joined by a space; a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    rows: list[Row] = [HEADER]
    history = evolution.history
    for p, part in enumerate(history.probes):
        table, steps, at_base = part.table, part.table.step, part.table.at(base).ravel()
        preserved, emerged = _classes(evolution, p, base)
        for pair in np.flatnonzero(preserved | emerged).tolist():
            column, now = int(table.column[pair]), int(steps[pair])
            relation, place = divmod(column, table.subsets.size)
            subset = int(table.subsets[place])
            rows.append(
                (
                    history.name,
                    part.probe.id,
                    int(history.steps[now]),
                    Relation(relation).name,
                    subset,
                    subset.bit_count(),
                    " ".join(part.words_of(subset)),
                    float(table.effect[pair]),
                    float(evolution.tau[p][now]),
                    "preserved" if preserved[pair] else "emerged",
                    _sign(at_base[column], table.effect[pair]) if preserved[pair] else "",
                )
            )
    return csv_text(rows)


def _classes(evolution: Evolution, probe: int, base: int) -> tuple[Sets, Sets]:
    """Which pairs of the probe's effect table are preserved, and which emerged: (E,) each."""
    table, before = evolution.history.probes[probe].table, evolution.both(probe, base)
    now = Encoded(evolution.kept(probe), evolution.kept(probe, loose=True))
    at_base = Encoded(before.strict.ravel()[table.column], before.loose.ravel()[table.column])
    found = partition(at_base, now)
    return found[Change.PRESERVED], found[Change.EMERGED]


def _sign(before: float, now: float) -> str:
    return "same" if before * now > 0 else "flipped"


def word_values_csv(evolution: Evolution, steps: Sequence[int]) -> str:
    """Shapley and Banzhaf values of every word at the step indices `steps`, in log-odds."""
    rows: list[Row] = [("run", "probe", "step", "variable", "word", "shapley", "banzhaf")]
    history = evolution.history
    for part in history.probes:
        for now in steps:
            values = zip(part.probe.variables, *_word_values(part, now), strict=True)
            for variable, (word, shapley, banzhaf) in enumerate(values):
                place = (history.name, part.probe.id, int(history.steps[now]), variable, word)
                rows.append((*place, float(shapley), float(banzhaf)))
    return csv_text(rows)


def _word_values(part: ProbeHistory, now: int) -> tuple[Floats, Floats]:
    """Shapley and Banzhaf values of the words: (n,) each; of the estimated effects where not all states are scored.

    AND and OR of k words are symmetric in them: each has 1/k of the effect, and is pivotal in 1 of 2^(k-1) states.
    """
    if not part.is_estimated:
        scores = part.scores[now].astype(np.float64)
        return shapley_values(scores), banzhaf_values(scores)
    pairs = part.table.pairs(now)
    inside = (pairs.subset[:, None] >> np.arange(part.n_variables, dtype=np.uint64)) & np.uint64(1)
    order = inside.sum(axis=1).astype(np.float64)
    return (pairs.effect / order) @ inside, (pairs.effect / 2.0 ** (order - 1.0)) @ inside
