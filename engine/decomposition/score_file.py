"""AND-OR interactions of any score vector in a .npy file, with their certificate: `sftscope decompose`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.decomposition.batch import Decomposition, decompose
from engine.decomposition.reference import decompose_by_descent
from engine.errors import SftscopeError
from engine.interactions import Floats, Relation, logical_model

Solver = Callable[[Floats, float], Decomposition]
SOLVERS: dict[str, Solver] = {"certified": decompose, "reference": decompose_by_descent}
SHOWN = 20
MAX_BYTES = 2**30


def read_scores(path: Path) -> Floats:
    """Rows of scores (B, 2^n) from a .npy file that holds one row or several; nothing is unpickled."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SftscopeError(f"{path}: larger than {MAX_BYTES >> 20} MiB; give fewer score vectors at once")
        scores = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file; expected scores saved by numpy.save") from None
    except (OSError, ValueError, EOFError) as error:
        raise SftscopeError(f"{path}: not a .npy file of numbers: {error}") from None
    if not isinstance(scores, np.ndarray) or scores.dtype.kind not in "fiu" or scores.ndim not in (1, 2):
        shown = f"{scores.ndim} of {scores.dtype}" if isinstance(scores, np.ndarray) else "an archive"
        raise SftscopeError(f"{path}: expected one or two dimensions of numbers, got {shown}")
    length = scores.shape[-1]
    if length < 2 or length & (length - 1) or not scores.size:
        raise SftscopeError(f"{path}: expected 2^n scores a row in subset order, got {length}")
    return np.atleast_2d(scores).astype(np.float64)


def decompose_file(path: Path, zeta: float, solver: str = "certified") -> list[dict[str, Any]]:
    """One plain record for each score vector of the file: its certificate and its interactions, strongest first.

    solver: "certified", or "reference" for the plain descent of earlier work, whose gap may be anything.
    """
    if solver not in SOLVERS:
        raise SftscopeError(f"--solver {solver!r}: expected {' or '.join(SOLVERS)}")
    if not zeta >= 0 or zeta == float("inf"):
        raise SftscopeError(f"--zeta: expected a number ≥ 0, got {zeta}")
    scores = read_scores(path)
    try:
        result = SOLVERS[solver](scores, zeta)
    except SftscopeError as error:
        raise SftscopeError(f"{path}: {error}") from error
    model = logical_model(result.bias, result.and_effects, result.or_effects)
    return [
        {
            "n_variables": int(scores.shape[1]).bit_length() - 1,
            "bias": float(result.bias[row]),
            "zeta": float(result.zeta[row]),
            "objective": float(result.objective[row]),
            "lower_bound": float(result.lower_bound[row]),
            "gap": float(result.gap[row]),
            "solver": result.solver[row],
            "largest_mismatch": float(np.abs(model[row] - scores[row]).max()),
            "interactions": _interactions(result.and_effects[row], result.or_effects[row]),
        }
        for row in range(len(scores))
    ]


def render(results: list[dict[str, Any]]) -> str:
    """The records as text, the strongest interactions of each."""
    blocks = []
    for number, result in enumerate(results):
        interactions = result["interactions"]
        kind = "not optimal:" if result["solver"] == "reference" else "certified"
        lines = [
            f"vector {number}: n = {result['n_variables']}, {len(interactions)} interactions, "
            f"bias {result['bias']:+.6g}, objective {result['objective']:.6g}",
            f"  {kind} relative gap {result['gap']:.1e} ({result['solver']}), "
            f"largest |h - v| {result['largest_mismatch']:.3g}, allowed {result['zeta']:.3g}",
        ]
        lines += [
            f"  {item['relation']:<3} {item['effect']:+10.4f}  {{{', '.join(map(str, item['variables']))}}}"
            for item in interactions[:SHOWN]
        ]
        if len(interactions) > SHOWN:
            lines.append(f"  … and {len(interactions) - SHOWN} weaker ones (--json shows all)")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _interactions(and_effects: Floats, or_effects: Floats) -> list[dict[str, Any]]:
    found = [
        {
            "relation": relation.name,
            "subset": int(subset),
            "variables": [i for i in range(int(subset).bit_length()) if int(subset) >> i & 1],
            "effect": float(effects[subset]),
        }
        for relation, effects in ((Relation.AND, and_effects), (Relation.OR, or_effects))
        for subset in np.flatnonzero(effects)
    ]
    return sorted(found, key=lambda item: -abs(item["effect"]))
