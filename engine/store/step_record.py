"""What a step file holds, as arrays: the record, its columns by name, and the error of a file that is not one.

Knows nothing of HDF5; the format is that of `step_file`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import SftscopeError
from engine.interactions import Floats

MAX_STATES = 2**24  # 128 MiB a column; 16,384 probes of 10 words, 256 of 16
MAX_VARIABLES = 20
MAX_STEP = 10**12 - 1
CHUNK = 65_536  # most values in a chunk of a dataset

PER_PROBE = {"n_variables": "<i4", "target": "<i8", "noise": "<f8"}
PER_PROBE_EFFECTS = {"zeta": "<f8", "gap": "<f8", "objective": "<f8"}
COLUMNS = {"scores": "<f8"}
COLUMNS_EFFECTS = {"and_effects": "<f8", "or_effects": "<f8"}


class StepFileError(SftscopeError):
    """A step file that is damaged, foreign or of a newer format; the message names the file."""


@dataclass(frozen=True, eq=False)
class Effects:
    """The decomposition of every probe: columns over all masked states (M,), and per probe (P,)."""

    and_effects: Floats
    or_effects: Floats
    zeta: Floats
    gap: Floats
    objective: Floats


@dataclass(frozen=True, eq=False)
class StepRecord:
    """The content of one step file; `effects` is None in a draft that is only scored.

    scores: (M,), probe after probe, each 2^n long and indexed by subset. losses: by name, in nats
    per response token. provenance: what made the record, JSON.
    """

    step: int
    n_variables: NDArray[np.int32]
    target: NDArray[np.int64]
    scores: Floats
    noise: Floats
    effects: Effects | None
    losses: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each probe in the columns, and their end: (P + 1,)."""
        return np.concatenate([[0], np.cumsum(np.int64(1) << self.n_variables.astype(np.int64))])

    def probe_slice(self, probe: int) -> slice:
        """Where probe number `probe` lies in the columns."""
        offsets = self.offsets
        return slice(int(offsets[probe]), int(offsets[probe + 1]))
