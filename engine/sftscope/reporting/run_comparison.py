"""Two or more runs on the same probes side by side: at their ends, at matching steps, and ranked.

Every run is read with its own τ by the same rule. The ranking is by held-out loss, the one number
that all runs share; the other columns say what it cost in interactions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftscope.analysis.comparison.baseline_llm import match_probes, reference_signs
from sftscope.analysis.comparison.run_pairs import sets_of_both
from sftscope.analysis.conclusions.verdict import Verdict, verdict_of
from sftscope.analysis.course.events import Event
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import Selection, Trends, as_plain, trends
from sftscope.files.json_text import lookup
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.reporting.show import model_name
from sftscope.reporting.tables import UNDEFINED, Table, as_text, number

SCHEMA = "sftscope-compare"
VERSION = 3


@dataclass(frozen=True)
class RunRow:
    """One run at its end; counts and ratios are means over probes of the last step against the first.

    best_loss: lowest held-out loss in nats per response token, NaN where none was measured; best_step:
    where. trained_end: which tokens after the answer its losses count, None where others trained it.
    """

    name: str
    model: str
    last_step: int
    counts: dict[Change, float]
    uncancelled: dict[Change, float]
    order: dict[Change, float]
    best_loss: float
    best_step: int | None
    sparsest: Event
    verdict: Verdict
    trained_end: str | None


@dataclass(frozen=True)
class PairRow:
    """Ω of two runs at one step that both have, and at their ends (step None): means over probes.

    jaccard: |both| / |either|. first_only, both, second_only: counts.
    """

    first: str
    second: str
    step: int | None
    first_only: float
    both: float
    second_only: float
    jaccard: float


@dataclass(frozen=True)
class Generalizable:
    """Eq. (9) at the last step of `run`, by class, with `reference` as the baseline LLM.

    by_chance: the same of independent sets. same_sign, same_sign_by_chance: of what is preserved with its sign.
    """

    run: str
    reference: str
    ratio: dict[Change, float]
    by_chance: dict[Change, float]
    same_sign: float
    same_sign_by_chance: float


@dataclass(frozen=True)
class Comparison:
    """The runs, best first, their pairs, and the generalizable ratio both ways."""

    runs: list[RunRow]
    pairs: list[PairRow]
    generalizable: list[Generalizable]


def compare(evolutions: Sequence[Evolution]) -> Comparison:
    """Compare runs on the same probes; SftscopeError where the probes differ or there is one run only."""
    if len(evolutions) < 2:
        raise SftscopeError(f"compare: expected two runs or more, got {len(evolutions)}")
    names = _unique([evolution.history.name for evolution in evolutions])
    over_time = [trends(evolution, Selection(evolution.history.steps.size - 1)) for evolution in evolutions]
    rows = [_run_row(*parts) for parts in zip(names, evolutions, over_time, strict=True)]
    pairs, shared = [], []
    for i, first in enumerate(evolutions):
        for j in range(i + 1, len(evolutions)):
            pairs += _pair_rows(names[i], names[j], first, evolutions[j])
        for j, second in enumerate(evolutions):
            if i != j:
                shared.append(_generalizable(names[i], names[j], first, second))
    return Comparison(sorted(rows, key=_rank), pairs, shared)


def compare_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values; an undefined number is None."""
    return {"schema": SCHEMA, "version": VERSION, **as_plain(comparison)}


def compare_text(comparison: Comparison) -> str:
    """The comparison as tables for a terminal."""
    parts = [
        "Runs, best held-out loss first; counts per probe and uncancelled ratio γu at the last step against the first",
        as_text(_runs_table(comparison.runs)),
        *_about_losses(comparison.runs),
        "\n".join(f"{row.name}: {safe_text(row.verdict.sentence)}" for row in comparison.runs),
        "Generalizable ratio at the last step: share of a class that the other run encodes too, with the same sign",
        as_text(_generalizable_table(comparison.generalizable)),
        "Encoded sets at the steps that two runs share, and at their ends; means over probes",
        as_text(_pairs_table(comparison.pairs)),
    ]
    return "\n\n".join(parts) + "\n"


def _rank(row: RunRow) -> tuple[bool, float, str]:
    return math.isnan(row.best_loss), 0.0 if math.isnan(row.best_loss) else row.best_loss, row.name


def _run_row(name: str, evolution: Evolution, over_time: Trends) -> RunRow:
    verdict = verdict_of(evolution)
    held_out = verdict.held_out
    return RunRow(
        name=name,
        model=safe_text(model_name(evolution.history.run), max_length=60),
        last_step=over_time.steps[-1],
        counts={change: part.count_mean[-1] for change, part in over_time.classes.items()},
        uncancelled={change: part.uncancelled_mean[-1] for change, part in over_time.classes.items()},
        order={change: part.order_mean[-1] for change, part in over_time.classes.items()},
        best_loss=metrics.NAN if held_out is None else held_out.best_loss,
        best_step=None if held_out is None else held_out.best_step,
        sparsest=over_time.events.sparsest,
        verdict=verdict,
        trained_end=_trained_end(evolution.history.run),
    )


