"""What a step file holds, as arrays: the record, its columns by name, and the error of a file that is not one.

Knows nothing of HDF5; the format is that of `step_file`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.lattice.masked_states import States, every_state
from sftscope.lattice.transforms import Bools, Floats, Relation, Subsets

MAX_STATES = 2**24  # 128 MiB a column; 16,384 probes of 10 words, 256 of 16
MAX_VARIABLES = 20  # of probes whose masked states are all there
MAX_SAMPLED_VARIABLES = 64
MAX_STEP = 10**12 - 1
VERSION, SAMPLED_VERSION = 1, 2  # of the format
CHUNK = 65_536  # most values in a chunk of a dataset

PER_PROBE = {"n_variables": "<i4", "target": "<i8", "noise": "<f8"}
PER_PROBE_EFFECTS = {"zeta": "<f8", "gap": "<f8", "objective": "<f8"}
COLUMNS = {"scores": "<f8"}
COLUMNS_EFFECTS = {"and_effects": "<f8", "or_effects": "<f8"}
# of a sampled step: in place of all 2^n states, and in place of the two columns of effects
SAMPLE = {"n_states": "<i8", "states": "<u8", "held_out": "|u1"}
SPARSE_EFFECTS = {"n_effects": "<i8", "relation": "|u1", "subset": "<u8", "effect": "<f8"}

IN_PROCESS = "in process"  # as `adapter_sha256`: scored in the training, from weights that no file held

_LOSS_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# of what the provenance has that its readers look into; all else in it is kept and never used
_PROVENANCE: Mapping[str, Callable[[Any], bool]] = {
    "identity": lambda value: isinstance(value, str),
    "adapter_sha256": lambda value: isinstance(value, str),
    "weights_sha256": lambda value: isinstance(value, str),
    "dtype": lambda value: isinstance(value, str),
    "zeta_source": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "baseline_vector": lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
    "verify": lambda value: isinstance(value, dict) and _is_verify_record(value),
    "precision": lambda value: isinstance(value, dict) and isinstance(value.get("taken", ""), str),
}

TYPES = {**PER_PROBE, "offsets": "<i8", **COLUMNS, **PER_PROBE_EFFECTS, **COLUMNS_EFFECTS, **SAMPLE, **SPARSE_EFFECTS}


class StepFileError(SftscopeError):
    """A step file that is damaged, foreign or of a newer format, for certain; the message names the file.

    One that could not be read now is a NotReadError.
    """


class NewerFormatError(StepFileError):
    """A step file that a newer sftscope wrote: nothing is wrong with it, and it is never recomputed or overwritten."""


class TooSlowError(NotReadError):
    """A step file that needs more computing than any should: not tried again before it changes."""


class NoReaderError(NotReadError):
    """No step file can be read now: the process for it cannot be started. Ends whatever reads many of them."""


def is_loss_name(name: str) -> bool:
    """Whether a loss may be called so: a name is shown, and is a column of tables."""
    return _LOSS_NAME.fullmatch(name) is not None


def unknown_kind(provenance: Mapping[str, Any]) -> str:
    """The first entry of a provenance that is of another kind than its readers take for granted; empty if none is."""
    return next((name for name, fits in _PROVENANCE.items() if name in provenance and not fits(provenance[name])), "")


def _is_verify_record(value: Mapping[str, Any]) -> bool:
    largest = value.get("largest_difference")
    numbers = isinstance(largest, list) and all(item is None or type(item) in (int, float) for item in largest)
    return type(value.get("states")) is int and numbers


@dataclass(frozen=True, eq=False)
class Effects:
    """The decomposition of every probe: columns over all masked states (M,), and per probe (P,)."""

    and_effects: Floats
    or_effects: Floats
    zeta: Floats
    gap: Floats
    objective: Floats


@dataclass(frozen=True, eq=False)
class Pairs:
    """Effects that are not zero: relation, subset (a bitmask) and effect, each (k,)."""

    relation: NDArray[Any]
    subset: NDArray[Any]
    effect: NDArray[Any]


@dataclass(frozen=True, eq=False)
class SparseEffects:
    """The estimate of every probe, and B of resampled masked states: what is not zero, one after the other.

    n_effects: (P (1 + B),), how many: of probe 0, of its B replicates, of probe 1 … relation, subset, effect: (E,).
    zeta, gap, objective: (P,), of the estimates.
    """

    n_effects: NDArray[np.int64]
    relation: NDArray[np.uint8]
    subset: Subsets
    effect: Floats
    zeta: Floats
    gap: Floats
    objective: Floats

    @property
    def n_replicates(self) -> int:
        """B."""
        return self.n_effects.size // self.zeta.size - 1

    def block(self, probe: int, replicate: int) -> Pairs:
        """The estimate of a probe (replicate 0), or one of its replicates (1 … B)."""
        place = probe * (1 + self.n_replicates) + replicate
        start = int(self.n_effects[:place].sum())
        part = slice(start, start + int(self.n_effects[place]))
        return Pairs(self.relation[part], self.subset[part], self.effect[part])


@dataclass(frozen=True, eq=False)
class Sample:
    """The masked states of every probe, where not all 2^n of each are there.

    n_states: (P,). states, held_out: (M,), probe after probe; see `sftscope.lattice.masked_states.States`.
    """

    n_states: NDArray[np.int64]
    states: Subsets
    held_out: Bools

    @classmethod
    def of(cls, states: Sequence[States]) -> "Sample | None":
        """Those of the probes; None where all of them are complete."""
        if all(part.are_all for part in states):
            return None
        return cls(
            np.array([part.subset.size for part in states], dtype=np.int64),
            np.concatenate([part.subset for part in states]),
            np.concatenate([part.held_out for part in states]),
        )


@dataclass(frozen=True, eq=False)
class StepRecord:
    """The content of one step file; `effects` is None in a draft that is only scored.

    scores: (M,), probe after probe, each 2^n long and indexed by subset, or at the states of `sample`. losses: by
    name, in nats per response token. provenance: what made the record, JSON.
    """

    step: int
    n_variables: NDArray[np.int32]
    target: NDArray[np.int64]
    scores: Floats
    noise: Floats
    effects: Effects | SparseEffects | None
    losses: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sample: Sample | None = None

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each probe in the columns, and their end: (P + 1,)."""
        return offsets_of(self.n_variables, self.sample)

    @property
    def weights(self) -> str | None:
        """Which weights were scored, as a hash; empty for the base's own, None where the file does not say."""
        found: str | None = self.provenance.get("weights_sha256")
        if found is None and self.step == 0 and self.provenance.get("adapter_sha256") == "":
            return ""  # as earlier releases wrote step 0
        return found

    def states_of(self, probe: int) -> States:
        """The masked states of probe number `probe`."""
        n, part = int(self.n_variables[probe]), self.probe_slice(probe)
        if self.sample is None:
            return every_state(n)
        return States(n, self.sample.states[part], self.sample.held_out[part])

    def pairs_of(self, probe: int, replicate: int = 0) -> Pairs:
        """The effects of probe number `probe` that are not zero, or those of one of its replicates (1 … B).

        ValueError in a draft, which has no effects.
        """
        if self.effects is None:
            raise ValueError("a draft has no effects")
        if isinstance(self.effects, SparseEffects):
            return self.effects.block(probe, replicate)
        part = self.probe_slice(probe)
        both = [self.effects.and_effects[part], self.effects.or_effects[part]]
        found = [np.flatnonzero(column) for column in both]
        return Pairs(
            np.repeat(np.array(Relation, dtype=np.uint8), [places.size for places in found]),
            np.concatenate(found).astype(np.uint64),
            np.concatenate([column[places] for column, places in zip(both, found, strict=True)]),
        )

    def probe_slice(self, probe: int) -> slice:
        """Where probe number `probe` lies in the columns."""
        offsets = self.offsets
        return slice(int(offsets[probe]), int(offsets[probe + 1]))


