"""Interior points of many score vectors at once on a GPU, for `sftscope.decomposition` to finish.

The same predictor-corrector as `sftscope.decomposition.exact.interior_point`, batched, on dense matrices: what is a
look-up on a CPU is a product on a GPU. A point is only a start: the vertex next to it is solved, priced and
certified by the decomposition as ever, so the effects do not depend on the device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sftscope.decomposition import Iterate, LatticeProgram, lattice_program
from sftscope.lattice.transforms import Floats

MOST_VARIABLES = 12  # D is 4096 × 8179 there, 0.27 GB
MOST_BYTES = 4e9  # of D diag(θ), for all vectors of a batch
MOST_STEPS = 40
CLOSE_ENOUGH = 1e-9  # a gap from which on the face is plain
BACK_OFF = 0.995
RIDGE = 0.1  # of the least-squares start
TINY = 1e-300


def points_on(device: torch.device, scores: Floats, zeta: Floats) -> list[Iterate | None]:
    """A nearly optimal point of each vector: scores (B, 2^n) centred and scaled to max|v| in [0.5, 1), zeta (B,).

    None where ζ is 0 or the arithmetic gives out before a gap of 1e-4.
    """
    program = lattice_program(scores.shape[1].bit_length() - 1)
    found: list[Iterate | None] = [None] * len(scores)
    if program.n > MOST_VARIABLES:
        return found
    todo = np.flatnonzero(zeta > 0.0)
    size = max(1, int(MOST_BYTES / (8 * program.n_states * program.n_columns)))
    for start in range(0, len(todo), size):
        part = todo[start : start + size]
        for index, point in zip(part.tolist(), _solve(device, program, scores[part], zeta[part]), strict=True):
            found[index] = point
    return found


@dataclass(eq=False)
class _State:
    """Pairs (B, 2 m + 2 R) as in `interior_point`, and u (B, R)."""

    primal: torch.Tensor
    dual: torch.Tensor
    u: torch.Tensor


class _Batch:
    """B programs that share D."""

    def __init__(self, device: torch.device, program: LatticeProgram, v: Floats, zeta: Floats) -> None:
        def tensor(values: Floats) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float64, device=device)

        rows = np.arange(1, program.n_states)  # x_∅ is matched by construction
        self.m, self.r = program.n_columns, len(rows)
        self.d = tensor(program.entries(rows, np.arange(self.m)))
        self.v, self.zeta = tensor(v[:, 1:]), tensor(zeta)[:, None]
        self.weights = tensor(program.weights)

    def start(self) -> _State:
        ridge = RIDGE * torch.eye(self.r, dtype=torch.float64, device=self.d.device)
        least = torch.linalg.solve(self.d @ self.d.T + ridge, self.v.T).T @ self.d
        centre = least.abs().mean(dim=1, keepdim=True).clamp_min(TINY)
        r = torch.clamp(least @ self.d.T - self.v, -0.9 * self.zeta, 0.9 * self.zeta)
        primal = torch.cat(
            [least.clamp_min(0) + centre, (-least).clamp_min(0) + centre, self.zeta - r, self.zeta + r], 1
        )
        twice = self.weights.expand(len(self.v), -1)
        slack = (centre / self.zeta).expand(-1, 2 * self.r)
        return _State(primal, torch.cat([twice, twice, slack], 1), torch.zeros_like(self.v))

    def effects(self, state: _State) -> torch.Tensor:
        return state.primal[:, : self.m] - state.primal[:, self.m : 2 * self.m]

    def residual(self, state: _State) -> torch.Tensor:
        """v + r − D x: (B, R)."""
        upper, lower = state.primal[:, 2 * self.m :].chunk(2, dim=1)
        return self.v + 0.5 * (lower - upper) - self.effects(state) @ self.d.T

    def gap(self, state: _State) -> torch.Tensor:
        """Relative distance to the dual bound of u, the residual added: (B,)."""
        excess = ((state.u @ self.d).abs() / self.weights).amax(1).clamp_min(1.0)
        bound = ((self.v * state.u).sum(1) - self.zeta[:, 0] * state.u.abs().sum(1)) / excess
        cost = (self.weights * self.effects(state).abs()).sum(1)
        gap = (cost - bound).abs() / cost + self.residual(state).abs().amax(1)
        return torch.where(gap.isfinite(), gap, torch.inf)


class _Newton:
    """Directions of a batch at one point, with one factorisation each."""

    def __init__(self, batch: _Batch, state: _State) -> None:
        self.batch, self.state = batch, state
        ratio = state.primal / state.dual
        plus, minus, upper, lower = ratio.split([batch.m, batch.m, batch.r, batch.r], dim=1)
        self.slack = 1.0 / (1.0 / upper + 1.0 / lower)
        normal = (batch.d * (plus + minus)[:, None, :]) @ batch.d.T
        normal.diagonal(dim1=1, dim2=2).add_(self.slack)
        self.factor, info = torch.linalg.cholesky_ex(normal)
        self.definite = info == 0
        self.residual = batch.residual(state)

    def direction(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Changes of (primal, dual, u) for which primal·dual moves by `target` to first order."""
        batch, primal, dual = self.batch, self.state.primal, self.state.dual
        m2 = 2 * batch.m
        plus, minus = (target[:, :m2] / dual[:, :m2]).chunk(2, dim=1)
        upper, lower = (target[:, m2:] / primal[:, m2:]).chunk(2, dim=1)
        right = self.residual - (plus - minus) @ batch.d.T + self.slack * (lower - upper)
        du = torch.cholesky_solve(right[:, :, None], self.factor)[:, :, 0]
        price, dr = du @ batch.d, self.slack * (lower - upper - du)
        d_dual = torch.cat([-price, price, torch.zeros_like(upper), torch.zeros_like(lower)], 1)
        d_primal = torch.cat([(target[:, :m2] - primal[:, :m2] * d_dual[:, :m2]) / dual[:, :m2], -dr, dr], 1)
        d_dual[:, m2:] = (target[:, m2:] - dual[:, m2:] * d_primal[:, m2:]) / primal[:, m2:]
        return d_primal, d_dual, du


