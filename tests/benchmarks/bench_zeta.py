"""Which kind of noise bound ζ is the better default, by what stays the same: under noise, and on halves of the probes.

    python tests/benchmarks/bench_zeta.py sample_runs/smollm2 sample_runs/gemma3

Kinds: `base`, 2 % of |v(x_N) - v(x_∅)| at step 0, fixed over the steps, as stored; `range`, a share of the range of v
at each step (`[extraction] zeta_range`); `own`, the same with each probe's own share, so that step 0 is that of `base`.
Of each kind: N_eff (means over probes) at the first, sparsest and last step. Noise: normal, of 0.1 of the kind's own ζ,
and of 0.1 of the fixed ζ, is added to the scores, which are decomposed again; then, means over probes and steps, the
change of N_eff, the soft overlap (preserved / ‖I‖₁ of a step against itself) and the Jaccard of the hard sets under
max-step. Halves: the step of the smallest mean log N_eff on 20 random halves of the probes. About 10 minutes on a busy
core.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.run.run_history import ProbeHistory, RunHistory
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.analysis.soft.soft_classes import soft_classes
from sftscope.decomposition import decompose
from sftscope.inputs.settings import ExtractionSettings
from sftscope.lattice.transforms import Floats

NOISE = 0.1  # of ζ
TAU = 0.05  # of the strongest effect at the step
DRAWS = 20
SHARE = ExtractionSettings().zeta_range


def main(paths: Sequence[str]) -> None:
    """Print a table for each run."""
    for path in paths:
        base = load_history(Path(path))
        print(f"\n{path}")
        print("| ζ | N_eff, steps | noise of | N_eff moves by | soft overlap | Jaccard | sparsest step of halves |")
        print("|---|---|---|---|---|---|---|")
        for kind in ("base", "range", "own"):
            history = base if kind == "base" else solved(base, [zeta_of(part, kind) for part in base.probes])
            for name, sizes in (("own ζ", history), ("fixed ζ", base)):
                if kind == "base" and name == "fixed ζ":
                    continue
                figures = " | ".join(f"{value:.3f}" for value in noise_figures(history, sizes, kind))
                print(f"| {kind} | {course(history)} | {name} | {figures} | {halves(history)} |", flush=True)


def zeta_of(part: ProbeHistory, kind: str) -> Floats:
    """ζ of a probe at every step: (T,)."""
    spread = np.ptp(part.scores, axis=1)
    return {"base": part.zeta, "range": SHARE * spread, "own": part.zeta[0] * spread / spread[0]}[kind]


def solved(history: RunHistory, zetas: Sequence[Floats]) -> RunHistory:
    """The history with the scores decomposed under these ζ."""
    return replace(history, probes=tuple(map(_solved, history.probes, zetas)))


def _solved(part: ProbeHistory, zeta: Floats) -> ProbeHistory:
    found = decompose(part.scores.astype(float), zeta, names=[part.probe.variables] * len(zeta), workers=1)
    table = EffectTable.of_dense(np.stack([found.and_effects, found.or_effects], axis=1))
    return replace(part, table=table, zeta=zeta)


def noise_figures(history: RunHistory, sizes: RunHistory, kind: str) -> tuple[float, float, float]:
    """Change of N_eff, soft overlap and Jaccard when noise of 0.1 of the ζ in `sizes` is added: means."""
    rng = np.random.default_rng(0)
    noisy = [
        replace(part, scores=part.scores + rng.normal(size=part.scores.shape) * NOISE * size.zeta[:, None])
        for part, size in zip(history.probes, sizes.probes, strict=True)
    ]
    again = solved(replace(history, probes=tuple(noisy)), [zeta_of(part, kind) for part in noisy])
    change = np.abs(effective_numbers(again) / effective_numbers(history) - 1)
    pairs = [
        (part.table.at(step), other.table.at(step))
        for part, other in zip(history.probes, again.probes, strict=True)
        for step in range(history.steps.size)
    ]
    soft = [soft_classes(EffectTable.of_dense(np.stack(pair))) for pair in pairs]
    overlap = [each.preserved[1] / each.at_base[1] for each in soft]
    sets = [tuple(np.abs(each) > TAU * np.abs(each).max() for each in pair) for pair in pairs]
    jaccard = [(one & two).sum() / (one | two).sum() for one, two in sets]
    return float(change.mean()), float(np.mean(overlap)), float(np.mean(jaccard))


def course(history: RunHistory) -> str:
    """N_eff at the first, the sparsest and the last step."""
    numbers = effective_numbers(history)
    lowest = int(np.log(numbers).mean(axis=0).argmin())
    return " → ".join(f"{numbers[:, at].mean():.0f} (step {history.steps[at]})" for at in (0, lowest, -1))


def halves(history: RunHistory) -> str:
    """How often each step is the sparsest on a random half of the probes."""
    logs, rng = np.log(effective_numbers(history)), np.random.default_rng(0)
    chosen = [rng.permutation(len(logs))[: len(logs) // 2] for _ in range(DRAWS)]
    found = Counter(int(history.steps[logs[half].mean(axis=0).argmin()]) for half in chosen)
    return ", ".join(f"{step}: {count}" for step, count in sorted(found.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