def offsets_of(n_variables: NDArray[np.int32], sample: Sample | None) -> NDArray[np.int64]:
    """Start of each probe in the columns over masked states, and their end: (P + 1,)."""
    sizes = np.int64(1) << n_variables.astype(np.int64) if sample is None else sample.n_states
    return np.concatenate([[0], np.cumsum(sizes)])


def dataset_names(*, sampled: bool, decomposed: bool) -> tuple[str, ...]:
    """The columns that a step file has, in its order."""
    names = ["n_variables", *(("n_states",) if sampled else ()), "offsets", "target", "noise", "scores"]
    if sampled:
        names += ["states", "held_out"]
    if decomposed:
        names += [*PER_PROBE_EFFECTS, *(SPARSE_EFFECTS if sampled else COLUMNS_EFFECTS)]
    return tuple(names)


def columns_of(record: StepRecord) -> dict[str, NDArray[Any]]:
    """The columns of a record by name, of the types of a step file."""
    names = dataset_names(sampled=record.sample is not None, decomposed=record.effects is not None)
    parts = [part for part in (record, record.sample, record.effects) if part is not None]
    return {
        name: np.asarray(next(getattr(part, name) for part in parts if hasattr(part, name))).astype(TYPES[name])
        for name in names
    }


def from_columns(columns: Mapping[str, NDArray[Any]], **rest: Any) -> StepRecord:
    """The record of such columns; rest: its other fields."""
    sample: Sample | None = None
    effects: Effects | SparseEffects | None = None
    if "states" in columns:
        sample = Sample(columns["n_states"], columns["states"], columns["held_out"].astype(bool))
    per_probe = {name: columns[name] for name in PER_PROBE_EFFECTS if name in columns}
    if "and_effects" in columns:
        effects = Effects(**per_probe, **{name: columns[name] for name in COLUMNS_EFFECTS})
    elif "effect" in columns:
        effects = SparseEffects(**per_probe, **{name: columns[name] for name in SPARSE_EFFECTS})
    bare: dict[str, Any] = {name: columns[name] for name in (*PER_PROBE, *COLUMNS)}
    return StepRecord(**bare, sample=sample, effects=effects, **rest)


def expected_length(name: str, columns: Mapping[str, NDArray[Any]], states: int) -> int | None:
    """How many values a column has, given those before it in the file and the number of masked states in all.

    None where that is free: `n_effects` has one or more values per probe.
    """
    probes = columns["n_variables"].size
    if name in SPARSE_EFFECTS:
        return None if name == "n_effects" else max(int(columns["n_effects"].sum()), 1)
    if name == "offsets":
        return probes + 1
    return states if name in (*COLUMNS, *COLUMNS_EFFECTS, "states", "held_out") else probes
