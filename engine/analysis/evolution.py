"""The sets of Eq. (4)-(6): which interactions SFT removed, preserved, and newly invented.

An interaction is encoded where it is stronger than τ and than the noise floor of its order:
Ω = {(relation, S): |I(S)| > max(τ, floor(S))}. The floor is part of Ω itself, at the base step and at
the present one alike, so that the partition laws hold with it: removed ∪ preserved = Ω_base,
preserved ∪ emerged = Ω_now, and what noise alone can make neither emerges nor is removed.

An interaction's identity is (relation, subset) within a probe; sets are boolean arrays
(2, 2^n), axis 0 by Relation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from engine.analysis.history import RunHistory
from engine.analysis.noise import noise_floor
from engine.analysis.thresholds import ThresholdRule, thresholds
from engine.interactions import Floats

Sets = NDArray[np.bool_]


class Change(StrEnum):
    """What became of an interaction between the base step and the present one."""

    REMOVED = "removed"
    PRESERVED = "preserved"
    EMERGED = "emerged"


def partition(before: Sets, after: Sets, kept: Sets | None = None) -> dict[Change, Sets]:
    """The three sets between Ω `before` and Ω `after`; `kept` is preserved, by default what is in both."""
    if kept is None:
        kept = before & after
    return {Change.REMOVED: before & ~kept, Change.PRESERVED: kept, Change.EMERGED: after & ~kept}


@dataclass(frozen=True, eq=False)
class Evolution:
    """A run's history with a threshold rule applied: Ω of every probe at every step.

    tau: per probe (T,). floor: per probe (2^n,), the same at all steps. encoded: per probe (T, 2, 2^n).
    """

    history: RunHistory
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    tau: tuple[Floats, ...] = field(init=False)
    floor: tuple[Floats, ...] = field(init=False)
    encoded: tuple[Sets, ...] = field(init=False)

    def __post_init__(self) -> None:
        probes = self.history.probes
        object.__setattr__(self, "tau", thresholds(self.history, self.rule))
        object.__setattr__(self, "floor", tuple(noise_floor(probe.noise, probe.n_variables) for probe in probes))
        encoded = tuple(np.abs(probe.effects) > self._limit(p) for p, probe in enumerate(probes))
        object.__setattr__(self, "encoded", encoded)

    def _limit(self, probe: int) -> Floats:
        """max(τ, floor): (T, 1, 2^n)."""
        return np.maximum(self.tau[probe][:, None, None], self.floor[probe])

    def encodes(self, probe: int, now: int, effects: Floats) -> Sets:
        """Ω that other effects (2, 2^n) would have in place of those of the step index `now`: (2, 2^n)."""
        return np.abs(effects) > self._limit(probe)[now]

    def below_floor(self, probe: int) -> Sets:
        """What is stronger than τ and yet not counted, because noise can make it: (T, 2, 2^n)."""
        above_tau: Sets = np.abs(self.history.probes[probe].effects) > self.tau[probe][:, None, None]
        return above_tau & ~self.encoded[probe]

    def counts(self) -> NDArray[np.int64]:
        """|Ω_t| by probe and step: (P, T)."""
        return np.array([omega.sum(axis=(1, 2)) for omega in self.encoded])

    def partition(self, probe: int, now: int, base: int = 0, *, trajectory: bool = False) -> dict[Change, Sets]:
        """The three sets of a probe between the step indices `base` and `now`, each (2, 2^n).

        removed = Ω_base ∖ preserved, preserved = Ω_base ∩ Ω_now, emerged = Ω_now ∖ preserved. With
        `trajectory`, preserved asks that the interaction be encoded at every step in between; one that
        left Ω and came back is then both removed and emerged.
        """
        omega = self.encoded[probe]
        first, last = min(base, now), max(base, now)
        kept: Sets | None = np.all(omega[first : last + 1], axis=0) if trajectory else None
        return partition(omega[base], omega[now], kept)

    def effects_of(self, probe: int, change: Change, now: int, base: int = 0) -> Floats:
        """The effects that stand for a class: of the base step for removed, of the present step otherwise."""
        effects: Floats = self.history.probes[probe].effects[base if change is Change.REMOVED else now]
        return effects

    def emerged_by(self, probe: int, now: int, base: int, boundary: int) -> Mapping[str, Sets]:
        """The emerged set split by when its interactions were first seen: up to `boundary`, or later.

        Both are subsets of the two-point emerged set at `now`; all arguments are step indices.
        """
        emerged = self.partition(probe, now, base)[Change.EMERGED]
        early = self.encoded[probe][: boundary + 1].any(axis=0)
        return {"emerged early": emerged & early, "emerged late": emerged & ~early}
