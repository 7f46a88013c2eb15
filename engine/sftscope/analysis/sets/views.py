"""The four views of a run as plain records: the numbers that `show`, `report` and the explorer print.

Each view is a function of an `Evolution`, a selection (step, base, probes) and nothing else. Where
a number is a mean over probes its name says so (`_mean`); `pooled` sums over probes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite, isnan
from typing import Any

import numpy as np

from sftscope.analysis.course.events import Events, find_events
from sftscope.analysis.run.effect_table import measure_mismatch
from sftscope.analysis.run.probe_means import mean_over_probes
from sftscope.analysis.run.run_history import LOSSES, RunHistory
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.chance import Signs, preserved_by_chance
from sftscope.analysis.sets.class_sums import (
    ClassSums,
    class_sums,
    emerged_sums,
    jaccard_of_neighbours,
    same_sign_sums,
)
from sftscope.analysis.sets.class_trend import ClassTrend, class_trend
from sftscope.analysis.sets.evolution import EARLY, LATE, Change, Evolution, Sets
from sftscope.analysis.sets.set_diff import CHANGES, set_diff
from sftscope.analysis.soft.soft_trend import SoftTrend, soft_trend
from sftscope.files.json_text import lookup
from sftscope.lattice.transforms import Floats, Relation

FULL, BIAS = "full score", "bias alone"


@dataclass(frozen=True)
class Selection:
    """What a view looks at: indices into the run's steps, and probe indices (None: all probes).

    trajectory: preserved asks that an interaction be encoded at every step in between.
    """

    now: int
    base: int = 0
    probe: int | None = None
    trajectory: bool = False

    def probes_of(self, evolution: Evolution) -> Sequence[int]:
        """The probe indices that are looked at."""
        return range(len(evolution.history.probes)) if self.probe is None else [self.probe]


@dataclass(frozen=True)
class Trends:
    """Every quantity over all steps against one base step: what needs no threshold first, then the sets under τ.

    measured: held-out loss, accuracy and training loss as (step, value), also at steps that are no checkpoints.
    accuracy_rows: how many rows accuracy is measured on, 0 where that is not known. same_sign: what is preserved with
    its sign; the rest of preserved flipped. preserved_by_chance, same_sign_by_chance: how many independent sets would
    preserve (see `chance`), mean over probes; NaN at the base step. turnover: the share of Ω_(t-1) ∪ Ω_t that changed.
    same_weights: as of the history: what was measured at such a step is no evidence of its own.
    """

    steps: list[int]
    base_step: int
    events: Events
    soft: SoftTrend
    measured: dict[str, list[tuple[int, float]]]
    encoded_mean: list[float]
    classes: dict[Change, ClassTrend]
    losses: dict[str, list[float]]
    matching_error_all: list[float]
    matching_error_encoded: list[float]
    accuracy_rows: int = 0
    jaccard_neighbours: list[float] = field(default_factory=list)
    same_sign: ClassTrend = field(default_factory=lambda: class_trend([]))
    preserved_by_chance: list[float] = field(default_factory=list)
    same_sign_by_chance: list[float] = field(default_factory=list)
    turnover: list[float] = field(default_factory=list)
    same_weights: dict[int, int] = field(default_factory=dict)

    @property
    def has_reference(self) -> bool:
        """Whether a generalizable ratio is defined anywhere."""
        return any(not isnan(value) for part in self.classes.values() for value in part.generalizable_mean)


@dataclass(frozen=True)
class ChangeRow:
    """One interaction of the set diff between the base step and the present one.

    support: in how many replicates of an estimate it is in this class; None where it is not estimated. same_sign:
    whether what is preserved kept its sign; None for the other classes.
    """

    probe: str
    change: Change
    relation: str
    subset: int
    order: int
    words: tuple[str, ...]
    effect_base: float
    effect_now: float
    series: tuple[float, ...]
    support: int | None = None
    same_sign: bool | None = None

    @property
    def delta(self) -> float:
        """Effect now less effect at base."""
        return self.effect_now - self.effect_base


@dataclass(frozen=True)
class Changes:
    """The set diff, strongest first.

    flipped: of what is preserved, how many have the other sign. preserved_by_chance, same_sign_by_chance: how many
    independent sets would preserve, see `chance`; NaN against the step itself.
    """

    step: int
    base_step: int
    counts: dict[Change, int]
    rows: list[ChangeRow]
    flipped: int = 0
    preserved_by_chance: float = metrics.NAN
    same_sign_by_chance: float = metrics.NAN


@dataclass(frozen=True)
class OrderRow:
    """One order of one class: Σ of positive and of negative effects and the count, means over probes."""

    order: int
    positive_mean: float
    negative_mean: float
    count_mean: float


@dataclass(frozen=True)
class Orders:
    """Order distributions, Eq. (8), of the three classes."""

    step: int
    base_step: int
    classes: dict[Change, list[OrderRow]]


@dataclass(frozen=True)
class BackboneRow:
    """Predicting the target from one set of interactions alone, in nats; means over probes, over all T steps.

    cross_entropy: with the bias of the step, the same for every row.
    """

    name: str
    cross_entropy_without_bias: list[float]
    cross_entropy: list[float]


@dataclass(frozen=True)
class Backbone:
    """Backbone-only cross-entropy, Eq. (11), with the losses of the run; `note` says why it is undefined."""

    step: int
    base_step: int
    steps: list[int]
    rows: list[BackboneRow]
    losses: dict[str, list[float]]
    note: str = ""


def trends(
    evolution: Evolution,
    selection: Selection,
    *,
    references: Sequence[Signs | None] | None = None,
    events: Events | None = None,
) -> Trends:
    """Every class at every step, against the base step of `selection`.

    events: of the run, by default as of `find_events`.

    references: per probe of the run what a baseline LLM encodes (see `reference`), for the
    generalizable ratio; None for a probe that it does not have.
    """
    history, probes = evolution.history, selection.probes_of(evolution)
    base, trajectory = selection.base, selection.trajectory
    signs = [None if references is None else references[p] for p in probes]
    asked = list(zip(probes, signs, strict=True))
    parts = [class_sums(evolution, p, base, trajectory=trajectory, reference=own) for p, own in asked]
    same = [same_sign_sums(evolution, p, base, trajectory=trajectory, reference=own) for p, own in asked]
    chance = [preserved_by_chance(evolution, p, base, trajectory=trajectory) for p in probes]
    neighbours = mean_over_probes([jaccard_of_neighbours(evolution, p) for p in probes])
    errors = [_matching_errors(evolution, p) for p in probes]
    return Trends(
        steps=history.steps.tolist(),
        base_step=int(history.steps[selection.base]),
        events=events or find_events(history),
        soft=soft_trend([history.probes[p].table for p in probes], selection.base),
        measured=_measured(history),
        accuracy_rows=_accuracy_rows(history),
        encoded_mean=evolution.counts()[list(probes)].mean(axis=0).tolist(),
        classes={change: class_trend([part[change] for part in parts]) for change in Change},
        losses={name: values.tolist() for name, values in history.losses.items()},
        matching_error_all=mean_over_probes([both[0] for both in errors]),
        matching_error_encoded=mean_over_probes([both[1] for both in errors]),
        jaccard_neighbours=neighbours,
        same_sign=class_trend(same),
        preserved_by_chance=mean_over_probes([part.any_sign for part in chance]),
        same_sign_by_chance=mean_over_probes([part.same_sign for part in chance]),
        turnover=[1.0 - value for value in neighbours],
        same_weights=dict(history.same_weights),
    )


def changes(evolution: Evolution, selection: Selection) -> Changes:
    """The set diff between the base step and the present one."""
    probes, trajectory = selection.probes_of(evolution), selection.trajectory
    diff = set_diff(evolution, probes, selection.now, selection.base, trajectory=trajectory)
    flipped, rows = diff.flipped, []
    for row, (p, change, subset) in enumerate(zip(diff.probe, diff.change, diff.subset.tolist(), strict=True)):
        part, support = diff.probes[p], int(diff.support[row])
        rows.append(
            ChangeRow(
                probe=part.probe.id,
                change=CHANGES[change],
                relation=Relation(int(diff.relation[row])).name,
                subset=subset,
                order=int(diff.order[row]),
                words=part.words_of(subset),
                effect_base=float(diff.effect_base[row]),
                effect_now=float(diff.effect_now[row]),
                series=tuple(diff.series(row).tolist()),
                support=None if support < 0 else support,
                same_sign=bool(not flipped[row]) if CHANGES[change] is Change.PRESERVED else None,
            )
        )
    rows.sort(key=_strongest_first)
    chance = [preserved_by_chance(evolution, p, selection.base, trajectory=trajectory) for p in probes]
    return Changes(
        diff.step,
        diff.base_step,
        dict(diff.counts),
        rows,
        int(flipped.sum()),
        float(sum(part.any_sign[selection.now] for part in chance)),
        float(sum(part.same_sign[selection.now] for part in chance)),
    )


def orders_view(evolution: Evolution, selection: Selection) -> Orders:
    """Order distributions of the three classes between the base step and the present one."""
    history, probes = evolution.history, selection.probes_of(evolution)
    highest = max(history.probes[p].n_variables for p in probes)
    classes = {}
    for change in Change:
        total = np.zeros((3, highest + 1))
        for p in probes:
            members, effects = _members(evolution, p, selection, change)
            part = history.probes[p]
            distribution = metrics.order_distribution(members, effects, part.table.orders, part.n_variables)
            total[:, : distribution.shape[1]] += distribution
        total /= len(probes)
        classes[change] = [OrderRow(k, *map(float, total[:, k])) for k in range(1, highest + 1)]
    return Orders(int(history.steps[selection.now]), int(history.steps[selection.base]), classes)


def backbone(evolution: Evolution, selection: Selection) -> Backbone:
    """Cross-entropy of predicting with one class alone, at every step, of the full score, and of the bias alone.

    -log sigmoid(Σ I [+ b]), b = v(x_∅) of that step for every class: only their interactions differ. The bias alone,
    without bias, is ln 2.
    """
    history, probes = evolution.history, selection.probes_of(evolution)
    boundary = find_events(history).sparsest.index
    single = [p for p in probes if not history.probes[p].scores_several_tokens]
    names = [FULL, *(change.value for change in Change), *(() if boundary is None else (EARLY, LATE)), BIAS]
    with_bias: dict[str, list[Floats]] = {name: [] for name in names}
    without: dict[str, list[Floats]] = {name: [] for name in names}
    for p in single:
        bias = history.probes[p].bias
        for name, total in _class_totals(evolution, p, selection, boundary).items():
            with_bias[name].append(np.logaddexp(0.0, -(total + bias)))
            without[name].append(np.logaddexp(0.0, -total))
    nothing = [metrics.NAN] * history.steps.size
    return Backbone(
        step=int(history.steps[selection.now]),
        base_step=int(history.steps[selection.base]),
        steps=history.steps.tolist(),
        rows=[
            BackboneRow(name, *((mean_over_probes(kind[name]) or nothing) for kind in (without, with_bias)))
            for name in names
        ],
        losses={name: history.losses[name].tolist() for name in LOSSES if name in history.losses},
        note=_backbone_note(len(single), len(probes)),
    )


def _backbone_note(single: int, probes: int) -> str:
    if single == probes:
        return ""
    if not single:
        return "undefined: several tokens are scored, whose log-odds are no probability"
    return f"mean over the {single} of {probes} probes that are scored by a single token"


def as_plain(view: object) -> Any:
    """A view as what JSON can hold: plain dicts and lists, NaN as null."""
    return to_plain(view)


def to_plain(value: Any) -> Any:
    """`value` as what JSON can hold: a float that is not finite is None, a record a dict, an unknown kind its text."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _members(evolution: Evolution, probe: int, selection: Selection, change: Change) -> tuple[Sets, Floats]:
    sets = evolution.partition(probe, selection.now, selection.base, trajectory=selection.trajectory)
    members = sets[change]
    return members, evolution.effects_of(probe, change, selection.now, selection.base)