def _solve(device: torch.device, program: LatticeProgram, v: Floats, zeta: Floats) -> Iterator[Iterate | None]:
    batch = _Batch(device, program, v, zeta)
    state = batch.start()
    best, least = state, batch.gap(state)
    for _ in range(MOST_STEPS):
        newton = _Newton(batch, state)
        state = _stepped(state, newton)
        gap = torch.where(newton.definite, batch.gap(state), torch.inf)
        better = gap < least
        best = _State(
            *(torch.where(better[:, None], new, old) for new, old in zip(_parts(state), _parts(best), strict=True))
        )
        least = torch.minimum(gap, least)
        if bool(((least < CLOSE_ENOUGH) | ~gap.isfinite()).all()):
            break
    effects = batch.effects(best).cpu().numpy()
    primal, dual, u = (part.cpu().numpy() for part in _parts(best))
    for index, gap_of_one in enumerate(least.tolist()):
        yield _as_iterate(program, primal[index], dual[index], u[index], effects[index]) if gap_of_one < 1e-4 else None


def _parts(state: _State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return state.primal, state.dual, state.u


def _stepped(state: _State, newton: _Newton) -> _State:
    """Mehrotra's predictor and corrector."""
    products = state.primal * state.dual
    mean = products.mean(dim=1, keepdim=True)
    d_primal, d_dual, _ = newton.direction(-products)
    reached = (state.primal + _longest(state.primal, d_primal) * d_primal) * (
        state.dual + _longest(state.dual, d_dual) * d_dual
    )
    aim = mean * (reached.mean(dim=1, keepdim=True) / mean).clamp_max(1.0) ** 3
    d_primal, d_dual, du = newton.direction(aim - products - d_primal * d_dual)
    along_primal = BACK_OFF * _longest(state.primal, d_primal)
    along_dual = BACK_OFF * _longest(state.dual, d_dual)
    return _State(
        (state.primal + along_primal * d_primal).clamp_min(TINY),
        (state.dual + along_dual * d_dual).clamp_min(TINY),
        state.u + along_dual * du,
    )


def _longest(values: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The largest α ≤ 1 of each vector that keeps values + α·change ≥ 0: (B, 1)."""
    return 1.0 / (-change / values).amax(dim=1, keepdim=True).clamp_min(1.0)


def _as_iterate(program: LatticeProgram, primal: Floats, dual: Floats, u: Floats, x: Floats) -> Iterate:
    """With the row of x_∅, which the batch leaves out, put back: it has all the room there is."""
    m2, rows = 2 * program.n_columns, program.n_states - 1

    def padded(values: Floats, fill: float) -> Floats:
        upper, lower = values[m2 : m2 + rows], values[m2 + rows :]
        return np.concatenate([values[:m2], [fill], upper, [fill], lower])

    return Iterate(
        primal=padded(primal, 1.0), dual=padded(dual, TINY), u=np.concatenate([[0.0], u]), x=x, residual=0.0, step=0
    )