def _pair_rows(first_name: str, second_name: str, first: Evolution, second: Evolution) -> list[PairRow]:
    """The pair at every step that both have, then at their ends."""
    one, two = first.history, second.history
    places = match_probes(one, two)
    shared = np.intersect1d(one.steps, two.steps).tolist()
    ends: list[tuple[int | None, int, int]] = [(step, one.index_of(step), two.index_of(step)) for step in shared]
    ends.append((None, one.steps.size - 1, two.steps.size - 1))
    rows = []
    for step, now, then in ends:
        counts = []
        for p, q in enumerate(places):
            own, other = sets_of_both(first, p, now, second, q, then)
            counts.append([(own & ~other).sum(), (own & other).sum(), (other & ~own).sum()])
        table = np.array(counts, dtype=np.float64)
        union = table.sum(axis=1)
        ratio = np.divide(table[:, 1], union, out=np.full(union.shape, np.nan), where=union > 0)
        jaccard = float(np.nanmean(ratio)) if (union > 0).any() else metrics.NAN
        first_only, both, second_only = table.mean(axis=0).tolist()
        rows.append(PairRow(first_name, second_name, step, first_only, both, second_only, jaccard))
    return rows


def _generalizable(name: str, reference: str, run: Evolution, other: Evolution) -> Generalizable:
    signs = reference_signs(run.history, other)
    over_time = trends(run, Selection(run.history.steps.size - 1), references=signs)
    ratio, by_chance = (
        {change: getattr(part, field)[-1] for change, part in over_time.classes.items()}
        for field in ("generalizable_mean", "generalizable_by_chance")
    )
    same = over_time.same_sign
    return Generalizable(
        name, reference, ratio, by_chance, same.generalizable_mean[-1], same.generalizable_by_chance[-1]
    )


def _trained_end(run: Mapping[str, Any]) -> str | None:
    """Which end of an answer the losses of a run count, by default the token; None where only another trainer knows."""
    if "attached" in run:
        stored = lookup(run, "attached", "trained_end")
        return stored if stored in ("token", "template") else None
    return "template" if lookup(run, "settings", "training", "trained_end") == "template" else "token"


def _about_losses(rows: Sequence[RunRow]) -> list[str]:
    """What stands against comparing the losses of the runs; nothing where they count the same tokens."""
    ends = {row.trained_end for row in rows}
    if len(ends) == 1:
        return []
    named = [f"{row.name} {row.trained_end or 'not known, others trained it'}" for row in rows]
    return [
        "Losses are not comparable: what is trained and counted after an answer differs ([training] trained_end): "
        + ", ".join(named)
    ]


def _unique(names: Sequence[str]) -> list[str]:
    """Names with a number where several runs have the same one."""
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _runs_table(rows: Sequence[RunRow]) -> Table:
    headers = ("run", "steps", "− n", "= n", "+ n", "= γu", "+ γu", "best eval", "at", "sparsest", "verdict")
    cells = [
        (
            row.name,
            str(row.last_step),
            *(number(row.counts[change], 1) for change in Change),
            *(number(row.uncancelled[change]) for change in (Change.PRESERVED, Change.EMERGED)),
            number(row.best_loss, 3),
            UNDEFINED if row.best_step is None else str(row.best_step),
            UNDEFINED if row.sparsest.step is None else f"step {row.sparsest.step}",
            row.verdict.headline,
        )
        for row in rows
    ]
    return Table(headers, cells, frozenset([0, 9, 10]))


def _generalizable_table(rows: Sequence[Generalizable]) -> Table:
    cells = []
    for row in rows:
        pairs = [(row.ratio[change], row.by_chance[change]) for change in Change]
        pairs.insert(2, (row.same_sign, row.same_sign_by_chance))
        cells.append((row.run, row.reference, *(number(value) for pair in pairs for value in pair)))
    classes = ("− removed", "= preserved", "= same sign", "+ emerged")
    headers = ("run", "baseline LLM", *(head for name in classes for head in (name, "by chance")))
    return Table(headers, cells, frozenset([0, 1]))


def _pairs_table(rows: Sequence[PairRow]) -> Table:
    cells = [
        (
            row.first,
            row.second,
            "last" if row.step is None else str(row.step),
            *(number(value, 1) for value in (row.first_only, row.both, row.second_only)),
            number(row.jaccard),
        )
        for row in rows
    ]
    return Table(("first", "second", "step", "first only", "both", "second only", "Jaccard"), cells, frozenset([0, 1]))
