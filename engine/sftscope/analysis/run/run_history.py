"""A run's step files as arrays over the steps, probe by probe: the input of every analysis.

It refuses to judge: a step or a placebo whose file is damaged, cannot be read now, or does not belong to the run's
probes, is named in `left_out` and not part of the history. `reading` makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable, Mismatch, measure_mismatch
from sftscope.analysis.run.machines import Machine
from sftscope.analysis.run.measured import Measured
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import Probe
from sftscope.lattice.masked_states import States
from sftscope.lattice.transforms import Floats
from sftscope.store import Pairs, RunFolder, SparseEffects, StepRecord
from sftscope.store.held_out_file import HeldOutRows

# what a checkpoint can have among its losses
LOSSES = ("train", "eval")  # nats a token of the answer
ACCURACY = "accuracy"  # share of held-out rows whose whole answer is right
LARGE = 1 << 21  # masked states of a run from which on it is held in float32 (rounded by 6·10⁻⁸ of a value)


@dataclass(frozen=True, eq=False)
class ProbeHistory:
    """One probe over T steps, at the same m masked states at each: all 2^n, indexed by subset, or a sample.

    replicates: estimates from resampled masked states, the same at every step; none where all are there.
    """

    probe: Probe
    target: Mapping[str, Any]
    states: States
    scores: Floats  # (T, m), v(x_T); float32 in a large run
    table: EffectTable  # I(S) at T steps
    zeta: Floats  # (T,)
    gap: Floats  # (T,)
    noise: Floats  # (T,), NaN where it was not measured
    replicates: tuple[EffectTable, ...] = ()

    @property
    def n_variables(self) -> int:
        """Number of words."""
        return len(self.probe.words)

    @property
    def scores_several_tokens(self) -> bool:
        """Whether v sums over several tokens of the answer, so that sigmoid(v) is no probability."""
        return len(self.target.get("ids", ())) > 1

    @property
    def target_name(self) -> str:
        """What is scored, as people name it: "sadness", or "s" of "sadness" where that is a part; not yet safe."""
        response, text = self.probe.response.strip(), str(self.target.get("text", "")).strip()
        return response if text in ("", response) else f"{text!r} of {response!r}"

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

    @property
    def is_estimated(self) -> bool:
        """Whether the effects are estimated from a sample of the masked states."""
        return not self.states.are_all

    @cached_property
    def effects(self) -> Floats:
        """All effects at all steps, (T, 2, K), axis 1 by Relation. Large: `table` is what analyses use."""
        dense: Floats = self.table.dense()
        return dense

    @cached_property
    def mismatch(self) -> Mismatch:
        """|v - h| with all interactions; at most ζ at every masked state that is matched, Eq. (3)."""
        matched = ~self.states.held_out
        states = self.states if matched.all() else States(self.states.n, self.states.subset[matched], ~matched[matched])
        return measure_mismatch(self.scores[:, matched] if not matched.all() else self.scores, states, self.table)

    def until(self, step: int) -> "ProbeHistory":
        """The steps up to the index `step`; shares memory."""
        past = slice(step + 1)
        return replace(
            self,
            scores=self.scores[past],
            table=self.table.until(step),
            zeta=self.zeta[past],
            gap=self.gap[past],
            noise=self.noise[past],
            replicates=tuple(table.until(step) for table in self.replicates),
        )

    def words_of(self, subset: int) -> tuple[str, ...]:
        """The words of a subset, in text order."""
        return tuple(word for i, word in enumerate(self.probe.variables) if subset >> i & 1)


@dataclass(frozen=True, eq=False)
class Placebo:
    """One of the run's steps extracted a second time, another way.

    tables: of each probe, of this one step. noise: (P,), root mean square change of v over all masked states.
    """

    step: int
    tables: tuple[EffectTable, ...]
    noise: Floats


@dataclass(frozen=True, eq=False)
class RunHistory:
    """A run over its T ≥ 1 extracted steps. `name`, `left_out` and `not_read` are safe to show.

    not_read: those of `left_out` that are no fault of the file, and may be read another time. machines: what each step
    was made on, see `machines`. measured: what `losses` has and what the training log has at other steps, by name.
    held_out: None where no held-out row was measured by itself, as in runs of earlier versions. log_problems: what of
    the log and the held-out rows is not used, and why; safe to show. same_weights: for each step with the weights of
    one before it, the first that has them; what a step file does not say is not known.
    """

    name: str
    steps: NDArray[np.int64]  # (T,)
    losses: Mapping[str, Floats]  # by name: (T,), NaN where a step has none
    probes: tuple[ProbeHistory, ...]
    run: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    not_read: tuple[str, ...] = ()
    machines: tuple[Machine, ...] = ()  # (T,)
    placebos: tuple[Placebo, ...] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)  # of the scores: asked, taken, candidates measured
    measured: Mapping[str, Measured] = field(default_factory=dict)
    held_out: HeldOutRows | None = None
    log_problems: tuple[str, ...] = ()
    same_weights: Mapping[int, int] = field(default_factory=dict)

    @property
    def independent(self) -> NDArray[np.int64]:
        """Indices of the steps with weights of their own, (T',), T' ≤ T: one that repeats another is no evidence."""
        return np.flatnonzero([step not in self.same_weights for step in self.steps.tolist()])

    def until(self, step: int) -> "RunHistory":
        """The run as it was when the step index `step` was its last; shares memory."""
        last = int(self.steps[step])
        return replace(
            self,
            steps=self.steps[: step + 1],
            losses={name: values[: step + 1] for name, values in self.losses.items()},
            probes=tuple(part.until(step) for part in self.probes),
            machines=self.machines[: step + 1],
            placebos=(),
            measured={name: part.until(last) for name, part in self.measured.items()},
            held_out=None if self.held_out is None else self.held_out.until(last),
        )

    @property
    def n_replicates(self) -> int:
        """B, 0 where nothing is estimated."""
        return max((len(part.replicates) for part in self.probes), default=0)

    def replicate(self, number: int) -> "RunHistory":
        """The run as one replicate has it; what is not estimated is the same in all."""
        probes = [replace(part, table=part.replicates[number]) if part.replicates else part for part in self.probes]
        return replace(self, probes=tuple(probes), placebos=())

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
    folder: RunFolder, steps: Sequence[int], sizes: Sequence[int]
) -> tuple[tuple[Placebo, ...], dict[Path, SftscopeError]]:
    """The placebos of `steps`, and why the others are none: damaged, foreign, of no step that is there, not read."""
    found = []
    refused: dict[Path, SftscopeError] = {}
    for step in folder.placebo_steps():
        file = folder.placebo_file(step)
        try:
            record = folder.read_placebo(step)
            check_sizes(record, sizes, file)
            if step not in steps:
                raise SftscopeError(f"{file}: a placebo of step {step}, which is not among the extracted steps")
        except SftscopeError as error:
            refused[file] = error
            continue
        tables = [
            EffectTable.of_pairs(n, [record.pairs_of(p)], every=record.states_of(p).are_all)
            for p, n in enumerate(sizes)
        ]
        found.append(Placebo(step, tuple(tables), record.noise))
    return tuple(found), refused


class HistoryTable:
    """The arrays of all probes, filled step by step, so that a run is held in memory once.

    sizes: number of words of each probe. The first step that is put says which masked states there are. All effects
    lie in one block that grows, and not in an array a probe and step: of those a long run would have a hundred
    thousand, which hold more than they contain.
    """

    def __init__(self, steps: int, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._n_steps = steps
        self._states: list[States] = []
        self._n_replicates = 0
        self._scores: list[Floats] = []
        self._per_probe = np.empty((steps, 3, len(sizes)))  # ζ, gap, noise
        self._used = 0

    def _begin(self, record: StepRecord) -> None:
        probes = range(len(self._sizes))
        self._states = [record.states_of(p) for p in probes]
        if isinstance(record.effects, SparseEffects):
            self._n_replicates = record.effects.n_replicates
        large = self._n_steps * sum(part.subset.size for part in self._states) > LARGE
        dtype = np.float32 if large else np.float64
        self._scores = [np.empty((self._n_steps, part.subset.size), dtype=dtype) for part in self._states]
        self._relation = np.empty(0, dtype=np.uint8)
        self._subset = np.empty(0, dtype=np.uint16 if max(self._sizes, default=0) <= 16 else np.uint64)
        self._effect = np.empty(0, dtype=dtype)
        # in the three above: of each step, probe and replicate, the first being the effects themselves
        self._ends = np.zeros((self._n_steps, len(self._sizes), 1 + self._n_replicates), dtype=np.int64)

    def put(self, row: int, record: StepRecord) -> None:
        """The step of a row. SftscopeError where its masked states are not those of the first."""
        assert record.effects is not None
        if not self._states:
            self._begin(record)
        self._check(record)
        for p, scores in enumerate(self._scores):
            scores[row] = record.scores[record.probe_slice(p)]
            for replicate in range(1 + self._n_replicates):
                pairs = record.pairs_of(p, replicate)
                start, self._used = self._used, self._used + pairs.effect.size
                if self._used > self._effect.size:
                    self._grow(row)
                own = slice(start, self._used)
                self._relation[own], self._subset[own], self._effect[own] = pairs.relation, pairs.subset, pairs.effect
                self._ends[row, p, replicate] = self._used
        self._per_probe[row] = record.effects.zeta, record.effects.gap, record.noise

    def _check(self, record: StepRecord) -> None:
        replicates = record.effects.n_replicates if isinstance(record.effects, SparseEffects) else 0
        same = replicates == self._n_replicates and all(
            np.array_equal(record.states_of(p).subset, states.subset) for p, states in enumerate(self._states)
        )
        if not same:
            raise SftscopeError(f"step {record.step}: was made with other masked states than the steps before it")

    def _grow(self, row: int) -> None:
        """Room for what all steps need if they are like those up to `row`, and at least a quarter more."""
        size = max(self._used * self._n_steps // (row + 1), self._used + self._used // 4)
        for block in (self._relation, self._subset, self._effect):
            block.resize(size, refcheck=False)  # in place: nothing else holds the block while it is filled

    def probe(self, index: int, steps: int, probe: Probe, target: Mapping[str, Any]) -> ProbeHistory:
        scores, states = self._scores[index][:steps], self._states[index]
        tables = self._tables(index, steps)
        return ProbeHistory(
            probe=probe,
            target=target,
            states=states,
            scores=scores,
            table=tables[0],
            zeta=self._per_probe[:steps, 0, index],
            gap=self._per_probe[:steps, 1, index],
            noise=self._per_probe[:steps, 2, index],
            replicates=() if states.are_all else tables[1:],
        )

    def _tables(self, index: int, steps: int) -> tuple[EffectTable, ...]:
        """The effects of a probe, and those of each replicate."""
        ends = np.concatenate([[0], self._ends[:steps].ravel()])
        n, dtype = len(self._sizes), self._effect.dtype
        tables = []
        for replicate in range(1 + self._n_replicates):
            places = [(step * n + index) * (1 + self._n_replicates) + replicate for step in range(steps)]
            parts = [slice(int(ends[at]), int(ends[at + 1])) for at in places]
            pairs = [Pairs(self._relation[part], self._subset[part], self._effect[part]) for part in parts]
            every = self._states[index].are_all
            tables.append(EffectTable.of_pairs(self._sizes[index], pairs, dtype, every=every))
        return tuple(tables)
