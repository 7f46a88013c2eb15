"""A run's step files as arrays over the steps, probe by probe: the input of every analysis.

It refuses to judge: a step or a placebo whose file is damaged, or does not belong to the run's probes, is named in
`left_out` and not part of the history. `reading` makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analysis.effect_table import EffectTable, Mismatch, measure_mismatch
from engine.errors import SftscopeError
from engine.interactions import Floats
from engine.probes import Probe
from engine.store import RunFolder, StepRecord
from engine.text import safe_text

# what a checkpoint can have among its losses
LOSSES = ("train", "eval")  # nats a token of the answer
ACCURACY = "accuracy"  # share of held-out rows whose whole answer is right
LARGE = 1 << 21  # masked states of a run from which on it is held in float32 (rounded by 6·10⁻⁸ of a value)


@dataclass(frozen=True, eq=False)
class ProbeHistory:
    """One probe over T steps. Arrays over masked states are indexed by subset on the last axis."""

    probe: Probe
    target: Mapping[str, Any]
    scores: Floats  # (T, 2^n), v(x_T); float32 in a large run
    table: EffectTable  # I(S) at T steps
    zeta: Floats  # (T,)
    gap: Floats  # (T,)
    noise: Floats  # (T,), NaN where it was not measured

    @property
    def n_variables(self) -> int:
        """Number of words."""
        return len(self.probe.words)

    @property
    def bias(self) -> Floats:
        """b = v(x_∅) at every step: (T,)."""
        return self.scores[:, 0].astype(np.float64)

    @property
    def output(self) -> Floats:
        """v(x_N), the score of the whole prompt, at every step: (T,)."""
        return self.scores[:, -1].astype(np.float64)

    @property
    def scale(self) -> Floats:
        """|v(x_N) - v(x_∅)| at every step: (T,)."""
        scale: Floats = np.abs(self.output - self.bias)
        return scale

    @cached_property
    def effects(self) -> Floats:
        """All effects at all steps, (T, 2, 2^n), axis 1 by Relation. Large: `table` is what analyses use."""
        dense: Floats = self.table.dense()
        return dense

    @cached_property
    def mismatch(self) -> Mismatch:
        """|v - h| with all interactions; at most ζ at every masked state, Eq. (3)."""
        return measure_mismatch(self.scores, self.table)

    def until(self, step: int) -> "ProbeHistory":
        """The steps up to the index `step`; shares memory."""
        past = slice(step + 1)
        per_step = (self.zeta[past], self.gap[past], self.noise[past])
        return ProbeHistory(self.probe, self.target, self.scores[past], self.table.until(step), *per_step)

    def words_of(self, subset: int) -> tuple[str, ...]:
        """The words of a subset, in text order."""
        return tuple(word for i, word in enumerate(self.probe.variables) if subset >> i & 1)


@dataclass(frozen=True, eq=False)
class Placebo:
    """One of the run's steps extracted a second time, another way.

    effects: per probe (2, 2^n), as in `ProbeHistory`. noise: (P,), root mean square change of v over
    all masked states.
    """

    step: int
    effects: tuple[Floats, ...]
    noise: Floats


@dataclass(frozen=True, eq=False)
class RunHistory:
    """A run over its T ≥ 1 extracted steps. `name` and `left_out` are safe to show."""

    name: str
    steps: NDArray[np.int64]  # (T,)
    losses: Mapping[str, Floats]  # by name: (T,), NaN where a step has none
    probes: tuple[ProbeHistory, ...]
    run: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    placebos: tuple[Placebo, ...] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)  # of the scores: asked, taken, candidates measured

    @property
    def scores_whole_response(self) -> bool:
        """Whether v sums over the response's tokens (target `all`), so that sigmoid(v) is no probability."""
        value: Any = self.run
        for key in ("settings", "extraction", "target"):
            value = value.get(key) if isinstance(value, Mapping) else None
        return bool(value == "all")

    def until(self, step: int) -> "RunHistory":
        """The run as it was when the step index `step` was its last; shares memory."""
        return replace(
            self,
            steps=self.steps[: step + 1],
            losses={name: values[: step + 1] for name, values in self.losses.items()},
            probes=tuple(part.until(step) for part in self.probes),
            placebos=(),
        )

    def index_of(self, step: int) -> int:
        """Position of `step` in `steps`; SftscopeError where it was not extracted."""
        found = np.flatnonzero(self.steps == step)
        if not found.size:
            known = ", ".join(map(str, self.steps[:40])) + (", …" if self.steps.size > 40 else "")
            raise SftscopeError(f"step {step} is not among the extracted steps of {self.name}: {known}")
        return int(found[0])

    def probe_index(self, probe_id: str) -> int:
        """Position of the probe with this id; SftscopeError where there is none."""
        ids = [probe.probe.id for probe in self.probes]
        if probe_id not in ids:
            known = safe_text(", ".join(ids), max_length=300)
            wanted = safe_text(repr(probe_id), max_length=60)
            raise SftscopeError(f"no probe {wanted} in {self.name}; its probes are {known}")
        return ids.index(probe_id)


