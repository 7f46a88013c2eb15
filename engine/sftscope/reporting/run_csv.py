"""A run as tidy CSV: one row an interaction that is encoded at a step, columns ready for any data frame."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.rows.traced_rows import count_rows
from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.analysis.sets.evolution import Change, Encoded, Evolution, Sets, partition
from sftscope.analysis.shapley import banzhaf_values, shapley_values
from sftscope.analysis.soft.soft_classes import soft_classes_by_order
from sftscope.analysis.trust.noise_support import kept_copies, noise_support
from sftscope.foundation.progress import Progress
from sftscope.foundation.safe_text import csv_text
from sftscope.lattice.transforms import Floats, Relation

Row = tuple[str | int | float, ...]
_LISTED = (Change.PRESERVED, Change.EMERGED)
HEADER = ("run", "probe", "step", "relation", "subset", "order", "words", "effect", "tau", "change", "sign")
TRAINED = ("train_rows", "train_rows_answer", "train_rows_answer_by_chance")


def as_csv(
    evolution: Evolution,
    *,
    base: int = 0,
    index: RowIndex | None = None,
    support: bool = False,
    progress: Progress | None = None,
) -> str:
    """All preserved and emerged interactions by probe, step, relation and subset; effect and τ in log-odds.

    change: preserved or emerged against the base step; with hysteresis, what is preserved may be below τ. sign: of
    what is preserved, same or flipped. What is removed at a step is what the base step encodes and that step has not.
    Words are joined by a space; a cell that a spreadsheet would take for a formula begins with an apostrophe.

    index: the training rows, where they are known: three more columns, how many have all words (AND) or any (OR), how
    many of these have the probe's answer, and how many would by chance.

    support: a last column, in how many noisy copies of the scores, or replicates of an estimate, a row has its class;
    slow (see `noise_support`).
    """
    rows: list[Row] = [(*HEADER, *(TRAINED if index else ()), *(("support",) if support else ()))]
    history = evolution.history
    for p, part in enumerate(history.probes):
        table, steps, at_base = part.table, part.table.step, part.table.at(base).ravel()
        preserved, emerged = _classes(evolution, p, base)
        agree = _support(evolution, p, base, preserved) if support else None
        if progress is not None and support:
            progress(p + 1, len(history.probes), f"support at every step, {part.probe.id}")
        listed = np.flatnonzero(preserved | emerged)
        trained = _trained_rows(part, table.column[listed], index) if index else {}
        for pair in listed.tolist():
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
                    *trained.get(column, ()),
                    *(() if agree is None else ("" if agree[pair] < 0 else int(agree[pair]),)),
                )
            )
    return csv_text(rows)


def _trained_rows(part: ProbeHistory, columns: NDArray[Any], index: RowIndex) -> dict[int, Row]:
    """The cells of `TRAINED`, by column of the probe's effect table."""
    distinct = np.unique(columns.astype(np.int64))
    relation, place = np.divmod(distinct, part.table.subsets.size)
    subset = part.table.subsets[place]
    found = count_rows(index, part.probe.variables, relation, subset, part.probe.response)
    return dict(zip(distinct.tolist(), zip(*(column.tolist() for column in found), strict=True), strict=True))


def _classes(evolution: Evolution, probe: int, base: int) -> tuple[Sets, Sets]:
    """Which pairs of the probe's effect table are preserved, and which emerged: (E,) each."""
    table, before = evolution.history.probes[probe].table, evolution.both(probe, base)
    now = Encoded(evolution.kept(probe), evolution.kept(probe, loose=True))
    at_base = Encoded(before.strict.ravel()[table.column], before.loose.ravel()[table.column])
    found = partition(at_base, now)
    return found[Change.PRESERVED], found[Change.EMERGED]


def _support(evolution: Evolution, probe: int, base: int, preserved: Sets) -> NDArray[np.int64]:
    """Of each pair of the probe's effect table, how many copies or replicates have it in its class: (E,), -1: unknown.

    preserved: (E,); the others emerged.
    """
    part = evolution.history.probes[probe]
    table, found = part.table, np.full(part.table.effect.size, -1, dtype=np.int64)
    made = kept_copies(evolution.history)
    for now in range(table.n_steps):
        own = table.within(now)
        relation, place = np.divmod(table.column[own].astype(np.int64), table.subsets.size)
        if not part.is_estimated:
            counts = noise_support(evolution, probe, now, base, made=made)
            both = [counts[change][relation, place] for change in _LISTED]
        elif part.replicates:
            subset = table.subsets[place]
            asked = [evolution.support(probe, change, relation, subset, now, base) for change in _LISTED]
            both = [each for each in asked if each is not None]
        else:
            continue
        found[own] = np.where(preserved[own], *both)
    return found


def _sign(before: float, now: float) -> str:
    return "same" if before * now > 0 else "flipped"


def soft_orders_csv(evolution: Evolution, *, base: int = 0) -> str:
    """Strength of the soft classes by probe, step, class, order and sign, in log-odds; what is 0 has no row.

    share: of ‖I_base‖₁ of the probe. No threshold has a part in it.
    """
    rows: list[Row] = [("run", "probe", "step", "class", "order", "sign", "strength", "share")]
    history = evolution.history
    for part in history.probes:
        for now, step in enumerate(history.steps.tolist()):
            soft = soft_classes_by_order(part.table, now, base)
            whole = float(soft.at_base.sum())
            for change in Change:
                strength = getattr(soft, change.value)
                for order, column in zip(*np.nonzero(strength > 0), strict=True):
                    value = float(strength[order, column])
                    place = (
                        history.name,
                        part.probe.id,
                        step,
                        change.value,
                        int(order),
                        ("positive", "negative")[column],
                    )
                    rows.append((*place, value, value / whole if whole else float("nan")))
    return csv_text(rows)


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
