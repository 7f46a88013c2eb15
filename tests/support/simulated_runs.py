"""Runs whose three events are known, as curves: N_eff, soft removed and soft emerged of every probe and checkpoint.

Sizes and noise are those of the sample runs: some 30 effective interactions a probe that fall to half and then grow
past the start; probes differ in size and in how much they follow; each number has 12 % noise of its own besides
Poisson's, and every checkpoint 4 % that all probes share. What else all probes may share (noise that goes on, a
random walk) is added for the kinds that are named after it.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sftscope.store.held_out_file import HeldOutRows

Floats = NDArray[np.float64]


class Kind(StrEnum):
    """What the runs do. The kinds of `TWO_STAGES` fall and then grow, all others do not."""

    TWO = "fall, then growth"
    CURVED = "curved fall, then growth"
    JUMP_5 = "fall, then five times as many within a checkpoint"
    JUMP_20 = "fall, then twenty times as many within a checkpoint"
    PLATEAU = "fall, plateau, growth"
    FALL = "fall, then stay"
    RISE = "stay, then rise"
    FLAT = "stay"
    ONLY_FALL = "fall throughout"
    ONLY_RISE = "rise throughout"
    AR = "stay, AR(0.8) noise of 15 %"
    WALK = "random walk of 10 %"
    FALL_AR = "fall, then stay, AR(0.8) noise of 15 %"
    RISE_AR = "stay, then rise, AR(0.8) noise of 15 %"
    NOISE = "stay, noise of 15 %"
    ONE_PROBE = "all stay but one that is ten times as large, which falls and grows"
    HALVES = "half the probes only fall, the others only rise"


class LossKind(StrEnum):
    """What a held-out loss does after its fall to the turn; 2 % noise, that of an evaluation on changing rows."""

    FLAT = "held-out loss flat after its turn, 2 % noise"
    UP_70 = "held-out loss up by 70 % after its turn"
    DOWN_20 = "held-out loss down by another 20 % after its turn"
    DOWN_5 = "held-out loss down by another 5 % after its turn"


AR = 0.8  # how much of a checkpoint's shared noise stays until the next
LONG = (Kind.WALK, Kind.ONLY_FALL)  # of 30 checkpoints in the benchmark, the others of 14
TWO_STAGES = (Kind.TWO, Kind.CURVED, Kind.JUMP_5, Kind.JUMP_20, Kind.PLATEAU)
GROWING = (*TWO_STAGES, Kind.RISE, Kind.RISE_AR, Kind.ONLY_RISE)  # strength emerges, more and more of it


@dataclass(frozen=True)
class SimulatedRun:
    """effective, removed, emerged: (P, T). Indices of the true events: -1 where there are no two stages.

    sparsest: the middle of the lowest stretch. emergence: the first checkpoint with more than at the lowest.
    """

    effective: Floats
    removed: Floats
    emerged: Floats
    removal: int
    sparsest: int
    emergence: int

    @property
    def steps(self) -> NDArray[np.int64]:
        """Numbers of the checkpoints, (T,)."""
        return np.arange(self.effective.shape[1], dtype=np.int64) * 10


def simulate(rng: np.random.Generator, kind: Kind, *, probes: int = 16, steps: int = 14) -> SimulatedRun:
    """A run; the fall ends anywhere from the 4th checkpoint on, the growth takes the last four at least."""
    end = int(rng.integers(3, steps - 4))
    begin = end
    if kind is Kind.PLATEAU:
        end = int(rng.integers(3, max(4, steps // 3)))
        begin = int(rng.integers(end + 3, steps - 3))
    place = np.arange(steps)
    done = np.clip(place / end, 0, 1)
    grown = np.clip((place - begin) / (steps - 1 - begin), 0, 1)
    level, shared = _level(kind, done, grown, probes, steps), _shared_noise(rng, kind, steps)
    size = rng.lognormal(np.log(30), 0.4, probes)[:, None]
    if kind is Kind.ONE_PROBE:
        size[0] = 300
    follow = np.clip(rng.normal(1, 0.25, probes), 0.2, None)[:, None]
    own, common = 1 + 0.12 * rng.normal(size=(probes, steps)), 1 + 0.04 * rng.normal(size=steps)
    expected = size * np.clip(1 + (level - 1) * follow, 0.05, None) * own * common * np.exp(shared)
    effective = rng.poisson(np.clip(expected, 0, None)) + 0.5

    removed = 0.9 * done * (1 - 0.15 * grown)
    times = level[0] / level[0].min() if kind in (Kind.JUMP_5, Kind.JUMP_20) else 1 + 4 * grown
    emerged = 0.4 * np.sqrt(done) * np.where((place > begin) & (kind in GROWING), times, 1.0) * np.exp(shared)
    return SimulatedRun(
        effective,
        np.clip(removed * (1 + 0.03 * rng.normal(size=(probes, steps)) + 0.01 * rng.normal(size=steps)), 0, 1),
        emerged * np.exp(0.25 * rng.normal(size=(probes, steps)) + 0.05 * rng.normal(size=steps)),
        *(
            (int((removed >= 0.95 * removed.max()).argmax()), (end + begin) // 2, begin + 1)
            if kind in TWO_STAGES
            else (-1,) * 3
        ),
    )


def _level(kind: Kind, done: Floats, grown: Floats, probes: int, steps: int) -> Floats:
    """What the expected number of each probe is times its start: (P, T)."""
    curved = (np.exp(-2 * done) - 1) / (1 - np.exp(-2))
    place, jumped = np.arange(steps) / (steps - 1), grown > 0
    if kind is Kind.HALVES:
        return np.where(np.arange(probes)[:, None] % 2 == 0, 1 - 0.7 * done, 1 + 3 * grown)
    if kind is Kind.ONE_PROBE:
        return np.where(np.arange(probes)[:, None] == 0, 1 - 0.5 * done + 0.6 * grown, 1.0)
    level = {
        Kind.TWO: 1 - 0.5 * done + 0.6 * grown,
        Kind.PLATEAU: 1 - 0.5 * done + 0.6 * grown,
        Kind.CURVED: 1 + 0.5 * curved + 0.6 * grown,
        Kind.JUMP_5: (1 - 0.5 * done) * np.where(jumped, 5, 1),
        Kind.JUMP_20: (1 - 0.5 * done) * np.where(jumped, 20, 1),
        Kind.FALL: 1 - 0.5 * done,
        Kind.FALL_AR: 1 - 0.5 * done,
        Kind.RISE: 1 + 0.6 * grown,
        Kind.RISE_AR: 1 + 0.6 * grown,
        Kind.ONLY_FALL: 1 - 0.8 * place,
        Kind.ONLY_RISE: 1 + 2 * place,
    }.get(kind, np.ones(steps))
    return np.tile(level, (probes, 1))


def _shared_noise(rng: np.random.Generator, kind: Kind, steps: int) -> Floats:
    """Of the logarithm, at every checkpoint, the same for all probes: (T,)."""
    if kind is Kind.WALK:
        return np.cumsum(0.1 * rng.normal(size=steps))
    if kind is Kind.NOISE:
        return 0.15 * rng.normal(size=steps)
    if kind in (Kind.AR, Kind.FALL_AR, Kind.RISE_AR):
        return autoregression(rng, steps, AR, 0.15)
    return np.zeros(steps)


def autoregression(rng: np.random.Generator, steps: int, stays: float, size: float) -> Floats:
    """Noise of which the share `stays` stays until the next checkpoint, with the standard deviation `size`: (T,)."""
    noise = np.empty(steps)
    noise[0] = size * rng.normal()
    for step in range(1, steps):
        noise[step] = stays * noise[step - 1] + np.sqrt(1 - stays**2) * size * rng.normal()
    return noise


def simulate_loss(
    rng: np.random.Generator, kind: LossKind, *, steps: int = 14, noise: float = 0.02
) -> tuple[NDArray[np.int64], Floats, int]:
    """Steps (T,), a held-out loss (T,), and the index of its turn."""
    turn, place = int(rng.integers(3, steps - 4)), np.arange(steps)
    after = np.clip((place - turn) / (steps - 1 - turn), 0, 1)
    change = {LossKind.UP_70: 0.7, LossKind.DOWN_20: -0.2, LossKind.DOWN_5: -0.05}.get(kind, 0.0)
    values = (1 + 3 * np.exp(-3 * np.clip(place / turn, 0, 1)) - 3 * np.exp(-3)) * (1 + change * after)
    return place * 10, values * (1 + noise * rng.normal(size=steps)), turn


def simulate_rows(rng: np.random.Generator, change: float, *, rows: int = 400, steps: int = 14) -> HeldOutRows:
    """Losses of rows that fall to the 5th checkpoint, and by `change` from there to the last.

    Rows differ by a factor of e^0.8; what a row does by itself between two checkpoints has 10 % of its loss.
    """
    place = np.arange(steps)
    after = np.clip((place - 4) / (steps - 5), 0, 1)
    shape = (1 + 3 * np.exp(-3 * np.clip(place / 4, 0, 1)) - 3 * np.exp(-3)) * (1 + change * after)
    size = rng.lognormal(0, 0.8, rows)
    own = np.stack([autoregression(rng, steps, AR, 0.1) for _ in range(rows)], axis=1)
    tokens = rng.integers(1, 6, rows)
    loss = shape[:, None] * size * (1 + own) * tokens
    none = np.zeros((0, 0), dtype=np.bool_)
    return HeldOutRows(place * 10, loss, tokens, np.zeros(0, dtype=np.int64), none)