def _measured(history: RunHistory) -> dict[str, list[tuple[int, float]]]:
    """What the training measured at its own steps; of a history without, what its checkpoints have."""
    if history.measured:
        return {
            name: list(zip(part.steps.tolist(), part.values.tolist(), strict=True))
            for name, part in history.measured.items()
        }
    steps = history.steps.tolist()
    return {
        name: [pair for pair in zip(steps, values.tolist(), strict=True) if isfinite(pair[1])]
        for name, values in history.losses.items()
    }


def _accuracy_rows(history: RunHistory) -> int:
    rows = lookup(history.run, "settings", "training", "accuracy_rows")
    return rows if type(rows) is int and rows > 0 else 0


def _matching_errors(evolution: Evolution, probe: int) -> tuple[Floats, Floats]:
    """Eq. (14) at every step, with all interactions and with Ω only: two of (T,)."""
    part = evolution.history.probes[probe]
    encoded = measure_mismatch(part.scores, part.states, part.table, evolution.kept(probe))
    everything = part.mismatch if not part.is_estimated else measure_mismatch(part.scores, part.states, part.table)
    return metrics.relative(everything.mean, part.scale), metrics.relative(encoded.mean, part.scale)


def _class_totals(evolution: Evolution, probe: int, selection: Selection, boundary: int | None) -> dict[str, Floats]:
    """Σ I of every class at every step, of the full score, and of no interaction: (T,) each."""
    part = evolution.history.probes[probe]
    classes = class_sums(evolution, probe, selection.base, trajectory=selection.trajectory)
    sums: dict[str, ClassSums] = {change.value: found for change, found in classes.items()}
    if boundary is not None:
        sums |= emerged_sums(evolution, probe, selection.base, boundary)
    totals = {name: found.effect for name, found in sums.items()}
    return {FULL: part.output - part.bias, BIAS: np.zeros(evolution.history.steps.size)} | totals


def _strongest_first(row: ChangeRow) -> tuple[float, str, str, int]:
    return -max(abs(row.effect_base), abs(row.effect_now)), row.probe, row.relation, row.subset
