"""The four views of a run as plain records: the numbers that `show`, `report` and the explorer print.

Each view is a function of an `Evolution`, a selection (step, base, probes) and nothing else. Where
a number is a mean over probes its name says so (`_mean`); `pooled` sums over probes first.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from engine.analysis import metrics
from engine.analysis.evolution import Change, Evolution, Sets
from engine.analysis.stages import Boundary, find_boundary
from engine.interactions import Floats, Relation


@dataclass(frozen=True)
class Selection:
    """What a view looks at: indices into the run's steps, and probe indices (None: all probes)."""

    now: int
    base: int = 0
    probe: int | None = None

    def probes_of(self, evolution: Evolution) -> Sequence[int]:
        """The probe indices that are looked at."""
        return range(len(evolution.history.probes)) if self.probe is None else [self.probe]


@dataclass(frozen=True)
class ClassTrend:
    """One class over all T steps; every list is T long."""

    count_mean: list[float]
    strength_mean: list[float]
    order_mean: list[float]
    uncancelled_mean: list[float]
    uncancelled_pooled: list[float]
    contribution_mean: list[float]


@dataclass(frozen=True)
class Trends:
    """Counts, strengths and ratios of every class over all steps against one base step."""

    steps: list[int]
    base_step: int
    encoded_mean: list[float]
    classes: dict[Change, ClassTrend]
    losses: dict[str, list[float]]
    matching_error_all: list[float]
    matching_error_encoded: list[float]
    boundary: Boundary


@dataclass(frozen=True)
class ChangeRow:
    """One interaction of the set diff between the base step and the present one."""

    probe: str
    change: Change
    relation: str
    subset: int
    order: int
    words: tuple[str, ...]
    effect_base: float
    effect_now: float
    series: tuple[float, ...]

    @property
    def delta(self) -> float:
        """Effect now less effect at base."""
        return self.effect_now - self.effect_base


@dataclass(frozen=True)
class Changes:
    """The set diff, strongest first."""

    step: int
    base_step: int
    counts: dict[Change, int]
    rows: list[ChangeRow]


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
    """Predicting the target from one set of interactions alone; means over probes, over all T steps."""

    name: str
    cross_entropy: list[float]
    cross_entropy_without_bias: list[float]


@dataclass(frozen=True)
class Backbone:
    """Backbone-only cross-entropy, Eq. (11), beside the losses of the run; `note` says why it is undefined."""

    step: int
    base_step: int
    steps: list[int]
    rows: list[BackboneRow]
    losses: dict[str, list[float]]
    note: str = ""


def trends(evolution: Evolution, selection: Selection) -> Trends:
    """Every class at every step, against the base step of `selection`."""
    history, probes = evolution.history, selection.probes_of(evolution)
    points = [
        {change: _class_point(evolution, replace(selection, now=now), change) for change in Change}
        for now in range(history.steps.size)
    ]
    chosen = [(history.probes[p], evolution.encoded[p]) for p in probes]
    all_errors = [metrics.matching_errors(part.scores, part.effects) for part, _ in chosen]
    encoded_errors = [metrics.matching_errors(part.scores, part.effects, omega) for part, omega in chosen]
    return Trends(
        steps=history.steps.tolist(),
        base_step=int(history.steps[selection.base]),
        encoded_mean=evolution.counts()[list(probes)].mean(axis=0).tolist(),
        classes={
            change: ClassTrend(*map(list, zip(*(point[change] for point in points), strict=True))) for change in Change
        },
        losses={name: values.tolist() for name, values in history.losses.items()},
        matching_error_all=[_mean(at_step) for at_step in zip(*all_errors, strict=True)],
        matching_error_encoded=[_mean(at_step) for at_step in zip(*encoded_errors, strict=True)],
        boundary=find_boundary(evolution),
    )


