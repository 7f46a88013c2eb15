"""Preserved, signs and ratios next to their values by chance, and the turnover that net counts hide."""

import math
from collections.abc import Sequence

from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import Changes, Trends
from sftscope.analysis.trust.noise_support import COPIES, SHARE_OF_ZETA
from sftscope.reporting.tables import GLYPHS, Table, number, signed

CHANCE_LEGEND = (
    "By chance: what independent sets as large by relation, order (and sign) would preserve.",
    "= same: what is preserved with the same sign.",
    "z = ΣI / √ΣI², mean ± 2 standard errors over probes: 0 for random signs.",
    "Turnover: the share of neighbouring steps' sets that changed; soft: of their strengths, without τ.",
    "Random signs: what γu would be then, mostly a matter of the class's size.",
)


SUPPORT_LEGEND = (
    f"Support: in how many of {COPIES} copies of the scores, with noise of {SHARE_OF_ZETA:g} ζ, a row has its class."
)


def preserved_in_words(diff: Changes) -> str:
    """How many of the preserved rows kept their sign, and how many would be there by chance; empty without any."""
    if math.isnan(diff.preserved_by_chance):
        return ""
    kept, flipped = diff.counts[Change.PRESERVED] - diff.flipped, diff.flipped
    flipped_by_chance = diff.preserved_by_chance - diff.same_sign_by_chance
    return (
        f"Preserved: {kept} with the same sign ({diff.same_sign_by_chance:.1f} by chance), "
        f"{flipped} with the sign flipped ({flipped_by_chance:.1f} by chance)."
    )


def chance_table(trends: Trends, indices: Sequence[int]) -> Table:
    """What is preserved next to what would be by chance, z of the classes, and the turnover, at the steps `indices`."""
    headers = ["step", "= n", "by chance", "= same", "by chance"]
    headers += ["− z", "= same z", "+ z", "turnover", "soft"]
    curves = (trends.classes[Change.REMOVED], trends.same_sign, trends.classes[Change.EMERGED])
    rows = []
    for t in indices:
        counts = (
            trends.classes[Change.PRESERVED].count_mean[t],
            trends.preserved_by_chance[t],
            trends.same_sign.count_mean[t],
            trends.same_sign_by_chance[t],
        )
        z = [_with_error(curve.z_mean[t], curve.z_error[t]) for curve in curves]
        turnover = (trends.turnover[t], trends.soft.turnover_mean[t])
        rows.append((str(trends.steps[t]), *(number(value, 1) for value in counts), *z, *map(number, turnover)))
    return Table(tuple(headers), rows)


def ratios_table(trends: Trends, indices: Sequence[int]) -> Table:
    """Uncancelled ratios with their value for random signs; generalizable ratios with that of independent sets."""
    headers = ["step"]
    for change in Change:
        headers += [f"{GLYPHS[change]} γu", "random signs"]
    named = [(GLYPHS[change], trends.classes[change]) for change in Change] if trends.has_reference else []
    named[2:2] = [("= same sign", trends.same_sign)] if named else []
    for name, _ in named:
        headers += [f"{name} ρ", "by chance"]
    rows = []
    for t in indices:
        row = [str(trends.steps[t])]
        for change in Change:
            curve = trends.classes[change]
            row += [number(curve.uncancelled_mean[t]), number(curve.uncancelled_by_chance[t])]
        for _, curve in named:
            row += [number(curve.generalizable_mean[t]), number(curve.generalizable_by_chance[t])]
        rows.append(tuple(row))
    return Table(tuple(headers), rows)


def _with_error(value: float, error: float) -> str:
    """A mean with two standard errors."""
    return signed(value) + ("" if math.isnan(error) else f" ± {error:.2f}")
