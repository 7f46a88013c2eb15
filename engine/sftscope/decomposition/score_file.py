"""AND-OR interactions of any scores in a file, with their certificate: `sftscope decompose`.

A .npy file holds whole vectors of 2^n scores; a .npz file sampled masked states, for more words: an estimate.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sftscope.decomposition.batch import Decomposition, decompose
from sftscope.decomposition.rivals.spex import estimate_by_proxyspex, estimate_by_spex
from sftscope.decomposition.rivals.subgradient_descent import decompose_by_descent
from sftscope.decomposition.sampled.column_generation import subsets_of
from sftscope.decomposition.sampled.estimate import Estimate, error_by_present, estimate
from sftscope.files.arrays import read_npy, read_npz
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.masked_states import MOST_WORDS, States, held_out_r2, hold_out
from sftscope.lattice.transforms import Bools, Floats, Relation, logical_model

Solver = Callable[[Floats, float], Decomposition]
SOLVERS: dict[str, Solver] = {"certified": decompose, "reference": decompose_by_descent}
SAMPLED_SOLVERS: dict[str, Callable[[States, Floats, float], Estimate]] = {
    "certified": estimate,
    "mobius": partial(estimate, only_and=True),
    "spex": lambda states, scores, zeta: estimate_by_spex(states, scores),
    "proxyspex": lambda states, scores, zeta: estimate_by_proxyspex(states, scores),
}
UNCERTIFIED = ("reference", "spex", "proxyspex")
SCHEMA = "sftscope-decompose"
VERSION = 1
SHOWN = 20
MAX_BYTES = 2**30
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Interaction:
    """variables: the numbers of the words in `subset`."""

    relation: str
    subset: int
    variables: list[int]
    effect: float

    @classmethod
    def of(cls, relation: int, subset: int, effect: float) -> "Interaction":
        number = int(subset)
        variables = [i for i in range(number.bit_length()) if number >> i & 1]
        return cls(Relation(relation).name, number, variables, float(effect))


@dataclass(frozen=True)
class Decomposed:
    """A whole vector of scores: its certificate and its interactions, strongest first."""

    n_variables: int
    bias: float
    zeta: float
    objective: float
    lower_bound: float
    gap: float
    solver: str
    largest_mismatch: float
    interactions: list[Interaction]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"schema": SCHEMA, "version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class Estimated:
    """Sampled masked states: as of a whole vector, and how far the estimate can be believed; None is undefined."""

    n_variables: int
    estimated: bool
    masked_states: int
    held_out_states: int
    held_out_r2: float | None
    held_out_error_by_words_present: Any
    largest_order: int
    candidates: str
    bias: float
    zeta: float | None
    objective: float
    gap: float | None
    solver: str
    largest_mismatch: float
    interactions: list[Interaction]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"schema": SCHEMA, "version": VERSION, **asdict(self)}


def read_scores(path: Path) -> Floats:
    """Rows of scores (B, 2^n) from a .npy file that holds one row or several; nothing is unpickled."""
    scores = _load(read_npy, path)
    if scores.dtype.kind not in "fiu" or scores.ndim not in (1, 2):
        raise SftscopeError(f"{path}: expected one or two dimensions of numbers, got {scores.ndim} of {scores.dtype}")
    length = scores.shape[-1]
    if length < 2 or length & (length - 1) or not scores.size:
        raise SftscopeError(f"{path}: expected 2^n scores per row in subset order, got {length}")
    return np.atleast_2d(scores).astype(np.float64)


def read_sampled_scores(path: Path) -> tuple[Bools, Floats]:
    """masks (m, n) and scores (m,) from a .npz file of these two names; nothing is unpickled."""
    archive = _load(read_npz, path)
    if set(archive) != {"masks", "scores"}:
        raise SftscopeError(f"{path}: expected an archive of masks (m, n) and scores (m,), saved by numpy.savez")
    masks, scores = archive["masks"], archive["scores"]
    if masks.dtype.kind not in "biu" or ((masks != 0) & (masks != 1)).any():
        raise SftscopeError(f"{path}: masks: expected 0 and 1, or true and false")
    if scores.dtype.kind not in "fiu":
        raise SftscopeError(f"{path}: scores: expected numbers, got {scores.dtype}")
    return masks.astype(bool), scores.astype(np.float64)


def _load(read: Callable[[Path, int], Loaded], path: Path) -> Loaded:
    try:
        return read(path, MAX_BYTES)
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file; expected scores saved by numpy.save") from None
    except (OSError, ValueError) as error:
        reason = safe_text(str(error), max_length=200)
        raise SftscopeError(f"{path}: not a {path.suffix or '.npy'} file of numbers: {reason}") from None


def decompose_file(path: Path, zeta: float, solver: str = "certified") -> Sequence[Decomposed | Estimated]:
    """One record for each score vector of the file: its certificate and its interactions, strongest first.

    solver: "certified"; of whole vectors "reference" too, the plain descent of earlier work, whose gap may be anything,
    of sampled masked states "mobius" (AND effects alone, certified), "spex" and "proxyspex".
    """
    offered = SAMPLED_SOLVERS if path.suffix == ".npz" else SOLVERS
    if solver not in offered:
        raise SftscopeError(f"--solver {solver!r}: expected {' or '.join(offered)} for a {path.suffix} file")
    if not zeta >= 0 or zeta == float("inf"):
        raise SftscopeError(f"--zeta: expected a number ≥ 0, got {zeta}")
    if path.suffix == ".npz":
        return [_estimated(path, zeta, solver)]
    scores = read_scores(path)
    try:
        result = SOLVERS[solver](scores, zeta)
    except SftscopeError as error:
        raise SftscopeError(f"{path}: {error}") from error
    model = logical_model(result.bias, result.and_effects, result.or_effects)
    return [
        Decomposed(
            n_variables=int(scores.shape[1]).bit_length() - 1,
            bias=float(result.bias[row]),
            zeta=float(result.zeta[row]),
            objective=float(result.objective[row]),
            lower_bound=float(result.lower_bound[row]),
            gap=float(result.gap[row]),
            solver=result.solver[row],
            largest_mismatch=float(np.abs(model[row] - scores[row]).max()),
            interactions=_interactions(result.and_effects[row], result.or_effects[row]),
        )
        for row in range(len(scores))
    ]


def _estimated(path: Path, zeta: float, solver: str) -> Estimated:
    masks, scores = read_sampled_scores(path)
    try:
        states, scores = _states_and_scores(masks, scores)
        result = SAMPLED_SOLVERS[solver](states, scores, zeta)
    except SftscopeError as error:
        raise SftscopeError(f"{path}: {error}") from error
    states = result.states  # of which SPEX holds out what it does not ask for
    model = result.model(states.subset)
    r2 = held_out_r2(states, scores, model)
    found = zip(result.relation, result.subset, result.effect, strict=True)
    return Estimated(
        n_variables=states.n,
        estimated=True,
        masked_states=states.subset.size,
        held_out_states=int(states.held_out.sum()),
        held_out_r2=_or_none(r2),
        held_out_error_by_words_present=error_by_present(states, scores, model),
        largest_order=result.most_order,
        candidates=result.candidates,
        bias=result.bias,
        zeta=_or_none(result.zeta),
        objective=result.objective,
        gap=_or_none(result.gap),
        solver={"certified": "columns brought in"}.get(solver, solver),
        largest_mismatch=result.mismatch,
        interactions=_strongest_first(Interaction.of(*each) for each in found),
    )


def _or_none(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if np.isnan(value) else value


def _states_and_scores(masks: Bools, scores: Floats) -> tuple[States, Floats]:
    """Masked states in their order, some held out, and their scores. SftscopeError for what is no such sample."""
    if masks.ndim != 2 or scores.shape != masks.shape[:1]:
        raise SftscopeError(f"expected masks (m, n) and scores (m,), got {masks.shape} and {scores.shape}")
    if not 1 <= masks.shape[1] <= MOST_WORDS:
        raise SftscopeError(f"{masks.shape[1]} words: expected 1 to {MOST_WORDS}")
    subset = subsets_of(masks)
    return hold_out(masks.shape[1], subset), scores[np.argsort(subset)]


def render(results: Sequence[Decomposed | Estimated]) -> str:
    """The records as text, the strongest interactions of each."""
    blocks = []
    for number, result in enumerate(results):
        interactions = result.interactions
        kind = "not optimal:" if result.solver in UNCERTIFIED else "certified"
        gap = "unknown" if result.gap is None else f"{result.gap:.1e}"
        allowed = "anything" if result.zeta is None else f"{result.zeta:.3g}"
        lines = [
            f"vector {number}: n = {result.n_variables}, {len(interactions)} interactions, "
            f"bias {result.bias:+.6g}, objective {result.objective:.6g}",
            f"  {kind} relative gap {gap} ({result.solver}), "
            f"largest |h - v| {result.largest_mismatch:.3g}, allowed {allowed}",
        ]
        if isinstance(result, Estimated):
            r2 = "undefined" if result.held_out_r2 is None else f"{result.held_out_r2:.4f}"
            lines.append(
                f"  ESTIMATED from {result.masked_states} of 2^{result.n_variables} masked states, "
                f"{result.candidates}; R² of "
                f"{result.held_out_states} held-out states {r2}"
            )
        lines += [
            f"  {item.relation:<3} {item.effect:+10.4f}  {{{', '.join(map(str, item.variables))}}}"
            for item in interactions[:SHOWN]
        ]
        if len(interactions) > SHOWN:
            lines.append(f"  … and {len(interactions) - SHOWN} weaker ones (--json shows all)")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _interactions(and_effects: Floats, or_effects: Floats) -> list[Interaction]:
    return _strongest_first(
        Interaction.of(relation, int(subset), effects[subset])
        for relation, effects in ((Relation.AND, and_effects), (Relation.OR, or_effects))
        for subset in np.flatnonzero(effects)
    )


def _strongest_first(found: Iterable[Interaction]) -> list[Interaction]:
    return sorted(found, key=lambda item: -abs(item.effect))