def changes(evolution: Evolution, selection: Selection) -> Changes:
    """The set diff between the base step and the present one."""
    history = evolution.history
    rows = []
    for p in selection.probes_of(evolution):
        probe = history.probes[p]
        for change, members in evolution.partition(p, selection.now, selection.base).items():
            for relation, subset in np.argwhere(members):
                series = probe.effects[:, relation, subset]
                rows.append(
                    ChangeRow(
                        probe=probe.probe.id,
                        change=change,
                        relation=Relation(int(relation)).name,
                        subset=int(subset),
                        order=int(subset).bit_count(),
                        words=probe.words_of(int(subset)),
                        effect_base=float(series[selection.base]),
                        effect_now=float(series[selection.now]),
                        series=tuple(series.tolist()),
                    )
                )
    rows.sort(key=_strongest_first)
    return Changes(
        step=int(history.steps[selection.now]),
        base_step=int(history.steps[selection.base]),
        counts={change: sum(row.change is change for row in rows) for change in Change},
        rows=rows,
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
            distribution = metrics.order_distribution(members, effects)
            total[:, : distribution.shape[1]] += distribution
        total /= len(probes)
        classes[change] = [OrderRow(k, *map(float, total[:, k])) for k in range(1, highest + 1)]
    return Orders(int(history.steps[selection.now]), int(history.steps[selection.base]), classes)


def backbone(evolution: Evolution, selection: Selection) -> Backbone:
    """Cross-entropy of predicting with one class alone, at every step, and of the full score."""
    history, probes = evolution.history, selection.probes_of(evolution)
    boundary = find_boundary(evolution).index
    whole_response = history.scores_whole_response
    sums: dict[str, Callable[[int, int], float]] = {"full score": lambda p, t: _full_sum(evolution, p, t)}
    for change in Change:
        sums[change.value] = lambda p, t, change=change: _sum(  # type: ignore[misc]
            *_members(evolution, p, replace(selection, now=t), change)
        )
    if boundary is not None:
        for name in ("emerged early", "emerged late"):
            sums[name] = lambda p, t, name=name: _sum(  # type: ignore[misc]
                evolution.emerged_by(p, t, selection.base, boundary)[name], history.probes[p].effects[t]
            )
    rows = []
    for name, total in sums.items():
        with_bias, without = [], []
        for t in range(history.steps.size):
            scored = [] if whole_response else probes
            values = [(total(p, t), _class_bias(evolution, p, t, name, selection.base)) for p in scored]
            with_bias.append(_mean([metrics.cross_entropy(s + b) for s, b in values]))
            without.append(_mean([metrics.cross_entropy(s) for s, _ in values]))
        rows.append(BackboneRow(name, with_bias, without))
    return Backbone(
        step=int(history.steps[selection.now]),
        base_step=int(history.steps[selection.base]),
        steps=history.steps.tolist(),
        rows=rows,
        losses={name: values.tolist() for name, values in history.losses.items()},
        note="undefined: the target is the whole response, not one token" if whole_response else "",
    )


def as_plain(view: object) -> Any:
    """A view as what JSON can hold: plain dicts and lists, NaN as null."""
    return to_plain(asdict(view))  # type: ignore[call-overload]


def to_plain(value: Any) -> Any:
    """`value` as what JSON can hold: a float that is not finite is None, an unknown kind its text."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def to_json(plain: Any) -> str:
    """JSON text of plain values, in ASCII, so that no character of a run reaches a terminal as it is."""
    return json.dumps(plain, indent=1, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def _members(evolution: Evolution, probe: int, selection: Selection, change: Change) -> tuple[Sets, Floats]:
    members = evolution.partition(probe, selection.now, selection.base)[change]
    return members, evolution.effects_of(probe, change, selection.now, selection.base)


def _class_point(evolution: Evolution, selection: Selection, change: Change) -> tuple[float, ...]:
    """The fields of `ClassTrend` at one step."""
    parts = [_members(evolution, p, selection, change) for p in selection.probes_of(evolution)]
    inside = np.concatenate([effects[members] for members, effects in parts])
    total = float(np.abs(inside).sum())
    return (
        _mean([float(members.sum()) for members, _ in parts]),
        _mean([metrics.strength(members, effects) for members, effects in parts]),
        _mean([metrics.mean_order(members) for members, _ in parts]),
        _mean([metrics.uncancelled_ratio(members, effects) for members, effects in parts]),
        abs(float(inside.sum())) / total if total > 0 else metrics.NAN,
        _mean([metrics.average_contribution(members, effects) for members, effects in parts]),
    )


def _strongest_first(row: ChangeRow) -> tuple[float, str, str, int]:
    return -max(abs(row.effect_base), abs(row.effect_now)), row.probe, row.relation, row.subset


def _sum(members: Sets, effects: Floats) -> float:
    return float(effects[members].sum())


def _full_sum(evolution: Evolution, probe: int, now: int) -> float:
    part = evolution.history.probes[probe]
    return float(part.output[now] - part.bias[now])


def _class_bias(evolution: Evolution, probe: int, now: int, name: str, base: int) -> float:
    """b of the step whose effects stand for the class."""
    return float(evolution.history.probes[probe].bias[base if name == Change.REMOVED else now])


def _mean(values: Sequence[float]) -> float:
    """Mean over the values that are defined; NaN where none is."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else metrics.NAN
