"""How many interactions a probe has, without a threshold: the effective number of interactions.

With p the share of each AND and OR effect in their total strength ‖I‖₁ at one step,

    N_eff = exp(-Σ p ln p),   p = |I| / ‖I‖₁,

the exponential of the entropy (the Hill number of order 1): k equal effects count as k, and an effect that is small
compared with the others hardly counts. It depends on no τ, no base step and no other step, and not on the unit of the
effects.
"""

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import RunHistory
from sftscope.lattice.transforms import Floats


def effective_number(table: EffectTable) -> Floats:
    """N_eff of a probe at every step: (T,), in [1, number of effects]; NaN at a step without effects."""
    strength = np.abs(table.effect.astype(np.float64))
    relative = strength / np.repeat(np.maximum(table.strongest, np.finfo(float).tiny), np.diff(table.start))
    total = table.sums_at_steps(np.add, relative)
    logs = np.log(relative, out=np.zeros_like(relative), where=relative > 0)
    weighted = table.sums_at_steps(np.add, relative * logs)
    safe = np.where(total > 0, total, 1.0)
    number: Floats = np.where(total > 0, np.exp(np.log(safe) - weighted / safe), np.nan)
    return number


def effective_numbers(history: RunHistory) -> Floats:
    """N_eff of every probe at every step: (P, T)."""
    return np.array([effective_number(part.table) for part in history.probes])
