"""The threshold τ: when an interaction counts as encoded, Ω = {(relation, S): |I(S)| > τ}.

τ is applied when reading, never when extracting. A rule gives one τ for each probe and step.
"""

import math
from dataclasses import dataclass

import numpy as np

from sftscope.analysis import DEFAULT_RULE
from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import RunHistory
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.transforms import Floats

RULES: dict[str, tuple[float, str]] = {
    "max-run": (0.05, "share of the strongest effect of the probe over all steps; fixed"),
    "max-base": (0.05, "share of the strongest effect of the probe at the first step; fixed"),
    "max-step": (0.05, "share of the strongest effect of the probe at this step; moves"),
    "pooled-step": (0.05, "share of the strongest effect of all probes at this step; moves"),
    "gap": (0.03, "share of the mean over probes of |v(x_N) - v(x_∅)| at this step; moves"),
    "top-k": (20, "the k strongest interactions of the probe at this step; moves"),
    "absolute": (0.1, "log-odds; fixed"),
}


@dataclass(frozen=True)
class ThresholdRule:
    """A rule of `RULES` with its value; written `max-step:0.05`."""

    name: str
    value: float

    def __post_init__(self) -> None:
        if self.name not in RULES:
            shown = safe_text(repr(self.name), max_length=60)
            raise SftscopeError(f"unknown threshold rule {shown}; known are {', '.join(RULES)}")
        if not math.isfinite(self.value) or self.value < 0:
            raise SftscopeError(f"threshold rule {self.name}: expected a value ≥ 0, got {self.value}")
        if self.name == "top-k" and self.value != int(self.value):
            raise SftscopeError(f"threshold rule top-k: expected a whole number, got {self.value}")

    def __str__(self) -> str:
        return f"{self.name}:{self.value:.12g}"

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """The rule written as `name` or `name:value`; the value has a default."""
        name, colon, value = text.partition(":")
        if not colon:
            return cls(name, RULES.get(name, (0.0, ""))[0])
        try:
            return cls(name, float(value))
        except ValueError:
            shown = safe_text(repr(text), max_length=60)
            raise SftscopeError(f"threshold {shown}: expected name or name:number, such as {DEFAULT_RULE}") from None


def default_rule() -> ThresholdRule:
    """The rule where none is asked for."""
    return ThresholdRule.parse(DEFAULT_RULE)


def default_rules() -> tuple[ThresholdRule, ...]:
    """Every rule with its own default value, in the order of `RULES`."""
    return tuple(ThresholdRule(name, value) for name, (value, _) in RULES.items())


def thresholds(history: RunHistory, rule: ThresholdRule) -> tuple[Floats, ...]:
    """τ of each probe at each step: one (T,) array a probe, in log-odds."""
    strengths = [probe.table.strongest for probe in history.probes]
    steps = history.steps.size
    match rule.name:
        case "max-run":
            return tuple(np.full(steps, rule.value * strongest.max()) for strongest in strengths)
        case "max-base":
            return tuple(np.full(steps, rule.value * strongest[0]) for strongest in strengths)
        case "max-step":
            return tuple(rule.value * strongest for strongest in strengths)
        case "pooled-step":
            pooled = rule.value * np.max(strengths, axis=0)
            return tuple(pooled for _ in strengths)
        case "gap":
            gaps = np.mean([probe.scale for probe in history.probes], axis=0)
            return tuple(rule.value * gaps for _ in strengths)
        case "top-k":
            return tuple(_kth_strength(probe.table, int(rule.value)) for probe in history.probes)
        case _:
            return tuple(np.full(steps, rule.value) for _ in strengths)


def _kth_strength(table: EffectTable, k: int) -> Floats:
    """The (k+1)-th largest strength at each step, so that at most k lie above it: (T,)."""
    limit = np.zeros(table.n_steps)
    strengths = np.abs(table.effect)
    for step in np.flatnonzero(np.diff(table.start) > k).tolist():
        inside = strengths[table.within(step)]
        limit[step] = np.partition(inside, inside.size - k - 1)[inside.size - k - 1]
    return limit