def check_sizes(record: StepRecord, sizes: Sequence[int], file: Path) -> None:
    if record.n_variables.tolist() != sizes:
        raise SftscopeError(f"{file}: its probes are not the probes of this run")


def read_placebos(
    folder: RunFolder, steps: Sequence[int], sizes: Sequence[int], left_out: list[str]
) -> tuple[Placebo, ...]:
    """The placebos of `steps`; appends to `left_out` what is damaged, foreign, or of no step that is there."""
    found = []
    for step in folder.placebo_steps():
        file = folder.placebo_file(step)
        try:
            record = folder.read_placebo(step)
            check_sizes(record, sizes, file)
            if step not in steps:
                raise SftscopeError(f"{file}: a placebo of step {step}, which is not among the extracted steps")
        except SftscopeError as error:
            left_out.append(safe_text(str(error).replace(f"{folder.path}/", "")))
            continue
        found.append(Placebo(step, tuple(_effects(record, index) for index in range(len(sizes))), record.noise))
    return tuple(found)


def _effects(record: StepRecord, index: int) -> Floats:
    """The effects of one probe: (2, 2^n)."""
    assert record.effects is not None
    part = record.probe_slice(index)
    return np.stack([record.effects.and_effects[part], record.effects.or_effects[part]])


class HistoryTable:
    """The arrays of all probes, filled step by step, so that a run is held in memory once.

    sizes: number of words of each probe. All effects lie in one block that grows, and not in an array a
    probe and step: of those a long run would have a hundred thousand, which hold more than they contain.
    """

    def __init__(self, steps: int, sizes: Sequence[int]) -> None:
        large = steps * sum(1 << n for n in sizes) > LARGE
        dtype = np.float32 if large else np.float64
        self._scores: list[Floats] = [np.empty((steps, 1 << n), dtype=dtype) for n in sizes]
        self._per_probe = np.empty((steps, 3, len(sizes)))  # ζ, gap, noise
        self._column = np.empty(0, dtype=np.uint16 if max(sizes, default=0) < 16 else np.uint32)
        self._effect = np.empty(0, dtype=dtype)
        self._ends = np.zeros((steps, len(sizes)), dtype=np.int64)  # in the two above
        self._used = 0

    def put(self, row: int, record: StepRecord) -> None:
        assert record.effects is not None
        for index, scores in enumerate(self._scores):
            scores[row] = record.scores[record.probe_slice(index)]
            effects = _effects(record, index).ravel()
            found = np.flatnonzero(effects)
            start, self._used = self._used, self._used + found.size
            if self._used > self._column.size:
                self._grow(row)
            self._column[start : self._used], self._effect[start : self._used] = found, effects[found]
            self._ends[row, index] = self._used
        self._per_probe[row] = record.effects.zeta, record.effects.gap, record.noise

    def _grow(self, row: int) -> None:
        """Room for what all steps need if they are like those up to `row`, and at least a quarter more."""
        steps = self._ends.shape[0]
        size = max(self._used * steps // (row + 1), self._used + self._used // 4)
        for block in (self._column, self._effect):
            block.resize(size, refcheck=False)  # in place: nothing else holds the block while it is filled

    def probe(self, index: int, steps: int, probe: Probe, target: Mapping[str, Any]) -> ProbeHistory:
        scores = self._scores[index][:steps]
        ends = self._ends[:steps].ravel()
        places = range(index, ends.size, len(self._scores))
        parts = [slice(int(ends[at - 1]) if at else 0, int(ends[at])) for at in places]
        pairs = [(self._column[part], self._effect[part]) for part in parts]
        return ProbeHistory(
            probe=probe,
            target=target,
            scores=scores,
            table=EffectTable.of_steps(len(probe.words), pairs, scores.dtype),
            zeta=self._per_probe[:steps, 0, index],
            gap=self._per_probe[:steps, 1, index],
            noise=self._per_probe[:steps, 2, index],
        )
